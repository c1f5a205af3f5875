import math

import pytest
import torch

from perceivers.nn.position import (
    axis_channels,
    axis_coordinates,
    axis_features,
    fourier_features,
    num_channels,
)
from support.tolerance import assert_close


def test_both_ends_of_an_axis_are_included():
    assert axis_coordinates(3).tolist() == [-1.0, 0.0, 1.0]
    assert axis_coordinates(1).tolist() == [-1.0]


def test_bands_are_linear_from_one_to_half_the_resolution():
    features = axis_features(torch.tensor([0.25]), num_bands=4, max_resolution=8)
    bands = [1, 2, 3, 4]
    expected = [0.25, *(math.sin(math.pi * f * 0.25) for f in bands)]
    expected += [math.cos(math.pi * f * 0.25) for f in bands]
    assert_close(features[0], torch.tensor(expected))


def test_channels_are_raw_then_all_sines_then_all_cosines():
    points = torch.tensor([[0.1, -0.7]])
    encoded = fourier_features(points, num_bands=2, max_resolution=(4, 8))[0]
    y, x = 0.1, -0.7
    sines = [math.sin(math.pi * f * v) for v, fs in ((y, (1, 2)), (x, (1, 4))) for f in fs]
    cosines = [math.cos(math.pi * f * v) for v, fs in ((y, (1, 2)), (x, (1, 4))) for f in fs]
    assert_close(encoded, torch.tensor([y, x, *sines, *cosines]))
    assert axis_channels(0, num_axes=2, num_bands=2) == (0, 2, 3, 6, 7)
    assert axis_channels(1, num_axes=2, num_bands=2) == (1, 4, 5, 8, 9)


def test_imagenet_has_258_position_channels_and_point_clouds_387():
    assert num_channels(2, 64) == 258
    assert num_channels(3, 64) == 387


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_encoding_is_float32_whatever_the_positions_are(dtype):
    points = torch.tensor([[0.5, -0.25]], dtype=dtype)  # exact in every format
    encoded = fourier_features(points, num_bands=64, max_resolution=(224, 224))
    assert encoded.dtype == torch.float32
    exact = fourier_features(points.float(), num_bands=64, max_resolution=(224, 224))
    assert torch.equal(encoded, exact)


def test_autocast_does_not_touch_the_angles():
    points = torch.rand(10, 2) * 2 - 1
    plain = fourier_features(points, num_bands=64, max_resolution=(224, 224))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(fourier_features(points, num_bands=64, max_resolution=(224, 224)), plain)


def test_a_missing_resolution_is_named():
    with pytest.raises(
        ValueError, match=r"one max_resolution for each of the 2 axes.*got 1: \(8,\)"
    ):
        fourier_features(torch.zeros(3, 2), num_bands=2, max_resolution=(8,))
