"""The encoder: which modules serve where, what is recomputed, and what is refused."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import linear

from perceivers.cross_attention import source
from perceivers.inputs.elements import Elements, GridPositions, MaskedElements
from perceivers.models.encoder import PerceiverEncoder, PerceiverEncoderConfig
from perceivers.models.perceiver import Perceiver
from support.models import tiny_encoder
from support.tolerance import assert_close

TINY = tiny_encoder(
    latent_channels=8, num_cross_attends=3, num_blocks=3, num_self_attends_per_block=2
)


def unrolled(encoder, elements):
    """The loop of the papers, written out from the lists of modules."""
    config = encoder.config
    x, z = elements.dense(), encoder.latents.expand(elements.content.shape[0], -1, -1)
    reads, blocks = encoder.cross_attends, encoder.blocks
    if config.cross_attends_at == "start":
        for t in range(config.num_cross_attends):
            z = reads[min(t, len(reads) - 1)](z, x)
    for t in range(config.num_blocks):
        if config.cross_attends_at == "interleaved" and t < config.num_cross_attends:
            z = reads[min(t, len(reads) - 1)](z, x)
        for layer in blocks[min(t, len(blocks) - 1)]:
            z = layer(z)
    return z


@pytest.mark.parametrize("at", ["interleaved", "start"])
@pytest.mark.parametrize(("reads", "modules"), [("all_but_first", 2), ("all", 1), ("none", 3)])
@pytest.mark.parametrize("share_blocks", [True, False])
def test_each_rule_of_sharing_uses_the_modules_it_says(at, reads, modules, share_blocks):
    config = replace(
        TINY, cross_attends_at=at, share_cross_attends=reads, share_blocks=share_blocks
    )
    encoder = PerceiverEncoder(config, input_channels=6)
    assert len(encoder.cross_attends) == modules
    assert len(encoder.blocks) == (1 if share_blocks else 3)
    elements = Elements(torch.randn(2, 5, 6))
    assert_close(encoder([elements]), unrolled(encoder, elements))


def test_reads_are_spread_over_the_blocks():
    config = PerceiverEncoderConfig(num_cross_attends=4)
    assert [config.reads_before(b) for b in range(8)] == [(0,), (), (1,), (), (2,), (), (3,), ()]
    config = PerceiverEncoderConfig(num_cross_attends=3)
    assert [b for b in range(8) if config.reads_before(b)] == [0, 2, 5]
    config = PerceiverEncoderConfig(num_cross_attends=9, cross_attends_at="start")
    assert config.reads_before(0) == tuple(range(9))
    assert config.reads_before(1) == ()


def recompute(encoder, kind):
    model = Perceiver({}, encoder, torch.nn.Identity())
    model.set_grad_checkpointing(kind == "layers", mlp=kind == "mlps")


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("kind", ["layers", "mlps"])
def test_checkpointing_gives_the_same_gradients(share, kind):
    config = replace(
        TINY, share_blocks=share, share_cross_attends="all_but_first" if share else "none"
    )
    encoder = PerceiverEncoder(config, input_channels=6).double()
    elements = Elements(torch.randn(2, 5, 6, dtype=torch.float64))

    def gradients():
        encoder.zero_grad()
        encoder([elements]).square().sum().backward()
        return [p.grad.clone() for p in encoder.parameters()]

    plain = gradients()
    recompute(encoder, kind)
    for ours, theirs in zip(gradients(), plain, strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize(("kind", "share"), [("layers", 0.5), ("mlps", 0.85)])
def test_checkpointing_keeps_less(kind, share):
    encoder = PerceiverEncoder(TINY, input_channels=6)
    elements = Elements(torch.randn(2, 50, 6))

    def kept():
        size = 0

        def pack(tensor):
            nonlocal size
            size += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            encoder([elements])
        return size

    plain = kept()
    recompute(encoder, kind)
    assert kept() < plain * share
    encoder.eval()
    assert kept() > plain * share  # nothing to save where nothing is trained


def test_every_weight_gets_a_gradient():
    encoder = PerceiverEncoder(TINY, input_channels=6)
    encoder([Elements(torch.randn(2, 5, 6))]).square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_a_model_may_only_read():
    encoder = PerceiverEncoder(replace(TINY, num_self_attends_per_block=0), input_channels=6)
    assert encoder([Elements(torch.randn(2, 5, 6))]).shape == (2, 4, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_cross_attends": 9}, r"num_cross_attends=9 must lie between 1 and num_blocks=3"),
        ({"num_latents": 0}, r"num_latents must be at least 1, got 0"),
        ({"num_self_attends_per_block": -1}, r"must not be negative, got -1"),
    ],
)
def test_what_cannot_be_built_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)


def clip(frames=4, cells=6, channels=3, mask=None):
    """Elements of a film, frames x (2 x 3) cells, and what they are without a grid."""
    positions = GridPositions(
        (torch.randn(frames, 1), torch.randn(2, 1), torch.randn(3, 1)), ((0,), (2,), (1,))
    )
    return Elements(torch.randn(2, frames * cells, channels), positions, mask=mask)


def test_a_part_of_the_time_of_a_grid_is_a_grid():
    where = torch.rand(2, 24) < 0.3
    mask = torch.rand(2, 24) < 0.8
    whole = replace(
        clip(mask=mask),
        modality_embedding=torch.randn(2),
        masked=MaskedElements(where, token=torch.randn(8)),
    )
    parts = [whole.time_part(part, 2) for part in range(2)]
    assert [part.positions.sizes for part in parts] == [(2, 2, 3), (2, 2, 3)]
    assert_close(torch.cat([part.dense() for part in parts], dim=1), whole.dense())
    assert torch.equal(torch.cat([part.mask for part in parts], dim=1), mask)
    assert [whole.time_part(part, 3).positions.sizes[0] for part in range(3)] == [1, 1, 2]


@pytest.mark.parametrize("positions", [None, (9, 2), (2, 9, 2)])
def test_a_part_of_elements_without_a_grid_is_a_stretch_of_them(positions):
    positions = None if positions is None else torch.randn(positions)
    whole = Elements(torch.randn(2, 9, 4), positions)
    assert whole.first_axis == 9
    parts = [whole.time_part(part, 2) for part in range(2)]
    assert [part.num_elements for part in parts] == [4, 5]
    assert_close(torch.cat([part.dense() for part in parts], dim=1), whole.dense())


@pytest.mark.parametrize("path", ["auto", "structured", "absorbed", "projected"])
@pytest.mark.parametrize("share", ["all_but_first", "all", "none"])
def test_each_read_may_get_its_own_part_of_the_time(path, share):
    config = replace(
        TINY,
        share_cross_attends=share,
        unroll_time=True,
        attn_implementation=path,
        num_cross_attends=2,
    )
    encoder = PerceiverEncoder(config, input_channels=6).eval()
    film, table = clip(), Elements(torch.randn(2, 1, 6))
    z = encoder.latents.expand(2, -1, -1)
    for depth in range(3):
        for t in config.reads_before(depth):
            frames = film.dense()[:, 12 * t : 12 * t + 12]  # a table is read whole each time
            read = encoder.cross_attends[min(t, len(encoder.cross_attends) - 1)]
            z = read(z, torch.cat([frames, table.dense()], dim=1))
        for layer in encoder.blocks[0]:
            z = layer(z)
    assert_close(encoder([film, table]), z)


def test_unrolled_reads_of_padding_read_nothing():
    config = replace(TINY, unroll_time=True, num_cross_attends=2)
    encoder = PerceiverEncoder(config, input_channels=6).eval()
    real = torch.arange(24).expand(2, 24) < 12
    film = clip(mask=real)
    other = replace(film, content=film.content.masked_fill(~real[..., None], 7.0))
    out = encoder([film])
    assert out.isfinite().all()
    assert_close(encoder([other]), out)


def test_a_single_read_has_nothing_to_unroll():
    config = replace(TINY, num_cross_attends=1)
    encoder = PerceiverEncoder(config, input_channels=6)
    unrolling = PerceiverEncoder(replace(config, unroll_time=True), input_channels=6)
    unrolling.load_state_dict(encoder.state_dict())
    film = clip()
    assert torch.equal(unrolling([film]), encoder([film]))


def test_recomputed_unrolled_reads_give_the_same_gradients():
    config = replace(TINY, unroll_time=True)
    encoder = PerceiverEncoder(config, input_channels=6).double()
    film = clip(frames=3)
    positions = film.positions
    tables = tuple(table.double() for table in positions.tables)
    film = replace(film, content=film.content.double(), positions=replace(positions, tables=tables))

    def gradients():
        encoder.zero_grad()
        encoder([film]).square().sum().backward()
        return [p.grad.clone() for p in encoder.parameters()]

    plain = gradients()
    recompute(encoder, "layers")
    for ours, theirs in zip(gradients(), plain, strict=True):
        assert_close(ours, theirs)


def test_too_little_time_to_unroll_is_refused():
    encoder = PerceiverEncoder(replace(TINY, unroll_time=True), input_channels=6)
    with pytest.raises(
        ValueError, match=r"among num_cross_attends=3 reads, but it has only 2 cells"
    ):
        encoder([clip(frames=2)])


@pytest.mark.parametrize("share", ["none", "all_but_first"])
def test_keys_and_values_of_all_cross_attends_come_from_one_product_in_training(share, monkeypatch):
    config = tiny_encoder(
        num_cross_attends=3,
        num_blocks=3,
        share_cross_attends=share,
        attn_implementation="projected",
    )
    encoder = PerceiverEncoder(config, input_channels=5).double()
    for layer in encoder.cross_attends:  # another norm for each
        torch.nn.init.normal_(layer.source_norm.weight)
        torch.nn.init.normal_(layer.source_norm.bias)
    mask = torch.rand(2, 7) > 0.3
    mask[0] = False

    def outputs_and_gradients(products):
        calls = []

        def product(*args):
            calls.append(args)
            return linear(*args)

        content = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(1)).double()
        content.requires_grad_()
        with monkeypatch.context() as patch:
            patch.setattr(source, "linear", product)
            if not products:
                patch.setattr(source, "_can_project_together", lambda layers: False)
            out = encoder([Elements(content, mask=mask)])
        assert len(calls) == products
        return [out, *torch.autograd.grad(out.square().sum(), [content, *encoder.parameters()])]

    for one, other in zip(outputs_and_gradients(1), outputs_and_gradients(0), strict=True):
        assert_close(one, other)
