"""Position encodings of grids: Fourier features or learned vectors; and the base of adapters with such positions."""

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from perceivers.inputs.elements import GridPositions
from perceivers.nn.init import truncated_linear, truncated_normal_
from perceivers.nn.position import (
    axis_channels,
    axis_coordinates,
    axis_features,
    num_channels,
    resize_table,
)
from perceivers.registry import configclass
from perceivers.typing import Float, Tensor


@configclass
class FourierPositionsConfig:
    """Fourier features of each axis of the grid.

    Attributes:
        num_bands: Frequencies for each axis. 64 on ImageNet. None: one for each whole frequency up to
            the finest axis' highest, at most 64.
        max_resolution: For each axis, cells at its finest; the highest frequency is half of it. By
            default the grid of the configured size.
    """

    kind: Literal["fourier"] = "fourier"
    num_bands: int | None = 64
    max_resolution: tuple[int, ...] | None = None


@configclass
class LearnedPositionsConfig:
    """One learned vector for each cell of the grid; nothing states which cells are near.

    Attributes:
        channels: Width of the vectors. 128 in the 2021 paper, 256 in Perceiver IO.
        init_scale: Standard deviation at the start. 1.0 worked best in the 2021 paper (its appendix B);
            Perceiver IO uses 0.02.
        project_channels: Width after a linear layer, as in Perceiver IO. None: no such layer.
    """

    kind: Literal["learned"] = "learned"
    channels: int = 128
    init_scale: float = 1.0
    project_channels: int | None = None


PositionsConfig = Annotated[
    FourierPositionsConfig | LearnedPositionsConfig, Field(discriminator="kind")
]


class FourierPositions(nn.Module):
    """Fourier features of a grid, of whatever size it has at run time.

    Coordinates always run from -1 to 1 over the grid at hand, while the frequencies stay those of the
    configured size: a model may be fed other sizes and aspects than it was trained on.

    Args:
        config: Bands and resolution.
        grid: Cells of the configured input along each axis.

    Raises:
        ValueError: If `max_resolution` does not have one value for each axis.
    """

    channels: int

    def __init__(self, config: FourierPositionsConfig, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.max_resolution = grid if config.max_resolution is None else config.max_resolution
        whole = min(64, max(1, max(self.max_resolution) // 2))
        self.num_bands = whole if config.num_bands is None else config.num_bands
        if len(self.max_resolution) != len(grid):
            raise ValueError(
                f"Expected one max_resolution for each of the {len(grid)} axes, "
                f"got {self.max_resolution}."
            )
        self.channels = num_channels(len(grid), self.num_bands)

    def forward(self, grid: tuple[int, ...], device: torch.device) -> GridPositions:
        """Return the tables of a grid with `grid` cells along each axis, in float32."""
        num_axes = len(self.max_resolution)
        tables = tuple(
            axis_features(axis_coordinates(n, device), num_bands=self.num_bands, max_resolution=mu)
            for n, mu in zip(grid, self.max_resolution, strict=True)
        )
        channels = tuple(
            axis_channels(axis, num_axes=num_axes, num_bands=self.num_bands)
            for axis in range(num_axes)
        )
        return GridPositions(tables, channels)


class LearnedPositions(nn.Module):
    """A table of learned vectors, one for each cell in reading order.

    Another grid than the configured one is served by linear interpolation of the table along each axis.

    Args:
        config: Widths and initial scale.
        grid: Cells of the configured input along each axis; at most three axes.
    """

    channels: int

    def __init__(self, config: LearnedPositionsConfig, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.grid = grid
        self.table = nn.Parameter(torch.empty(math.prod(grid), config.channels))
        truncated_normal_(self.table, config.init_scale)
        self.project: nn.Module = nn.Identity()
        self.channels = config.channels
        if config.project_channels is not None:
            self.channels = config.project_channels
            self.project = truncated_linear(config.channels, self.channels)

    def forward(self, grid: tuple[int, ...], device: torch.device) -> Float[Tensor, "M P"]:
        """Return one vector for each cell of a grid with `grid` cells along each axis."""
        return self.project(resize_table(self.table, self.grid, grid).to(device))

    def resized_from(self, theirs: nn.Module) -> dict[str, Tensor]:
        """Return the table of other learned positions for this grid: what they would be here, interpolated."""
        if not isinstance(theirs, LearnedPositions) or len(theirs.grid) != len(self.grid):
            return {}
        if theirs.table.shape[1] != self.table.shape[1]:
            return {}
        return {"table": resize_table(theirs.table.detach(), theirs.grid, self.grid)}


def build_positions(
    config: PositionsConfig, grid: tuple[int, ...]
) -> FourierPositions | LearnedPositions:
    """Return the module for a configuration."""
    if isinstance(config, FourierPositionsConfig):
        return FourierPositions(config, grid)
    return LearnedPositions(config, grid)


def first_cells(
    positions: GridPositions | Float[Tensor, "M P"], count: int, across: int = 1
) -> GridPositions | Float[Tensor, "m P"]:
    """Return the positions of the first `count` cells of a grid's first axis, each of `across` elements."""
    if isinstance(positions, GridPositions):
        first, *others = positions.tables
        return GridPositions((first[:count], *others), positions.channels)
    return positions[: count * across]


def why_unreadable(num_channels: int, expected: str) -> str | None:
    """Return why a LayerNorm erases elements of a single channel, None if they have more; `expected` ends it."""
    if num_channels > 1:
        return None
    return (
        "An element of one channel without a position cannot be read: the LayerNorm before a cross-attend turns "
        f"any single number into zero. Expected positions (for example FourierPositionsConfig()), {expected}."
    )


class GridInput(nn.Module):
    """Base of input adapters whose elements lie on a grid.

    Args:
        shape: Shape of a sample of the configured size.
        grid: Elements along each axis.
        content_channels: Width of an element without its position.
        positions: Position encoding of the grid. None: none.
        expected: Remedies other than positions, and the actual value, for the message.
    """

    begins_alike: ClassVar[bool] = True
    """Whether an input of fewer cells along the first axis, such as time, has the first of them."""

    channels: int
    num_elements: int
    axes: tuple[int, ...]
    unreadable: str | None
    """Why a LayerNorm erases the elements, which most encoders begin with. None: it does not."""

    def __init__(
        self,
        shape: tuple[int, ...],
        grid: tuple[int, ...],
        content_channels: int,
        positions: PositionsConfig | None,
        expected: str,
    ) -> None:
        super().__init__()
        self.shape, self.axes, self.num_elements = shape, grid, math.prod(grid)
        self.channels = content_channels
        self.positions = None
        if positions is not None:
            self.positions = build_positions(positions, grid)
            self.channels += self.positions.channels
        self.unreadable = why_unreadable(self.channels, expected)

    def example(self, batch_size: int) -> Float[Tensor, "B ..."]:
        """Return an input of the configured size, all zeros."""
        return torch.zeros(batch_size, *self.shape)
