"""Frames larger than a model's window: read tile by tile, and the answers blended where tiles overlap."""

from collections.abc import Callable
from itertools import product

import torch
from torch.nn.functional import pad

from perceivers.typing import Float, Tensor

__all__ = ["OVERLAP", "blended", "tile_starts", "tile_weights", "tiled"]

OVERLAP = 20  # pixels that neighboring tiles share at least, where they are large enough for it


def tile_starts(extent: int, size: int, overlap: int = OVERLAP) -> tuple[int, ...]:
    """Return where tiles begin along an axis: as few as cover it, evenly spaced.

    Args:
        extent: Length of the axis, at least `size`.
        size: Length of a tile.
        overlap: What neighbors share at least. Of small tiles it is a quarter of the tile.
    """
    shared = min(overlap, size // 4)
    if extent <= size:
        return (0,)
    count = -(-(extent - shared) // (size - shared))
    return tuple((extent - size) * number // (count - 1) for number in range(count))


def tile_weights(size: tuple[int, int]) -> Float[Tensor, "Y X"]:
    """Return how much each pixel of a tile counts: its distance to the nearest edge, plus one.

    Source: Perceiver IO (arXiv:2107.14795), appendix H; DeepMind's release adds the one.
    """
    rows, columns = (torch.minimum(torch.arange(n), torch.arange(n).flip(0)) for n in size)
    return torch.minimum(rows[:, None], columns[None, :]).float() + 1.0


def blended(
    fields: dict[tuple[int, int], Float[Tensor, "B Yt Xt C"]], extent: tuple[int, int]
) -> Float[Tensor, "B Y X C"]:
    """Return the mean of overlapping tiles, weighted by `tile_weights`.

    Args:
        fields: What each tile says, by its first row and column. All have one size, and together they cover the frame.
        extent: Height and width of the frame.
    """
    one = next(iter(fields.values()))
    size = (one.shape[1], one.shape[2])
    weights = tile_weights(size).to(one.device)[..., None]
    sums = one.new_zeros(one.shape[0], *extent, one.shape[3])
    total = one.new_zeros(*extent, 1)
    for (row, column), field in fields.items():
        place = (slice(row, row + size[0]), slice(column, column + size[1]))
        sums[:, *place] += weights * field
        total[place] += weights
    return sums / total


def tiled(
    read: Callable[[Float[Tensor, "B T Ci Yt Xt"]], Float[Tensor, "B Yt Xt C"]],
    frames: Float[Tensor, "B T Ci Y X"],
    size: tuple[int, int],
) -> Float[Tensor, "B Y X C"]:
    """Return what a model of one window says of frames of any size.

    Frames smaller than the window get zeros below and beside them, as in training.

    Args:
        read: The model: of a tile of `size`, a vector for each pixel.
        frames: Of any size.
        size: Height and width of the window.
    """
    height, width = frames.shape[-2:]
    missing = (max(size[0] - height, 0), max(size[1] - width, 0))
    if any(missing):
        frames = pad(frames, (0, missing[1], 0, missing[0]))
    extent = (height + missing[0], width + missing[1])
    starts = product(*(tile_starts(n, tile) for n, tile in zip(extent, size, strict=True)))
    fields = {
        (row, column): read(frames[..., row : row + size[0], column : column + size[1]])
        for row, column in starts
    }
    whole = next(iter(fields.values())) if len(fields) == 1 else blended(fields, extent)
    return whole[:, :height, :width]
