"""Draws pictures: attention laid over the grayed picture, and what single latents were after."""

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from perceivers.explain.attribution.contents import Picture
from perceivers.explain.attribution.explanation import Explanation, View
from perceivers.explain.render.plot import (
    INK,
    QUIET,
    SCORES,
    draw_bars,
    heat_top,
    legend_of,
    overlay,
    read_maps,
    read_titles,
    scale_beside,
    shorten_path,
)

TILE, LARGE = 1.5, 2.8  # inches

Pixels = npt.NDArray[np.uint8]
Map = npt.NDArray[np.float32]


def draw_single_picture(explanation: Explanation) -> Figure:
    """Return a figure: picture, attention and labels above, one row for each read below.

    In a row: the attention of all latents over the picture, then the scores of single latents, which the
    2021 paper draws (figure 3, not overlaid).
    """
    (view,) = explanation.views
    tall = _tall(view)
    num_reads, num_latents = view.scores.shape[:2]
    # A single read is drawn large above, and not once more.
    heat = num_reads > 1 or view.summary is not None
    reads = (num_latents + 1.3 * heat) * (TILE / tall + 0.08), num_reads * (TILE * tall + 0.3) + 0.5
    answer = 2 * LARGE / tall + 4.5, LARGE * tall + 0.4
    figure = Figure(figsize=(max(reads[0], answer[0]), reads[1] + answer[1]), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[answer[1], reads[1]])
    _draw_answer(parts[0], explanation)
    _draw_reads(parts[1], explanation, heat=heat)
    return figure


def picture_size(view: View) -> tuple[float, float]:
    """Return width and height in inches of a section of a picture."""
    tall = _tall(view)
    columns = min(len(read_titles(view)) + 1, 5)
    rows = -(-(len(read_titles(view)) + 1) // columns)
    return columns * (2 / tall + 0.1) + 0.6, rows * (2 * tall + 0.35)


def draw_picture(figure: SubFigure, view: View) -> None:
    """Draw the picture and, beside it, where each read looked."""
    pixels = _pixels(view)
    maps, titles = read_maps(view), read_titles(view)
    columns = min(len(titles) + 1, 5)
    rows = -(-(len(titles) + 1) // columns)
    cells = list(figure.subplots(rows, columns, squeeze=False).flat)
    first = cells[0]
    first.imshow(pixels, interpolation=_interpolation(pixels))
    first.set_title("as it saw it", color=INK, fontsize=9)
    top = max(heat_top(attention) for attention in maps)
    heat: Any = None
    for axes, attention, title in zip(cells[1:], maps, titles, strict=False):
        heat = _lay_heat(axes, pixels, attention, top)
        axes.set_title(title, color=INK, fontsize=9)
    scale_beside(cells, heat, top, fraction=0.02, pad=0.01, shrink=0.9)
    for axes in [first, *cells[len(titles) + 1 :]]:
        axes.set_axis_off()


def _pixels(view: View) -> Pixels:
    assert isinstance(view.content, Picture)
    return view.content.pixels


def _tall(view: View) -> float:
    """Return the height of tiles of equal area, whatever the picture's shape. Very long ones keep some room."""
    height, width = _pixels(view).shape[:2]
    return min(max(height / width, 0.25), 4.0) ** 0.5


def _draw_answer(figure: SubFigure, explanation: Explanation) -> None:
    """Draw the picture, the attention of all reads over it, and the most probable labels as bars."""
    (view,) = explanation.views
    pixels = _pixels(view)
    picture, heat, bars = figure.subplots(1, 3, width_ratios=[1, 1.1, 1.2])
    picture.imshow(pixels, interpolation=_interpolation(pixels))
    picture.set_axis_off()
    picture.set_title(shorten_path(explanation.name, 32), color=INK, parse_math=False)
    _draw_heat(heat, pixels, view.overall)
    heat.set_title(read_titles(view)[0], color=INK)
    draw_bars(bars, explanation)


def _draw_reads(figure: SubFigure, explanation: Explanation, *, heat: bool) -> None:
    """Draw a row for each read: its attention (if `heat`), then the scores of single latents."""
    (view,) = explanation.views
    pixels = _pixels(view)
    num_reads, num_latents = view.scores.shape[:2]
    widths = [1.3] * heat + [1.0] * num_latents
    grid = figure.subplots(num_reads, len(widths), squeeze=False, width_ratios=widths)
    for read in range(num_reads):
        row = list(grid[read])
        if heat:
            first = row.pop(0)
            _draw_heat(first, pixels, view.attention[read])
            title = f"read {read + 1} of {num_reads}" if num_reads > 1 else "the read"
            first.set_title(title, color=INK, fontsize=10)
        for place, axes in enumerate(row):
            _draw_scores(axes, pixels, view.scores[read, place])
            if read == 0:
                axes.set_title(f"latent {explanation.latents[place]}", color=QUIET, fontsize=9)
    figure.supxlabel(
        f"{legend_of(explanation)}\n"
        "Over the picture: attention of all latents and heads, in multiples of an even share.\n"
        "Beside it: scores of single latents before the softmax, each on its own scale.",
        fontsize=9,
        color=QUIET,
    )


def _draw_scores(axes: Axes, picture: Pixels, scores: Map) -> None:
    """Draw the scores of one latent, not overlaid."""
    seen = scores[np.isfinite(scores)]
    low, high = np.percentile(seen, [1, 99]) if seen.size else (0.0, 1.0)
    axes.imshow(
        scores,
        cmap=SCORES,
        vmin=low,
        vmax=max(high, low + 1e-6),
        aspect=_aspect(picture, scores),
        interpolation="nearest",
    )
    axes.set_axis_off()


def _draw_heat(axes: Axes, picture: Pixels, attention: Map) -> None:
    """Lay attention over a grayed picture, with its scale beside it."""
    top = heat_top(attention)
    scale_beside(axes, _lay_heat(axes, picture, attention, top), top)


def _lay_heat(axes: Axes, picture: Pixels, attention: Map, top: float) -> Any:
    """Lay attention over a grayed picture: what got more than its even share glows."""
    gray = picture.mean(axis=2) / 255
    height, width = gray.shape
    axes.imshow(gray, cmap="gray", vmin=0, vmax=1, interpolation=_interpolation(picture))
    heat = overlay(axes, attention, (-0.5, width - 0.5, height - 0.5, -0.5), top)
    axes.set_aspect("equal")
    axes.set_axis_off()
    return heat


def _aspect(picture: Pixels, grid: Map) -> float:
    """Return how much taller than wide a cell of the grid is drawn."""
    return (picture.shape[0] / grid.shape[0]) / (picture.shape[1] / grid.shape[1])


def _interpolation(picture: Pixels) -> str:
    """Return how to enlarge: pixels of tiny pictures stay pixels."""
    return "nearest" if max(picture.shape[:2]) <= 64 else "antialiased"
