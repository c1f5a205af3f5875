"""Convolved stems that do not see padding: the same numbers whatever a batch is padded to."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn.functional import pad

from perceivers.nn.init import truncated_normal_
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
