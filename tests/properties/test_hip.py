"""Properties of the Hierarchical Perceiver in float64: groups, masks, order of modalities, and dropout."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import layer_norm

from perceivers.models import hip_layers
from perceivers.models.hip import HierarchicalPerceiver
from perceivers.models.hip_config import HiPConfig, hip_blocks, hip_config
from perceivers.models.hip_groups import plan_groups, regroup
from perceivers.models.hip_layers import draw_kept, draw_latents

CONFIG = HiPConfig(
    blocks=hip_blocks(
        num_groups=(4, 2, 1, 2, 4),
        num_latents=(6, 4, 6, 4, 6),
        channels=(8, 12, 16, 6, 10),
        num_self_attends=(1, 1, 2, 1, 1),
        num_self_attend_heads=(2, 3, 4, 1, 2),
        num_cross_attend_heads=(2, 1, 3, 2, 1),
    ),
    embed_channels=8,
)
SIZES = {"audio": (11, 2), "image": (37, 3)}


def model_of(config=CONFIG, sizes=SIZES, labels=None):
    """Return a model with random weights everywhere, in float64."""
    torch.manual_seed(0)
    model = HierarchicalPerceiver(config, sizes, labels=labels).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def inputs_of(sizes=SIZES, batch=2):
    return {name: torch.randn(batch, *size, dtype=torch.float64) for name, size in sizes.items()}


def first_block(model, inputs):
    """Return the latents of the first block."""
    return model.trunk(inputs, run=lambda layer, *args: layer(*args))[0]


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


# -- groups ----------------------------------------------------------------------------------------------------------


def attend(attention, q, x):
    """Return attention of one group written out, a head at a time."""
    heads = []
    for h, (queries, keys, values) in enumerate(
        zip(
            *(layer(y).chunk(attention.num_heads, dim=-1) for layer, y in
              ((attention.to_query, q), (attention.to_key, x), (attention.to_value, x))),
            strict=True,
        )
    ):  # fmt: skip
        del h
        scores = queries @ keys.mT / math.sqrt(queries.shape[-1])
        heads.append(scores.softmax(dim=-1) @ values)
    return attention.to_output(torch.cat(heads, dim=-1))


def normed(norm, x):
    return layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)


def mlp(layer, x):
    first, _, last = layer.mlp
    return last(first(normed(layer.mlp_norm, x)).clamp(min=0) ** 2)


def block_by_loops(block, x, skip):
    """Return the latents of each group of one sample, a group at a time."""
    shape, out = block.config, []
    for group in range(shape.num_groups):
        rows = slice(group * shape.num_latents, (group + 1) * shape.num_latents)
        q = block.latents[rows]
        if skip is not None:
            q = q + (skip[group] if block.project_skip is None else block.project_skip(skip[group]))
        cross = block.cross_attend
        z = q + attend(
            cross.attention, normed(cross.query_norm, q), normed(cross.source_norm, x[group])
        )
        z = z + mlp(cross, z)
        for layer in block.self_attends:
            y = normed(layer.norm, z)
            z = z + attend(layer.attention, y, y)
            z = z + mlp(layer, z)
        out.append(z)
    return out


def merged(groups, count):
    """Return lists of rows regrouped in order."""
    rows = torch.cat(groups)
    return list(rows.split(len(rows) // count))


def test_batched_groups_are_a_loop_over_groups():
    sizes = {"image": (37, 3)}
    model, inputs = model_of(sizes=sizes), inputs_of(sizes)
    output = model(inputs)
    trunk = model.trunk
    table = trunk.positions["image"]
    for sample in range(2):
        rows = trunk.embed["image"](inputs["image"][sample]) + table
        # 37 rows in 4 groups of 10: three rows of zeros at the end.
        x = list(torch.cat([rows, torch.zeros(3, 8)]).split(10))
        outputs = []
        for number, block in enumerate(trunk.blocks):
            if number:
                x = merged(x, block.config.num_groups)
            x = block_by_loops(block, x, outputs[4 - number] if number > 2 else None)
            outputs.append(x)
        assert_close(output.latents[sample], torch.stack(x))
        assert_close(output.bottleneck[sample], outputs[2][0])
        head = model.reconstruct.head
        found = []
        for group, queries in enumerate(torch.cat([table, torch.zeros(3, 8)]).split(10)):
            q = normed(head.query_norm, queries)
            a = attend(head.attention, q, normed(head.source_norm, x[group]))
            found.append(a + mlp(head, a))
        expected = model.reconstruct.unembed["image"](torch.cat(found)[:37])
        assert_close(output.reconstruction["image"][sample], expected)


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=5), st.integers(1, 12))
def test_a_plan_keeps_every_element_in_order(counts, groups):
    named = {f"m{i}": count for i, count in enumerate(counts)}
    if 1 < groups < len(counts):
        with pytest.raises(ValueError, match=f"at most {groups} modalities"):
            plan_groups(named, groups)
        return
    plan = plan_groups(named, groups)
    assert plan.num_groups == groups
    arrays = {name: torch.rand(2, count, 3) for name, count in named.items()}
    grouped = plan.group(arrays)
    assert grouped.shape == (2, groups, plan.rows, 3)
    back = plan.ungroup(grouped)
    assert list(back) == list(named)
    for name, array in arrays.items():
        assert torch.equal(back[name], array)
    real = plan.group_masks({name: torch.ones(1, n, dtype=torch.bool) for name, n in named.items()})
    assert int(real.sum()) == sum(counts)
    assert plan.is_filled == (not bool(real.all()))
    assert not grouped[:, ~real[0]].any()


def test_published_groups():
    assert plan_groups({"image": 50_176}, 16).rows == 3136
    assert plan_groups({"image": 50_176}, 256).rows == 196
    film = {"audio": 122_880, "video": 401_408}
    plan = plan_groups(film, 16)
    assert [(part.groups, part.rows) for part in plan.parts.values()] == [(4, 30_720), (12, 33_451)]
    plan = plan_groups(film, 256)
    assert [(part.groups, part.rows) for part in plan.parts.values()] == [(60, 2048), (196, 2048)]
    assert not plan.is_filled


def test_transposed_regrouping_takes_latents_of_all_groups():
    x = torch.arange(12.0).reshape(1, 4, 3, 1)
    assert regroup(x, 2, "reshape")[0, 0, :, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert regroup(x, 3, "transpose_reshape")[0, 1, :, 0].tolist() == [1, 4, 7, 10]


def test_modalities_of_fewer_elements_than_groups_are_filled_up():
    model = model_of(sizes={"label": (3, 2)})
    assert model.trunk.plan.rows == 1
    assert model(inputs_of({"label": (3, 2)})).reconstruction["label"].shape == (2, 3, 2)


def test_groups_see_nothing_of_each_other_before_they_are_merged():
    model, inputs = model_of(), inputs_of()
    changed = inputs | {"image": inputs["image"].clone()}
    changed["image"][:, -1] += 1.0  # in the last group
    before, after = first_block(model, inputs), first_block(model, changed)
    assert torch.equal(before[:, :-1], after[:, :-1])
    assert not torch.allclose(before[:, -1], after[:, -1])


def test_the_order_of_modalities_is_that_of_the_groups():
    first, second = model_of(), model_of(sizes=dict(reversed(SIZES.items())))
    second.load_state_dict(first.state_dict())
    inputs = inputs_of()
    # The order of the dictionary of a call means nothing.
    shuffled = dict(reversed(inputs.items()))
    assert torch.equal(first(inputs).latents, first(shuffled).latents)
    audio, image = (first.trunk.plan.parts[name].groups for name in SIZES)
    assert (audio, image) == (1, 3)
    # With the latents of the groups in the other order, the first block returns the same in the other order.
    with torch.no_grad():
        second.trunk.blocks[0].latents.copy_(first.trunk.blocks[0].latents.roll(3 * 6, dims=0))
    mine, theirs = first_block(first, inputs), first_block(second, inputs)
    assert_close(mine.roll(3, dims=1), theirs)


def test_an_untrained_model_returns_zeros_and_trains_its_last_layer_first():
    model = HierarchicalPerceiver(CONFIG, SIZES, labels={"label": (1, 5)})
    inputs = {k: v.float() for k, v in inputs_of(SIZES | {"label": (1, 5)}).items()}
    found = model(inputs).reconstruction
    assert all(not x.any() for x in found.values())
    sum((x - 1).square().mean() for x in found.values()).backward()
    moved = {n for n, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert moved
    assert all(".unembed." in name for name in moved)


def test_learned_tables_have_the_variance_of_their_rows():
    model = HierarchicalPerceiver(hip_config("hip_mini"), {"image": (4096, 3)})
    assert model.trunk.positions["image"].std().item() == pytest.approx(1 / 64, rel=0.02)
    assert model.trunk.blocks[0].latents.std().item() == pytest.approx(2048**-0.5, rel=0.02)


# -- masks -----------------------------------------------------------------------------------------------------------


def masks_of(sizes):
    masks = {name: torch.rand(2, n) > 0.4 for name, (n, _) in sizes.items()}
    masks["audio"][0] = False  # a modality that a sample lacks: its group has nothing
    return masks


@pytest.mark.parametrize("attend_padding", [False, True])
def test_masked_elements_have_no_influence(attend_padding):
    config = replace(CONFIG, attend_padding=attend_padding)
    model, inputs, masks = model_of(config), inputs_of(), masks_of(SIZES)
    changed = {
        name: torch.where(masks[name][..., None], x, math.nan).requires_grad_()
        for name, x in inputs.items()
    }
    expected, found = model(inputs, masks), model(changed, masks)
    for name in SIZES:
        assert torch.equal(expected.reconstruction[name], found.reconstruction[name])
    found.latents.square().sum().backward()
    for name, x in changed.items():
        gradient = x.grad.masked_fill(masks[name][..., None], 0.0)
        assert not gradient.any()
        assert x.grad.isfinite().all()
    table = model.trunk.positions["audio"].grad
    nowhere = ~masks["audio"].any(dim=0)
    assert not table[nowhere].any()


def test_masked_elements_are_as_if_they_were_not_there():
    # Four groups of five; the last three of each are masked: as groups of two.
    config = replace(CONFIG, attend_padding=False)
    long, short = model_of(config, {"image": (20, 3)}), model_of(config, {"image": (8, 3)})
    kept = torch.arange(20) % 5 < 2
    state = long.state_dict()
    state["trunk.positions.image"] = state["trunk.positions.image"][kept]
    short.load_state_dict(state)
    inputs = inputs_of({"image": (20, 3)})
    found = long(inputs, {"image": kept.expand(2, -1)})
    expected = short({"image": inputs["image"][:, kept]})
    assert_close(found.latents, expected.latents)
    assert_close(found.reconstruction["image"][:, kept], expected.reconstruction["image"])


def test_a_mask_of_ones_changes_nothing():
    model, inputs = model_of(), inputs_of()
    ones = {name: torch.ones(2, n, dtype=torch.bool) for name, (n, _) in SIZES.items()}
    assert_close(model(inputs, ones).latents, model(inputs).latents)


def test_padding_of_groups_is_attended_to_as_zeros_or_masked():
    inputs, model = inputs_of(), model_of()
    masked = model_of(replace(CONFIG, attend_padding=False))
    masked.load_state_dict(model.state_dict())
    assert not torch.allclose(model(inputs).latents, masked(inputs).latents)
    even = {"image": (40, 3)}  # nothing to fill up
    first, second = model_of(sizes=even), model_of(masked.config, even)
    assert torch.equal(first(inputs_of(even)).latents.isnan(), torch.zeros(2, 4, 6, 10).bool())
    x = inputs_of(even)
    assert torch.equal(first(x).latents, second(x).latents)


# -- training --------------------------------------------------------------------------------------------------------


def test_drop_path_and_fewer_latents_are_for_training_only():
    blocks = list(CONFIG.blocks)
    blocks[2] = replace(blocks[2], num_train_latents=4)
    config = replace(CONFIG, blocks=tuple(blocks), drop_path=0.5, dropout=0.2)
    random, plain, inputs = model_of(config), model_of(), inputs_of()
    assert torch.equal(random(inputs).latents, plain(inputs).latents)
    random.train()
    one, two = random(inputs), random(inputs)
    assert one.bottleneck.shape == (2, 4, 16)
    assert not torch.allclose(one.latents, two.latents)


def test_a_dropped_layer_passes_on_its_input_and_a_kept_one_is_not_scaled(monkeypatch):
    layer = model_of(replace(CONFIG, drop_path=0.5)).trunk.blocks[1].self_attends[0]
    x = torch.randn(3 * 2, 4, 12, dtype=torch.float64)  # three samples of two groups
    expected = layer(x)
    kept = torch.tensor([0.0, 1.0, 0.0])
    monkeypatch.setattr(hip_layers, "draw_kept", lambda *_: kept)
    found = layer.train()(x)
    assert torch.equal(found[:2], x[:2])
    assert torch.equal(found[4:], x[4:])
    assert_close(found[2:4], expected[2:4])


def test_draws():
    device = torch.device("cpu")
    block = replace(CONFIG.blocks[2], num_train_latents=4)
    chosen = draw_latents(50, block, device)
    assert chosen.shape == (50, 1, 4)
    assert chosen.unique().tolist() == list(range(6))
    assert all(len(set(row.tolist())) == 4 for row in chosen[:, 0])
    kept = draw_kept(4000, 0.3, device)
    assert set(kept.tolist()) == {0.0, 1.0}
    assert kept.mean().item() == pytest.approx(0.7, abs=0.05)
