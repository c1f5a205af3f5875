"""View of texts: characters on a ground with the color of their attention."""

import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from perceivers.data.modalities.text.modality import BYTE_OFFSET
from perceivers.explain.contents import base, plot

SPECIAL = ("PAD", "BOS", "EOS", "MASK", "CLS", "SEP")
COLUMNS = 76  # cells of a line
LINES = 18  # of the passage with the most attention, where the text is longer
SHORT = 5  # lines up to which the text is repeated for each map
LINE, CELL, SIZE = 14.0, 6.7, 11.13  # points: height of a line, width of a cell, font size
MONO = "DejaVu Sans Mono"  # comes with matplotlib; its characters are 0.602 of their size wide
OTHERS = ("cjk", "dejavu sans", "noto", "gothic", "ming", "hei", "song", "arial unicode", "unifont")

Character = tuple[str, int, int]
"""A character, and the first and last + 1 of the bytes that it is made of."""
Line = list[tuple[Character, int, int]]
"""Characters, the cell that each begins in and the number of its cells."""


@dataclass(frozen=True, kw_only=True)
class TextContent(base.Content):
    """Text as UTF-8.

    Attributes:
        units: 0 to 255 is a byte; 256 + i is special token i, which is no part of the text.
        marks: Names of the special tokens.
        step: Bytes that an element covers.
    """

    array_names: ClassVar = {"units": "text"}

    units: npt.NDArray[np.int64]
    marks: tuple[str, ...] = ()
    step: int = 1

    def characters(self) -> list[Character]:
        """Return the characters with their bytes. Bytes that are no valid UTF-8 are written in hexadecimal."""
        found: list[Character] = []
        place, end = 0, len(self.units)
        while place < end:
            unit, length = int(self.units[place]), 1
            if unit > 255:
                mark = unit - 256
                text = f"[{self.marks[mark] if mark < len(self.marks) else mark}]"
            else:
                length = 1 if unit < 0x80 else 2 if unit < 0xE0 else 3 if unit < 0xF0 else 4
                try:
                    text = bytes(self.units[place : place + length].tolist()).decode()
                except ValueError:  # no UTF-8, or a special token among the bytes
                    text, length = f"\\x{unit:02x}", 1
            found.append((text, place, place + length))
            place += length
        return found

    def thumbnail(self) -> str:
        """Return the beginning of the text."""
        return plot.shorten("".join(text for text, _, _ in self.characters()), 300)

    def to_json(self, view: base.View) -> base.Json:
        """Return the characters, each with the first and last + 1 of its elements."""
        step = self.step
        characters = [
            [text, begin // step, -(-end // step)] for text, begin, end in self.characters()
        ]
        return {"media": "text", "extent": [1.0], "characters": characters}

    def num_elements(self, view: base.View) -> int:
        """Return the number of elements that hold a byte of the text, at least one."""
        return max(-(-len(self.units) // self.step), 1)

    def size(self, view: base.View) -> tuple[float, float]:
        """Return a size with the text for each map or, of a long text, with tracks."""
        lines = len(self._lines())
        copies, tracks = (len(view.maps), 0) if lines <= SHORT else (1, len(view.maps))
        high = copies * (min(lines, LINES) * LINE / 72 + 0.4)
        return plot.WIDE, high + (plot.TRACK * tracks + 0.5 if tracks else 0.1)

    def draw(self, figure: Any, view: base.View) -> None:
        """Draw the text on a ground of attention, once for each map if it is short.

        Of a long text, draw the passage with the most attention and, below it, the maps along the whole text.
        """
        lines = self._lines()
        copies = len(view.maps) if len(lines) <= SHORT else 1
        num_tracks = len(view.maps) if len(lines) > SHORT else 0
        first, last = self._passage(lines, self._by_byte(view.overall))
        cut = last - first < len(lines)
        heights = [(last - first) * LINE / 72 + 0.2] * copies + [plot.TRACK] * num_tracks
        panels = list(figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights).flat)
        heat: Any = None
        for axes, (title, attention) in zip(panels[:copies], view.maps.values(), strict=False):
            heat = self._draw_lines(axes, lines[first:last], self._by_byte(attention), view.scale)
            where = f" \N{EN DASH} passage with the most attention, lines {first + 1} to {last} of {len(lines)}"
            text = plot.shorten(title, 24) + (where if cut else "")
            axes.set_title(text, fontsize=9, color=plot.INK, loc="left", parse_math=False)
        plot.scale_beside(panels[:copies], heat, view, fraction=0.015, aspect=18)
        tracks = panels[copies:]
        if tracks:
            plot.draw_tracks(tracks, view, np.arange(len(view.overall) + 1) * self.step)
            shown = [character for line in lines[first:last] for character, _, _ in line]
            for axes in tracks if cut else ():
                axes.axvspan(
                    shown[0][1], shown[-1][2], color=plot.PALE, alpha=0.45, zorder=-1, lw=0
                )
            gray = " (gray: the passage above)" if cut else ""
            tracks[-1].set_xlabel(f"byte of the text{gray}", fontsize=8, color=plot.QUIET)

    def _by_byte(self, attention: base.Array) -> base.Array:
        """Return the attention to the element of each byte."""
        return np.repeat(attention, self.step)[: len(self.units)]

    def _lines(self) -> list[Line]:
        """Return the characters broken into lines of `COLUMNS` cells, after a space where possible."""
        lines: list[Line] = [[]]
        word: Line = []
        column = 0
        for text, start, stop in self.characters():
            shown = "\N{RETURN SYMBOL}" if text == "\n" else text
            width = 4 if text == "\t" else _num_cells(shown)
            if column + width > COLUMNS:
                # A word moves to the next line; a very long one is broken where the line is full.
                moves = word if word and column - word[0][1] < COLUMNS // 3 else []
                shift = moves[0][1] if moves else column
                lines[-1] = lines[-1][: len(lines[-1]) - len(moves)]
                lines.append([(one, cell - shift, cells) for one, cell, cells in moves])
                word, column = lines[-1][:], column - shift
            lines[-1].append(((shown, start, stop), column, width))
            word = [] if text.isspace() else [*word, lines[-1][-1]]
            column += width
            if text == "\n":
                lines.append([])
                column = 0
        return [line for line in lines if line] or [[]]

    def _passage(self, lines: list[Line], attention: base.Array) -> tuple[int, int]:
        """Return the first and last + 1 line of the passage with the most attention."""
        if len(lines) <= LINES:
            return 0, len(lines)
        weight = np.nan_to_num(attention)
        per_line = [
            sum(float(weight[one[1] : one[2]].sum()) for one, _, _ in line) for line in lines
        ]
        first = int(np.argmax(np.convolve(per_line, np.ones(LINES), mode="valid")))
        return first, first + LINES

    def _draw_lines(self, axes: Any, lines: list[Line], attention: base.Array, scale: float) -> Any:
        """Draw lines of characters in cells of one width, each on a ground of the mean attention of its bytes."""
        from matplotlib.collections import PatchCollection
        from matplotlib.patches import Rectangle
        from matplotlib.transforms import Affine2D, ScaledTranslation

        # Cells are measured in points from the upper left corner, as fonts are, whatever the size of the axes.
        dots = Affine2D().scale(1 / 72) + axes.figure.dpi_scale_trans
        points = dots + ScaledTranslation(0, 1, axes.transAxes)
        cells: list[Rectangle] = []
        levels: list[float] = []
        drawn: Any = None
        how: dict[str, Any] = {"ha": "center", "va": "baseline", "parse_math": False}
        how |= {"transform": points, "size": SIZE, "color": plot.INK, "in_layout": False}
        for row, line in enumerate(lines):
            for (text, start, stop), column, width in line:
                if not width:  # an accent of the character before it
                    drawn.set_text(unicodedata.normalize("NFC", drawn.get_text() + text))
                    continue
                seen = attention[start:stop][np.isfinite(attention[start:stop])]
                cells.append(Rectangle((CELL * column, -LINE * (row + 1)), CELL * width, LINE))
                levels.append(float(seen.mean()) if seen.size else 0.0)
                font = _font_with(text[0])
                shown = "\N{WHITE SQUARE}" if font is None else text
                middle = CELL * (column + width / 2), -LINE * (row + 0.74)
                drawn = axes.text(
                    *middle, shown if text.isprintable() else "", family=font or MONO, **how
                )
        ground = PatchCollection(cells, cmap=plot.palette("warm"), linewidths=0, transform=points)
        ground.set(array=np.array(levels), norm=plot.norm_of(scale), clip_on=False)
        axes.add_collection(ground, autolim=False)
        axes.set_axis_off()
        return ground


def _num_cells(text: str) -> int:
    """Return the number of cells of a character. One that combines with the character before it has none."""
    if len(text) > 1:  # a special token, or a byte in hexadecimal
        return len(text)
    if unicodedata.category(text) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(text) in ("W", "F") else 1


@cache
def _font_with(character: str) -> str | None:
    """Return the name of the first font that has a character: the monospaced one, or one for other scripts."""
    return next(
        (name for name, file in _fonts().items() if ord(character) in _code_points(file)), None
    )


@cache
def _fonts() -> dict[str, Any]:
    """Return the files of the fonts to use by their names, the monospaced one first."""
    from matplotlib import font_manager

    found: dict[str, Any] = {MONO: font_manager.findfont(MONO)}
    for entry in sorted(font_manager.fontManager.ttflist, key=lambda entry: entry.name):
        if any(word in entry.name.lower() for word in OTHERS) and entry.style == "normal":
            found.setdefault(entry.name, entry.fname)
    return found


@cache
def _code_points(file: str) -> frozenset[int]:
    from matplotlib import font_manager

    return frozenset(font_manager.get_font(file).get_charmap())


def _text(given: base.ModelInput) -> TextContent:
    length = int(np.flatnonzero(given.real)[-1]) + 1 if given.real.any() else 0
    ids = given.x[:length].astype(np.int64)
    units = np.where(ids >= BYTE_OFFSET, ids - BYTE_OFFSET, 256 + ids)
    return TextContent(units=units, marks=SPECIAL, step=given.step[0])


base.register_view("text", _text)
