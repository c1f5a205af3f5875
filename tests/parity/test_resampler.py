"""Outputs, gradients and parameter counts of OpenFlamingo's and Idefics2's resamplers.

The files in `vectors/` were written by the original code with seeded random weights: OpenFlamingo's in float64, that of
Idefics2 in transformers 5.23.0 in float32.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import perceivers as pv

VECTORS = Path(__file__).parent / "vectors"


def read(name, dtype):
    return {
        key: value.to(dtype) if value.is_floating_point() else value
        for key, value in load_file(VECTORS / f"{name}_resampler.safetensors").items()
    }


def part(found, kind):
    return {name.removeprefix(kind): w for name, w in found.items() if name.startswith(kind)}


def use(model, implementation):
    for layer in model.layers:
        layer.config = replace(layer.config, attn_implementation=implementation)


def gradients(model):
    """Return the gradients as weights of a resampler, so that names need no table of their own."""
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("implementation", ["projected", "absorbed"])
def test_openflamingo(implementation):
    found = read("flamingo", torch.float64)
    model = pv.resampler_from_weights(part(found, "weight."), num_heads=2)
    use(model, implementation)
    x = found["x"].requires_grad_()
    y = model(x)
    torch.testing.assert_close(y, found["y"], rtol=0, atol=1e-10)
    torch.testing.assert_close(model(found["x_short"]), found["y_short"], rtol=0, atol=1e-10)
    loss = (y * found["loss_weights"]).sum() / y.numel()
    torch.testing.assert_close(loss, found["loss"][0], rtol=0, atol=1e-10)
    loss.backward()
    torch.testing.assert_close(x.grad, found["grad_x"], rtol=0, atol=1e-10)
    expected = pv.resampler_from_weights(part(found, "grad."), num_heads=2).state_dict()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-10, msg=name)


def test_idefics2():
    found = read("idefics2", torch.float32)
    model = pv.resampler_from_weights(part(found, "weight."), num_heads=4, norm_eps=1e-5)
    context, mask = found["context"].requires_grad_(), found["attention_mask"].bool()
    y = model(context, mask)
    torch.testing.assert_close(y, found["y"], rtol=0, atol=1e-5)
    torch.testing.assert_close(model(context), found["y_no_mask"], rtol=0, atol=1e-5)
    loss = (y * found["loss_weights"]).sum() / y.numel()
    torch.testing.assert_close(loss, found["loss"][0], rtol=0, atol=1e-5)
    loss.backward()
    torch.testing.assert_close(context.grad, found["grad_context"], rtol=0, atol=1e-5)
    expected = pv.resampler_from_weights(part(found, "grad."), num_heads=4).state_dict()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (pv.ResamplerConfig(channels=1024), 63_019_008),
        (pv.ResamplerConfig(channels=768), 37_827_072),
        (pv.ResamplerConfig(channels=1024, depth=2), 21_051_392),
        (pv.idefics2_resampler(), 651_468_800),
    ],
)
def test_published_sizes(config, parameters):
    with torch.device("meta"):
        model = pv.Resampler(config)
    assert sum(p.numel() for p in model.parameters()) == parameters
