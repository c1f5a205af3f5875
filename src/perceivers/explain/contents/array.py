"""View of arrays: values by element and channel above tracks of attention."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from perceivers.explain.contents import base, plot


@dataclass(frozen=True, kw_only=True)
class ArrayContent(base.Content):
    """Array without known units: M x channels, NaN where nothing was measured."""

    values: npt.NDArray[np.float32]

    def to_json(self, view: base.View) -> base.Json:
        """Return the values as shades of gray."""
        known = self.values[np.isfinite(self.values)]
        lowest, highest = (known.min(), known.max()) if known.size else (0.0, 0.0)
        return {
            "media": "array",
            "extent": [1.0],
            "image": base.image_url(base.shades_of(self.values.T)),
            "width": self.values.shape[0],
            "height": self.values.shape[1],
            "lowest": float(f"{lowest:.5g}"),
            "highest": float(f"{highest:.5g}"),
        }

    @property
    def plot_height(self) -> float:
        """Height of the values."""
        return min(max(0.12 * self.values.shape[1], 0.9), 3.0)

    def draw_plot(self, rows: list[Any]) -> None:
        """Draw the values, elements from left to right and channels downwards."""
        count, channels = self.values.shape
        seen = self.values[np.isfinite(self.values)]
        largest = max(float(np.percentile(np.abs(seen), 99)) if seen.size else 1.0, 1e-6)
        low = -largest if seen.size and seen.min() < 0 else 0.0
        drawn = rows[0].imshow(
            self.values.T,
            aspect="auto",
            cmap="RdBu_r" if low < 0 else "Blues",
            vmin=low,
            vmax=largest,
            extent=(-0.5, count - 0.5, channels - 0.5, -0.5),
            interpolation="nearest",
        )
        rows[0].set_ylabel("channel", fontsize=8, color=plot.QUIET)
        rows[0].yaxis.get_major_locator().set_params(integer=True)
        bar = rows[0].figure.colorbar(drawn, ax=rows, fraction=0.015, pad=0.01, aspect=30)
        bar.ax.tick_params(labelsize=7, colors=plot.QUIET, length=2)
        bar.ax.set_title("value", fontsize=7, color=plot.QUIET)
        bar.outline.set_visible(False)

    def edges(self, count: int) -> base.Array:
        """Return start and end of the elements, which cover all values."""
        return np.linspace(-0.5, max(len(self.values), count) - 0.5, count + 1)


def _array(given: base.ModelInput) -> ArrayContent:
    config = given.config
    values = given.x[:, : config.num_channels]
    values = values * np.array(config.std or [1.0]) + np.array(config.mean or [0.0])
    return ArrayContent(values=np.where(given.real[:, None], values, np.nan).astype(np.float32))


base.register_view("array", _array)
