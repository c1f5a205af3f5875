"""Convolved stems that do not see padding: the same predictions whatever a batch is padded to."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn.functional import batch_norm, max_pool2d, pad, relu

from perceivers.nn.init import truncated_normal_
from perceivers.nn.running_statistics import count_batch
from perceivers.registry import configclass
from perceivers.typing import Bool, Float, Tensor


class ConvStem(nn.Module):
    """Convolutions with a stride, each followed by a LayerNorm over channels and a ReLU.

    What is padding is zero before every convolution, as the cells behind a border are, and nothing is averaged
    over cells or samples. So a sample's elements do not depend on what it is batched with.

    Args:
        in_channels: Channels of the input.
        channels: Channels after each convolution.
        kernel: Width of every convolution in cells, on each axis.
        stride: Stride of every convolution, on each axis. Not above `kernel`.
        num_axes: 1 for a row of cells, 2 for a grid. The mask is along the first.

    Raises:
        ValueError: If there is no convolution, or a stride is above its kernel, which would skip cells.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        *,
        kernel: int | Sequence[int],
        stride: int | Sequence[int],
        num_axes: int = 1,
    ) -> None:
        super().__init__()
        self.kernel = (kernel,) * num_axes if isinstance(kernel, int) else tuple(kernel)
        self.stride = (stride,) * num_axes if isinstance(stride, int) else tuple(stride)
        steps = zip(self.kernel, self.stride, strict=True)
        if not channels or any(not 1 <= step <= width for width, step in steps):
            raise ValueError(
                "Expected channels for at least one convolution, and strides from 1 to the kernel's width, got "
                f"channels={tuple(channels)}, kernel={self.kernel} and stride={self.stride}."
            )
        layer: type[nn.Conv1d | nn.Conv2d] = nn.Conv1d if num_axes == 1 else nn.Conv2d
        widths = [in_channels, *channels]
        # Their types are distinguished by `num_axes`, which a checker cannot follow.
        self.convolutions = nn.ModuleList(
            layer(before, after, self.kernel, stride=self.stride, bias=False)  # pyright: ignore[reportArgumentType]
            for before, after in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(after) for after in channels)
        for convolution in self.convolutions:
            weight = convolution.weight
            assert isinstance(weight, Tensor)
            truncated_normal_(weight, (2.0 / weight[0].numel()) ** 0.5)  # for ReLU

    def grid(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Return the cells along each axis after the stem."""
        for _ in self.convolutions:
            sizes = [-(-n // step) for n, step in zip(sizes, self.stride, strict=True)]
        return tuple(sizes)

    def forward(
        self, x: Float[Tensor, "B Ci *sizes"], mask: Bool[Tensor, "B L"] | None = None
    ) -> tuple[Float[Tensor, "B Co *grid"], Bool[Tensor, "B Lo"] | None]:
        """Return the cells after the stem, and which of the first axis hold something real."""
        x = _cleared(x, mask)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = convolution(self._padded(x))
            if x.ndim == 4:  # channels side by side in memory: the norm over them copies nothing
                x = x.contiguous(memory_format=torch.channels_last)
            x = norm(x.movedim(1, -1)).movedim(-1, 1).relu()
            if mask is not None:
                mask = pooled_mask(mask, self.stride[0])
                x = _cleared(x, mask)
        return x, mask

    def _padded(self, x: Float[Tensor, "B C *sizes"]) -> Float[Tensor, "B C *padded"]:
        """Put zeros around, so that a stride s gives a cell for every s cells, from the first on."""
        widths: list[int] = []
        for size, kernel, stride in zip(x.shape[2:], self.kernel, self.stride, strict=True):
            before = (kernel - stride) // 2  # of the kernel alone: a longer batch begins alike
            cells = -(-size // stride)
            widths = [before, (cells - 1) * stride + kernel - size - before, *widths]
        return pad(x, widths)


@configclass
class ResidualStemConfig:
    """Levels of a residual stem.

    Attributes:
        channels: Channels of each level.
        blocks: Residual blocks of each level.
        pools: Cells that each level joins into one by their maximum, on both axes or on each: before the level's
            convolution, but after that of the first.
        convs_per_block: Convolutions of a residual block.
        stride: Stride of the first convolution, on both axes or on each. 1 for small images; the kernel is wider than
            it by two cells.

    Raises:
        ValueError: If levels differ in number, or something is not positive.
    """

    channels: tuple[int, ...] = (32, 64, 128)
    blocks: tuple[int, ...] = (0, 0, 1)
    pools: tuple[int | tuple[int, int], ...] = (1, 2, 2)
    convs_per_block: int = 1
    stride: int | tuple[int, int] = 1

    def __post_init__(self) -> None:
        levels = len(self.channels)
        if levels < 1 or len(self.blocks) != levels or len(self.pools) != levels:
            raise ValueError(
                "Expected one number of channels, of blocks and of pooled cells for each level of a stem, got channels="
                f"{self.channels}, blocks={self.blocks} and pools={self.pools}."
            )
        steps = [length for step in self.steps for length in step]
        if min(*self.channels, *steps, self.convs_per_block) < 1 or min(self.blocks) < 0:
            raise ValueError(
                "Expected channels, pools, convs_per_block and stride of a stem of at least 1 and blocks of at least "
                f"0, got {self}."
            )

    @property
    def steps(self) -> tuple[tuple[int, int], ...]:
        """Stride of the first convolution and the pool of each level, in cells of both axes."""
        return tuple(
            (step, step) if isinstance(step, int) else step for step in (self.stride, *self.pools)
        )

    @property
    def element_step(self) -> tuple[int, int]:
        """Cells of the input that one cell after the stem stands for, on both axes."""
        return math.prod(down for down, _ in self.steps), math.prod(
            across for _, across in self.steps
        )

    def grid(self, sizes: Sequence[int]) -> tuple[int, int]:
        """Return the cells along each axis after the stem."""
        rows, columns = sizes
        for down, across in self.steps:
            rows, columns = -(-rows // down), -(-columns // across)
        return rows, columns


class ResidualStem(nn.Module):
    """Residual network of a few levels: 3 x 3 convolutions, each with BatchNorm and ReLU, coarser at each level.

    A level is a maximum over a few cells, a convolution, and residual blocks. With the maximum before it, a
    convolution costs a quarter for a pool of 2. Data lie channels-last in memory. What is padding is zero
    before every convolution and left out of the statistics of a batch.

    Args:
        in_channels: Channels of the input.
        config: Levels.

    Reference: Deep residual learning (arXiv:1512.03385); ResNet-9 of David Page's "How to train your ResNet".
    """

    def __init__(self, in_channels: int, config: ResidualStemConfig) -> None:
        super().__init__()
        self.config = config
        self.out_channels = config.channels[-1]
        stride, *self.pools = config.steps
        self.first = _ConvNorm(in_channels, config.channels[0], stride)
        before = (None, *config.channels)  # the first level's convolution is `first`
        self.levels = nn.ModuleList(
            nn.ModuleList([] if narrow is None else [_ConvNorm(narrow, width)]).extend(
                _Residual(width, config.convs_per_block) for _ in range(count)
            )
            for narrow, width, count in zip(before, config.channels, config.blocks, strict=False)
        )

    def forward(
        self, x: Float[Tensor, "B Ci Y X"], mask: Bool[Tensor, "B L"] | None = None
    ) -> tuple[Float[Tensor, "B Co Yo Xo"], Bool[Tensor, "B Lo"] | None]:
        """Return the cells after the stem, and which of the first axis hold something real.

        Args:
            x: Images, spectrograms or frames.
            mask: Where the first axis (Y) is real; where L is 1, which samples are.
        """
        x = _cleared(x, mask).contiguous(memory_format=torch.channels_last)
        x, mask = self.first(x, mask, self.pools[0])
        for level, pool in enumerate(self.pools):
            if level > 0 and pool != (1, 1):
                # After a ReLU zeros are the smallest values, so padding never wins a maximum.
                x = max_pool2d(x, pool, ceil_mode=True)
                mask = _pooled_rows(mask, pool[0])
            for layer in self.levels.get_submodule(str(level)).children():
                x, mask = layer(x, mask)
        return x, mask


class _Residual(nn.Module):
    """The cells plus those after a few convolutions."""

    def __init__(self, channels: int, convolutions: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_ConvNorm(channels, channels) for _ in range(convolutions))

    def forward(
        self, x: Float[Tensor, "B C Y X"], mask: Bool[Tensor, "B L"] | None
    ) -> tuple[Float[Tensor, "B C Y X"], Bool[Tensor, "B L"] | None]:
        change = x
        for layer in self.layers:
            change, _ = layer(change, mask)
        return x + change, mask


class _ConvNorm(nn.Module):
    """A 3 x 3 convolution, BatchNorm and ReLU; padding is zero before and after."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: tuple[int, int] = (1, 1)
    ) -> None:
        super().__init__()
        kernel = stride[0] + 2, stride[1] + 2
        self.convolution = nn.Conv2d(in_channels, out_channels, kernel, stride=stride, bias=False)
        if stride == (1, 1):
            self.convolution.padding = (1, 1)
        truncated_normal_(self.convolution.weight, (2.0 / (in_channels * math.prod(kernel))) ** 0.5)
        self.norm = MaskedBatchNorm(out_channels)

    def forward(
        self,
        x: Float[Tensor, "B Ci Y X"],
        mask: Bool[Tensor, "B L"] | None,
        pool: tuple[int, int] = (1, 1),
    ) -> tuple[Float[Tensor, "B Co Yo Xo"], Bool[Tensor, "B Lo"] | None]:
        """Return the cells after the ReLU, or their maxima over `pool` cells, and which rows are real."""
        rows, columns = self.convolution.stride
        if (rows, columns) != (1, 1):
            # One zero before, one or more behind: a cell for every stride, from the first on.
            behind = [1 + -n % step for n, step in zip(x.shape[2:], (rows, columns), strict=True)]
            x = pad(x, (1, behind[1], 1, behind[0])).contiguous(memory_format=torch.channels_last)
        mask = _pooled_rows(mask, rows)
        x = _cleared(self.norm(self.convolution(x), mask), mask)
        if pool != (1, 1):  # the same before the ReLU, which then has fewer cells
            x = max_pool2d(x, pool, ceil_mode=True)
            mask = _pooled_rows(mask, pool[0])
        return relu(x, inplace=True), mask


class MaskedBatchNorm(nn.BatchNorm2d):
    """BatchNorm over the cells that are real, with float32 statistics."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Float[Tensor, "B C Y X"], mask: Bool[Tensor, "B L"] | None = None
    ) -> Float[Tensor, "B C Y X"]:
        """Return normalized cells; values of masked cells have no meaning."""
        if not torch.compiler.is_compiling() and 1 in x.shape[2:]:
            # torch 2.13 on CPUs: wrong gradients of weights where such an axis makes two memory formats alike
            x = x.contiguous()
        uses_batch = self.training and x.numel() > x.shape[1]  # one cell has no deviation
        if not uses_batch or mask is None:
            weight, bias, mean, var = self.weight, self.bias, self.running_mean, self.running_var
            momentum = count_batch(self) if uses_batch else 0.0
            return batch_norm(x, mean, var, weight, bias, uses_batch, momentum, self.eps)
        real = mask[:, None, :, None].expand(-1, 1, x.shape[2], 1).to(torch.float32)
        count = (real.sum() * x.shape[3]).clamp(min=1.0)
        values = x.to(torch.float32)
        mean = (values * real).sum(dim=(0, 2, 3), keepdim=True) / count
        centered = values - mean
        var = (centered.square() * real).sum(dim=(0, 2, 3), keepdim=True) / count
        self._track(mean.detach().flatten(), var.detach().flatten(), count)
        scale = self.weight[:, None, None] * torch.rsqrt(var + self.eps)
        return (centered * scale + self.bias[:, None, None]).to(x.dtype)

    def _track(self, mean: Float[Tensor, " C"], var: Float[Tensor, " C"], count: Tensor) -> None:
        """Update the statistics of evaluation; a batch without a real cell changes nothing."""
        assert self.running_mean is not None
        assert self.running_var is not None
        rate = count_batch(self) * (count > 1)
        self.running_mean.lerp_(mean, rate)
        self.running_var.lerp_(var * count / (count - 1).clamp(min=1.0), rate)


def _pooled_rows(mask: Bool[Tensor, "B L"] | None, step: int) -> Bool[Tensor, "B Lo"] | None:
    """Return a mask of rows after pooling; a mask of whole samples stays."""
    return mask if mask is None or mask.shape[1] == 1 else pooled_mask(mask, step)


def pooled_mask(mask: Bool[Tensor, "B L"], step: int) -> Bool[Tensor, "B Lo"]:
    """Return for every `step` places whether one of them is real; the last may be fewer."""
    if step == 1:
        return mask
    filled = pad(mask, (0, -mask.shape[1] % step))
    return filled.reshape(mask.shape[0], -1, step).any(dim=2)


def _cleared(
    x: Float[Tensor, "B C *sizes"], mask: Bool[Tensor, "B L"] | None
) -> Float[Tensor, "B C *sizes"]:
    """Return cells with zeros where the first axis is padding; 0 x nan is nan, so nothing is multiplied."""
    if mask is None:
        return x
    shape = (mask.shape[0], 1, mask.shape[1], *[1] * (x.ndim - 3))
    return x.masked_fill(~mask.reshape(shape), 0.0)
