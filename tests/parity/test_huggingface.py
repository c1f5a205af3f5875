"""Weight for weight against Hugging Face's Perceiver IO, which DeepMind's weights run in.

Two of its defaults are not DeepMind's and are set back here: the exact GELU, and dropout of attention.
"""

import warnings

import pytest
import torch

from perceivers.hub.huggingface_weights import LAYER
from perceivers.inputs.elements import Elements
from perceivers.inputs.image import PixelInput, PixelInputConfig
from perceivers.models.encoder import PerceiverEncoder, PerceiverEncoderConfig
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.nn.blocks import CrossAttend
from perceivers.nn.position import axis_coordinates, fourier_features
from support.tolerance import PARITY, relative_error

transformers = pytest.importorskip("transformers")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers.models.perceiver import modeling_perceiver as hf


def config(**changes):
    settings = {
        "num_latents": 6,
        "d_latents": 32,
        "d_model": 17,
        "num_blocks": 2,
        "num_self_attends_per_block": 3,
        "num_self_attention_heads": 4,
        "num_cross_attention_heads": 1,
        "hidden_act": "gelu_pytorch_tanh",
        "attention_probs_dropout_prob": 0.0,
        "cross_attention_shape_for_attention": "kv",
    }
    return transformers.PerceiverConfig(**settings | changes)


def ours_from(layer, prefix, *, norm="query_norm"):
    """Return the weights of one of their layers under our names."""
    names = LAYER | {"attention.self.layernorm1": norm}
    return {
        f"{prefix}.{names[module]}.{kind}": tensor.detach().clone()
        for name, tensor in layer.state_dict().items()
        for module, _, kind in [name.rpartition(".")]
    }


def encoder_weights(encoder, latents):
    weights = {"latents": latents.detach().clone()}
    weights |= ours_from(encoder.cross_attention, "cross_attends.0")
    for i, layer in enumerate(encoder.self_attends):
        weights |= ours_from(layer, f"blocks.0.{i}", norm="norm")
    return weights


def randomize(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2 + (parameter == 1) * 1.0)


def our_encoder(settings, channels):
    return PerceiverEncoder(
        PerceiverEncoderConfig(
            num_latents=settings.num_latents,
            latent_channels=settings.d_latents,
            num_cross_attends=1,
            num_blocks=settings.num_blocks,
            num_self_attends_per_block=settings.num_self_attends_per_block,
            num_self_attend_heads=settings.num_self_attention_heads,
        ),
        input_channels=channels,
    )


def gradients_agree(ours, theirs, prefixes, within=PARITY):
    """Compare every gradient of ours with theirs, under our names."""
    grads = {name: p.grad for name, p in ours.named_parameters()}
    compared = 0
    for prefix, layer, norm in prefixes:
        for name, parameter in layer.named_parameters():
            module, _, kind = name.rpartition(".")
            key = f"{prefix}.{(LAYER | {'attention.self.layernorm1': norm})[module]}.{kind}"
            if key.endswith("to_key.bias"):  # mathematically zero: both hold rounding noise
                assert grads[key].abs().max() < 1e-3 * grads[key[:-4] + "weight"].abs().max()
            else:
                assert relative_error(grads[key], parameter.grad) < within, key
            compared += 1
    return compared


@pytest.mark.parametrize("masked", [False, True])
def test_cross_attend_and_its_gradients(masked):
    settings = config()
    theirs = hf.PerceiverLayer(
        settings,
        is_cross_attention=True,
        qk_channels=17,
        v_channels=17,
        num_heads=1,
        q_dim=32,
        kv_dim=17,
        widening_factor=1,
        use_query_residual=True,
    )
    randomize(theirs)
    ours = CrossAttend(32, 17)
    ours.load_state_dict({k.removeprefix("x."): v for k, v in ours_from(theirs, "x").items()})
    query, source = torch.randn(2, 6, 32), torch.randn(2, 40, 17)
    mask = torch.rand(2, 40) < 0.6 if masked else None
    # theirs takes what is added to the scores
    added = None if mask is None else (~mask)[:, None, None, :] * torch.finfo(torch.float32).min
    expected = theirs(query, inputs=source, inputs_mask=added)[0]
    actual = ours(query, source, mask)
    assert relative_error(actual, expected) < PARITY
    weights = torch.randn_like(expected)
    (expected * weights).sum().backward()
    (actual * weights).sum().backward()
    wrapped = torch.nn.ModuleDict({"x": ours})
    assert gradients_agree(wrapped, theirs, [("x", theirs, "query_norm")]) == 18


def test_encoder_with_shared_blocks_and_its_gradients():
    settings = config()
    theirs = hf.PerceiverModel(settings)
    randomize(theirs)
    ours = our_encoder(settings, 17)
    ours.load_state_dict(encoder_weights(theirs.encoder, theirs.embeddings.latents))
    x = torch.randn(2, 50, 17)
    mask = torch.rand(2, 50) < 0.7
    expected = theirs(x, attention_mask=mask.float()).last_hidden_state
    actual = ours([Elements(x, mask=mask)])
    # their mask changes no value of x, ours makes padding zero: both are never read
    assert relative_error(actual, expected) < PARITY
    weights = torch.randn_like(expected)
    (expected * weights).sum().backward()
    (actual * weights).sum().backward()
    assert relative_error(ours.latents.grad, theirs.embeddings.latents.grad) < PARITY
    layers = [("cross_attends.0", theirs.encoder.cross_attention, "query_norm")]
    layers += [(f"blocks.0.{i}", la, "norm") for i, la in enumerate(theirs.encoder.self_attends)]
    assert gradients_agree(ours, theirs, layers) == 18 + 3 * 16


@pytest.mark.parametrize("sizes", [(224, 224), (8, 12), (4, 6, 5)])
def test_fourier_features_are_the_same_numbers(sizes):
    theirs = hf.PerceiverFourierPositionEncoding(
        num_bands=16, max_resolution=sizes, concat_pos=True, sine_only=False
    )
    expected = theirs(
        index_dims=sizes, batch_size=1, device=torch.device("cpu"), dtype=torch.float32
    )[0]
    axes = torch.meshgrid(*(axis_coordinates(n) for n in sizes), indexing="ij")
    points = torch.stack([axis.flatten() for axis in axes], dim=-1)
    actual = fourier_features(points, num_bands=16, max_resolution=sizes)
    assert relative_error(actual, expected) < PARITY


def test_the_fourier_classifier_up_to_its_latents():
    settings = config(d_model=261, num_self_attends_per_block=1)
    theirs = hf.PerceiverForImageClassificationFourier(settings).perceiver
    image = torch.randn(1, 3, 224, 224)
    expected_inputs = theirs.input_preprocessor(image)[0]
    elements = PixelInput(PixelInputConfig())(image)
    assert relative_error(elements.dense(), expected_inputs) < PARITY

    ours = build(
        PerceiverConfig(
            inputs={"image": PixelInputConfig()},
            encoder=our_encoder(settings, 261).config,
        )
    )
    ours.encoder.load_state_dict(encoder_weights(theirs.encoder, theirs.embeddings.latents))
    latents = theirs.embeddings(batch_size=1)
    expected = theirs.encoder(latents, inputs=expected_inputs).last_hidden_state
    actual = ours.encode({"image": image})
    assert relative_error(actual, expected) < PARITY
    weights = torch.randn_like(expected)
    (expected * weights).sum().backward()
    (actual * weights).sum().backward()
    assert relative_error(ours.encoder.latents.grad, theirs.embeddings.latents.grad) < PARITY
    layers = [("cross_attends.0", theirs.encoder.cross_attention, "query_norm")]
    layers += [("blocks.0.0", theirs.encoder.self_attends[0], "norm")]
    # Sums over 50,176 pixels: in what order a processor adds them shows in the fifth digit.
    assert gradients_agree(ours.encoder, theirs, layers, within=3 * PARITY) == 18 + 16
