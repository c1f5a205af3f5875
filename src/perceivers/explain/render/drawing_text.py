"""Draws texts: letters on a ground colored by attention, and where in the whole text it lay."""

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import SubFigure
from matplotlib.patches import PathPatch, Rectangle

from perceivers.explain.attribution.contents import Letter, Passage, letters_of
from perceivers.explain.attribution.explanation import View
from perceivers.explain.render.glyphs import cells_of, outlines
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
    scale_beside,
)

WIDE = 9.5  # inches
TRACK = 0.5
COLUMNS = 92  # cells of a line
LINES = 18  # of the most attended passage, where the text is longer
SHORT = 5  # lines up to which every read gets its own copy of the text
LINE = 0.2  # inches
TALL = 2.1  # height of a cell, in widths
_RETURN = "\N{RETURN SYMBOL}"

Line = list[tuple[Letter, int]]
"""Letters and the cell that each begins in."""


def text_size(view: View) -> tuple[float, float]:
    """Return width and height in inches of a section of a text."""
    lines = _lines(_passage(view))
    copies, tracks = _plan(view, len(lines))
    shown = min(len(lines), LINES)
    return WIDE, copies * (shown * LINE + 0.35) + (TRACK * tracks + 0.5 if tracks else 0.1)


def draw_text(figure: SubFigure, view: View) -> None:
    """Draw the text on a ground of all attention, one copy for each read if it is short.

    Of a long text the most attended passage is drawn, and the attention over the whole text beneath.
    """
    passage = _passage(view)
    lines = _lines(passage)
    copies, num_tracks = _plan(view, len(lines))
    first, last = _most_attended(lines, _by_byte(view.overall, passage))
    heights = [(last - first) * LINE + 0.2] * copies + [TRACK] * num_tracks
    panels = list(
        figure.subplots(copies + num_tracks, 1, squeeze=False, height_ratios=heights).flat
    )
    maps, titles = [_by_byte(part, passage) for part in read_maps(view)], read_titles(view)
    top = max(heat_top(attention) for attention in maps[:copies])
    heat: Any = None
    for axes, attention, title in zip(panels[:copies], maps, titles, strict=False):
        heat = _draw_lines(axes, lines[first:last], attention, top)
        told = title
        if last - first < len(lines):
            where = f"lines {first + 1} to {last} of {len(lines)}"
            told = f"{title} \N{EN DASH} the passage with the most attention, {where}"
        axes.set_title(told, fontsize=9, color=INK, loc="left")
    scale_beside(panels[:copies], heat, top, fraction=0.015, pad=0.01, aspect=18)
    if num_tracks:
        tracks = panels[copies:]
        count = view.attention.shape[1]
        draw_tracks(tracks, view, np.arange(count + 1) * passage.step)
        if last - first < len(lines):
            shown = [letter for line in lines[first:last] for letter, _ in line]
            for axes in tracks:
                axes.axvspan(shown[0][1], shown[-1][2], color=PALE, alpha=0.45, zorder=-1, lw=0)
        cut = " (gray: the passage above)" if last - first < len(lines) else ""
        tracks[-1].set_xlabel(f"byte of the text{cut}", fontsize=8, color=QUIET)


def _passage(view: View) -> Passage:
    assert isinstance(view.content, Passage)
    return view.content


def _by_byte(attention: npt.NDArray[np.float32], passage: Passage) -> npt.NDArray[np.float32]:
    """Return for each byte the attention of the element that covers it."""
    return np.repeat(attention, passage.step)[: len(passage.units)]


def _plan(view: View, num_lines: int) -> tuple[int, int]:
    """Return how many copies of the text and how many tracks of attention are drawn."""
    titles = len(read_titles(view))
    if num_lines <= SHORT:
        return titles, 0
    return 1, titles


def _lines(passage: Passage) -> list[Line]:
    """Return the letters broken into lines, at blanks where there are some."""
    lines: list[Line] = [[]]
    column = 0
    for letter in letters_of(passage):
        text = letter[0]
        if text == "\n":
            lines[-1].append(((_RETURN, letter[1], letter[2]), column))
            lines.append([])
            column = 0
            continue
        width = 4 if text == "\t" else cells_of(text)
        if column + width > COLUMNS:
            column = _break(lines)
        lines[-1].append((letter, max(column - (width == 0), 0)))
        column += width
    return [line for line in lines if line] or [[]]


def _break(lines: list[Line]) -> int:
    """Begin a new line with the word that does not fit, and return the column after it."""
    line = lines[-1]
    start = len(line)
    while start > 0 and not line[start - 1][0][0].isspace():
        start -= 1
    if start < len(line) * 2 // 3:  # no blank for a long while: break where it is full
        start = len(line)
    word = line[start:]
    del line[start:]
    shift = word[0][1] if word else 0
    lines.append([(letter, column - shift) for letter, column in word])
    return sum(4 if letter[0] == "\t" else cells_of(letter[0]) for letter, _ in word)


def _most_attended(lines: list[Line], attention: npt.NDArray[np.float32]) -> tuple[int, int]:
    """Return from which line to which the passage goes that got the most attention."""
    if len(lines) <= LINES:
        return 0, len(lines)
    weight = np.nan_to_num(attention)
    per_line = [
        sum(float(weight[letter[1] : letter[2]].sum()) for letter, _ in line) for line in lines
    ]
    sums = np.convolve(per_line, np.ones(LINES), mode="valid")
    first = int(np.argmax(sums))
    return first, first + LINES


def _draw_lines(
    axes: Axes, lines: list[Line], attention: npt.NDArray[np.float32], top: float
) -> Any:
    """Draw lines of letters, each on a ground of the mean attention of its bytes."""
    cells: list[Rectangle] = []
    levels: list[float] = []
    placed: list[tuple[str, float, float]] = []
    for row, line in enumerate(lines):
        for (text, start, stop), column in line:
            part = attention[start:stop]
            seen = part[np.isfinite(part)]
            width = 4 if text == "\t" else cells_of(text)
            if width:
                cells.append(Rectangle((column, row), width, 1))
                levels.append(float(seen.mean()) if seen.size else 0.0)
            placed.append((text, column, row + 0.74))
    ground = PatchCollection(cells, cmap=WARM, linewidths=0)
    ground.set_array(np.array(levels))
    ground.set_clim(0, top)
    axes.add_collection(ground)
    # Downwards like lines of text, so outlines are upside down: their height is negative.
    path = outlines(placed, (1.0, -0.78))
    if path is not None:
        axes.add_patch(PathPatch(path, facecolor=INK, linewidth=0))
    axes.set_xlim(-0.2, COLUMNS + 0.2)
    axes.set_ylim(len(lines), 0)
    axes.set_aspect(TALL, anchor="NW")  # letters keep their shape whatever room there is
    bare(axes)
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks([])
    axes.set_yticks([])
    return ground
