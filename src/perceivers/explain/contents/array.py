"""View of arrays: values by element and channel above tracks of attention."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from perceivers.explain.contents import plot
from perceivers.explain.contents.base import (
    Content,
    Json,
    ModelInput,
    View,
    image_url,
    register_view,
    shades_of,
)


@dataclass(frozen=True, kw_only=True)
class ArrayContent(Content):
    """Array without known units.

    Attributes:
        values: M x channels. NaN where nothing was measured.
    """

    values: npt.NDArray[np.float32]

    def to_json(self, view: View) -> Json:
        """Return the values as shades of gray."""
        known = self.values[np.isfinite(self.values)]
        lowest, highest = (known.min(), known.max()) if known.size else (0.0, 0.0)
        return {
            "media": "array",
            "extent": [1.0],
            "image": image_url(shades_of(self.values.T)),
            "width": self.values.shape[0],
            "height": self.values.shape[1],
            "lowest": float(f"{lowest:.5g}"),
            "highest": float(f"{highest:.5g}"),
        }

    def size(self, view: View) -> tuple[float, float]:
        """Return a size with a track for each map."""
        return plot.tracks_size(view, self._height())

    def draw(self, figure: Any, view: View) -> None:
        """Draw the values, elements from left to right and channels downwards, and below them each map."""
        count, channels = self.values.shape
        heights = [self._height()] + [plot.TRACK] * len(view.maps)
        above, *tracks = plot.subplot_rows(figure, heights)
        seen = self.values[np.isfinite(self.values)]
        largest = max(float(np.percentile(np.abs(seen), 99)) if seen.size else 1.0, 1e-6)
        low = -largest if seen.size and seen.min() < 0 else 0.0
        drawn = above.imshow(
            self.values.T,
            aspect="auto",
            cmap="RdBu_r" if low < 0 else "Blues",
            vmin=low,
            vmax=largest,
            extent=(-0.5, count - 0.5, channels - 0.5, -0.5),
            interpolation="nearest",
        )
        above.set_ylabel("channel", fontsize=8, color=plot.QUIET)
        plot.bare(above)
        above.tick_params(labelbottom=False)
        above.yaxis.get_major_locator().set_params(integer=True)
        bar = figure.colorbar(drawn, ax=[above, *tracks], fraction=0.015, pad=0.01, aspect=30)
        bar.ax.tick_params(labelsize=7, colors=plot.QUIET, length=2)
        bar.ax.set_title("value", fontsize=7, color=plot.QUIET)
        bar.outline.set_visible(False)
        elements = len(view.overall)
        edges = np.linspace(-0.5, max(count, elements) - 0.5, elements + 1)
        plot.draw_tracks(tracks, view, edges)
        tracks[-1].set_xlabel("element", fontsize=8, color=plot.QUIET)

    def _height(self) -> float:
        return min(max(0.12 * self.values.shape[1], 0.9), 3.0)


def _array(given: ModelInput) -> ArrayContent:
    config = given.config
    values = given.x[:, : config.num_channels]
    values = values * np.array(config.std or [1.0]) + np.array(config.mean or [0.0])
    return ArrayContent(values=np.where(given.real[:, None], values, np.nan).astype(np.float32))


register_view("array", _array)
