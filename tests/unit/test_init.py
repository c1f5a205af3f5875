import torch

from perceivers.nn.init import lecun_linear, truncated_linear, truncated_normal_


def test_latents_lie_within_two_deviations_and_have_the_truncated_deviation():
    values = truncated_normal_(torch.empty(512, 1024), 0.02)
    assert values.abs().max() <= 0.04
    assert abs(values.std().item() - 0.02 * 0.87962566) < 1e-4


def test_lecun_keeps_the_variance_of_its_input():
    linear = lecun_linear(400, 1000)
    assert abs(linear.weight.std().item() - 400**-0.5) < 5e-4
    assert not linear.bias.any()
    assert linear.weight.abs().max() <= 2 * 400**-0.5 / 0.87962566 + 1e-6


def test_haikus_default_linear_is_not_corrected_for_truncation():
    linear = truncated_linear(400, 1000)
    assert abs(linear.weight.std().item() - 400**-0.5 * 0.87962566) < 5e-4
    assert not linear.bias.any()
