"""Image of a sample and the ones most similar to it."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError

from perceivers.data.base import atomic_write

_SIDE, _GAP, _LINE = 160, 12, 16  # pixels: of a tile, between tiles, of a line of text
_LETTERS = 24  # of a name below its tile


def draw_similar(name: str, found: Sequence[tuple[str, float]], path: Path) -> None:
    """Draw an image and those most similar to it, side by side, with names and similarities.

    Raises:
        ValueError: If the samples are no image files.
    """
    tiles = [(name, ""), *((one, f"{similarity:.3f}") for one, similarity in found)]
    width = len(tiles) * (_SIDE + _GAP) + _GAP
    canvas = Image.new("RGB", (width, _SIDE + 2 * _GAP + 2 * _LINE), "white")
    draw = ImageDraw.Draw(canvas)
    for place, (one, text) in enumerate(tiles):
        left = _GAP + place * (_SIDE + _GAP)
        canvas.paste(_tile(one), (left, _GAP))
        draw.text((left, _SIDE + _GAP + 2), Path(one).name[-_LETTERS:], fill="black")
        draw.text((left, _SIDE + _GAP + _LINE), text or "(the file)", fill="gray")
    with atomic_write(path) as new:
        canvas.save(new, format="PNG")


def _tile(name: str) -> Image.Image:
    try:
        with Image.open(name) as image:
            upright = ImageOps.exif_transpose(image) or image
            return ImageOps.pad(upright.convert("RGB"), (_SIDE, _SIDE), color="white")
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(
            f"An image can be drawn of image files only, and '{name}' is none. Leave --out out to get a list."
        ) from error
