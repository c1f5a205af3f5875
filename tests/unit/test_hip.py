"""Hierarchical Perceiver as encoder and decoder of a `Perceiver`, its errors, and its cost."""

import math
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from perceivers.hub.hip import from_haiku, hip_from_weights
from perceivers.inputs.array import ArrayInputConfig
from perceivers.inputs.fusion import FusionConfig
from perceivers.inputs.image import PixelInputConfig
from perceivers.inputs.points import PointsInputConfig
from perceivers.inputs.text import TextInputConfig
from perceivers.models.cost import cost
from perceivers.models.decoder import DecoderConfig
from perceivers.models.hip import HierarchicalPerceiver
from perceivers.models.hip_config import HiPBlockConfig, HiPConfig, hip_blocks, hip_config
from perceivers.models.hip_encoder import (
    ElementDecoderConfig,
    ElementGrid,
    ElementOutputConfig,
    HiPEncoder,
)
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.outputs.heads import MeanPoolConfig
from perceivers.tasks.config import OutputPart
from support.models import tiny_encoder
from support.tolerance import assert_close

CONFIG = HiPConfig(
    blocks=hip_blocks(
        num_groups=(4, 1, 4),
        num_latents=(4, 8, 4),
        channels=(8, 16, 12),
        num_self_attends=(1, 1, 1),
        num_self_attend_heads=(2, 2, 2),
    ),
    embed_channels=8,
)
LAST = replace(CONFIG, latents="last")
INPUTS = {
    "image": PixelInputConfig(size=(5, 6), num_channels=1, positions=None),
    "points": PointsInputConfig(num_points=20, num_bands=0),
}
OUTPUTS = ElementDecoderConfig(
    outputs={
        "image": ElementOutputConfig(modality="image", num_outputs=1),
        "a.b": ElementOutputConfig(modality="points", num_outputs=2),
    }
)


def model_of(encoder=CONFIG, output=None, inputs=INPUTS, **changes):
    """Return a model with random weights everywhere, in evaluation mode."""
    torch.manual_seed(0)
    output = MeanPoolConfig(num_outputs=3) if output is None else output
    config = PerceiverConfig(inputs=inputs, encoder=encoder, output=output, **changes)
    model = build(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def sample(batch=2):
    return {"image": torch.randn(batch, 1, 5, 6), "points": torch.randn(batch, 20, 3)}


# -- encoder ---------------------------------------------------------------------------------------------------------


def test_an_encoder_is_the_model_on_its_elements():
    model, x = model_of(LAST, OUTPUTS), sample()
    whole = HierarchicalPerceiver(LAST, {"image": (30, 1), "points": (20, 3)})
    state = {
        name.removeprefix("encoder."): weight
        for name, weight in model.state_dict().items()
        if name.startswith("encoder.")
    }
    state |= {
        name.removeprefix("output.").replace("a_2e_b", "points"): weight
        for name, weight in model.state_dict().items()
        if name.startswith("output.")
    }
    state["reconstruct.unembed.points.weight"] = torch.zeros(3, 8)
    state["reconstruct.unembed.points.bias"] = torch.zeros(3)
    whole.load_state_dict(state)
    expected = whole({"image": x["image"].flatten(2).mT, "points": x["points"]})
    assert_close(model.encode(x), expected.latents.flatten(1, 2))
    found = model(x)
    assert_close(found["image"], expected.reconstruction["image"])
    assert found["a.b"].shape == (2, 20, 2)
    some = model(x, index={"a.b": torch.tensor([3, 0])})["a.b"]
    assert_close(some, found["a.b"][:, [3, 0]])
    assert list(model.decode(model.encode(x), outputs=["a.b"])) == ["a.b"]
    assert model.decodes_latents_alone


def test_an_encoder_up_to_the_middle_block_has_the_latents_of_the_middle_block():
    short, whole, x = model_of(), model_of(LAST), sample()
    assert len(short.encoder.trunk.blocks) == 2
    encoder = whole.encoder.state_dict()
    short.encoder.load_state_dict({n: encoder[n] for n in short.encoder.state_dict()})
    middle = []
    whole.encoder.trunk.blocks[1].register_forward_hook(lambda *args: middle.append(args[2]))
    whole(x)
    assert torch.equal(short.encode(x), middle[0][:, 0])
    assert short(x).shape == (2, 3)
    assert (CONFIG.num_latents, CONFIG.latent_channels, CONFIG.latent_values(50)) == (8, 16, 128)
    assert (LAST.num_latents, LAST.latent_channels, LAST.latent_values(50)) == (16, 12, 192)


def test_learned_queries_and_recomputed_activations():
    model = model_of(output=DecoderConfig.classifier(4), encoder=replace(CONFIG, drop_path=0.3))
    x = sample()
    assert model(x).shape == (2, 4)
    gradients = []
    for enabled in (False, True):
        torch.manual_seed(1)
        model.train().set_grad_checkpointing(enabled)
        model.zero_grad()
        model(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert_close(one, other)
    model.set_grad_checkpointing(False, mlp=True)
    torch.manual_seed(1)
    model.zero_grad()
    model(x).square().sum().backward()
    for one, parameter in zip(gradients[0], model.parameters(), strict=True):
        assert_close(one, parameter.grad)


def test_missing_modalities_are_masked():
    model, x = model_of(), sample()
    masks = {"points": torch.zeros(2, 1, dtype=torch.bool)}
    alone = model({"image": x["image"]})
    assert_close(alone, model(x, masks))
    assert not torch.allclose(alone, model(x))


def test_a_padded_batch_may_be_shorter_than_the_model():
    inputs = {"text": TextInputConfig(max_length=30, channels=8)}
    model = model_of(replace(CONFIG, attend_padding=False), inputs=inputs)
    long = torch.randint(6, 262, (2, 30))
    masks = {"text": torch.arange(30).expand(2, -1) < 11}
    short = {"text": long[:, :11]}
    assert_close(model(short), model({"text": long}, masks))


def test_other_sizes_are_refused():
    model = model_of()
    with pytest.raises(ValueError, match=r"Expected 30 elements of 'image' \(5 x 6\).*got 24"):
        model(sample() | {"image": torch.randn(2, 1, 4, 6)})
    with pytest.raises(ValueError, match="got 42"):
        model(sample() | {"image": torch.randn(2, 1, 7, 6)})
    with pytest.raises(ValueError, match="Expected elements of image, points, got 1 modalities"):
        model.encoder(model.elements(sample())[:1])


def test_modalities_are_dropped_in_training_without_a_common_width():
    fusion = FusionConfig(modality_dropout={"image": 0.9})
    model = model_of(fusion=fusion)
    assert not list(model.fusion.parameters())
    assert model.input_channels == 8
    x = sample(32)
    assert not torch.allclose(model.train()(x), model.eval()(x))
    for wrong in (FusionConfig(dropped="token"), FusionConfig(channels=20)):
        with pytest.raises(ValueError, match=r"takes neither fusion\.channels nor"):
            model_of(fusion=wrong)


def test_positions_are_resized_for_other_inputs():
    theirs, mine = (
        model_of(),
        model_of(inputs=INPUTS | {"image": replace(INPUTS["image"], size=(9, 6))}),
    )
    found = mine.encoder.resized_from(theirs.encoder)
    assert list(found) == ["trunk.positions.image"]
    assert found["trunk.positions.image"].shape == (54, 8)
    mine.encoder.load_state_dict(found, strict=False)
    assert torch.equal(
        mine.encoder.trunk.positions["image"][0], theirs.encoder.trunk.positions["image"][0]
    )
    assert theirs.encoder.resized_from(theirs.encoder) == {}
    assert theirs.encoder.resized_from(theirs.output) == {}


# -- decoder ---------------------------------------------------------------------------------------------------------


def test_a_decoder_follows_the_task_and_its_modalities():
    opened = ElementDecoderConfig(outputs={"pixels": ElementOutputConfig(modality="image")})
    assert opened.num_outputs is None
    fitted = opened.fit_to({"pixels": OutputPart(num_outputs=7, grid=(5, 6))})
    assert fitted.num_outputs == 7
    assert fitted.fit_to({}) is fitted
    assert fitted.fit_to_inputs(INPUTS) is fitted
    assert OUTPUTS.num_outputs is None
    renamed = fitted.rename_modalities({"image": "photo"})
    assert renamed.outputs["pixels"].modality == "photo"
    assert isinstance(fitted.for_labels(), DecoderConfig)
    with pytest.raises(ValueError, match="Expected a decoder with the outputs other; got pixels"):
        opened.fit_to({"other": OutputPart(num_outputs=1)})
    model = model_of(LAST, fitted)
    assert model(sample()).shape == (2, 30, 7)
    with pytest.raises(KeyError, match="Expected outputs out of pixels, got 'no'"):
        model.decode(model.encode(sample()), outputs=["no"])


def test_decoders_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"expected encoder\.latents='last', got 'middle'"):
        model_of(CONFIG, OUTPUTS)
    with pytest.raises(ValueError, match="needs the encoder 'hip', got 'perceiver'"):
        model_of(tiny_encoder(), OUTPUTS)
    opened = ElementDecoderConfig(outputs={"x": ElementOutputConfig(modality="image")})
    with pytest.raises(ValueError, match="with a known num_outputs"):
        model_of(LAST, opened)
    with pytest.raises(ValueError, match="Expected at least one output"):
        ElementDecoderConfig(outputs={})


# -- errors ----------------------------------------------------------------------------------------------------------


def blocks(groups=(4, 1, 4), latents=(4, 8, 4), **changes):
    sizes = {"channels": (8, 16, 8), "num_self_attend_heads": (2, 2, 2)} | changes
    return hip_blocks(num_groups=groups, num_latents=latents, **sizes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: blocks(channels=(9, 16, 8)), "num_self_attend_heads that divides channels=9"),
        (lambda: blocks(latents=(0, 8, 4)), "sizes of at least 1"),
        (lambda: blocks(num_train_latents=(5, None, None)), "from 1 to num_latents=4, got 5"),
        (lambda: blocks()[:2], "odd number of blocks"),
        (lambda: blocks(groups=(4, 2, 4)), "one group in the middle block, number 1"),
        (lambda: blocks(groups=(4, 1, 2)), "as many groups and latents in block 2 as in block 0"),
        (lambda: blocks(num_train_latents=(2, None, None)), "of the middle block only"),
        (lambda: blocks(latents=(4, 7, 4)), "divides the 1 x 7 latents"),
        (lambda: blocks(num_train_latents=(None, 5, None)), "divides the 1 x 5 latents"),
        (lambda: blocks(num_cross_attend_heads=(3, 1, 1)), "divides the 8 channels of its input"),
        (lambda: blocks(num_self_attends=(1, 20_000, 1)), "at most 10,000 layers"),
    ],
)
def test_architectures_that_do_not_fit_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        HiPConfig(blocks=make(), embed_channels=8)


def test_other_arguments_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="Expected a drop_path from 0 to below 1, got 1"):
        replace(CONFIG, drop_path=1.0)
    with pytest.raises(ValueError, match="Expected an architecture out of hip_mini, hip_16"):
        hip_config("hip_17")
    sizes = {f"m{i}": (3, 2) for i in range(5)}
    with pytest.raises(ValueError, match="at most 4 modalities"):
        HierarchicalPerceiver(CONFIG, sizes)
    with pytest.raises(ValueError, match="at least one element each"):
        HierarchicalPerceiver(CONFIG, {})
    with pytest.raises(ValueError, match="got 'image' as both"):
        HierarchicalPerceiver(CONFIG, {"image": (4, 3)}, labels={"image": (1, 2)})
    single = HiPConfig(blocks=(HiPBlockConfig(num_groups=1, num_latents=2, channels=8),))
    with pytest.raises(ValueError, match="Labels need at least three blocks"):
        HierarchicalPerceiver(single, {"image": (4, 3)}, labels={"label": (1, 2)})
    grids = {"image": ElementGrid(axes=(4,), channels=3)}
    assert HiPEncoder(single, grids).trunk.plan.num_groups == 1


def test_inputs_that_do_not_fit_are_refused():
    model = HierarchicalPerceiver(CONFIG, {"image": (7, 3)})
    x = torch.randn(2, 7, 3)
    with pytest.raises(KeyError, match=r"Expected the inputs \['image'\], got \['picture'\]"):
        model({"picture": x})
    with pytest.raises(ValueError, match=r"Expected inputs\['image'\] of B x 7 x 3, got shape"):
        model({"image": x[:, 1:]})
    with pytest.raises(KeyError, match="Expected masks of the modalities image, got 'audio'"):
        model({"image": x}, {"audio": x[..., 0] > 0})
    with pytest.raises(ValueError, match=r"Expected masks\['image'\] as bool of shape \(2, 7\)"):
        model({"image": x}, {"image": x[:, 1:, 0] > 0})


def test_weights_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="Expected names of weights as in DeepMind's hierarch"):
        from_haiku({"perceiver/something/w": torch.zeros(1)}, {})
    with pytest.raises(ValueError, match="do not fit the architecture"):
        hip_from_weights(CONFIG, {}, {"image": (7, 3)})


# -- cost ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "giga"), [("hip_mini", 12.124), ("hip_16", 56.131), ("hip_256", 49.384)]
)
def test_operations_are_those_of_the_release(name, giga):
    with torch.device("meta"):
        model = HierarchicalPerceiver(hip_config(name), {"image": (50_176, 3)})
        counter = FlopCounterMode(display=False)
        with counter:
            model({"image": torch.empty(1, 50_176, 3)})
    assert counter.get_total_flops() / 1e9 == pytest.approx(giga, abs=6e-4)


@pytest.mark.parametrize("encoder", [CONFIG, LAST])
def test_cost_counts_groups(encoder):
    config = PerceiverConfig(
        inputs=INPUTS | {"array": ArrayInputConfig(length=7, num_channels=2, num_coordinates=0)},
        encoder=encoder,
        output=MeanPoolConfig(num_outputs=3),
    )
    found = cost(config)
    assert found.attn_implementation == "grouped"
    assert found.input_channels == 8
    assert found.flops - found.paper_flops == 2 * 3 * encoder.latent_channels  # the head
    assert math.isclose(found.num_elements, 57)
