"""Fourier features of positions, as the papers define them, and resizing of learned positions.

For a position x in [-1, 1] and K bands: x itself, sin(pi f_k x) and cos(pi f_k x), where f_k runs linearly
from 1 to half the axis' maximum resolution (its Nyquist frequency). With d axes the channels are
`[x_1..x_d | all sines, axis by axis | all cosines, axis by axis]`, d (2K + 1) in all.

Everything here is float32 whatever the precision of the model: pi f x reaches hundreds of radians, where bfloat16
cannot resolve the angle.

Reference: Perceiver (arXiv:2103.03206), section 3.2 and appendix D.
"""

from collections.abc import Sequence
from math import pi
from typing import Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn.functional import interpolate

from perceivers.typing import Float, Tensor

_MODES = ("linear", "bilinear", "trilinear")  # of one, two and three axes


@runtime_checkable
class Resizable(Protocol):
    """A module with learned positions that can be resized to another number of positions."""

    def resized_from(self, theirs: nn.Module) -> dict[str, Tensor]:
        """Return the learned positions of another such module, by parameter, resized to this one.

        Empty if the other module is of another kind, or its vectors have another width or grid.
        """
        ...


def axis_coordinates(size: int, device: torch.device | None = None) -> Float[Tensor, " n"]:
    """Return the positions of the `size` cells of one axis: from -1 to 1, both ends included."""
    return torch.linspace(-1.0, 1.0, size, dtype=torch.float32, device=device)


def axis_features(
    coordinates: Float[Tensor, "*n"], *, num_bands: int, max_resolution: float
) -> Float[Tensor, "*n F"]:
    """Return `[x | K sines | K cosines]` of positions on one axis.

    Args:
        coordinates: Positions in [-1, 1].
        num_bands: Number of frequencies, K.
        max_resolution: Cells of the axis at its finest; the highest frequency is half of it.
    """
    x = coordinates.to(torch.float32)[..., None]
    bands = torch.linspace(
        1.0, max_resolution / 2, num_bands, dtype=torch.float32, device=coordinates.device
    )
    angles = pi * (x * bands)
    return torch.cat([x, angles.sin(), angles.cos()], dim=-1)


def num_channels(num_axes: int, num_bands: int) -> int:
    """Return the width of the encoding, d (2K + 1)."""
    return num_axes * (2 * num_bands + 1)


def axis_channels(axis: int, *, num_axes: int, num_bands: int) -> tuple[int, ...]:
    """Return the channels of the complete encoding that hold the features of one axis, in their order."""
    raw = (axis,)
    sines = range(num_axes + axis * num_bands, num_axes + (axis + 1) * num_bands)
    first = num_axes * (1 + num_bands)
    cosines = range(first + axis * num_bands, first + (axis + 1) * num_bands)
    return (*raw, *sines, *cosines)


def fourier_features(
    positions: Float[Tensor, "*n d"], *, num_bands: int, max_resolution: Sequence[float]
) -> Float[Tensor, "*n P"]:
    """Return the encoding of arbitrary points, in the papers' channel order.

    Args:
        positions: Points in [-1, 1]^d.
        num_bands: Number of frequencies for each axis, K.
        max_resolution: For each axis, cells at its finest.

    Raises:
        ValueError: If there is not one resolution for each axis.
    """
    num_axes = positions.shape[-1]
    if len(max_resolution) != num_axes:
        raise ValueError(
            f"Expected one max_resolution for each of the {num_axes} axes of the positions, "
            f"got {len(max_resolution)}: {tuple(max_resolution)}."
        )
    encoded = positions.new_empty(
        (*positions.shape[:-1], num_channels(num_axes, num_bands)), dtype=torch.float32
    )
    for axis, resolution in enumerate(max_resolution):
        channels = list(axis_channels(axis, num_axes=num_axes, num_bands=num_bands))
        encoded[..., channels] = axis_features(
            positions[..., axis], num_bands=num_bands, max_resolution=resolution
        )
    return encoded


def resize_table(
    table: Float[Tensor, "M P"], grid: tuple[int, ...], to: tuple[int, ...]
) -> Float[Tensor, "L P"]:
    """Return the vectors of a grid's cells interpolated to another grid: linear along each axis, corners aligned.

    Cells are in row-major order, along at most three axes.

    Reference: ViT (arXiv:2010.11929), section 3.2, interpolates learned positions; linearly, with aligned corners and
    without antialiasing, as in its release.
    """
    if grid == to:
        return table
    cells = table.T.reshape(1, -1, *grid)
    cells = interpolate(cells, size=to, mode=_MODES[len(grid) - 1], align_corners=True)
    return cells[0].flatten(1).T


def resize_row(table: Float[Tensor, "M P"], length: int) -> Float[Tensor, "L P"]:
    """Return the vectors of consecutive positions for another number of positions.

    Fewer positions keep the first vectors, so that short inputs are encoded as before. More are interpolated.
    """
    if length <= table.shape[0]:
        return table[:length]
    return resize_table(table, (table.shape[0],), (length,))
