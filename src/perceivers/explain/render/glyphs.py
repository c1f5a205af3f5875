"""Letters as outlines in cells of one width: placed exactly, whichever font has them, and quick by the thousand."""

import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import font_manager
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D

MONO = "DejaVu Sans Mono"  # comes with matplotlib
ADVANCE = 0.602  # of its letters, as a multiple of the size
# Where letters that it lacks are looked for, by words in the names of the installed fonts.
_OTHERS = (
    "cjk",
    "dejavu",
    "noto",
    "han",
    "gothic",
    "ming",
    "hei",
    "song",
    "arial unicode",
    "unifont",
    "emoji",
)
_BOX = "\N{WHITE SQUARE}"  # stands for letters that no font has


def cells_of(letter: str) -> int:
    """Return how many cells a letter fills. One that joins the letter before it fills none."""
    if len(letter) > 1:  # a mark, or a byte that is no letter
        return len(letter)
    if unicodedata.combining(letter) or unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in ("W", "F") else 1


def outlines(placed: Iterable[tuple[str, float, float]], size: tuple[float, float]) -> Path | None:
    """Return the outlines of letters as one path, or None if there is nothing to see.

    Args:
        placed: Letters and the left end of their base line.
        size: Width of a cell and height of a letter's em, in the units of the axes.
    """
    parts: list[Path] = []
    for text, x, y in placed:
        for offset, letter in enumerate(text):
            outline = _outline(letter)
            if outline is None:
                continue
            move = Affine2D().scale(size[0] / ADVANCE, size[1]).translate(x + offset * size[0], y)
            parts.append(outline.transformed(move))
    return Path.make_compound_path(*parts) if parts else None


@cache
def _outline(letter: str) -> Path | None:
    """Return a letter's outline at size 1, or None if it is blank."""
    if not letter.isprintable() or letter.isspace():
        return None
    font = _font_with(letter)
    if font is None:
        if not cells_of(letter):  # a box over the letter that it joins would hide it
            return None
        letter, font = _BOX, FontProperties(family=MONO)
    path = TextPath((0, 0), letter, size=1, prop=font, usetex=False)
    vertices: npt.NDArray[Any] = np.asarray(path.vertices)
    return path if len(vertices) else None


@cache
def _font_with(letter: str) -> FontProperties | None:
    """Return the first font that has a letter."""
    for file in _fonts():
        if ord(letter) in _letters_in(file):
            return FontProperties(fname=file)
    return None


@cache
def _fonts() -> tuple[str, ...]:
    """Return the files of the fonts to look into, the one with letters of one width first."""
    mono = font_manager.findfont(FontProperties(family=MONO))
    others = [
        (
            next((rank for rank, word in enumerate(_OTHERS) if word in entry.name.lower()), None),
            entry,
        )
        for entry in font_manager.fontManager.ttflist
        if entry.style == "normal" and "last resort" not in entry.name.lower()
    ]
    ranked = sorted((rank, entry.fname) for rank, entry in others if rank is not None)
    return mono, *(file for _, file in ranked if file != mono)


@cache
def _letters_in(file: str) -> frozenset[int]:
    return frozenset(font_manager.get_font(file).get_charmap())
