"""Draws sounds: the waveform over its tracks of attention, and spectrograms with attention laid over them."""

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure

from perceivers.explain.attribution.contents import Spectrogram, Wave
from perceivers.explain.attribution.explanation import View
from perceivers.explain.render.plot import (
    BAR,
    INK,
    QUIET,
    bare,
    draw_tracks,
    heat_top,
    overlay,
    read_maps,
    read_titles,
    scale_beside,
)

WIDE = 9.5  # inches
TRACK = 0.5
PANEL = 1.7
COLUMNS = 1500  # that a waveform is drawn in: more than a figure has pixels


def wave_size(view: View) -> tuple[float, float]:
    """Return width and height in inches of a section of a waveform."""
    return WIDE, 1.3 + TRACK * len(read_titles(view)) + 0.45


def draw_wave(figure: SubFigure, view: View) -> None:
    """Draw the waveform over seconds and, beneath it, what each read attended to."""
    content = view.content
    assert isinstance(content, Wave)
    num_tracks = len(read_titles(view))
    wave, *tracks = figure.subplots(
        1 + num_tracks, 1, sharex=True, height_ratios=[1.3] + [TRACK] * num_tracks
    )
    seconds = len(content.samples) / content.rate
    for channel in content.samples.T:
        starts, low, high = _envelope(channel)
        wave.fill_between(
            starts / content.rate, low, high, step="post", color=BAR, alpha=0.8, linewidth=0.4
        )
    largest = max(float(np.abs(content.samples).max(initial=0)), 1e-3)
    wave.set_ylim(-1.05 * largest, 1.05 * largest)
    wave.set_ylabel(
        "wave", rotation=0, ha="right", va="center", fontsize=8, color=QUIET, labelpad=20
    )
    bare(wave)
    wave.set_yticks([])
    wave.tick_params(labelbottom=False)
    edges = np.arange(view.attention.shape[1] + 1) * content.step / content.rate
    draw_tracks(tracks, view, edges)
    wave.set_xlim(0, max(seconds, edges[1]))
    tracks[-1].set_xlabel("seconds", fontsize=8, color=QUIET)


def _envelope(channel: npt.NDArray[np.float32]) -> tuple[npt.NDArray[Any], ...]:
    """Return where columns begin, and the lowest and highest sample of each: no peak is lost."""
    length = len(channel)
    starts = np.unique(np.linspace(0, length, min(length, COLUMNS) + 1).astype(int)[:-1])
    low, high = np.minimum.reduceat(channel, starts), np.maximum.reduceat(channel, starts)
    return np.append(starts, length), np.append(low, low[-1]), np.append(high, high[-1])


def spectrogram_size(view: View) -> tuple[float, float]:
    """Return width and height in inches of a section of a spectrogram."""
    rows = -(-(len(read_titles(view)) + 1) // 2)
    return WIDE, rows * (PANEL + 0.3) + 0.3


def draw_spectrogram(figure: SubFigure, view: View) -> None:
    """Draw the spectrogram and, over copies of it, what each read attended to."""
    content = view.content
    assert isinstance(content, Spectrogram)
    maps, titles = read_maps(view), read_titles(view)
    rows = -(-(len(titles) + 1) // 2)
    cells = list(figure.subplots(rows, 2, squeeze=False, sharex=True, sharey=True).flat)
    num_frames, num_mels = content.values.shape
    extent = (0.0, content.seconds, -0.5, num_mels - 0.5)
    # The last elements may cover a little more than there is.
    along, across = np.array(view.attention.shape[1:]) * content.step
    covered = (0.0, along * content.seconds / num_frames, -0.5, across - 0.5)
    finite = content.values[np.isfinite(content.values)]
    # Silence is often minus infinity or a floor far below everything else.
    low, high = np.percentile(finite, [5, 99.7]) if finite.size else (0.0, 1.0)
    for axes in cells[: len(titles) + 1]:
        axes.imshow(
            content.values.T,
            origin="lower",
            aspect="auto",
            extent=extent,
            interpolation="nearest",
            vmin=low,
            vmax=max(high, low + 1e-6),
            cmap="magma" if axes is cells[0] else "gray",
        )
        axes.set_xlim(0, content.seconds)
        _frequencies(axes, content)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=2, colors=QUIET, labelsize=7)
    cells[0].set_title("spectrogram", color=INK, fontsize=9)
    top = max(heat_top(attention) for attention in maps)
    heat: Any = None
    for axes, attention, title in zip(cells[1:], maps, titles, strict=False):
        heat = overlay(axes, attention.T[::-1], covered, top)
        axes.set_xlim(0, content.seconds)
        axes.set_ylim(-0.5, num_mels - 0.5)
        axes.set_title(title, color=INK, fontsize=9)
    for axes in cells[len(titles) + 1 :]:
        axes.set_axis_off()
    for axes in cells[-2:]:
        axes.set_xlabel("seconds", fontsize=8, color=QUIET)
    scale_beside(cells, heat, top, fraction=0.02, pad=0.01)


def _frequencies(axes: Axes, content: Spectrogram) -> None:
    """Write round frequencies beside the mel bands that they lie in."""
    num_mels = content.values.shape[1]
    if len(content.hertz) != num_mels:
        axes.set_ylabel("mel band", fontsize=8, color=QUIET)
        return
    low, high = float(content.hertz[0]), float(content.hertz[-1])
    round_ones = [100, 250, 500, 1000, 2000, 4000, 8000, 16000]
    shown = [hz for hz in round_ones if low <= hz <= high]
    places = np.interp(shown, content.hertz, np.arange(num_mels))
    # Those that would lie on each other are left out, the higher first.
    kept: list[int] = []
    for index in range(len(shown)):
        if not kept or places[index] - places[kept[-1]] >= num_mels / 9:
            kept.append(index)
    names = [f"{shown[i]:g} Hz" if shown[i] < 1000 else f"{shown[i] / 1000:g} kHz" for i in kept]
    axes.set_yticks([places[i] for i in kept], names)
