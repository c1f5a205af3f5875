import pytest
import torch

from perceivers.inputs.stems import ConvStem, pooled_mask
from support.tolerance import assert_close


def real(length: int, *counts: int) -> torch.Tensor:
    return torch.arange(length) < torch.tensor(counts)[:, None]


@pytest.mark.parametrize(("size", "cells"), [(1, 1), (7, 2), (8, 2), (9, 3), (64, 16)])
def test_a_stride_gives_a_cell_for_every_so_many(size, cells):
    stem = ConvStem(3, (4, 5), kernel=5, stride=2)
    out, mask = stem(torch.randn(2, 3, size))
    assert out.shape == (2, 5, cells)
    assert stem.grid([size]) == (cells,)
    assert mask is None


def test_a_grid_has_a_kernel_and_a_stride_for_each_axis():
    stem = ConvStem(1, (6,), kernel=(3, 4), stride=(1, 4), num_axes=2)
    out, _ = stem(torch.randn(2, 1, 5, 9))
    assert out.shape == (2, 6, 5, 3)
    assert stem.grid([5, 9]) == (5, 3)


def test_a_cell_is_convolution_then_norm_over_channels_then_relu():
    stem = ConvStem(1, (2,), kernel=2, stride=2)
    with torch.no_grad():
        stem.convolutions[0].weight.copy_(torch.tensor([[[1.0, 1.0]], [[1.0, -1.0]]]))
    out, _ = stem(torch.tensor([[[3.0, 1.0, 5.0]]]))
    # sums 4 and 5, differences 2 and 5: normalized over two channels to +1 and -1, or equal
    assert out.flatten().tolist() == pytest.approx([1.0, 0.0, 0.0, 0.0], abs=1e-4)


@pytest.mark.parametrize("kernel", [2, 3, 4, 5, 8])
def test_padding_changes_no_real_cell(kernel):
    stem = ConvStem(3, (4, 5), kernel=kernel, stride=2)
    for norm in stem.norms:  # so that an empty cell is not zero by luck
        torch.nn.init.ones_(norm.bias)
    x = torch.randn(1, 3, 11)
    alone, _ = stem(x)
    padded = torch.full((1, 3, 32), float("nan"))
    padded[..., :11] = x
    out, mask = stem(padded, real(32, 11))
    assert mask is not None
    assert mask.sum() == alone.shape[-1] == 3
    assert_close(out[:, :, :3], alone)
    assert (out[:, :, 3:] == 0).all()


def test_padding_along_the_first_axis_of_a_grid_changes_no_real_cell():
    stem = ConvStem(1, (4, 4), kernel=3, stride=2, num_axes=2)
    x = torch.randn(1, 1, 6, 8)
    alone, _ = stem(x)
    out, mask = stem(torch.cat([x, torch.randn(1, 1, 10, 8)], dim=2), real(16, 6))
    assert mask is not None
    assert mask.tolist() == [[True, True, False, False]]
    assert_close(out[:, :, :2], alone)


def test_a_gap_within_is_read_as_zeros():
    stem = ConvStem(1, (4,), kernel=3, stride=1)
    x = torch.randn(1, 1, 6)
    mask = torch.tensor([[True, True, False, True, True, True]])
    cleared = x.clone()
    cleared[..., 2] = 0
    out, behind = stem(x, mask)
    assert torch.equal(behind, mask)
    assert_close(out[..., mask[0]], stem(cleared)[0][..., mask[0]])


def test_a_cell_is_real_if_one_of_its_places_is():
    mask = torch.tensor([[True, False, False, False, False], [False, False, False, True, True]])
    assert pooled_mask(mask, 2).tolist() == [[True, False, False], [False, True, True]]
    assert pooled_mask(mask, 1) is mask
    assert pooled_mask(mask, 8).tolist() == [[True], [True]]


@pytest.mark.parametrize(("channels", "kernel", "stride"), [((), 3, 2), ((4,), 2, 3), ((4,), 3, 0)])
def test_a_stem_that_skips_cells_or_does_nothing_is_an_error(channels, kernel, stride):
    with pytest.raises(ValueError, match="strides from 1 to the kernel's width, got channels="):
        ConvStem(3, channels, kernel=kernel, stride=stride)


def test_weights_begin_as_for_relu():
    stem = ConvStem(16, (256,), kernel=4, stride=2)
    deviation = stem.convolutions[0].weight.std()
    assert deviation.item() == pytest.approx(0.88 * (2 / 64) ** 0.5, rel=0.05)
