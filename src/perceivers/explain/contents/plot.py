"""Drawing helpers shared by the views: colors, overlays, panels and tracks of attention.

Matplotlib is imported inside the functions that need it, so that views can be registered without it. It is used without
pyplot: no window opens, and no state is shared with the caller.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

INK, QUIET, BAR, PALE = "#1b1f27", "#6b7280", "#3b6fb6", "#c9d3e0"
_PALETTES = {
    # On white paper: without attention the ground stays white, so that text on it is legible.
    "warm": ("#ffffff", "#f08a3c"),
    # Points on white paper: points without attention stay visible.
    "glow": ("#cdd5df", "#e9c46a", "#f0903c", "#d9412e", "#8f1424"),
}
WIDE = 9.5  # inches
TRACK = 0.5  # height of a track in inches
COLUMNS = 5  # panels in a row, at most
STEPS = 800  # bars of a track, at most

Array = npt.NDArray[Any]
View = Any  # `perceivers.explain.contents.base.View`, which imports this module


def palette(name: str) -> Any:
    """Return a colormap: `warm` or `glow` on white paper, or one of matplotlib's."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    colors = _PALETTES.get(name)
    return colormaps[name] if colors is None else LinearSegmentedColormap.from_list(name, colors)


def norm_of(scale: float) -> Any:
    """Return the norm of attention, as on the pages: color follows the square root of attention up to `scale`."""
    from matplotlib.colors import PowerNorm

    return PowerNorm(0.5, 0, scale, clip=True)


def shorten(text: str, length: int, *, keep_end: bool = False) -> str:
    """Return a text of at most `length` characters, with an ellipsis where something is left out."""
    if len(text) <= length:
        return text
    dots = "\N{HORIZONTAL ELLIPSIS}"
    return dots + text[1 - length :] if keep_end else text[: length - 1] + dots


def envelope(values: Array, columns: int) -> tuple[Array, Array, Array]:
    """Return the start, lowest and highest value of each of at most `columns` columns, so that no peak is lost."""
    starts = np.unique(np.linspace(0, len(values), min(len(values), columns) + 1).astype(int)[:-1])
    return starts, np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)


def drawn_image(draw: Callable[[Any], None], width: float, height: float) -> Image.Image:
    """Return a figure of this size in inches, filled by a function, as an image."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    draw(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def sized_image(pixels: Array, side: int = 240) -> Image.Image:
    """Return pixels, rows x columns or rows x columns x 3 bytes, as an image whose longer side is about `side`."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    longer = max(image.size)
    if longer > side:
        image.thumbnail((side, side))
        return image
    factor = max(side // longer, 1)  # whole pixels stay squares
    size = (image.width * factor, image.height * factor)
    return image.resize(size, Image.Resampling.NEAREST)


def bare(axes: Any) -> None:
    """Remove the frame of axes except the horizontal axis."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(PALE)
    axes.tick_params(length=2, colors=QUIET, labelsize=8)


def scale_beside(axes: Sequence[Any], drawn: Any, view: View, **where: Any) -> None:
    """Draw the color scale of a view's attention beside axes, in multiples of an even share."""
    scale = view.scale
    ticks = {0.0: "0", 1.0: "1x", scale: view.scale_text}
    if scale > 100:  # the two lowest would overlap
        del ticks[0.0]
    place: dict[str, Any] = {"fraction": 0.02, "pad": 0.01} | where
    bar = axes[0].figure.colorbar(drawn, ax=list(axes), ticks=list(ticks), **place)
    bar.minorticks_off()
    bar.ax.set_yticklabels(ticks.values(), fontsize=7, color=QUIET)
    bar.outline.set_visible(False)


def name_beside(axes: Any, name: str) -> None:
    """Write a name to the left of axes."""
    how: dict[str, Any] = {"rotation": 0, "ha": "right", "va": "center", "fontsize": 8}
    axes.set_ylabel(shorten(name, 24), color=QUIET, labelpad=20, parse_math=False, **how)


def panels_size(view: View, width: float, height: float) -> tuple[float, float]:
    """Return the size of a figure of `draw_panels` with panels of some inches."""
    columns = min(len(view.maps) + 1, COLUMNS)
    return columns * (width + 0.1) + 0.6, -(-(len(view.maps) + 1) // columns) * (height + 0.35)


def draw_panels(
    figure: Any, view: View, pixels: Array, covered: Sequence[float], **how: Any
) -> list[Any]:
    """Draw an image and, over gray copies of it, each map of a view; return the axes."""
    maps = list(view.maps.values())
    columns = min(len(maps) + 1, COLUMNS)
    grid = figure.subplots(
        -(-(len(maps) + 1) // columns), columns, squeeze=False, sharex=True, sharey=True
    )
    cells = list(grid.flat)
    lay_image(cells[0], pixels, **how)
    cells[0].set_title("input", color=INK, fontsize=9)
    heat: Any = None
    for axes, (title, attention) in zip(cells[1:], maps, strict=False):
        heat = lay_map(
            axes, pixels, view.content.arrange(attention, view), covered, view.scale, **how
        )
        axes.set_title(shorten(title, 24), color=INK, fontsize=9, parse_math=False)
    for axes in cells[len(maps) + 1 :]:
        axes.set_axis_off()
    scale_beside(cells, heat, view)
    return cells[: len(maps) + 1]


def lay_image(axes: Any, pixels: Array, **how: Any) -> None:
    """Draw pixels without ticks; those of small images stay visible."""
    smooth = "nearest" if max(pixels.shape[:2]) <= 64 or pixels.ndim == 2 else "antialiased"
    axes.imshow(pixels, **{"interpolation": smooth} | how)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def lay_map(
    axes: Any, pixels: Array, attention: Array, covered: Sequence[float], scale: float, **how: Any
) -> Any:
    """Draw attention over gray pixels: strong attention glows, missing elements stay bare."""
    gray = {"vmin": 0, "vmax": 255} if pixels.ndim == 3 else {}
    lay_image(
        axes, pixels.mean(axis=2) if pixels.ndim == 3 else pixels, **how | {"cmap": "gray"} | gray
    )
    norm = norm_of(scale)
    level = np.ma.filled(norm(np.nan_to_num(attention)), 0)
    limits = axes.axis()
    heat = axes.imshow(
        np.nan_to_num(attention),
        cmap="inferno",
        norm=norm,
        alpha=np.where(np.isfinite(attention), 0.2 + 0.7 * level, 0.0),
        extent=(-0.5, covered[0] - 0.5, covered[1] - 0.5, -0.5),
        interpolation="nearest",
        aspect=how.get("aspect", "equal"),
    )
    axes.axis(limits)
    return heat


def draw_tracks(grid: Sequence[Any], view: View, edges: Array) -> None:
    """Draw attention along one axis, one track for each map: height and color show its strength."""
    for axes, (title, attention) in zip(grid, view.maps.values(), strict=True):
        heights = view.content.arrange(attention, view).reshape(-1)
        _draw_track(axes, heights, edges[: len(heights) + 1], view)
        name_beside(axes, title)
    for axes in grid[:-1]:
        axes.tick_params(labelbottom=False)


def _draw_track(axes: Any, attention: Array, edges: Array, view: View) -> None:
    """Draw attention as steps over a dotted line at the even share; missing elements are hatched."""
    from matplotlib.collections import PolyCollection

    scale = view.scale
    starts, _, heights = envelope(attention, STEPS)
    edges = edges[[*starts, len(attention)]]
    known = np.isfinite(heights)
    high = np.clip(np.nan_to_num(heights), 0.015 * scale, scale)
    colors = palette("inferno")(0.15 + 0.7 * norm_of(scale)(high))
    left, right = edges[:-1], edges[1:]
    corners = np.stack([left, 0 * high, left, high, right, high, right, 0 * high], axis=1)
    bars = list(corners[known].reshape(-1, 4, 2))
    axes.add_collection(PolyCollection(bars, facecolors=colors[known], linewidths=0))
    gaps = {"facecolor": "#f3f4f6", "hatch": "////", "edgecolor": PALE, "lw": 0}
    steps = np.flatnonzero(np.diff(np.concatenate([[False], ~known, [False]]).astype(int)))
    for start, stop in zip(steps[::2], steps[1::2], strict=True):
        axes.axvspan(edges[start], edges[stop], **gaps)
    axes.axhline(1, color=QUIET, linewidth=0.7, linestyle=(0, (2, 2)))
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, scale * 1.05)
    bare(axes)
    axes.set_yticks([1, scale], ["1x", view.scale_text if scale >= 2.5 else ""], fontsize=6)
    axes.tick_params(axis="y", length=0)


def draw_bars(
    axes: Any,
    names: Sequence[str],
    values: Array,
    colors: Any,
    texts: Mapping[int, str] | None = None,
) -> None:
    """Draw horizontal bars with a name beside each, the first on top."""
    axes.barh(range(len(names)), values, color=colors, height=0.72)
    for place, text in (texts or {}).items():
        where = (max(float(values[place]), 0), place)
        how: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(text, where, color=INK, **how)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    bare(axes)
    axes.tick_params(axis="y", length=0, colors=INK)
