"""Draws films and clouds of points: what lies on more than two axes."""

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import SubFigure

from perceivers.explain.attribution.contents import Cloud, Film
from perceivers.explain.attribution.explanation import View
from perceivers.explain.render.plot import (
    GLOW,
    INK,
    PALE,
    QUIET,
    heat_top,
    overlay,
    read_maps,
    read_titles,
    scale_beside,
)

FRAMES = 8  # shown at most
POINTS = 6000
AREA = 1.5  # inches squared that a frame takes


def film_size(view: View) -> tuple[float, float]:
    """Return width and height in inches of a section of a film."""
    high, wide = _frame_inches(view)
    rows = 1 + len(read_titles(view))
    return _num_shown(view) * (wide + 0.05) + 1.5, rows * (high + 0.07) + 0.35


def draw_film(figure: SubFigure, view: View) -> None:
    """Draw a strip of frames and, over copies of it, what each read attended to in them."""
    content = view.content
    assert isinstance(content, Film)
    maps, titles = read_maps(view), read_titles(view)
    columns = _num_shown(view)
    grid = figure.subplots(1 + len(titles), columns, squeeze=False)
    # The middle of each of as many equal parts of the clip.
    shown = ((np.arange(columns) + 0.5) * len(content.frames) / columns).astype(int)
    height, width = content.frames.shape[1:3]
    high, wide = np.array(view.attention.shape[2:]) * content.step[1:]
    extent = (-0.5, wide - 0.5, high - 0.5, -0.5)
    top = max(heat_top(attention) for attention in maps)
    heat: Any = None
    for place, frame in enumerate(shown):
        pixels = content.frames[frame]
        smooth = "nearest" if max(height, width) <= 64 else "antialiased"
        grid[0, place].imshow(pixels, interpolation=smooth)
        grid[0, place].set_title(f"{frame / content.rate:.2f} s", fontsize=8, color=QUIET)
        for row, attention in enumerate(maps, 1):
            axes = grid[row, place]
            gray = pixels.mean(axis=2) / 255
            axes.imshow(gray, cmap="gray", vmin=0, vmax=1, interpolation=smooth)
            heat = overlay(axes, attention[frame // content.step[0]], extent, top)
            axes.set_xlim(-0.5, width - 0.5)
            axes.set_ylim(height - 0.5, -0.5)
            axes.set_aspect("equal")
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    for row, title in enumerate(["frames", *titles]):
        grid[row, 0].set_ylabel(
            title.replace(" of ", "\nof ") if len(title) > 12 else title,
            rotation=0,
            ha="right",
            va="center",
            fontsize=8,
            color=QUIET,
            labelpad=6,
        )
    scale_beside(list(grid[1:].flat), heat, top, fraction=0.02, pad=0.01)


def _num_shown(view: View) -> int:
    assert isinstance(view.content, Film)
    return min(len(view.content.frames), FRAMES)


def _frame_inches(view: View) -> tuple[float, float]:
    assert isinstance(view.content, Film)
    height, width = view.content.frames.shape[1:3]
    tall = min(max(height / width, 0.3), 3.0) ** 0.5
    return AREA**0.5 * tall, AREA**0.5 / tall


def cloud_size(view: View) -> tuple[float, float]:
    """Return width and height in inches of a section of a cloud of points."""
    count = len(read_titles(view))
    columns = min(count, 4)
    side = 2.6 if count > 1 else 4.2
    return columns * side + 0.8, -(-count // columns) * (side + 0.3)


def draw_cloud(figure: SubFigure, view: View) -> None:
    """Draw the points, colored by what each read attended to, side by side."""
    content = view.content
    assert isinstance(content, Cloud)
    maps, titles = read_maps(view), read_titles(view)
    columns = min(len(titles), 4)
    rows = -(-len(titles) // columns)
    real = _shown(view)
    top = max(heat_top(attention) for attention in maps)
    drawn: list[Any] = []
    heat: Any = None
    for place, (attention, title) in enumerate(zip(maps, titles, strict=True)):
        axes: Any = figure.add_subplot(rows, columns, place + 1, projection="3d")
        heat = _place(axes, content.points[real], attention[real], top)
        axes.set_title(title, color=INK, fontsize=9, pad=0)
        axes.view_init(elev=22, azim=-55)
        drawn.append(axes)
    scale_beside(drawn, heat, top, fraction=0.02, pad=0.04, shrink=0.8)


def draw_turned(figure: Any, view: View, *, azimuth: float) -> None:
    """Draw the points once, colored by what was looked at in all, seen from a side given in degrees."""
    content, real = view.content, _shown(view)
    assert isinstance(content, Cloud)
    axes: Any = figure.add_subplot(projection="3d")
    top = heat_top(view.overall)
    heat = _place(axes, content.points[real], view.overall[real], top)
    axes.set_title(read_titles(view)[0], color=INK, fontsize=10, pad=0)
    axes.view_init(elev=22, azim=azimuth)
    scale_beside(axes, heat, top, fraction=0.03, pad=0.02, shrink=0.8)


def _shown(view: View) -> npt.NDArray[np.int64]:
    """Return which points are drawn: at most so many, evenly through the list, so that no part is favored."""
    assert isinstance(view.content, Cloud)
    real = np.flatnonzero(np.isfinite(view.overall) & np.isfinite(view.content.points).all(axis=1))
    if len(real) > POINTS:
        real = real[np.linspace(0, len(real) - 1, POINTS).astype(int)]
    return real


def _place(axes: Any, points: npt.NDArray[Any], attention: npt.NDArray[Any], top: float) -> Any:
    """Draw points in a cube around them."""
    low, high = (
        (points.min(axis=0), points.max(axis=0)) if len(points) else (np.zeros(3), np.ones(3))
    )
    half = max(float((high - low).max()) / 2, 1e-6)
    size = float(np.clip(9000 / max(len(points), 1), 2, 30))
    heat = _scatter(axes, points, np.nan_to_num(attention), top, size)
    for set_limits, middle in zip(
        (axes.set_xlim, axes.set_ylim, axes.set_zlim), (low + high) / 2, strict=True
    ):
        set_limits(middle - half, middle + half)
    axes.set_box_aspect((1, 1, 1), zoom=1.25)
    return heat


def _scatter(
    axes: Any, points: npt.NDArray[Any], attention: npt.NDArray[Any], top: float, size: float
) -> Any:
    """Draw points; those with more attention larger and last, so that others do not hide them."""
    order = np.argsort(attention)
    strength = np.clip(attention[order] / top, 0, 1)
    heat = axes.scatter(
        *points[order].T,
        c=attention[order],
        cmap=GLOW,
        vmin=0,
        vmax=top,
        s=size * (0.5 + strength),
        linewidths=0,
        depthshade=False,
    )
    axes.tick_params(labelbottom=False, labelleft=False, labelright=False, labelsize=6, length=0)
    axes.set_xticklabels([])
    axes.set_yticklabels([])
    axes.set_zticklabels([])
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_pane_color((0.97, 0.97, 0.98, 1.0))
        axis.line.set_color(PALE)
    axes.grid(visible=False)
    axes.set_xlabel("x", fontsize=7, color=QUIET, labelpad=-13)
    axes.set_ylabel("y", fontsize=7, color=QUIET, labelpad=-13)
    axes.text2D(0.97, 0.6, "z", transform=axes.transAxes, fontsize=7, color=QUIET)
    return heat
