"""Output queries: what the latents are asked, one vector for each answer.

They are learned, computed from positions, or taken from the input. A module of queries makes any part of them, so that
answers can be drawn in training and given in chunks afterwards: nothing of the length of all answers need exist.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, runtime_checkable

import torch
from pydantic import ConfigDict, Field
from torch import nn

from perceivers.nn.init import truncated_normal_
from perceivers.nn.position import (
    axis_channels,
    axis_coordinates,
    axis_features,
    num_channels,
    resize_row,
)
from perceivers.typing import Bool, Float, Int, Tensor

__all__ = [
    "ExplainRequest",
    "FourierQueries",
    "FourierQueriesConfig",
    "InputQueries",
    "InputQueriesConfig",
    "LearnedQueries",
    "LearnedQueriesConfig",
    "Queries",
    "QueriesConfig",
    "build_queries",
]


@dataclass(frozen=True, kw_only=True)
class LearnedQueriesConfig:
    """One learned vector for each answer: for a class, for each task, for each place of a text.

    Attributes:
        num_queries: How many. One alone gives an answer without an axis of queries.
        channels: Width of the vectors. None: that of the latents.
        init_scale: Standard deviation at the start.
        follows: A modality that has as many queries as elements, from the first on, and whose padding is not asked for.
            None: all of them are asked, always.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Literal["learned"] = "learned"
    num_queries: int = 1
    channels: int | None = None
    init_scale: float = 0.02
    follows: str | None = None


@dataclass(frozen=True, kw_only=True)
class FourierQueriesConfig:
    """The Fourier features of each cell of a grid: what is there?

    Attributes:
        size: Cells of the grid along each axis. None: taken from the data before the model is built.
        num_bands: Frequencies for each axis. None: one for each whole frequency up to the finest axis' highest, at
            most 64, as in `FourierPositionsConfig`.
        max_resolution: For each axis, cells at its finest; the highest frequency is half of it. By default `size`.
        last_included: Whether coordinates reach 1 at the last cell, as those of the input do. DeepMind's release puts
            cell i of n at -1 + 2 i / n where it decodes a part of the outputs.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Literal["fourier"] = "fourier"
    size: tuple[int, ...] | None = None
    num_bands: int | None = 64
    max_resolution: tuple[int, ...] | None = None
    last_included: bool = True


@dataclass(frozen=True, kw_only=True)
class InputQueriesConfig:
    """The elements of a modality themselves, with their positions: what becomes of this one?

    Attributes:
        modality: Whose elements.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Literal["input"] = "input"
    modality: str


QueriesConfig = Annotated[
    LearnedQueriesConfig | FourierQueriesConfig | InputQueriesConfig, Field(discriminator="kind")
]


@dataclass(frozen=True)
class ExplainRequest:
    """What queries may take from the input.

    Attributes:
        lengths: Elements of each modality.
        arrays: Elements with their positions, of the modalities that `InputQueries` name.
        masks: True where an element is real, of the modalities that were padded.
    """

    lengths: dict[str, int]
    arrays: dict[str, Float[Tensor, "B _ _"]]
    masks: dict[str, Bool[Tensor, "B _"]]


@runtime_checkable
class Queries(Protocol):
    """What makes the queries of one output. A module, with parameters or without."""

    channels: int
    """Width of a query."""

    num_queries: int
    """Queries of an input of the configured size, O."""

    modality: str | None
    """The modality whose elements have one query each. None: the queries know nothing of the input."""

    def count(self, asked: ExplainRequest) -> int:
        """Return how many queries there are for this input."""
        ...

    def __call__(self, index: Int[Tensor, " O"], asked: ExplainRequest) -> Float[Tensor, "#B O Cq"]:
        """Return some of the queries; a batch of 1 serves all samples.

        Args:
            index: Which of them.
            asked: Of the input.
        """
        ...


class LearnedQueries(nn.Module):
    """A table of learned vectors.

    Args:
        config: Number, width and initial scale.
        latent_channels: Width where the configuration leaves it open (D).

    Source: Perceiver IO (arXiv:2107.14795), section 3.2.
    """

    def __init__(self, config: LearnedQueriesConfig, *, latent_channels: int) -> None:
        super().__init__()
        self.num_queries = config.num_queries
        self.channels = latent_channels if config.channels is None else config.channels
        self.modality = config.follows
        self.table = nn.Parameter(torch.empty(self.num_queries, self.channels))
        truncated_normal_(self.table, config.init_scale)

    def count(self, asked: ExplainRequest) -> int:
        """Return how many queries there are for this input.

        Raises:
            ValueError: If the input has more elements than there are queries.
        """
        if self.modality is None:
            return self.num_queries
        count = asked.lengths[self.modality]
        if count > self.num_queries:
            msg = (
                f"Expected at most num_queries={self.num_queries} elements of '{self.modality}', which have one query "
                f"each, got {count}."
            )
            raise ValueError(msg)
        return count

    def forward(
        self,
        index: Int[Tensor, " O"],
        asked: ExplainRequest,  # noqa: ARG002
    ) -> Float[Tensor, "1 O Cq"]:
        """Return some of the queries."""
        return self.table[index][None]

    def resized_from(self, theirs: nn.Module) -> dict[str, Tensor]:
        """Return the queries of other places of the same modality. Those that follow none are each its own question."""
        if not isinstance(theirs, LearnedQueries) or theirs.channels != self.channels:
            return {}
        if self.modality is None or theirs.modality != self.modality:
            return {}
        return {"table": resize_row(theirs.table.detach(), self.num_queries)}


class FourierQueries(nn.Module):
    """Fourier features of the cells of a grid, in reading order.

    Args:
        config: Grid and bands.

    Raises:
        ValueError: If the grid is not known, or there is not one resolution for each axis.

    Source: Perceiver IO (arXiv:2107.14795), section 3.2 and table 6.
    """

    def __init__(self, config: FourierQueriesConfig) -> None:
        super().__init__()
        if config.size is None:
            msg = "Expected the grid of the queries, size=(rows, columns, ...), got None."
            raise ValueError(msg)
        self.size = config.size
        self.max_resolution = (
            config.size if config.max_resolution is None else config.max_resolution
        )
        if len(self.max_resolution) != len(self.size):
            msg = f"Expected one max_resolution for each of the {len(self.size)} axes, got {self.max_resolution}."
            raise ValueError(msg)
        self.config = config
        whole = min(64, max(1, max(self.max_resolution) // 2))
        self.num_bands = whole if config.num_bands is None else config.num_bands
        self.num_queries = math.prod(self.size)
        self.channels = num_channels(len(self.size), self.num_bands)
        self.modality = None

    def count(self, asked: ExplainRequest) -> int:  # noqa: ARG002
        """Return how many queries there are: one for each cell."""
        return self.num_queries

    def forward(
        self,
        index: Int[Tensor, " O"],
        asked: ExplainRequest,  # noqa: ARG002
    ) -> Float[Tensor, "1 O Cq"]:
        """Return the features of some of the cells."""
        bands, num_axes = self.num_bands, len(self.size)
        encoded = torch.empty(index.shape[0], self.channels, device=index.device)
        places = torch.unravel_index(index, self.size)
        for axis, (cells, place) in enumerate(zip(self.size, places, strict=True)):
            if self.config.last_included:
                coordinates = axis_coordinates(cells, index.device)[place]
            else:
                coordinates = -1.0 + 2.0 * place.float() / cells
            channels = list(axis_channels(axis, num_axes=num_axes, num_bands=bands))
            encoded[:, channels] = axis_features(
                coordinates, num_bands=bands, max_resolution=self.max_resolution[axis]
            )
        return encoded[None]


class InputQueries(nn.Module):
    """The elements of a modality with their positions, as the encoder's adapter made them.

    Args:
        config: Which modality.
        channels: Width of its elements.
        num_elements: Elements of an input of the configured size.

    Source: Perceiver IO (arXiv:2107.14795), section 4.2 and appendix H (optical flow).
    """

    def __init__(self, config: InputQueriesConfig, *, channels: int, num_elements: int) -> None:
        super().__init__()
        self.channels, self.num_queries, self.modality = channels, num_elements, config.modality

    def count(self, asked: ExplainRequest) -> int:
        """Return how many queries there are: as many as elements."""
        return asked.lengths[self.modality]

    def forward(self, index: Int[Tensor, " O"], asked: ExplainRequest) -> Float[Tensor, "B O Cq"]:
        """Return some of the elements."""
        return asked.arrays[self.modality][:, index]


def build_queries(
    config: LearnedQueriesConfig | FourierQueriesConfig | InputQueriesConfig,
    *,
    latent_channels: int,
    inputs: dict[str, tuple[int, int]],
) -> LearnedQueries | FourierQueries | InputQueries:
    """Return the module for a configuration.

    Args:
        config: Of the queries.
        latent_channels: Width of the latents (D).
        inputs: Width of the elements of each modality, and their number.

    Raises:
        ValueError: If they are to come from a modality that the model does not have.
    """
    named = (
        config.modality
        if isinstance(config, InputQueriesConfig)
        else getattr(config, "follows", None)
    )
    if named is not None and named not in inputs:
        msg = (
            f"Expected queries of one of the modalities {', '.join(sorted(inputs))}, got '{named}'."
        )
        raise ValueError(msg)
    if isinstance(config, InputQueriesConfig):
        channels, count = inputs[config.modality]
        return InputQueries(config, channels=channels, num_elements=count)
    if isinstance(config, FourierQueriesConfig):
        return FourierQueries(config)
    return LearnedQueries(config, latent_channels=latent_channels)
