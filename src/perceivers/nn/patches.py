"""Patches: a coarser grid whose cells hold all values of the finer cells they cover."""

import math
from collections.abc import Sequence

from torch.nn.functional import pad

from perceivers.typing import Float, Tensor


def pad_to_multiple(
    x: Float[Tensor, "B C *sizes"], patch: Sequence[int]
) -> Float[Tensor, "B C *padded"]:
    """Return `x` with zeros behind its last cells, so that every axis divides into patches."""
    missing = [-size % step for size, step in zip(x.shape[2:], patch, strict=True)]
    widths = [w for m in reversed(missing) for w in (0, m)]  # torch counts axes from the last
    return pad(x, widths) if any(missing) else x


def space_to_depth(
    x: Float[Tensor, "B C *sizes"], patch: Sequence[int]
) -> Float[Tensor, "B *grid V"]:
    """Return the values of each patch as the channels of one cell, for any number of axes.

    Within a cell the order is that of the papers' release: axes of the patch first, channels last, so a
    4 x 4 patch of RGB gives 48 values, its first three the colors of its upper left pixel.

    Args:
        x: Values on a grid.
        patch: Cells of a patch on each axis. Each must divide the grid's size.

    Raises:
        ValueError: If a patch does not divide its axis.
    """
    sizes = x.shape[2:]
    if len(patch) != len(sizes) or any(n % p for n, p in zip(sizes, patch, strict=True)):
        raise ValueError(
            f"Expected a grid that divides into patches of {tuple(patch)}, got {tuple(sizes)}."
        )
    grid = [n // p for n, p in zip(sizes, patch, strict=True)]
    split = x.reshape(*x.shape[:2], *(s for pair in zip(grid, patch, strict=True) for s in pair))
    axes = len(patch)
    order = (0, *range(2, 2 + 2 * axes, 2), *range(3, 3 + 2 * axes, 2), 1)
    return split.permute(order).reshape(x.shape[0], *grid, x.shape[1] * math.prod(patch))


def depth_to_space(
    x: Float[Tensor, "B *grid V"], patch: Sequence[int]
) -> Float[Tensor, "B C *sizes"]:
    """Return the fine grid: the inverse of `space_to_depth`.

    Raises:
        ValueError: If the channels do not hold whole patches.
    """
    axes = len(patch)
    grid, values = x.shape[1:-1], x.shape[-1]
    if len(grid) != axes or values % math.prod(patch):
        raise ValueError(
            f"Expected {axes} axes and whole patches of {tuple(patch)}, got {tuple(x.shape)}."
        )
    split = x.reshape(x.shape[0], *grid, *patch, values // math.prod(patch))
    order = (0, 1 + 2 * axes, *(i for a in range(axes) for i in (1 + a, 1 + axes + a)))
    sizes = [n * p for n, p in zip(grid, patch, strict=True)]
    return split.permute(order).reshape(x.shape[0], -1, *sizes)
