import pytest
import torch
from torch.nn.functional import max_pool2d

from perceivers.inputs.stems import (
    ConvStem,
    MaskedBatchNorm,
    ResidualStem,
    ResidualStemConfig,
    _ConvNorm,
    pooled_mask,
)
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


def residual_stem(**changes) -> ResidualStem:
    given = {"channels": (4, 6), "blocks": (0, 1), "pools": (1, 2), "convs_per_block": 2} | changes
    stem = ResidualStem(2, ResidualStemConfig(**given)).eval()
    for module in stem.modules():
        if isinstance(module, MaskedBatchNorm):  # so that an empty cell is not zero by luck
            torch.nn.init.ones_(module.bias)
            module.running_mean.normal_()
    return stem


@pytest.mark.parametrize("stride", [1, 2, 3, (1, 2)])
@pytest.mark.parametrize("pools", [(1, 2), (2, 2), (1, (2, 1)), ((1, 3), 2)])
@pytest.mark.parametrize("sizes", [(1, 1), (7, 5), (8, 12)])
def test_a_residual_stem_gives_the_cells_of_its_grid(stride, pools, sizes):
    stem = residual_stem(stride=stride, pools=pools)
    out, mask = stem(torch.randn(2, 2, *sizes))
    assert out.shape[2:] == stem.config.grid(sizes)
    assert out.shape[1] == stem.out_channels == 6
    assert mask is None


def test_an_element_of_a_residual_stem_covers_the_product_of_its_steps():
    config = ResidualStemConfig(
        channels=(4, 6), blocks=(1, 0), pools=((1, 2), 2), stride=(3, 1), convs_per_block=2
    )
    assert config.element_step == (6, 4)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 5, 7, 8])
def test_padding_changes_no_real_cell_of_a_residual_stem(stride, length):
    stem = residual_stem(stride=stride)
    x = torch.randn(1, 2, length, 5)
    alone, _ = stem(x)
    padded = torch.full((1, 2, 24, 5), float("nan"))
    padded[:, :, :length] = x
    out, mask = stem(padded, real(24, length))
    assert mask is not None
    assert mask.sum() == alone.shape[2]
    assert_close(out[:, :, : alone.shape[2]], alone)
    assert (out[:, :, alone.shape[2] :] == 0).all()


def test_padding_and_missing_samples_are_no_part_of_a_batchs_statistics():
    plain, masked = MaskedBatchNorm(3), MaskedBatchNorm(3)
    x = torch.randn(4, 3, 5, 2)
    padded = torch.cat([torch.cat([x, torch.randn(4, 3, 2, 2)], dim=2), torch.randn(1, 3, 7, 2)])
    mask = real(7, 5, 5, 5, 5, 0)
    assert_close(masked(padded, mask)[:4, :, :5], plain(x))
    assert_close(masked.running_mean, plain.running_mean)
    assert_close(masked.running_var, plain.running_var)
    there = torch.tensor([[True]] * 4 + [[False]])
    assert_close(masked(torch.cat([x, x[:1]]), there)[:4], plain(x))
    assert masked.num_batches_tracked == plain.num_batches_tracked == 2


def test_a_batch_without_a_cell_to_compare_leaves_the_statistics_alone():
    norm = MaskedBatchNorm(3)
    assert norm(torch.randn(1, 3, 1, 1)).isfinite().all()
    assert norm(torch.randn(2, 3, 4, 4), torch.zeros(2, 1, dtype=torch.bool)).isfinite().all()
    assert norm.running_mean.tolist() == [0.0] * 3
    assert norm.running_var.tolist() == [1.0] * 3


def test_gradients_of_masked_statistics_are_those_of_the_real_cells():
    stem = residual_stem().train()
    x = torch.randn(3, 2, 6, 4)
    stem(x)[0].square().sum().backward()
    wanted = [one.grad.clone() for one in stem.parameters()]
    stem.zero_grad()
    padded = torch.cat([x, torch.full((1, 2, 6, 4), float("nan"))])
    there = torch.tensor([[True], [True], [True], [False]])
    stem(padded, there)[0].square().sum().backward()
    for one, expected in zip(stem.parameters(), wanted, strict=True):
        assert_close(one.grad, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": ()}, "for each level of a stem, got channels="),
        ({"pools": (1,)}, "for each level of a stem, got channels="),
        ({"pools": (0, 1)}, "of at least 1 and blocks of at least 0"),
        ({"blocks": (0, -1)}, "of at least 1 and blocks of at least 0"),
        ({"stride": 0}, "of at least 1 and blocks of at least 0"),
    ],
)
def test_levels_that_cannot_be_built_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        residual_stem(**changes)


@pytest.mark.parametrize("training", [True, False])
def test_gradients_of_a_transposed_row_are_those_of_its_copy(training):
    x, grad = torch.randn(2, 20, 16), torch.randn(2, 1, 20, 16)
    found = []
    for copied in (False, True):
        norm = MaskedBatchNorm(16).train(training)
        row = x.transpose(1, 2)[..., None]
        row = row.contiguous() if copied else row
        (norm(row)[..., 0].transpose(1, 2)[:, None] * grad).sum().backward()
        found.append(norm.weight.grad)
    assert_close(*found)


def test_running_statistics_are_the_mean_of_the_first_batches():
    norm = MaskedBatchNorm(2).train()
    batches = [torch.randn(4, 2, 3, 3) * 5 + 7 for _ in range(3)]
    for batch in batches:
        norm(batch)
    means = torch.stack([batch.mean(dim=(0, 2, 3)) for batch in batches])
    torch.testing.assert_close(norm.running_mean, means.mean(dim=0))
    for batch in batches * 10:
        norm(batch)
    assert norm.num_batches_tracked == 33
    before = norm.running_mean.clone()
    norm(batches[0])
    torch.testing.assert_close(norm.running_mean, before.lerp(means[0], 0.1))


@pytest.mark.parametrize("is_masked", [False, True])
def test_a_maximum_before_the_relu_is_that_after_it(is_masked):
    torch.manual_seed(0)
    layer = _ConvNorm(3, 4)
    x, mask = torch.randn(2, 3, 7, 5), None
    if is_masked:
        mask = torch.arange(7) < torch.tensor([[7], [4]])
    values = []
    for pool in ((1, 1), (2, 2)):
        layer.zero_grad()
        cells, _ = layer(x, mask, pool)
        cells = cells if pool != (1, 1) else max_pool2d(cells, 2, ceil_mode=True)
        cells.square().sum().backward()
        values.append((cells.detach(), layer.convolution.weight.grad.clone()))
    assert_close(values[0][0], values[1][0])
    assert_close(values[0][1], values[1][1])
