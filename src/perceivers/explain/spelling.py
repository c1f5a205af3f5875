"""The letters of a text that was read byte by byte."""

import numpy as np

from perceivers.explain.contents import Passage

__all__ = ["Letter", "letters_of"]

Letter = tuple[str, int, int]
"""What to write, and which elements it is made of: from, up to."""


def letters_of(passage: Passage) -> list[Letter]:
    """Return the letters of a text with the elements of each. Bytes that make no letter are written as hex."""
    letters: list[Letter] = []
    place, units = 0, passage.units
    while place < len(units):
        unit = int(units[place])
        if unit > 255:
            mark = unit - 256
            name = passage.marks[mark] if mark < len(passage.marks) else str(mark)
            letters.append((f"[{name}]", place, place + 1))
            place += 1
            continue
        length = 1 if unit < 0x80 else 2 if unit < 0xE0 else 3 if unit < 0xF0 else 4
        part = units[place : place + length]
        try:
            text = bytes(part.astype(np.uint8)).decode() if (part < 256).all() else None
        except UnicodeDecodeError:
            text = None
        if text is None:
            text, length = f"\\x{unit:02x}", 1
        letters.append((text, place, place + length))
        place += length
    return letters
