"""Figures of attention: where each read looked, and what single latents were after.

The only file here that needs matplotlib. It goes without pyplot: no window opens, and no state is shared
with the caller.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from perceivers.explain.image import ImageExplanation

__all__ = ["draw_explanation"]

INK, QUIET, BAR, PALE = "#1b1f27", "#6b7280", "#3b6fb6", "#c9d3e0"
HEAT, SCORES = "inferno", "viridis"
TILE, LARGE = 1.5, 2.8  # inches


def draw_explanation(explanation: ImageExplanation) -> Figure:
    """Return a figure: picture, attention and labels above, one row for each read below.

    In a row: the attention of all latents over the picture, then the scores of single latents, which the
    2021 paper draws (figure 3, not overlaid).
    """
    height, width = explanation.picture.shape[:2]
    # Tiles of equal area, whatever the picture's shape. Very long ones keep some room around them.
    tall = min(max(height / width, 0.25), 4.0) ** 0.5
    num_reads, num_latents = explanation.scores.shape[:2]
    heat = num_reads > 1  # a single read is drawn large above, and not once more
    reads = (num_latents + 1.3 * heat) * (TILE / tall + 0.08), num_reads * (TILE * tall + 0.3) + 0.5
    answer = 2 * LARGE / tall + 4.5, LARGE * tall + 0.4
    figure = Figure(figsize=(max(reads[0], answer[0]), reads[1] + answer[1]), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[answer[1], reads[1]])
    _draw_answer(parts[0], explanation)
    _draw_reads(parts[1], explanation, heat=heat)
    return figure


def _draw_answer(figure: SubFigure, explanation: ImageExplanation) -> None:
    """Draw the picture, the attention of all reads over it, and the most probable labels as bars."""
    picture, heat, bars = figure.subplots(1, 3, width_ratios=[1, 1.1, 1.2])
    picture.imshow(explanation.picture, interpolation=_interpolation(explanation.picture))
    picture.set_axis_off()
    picture.set_title(_shorten(explanation.name, 32), color=INK, parse_math=False)
    _draw_heat(heat, explanation.picture, explanation.attention.mean(axis=0))
    num_reads = len(explanation.attention)
    heat.set_title("where it looked" if num_reads == 1 else f"all {num_reads} reads", color=INK)

    best = np.argsort(-explanation.probabilities)[:5]
    values = explanation.probabilities[best]
    bars.barh(range(len(best)), values, color=[BAR] + [PALE] * (len(best) - 1), height=0.72)
    for place, value in enumerate(values):
        bars.text(value + 0.02, place, f"{100 * value:.1f} %", va="center", color=INK)
    names = [_shorten(explanation.label_names[index], 28) for index in best]
    bars.set_yticks(range(len(best)), names, color=INK, parse_math=False)
    bars.set_xlim(0, 1.25)
    bars.set_ylim(4.5, -0.5)
    bars.set_xticks([])
    bars.tick_params(length=0)
    bars.spines[["top", "right", "bottom"]].set_visible(False)
    bars.spines["left"].set_color(PALE)
    bars.set_title(f"predicted: {names[0]}", color=INK, loc="left", parse_math=False)


def _draw_reads(figure: SubFigure, explanation: ImageExplanation, *, heat: bool) -> None:
    """Draw a row for each read: its attention (if `heat`), then the scores of single latents."""
    num_reads, num_latents = explanation.scores.shape[:2]
    widths = [1.3] * heat + [1.0] * num_latents
    grid = figure.subplots(num_reads, len(widths), squeeze=False, width_ratios=widths)
    for read in range(num_reads):
        row = list(grid[read])
        if heat:
            first = row.pop(0)
            _draw_heat(first, explanation.picture, explanation.attention[read])
            first.set_title(f"read {read + 1} of {num_reads}", color=INK, fontsize=10)
        for place, axes in enumerate(row):
            _draw_scores(axes, explanation.picture, explanation.scores[read, place])
            if read == 0:
                axes.set_title(f"latent {explanation.latents[place]}", color=QUIET, fontsize=9)
    figure.supxlabel(
        "Over the picture: attention of all latents and heads, in multiples of an even share.\n"
        "Beside it: scores of single latents before the softmax, each on its own scale.",
        fontsize=9,
        color=QUIET,
    )


def _draw_scores(
    axes: Axes, picture: npt.NDArray[np.uint8], scores: npt.NDArray[np.float32]
) -> None:
    """Draw the scores of one latent, not overlaid."""
    low, high = np.percentile(scores[np.isfinite(scores)], [1, 99])
    axes.imshow(
        scores,
        cmap=SCORES,
        vmin=low,
        vmax=max(high, low + 1e-6),
        aspect=_aspect(picture, scores),
        interpolation="nearest",
    )
    axes.set_axis_off()


def _draw_heat(
    axes: Axes, picture: npt.NDArray[np.uint8], attention: npt.NDArray[np.float32]
) -> None:
    """Lay attention over a grayed picture: what got more than its even share glows."""
    gray = picture.mean(axis=2) / 255
    height, width = gray.shape
    axes.imshow(gray, cmap="gray", vmin=0, vmax=1, interpolation=_interpolation(picture))
    top = max(float(np.percentile(attention, 99.5)), 1.5)
    strength = np.clip(attention / top, 0, 1)
    heat = axes.imshow(
        attention,
        cmap=HEAT,
        vmin=0,
        vmax=top,
        alpha=0.25 + 0.6 * strength,
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation="nearest",
    )
    axes.set_axis_off()
    ticks = {0.0: "0", 1.0: "1x", top: f"{top:.1f}x"}
    if top > 7:  # the two lowest would lie on each other
        del ticks[0.0]
    bar = axes.figure.colorbar(heat, ax=axes, fraction=0.05, pad=0.02, ticks=list(ticks))
    bar.ax.set_yticklabels(list(ticks.values()), fontsize=7, color=QUIET)
    bar.outline.set_visible(False)


def _aspect(picture: npt.NDArray[np.uint8], grid: npt.NDArray[np.float32]) -> float:
    """Return how much taller than wide a cell of the grid is drawn."""
    return (picture.shape[0] / grid.shape[0]) / (picture.shape[1] / grid.shape[1])


def _interpolation(picture: npt.NDArray[np.uint8]) -> str:
    """Return how to enlarge: pixels of tiny pictures stay pixels."""
    return "nearest" if max(picture.shape[:2]) <= 64 else "antialiased"


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"
