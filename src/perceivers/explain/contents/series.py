"""View of series: channels over time above tracks of attention."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from perceivers.explain.contents import base, plot

CHANNELS = 24  # drawn in a PNG, at most
STEPS = 4000  # of a series on a page, at most


@dataclass(frozen=True, kw_only=True)
class SeriesContent(base.Content):
    """Channels over time.

    Attributes:
        values: L x channels. NaN where nothing was measured.
        times: Time of each step in seconds or, if the rate is unknown, its index.
        channels: Names of the channels.
        unit: Unit of `times`: `s` or `step`.
        step: Steps that an element covers.
    """

    values: npt.NDArray[np.float32]
    times: npt.NDArray[np.float64]
    channels: tuple[str, ...]
    unit: str = "s"
    step: int = 1

    def to_json(self, view: base.View) -> base.Json:
        """Return a line for each channel."""
        length = len(self.times)
        shown = np.unique(np.linspace(0, length - 1, min(length, STEPS)).astype(int))
        return {
            "media": "series",
            "extent": [view.num_real * self.step / length],
            "channels": list(self.channels),
            "unit": self.unit,
            "times": base.number_list(self.times[shown]),
            "lines": base.number_list(self.values[shown].T),
        }

    def num_elements(self, view: base.View) -> int:
        """Return the number of elements up to the last real one."""
        return view.num_real

    @property
    def plot_height(self) -> float:
        """Height of the lines, which are narrower where there are many."""
        channels = min(self.values.shape[1], CHANNELS)
        return max(0.45 * channels if channels <= 8 else 3.6 + 0.2 * (channels - 8), 1.0)

    @property
    def axis_label(self) -> str:
        """Unit of time."""
        return "seconds" if self.unit == "s" else self.unit

    def draw_plot(self, rows: list[Any]) -> None:
        """Draw a line for each channel over time."""
        lines, channels = rows[0], min(self.values.shape[1], CHANNELS)
        for place, values in enumerate(self.values.T[:channels]):
            self._draw_channel(lines, values, place)
        if left_out := self.values.shape[1] - channels:
            text = f"{left_out} more channels are not drawn"
            lines.set_title(text, fontsize=8, color=plot.QUIET, loc="right")
        names = [plot.shorten(name, 18) for name in self.channels[:channels]]
        lines.set_yticks(range(channels), names, fontsize=8, parse_math=False)
        lines.set_ylim(channels - 0.4, -0.6)
        lines.tick_params(axis="y", length=0, colors=plot.INK)

    def _draw_channel(self, axes: Any, values: base.Array, place: int) -> None:
        """Draw a channel around its place, scaled to the height of one line."""
        seen = values[np.isfinite(values)]
        if not seen.size:
            axes.text(
                self.times[0], place, " nothing measured", va="center", fontsize=7, color=plot.QUIET
            )
            return
        low, high = np.percentile(seen, [0.5, 99.5])
        level = np.clip((values - (low + high) / 2) / (high - low or 1.0), -0.55, 0.55)
        how = {"marker": "." if len(values) <= 64 else "", "markersize": 3}
        axes.plot(self.times, place - 0.8 * level, color=plot.INK, linewidth=0.8, **how)

    def edges(self, count: int) -> base.Array:
        """Return start and end of the elements. Behind the last step, time continues at the median rate."""
        times = self.times
        step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
        step = step if step > 0 else 1.0
        more = max(count * self.step + 1 - len(times), 1)
        longer = np.concatenate([times, times[-1] + step * np.arange(1, more + 1)])
        return np.maximum.accumulate(longer[np.arange(count + 1) * self.step]) - step / 2


def _series(given: base.ModelInput) -> SeriesContent:
    config, x, real = given.config, given.x, given.real
    names = config.channels or ()
    count = len(names)
    values = x[:, :count] * np.array(config.std or [1.0]) + np.array(config.mean or [0.0])
    seen = np.broadcast_to(real[:, None], values.shape)
    if config.has_missing:
        seen = seen & (x[:, count : 2 * count] > 0.5)
    length = int(np.flatnonzero(real)[-1]) + 1 if real.any() else len(x)
    times, unit = np.arange(length, dtype=np.float64), "step"
    if config.irregular:  # times are the last channel, where [-1, 1] is the window
        value = given.value
        span = config.duration or (float(value.times[-1]) if len(value.times) else 1.0) or 1.0
        places = np.flatnonzero(real)
        known = (x[places, -1].astype(np.float64) + 1) / 2 * span
        times, unit = np.interp(times, places, known), "s"  # between those that are missing
    elif config.rate is not None:
        times, unit = times / config.rate, "s"
    shown = np.where(seen, values, np.nan)[:length].astype(np.float32)
    return SeriesContent(
        values=shown, times=times, channels=tuple(names), unit=unit, step=given.step[0]
    )


base.register_view("series", _series)
