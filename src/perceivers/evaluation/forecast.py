"""Forecasts of series by a run of an autoregressive model: sampled paths, their quantiles, as a table or a figure."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from perceivers.data.base import atomic_write, atomic_write_text
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.series.decode import (
    SeriesValue,
    TimeStamps,
    read_time_stamps,
)
from perceivers.data.modalities.series.modality import SeriesModality, SeriesPreprocessConfig
from perceivers.data.modalities.series.stamps import continue_stamps
from perceivers.evaluation.generate import autoregressive_model, generate_tokens
from perceivers.evaluation.generation_formats import (
    SampleFormat,
    SampleSettings,
    register_format,
    vocabulary_of,
)
from perceivers.models.generate import GenerationConfig
from perceivers.optional import require
from perceivers.tasks.series_vocabulary import SeriesVocabulary
from perceivers.wording import counted

if TYPE_CHECKING:
    from perceivers.evaluation.predict import Predictor

Values = npt.NDArray[np.float32]

SAMPLES, QUANTILES = 100, (0.1, 0.5, 0.9)
"""Number of paths and quantiles by default."""

_TOGETHER = 256  # paths that are sampled at once
_COLOR = "#1f6f8b"


@dataclass(frozen=True, kw_only=True, eq=False)
class Forecast:
    """Sampled paths of the next values of a series.

    Attributes:
        names: Name of each channel.
        history: Values before, L x C, up to the last known step; NaN where one is missing.
        samples: Paths, S x H x C, in the units of the data.
        quantiles: Quantiles that are written and drawn.
        time_name: Name of the column of time stamps; "" if the series has none, or irregular ones.
        times: Time stamps of the H steps: dates in ISO 8601 (UTC), or numbers. Empty without a column of them.
    """

    names: tuple[str, ...]
    history: Values
    samples: Values
    quantiles: tuple[float, ...] = QUANTILES
    time_name: str = ""
    times: tuple[str | float, ...] = ()

    @property
    def median(self) -> Values:
        """Median of the paths, H x C."""
        return self.quantile(0.5)

    def quantile(self, share: float) -> Values:
        """Return a quantile of the paths at each step, H x C."""
        return np.quantile(self.samples, share, axis=0).astype(np.float32)

    def table(self) -> dict[str, list[Any]]:
        """Return the steps from 1 on, their time stamps, and the quantiles of each channel, as columns.

        The columns are called `step`, as that of the time stamps in the series, and such as `value_q10`.
        """
        columns: dict[str, list[Any]] = {"step": list(range(1, self.samples.shape[1] + 1))}
        if self.times:
            columns[self.time_name] = [*self.times]
        for share in self.quantiles:
            values = self.quantile(share)
            for place, name in enumerate(self.names):
                columns[f"{name}_q{100 * share:g}"] = values[:, place].tolist()
        return columns

    def figure(self, *, steps: int | None = None) -> Any:
        """Return a matplotlib figure of history, median and the interval between the outer quantiles.

        Args:
            steps: Steps of the history that are drawn. None: four times those that are forecast.
        """
        require("matplotlib", "viz")
        from matplotlib.figure import Figure

        length, channels = self.samples.shape[1:]
        shown = self.history[-(4 * length if steps is None else steps) :]
        figure = Figure(figsize=(9, 2.6 * channels + 0.4), layout="constrained")
        axes: Any = figure.subplots(channels, squeeze=False)[:, 0]
        before, after = np.arange(1 - len(shown), 1), np.arange(length + 1)
        low, high = min(self.quantiles), max(self.quantiles)
        for place, (name, panel) in enumerate(zip(self.names, axes, strict=True)):
            last = shown[-1:, place]
            joined = [
                np.concatenate([last, self.quantile(share)[:, place]]) for share in (low, 0.5, high)
            ]
            panel.plot(before, shown[:, place], color="#333333", linewidth=1, label="history")
            panel.fill_between(
                after,
                joined[0],
                joined[2],
                color=_COLOR,
                alpha=0.25,
                linewidth=0,
                label=f"{100 * low:g} to {100 * high:g} %",
            )
            panel.plot(after, joined[1], color=_COLOR, linewidth=1.5, label="median")
            panel.set_ylabel(name)
        axes[-1].set_xlabel("step after the last known one")
        axes[0].legend(loc="upper left", frameon=False, ncols=3)
        return figure


def forecast(
    predictor: "Predictor",
    series: Any,
    length: int | None = None,
    *,
    samples: int = SAMPLES,
    quantiles: Sequence[float] = QUANTILES,
    config: GenerationConfig | None = None,
) -> Forecast:
    """Return sampled paths of the next values of a series, by a run of the recipe `series_ar`.

    The values before are scaled by those of the last steps that the model reads; a channel whose values are all equal
    there is forecast as that value. A series that is shorter than the model's context is read as it is.

    Args:
        predictor: The run.
        series: A file, an array of L or L x C values, or a mapping of columns; NaN where a value is missing. Steps
            after the last known one are left out.
        length: Number of steps, H. None: those that the model was trained to predict at once. Longer forecasts go on
            from sampled values.
        samples: Number of paths.
        quantiles: Quantiles for the table and the figure of the forecast.
        config: Temperature, selection of values, seed, and numbers of latents.

    Raises:
        ValueError: If the run is another one, the series lacks a channel or has no known value, or a number is out of
            range.
        OSError: If the file cannot be read.
    """
    autoregressive_model(predictor)  # refuses other runs
    vocabulary = _vocabulary(predictor)
    settings = SampleSettings(length=length, count=samples, quantiles=tuple(quantiles))
    length = vocabulary.known_horizon if length is None else length
    config = config or GenerationConfig()
    history, names, stamps = _history(predictor, series)
    values = torch.from_numpy(history[-((vocabulary.length or 0) - vocabulary.known_horizon) :])
    known = ~values.isnan()[None]
    missing = ~known.any(dim=1)[0]
    if missing.any():
        name = names[int(missing.nonzero()[0])]
        raise ValueError(
            f"Channel '{name}' of the series has no value in its last {counted(len(values), 'step')}, which the model "
            "reads. Expected at least one."
        )
    scale = vocabulary.scale(values[None], known)
    prompt = vocabulary.quantize(values.nan_to_num()[None], known, scale).flatten().tolist()
    count = length * len(names)
    parts: list[torch.Tensor] = []
    for first in range(0, samples, _TOGETHER):
        steps = generate_tokens(
            predictor,
            [prompt] * min(_TOGETHER, samples - first),
            length=count,
            config=replace(config, seed=config.seed + first // _TOGETHER),
        )
        parts.append(torch.tensor(list(steps)).T)
    tokens = torch.cat(parts).unflatten(1, (length, len(names)))
    paths = vocabulary.values(tokens, scale).numpy()
    shares = settings.quantiles or QUANTILES
    times = () if stamps is None else tuple(continue_stamps(stamps, len(history) - 1, length))
    return Forecast(
        names=names,
        history=history,
        samples=paths,
        quantiles=shares,
        time_name=stamps.name if stamps is not None and times else "",
        times=times,
    )


def _vocabulary(predictor: "Predictor") -> SeriesVocabulary:
    """Return the vocabulary of a run.

    Raises:
        ValueError: If it is not of values of series.
    """
    vocabulary = vocabulary_of(predictor)
    if not isinstance(vocabulary, SeriesVocabulary):
        raise ValueError(
            f"{predictor.folder} was trained on {vocabulary.units} and does not forecast. Expected a run of the recipe "
            "series_ar: perceivers fit DATA --recipe series_ar."
        )
    return vocabulary


def _history(
    predictor: "Predictor", series: Any
) -> tuple[Values, tuple[str, ...], TimeStamps | None]:
    """Return the values of a series up to its last known step, the names of its channels, and its time stamps.

    Raises:
        ValueError: If it cannot be read.
    """
    preprocess: SeriesPreprocessConfig = next(iter(predictor.preprocess.values()))
    if isinstance(series, str | Path):
        item = EncodedItem(str(series), path=Path(series))
    elif isinstance(series, Mapping) or hasattr(series, "to_dict"):
        columns = series if isinstance(series, Mapping) else series.to_dict("list")
        item = EncodedItem("the series", value=dict(columns))
    else:
        item = EncodedItem("the series", value=series)
    value: SeriesValue = SeriesModality(preprocess).decode(item).value
    known = np.flatnonzero((~np.isnan(value.values)).any(axis=1))
    stamps = read_time_stamps(item)
    if stamps is not None and preprocess.rate is not None:  # the values are at this rate
        seconds = stamps.seconds[0] + np.arange(len(value.values)) / preprocess.rate
        stamps = replace(stamps, seconds=seconds)
    return value.values[: known[-1] + 1], value.names, stamps


class ForecastFormat(SampleFormat):
    """Series as prompts; the result are sampled paths, written as quantiles (CSV) or a figure (PNG)."""

    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".png")

    def sample(self, prompt: Any, settings: SampleSettings) -> Forecast:
        """Return a forecast. Arguments and errors as of `forecast`.

        Raises:
            ValueError: If there is no series, or no number of steps.
        """
        if prompt is None:
            raise ValueError(
                "A forecast continues a series: expected a file of it, --prompt series.csv, got none."
            )
        if settings.length == "all":
            raise ValueError(
                "A series has no end: expected a number of steps, --length 24, got all."
            )
        return forecast(
            self.predictor,
            prompt,
            settings.length,
            samples=SAMPLES if settings.count is None else settings.count,
            quantiles=settings.quantiles or QUANTILES,
            config=settings.config,
        )

    def samples_json(self, samples: Forecast) -> dict[str, Any]:
        """Return the quantiles by column."""
        return samples.table()

    def save(self, samples: Forecast, path: Path) -> str:
        """Write the quantiles, a row for each step, or the figure."""
        number, length, _ = samples.samples.shape
        if path.suffix.lower() == ".png":
            with atomic_write(path) as new:
                samples.figure().savefig(new, format="png", dpi=120)
        else:
            table = samples.table()
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(table)
            is_exact = {"step", samples.time_name}
            columns = [
                [str(x) if name in is_exact else f"{x:.7g}" for x in column]
                for name, column in table.items()
            ]
            writer.writerows(zip(*columns, strict=True))
            atomic_write_text(path, text.getvalue())
        return f"{counted(length, 'step')} from {counted(number, 'path')}"


register_format("series_values", ForecastFormat)
