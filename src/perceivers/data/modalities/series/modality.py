"""Series as a modality: windows of sensor series; missing values are masked or flagged, never filled in."""

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from perceivers.data.base import nearest
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.base import (
    SAMPLED_CELLS,
    BasePreprocessConfig,
    CellSampler,
    DecodedValue,
    read_cells,
    stack_padded,
)
from perceivers.data.modalities.series.augment import (
    SeriesAugmentConfig,
    augmented,
    resampled,
    turned,
)
from perceivers.data.modalities.series.decode import SeriesValue, read_series
from perceivers.data.registry import (
    ColumnKind,
    ModalitySpec,
    OwnDataSize,
    Preprocessing,
    UploadSize,
    register_modality,
)
from perceivers.optional import require
from perceivers.registry import configclass
from perceivers.typing import Bool, Float, Tensor
from perceivers.wording import counted

MULTIPLE = 8  # lengths of batches and models are multiples of it, so that few different ones occur
COMMON = 0.9  # share of the series that must have a channel for it to be one of the model

Values = npt.NDArray[np.float32]
Times = npt.NDArray[np.float64]


@configclass
class SeriesPreprocessConfig(BasePreprocessConfig):
    """Preprocessing of a series without randomness. Saved with the model.

    What is None is taken from the data, see `measure_series`.

    Attributes:
        length: Steps of a window at most. A longer series is cut, a shorter one padded.
        channels: Names of the channels in their order. Those of series without names are "0", "1", ...
        rate: Steps in a second. Series with time stamps are brought to it; gaps stay missing. None, after
            measuring: steps are rows.
        use_times: Whether time stamps determine the steps. Otherwise they only order the rows, and each row is a step.
        irregular: Whether the time stamps themselves go into the model, for rows that do not follow evenly.
        duration: Seconds of a window at most, where `irregular`; that is what [-1, 1] of its times stands for.
            None, after measuring: every window's own.
        has_missing: Whether a flag for each value states that it is present. Without, a step at which any
            channel is missing is masked as a whole.
        mean: Subtracted from each channel.
        std: Each channel is divided by it after that.

    Raises:
        ValueError: If a number is out of range, or mean and std do not fit the channels.
    """

    kind: Literal["series"] = "series"
    length: int | None = None
    channels: tuple[str, ...] | None = None
    rate: float | None = None
    use_times: bool = True
    irregular: bool | None = None
    duration: float | None = None
    has_missing: bool | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("length", "rate", "duration"):
            number = getattr(self, name)
            if number is not None and not number > 0:
                raise ValueError(f"Expected {name} above zero, got {number}.")
        if self.channels is not None and len(set(self.channels)) < max(len(self.channels), 1):
            raise ValueError(f"Expected channels of different names, got {self.channels}.")
        for numbers in (self.mean, self.std):
            if None not in (numbers, self.channels) and len(numbers or ()) != len(
                self.channels or ()
            ):
                raise ValueError(
                    f"Expected mean and std of a number for each of the channels {self.channels}, got "
                    f"mean={self.mean} and std={self.std}."
                )
        if not self.use_times and (self.rate is not None or self.irregular):
            raise ValueError(
                "rate and irregular need use_times=True, since they are of time stamps."
            )
        if self.std is not None and min(self.std, default=1.0) <= 0:
            raise ValueError(f"Expected std above zero, got {self.std}.")

    def measure(self, cells: CellSampler) -> "SeriesPreprocessConfig":
        """Return the configuration with open fields taken from the training data, see `measure_series`."""
        return measure_series(cells(SAMPLED_CELLS), self)

    def channel_names(self) -> tuple[str, ...]:
        """Return the names of the channels."""
        return self.channels or ()

    def constants(self, media: EncodedItem) -> dict[str, Any]:
        """Return the channels that have one value in a series."""
        series, _ = read_series(media)
        known = series.values[~np.isnan(series.values).any(axis=1)]
        same = (known == known[:1]).all(axis=0) if len(known) else ()
        pairs = zip(series.names, same, strict=False)
        return {name: float(known[0, n]) for n, (name, one) in enumerate(pairs) if one}

    def assumed(self) -> dict[str, Any]:
        """Return sizes that are assumed without data."""
        return {
            "length": 200,
            "channels": ("x", "y", "z"),
            "irregular": False,
            "has_missing": False,
        }

    def input_fields(self) -> dict[str, Any]:
        """Return the sizes that the input adapter takes over."""
        return {
            "length": self.length,
            "num_channels": len(self.channels or ()),
            "has_missing": bool(self.has_missing),
            "irregular": bool(self.irregular),
        }

    def restore(self, values: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Return normalized values in the units of the data."""
        if not self.mean or not self.std:
            return values
        std, mean = (np.asarray(row, dtype=np.float32) for row in (self.std, self.mean))
        return values * std + mean


class SeriesModality:
    """Modality of windows of series.

    A sample is L x V of float32: C values, zero where one is missing, then C flags that are 1 where it is there
    (with `has_missing`), then the time in [-1, 1] (with `irregular`). A step that is to be masked is NaN until
    it is put into a batch.

    Raises:
        ValueError: If length or channels are not known yet, or channels cannot be turned by threes.
    """

    has_clips: bool = True

    def __init__(
        self, preprocess: SeriesPreprocessConfig, augment: SeriesAugmentConfig | None = None
    ) -> None:
        if preprocess.length is None or not preprocess.channels:
            raise ValueError(
                f"Expected length and channels of the series, got {preprocess.length} and "
                f"{preprocess.channels}. Measure them with measure_series, or state them."
            )
        if augment is not None and augment.rotate and len(preprocess.channels) % 3:
            raise ValueError(
                "rotate turns channels by threes (x, y and z of each sensor), but there are "
                f"{len(preprocess.channels)}: {', '.join(preprocess.channels)}. Set rotate=False."
            )
        self.preprocess = preprocess
        self.augment = augment
        self.length = preprocess.length
        self.names = preprocess.channels
        count = len(self.names)
        self.width = count * (2 if preprocess.has_missing else 1) + bool(preprocess.irregular)
        self._mean = np.array(preprocess.mean or [0.0] * count, dtype=np.float32)
        self._scale = (1 / np.array(preprocess.std or [1.0] * count)).astype(np.float32)

    def decode(self, media: EncodedItem, *, clip_position: float | None = None) -> DecodedValue:  # noqa: ARG002
        """Return a whole series with the model's channels, at the model's rate."""
        series, notes = read_series(media)
        values = _chosen(media.name, series, self.names)
        config = self.preprocess
        if config.irregular:
            if series.times is None:
                raise ValueError(
                    f"'{media.name}' has no time stamps, which this model reads. Expected a column named time or "
                    "timestamp."
                )
            return DecodedValue(SeriesValue(values, series.times, self.names), notes)
        if config.rate is not None and series.times is not None:
            values = resampled(media.name, values, series.times, config.rate)
        return DecodedValue(SeriesValue(values, None, self.names), notes)

    def transform(
        self, value: Any, *, clip_position: float = 0.5, rng: np.random.Generator | None = None
    ) -> Values:
        """Return a window: L x V, float32, L at most `length`."""
        augment = self.augment if rng is not None else None
        if augment is not None and rng is not None and augment.shift:
            clip_position = rng.random()
        values, times = self.window(value, clip_position)
        if augment is not None and rng is not None:
            values, times = turned(values, times, augment, rng)
        values = ((values - self._mean) * self._scale).astype(np.float32, copy=False)
        if augment is not None and rng is not None:
            values = augmented(values, augment, rng, flagged=bool(self.preprocess.has_missing))
        missing = np.isnan(values)
        parts = [values]
        if self.preprocess.has_missing:
            parts = [np.nan_to_num(values, copy=False), (~missing).astype(np.float32)]
        if times is not None:
            parts.append(times[:, None].astype(np.float32))
        sample: Values = np.concatenate(parts, axis=1, dtype=np.float32)
        if missing.any():
            gone = missing.all(axis=1) if self.preprocess.has_missing else missing.any(axis=1)
            sample[gone] = np.nan
        return sample

    def collate(
        self, samples: Sequence[Any]
    ) -> tuple[Float[Tensor, "B L V"], Bool[Tensor, "B L"] | None]:
        """Return windows as B x L x V with zeros behind the shorter ones, and which steps hold something.

        L is a multiple of 8, or `length`.
        """
        values, mask = stack_padded(
            samples, like=(self.length, self.width), dtype=np.float32, multiple=MULTIPLE
        )
        missing = values.isnan().any(dim=2)
        if not missing.any():
            return values, mask
        values = values.masked_fill(missing[..., None], 0.0)
        return values, ~missing if mask is None else mask & ~missing

    def window(self, series: SeriesValue, clip_position: float) -> tuple[Values, Times | None]:
        """Return the rows of a window, not normalized, and, where they go into the model, their times in [-1, 1].

        Args:
            series: Of `decode`.
            clip_position: 0 for the first possible window, 1 for the last.
        """
        values, times, duration = series.values, series.times, self.preprocess.duration
        begin, end, since = 0, values.shape[0], 0.0
        if times is not None and duration is not None and times[-1] > duration:
            since = clip_position * (times[-1] - duration)
            begin = min(int(np.searchsorted(times, since)), end - 1)
            end = max(int(np.searchsorted(times, since + duration, side="right")), begin + 1)
        room = end - begin - self.length
        if room > 0:
            begin += round(clip_position * room)
            end = begin + self.length
            since = since if times is None else times[begin]
        values = values[begin:end]
        if times is None:
            return values, None
        times = times[begin:end] - since
        span = duration or times[-1]
        return values, np.clip(times * (2 / span) - 1, -1, 1) if span else times - 1


def measure_series(
    cells: Iterable[EncodedItem], config: SeriesPreprocessConfig, *, largest: int = 2048
) -> SeriesPreprocessConfig:
    """Return the configuration with open fields taken from series.

    Rows count as even where nine of ten steps are within a tenth of the median step, in nine of ten series;
    the rate is then that of the median step. Otherwise the time stamps go into the model. The channels are those of
    nine of ten series; the others are bad rows when it comes to them.

    Raises:
        ValueError: If no cell holds a series, or they have no channel in common.
    """
    found = list(read_cells(cells, lambda cell: _measured(cell, config.channels), "series"))
    counts = Counter(name for one in found for name in one.names)
    channels = tuple(name for name, count in counts.items() if count >= COMMON * len(found))
    fitting = [one for one in found if set(channels) <= set(one.names)]
    if not channels or not fitting:
        raise ValueError(
            f"The series have no channel in common: {found[0].names} and {found[-1].names}, for example."
        )
    found = fitting
    config = _timing(found, config)
    missing = any(one.missing for one in found)
    if config.rate is not None and not config.irregular:
        missing = missing or any(one.evenness < 1 for one in found)
    places = [[one.names.index(name) for name in channels] for one in found]
    chosen = [one.sums[:, place] for one, place in zip(found, places, strict=True)]
    count, total, squares = np.sum(chosen, axis=0)
    mean = total / np.maximum(count, 1)
    std = np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 0))
    std = np.where(std > 1e-6 * np.maximum(np.abs(mean), 1e-6), std, 1.0)  # constant channels
    return replace(
        config,
        length=config.length or _length(found, config, largest),
        channels=channels,
        has_missing=missing if config.has_missing is None else config.has_missing,
        mean=config.mean or tuple(float(f"{m:.6g}") for m in mean),
        std=config.std or tuple(float(f"{s:.6g}") for s in std),
    )


@dataclass(frozen=True, slots=True)
class _Measured:
    """Statistics of one series. Sums: count, sum and squares x channels."""

    names: tuple[str, ...]
    rows: int
    span: float
    step: float | None
    evenness: float
    missing: bool
    sums: npt.NDArray[np.float64]


def _measured(media: EncodedItem, channels: tuple[str, ...] | None) -> _Measured:
    series, _ = read_series(media)
    count = series.values.shape[1]
    names = channels or series.names or tuple(str(number) for number in range(count))
    values = _chosen(media.name, series, names).astype(np.float64)
    there = ~np.isnan(values)
    known = np.where(there, values, 0.0)
    steps = np.diff(series.times) if series.times is not None else np.zeros(0)
    step = float(np.median(steps)) if len(steps) else None
    return _Measured(
        names=names,
        rows=values.shape[0],
        span=float(series.times[-1]) if series.times is not None else 0.0,
        step=step,
        evenness=1.0 if step is None else float((np.abs(steps - step) < 0.1 * step).mean()),
        missing=not there.all(),
        sums=np.stack([there.sum(axis=0), known.sum(axis=0), np.square(known).sum(axis=0)]),
    )


def _timing(found: Sequence[_Measured], config: SeriesPreprocessConfig) -> SeriesPreprocessConfig:
    """Return the configuration with rate and regularity taken from time stamps."""
    if not config.use_times:
        return replace(config, irregular=False)
    steps = [one.step for one in found if one.step is not None]
    timed = len(steps) >= 0.9 * len(found)  # single rows have no step
    irregular = config.irregular
    if irregular is None:
        uneven = np.mean([one.evenness < 0.9 for one in found]) > 0.1
        irregular = bool(timed and uneven and config.rate is None)
    if irregular:
        spans = [one.span for one in found]
        duration = config.duration or float(np.percentile(spans, 95, method="higher")) or None
        return replace(config, irregular=True, duration=duration)
    rate = config.rate
    if rate is None and timed:
        rate = float(f"{1 / float(np.median(steps)):.6g}")
    return replace(config, irregular=False, rate=rate)


def _length(found: Sequence[_Measured], config: SeriesPreprocessConfig, largest: int) -> int:
    """Return the steps that 19 of 20 series fit into."""
    resampled_rate = None if config.irregular else config.rate
    lengths = [
        one.rows
        if resampled_rate is None or one.step is None
        else round(one.span * resampled_rate) + 1
        for one in found
    ]
    if len(set(lengths)) == 1:
        return min(lengths[0], largest)
    most = int(np.percentile(lengths, 95, method="higher"))
    return min(-(-most // MULTIPLE) * MULTIPLE, largest)


def _chosen(name: str, series: SeriesValue, channels: tuple[str, ...]) -> Values:
    """Return the values of the named channels, in their order.

    Raises:
        ValueError: If one is not there.
    """
    count = series.values.shape[1]
    if series.names == channels:
        return series.values
    if not series.names:
        if count != len(channels):
            raise ValueError(
                f"'{name}': expected {counted(len(channels), 'channel')} ({', '.join(channels)}), got {count} "
                "without names."
            )
        return series.values
    absent = [channel for channel in channels if channel not in series.names]
    if absent:
        raise ValueError(
            f"'{name}' has no channel '{absent[0]}'.{nearest(absent[0], series.names)} Expected the channels "
            f"{', '.join(channels)}, got {', '.join(series.names)}; columns of text are no channels."
        )
    return series.values[:, [series.names.index(channel) for channel in channels]]


_BYTES_PER_NUMBER = 8


def _upload_sizes(media: EncodedItem) -> Iterator[UploadSize]:
    data = media.data or b""
    if data[:4] == b"PAR1":
        parquet = require("pyarrow.parquet", "data")
        try:
            metadata = parquet.ParquetFile(io.BytesIO(data)).metadata
        except Exception as error:  # damaged files raise errors of many classes
            raise ValueError(
                f"Cannot read '{media.name}' as a series: it is damaged or cut off ({error})."
            ) from error
        groups = (metadata.row_group(index) for index in range(metadata.num_row_groups))
        size = sum(group.total_byte_size for group in groups)
        yield UploadSize(max(metadata.num_rows * metadata.num_columns, 0), "numbers", "numbers")
        yield UploadSize(size / _BYTES_PER_NUMBER, "numbers", "numbers")
        return
    header = data[: data.find(b"\n") + 1]
    cells = 1 + max(header.count(mark) for mark in (b",", b";", b"\t"))
    yield UploadSize(data.count(b"\n") * cells, "numbers", "numbers")


def _default(_: OwnDataSize) -> tuple[SeriesPreprocessConfig, SeriesAugmentConfig]:
    return SeriesPreprocessConfig(), SeriesAugmentConfig()


register_modality(
    ModalitySpec(
        name="series",
        noun="series",
        preprocessing=(Preprocessing(SeriesPreprocessConfig, SeriesModality, _default),),
        augment=SeriesAugmentConfig,
        suffixes=("csv", "tsv", "parquet"),
        column_kinds={"series": ColumnKind("series", stored_as=("array", "text"))},
        is_media=False,
        recipe="series",
        mixup="blend",
        accepts=("array",),
        upload_sizes=_upload_sizes,
    )
)
