"""The whole model: modalities in, predictions out, permutation, precision."""

from dataclasses import replace

import pytest
import torch

from perceivers.inputs.elements import GridPositions
from perceivers.inputs.fusion import FusionConfig
from perceivers.inputs.image import (
    ConvInputConfig,
    PatchInputConfig,
    PixelInputConfig,
    ResidualInputConfig,
)
from perceivers.inputs.positions import FourierPositionsConfig, LearnedPositionsConfig
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.models.transformer import TransformerEncoderConfig
from perceivers.outputs.heads import MeanPoolConfig
from support.models import tiny_encoder
from support.tolerance import assert_close

ENCODER = tiny_encoder(num_cross_attends=2, num_blocks=2)
FEW = FourierPositionsConfig(num_bands=3)
LEARNED = LearnedPositionsConfig(channels=5)
INPUTS = [
    PixelInputConfig(size=(6, 8), positions=FEW),
    PixelInputConfig(size=(6, 8), positions=LEARNED),
    PatchInputConfig(size=(6, 8), patch=(2, 2), positions=FEW),
    ConvInputConfig(size=(6, 8), stem_channels=8, positions=FEW),
    ResidualInputConfig(size=(6, 8)),
]


def tiny(part=INPUTS[0], **changes):
    config = PerceiverConfig(
        inputs={"image": part}, encoder=ENCODER, output=MeanPoolConfig(num_outputs=5)
    )
    model = build(replace(config, **changes)).eval()
    torch.nn.init.normal_(model.output.to_logits.weight)
    return model


@pytest.mark.parametrize("part", INPUTS, ids=lambda p: f"{p.kind}-{p.positions.kind}")
@pytest.mark.parametrize(
    "encoder",
    [ENCODER, TransformerEncoderConfig(channels=16, num_self_attends=1, num_self_attend_heads=2)],
    ids=["perceiver", "transformer"],
)
def test_permuted_elements_give_the_same_answer(part, encoder):
    model = tiny(part, encoder=encoder)
    image = {"image": torch.randn(2, 3, 6, 8)}
    plain = model(image)
    model.set_permutation(7)
    (segment,) = model.elements(image)
    assert not isinstance(segment.positions, GridPositions)
    assert_close(model(image), plain)
    model.set_permutation(None)
    assert torch.equal(model(image), plain)


def test_the_permutation_is_one_for_all_samples_and_all_runs():
    image = torch.randn(3, 3, 6, 8)
    first, second = (tiny(permute=7).elements({"image": image})[0] for _ in range(2))
    assert torch.equal(first.content, second.content)
    pixels = image.flatten(2).transpose(1, 2)
    order = [int((pixels[0] == pixel).all(-1).nonzero()) for pixel in first.content[0]]
    assert order != list(range(48))
    assert torch.equal(first.content[2], pixels[2, order])
    other = tiny(permute=8).elements({"image": image})[0]
    assert not torch.equal(other.content, first.content)


def test_a_picture_of_another_size_is_permuted_too():
    model = tiny(permute=7)
    image = {"image": torch.randn(1, 3, 4, 4)}
    permuted = model(image)
    model.set_permutation(None)
    assert_close(permuted, model(image))


def test_masked_elements_do_not_count():
    model = tiny()
    image = torch.randn(2, 3, 6, 8)
    mask = torch.rand(2, 48) < 0.7
    garbage = torch.where(mask.view(2, 1, 6, 8), image, torch.full_like(image, float("nan")))
    expected = model({"image": image}, {"image": mask})
    assert_close(model({"image": garbage}, {"image": mask}), expected)
    assert not torch.allclose(model({"image": image}), expected)


def test_an_unknown_or_missing_modality_is_named():
    with pytest.raises(KeyError, match=r"Expected the modalities \['image'\], got \['audio'\]"):
        tiny()({"audio": torch.zeros(1, 1, 2)})


def test_two_modalities_of_one_width_are_read_together():
    config = PerceiverConfig(
        inputs={"left": INPUTS[0], "right": INPUTS[0]},
        encoder=ENCODER,
        output=MeanPoolConfig(num_outputs=5),
    )
    model = build(config)
    images = {name: torch.randn(2, 3, 6, 8) for name in ("left", "right")}
    assert [s.num_elements for s in model.elements(images)] == [48, 48]
    assert model.encode(images).shape == (2, 4, 16)


def test_the_way_to_read_can_be_switched_and_changes_nothing():
    model = tiny().eval()
    image = {"image": torch.randn(2, 3, 6, 8)}
    expected = model(image)
    for path in ("structured", "absorbed", "projected"):
        model.set_attn_implementation(path)
        assert model.encoder.attn_implementation == path
        assert_close(model(image), expected)
    with pytest.raises(ValueError, match=r"out of auto, structured.*got 'fast'"):
        model.set_attn_implementation("fast")
    tiny(encoder=TransformerEncoderConfig(channels=16)).set_attn_implementation(
        "structured"
    )  # it has no choice


def test_grad_checkpointing_reaches_the_encoder():
    model = tiny()
    model.set_grad_checkpointing(True)
    assert model.encoder.grad_checkpointing
    transformer = tiny(encoder=TransformerEncoderConfig(channels=16, num_self_attends=1))
    transformer.train().set_grad_checkpointing(True)
    transformer({"image": torch.randn(1, 3, 6, 8)}).sum().backward()
    assert transformer.encoder.project.weight.grad is not None


def test_positions_stay_float32_under_autocast_and_survive_a_cast_model():
    model = tiny()
    image = torch.randn(2, 3, 6, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (segment,) = model.elements({"image": image})
        assert segment.positions.dense().dtype == torch.float32
        half = model({"image": image})
    full = model({"image": image})
    assert (half - full).norm() < 0.05 * full.norm()
    cast = model.bfloat16()({"image": image.bfloat16()})
    assert (cast.float() - full).norm() < 0.1 * full.norm()


def several(**changes):
    inputs = {"left": INPUTS[0], "right": INPUTS[2]}
    config = PerceiverConfig(
        inputs=inputs, encoder=ENCODER, output=MeanPoolConfig(num_outputs=5), **changes
    )
    model = build(config).eval()
    torch.nn.init.normal_(model.output.to_logits.weight)
    return model


def test_several_modalities_are_read_as_one_array_of_one_width():
    model = several()
    pictures = {name: torch.randn(2, 3, 6, 8) for name in ("right", "left")}
    left, right = model.elements(pictures)  # in sorted order of their names
    assert (left.num_elements, right.num_elements) == (48, 12)
    widest = max(adapter.channels for adapter in model.inputs.values())
    assert left.num_channels == right.num_channels == model.input_channels == widest + 4


def test_a_modality_that_is_left_out_is_as_one_that_is_masked():
    model = several()
    pictures = {name: torch.randn(2, 3, 6, 8) for name in ("left", "right")}
    gone = {"right": torch.zeros(2, 1, dtype=torch.bool)}
    assert_close(model({"left": pictures["left"]}), model(pictures, gone))


def test_nothing_to_read_is_refused():
    with pytest.raises(KeyError, match=r"Expected the modalities .'left', 'right'., got ."):
        several()({})
    with pytest.raises(ValueError, match="Expected at least one modality in inputs, got none"):
        build(PerceiverConfig(inputs={}))


def test_dropped_modalities_change_training_alone():
    torch.manual_seed(0)
    model = several(fusion=FusionConfig(modality_dropout={"left": 0.9}))
    pictures = {name: torch.randn(8, 3, 6, 8) for name in ("left", "right")}
    kept = model(pictures)
    assert_close(model(pictures), kept)
    assert not torch.allclose(model.train()(pictures), kept)
