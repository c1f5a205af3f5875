"""The encoder: which modules serve where, what is recomputed, and what is refused."""

from dataclasses import replace

import pytest
import torch
from tolerance import assert_close

from perceivers.inputs.elements import Elements
from perceivers.models.encoder import PerceiverEncoder, PerceiverEncoderConfig
from perceivers.models.perceiver import Perceiver

TINY = PerceiverEncoderConfig(
    num_latents=4,
    latent_channels=8,
    num_cross_attends=3,
    num_blocks=3,
    num_self_attends_per_block=2,
    num_self_attend_heads=2,
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
