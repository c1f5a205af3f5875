import pytest
import torch

from perceivers.explain.attribution import attention as calls
from perceivers.explain.attribution.attention import watch_attention
from perceivers.explain.attribution.attribute import attribute, select_map
from perceivers.inputs.audio import WaveInputConfig
from perceivers.inputs.image import PixelInputConfig
from perceivers.models.perceiver import Perceiver, PerceiverConfig, build
from perceivers.models.transformer import TransformerEncoderConfig
from perceivers.outputs.heads import MeanPoolConfig
from support.models import tiny_encoder
from support.tolerance import assert_close

PICTURE = {"image": torch.rand(1, 3, 4, 6)}


def model(encoder=None) -> Perceiver:
    encoder = encoder or tiny_encoder(
        num_latents=7,
        latent_channels=8,
        num_blocks=2,
        num_cross_attends=2,
        num_cross_attend_heads=3,
        cross_attend_qk_channels=6,
        latent_init_scale=1.0,
    )
    config = PerceiverConfig(
        inputs={"image": PixelInputConfig(size=(4, 6))},
        encoder=encoder,
        output=MeanPoolConfig(num_outputs=3),
    )
    return build(config).eval()


@pytest.mark.parametrize("chunk", [1, 150, 2**24])
def test_chunks_of_latents_give_the_whole_maps_mean(chunk, monkeypatch):
    monkeypatch.setattr(calls, "CHUNK", chunk)
    monkeypatch.setattr(calls, "PIECE", 7 if chunk == 1 else 2**14)
    perceiver = model()
    whole = attribute(perceiver, PICTURE, latents=[0, 5])
    outputs, seen = whole.outputs, whole.maps
    with watch_attention(perceiver) as weights:
        expected = perceiver(PICTURE)
    with watch_attention(perceiver, "scores") as scores:
        perceiver(PICTURE)

    assert_close(outputs, expected.detach())
    for read, weight, score in zip(seen, weights.cross_attends, scores.cross_attends, strict=True):
        assert_close(read.share, weight[0].mean(dim=(0, 1)))
        assert_close(read.share.sum(), torch.tensor(1.0))
        assert_close(read.scores, score[0].mean(dim=0)[[0, 5]])


@pytest.mark.parametrize(("latent", "head"), [(4, None), (None, 2), (6, 0)])
def test_a_single_latent_or_head_is_one_of_the_whole_map(latent, head):
    perceiver = model()
    place = None if latent is None else 1
    seen = attribute(perceiver, PICTURE, latents=[0, latent or 0]).maps
    seen = [select_map(read, place, head) for read in seen]
    with watch_attention(perceiver) as weights:
        perceiver(PICTURE)
    for read, weight in zip(seen, weights.cross_attends, strict=True):
        kept = weight[0] if head is None else weight[0, head : head + 1]
        kept = kept if latent is None else kept[:, latent : latent + 1]
        assert_close(read.share, kept.mean(dim=(0, 1)))


@pytest.mark.parametrize("head", [3, -1])
def test_a_head_that_is_not_there_is_refused(head):
    seen = attribute(model(), PICTURE, latents=[0]).maps
    with pytest.raises(ValueError, match="Expected a head between 0 and 2"):
        select_map(seen[0], None, head)


def test_every_layer_of_the_baseline_is_a_read():
    encoder = TransformerEncoderConfig(channels=8, num_self_attends=3, num_self_attend_heads=2)
    seen = attribute(model(encoder), PICTURE, latents=[0, 23]).maps
    assert [read.name for read in seen] == [
        f"encoder.self_attends.{layer}.attention" for layer in range(3)
    ]
    assert seen[0].scores.shape == (2, 24)


def test_two_samples_are_refused():
    with pytest.raises(ValueError, match=r"Expected one sample .* got \{'image': 2\}"):
        attribute(model(), {"image": torch.rand(2, 3, 4, 6)}, latents=[0])


def test_a_latent_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"Expected latents between 0 and 6, got \[7\]"):
        attribute(model(), PICTURE, latents=[7])


def masked():
    """Return a model of a picture and a sound, and a sample whose sound is padded."""
    config = PerceiverConfig(
        inputs={
            "image": PixelInputConfig(size=(4, 6)),
            "wave": WaveInputConfig(num_samples=40, patch=4),
        },
        encoder=model().config.encoder,
        output=MeanPoolConfig(num_outputs=3),
    )
    inputs = {**PICTURE, "wave": torch.rand(1, 40, 1)}
    return build(config).eval(), inputs, {"wave": torch.arange(40)[None] < 20}


def test_segments_lie_side_by_side_and_padding_gets_nothing():
    perceiver, inputs, masks = masked()
    whole = attribute(perceiver, inputs, latents=[0], masks=masks)
    outputs, seen = whole.outputs, whole.maps
    assert_close(outputs, perceiver(inputs, masks).detach())
    for read in seen:
        assert read.share.shape == (24 + 10,)
        assert not read.share[29:].any()
        assert (read.share[:29] > 0).all()
        assert_close(read.share.sum(), torch.tensor(1.0))
        assert (read.scores[:, 29:] == float("-inf")).all()
        assert read.scores[:, :29].isfinite().all()


def test_a_modality_can_be_left_out():
    perceiver, inputs, _ = masked()
    seen = attribute(perceiver, {"image": inputs["image"]}, latents=[0]).maps
    assert seen[0].share.shape == (24,)


def test_where_nothing_is_real_nothing_is_read():
    perceiver, inputs, _ = masked()
    masks = {"image": torch.zeros(1, 1, dtype=torch.bool), "wave": torch.zeros(1, 40) > 1}
    seen = attribute(perceiver, inputs, latents=[0], masks=masks).maps
    assert not seen[0].share.any()
