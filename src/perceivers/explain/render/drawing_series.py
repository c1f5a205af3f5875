"""Draws recordings, arrays and rows of tables: channels over time, values by element, fields as bars."""

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure

from perceivers.explain.attribution.contents import Fields, Recording, Values
from perceivers.explain.attribution.explanation import View
from perceivers.explain.render.plot import (
    INK,
    PALE,
    QUIET,
    WARM,
    bare,
    draw_tracks,
    heat_top,
    read_maps,
    read_titles,
    shorten,
)

WIDE = 9.5  # inches
TRACK = 0.5
CHANNELS = 24  # drawn as lines at most
FIELDS = 30


def recording_size(view: View) -> tuple[float, float]:
    """Return width and height in inches of a section of a recording."""
    assert isinstance(view.content, Recording)
    channels = min(view.content.values.shape[1], CHANNELS)
    return WIDE, _lines_height(channels) + TRACK * len(read_titles(view)) + 0.45


def draw_recording(figure: SubFigure, view: View) -> None:
    """Draw channels over time, on a ground colored by all attention; beneath, what each read attended to."""
    content = view.content
    assert isinstance(content, Recording)
    channels = min(content.values.shape[1], CHANNELS)
    num_tracks = len(read_titles(view))
    lines, *tracks = figure.subplots(
        1 + num_tracks,
        1,
        sharex=True,
        height_ratios=[_lines_height(channels)] + [TRACK] * num_tracks,
    )
    edges = _edges(content.times, view.attention.shape[1], content.step)
    ground = np.nan_to_num(view.overall)[None]
    lines.pcolormesh(
        edges,
        [-0.6, channels - 0.4],
        ground,
        cmap=WARM,
        vmin=0,
        vmax=2 * heat_top(view.overall),
        zorder=0,
    )
    for place in range(channels):
        _draw_channel(lines, content.times, content.values[:, place], place)
    names = [shorten(name, 18) for name in content.channels[:channels]]
    left_out = content.values.shape[1] - channels
    if left_out:
        lines.set_title(
            f"{left_out} more channels are not drawn", fontsize=8, color=QUIET, loc="right"
        )
    lines.set_yticks(range(channels), names, fontsize=8, parse_math=False)
    lines.set_ylim(channels - 0.4, -0.6)
    bare(lines)
    lines.tick_params(axis="y", length=0, colors=INK)
    lines.tick_params(labelbottom=False)
    draw_tracks(tracks, view, edges)
    tracks[-1].set_xlabel(
        "seconds" if content.unit == "s" else content.unit, fontsize=8, color=QUIET
    )


def _lines_height(channels: int) -> float:
    return max(0.45 * channels if channels <= 8 else 3.6 + 0.2 * (channels - 8), 1.0)


def _draw_channel(
    axes: Axes, times: npt.NDArray[Any], values: npt.NDArray[Any], place: int
) -> None:
    """Draw a channel around its place, filling the room of one, whatever its unit."""
    seen = values[np.isfinite(values)]
    if not seen.size:
        axes.text(times[0], place, " nothing measured", va="center", fontsize=7, color=QUIET)
        return
    low, high = np.percentile(seen, [0.5, 99.5])
    span = high - low or 1.0
    level = np.clip((values - (low + high) / 2) / span, -0.55, 0.55)
    marker = "." if len(values) <= 64 else ""
    axes.plot(times, place - 0.8 * level, color=INK, linewidth=0.8, marker=marker, markersize=3)


def _edges(times: npt.NDArray[Any], count: int, each: int) -> npt.NDArray[Any]:
    """Return where `count` elements of `each` steps begin and end. Behind the last step time goes on as before it."""
    length = len(times)
    step = float(np.median(np.diff(times))) if length > 1 else 1.0
    step = step if step > 0 else 1.0
    more = max(count * each + 1 - length, 1)
    longer = np.concatenate([times, times[-1] + step * np.arange(1, more + 1)])
    return np.maximum.accumulate(longer[np.arange(count + 1) * each]) - step / 2


def values_size(view: View) -> tuple[float, float]:
    """Return width and height in inches of a section of an array."""
    assert isinstance(view.content, Values)
    channels = view.content.values.shape[1]
    return WIDE, _values_height(channels) + TRACK * len(read_titles(view)) + 0.5


def draw_values(figure: SubFigure, view: View) -> None:
    """Draw the values, elements from left to right and channels downwards; beneath, the attention of each."""
    content = view.content
    assert isinstance(content, Values)
    count, channels = content.values.shape
    num_tracks = len(read_titles(view))
    above, *tracks = figure.subplots(
        1 + num_tracks,
        1,
        sharex=True,
        height_ratios=[_values_height(channels)] + [TRACK] * num_tracks,
    )
    seen = content.values[np.isfinite(content.values)]
    largest = max(float(np.percentile(np.abs(seen), 99)) if seen.size else 1.0, 1e-6)
    low = -largest if seen.size and seen.min() < 0 else 0.0
    drawn = above.imshow(
        content.values.T,
        aspect="auto",
        cmap="RdBu_r" if low < 0 else "Blues",
        vmin=low,
        vmax=largest,
        extent=(-0.5, count - 0.5, channels - 0.5, -0.5),
        interpolation="nearest",
    )
    above.set_ylabel("channel", fontsize=8, color=QUIET)
    bare(above)
    above.tick_params(labelbottom=False)
    above.yaxis.get_major_locator().set_params(integer=True)  # pyright: ignore[reportAttributeAccessIssue]
    bar = figure.colorbar(drawn, ax=[above, *tracks], fraction=0.015, pad=0.01, aspect=30)
    bar.ax.tick_params(labelsize=7, colors=QUIET, length=2)
    bar.ax.set_title("value", fontsize=7, color=QUIET)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    elements = view.attention.shape[1]
    draw_tracks(tracks, view, np.linspace(-0.5, max(count, elements) - 0.5, elements + 1))
    tracks[-1].set_xlabel("element", fontsize=8, color=QUIET)


def _values_height(channels: int) -> float:
    return min(max(0.12 * channels, 0.9), 3.0)


def fields_size(view: View) -> tuple[float, float]:
    """Return width and height in inches of a section of a row of a table."""
    shown = min(view.attention.shape[1], FIELDS)
    titles = read_titles(view)
    columns = min(len(titles), 5)
    rows = -(-len(titles) // columns)
    return 2.4 + columns * 1.7, rows * (0.24 * max(shown, 3) + 0.75)


def draw_fields(figure: SubFigure, view: View) -> None:
    """Draw a bar for each field and read, those with the most attention where not all can be shown."""
    content = view.content
    assert isinstance(content, Fields)
    maps, titles = read_maps(view), read_titles(view)
    overall = np.nan_to_num(view.overall, nan=-1.0)
    chosen = np.sort(np.argsort(-overall)[:FIELDS])
    columns = min(len(titles), 5)
    cells = list(
        figure.subplots(-(-len(titles) // columns), columns, squeeze=False, sharey=True).flat
    )
    top = max(heat_top(attention) for attention in maps)
    names = [
        f"{shorten(content.fields[i], 20)} = {shorten(content.texts[i], 14)}"
        if content.texts[i]
        else f"{shorten(content.fields[i], 20)} (missing)"
        for i in chosen
    ]
    for axes, attention, title in zip(cells, maps, titles, strict=False):
        heights = attention[chosen]
        level = np.nan_to_num(np.clip(heights, 0, top))
        axes.barh(range(len(chosen)), level, color=WARM(0.35 + 0.6 * level / top), height=0.7)
        axes.axvline(1, color=QUIET, linewidth=0.7, linestyle=(0, (2, 2)))
        axes.set_title(title, fontsize=9, color=INK)
        axes.set_xlim(0, 1.05 * top)
        axes.set_xticks([1, top], ["1x", f"{top:.1f}x"])
        axes.set_yticks(range(len(chosen)), names, parse_math=False)
        axes.set_ylim(max(len(chosen), 3) - 0.4, -0.6)
        bare(axes)
        axes.spines["left"].set_visible(True)
        axes.spines["left"].set_color(PALE)
        axes.tick_params(axis="y", length=0, colors=INK)
    for axes in cells[len(titles) :]:
        axes.set_axis_off()
    if len(content.fields) > len(chosen):
        figure.supxlabel(
            f"{len(content.fields) - len(chosen)} more fields got less and are not drawn.",
            fontsize=8,
            color=QUIET,
        )
