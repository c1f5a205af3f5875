"""What all figures share: colors, tracks of attention, the answer as bars. Without pyplot: no window, no state."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import SubFigure

from perceivers.explain.attribution.explanation import Explanation, View

INK, QUIET, BAR, PALE = "#1b1f27", "#6b7280", "#3b6fb6", "#c9d3e0"
HEAT, SCORES = "inferno", "viridis"  # over pictures, which are drawn gray beneath
# Over white paper: what got nothing stays white, so that ink on it can be read.
WARM = LinearSegmentedColormap.from_list(
    "warm", ["#ffffff", "#fff3cf", "#ffd37a", "#fb9a3c", "#e4572e", "#b3242b"]
)
# Of points on white paper: what got nothing can still be seen.
GLOW = LinearSegmentedColormap.from_list(
    "glow", ["#cdd5df", "#e9c46a", "#f0903c", "#d9412e", "#8f1424"]
)

Array = npt.NDArray[Any]


def heat_top(attention: Array) -> float:
    """Return the multiple of an even share that gets the strongest color."""
    seen = attention[np.isfinite(attention)]
    return max(float(np.percentile(seen, 99.5)), 1.5) if seen.size else 1.5


def read_titles(view: View) -> list[str]:
    """Return what to call each map: that of the whole model first, then each read, then the answer's own."""
    num_reads = len(view.attention)
    asked = [] if view.asked is None else ["what the first blank looked at"]
    if num_reads == 1 and view.summary is None:
        return ["where it looked", *asked]
    first = shorten(view.summary_title, 24) or f"all {num_reads} reads"
    reads = [f"read {t + 1} of {num_reads}" for t in range(num_reads)]
    return [first, *(reads if num_reads > 1 else ["the read"]), *asked]


def read_maps(view: View) -> list[Array]:
    """Return the attention that belongs to each title of `read_titles`."""
    asked = [] if view.asked is None else [view.asked]
    if len(view.attention) == 1 and view.summary is None:
        return [view.attention[0], *asked]
    return [view.overall, *view.attention, *asked]


def legend_of(explanation: Explanation) -> str:
    """Return a sentence on the map of the whole model."""
    return {
        "class": f"'for {shorten(str(explanation.about), 40)}': attention through all layers, as far as more of it "
        "would make that answer larger.",
        "rollup": "'all layers': attention rolled up from the answer to the elements.",
        "last": "'last read': its attention.",
    }.get(explanation.map, "'all reads': their mean attention.")


def shorten(text: str, length: int) -> str:
    """Return a text that is not longer than that, with an ellipsis where something is left out."""
    return text if len(text) <= length else text[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"


def shorten_path(path: str, length: int) -> str:
    """Return the same of a path, whose end says more than its beginning."""
    return path if len(path) <= length else "\N{HORIZONTAL ELLIPSIS}" + path[1 - length :]


def overlay(
    axes: Axes, attention: Array, extent: tuple[float, float, float, float], top: float
) -> Any:
    """Lay attention over what is drawn: what got more than its even share glows, what is missing stays bare."""
    filled = np.nan_to_num(attention, nan=0.0)
    alpha = np.where(np.isfinite(attention), 0.25 + 0.6 * np.clip(filled / top, 0, 1), 0.0)
    return axes.imshow(
        filled,
        cmap=HEAT,
        vmin=0,
        vmax=top,
        alpha=alpha,
        extent=extent,
        interpolation="nearest",
        aspect="auto",
    )


def scale_beside(axes: Axes | Sequence[Axes], heat: Any, top: float, **where: Any) -> None:
    """Draw the scale of attention beside axes, in multiples of an even share."""
    first: Axes = axes if isinstance(axes, Axes) else axes[0]
    ticks = {0.0: "0", 1.0: "1x", top: f"{top:.1f}x"}
    if top > 7:  # the two lowest would lie on each other
        del ticks[0.0]
    place: dict[str, Any] = {"fraction": 0.05, "pad": 0.02} | where
    bar = first.figure.colorbar(heat, ax=axes, ticks=list(ticks), **place)  # pyright: ignore[reportArgumentType]
    names = bar.ax.set_yticklabels if bar.orientation == "vertical" else bar.ax.set_xticklabels
    names(list(ticks.values()), fontsize=7, color=QUIET)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]


def bare(axes: Axes) -> None:
    """Take away what encloses a plot, except its time axis."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(PALE)
    axes.tick_params(length=2, colors=QUIET, labelsize=8)


def draw_tracks(grid: Sequence[Axes], view: View, edges: Array) -> None:
    """Draw attention along one axis, one track for each read: the higher and warmer, the more it got.

    Args:
        grid: Axes for each of `read_titles`, from top to bottom.
        view: Attention of T x n.
        edges: Where the n elements begin and end on the horizontal axis: n + 1.

    Padding behind the last real element is left out.
    """
    titles = read_titles(view)
    real = np.flatnonzero(np.isfinite(view.overall))
    length = int(real[-1]) + 1 if real.size else len(edges) - 1
    maps = [attention[:length] for attention in read_maps(view)]
    edges = edges[: length + 1]
    top = max(heat_top(attention) for attention in maps)
    for axes, attention, title in zip(grid, maps, titles, strict=True):
        draw_track(axes, attention, edges, top)
        axes.set_ylabel(
            title, rotation=0, ha="right", va="center", fontsize=8, color=QUIET, labelpad=20
        )
    for axes in grid[:-1]:
        axes.tick_params(labelbottom=False)


def draw_track(axes: Axes, attention: Array, edges: Array, top: float) -> None:
    """Draw attention along one axis as steps over a dotted line at the even share."""
    heights, edges = _thinned(np.clip(attention, None, top), edges)
    known = np.isfinite(heights)
    colors: Any = colormaps[HEAT](0.15 + 0.7 * np.nan_to_num(heights) / top)
    left, right = edges[:-1][known], edges[1:][known]
    high = np.maximum(heights[known], 0.015 * top)
    low = np.zeros_like(high)
    corners = np.stack([left, low, left, high, right, high, right, low], axis=1).reshape(-1, 4, 2)
    axes.add_collection(PolyCollection(list(corners), facecolors=colors[known], linewidths=0))
    for start, stop in _runs(~known):
        axes.axvspan(
            edges[start], edges[stop], facecolor="#f3f4f6", hatch="////", edgecolor=PALE, lw=0
        )
    axes.axhline(1, color=QUIET, linewidth=0.7, linestyle=(0, (2, 2)))
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, top * 1.05)
    bare(axes)
    axes.set_yticks([1, top], ["1x", f"{top:.1f}x"] if top >= 2.5 else ["1x", ""], fontsize=6)
    axes.tick_params(axis="y", length=0)


def _thinned(heights: Array, edges: Array, most: int = 800) -> tuple[Array, Array]:
    """Return at most so many steps: the largest of neighbors, so that no peak disappears."""
    if len(heights) <= most:
        return heights, edges
    starts = np.unique(np.linspace(0, len(heights), most + 1).astype(int)[:-1])
    largest = np.fmax.reduceat(heights, starts)
    return largest, edges[[*starts, len(heights)]]


def _runs(flags: Array) -> list[tuple[int, int]]:
    """Return where runs of True begin and end."""
    steps = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return [(int(a), int(b)) for a, b in zip(steps[::2], steps[1::2], strict=True)]


def draw_bars(bars: Axes, explanation: Explanation, rows: int = 5) -> None:
    """Draw the most probable labels, or the predicted numbers, as bars, with room for so many rows."""
    regression = explanation.task == "regression"
    values = explanation.probabilities
    best = np.arange(len(values))[:8] if regression else np.argsort(-values)[:5]
    names = [shorten(explanation.label_names[index], 28) for index in best]
    values = values[best]
    strong = (
        [True] * len(best)
        if regression
        else [bool(value >= explanation.threshold) for value in values]
        if explanation.task == "multilabel"
        else [place == 0 for place in range(len(best))]
    )
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    span = (high - low or 1.0) if regression else 1.0
    colors = [BAR if it else PALE for it in strong]
    bars.barh(range(len(best)), values, color=colors, height=0.72)
    for place, value in enumerate(values):
        text = f"{value:.4g}" if regression else f"{100 * value:.1f} %"
        bars.text(max(float(value), 0) + 0.02 * span, place, text, va="center", color=INK)
    bars.set_yticks(range(len(best)), names, color=INK, parse_math=False)
    bars.set_xlim(*((low - 0.02 * span, high + 0.25 * span) if regression else (0, 1.25)))
    bars.set_ylim(max(len(best), rows) - 0.5, -0.5)
    bars.set_xticks([])
    bars.tick_params(length=0)
    bars.spines[:].set_visible(False)
    bars.axvline(0, color=PALE, linewidth=0.8)
    bars.set_title(_answer(explanation, names, strong), color=INK, loc="left", parse_math=False)


def _answer(explanation: Explanation, names: list[str], strong: list[bool]) -> str:
    if explanation.task == "regression":
        return "predicted"
    if explanation.task == "multilabel":
        chosen = [name for name, it in zip(names, strong, strict=True) if it]
        return f"predicted: {shorten(', '.join(chosen) or 'none', 44)}"
    return f"predicted: {names[0]}"


def draw_shares(figure: SubFigure, explanation: Explanation) -> None:
    """Draw what part of all attention each modality got at each read, as stacked bars."""
    axes = figure.subplots()
    views = explanation.views
    shares = np.array([view.share for view in views])  # V x T
    rows = [f"read {t + 1}" for t in range(shares.shape[1])]
    columns = [*shares.T]
    rows.append("if even")
    columns.append(np.array([view.even for view in views]))
    palette = [BAR, "#e39b3b", "#5f9e6e", "#b0577d", "#7d6bb2", "#8a8f98", "#3aa6a6", "#c25b4a"]
    for place, column in enumerate(columns):
        left = 0.0
        for index, part in enumerate(column):
            faded = 0.35 if place == len(columns) - 1 else 1.0
            color = palette[index % len(palette)]
            label = views[index].name if place == 0 else None
            axes.barh(place, part, left=left, color=color, alpha=faded, height=0.72, label=label)
            if part >= 0.08:
                ink = INK if faded < 1 else "white"
                axes.text(
                    left + part / 2,
                    place,
                    f"{100 * part:.0f} %",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color=ink,
                )
            left += float(part)
    axes.set_yticks(range(len(rows)), rows, fontsize=8, color=INK)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("share of all attention", color=INK, loc="left")
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.02),
        ncols=min(len(views), 4),
        frameon=False,
        fontsize=8,
    )
