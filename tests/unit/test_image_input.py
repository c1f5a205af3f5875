from dataclasses import replace

import pytest
import torch

from perceivers.inputs.image import (
    ConvInput,
    ConvInputConfig,
    PatchInput,
    PatchInputConfig,
    PixelInput,
    PixelInputConfig,
    ResidualInput,
    ResidualInputConfig,
)
from perceivers.inputs.positions import FourierPositionsConfig, LearnedPositionsConfig
from perceivers.inputs.registry import build_input
from perceivers.models.perceiver import PerceiverConfig, build
from support.models import tiny_encoder
from support.tolerance import assert_close

FEW = FourierPositionsConfig(num_bands=2)


def test_pixels_are_elements_in_reading_order():
    adapter = PixelInput(PixelInputConfig(size=(4, 5), positions=FEW))
    image = torch.randn(2, 3, 4, 5)
    elements = adapter(image)
    assert torch.equal(elements.content[:, 7], image[:, :, 1, 2])
    assert elements.num_channels == adapter.channels == 3 + 2 * (2 * 2 + 1)
    assert adapter.num_elements == 20


def test_imagenet_is_50176_elements_of_261_channels():
    adapter = PixelInput(PixelInputConfig())
    assert (adapter.num_elements, adapter.channels) == (50_176, 261)


def test_perceiver_ios_learned_pixels_are_512_channels():
    positions = LearnedPositionsConfig(channels=256, init_scale=0.02, project_channels=256)
    with torch.device("meta"):
        adapter = PixelInput(PixelInputConfig(project_channels=256, positions=positions))
    assert adapter.channels == 512


def test_projected_pixels_are_a_linear_layer_of_each():
    config = PixelInputConfig(size=(2, 3), project_channels=7, positions=None)
    adapter = PixelInput(config)
    image = torch.randn(1, 3, 2, 3)
    assert_close(adapter(image).content, adapter.project(image.flatten(2).transpose(1, 2)))


def test_patches_hold_their_pixels():
    adapter = PatchInput(PatchInputConfig(size=(4, 8), patch=(2, 4), positions=FEW))
    image = torch.randn(1, 3, 4, 8)
    content = adapter(image).content
    assert content.shape == (1, 4, 24)
    assert torch.equal(content[0, 1, :3], image[0, :, 0, 4])
    assert adapter.grid(5, 9) == (3, 3)


def test_a_picture_that_does_not_divide_into_patches_is_padded_with_zeros():
    adapter = PatchInput(PatchInputConfig(size=(4, 4), patch=(2, 2), positions=FEW))
    content = adapter(torch.ones(1, 3, 3, 4)).content
    assert content.shape == (1, 4, 12)
    assert content[0, 2].tolist() == [1.0] * 6 + [0.0] * 6


def test_patches_may_be_projected():
    adapter = PatchInput(PatchInputConfig(size=(4, 4), patch=(2, 2), project_channels=5))
    assert adapter(torch.randn(1, 3, 4, 4)).content.shape == (1, 4, 5)


def test_the_stem_gives_56_by_56_cells_of_64_channels():
    adapter = ConvInput(ConvInputConfig())
    assert adapter.grid(224, 224) == (56, 56)
    elements = adapter(torch.randn(1, 3, 224, 224))
    assert elements.content.shape == (1, 3136, 64)
    assert adapter.channels == 322
    assert sum(p.numel() for p in adapter.parameters()) == 3 * 64 * 49 + 2 * 64


def test_the_stem_pads_behind_where_the_padding_is_odd():
    adapter = ConvInput(ConvInputConfig(size=(4, 4), stem_channels=1, kernel=3, pool=False))
    torch.nn.init.ones_(adapter.convolution.weight)
    adapter.eval()
    content = adapter(torch.ones(1, 3, 4, 4)).content.view(2, 2)
    # kernel 3, stride 2 on 4 cells: one column of padding, behind
    assert_close(content, torch.tensor([[27.0, 18.0], [18.0, 12.0]]) / (1 + 1e-5) ** 0.5)
    assert adapter.grid(5, 4) == (3, 2)


@pytest.mark.parametrize(
    "config",
    [
        PixelInputConfig(size=(6, 8), positions=FEW),
        PixelInputConfig(size=(6, 8), positions=LearnedPositionsConfig(channels=4)),
        PatchInputConfig(size=(6, 8), patch=(2, 2), positions=FEW),
        ConvInputConfig(size=(6, 8), stem_channels=4, positions=FEW),
        ResidualInputConfig(size=(6, 8)),
    ],
    ids=lambda c: c.kind,
)
@pytest.mark.parametrize("size", [(6, 8), (8, 6), (1, 1), (13, 7)])
def test_any_resolution_and_aspect_is_read(config, size):
    adapter = build_input(config)
    elements = adapter(torch.randn(2, 3, *size))
    rows, columns = adapter.grid(*size)
    assert elements.dense().shape == (2, rows * columns, adapter.channels)


def test_one_channel_without_positions_is_refused_with_the_reason():
    config = PixelInputConfig(size=(4, 4), num_channels=1, positions=None)
    with pytest.raises(
        ValueError, match=r"LayerNorm .* turns any single number into zero.*num_channels=1"
    ):
        build(PerceiverConfig(inputs={"image": config}, encoder=tiny_encoder()))
    assert PixelInput(replace(config, project_channels=2)).unreadable is None
    assert PixelInput(config)(torch.ones(1, 1, 4, 4)).content.shape == (1, 16, 1)


def test_a_picture_with_other_channels_is_refused():
    adapter = PixelInput(PixelInputConfig(size=(4, 4), positions=FEW))
    with pytest.raises(
        ValueError, match=r"Expected images of 3 channels.*got shape \(2, 1, 4, 4\)"
    ):
        adapter(torch.zeros(2, 1, 4, 4))


def test_a_size_that_is_not_known_yet_is_refused():
    with pytest.raises(ValueError, match=r"Expected the size of the images.*got None"):
        PixelInput(PixelInputConfig(size=None))


def test_a_mask_travels_with_the_elements():
    adapter = PixelInput(PixelInputConfig(size=(1, 2), positions=FEW))
    mask = torch.tensor([[True, False]])
    assert torch.equal(adapter(torch.randn(1, 3, 1, 2), mask).mask, mask)


def test_a_missing_picture_is_missing_in_all_of_its_elements():
    adapter = PixelInput(PixelInputConfig(size=(1, 2), positions=FEW))
    there = torch.tensor([[True], [False]])
    mask = adapter(adapter.example(2), there).mask
    assert mask.tolist() == [[True, True], [False, False]]
    assert adapter.axes == (1, 2)


@pytest.mark.parametrize(("side", "cells"), [(224, 55), (32, 7), (33, 8), (7, 1)])
def test_a_stem_that_is_padded_alike_on_both_sides_has_fewer_cells(side, cells):
    config = ConvInputConfig(size=(side, side), padding="symmetric", stem_channels=4)
    adapter = ConvInput(config).eval()
    assert adapter.grid(side, side) == (cells, cells)
    image = torch.randn(1, 3, side, side)
    expected = torch.nn.functional.conv2d(image, adapter.convolution.weight, stride=2, padding=3)
    expected = adapter.pool(adapter.norm(expected).relu())
    assert_close(adapter.content(image), expected)


def test_a_stem_without_a_pool_is_padded_alike_too():
    config = ConvInputConfig(size=(9, 6), padding="symmetric", pool=False, stem_channels=4)
    adapter = ConvInput(config)
    assert adapter(torch.randn(1, 3, 9, 6)).num_elements == adapter.num_elements == 5 * 3


def test_a_residual_stem_gives_8_by_8_cells_of_128_channels():
    adapter = ResidualInput(ResidualInputConfig(size=(32, 32)))
    assert adapter.axes == (8, 8)
    assert adapter.channels == 128 + 2 * (2 * 2 + 1)
    assert adapter.element_step == (4, 4)
    assert adapter(adapter.example(2)).content.shape == (2, 64, 128)


def test_a_missing_picture_changes_nothing_of_the_others_in_training():
    adapter = ResidualInput(ResidualInputConfig(size=(8, 8)))
    images = torch.randn(3, 3, 8, 8)
    there = torch.tensor([[True], [True], [False]])
    elements = adapter(images, there)
    assert_close(elements.content[:2], adapter(images[:2]).content)
    assert (elements.content[2] == 0).all()
