"""Output queries, one vector for each output: learned, computed from positions, or taken from the input.

A module of queries makes any subset of them, so that they can be drawn in training and decoded in chunks: no array of
the length of all outputs need exist.
"""

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Protocol, runtime_checkable

import torch
from pydantic import Field
from torch import nn

from perceivers.nn.init import truncated_normal_
from perceivers.nn.position import (
    axis_channels,
    axis_coordinates,
    axis_features,
    num_channels,
    resize_row,
)
from perceivers.registry import configclass
from perceivers.typing import Bool, Float, Int, Tensor


@configclass
class LearnedQueriesConfig:
    """One learned vector for each output: for a class, for each task, for each position of a text.

    Attributes:
        num_queries: Number of queries. A single one gives an output without an axis of queries.
        channels: Width of the vectors. None: that of the latents.
        init_scale: Standard deviation of the initial vectors.
        follows: Modality with one query for each of its elements, from the first on, whose padding is masked. None:
            all queries are always used.
    """

    kind: Literal["learned"] = "learned"
    num_queries: int = 1
    channels: int | None = None
    init_scale: float = 0.02
    follows: str | None = None

    def fit_to(self, grid: tuple[int, ...]) -> "LearnedQueriesConfig":
        """Return one query for each cell of a grid."""
        return replace(self, num_queries=math.prod(grid))


@configclass
class FourierQueriesConfig:
    """Fourier features of each cell of a grid.

    Attributes:
        size: Cells of the grid along each axis. None: taken from the data before the model is built.
        num_bands: Frequencies for each axis. None: one for each whole frequency up to the finest axis' highest, at
            most 64, as in `FourierPositionsConfig`.
        max_resolution: For each axis, cells at its finest; the highest frequency is half of it. By default `size`.
        last_included: Whether coordinates reach 1 at the last cell, like those of the input. DeepMind's release puts
            cell i of n at -1 + 2 i / n where it decodes a subset of the outputs.
    """

    kind: Literal["fourier"] = "fourier"
    size: tuple[int, ...] | None = None
    num_bands: int | None = 64
    max_resolution: tuple[int, ...] | None = None
    last_included: bool = True

    def fit_to(self, grid: tuple[int, ...]) -> "FourierQueriesConfig":
        """Return one query for each cell of a grid."""
        return replace(self, size=grid)


@configclass
class InputQueriesConfig:
    """The elements of an input with their positions.

    Attributes:
        modality: Name of the input.
    """

    kind: Literal["input"] = "input"
    modality: str

    def fit_to(self, grid: tuple[int, ...]) -> "InputQueriesConfig":
        """Return the same queries: there is one for each element of the input."""
        return self


QueriesConfig = Annotated[
    LearnedQueriesConfig | FourierQueriesConfig | InputQueriesConfig, Field(discriminator="kind")
]


@dataclass(frozen=True)
class QueryContext:
    """Parts of the input that queries are made of.

    Attributes:
        lengths: Number of elements of each modality.
        arrays: Elements with their positions, for the modalities of `InputQueries`.
        masks: True where an element is real, for the modalities that were padded.
    """

    lengths: dict[str, int]
    arrays: dict[str, Float[Tensor, "B _ _"]]
    masks: dict[str, Bool[Tensor, "B _"]]


@runtime_checkable
class Queries(Protocol):
    """The queries of one output. A module, with parameters or without."""

    channels: int
    """Width of a query, Cq."""

    num_queries: int
    """Number of queries for an input of the configured size, O."""

    modality: str | None
    """The modality whose elements have one query each. None: the queries are independent of the input."""

    def count(self, context: QueryContext) -> int:
        """Return the number of queries for this input."""
        ...

    def __call__(self, index: Int[Tensor, " O"], context: QueryContext) -> Float[Tensor, "#B O Cq"]:
        """Return the queries of these indices; a batch of 1 serves all samples."""
        ...


class LearnedQueries(nn.Module):
    """A table of learned vectors.

    Args:
        config: Number, width and initial scale.
        latent_channels: Width where the configuration leaves it open (D).

    Reference: Perceiver IO (arXiv:2107.14795), section 3.2.
    """

    def __init__(self, config: LearnedQueriesConfig, *, latent_channels: int) -> None:
        super().__init__()
        self.num_queries = config.num_queries
        self.channels = latent_channels if config.channels is None else config.channels
        self.modality = config.follows
        self.table = nn.Parameter(torch.empty(self.num_queries, self.channels))
        truncated_normal_(self.table, config.init_scale)

    def count(self, context: QueryContext) -> int:
        """Return the number of queries for this input, which has at most `num_queries` elements."""
        if self.modality is None:
            return self.num_queries
        count = context.lengths[self.modality]
        if count > self.num_queries:
            raise ValueError(
                f"Expected at most num_queries={self.num_queries} elements of '{self.modality}', which have one query "
                f"each, got {count}."
            )
        return count

    def forward(self, index: Int[Tensor, " O"], context: QueryContext) -> Float[Tensor, "1 O Cq"]:
        """Return some of the queries."""
        return self.table[index][None]

    def resized_from(self, theirs: nn.Module) -> dict[str, Tensor]:
        """Return the queries resized from those of another length of the same modality; {} if they follow none."""
        if not isinstance(theirs, LearnedQueries) or theirs.channels != self.channels:
            return {}
        if self.modality is None or theirs.modality != self.modality:
            return {}
        return {"table": resize_row(theirs.table.detach(), self.num_queries)}


class FourierQueries(nn.Module):
    """Fourier features of the cells of a grid, in row-major order.

    Args:
        config: Grid and bands.

    Raises:
        ValueError: If the grid is not known, or there is not one resolution for each axis.

    Reference: Perceiver IO (arXiv:2107.14795), section 3.2 and table 6.
    """

    def __init__(self, config: FourierQueriesConfig) -> None:
        super().__init__()
        if config.size is None:
            raise ValueError(
                "Expected the grid of the queries, size=(rows, columns, ...), got None."
            )
        self.size = config.size
        self.max_resolution = config.max_resolution or config.size
        if len(self.max_resolution) != len(self.size):
            raise ValueError(
                f"Expected one max_resolution for each of the {len(self.size)} axes, got {self.max_resolution}."
            )
        self.config = config
        default = min(64, max(1, max(self.max_resolution) // 2))
        self.num_bands = default if config.num_bands is None else config.num_bands
        self.num_queries = math.prod(self.size)
        self.channels = num_channels(len(self.size), self.num_bands)
        self.modality = None

    def count(self, context: QueryContext) -> int:
        """Return the number of queries: one for each cell."""
        return self.num_queries

    def forward(self, index: Int[Tensor, " O"], context: QueryContext) -> Float[Tensor, "1 O Cq"]:
        """Return the features of some of the cells."""
        bands, num_axes = self.num_bands, len(self.size)
        encoded = torch.empty(index.shape[0], self.channels, device=index.device)
        positions = torch.unravel_index(index, self.size)
        for axis, (cells, position) in enumerate(zip(self.size, positions, strict=True)):
            if self.config.last_included:
                coordinates = axis_coordinates(cells, index.device)[position]
            else:
                coordinates = -1.0 + 2.0 * position.float() / cells
            channels = list(axis_channels(axis, num_axes=num_axes, num_bands=bands))
            encoded[:, channels] = axis_features(
                coordinates, num_bands=bands, max_resolution=self.max_resolution[axis]
            )
        return encoded[None]


class InputQueries(nn.Module):
    """The elements of a modality with their positions, from its input adapter.

    Args:
        config: Name of the modality.
        channels: Width of its elements.
        num_elements: Number of elements of an input of the configured size.

    Reference: Perceiver IO (arXiv:2107.14795), section 4.2 and appendix H (optical flow).
    """

    def __init__(self, config: InputQueriesConfig, *, channels: int, num_elements: int) -> None:
        super().__init__()
        self.channels, self.num_queries, self.modality = channels, num_elements, config.modality

    def count(self, context: QueryContext) -> int:
        """Return the number of queries: one for each element."""
        return context.lengths[self.modality]

    def forward(self, index: Int[Tensor, " O"], context: QueryContext) -> Float[Tensor, "B O Cq"]:
        """Return some of the elements."""
        return context.arrays[self.modality][:, index]


def build_queries(
    config: LearnedQueriesConfig | FourierQueriesConfig | InputQueriesConfig,
    *,
    latent_channels: int,
    inputs: dict[str, tuple[int, int]],
) -> LearnedQueries | FourierQueries | InputQueries:
    """Return the module for a configuration.

    Args:
        config: Configuration of the queries.
        latent_channels: Width of the latents (D).
        inputs: Width and number of the elements of each modality.

    Raises:
        ValueError: If they are made of a modality that the model does not have.
    """
    named = getattr(config, "modality", getattr(config, "follows", None))
    if named is not None and named not in inputs:
        raise ValueError(
            f"Expected queries of one of the modalities {', '.join(sorted(inputs))}, got '{named}'."
        )
    if isinstance(config, InputQueriesConfig):
        channels, count = inputs[config.modality]
        return InputQueries(config, channels=channels, num_elements=count)
    if isinstance(config, FourierQueriesConfig):
        return FourierQueries(config)
    return LearnedQueries(config, latent_channels=latent_channels)
