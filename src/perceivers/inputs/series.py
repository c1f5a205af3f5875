"""Series of sensors as input elements: statistics of a bank of kernels, patches of steps, or convolved cells."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn.functional import max_pool2d, pad, relu

from perceivers.inputs.elements import Elements, GridPositions
from perceivers.inputs.positions import (
    FourierPositionsConfig,
    LearnedPositions,
    PositionsConfig,
    build_positions,
    first_cells,
    why_unreadable,
)
from perceivers.inputs.registry import register_input
from perceivers.inputs.stems import ConvStem, MaskedBatchNorm, pooled_mask
from perceivers.nn.dropout import dropout
from perceivers.nn.init import truncated_linear, truncated_normal_
from perceivers.nn.kernel_bank import KernelBank
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


@configclass
class BankSeriesInputConfig(_SeriesGrid):
    """Every element holds statistics of a bank of fixed kernels at one dilation; cells of a learned stem may follow.

    Attributes:
        length: Steps of a series at most. None: taken from the data before the model is built.
        num_channels: Channels of the series. None: taken from the data before the model is built.
        has_missing: Whether a flag for each channel follows its values: 1 where one is there.
        irregular: Whether the last channel is the time in [-1, 1]; the bank reads the time since the step before.
        channels: Width of an element without its position: its statistics after a linear layer of its own.
        thresholds: Thresholds of each of MiniRocket's 84 kernels.
        groups: Groups of eight competing random kernels, as Hydra's; a multiple of 4.
        windows: Equal windows of time whose statistics are elements besides those of the whole series. 1: none.
        places: Steps at which the bank responds, at most; of a longer series every second, third, ... step.
        dropout: Share of the statistics that are left out in training.
        stem_channels: Channels of the learned stem after each of its levels. Empty: no stem, no cells.
        num_bands: Frequencies of the positions of windows and cells.
        identity_channels: Width of the learned vector by which an element of the bank is known.
    """

    kind: Literal["series_bank"] = "series_bank"
    length: int | None = None
    num_channels: int | None = None
    has_missing: bool = False
    irregular: bool = False
    channels: int = 64
    thresholds: int = 2
    groups: int = 8
    windows: int = 1
    places: int = 128
    dropout: float = 0.5
    stem_channels: tuple[int, ...] = ()
    num_bands: int = 2
    identity_channels: int = 16

    def __post_init__(self) -> None:
        least = min(
            self.channels, self.windows, self.places, self.num_bands, self.identity_channels
        )
        if least < 1 or self.thresholds < 0 or self.groups < 0 or self.groups % 4:
            raise ValueError(
                "Expected channels, windows, places, num_bands and identity_channels of at least 1, thresholds of at "
                f"least 0 and groups in a multiple of 4, got {self}."
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"Expected a dropout in [0, 1), got {self.dropout}.")


SeriesConfig = Annotated[
    SeriesInputConfig | ConvSeriesInputConfig | BankSeriesInputConfig, Field(discriminator="kind")
]


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
        self.unreadable = why_unreadable(self.channels, "or larger patches; got positions=None")

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
        _check_shape(x, self.length, self.values + self.irregular)
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


class BankSeriesInput(nn.Module):
    """Makes an element of each group of kernels at each dilation and window, and of each cell of a learned stem.

    The position of an element is a learned vector of its place in the bank, shared by all cells, and Fourier
    features of the middle of its window or cell; zeros where an element stands for the whole series.

    Raises:
        ValueError: If length or channels are not known yet.
    """

    channels: int
    num_elements: int
    axes: tuple[int, ...]

    def __init__(self, config: BankSeriesInputConfig) -> None:
        super().__init__()
        self.config = config
        self.length, self.values = _known(config)
        self.num_channels = config.num_channels or 0
        self.bank = KernelBank(
            self.length,
            self.num_channels + config.irregular,
            thresholds=config.thresholds,
            groups=config.groups,
            windows=config.windows,
            places=config.places,
        )
        parts, width = self.bank.parts, config.channels
        self.num_statistics = self.bank.num_scales * len(self.bank.windows) * parts
        features = self.bank.num_statistics // parts
        self.project = nn.Parameter(torch.empty(self.num_statistics, features, width))
        truncated_normal_(self.project, features**-0.5)
        self.presence = None
        if config.has_missing:
            self.presence = truncated_linear(self.num_channels, width)
        self.stem = (
            SeriesStem(self.values, (*config.stem_channels, width))
            if config.stem_channels
            else None
        )
        step = 1 if self.stem is None else self.stem.step
        self.num_cells = 0 if self.stem is None else -(-self.length // step)
        self.num_elements = self.num_statistics + self.num_cells
        self.axes = (self.num_elements,)
        self.identities = nn.Parameter(
            torch.empty(self.num_statistics + (self.stem is not None), config.identity_channels)
        )
        truncated_normal_(self.identities, 1.0)
        self.channels = width + config.identity_channels + 2 * config.num_bands + 1
        middles = [
            0.0 if n == 0 else (begin + end) / self.bank.places - 1
            for n, (begin, end) in enumerate(self.bank.windows)
        ]
        features = self._bands(torch.tensor(middles, device="cpu"))
        features[0] = 0.0
        features = features.repeat(self.bank.num_scales, 1).repeat_interleave(parts, dim=0)
        self.register_buffer("middles", features, persistent=False)

    def forward(
        self, x: Float[Tensor, "B L V"], mask: Bool[Tensor, "B Lm"] | None = None
    ) -> Elements:
        """Return the elements of the bank, scale by scale and window by window, then the cells in the order of time.

        Raises:
            ValueError: If there are other channels, or more steps, than the configuration states.
        """
        _check_shape(x, self.length, self.values + self.config.irregular)
        if mask is not None:
            mask = mask.expand(-1, x.shape[1])
            x = x.masked_fill(~mask[..., None], 0.0)
        statistics, real = self.bank(self._read(x, mask), mask)
        statistics = statistics.flatten(1, 2)
        if self.training and self.config.dropout:
            statistics = dropout(statistics, self.config.dropout)
        content = torch.einsum("bef,efc->bec", statistics.to(self.project.dtype), self.project)
        if self.presence is not None:
            content = content + self.presence(self._missing_share(x, mask))[:, None]
        positions = torch.cat(
            [
                self.identities[: self.num_statistics],
                self.get_buffer("middles").to(self.identities),
            ],
            dim=1,
        )
        if real is not None:
            real = real.repeat_interleave(self.bank.parts, dim=1)
            content = content.masked_fill(~real[..., None], 0.0)
        if self.stem is None:
            return Elements(content, positions, mask=real)
        cells, there = self.stem(x[..., : self.values], mask)
        where = self._cell_positions(x, mask, cells.shape[1])
        if where.ndim == 3:
            positions = positions.expand(x.shape[0], -1, -1)
        if real is None and there is not None:
            real = there.new_ones(x.shape[0], self.num_statistics)
        if real is not None:
            there = real.new_ones(cells.shape[:2]) if there is None else there
            real = torch.cat([real, there], dim=1)
        return Elements(
            torch.cat([content, cells], dim=1), torch.cat([positions, where], dim=-2), mask=real
        )

    def example(self, batch_size: int) -> Float[Tensor, "B L V"]:
        """Return an input of the configured size, all zeros."""
        return torch.zeros(batch_size, self.length, self.values + self.config.irregular)

    def element_shares(
        self, x: Float[Tensor, "1 L V"], mask: Bool[Tensor, "1 Lm"] | None = None
    ) -> Float[Tensor, "M L"]:
        """Return the share of each step of one series in each element; shares of an element sum to one."""
        if mask is not None:
            mask = mask.expand(-1, x.shape[1])
            x = x.masked_fill(~mask[..., None], 0.0)
        shares = self.bank.steps(self._read(x, mask), mask).flatten(0, 1)
        if self.stem is None:
            return shares
        real = torch.ones_like(shares[0]) if mask is None else mask[0].to(shares.dtype)
        cells = -(-x.shape[1] // self.stem.step)
        covered = torch.eye(cells, device=x.device).repeat_interleave(self.stem.step, dim=1)
        covered = covered[:, : x.shape[1]] * real
        covered = covered / covered.sum(dim=1, keepdim=True).clamp(min=1)
        return torch.cat([shares, covered.to(shares.dtype)])

    def _read(
        self, x: Float[Tensor, "B L V"], mask: Bool[Tensor, "B L"] | None
    ) -> Float[Tensor, "B L W"]:
        """Return the channels of the bank in float32: values, and the time since a real step before.

        A missing value is the last one of its channel, since a jump to zero and back would be what kernels respond to.
        """
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        values = x[..., : self.num_channels]
        if self.config.has_missing:
            values = _held(values, x[..., self.num_channels : self.values] > 0)
            values = values if mask is None else values.masked_fill(~mask[..., None], 0.0)
        if not self.config.irregular:
            return values
        times = x[..., -1:]
        since = pad(times[:, 1:] - times[:, :-1], (0, 0, 1, 0)) * (self.length / 2)
        if mask is not None:
            both = mask & pad(mask[:, :-1], (1, 0), value=False)
            since = since.masked_fill(~both[..., None], 0.0)
        return torch.cat([values, since.clamp(0, 10)], dim=-1)

    def _missing_share(
        self, x: Float[Tensor, "B L V"], mask: Bool[Tensor, "B L"] | None
    ) -> Float[Tensor, "B C"]:
        """Return the share of the real steps at which each channel is missing."""
        flags = x[..., self.num_channels : self.values]
        if mask is None:
            return 1 - flags.mean(dim=1)
        real = mask[..., None].to(flags.dtype)
        return ((1 - flags) * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)

    def _cell_positions(
        self, x: Float[Tensor, "B L V"], mask: Bool[Tensor, "B L"] | None, count: int
    ) -> Float[Tensor, "M P"] | Float[Tensor, "B M P"]:
        """Return the positions of cells: the vector of all of them, and Fourier features of their time."""
        assert self.stem is not None
        if self.config.irregular:
            bands = self._bands(_mean_times(x[..., -1], mask, self.stem.step))
        else:
            bands = self._bands(torch.linspace(-1, 1, self.num_cells, device=x.device)[:count])
        vector = self.identities[-1].expand(*bands.shape[:-1], -1)
        return torch.cat([vector, bands.to(vector)], dim=-1)

    def _bands(self, times: Float[Tensor, "*n"]) -> Float[Tensor, "*n F"]:
        bands = self.config.num_bands
        return axis_features(times, num_bands=bands, max_resolution=2 * bands)


class SeriesStem(nn.Module):
    """Convolutions of 9, 5 and then 3 steps, each with BatchNorm and ReLU; levels of twice the step and a residual.

    Args:
        in_channels: Channels of a series.
        channels: Channels of each level. Between levels, a maximum over two steps.

    Reference: the kernels are those of a fully convolutional network for series (arXiv:1611.06455).
    """

    def __init__(self, in_channels: int, channels: Sequence[int]) -> None:
        super().__init__()
        widths = (in_channels, *channels)
        kernels = (9, 5, *[3] * len(channels))
        self.step = 2 ** len(channels)
        self.levels = nn.ModuleList(
            SeriesConvNorm(before, after, kernel)
            for before, after, kernel in zip(widths, channels, kernels, strict=False)
        )
        self.residual = SeriesConvNorm(channels[-1], channels[-1], 3)

    def forward(
        self, x: Float[Tensor, "B L V"], mask: Bool[Tensor, "B L"] | None
    ) -> tuple[Float[Tensor, "B M C"], Bool[Tensor, "B M"] | None]:
        """Return the cells after the stem, and which hold a real step."""
        grid = x.movedim(2, 1)[..., None].contiguous(memory_format=torch.channels_last)
        for level in self.levels:
            grid = level(grid, mask, pool=2)
            mask = None if mask is None else pooled_mask(mask, 2)
        grid = grid + self.residual(grid, mask)
        return grid[..., 0].movedim(1, 2), mask


class SeriesConvNorm(nn.Module):
    """A convolution over time, BatchNorm over real steps and ReLU; padding is zero before and after."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(
            in_channels, out_channels, (kernel, 1), padding=(kernel // 2, 0), bias=False
        )
        truncated_normal_(self.convolution.weight, (2.0 / (in_channels * kernel)) ** 0.5)
        self.norm = MaskedBatchNorm(out_channels)

    def forward(
        self, x: Float[Tensor, "B Ci L X"], mask: Bool[Tensor, "B L"] | None, pool: int = 1
    ) -> Float[Tensor, "B Co Lo X"]:
        """Return the convolved grid of one column, or its maxima over `pool` steps; zeros where it is masked."""
        x = self.norm(self.convolution(x), mask)
        if mask is not None:
            x = x.masked_fill(~mask[:, None, :, None], 0.0)
        if pool > 1:  # the same before the ReLU, which then has fewer steps
            x = max_pool2d(x, (pool, 1), ceil_mode=True)
        return relu(x, inplace=True)


def _check_shape(x: Float[Tensor, "B L V"], length: int, width: int) -> None:
    if x.shape[2] != width or x.shape[1] > length:
        raise ValueError(
            f"Expected series of at most {length} steps and of {width} values a step "
            f"(B x L x {width}), got shape {tuple(x.shape)}."
        )


def _known(
    config: SeriesInputConfig | ConvSeriesInputConfig | BankSeriesInputConfig,
) -> tuple[int, int]:
    """Return the steps of a series, and the values of a step without its time."""
    if config.length is None or config.num_channels is None:
        raise ValueError(
            "Expected length and num_channels of the series, got "
            f"length={config.length} and num_channels={config.num_channels}."
        )
    return config.length, config.num_channels * (2 if config.has_missing else 1)


def _held(x: Float[Tensor, "B L C"], known: Bool[Tensor, "B L C"]) -> Float[Tensor, "B L C"]:
    """Return values of which a missing one is the last known before it, else the first known; zero without any."""
    x = x.masked_fill(~known, 0.0)
    for sign in (1, -1):
        step = 1
        while step < x.shape[1]:  # twice as far each time
            shift = (0, 0, step, -step) if sign > 0 else (0, 0, -step, step)
            x = torch.where(known, x, pad(x, shift))
            known = known | pad(known, shift)
            step *= 2
    return x


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


def _default(stem_channels: int) -> BankSeriesInputConfig:
    return BankSeriesInputConfig(length=None, num_channels=None, channels=stem_channels)


# Times that are not even are known from the position only.
register_input(
    SeriesInputConfig,
    SeriesInput,
    preprocess="series",
    raw=lambda: SeriesInputConfig(positions=FourierPositionsConfig(num_bands=4)),
)
register_input(ConvSeriesInputConfig, ConvSeriesInput, preprocess="series")
register_input(BankSeriesInputConfig, BankSeriesInput, preprocess="series", default=_default)
