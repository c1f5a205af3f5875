"""Resampler: masks, lists, media and frames, both ways of attention, and bad input."""

from dataclasses import replace

import pytest
import torch

import perceivers as pv

SMALL = {"channels": 12, "num_latents": 5, "depth": 2, "num_heads": 4, "head_channels": 6}


def build(**changes):
    torch.manual_seed(0)
    model = pv.Resampler(pv.ResamplerConfig(**(SMALL | changes))).double()
    for parameter in model.parameters():  # offsets and scales of norms too
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return model


def features(*shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, 12, generator=generator, dtype=torch.float64)


def use(model, implementation):
    for layer in model.layers:
        layer.config = replace(layer.config, attn_implementation=implementation)


@pytest.mark.parametrize("latents_in_keys", [True, False])
@pytest.mark.parametrize("heads", [4, 2, 1])
@pytest.mark.parametrize("masked", [False, True])
def test_absorbed_keys_change_neither_outputs_nor_gradients(latents_in_keys, heads, masked):
    model = build(num_key_value_heads=heads, latents_in_keys=latents_in_keys)
    mask = torch.rand(3, 7, generator=torch.Generator().manual_seed(2)) > 0.4 if masked else None
    if mask is not None:
        mask[1] = False  # nothing but padding
    found = {}
    for implementation in ("projected", "absorbed"):
        use(model, implementation)
        model.zero_grad()
        x = features(3, 7).requires_grad_()
        y = model(x, mask)
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
        parameters = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        found[implementation] = [y, x.grad, *parameters]
    for ours, theirs in zip(found["absorbed"], found["projected"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("mlp", ["gelu", "gated"])
def test_padding_and_lists_give_what_each_sample_gives_alone(norm, mlp):
    model = build(norm=norm, mlp=mlp, num_key_value_heads=2)
    samples = [features(4)[:, :], features(9), features(1)]
    together = model(samples)
    assert together.shape == (3, 5, 12)
    for sample, output in zip(samples, together, strict=True):
        torch.testing.assert_close(model(sample[None])[0], output)
    padded = torch.full((3, 9, 12), 7.0, dtype=torch.float64)
    mask = torch.zeros(3, 9, dtype=torch.bool)
    for row, sample in enumerate(samples):
        padded[row, : len(sample)], mask[row, : len(sample)] = sample, True
    torch.testing.assert_close(model(padded, mask), together)


def test_frames_of_a_medium_are_read_together():
    model = build(num_frames=3, num_media=2)
    x = features(2, 2, 3, 4)
    y = model(x)
    assert y.shape == (2, 2, 5, 12)
    torch.testing.assert_close(model(x[:, :1, :2])[:, 0], model(x[:, :, :2])[:, 0])
    assert not torch.allclose(model(x[:, :, [1, 0, 2]]), y)  # the order of frames counts
    mask = torch.ones(2, 2, 3, 4, dtype=torch.bool)
    mask[:, :, 2] = False
    torch.testing.assert_close(model(x, mask), model(x[:, :, :2]))


def test_it_trains_under_autocast_and_after_a_cast():
    model = pv.Resampler(pv.ResamplerConfig(**SMALL, attn_implementation="absorbed"))
    x = features(2, 7).float()
    exact = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (model(x) - exact).abs().max() < 0.1
    model.bfloat16()(x.bfloat16()).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"num_key_value_heads": 3}, "divides num_heads=4, got 3"),
        ({"depth": 0}, "sizes of at least 1"),
        ({"norm": "rms", "attn_implementation": "absorbed"}, "needs norm='layer'"),
    ],
)
def test_a_wrong_configuration_is_an_error(changes, told):
    with pytest.raises(ValueError, match=told):
        pv.ResamplerConfig(**(SMALL | changes))


def test_wrong_features_are_an_error():
    model = build()
    with pytest.raises(ValueError, match=r"Expected features of B x M x 12 .* got \(2, 3, 5\)"):
        model(torch.randn(2, 3, 5))
    with pytest.raises(ValueError, match=r"a mask of \(2, 3\), got \(2, 4\)"):
        model(features(2, 3), torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="no mask with a list"):
        model([features(3)], torch.ones(1, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="at most 2 frames"):
        build(num_frames=2)(features(1, 1, 3, 4))


def test_weights_of_something_else_are_an_error():
    with pytest.raises(ValueError, match="with one array of latents, got 0"):
        pv.resampler_from_weights({"a.weight": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match="named as in OpenFlamingo"):
        pv.resampler_from_weights({"x.latents": torch.zeros(2, 2), "x.y": torch.zeros(2)})
