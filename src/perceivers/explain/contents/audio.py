"""Views of audio: the waveform above tracks of attention, or attention over the spectrogram."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from perceivers.data.modalities.audio.mel import mel_edges
from perceivers.explain.contents import base, plot

COLUMNS = 800  # of a waveform: about the pixels of a screen
HERTZ = (100, 250, 500, 1000, 2000, 4000, 8000, 16000)


@dataclass(frozen=True, kw_only=True)
class WaveformContent(base.Content):
    """Samples of a clip, mostly in [-1, 1], L x channels, and their rate in Hz. `step` of them are an element."""

    samples: npt.NDArray[np.float32]
    rate: float
    step: int = 1

    def to_json(self, view: base.View) -> base.Json:
        """Return the lowest and highest sample of each column of each channel."""
        ends = [plot.envelope(channel, COLUMNS)[1:] for channel in self.samples.T]
        channels = [
            {"low": base.number_list(low), "high": base.number_list(high)} for low, high in ends
        ]
        known = {"seconds": len(self.samples) / self.rate, "channels": channels}
        covered = view.num_real * self.step / len(self.samples)
        return {"media": "audio", "extent": [covered], **known}

    def num_elements(self, view: base.View) -> int:
        """Return the number of elements up to the last real one."""
        return view.num_real

    @property
    def plot_height(self) -> float:
        """Height of the waveform."""
        return 1.3

    @property
    def axis_label(self) -> str:
        """Unit of time."""
        return "seconds"

    def draw_plot(self, rows: list[Any]) -> None:
        """Draw the envelope of the waveform over seconds."""
        for channel in self.samples.T:
            starts, low, high = plot.envelope(channel, COLUMNS)
            rows[0].fill_between(
                starts / self.rate, low, high, color=plot.BAR, alpha=0.8, linewidth=0.4
            )
        largest = max(float(np.abs(self.samples).max(initial=0)), 1e-3)
        rows[0].set_ylim(-1.05 * largest, 1.05 * largest)
        rows[0].set_yticks([])

    def edges(self, count: int) -> base.Array:
        """Return start and end of the elements in seconds."""
        return np.arange(count + 1) * self.step / self.rate


@dataclass(frozen=True, kw_only=True)
class SpectrogramContent(base.Content):
    """Loudness of a clip by time and frequency, frames x mels, in any unit.

    `hertz` are the centers of the mel bands, empty if unknown; `step` are the frames and bands of an element.
    """

    values: npt.NDArray[np.float32]
    seconds: float
    hertz: npt.NDArray[np.float32]
    step: tuple[int, int] = (1, 1)

    def to_json(self, view: base.View) -> base.Json:
        """Return the spectrogram as PNG, low frequencies at the bottom."""
        frames, bands = self.values.shape
        along, across = self._covered(view)
        return {
            "media": "audio",
            "extent": [across / bands, along / frames],
            "seconds": self.seconds,
            "image": base.image_url(base.shades_of(self.values.T[::-1])),
            "width": frames,
            "height": bands,
            "hertz": base.number_list(self.hertz),
        }

    def thumbnail(self) -> Image.Image:
        """Return the spectrogram, low frequencies at the bottom."""
        shades = base.shades_of(self.values.T[::-1])
        return Image.fromarray(shades).resize((320, 140), Image.Resampling.BILINEAR)

    def arrange(self, attention: base.Array, view: base.View) -> base.Array:
        """Return the map as bands x times, from the lowest band: it is drawn upwards."""
        return attention.T

    def size(self, view: base.View) -> tuple[float, float]:
        """Return a size with wide panels."""
        return plot.panels_size(view, 2.6, 1.7)

    def draw(self, figure: Any, view: base.View) -> None:
        """Draw the spectrogram over seconds and, over copies of it, each map."""
        frames, bands = self.values.shape
        cells = plot.draw_panels(
            figure,
            view,
            base.shades_of(self.values.T),
            self._covered(view),
            origin="lower",
            aspect="auto",
            cmap="magma",
        )
        places, names = self._frequencies(bands)
        seconds = np.linspace(0, self.seconds, 4)
        for axes in cells:
            axes.set_yticks(places, names, fontsize=7, color=plot.QUIET)
            axes.set_xticks(seconds / self.seconds * frames - 0.5, [f"{t:.2g}" for t in seconds])
            axes.tick_params(length=2, colors=plot.QUIET, labelsize=7)
        cells[0].set_ylabel("" if names else "mel band", fontsize=8, color=plot.QUIET)
        cells[-1].set_xlabel("seconds", fontsize=8, color=plot.QUIET)

    def _covered(self, view: base.View) -> tuple[int, int]:
        """Return the frames and bands that the elements cover. The last may cover more than the spectrogram has."""
        along, across = view.overall.shape
        return along * self.step[0], across * self.step[1]

    def _frequencies(self, bands: int) -> tuple[list[float], list[str]]:
        """Return places and names of round frequencies that do not overlap."""
        places: list[float] = []
        names: list[str] = []
        if len(self.hertz) != bands:
            return places, names
        for hertz in HERTZ:
            place = float(np.interp(hertz, self.hertz, np.arange(bands)))
            inside = self.hertz[0] <= hertz <= self.hertz[-1]
            if inside and (not places or place - places[-1] >= bands / 9):
                places.append(place)
                names.append(f"{hertz} Hz" if hertz < 1000 else f"{hertz // 1000} kHz")
        return places, names


def _waveform(given: base.ModelInput) -> WaveformContent:
    samples = given.x[given.real] if given.real.any() else given.x
    return WaveformContent(
        samples=(samples * (given.config.scale or 1.0)).astype(np.float32),
        rate=float(given.config.sample_rate or 1),
        step=given.step[0],
    )


def _spectrogram(given: base.ModelInput) -> SpectrogramContent:
    config, x = given.config, given.x
    rate, hop, _window = config.steps
    highest = rate / 2 if config.highest_hz is None else config.highest_hz
    edges = mel_edges(config.num_mels, config.lowest_hz, highest, config.mel_scale)
    loudness = x * (config.std or 1.0) + (config.mean or 0.0)
    return SpectrogramContent(
        values=np.where(given.real[:, None], loudness, np.nan).astype(np.float32),
        seconds=len(x) * hop / rate,
        hertz=edges[1:-1].astype(np.float32),
        step=(given.step[0], given.step[-1]),
    )


base.register_view("wave", _waveform)
base.register_view("mel", _spectrogram)
