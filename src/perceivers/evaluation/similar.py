"""Image of a sample and the ones most similar to it."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from perceivers.data.base import atomic_write

_SIDE, _GAP, _LINE = 160, 12, 16  # pixels: of a tile, between tiles, of a line of text
_LETTERS = 24  # of a name below its tile, and of a line of a text
_LINES = 9  # of a text

Tile = Image.Image | str


def draw_similar(
    name: str, found: Sequence[tuple[str, float]], path: Path, tiles: Mapping[str, Tile]
) -> None:
    """Draw a sample and those most similar to it, side by side, with names and similarities.

    Args:
        name: Name of the sample.
        found: Name and similarity of the others.
        path: The PNG file to write.
        tiles: Image or text of each by its name.

    Raises:
        ValueError: If one of them has no tile.
    """
    named = [(name, ""), *((one, f"{similarity:.3f}") for one, similarity in found)]
    width = len(named) * (_SIDE + _GAP) + _GAP
    canvas = Image.new("RGB", (width, _SIDE + 2 * _GAP + 2 * _LINE), "white")
    draw = ImageDraw.Draw(canvas)
    for place, (one, text) in enumerate(named):
        left = _GAP + place * (_SIDE + _GAP)
        if one not in tiles:
            raise ValueError(
                f"An image can be drawn of samples that can be read, and '{one}' is none. Give the samples themselves "
                "with --among, or leave --out out to get a list."
            )
        canvas.paste(_square(tiles[one]), (left, _GAP))
        draw.text((left, _SIDE + _GAP + 2), Path(one).name[-_LETTERS:], fill="black")
        draw.text((left, _SIDE + _GAP + _LINE), text or "(the file)", fill="gray")
    with atomic_write(path) as new:
        canvas.save(new, format="PNG")


def _square(tile: Tile) -> Image.Image:
    """Return a tile on a white square."""
    if isinstance(tile, Image.Image):
        return ImageOps.pad(tile.convert("RGB"), (_SIDE, _SIDE), color="white")
    square = Image.new("RGB", (_SIDE, _SIDE), "white")
    lines = textwrap.wrap(tile, _LETTERS)[:_LINES]
    ImageDraw.Draw(square).multiline_text((2, 2), "\n".join(lines), fill="black")
    return square
