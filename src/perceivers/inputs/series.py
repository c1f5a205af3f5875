"""Series of sensors as input elements: patches of steps, or cells after a convolved stem."""

from abc import ABC, abstractmethod
from dataclasses import field
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn.functional import pad

from perceivers.inputs.elements import Elements, GridPositions
from perceivers.inputs.positions import (
    FourierPositionsConfig,
    LearnedPositions,
    PositionsConfig,
    build_positions,
    check_readable,
    first_cells,
)
from perceivers.inputs.registry import register_input
from perceivers.inputs.stems import ConvStem, pooled_mask
from perceivers.nn.init import truncated_linear
from perceivers.nn.position import axis_features
from perceivers.registry import configclass
from perceivers.typing import Bool, Float, Tensor


def _whole_bands() -> FourierPositionsConfig:
    return FourierPositionsConfig(num_bands=None)


class _SeriesGrid:
    length: int | None
    num_channels: int | None
    has_missing: bool

    @property
    def value_grid(self) -> dict[str, Any]:
        """Size, channels and flags of the grid of values that autoencoding reconstructs."""
        return {
            "size": (self.length,),
            "num_channels": self.num_channels,
            "has_missing": self.has_missing,
        }


@configclass
class SeriesInputConfig(_SeriesGrid):
    """Every patch of steps is an element: the values of its steps, one after the other.

    Attributes:
        length: Steps of a series at most. None: taken from the data before the model is built.
        num_channels: Channels of the series. None: taken from the data before the model is built.
        has_missing: Whether a flag for each channel follows its values: 1 where one is there.
        irregular: Whether the last channel is the time in [-1, 1]; a patch lies at the mean of its times.
        patch: Steps of a patch.
        positions: Where a patch is. None: the model cannot know.
        project_channels: Width of a patch after a linear layer. None: its values as they are.
    """

    kind: Literal["series"] = "series"
    length: int | None = None
    num_channels: int | None = None
    has_missing: bool = False
    irregular: bool = False
    patch: int = 1
    positions: PositionsConfig | None = field(default_factory=_whole_bands)
    project_channels: int | None = None


@configclass
class ConvSeriesInputConfig(_SeriesGrid):
    """Every cell of a convolved series is an element.

    Attributes:
        length: Steps of a series at most. None: taken from the data before the model is built.
        num_channels: Channels of the series. None: taken from the data before the model is built.
        has_missing: Whether a flag for each channel follows its values: 1 where one is there.
        irregular: Whether the last channel is the time in [-1, 1]; a cell lies at the mean of its times.
        stem_channels: Channels after each convolution.
        kernel: Steps that a convolution sees.
        stride: Steps from one cell to the next, of every convolution.
        positions: Where a cell is. None: the model cannot know.
    """

    kind: Literal["series_convolved"] = "series_convolved"
    length: int | None = None
    num_channels: int | None = None
    has_missing: bool = False
    irregular: bool = False
    stem_channels: tuple[int, ...] = (64, 128)
    kernel: int = 5
    stride: int = 2
    positions: PositionsConfig | None = field(default_factory=_whole_bands)


SeriesConfig = Annotated[SeriesInputConfig | ConvSeriesInputConfig, Field(discriminator="kind")]


class RowPositions(nn.Module):
    """Positions of the elements of a row. A shorter row has those of the first elements of the configured one.

    So an element's position does not depend on what its sample is batched with.

    Args:
        config: Fourier features or learned vectors.
        num_elements: Number of elements of the configured row.
    """

    channels: int

    def __init__(self, config: PositionsConfig, num_elements: int) -> None:
        super().__init__()
        self.num_elements = num_elements
        self.table = build_positions(config, (num_elements,))
        self.channels = self.table.channels

    def forward(self, count: int, device: torch.device) -> GridPositions | Float[Tensor, "M P"]:
        """Return the positions of the first `count` elements."""
        return first_cells(self.table((self.num_elements,), device), count)

    def at(self, places: Float[Tensor, "B M"]) -> Float[Tensor, "B M P"]:
        """Return the Fourier features of places in [-1, 1].

        Raises:
            TypeError: If positions are learned, which are of places that can be counted.
        """
        if isinstance(self.table, LearnedPositions):
            raise TypeError(
                "Learned positions are of elements that follow evenly; expected Fourier features for places."
            )
        return axis_features(
            places, num_bands=self.table.num_bands, max_resolution=self.table.max_resolution[0]
        )


class _SeriesInput(nn.Module, ABC):
    """Base of series adapters: every `step` steps become an element with a position."""

    channels: int
    num_elements: int
    axes: tuple[int, ...]

    def __init__(
        self, config: SeriesInputConfig | ConvSeriesInputConfig, *, step: int, content_channels: int
    ) -> None:
        super().__init__()
        self.length, self.values = _known(config)
        self.irregular, self.step = config.irregular, step
        self.num_elements = -(-self.length // step)
        self.axes = (self.num_elements,)
        self.channels = content_channels
        self.positions = None
        if config.positions is not None:
            self.positions = RowPositions(config.positions, self.num_elements)
            self.channels += self.positions.channels
        if config.irregular and not isinstance(config.positions, FourierPositionsConfig):
            raise ValueError(
                "Times that are not even need Fourier features as positions (FourierPositionsConfig()), got "
                f"positions={config.positions}."
            )
        check_readable(self.channels, "or larger patches; got positions=None")

    @abstractmethod
    def content(
        self, x: Float[Tensor, "B L V"], mask: Bool[Tensor, "B L"] | None
    ) -> Float[Tensor, "B M Cc"]:
        """Return the contents of the elements."""

    def forward(
        self, x: Float[Tensor, "B L V"], mask: Bool[Tensor, "B Lm"] | None = None
    ) -> Elements:
        """Return the elements of series in the order of time.

        Raises:
            ValueError: If there are other channels, or more steps, than the configuration states.
        """
        width = self.values + self.irregular
        if x.shape[2] != width or x.shape[1] > self.length:
            raise ValueError(
                f"Expected series of at most {self.length} steps and of {width} values a step "
                f"(B x L x {width}), got shape {tuple(x.shape)}."
            )
        if mask is not None:
            mask = mask.expand(-1, x.shape[1])
            x = x.masked_fill(~mask[..., None], 0.0)
        content = self.content(x[..., : self.values], mask)
        positions = None
        if self.irregular and self.positions is not None:
            positions = self.positions.at(_mean_times(x[..., -1], mask, self.step))
        elif self.positions is not None:
            positions = self.positions(content.shape[1], x.device)
        return Elements(
            content, positions, mask=None if mask is None else pooled_mask(mask, self.step)
        )

    def example(self, batch_size: int) -> Float[Tensor, "B L V"]:
        """Return an input of the configured size, all zeros."""
        return torch.zeros(batch_size, self.length, self.values + self.irregular)


class SeriesInput(_SeriesInput):
    """Makes an element of each patch of steps."""

    def __init__(self, config: SeriesInputConfig) -> None:
        width = config.project_channels
        values = config.patch * _known(config)[1]
        super().__init__(
            config, step=config.patch, content_channels=values if width is None else width
        )
        self.config = config
        self.project = None if width is None else truncated_linear(values, width)

    def content(
        self,
        x: Float[Tensor, "B L V"],
        mask: Bool[Tensor, "B L"] | None,  # noqa: ARG002
    ) -> Float[Tensor, "B M Cc"]:
        """Return the values of each patch, step by step; zeros behind the last step."""
        x = pad(x, (0, 0, 0, -x.shape[1] % self.step))
        patches = x.reshape(x.shape[0], -1, self.step * self.values)
        return patches if self.project is None else self.project(patches)


class ConvSeriesInput(_SeriesInput):
    """Makes an element of each cell after convolutions with a stride."""

    def __init__(self, config: ConvSeriesInputConfig) -> None:
        step = config.stride ** len(config.stem_channels)
        super().__init__(config, step=step, content_channels=config.stem_channels[-1])
        self.config = config
        self.stem = ConvStem(
            self.values, config.stem_channels, kernel=config.kernel, stride=config.stride
        )

    def content(
        self, x: Float[Tensor, "B L V"], mask: Bool[Tensor, "B L"] | None
    ) -> Float[Tensor, "B M Cc"]:
        """Return the stem's output."""
        cells, _ = self.stem(x.movedim(2, 1), mask)
        return cells.movedim(1, 2)


def _known(config: SeriesInputConfig | ConvSeriesInputConfig) -> tuple[int, int]:
    """Return the steps of a series, and the values of a step without its time."""
    if config.length is None or config.num_channels is None:
        raise ValueError(
            "Expected length and num_channels of the series, got "
            f"length={config.length} and num_channels={config.num_channels}."
        )
    return config.length, config.num_channels * (2 if config.has_missing else 1)


def _mean_times(
    times: Float[Tensor, "B L"], mask: Bool[Tensor, "B L"] | None, step: int
) -> Float[Tensor, "B M"]:
    """Return the mean time of each patch over its real steps, in float32; zero where there is none."""
    real = torch.ones_like(times, dtype=torch.float32) if mask is None else mask.to(torch.float32)
    behind = (0, -times.shape[1] % step)
    split = (times.shape[0], -1, step)
    real = pad(real, behind).reshape(split)
    times = pad(times.to(torch.float32), behind).reshape(split)
    return (times * real).sum(dim=2) / real.sum(dim=2).clamp(min=1)


def _default(stem_channels: int) -> ConvSeriesInputConfig:
    return ConvSeriesInputConfig(
        length=None,
        num_channels=None,
        stem_channels=(stem_channels, 2 * stem_channels),
        positions=FourierPositionsConfig(num_bands=None),
    )


register_input(SeriesInputConfig, SeriesInput, preprocess="series")
register_input(ConvSeriesInputConfig, ConvSeriesInput, preprocess="series", default=_default)
