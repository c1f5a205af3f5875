"""Masking of single elements: one mask for all groups, hidden values that reach nothing, and elements in order."""

import dataclasses
from dataclasses import replace

import pytest
import torch

from perceivers.inputs.image import ConvInputConfig, PixelInputConfig
from perceivers.inputs.series import BankSeriesInputConfig
from perceivers.models.hip_config import hip_config
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.nn.permutation import fixed_permutation
from perceivers.outputs.heads import MeanPoolConfig
from perceivers.recipes import mae
from perceivers.recipes.elements import with_layout
from perceivers.recipes.hip import own_hip, size_of
from perceivers.recipes.hip_mae import hip_masked_autoencoder_for
from perceivers.recipes.mae import element_masking_of
from perceivers.recipes.registry import get_recipe
from perceivers.tasks.base import forward_task
from perceivers.tasks.masked_autoencode import MaskedAutoencodeTask
from perceivers.tasks.masking import GridMaskingConfig
from perceivers.tasks.masking_elements import ElementLayout, ElementsMaskingConfig

IMAGE = PixelInputConfig(size=(16, 16), positions=None)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def part_of(layout=None, config=IMAGE, **changes) -> ElementsMaskingConfig:
    """Return the masking of an image of 16 x 16 pixels, in 4 groups of 4 rows unless the layout states others."""
    layout = layout or ElementLayout(axes={"x": (16, 16)}, rows={"x": 64})
    return (
        ElementsMaskingConfig(**changes).fit_to_input("x", config, None).fit_to_layout("x", layout)
    )


def hidden_of(part, count: int = 2) -> torch.Tensor:
    x = drawn(count, 3, 16, 16)
    units = part.draw(x, None, torch.rand(count, part.num_units))
    return part.hidden_elements(units)


def test_all_groups_of_a_sample_have_the_same_mask():
    hidden = hidden_of(part_of(hidden=0.75)).unflatten(1, (4, 64))
    assert (hidden == hidden[:, :1]).all()
    assert hidden[:, 0].sum(dim=1).tolist() == [48, 48]
    assert not torch.equal(hidden[0], hidden[1])


def test_groups_of_permuted_elements_have_the_same_mask():
    layout = ElementLayout(axes={"x": (16, 16)}, rows={"x": 64}, permute=7)
    hidden = hidden_of(part_of(layout))
    in_model = hidden[:, fixed_permutation(256, 7)].unflatten(1, (4, 64))
    assert (in_model == in_model[:, :1]).all()
    in_order = hidden.unflatten(1, (4, 64))
    assert not (in_order == in_order[:, :1]).all()


@pytest.mark.parametrize(
    ("changes", "rows"), [({"groupwise": False}, 64), ({}, 3), ({}, 256), ({}, None)]
)
def test_without_large_groups_elements_are_hidden_independently(changes, rows):
    layout = ElementLayout(axes={"x": (16, 16)}, rows={} if rows is None else {"x": rows})
    part = part_of(layout, **changes)
    assert part.num_units == 256
    assert hidden_of(part).sum(dim=1).tolist() == [205, 205]


def test_blocks_of_a_group_are_hidden():
    part = part_of(block=(2, 4), hidden=0.5)
    assert part.num_units == 2 * 4
    image = hidden_of(part).unflatten(1, (16, 16))
    blocks = image.unfold(1, 2, 2).unfold(2, 4, 4)
    assert (blocks == blocks[..., :1, :1]).all()
    assert torch.equal(image[:, :4], image[:, 4:8])
    alone = part_of(block=(8, 8), groupwise=False)
    assert alone.num_units == 4


@pytest.mark.parametrize(
    ("changes", "layout", "message"),
    [
        ({"block": (8, 4)}, None, "at most 4 x 16"),
        ({"block": (4, 16)}, None, "at least two blocks"),
        ({"block": (0, 4)}, None, "at least 1 cell"),
        ({"block": (2, 2)}, {"rows": {"x": 60}}, "no whole number of rows"),
        ({"block": (2, 2)}, {"permute": 7}, "no whole number of rows"),
        ({"patch": (2, 2)}, None, "the cells of an element"),
        ({"hidden": 1.0}, None, "hidden share"),
    ],
)
def test_masks_that_do_not_fit_are_refused(changes, layout, message):
    known = {"axes": {"x": (16, 16)}, "rows": {"x": 64}}
    with pytest.raises(ValueError, match=message):
        part_of(ElementLayout(**{**known, **(layout or {})}), **changes)


def test_elements_that_are_no_parts_of_the_values_are_refused():
    recipe = hip_masked_autoencoder_for({"series": "series"})
    inputs = {"series": BankSeriesInputConfig(length=60, num_channels=2, channels=4)}
    task = recipe.task.fit_to_inputs(inputs, {})
    with pytest.raises(ValueError, match="equal parts of its 60 values"):
        with_layout(task, inputs, recipe.encoder, None)
    layout = ElementLayout(axes={"x": (1, 1)}, rows={})
    with pytest.raises(ValueError, match="single element"):
        part_of(layout, PixelInputConfig(size=(1, 1), positions=None))


def test_elements_of_convolved_images_are_blocks_of_pixels():
    layout = ElementLayout(axes={"x": (4, 4)}, rows={})
    part = part_of(layout, ConvInputConfig(size=(16, 16)))
    assert (part.patch, part.num_outputs, part.grid) == ((4, 4), 48, (4, 4))


def test_modalities_without_a_masking_of_elements_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="'frame_pair' has no defaults"):
        hip_masked_autoencoder_for({"pair": "frame_pair"})
    with pytest.raises(ValueError, match="which parts of 'pair'"):
        element_masking_of("pair", "frame_pair")
    monkeypatch.setitem(mae._MASKINGS, "smell", mae._Masking(GridMaskingConfig(), None, None))
    with pytest.raises(ValueError, match=r"single elements of 'x' \(smell\).* known of image"):
        element_masking_of("x", "smell")


SIZES = {
    "image": {"size": (16, 16)},
    "audio": {"size": (12, 8)},
    "wave": {"num_samples": 400},
    "series": {"length": 40, "num_channels": 2},
    "array": {"length": 24, "num_channels": 3, "num_coordinates": 2},
    "points": {"num_points": 64},
    "table": {"num_numbers": 3, "category_sizes": (2, 3)},
    "text": {"max_length": 50},
    "video": {"num_frames": 4, "size": (16, 16)},
}


def samples(kind: str, batch: int = 3) -> torch.Tensor:
    if kind == "text":
        ids = torch.randint(97, 122, (batch, 50), generator=torch.Generator().manual_seed(2)) + 6
        ids[:, 4::5] = 32 + 6
        return ids
    if kind == "table":
        categories = torch.tensor([[0.0, 2.0], [1.0, 0.0], [1.0, 1.0]])[:batch]
        return torch.cat([drawn(batch, 3), categories], dim=1)
    shape = {
        "image": (3, 16, 16),
        "audio": (12, 8),
        "wave": (400, 1),
        "series": (40, 2),
        "array": (24, 5),
        "points": (64, 3),
        "video": (4, 3, 16, 16),
    }[kind]
    return drawn(batch, *shape).clamp(-1, 1)


def task_and_model(*kinds: str, permute=None, **changes):
    recipe = hip_masked_autoencoder_for({kind: kind for kind in kinds})
    inputs = {kind: dataclasses.replace(recipe.inputs[kind], **SIZES[kind]) for kind in kinds}
    task = dataclasses.replace(recipe.task, modality_dropout=0.0)
    parts = {name: dataclasses.replace(part, **changes) for name, part in task.parts.items()}
    task = dataclasses.replace(task, parts=parts).fit_to_inputs(inputs, {})
    task = with_layout(task, inputs, recipe.encoder, permute)
    torch.manual_seed(0)
    model = build(
        PerceiverConfig(
            inputs=inputs,
            encoder=recipe.encoder,
            output=recipe.output.fit_to(task.output_parts()),
            permute=permute,
        )
    )
    with torch.no_grad():
        for weight in model.parameters():  # outputs begin at zero
            weight.add_(0.05 * torch.randn_like(weight))
    return MaskedAutoencodeTask(task), model


@pytest.mark.parametrize("permute", [None, 7])
@pytest.mark.parametrize("kind", SIZES)
def test_every_modality_is_reconstructed_from_what_is_visible(kind, permute):
    task, model = task_and_model(kind, permute=permute)
    x = samples(kind)
    batch = task.prepare_batch({kind: x}, {}, None, training=False)
    outputs = forward_task(model, batch)
    hidden = batch.targets.real[kind]
    assert outputs.shape[:2] == hidden.shape[:2]
    loss = task.loss(outputs, batch.targets)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(weight.grad is not None for weight in model.parameters())
    seen = ~hidden.any(dim=2)
    assert seen.any()
    assert hidden.any()
    changed = torch.where(seen[..., None], outputs + 1.0, outputs)
    torch.testing.assert_close(task.loss(changed, batch.targets), loss)


@pytest.mark.parametrize("kind", ["image", "audio", "series", "array", "points"])
def test_outputs_are_independent_of_hidden_values(kind, monkeypatch):
    task, model = task_and_model(kind)
    part = task.config.parts[kind]
    x = samples(kind)
    units = part.draw(x, None, torch.rand(3, part.num_units))
    monkeypatch.setattr(type(part), "draw", lambda *_: units)
    if kind == "points":
        other = torch.where(part.hidden_elements(units)[..., None], x + 3.0, x)
    else:
        other = torch.where(part.filled(torch.ones_like(x), part.places(units)) == 0, x + 3.0, x)
    assert not torch.equal(x, other)
    found = [
        forward_task(model, task.prepare_batch({kind: one}, {}, None, training=False))
        for one in (x, other)
    ]
    assert torch.equal(*found)


def test_outputs_are_in_the_order_of_elements_although_these_are_permuted():
    _, plain = task_and_model("image")
    _, permuted = task_and_model("image", permute=7)
    order = fixed_permutation(256, 7)
    image = drawn(2, 3, 16, 16)
    shuffled = image.flatten(2)[..., order].unflatten(2, (16, 16))
    expected, found = plain({"image": shuffled}), permuted({"image": image})
    torch.testing.assert_close(found[:, order], expected)
    some = torch.tensor([3, 200])
    picked = permuted({"image": image}, index={"image": some})
    torch.testing.assert_close(picked, found[:, some])


def test_short_and_permuted_inputs_are_decoded_in_order():
    _, model = task_and_model("series", permute=7)
    x = samples("series")[:, :30]
    places = torch.cat([fixed_permutation(30, 7).argsort(), torch.arange(30, 40)])
    found = model({"series": x})
    inside = model.output(model.encode({"series": x}))["series"]
    torch.testing.assert_close(found, inside[:, places])


def test_outputs_may_follow_the_number_of_elements():
    _, model = task_and_model("text")
    (output,) = model.config.output.outputs.values()
    following = replace(model.config.output, outputs={"text": replace(output, follows_input=True)})
    x = samples("text")[:, :30]
    for permute in (None, 7):
        _, whole = task_and_model("text", permute=permute)
        short = build(replace(whole.config, output=following))
        short.load_state_dict(whole.state_dict())
        expected = whole({"text": x})
        torch.testing.assert_close(short({"text": x}), expected[:, :30])
        latents = short.encode({"text": x})
        torch.testing.assert_close(short.decode(latents, {"text": x}), expected[:, :30])
        assert not short.decodes_latents_alone
        assert whole.decodes_latents_alone == (permute is None)


def test_modalities_are_pretrained_together():
    task, model = task_and_model("image", "points", "table", "text")
    batch = task.prepare_batch(
        {kind: samples(kind) for kind in ("image", "points", "table", "text")},
        {},
        None,
        training=True,
    )
    loss = task.loss(forward_task(model, batch), batch.targets)
    loss.backward()
    assert torch.isfinite(loss)
    groups = own_hip("tiny").group_rows({"image": 256, "points": 64, "table": 5, "text": 50})
    assert task.config.parts["image"].rows == groups["image"]


def test_learned_positions_get_gradients_from_hidden_elements_of_all_places():
    task, model = task_and_model("image")
    batch = task.prepare_batch({"image": samples("image")}, {}, None, training=False)
    task.loss(forward_task(model, batch), batch.targets).backward()
    assert model.encoder.trunk.positions["image"].grad.abs().sum(dim=1).min() > 0


def test_a_sample_is_represented_by_the_middle_block():
    _, model = task_and_model("image")
    x = {"image": samples("image")}
    encoder = model.config.encoder.for_labels()
    shorter = build(
        dataclasses.replace(model.config, encoder=encoder, output=MeanPoolConfig(num_outputs=2))
    )
    shorter.load_state_dict(model.state_dict(), strict=False)
    torch.testing.assert_close(model.embed(x), shorter.encode(x).mean(dim=1))


def test_sizes_are_those_of_the_encoder():
    for size in ("tiny", "small", "mini"):
        assert size_of(own_hip(size)) == size
        assert get_recipe("hip_mae", size=size).encoder == dataclasses.replace(
            own_hip(size), latents="last"
        )
    assert get_recipe("hip_mae", size="mini").encoder == hip_config("hip_mini", latents="last")
    assert size_of(hip_config("hip_16")) == "tiny"


def test_the_mean_of_the_training_data_hides_values():
    part = part_of()
    x = drawn(2, 3, 16, 16)
    hidden = part.hide(x, None, part.draw(x, None, torch.rand(2, part.num_units)))
    places = hidden.hidden.any(dim=2).unflatten(1, (16, 16))[:, None]
    assert not hidden.x[places.expand_as(x)].any()
    assert torch.equal(hidden.x[~places.expand_as(x)], x[~places.expand_as(x)])


def test_the_share_is_of_real_elements():
    task, _ = task_and_model("series", groupwise=False, hidden=0.5)
    x, mask = samples("series"), torch.arange(40)[None].expand(3, -1) < 20
    batch = task.prepare_batch({"series": x}, {"series": mask}, None, training=False)
    hidden = batch.targets.real["series"].any(dim=2)
    assert hidden.sum(dim=1).tolist() == [10, 10, 10]
    assert not hidden[:, 20:].any()
