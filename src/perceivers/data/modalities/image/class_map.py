"""Encoding of class maps: indices, gray levels (also blurred by JPEG) or colors, found from a sample of the maps."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.image.decode import decode_indices

NO_CLASS = 255  # an index that states that nobody knows the class of a pixel
MOST_COLORS = 64  # of maps in color; an image with more is no class map
_MOST_COUNTED = 4096  # colors of one map
_EDGE = 32  # gray levels around black and white that count as these
_LARGE_STEP = 16  # indices are rarely that far apart
_MASS = 0.95  # share of the pixels of a map that JPEG leaves near their level
_RARE = 5e-4

Indices = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class MapValues:
    """Values of the pixels of one class map.

    Attributes:
        counts: Pixels of each value; of a map in color, by 65536 R + 256 G + B.
        is_color: Whether the map is in color.
        is_lossy: Whether its format changes values: JPEG.
        palette: R, G, B, R, ... of a map with a palette.
    """

    counts: Counter[int]
    is_color: bool
    is_lossy: bool
    palette: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MapEncoding:
    """Encoding of classes by pixels.

    Attributes:
        num_classes: Number of classes.
        is_binary: 255 is class 1, beside 0.
        levels: Gray level of each class, if pixels are no indices.
        colors: R, G, B, R, ... of each class, if maps are in color.
        tolerance: Largest difference of a pixel from its level.
    """

    num_classes: int
    is_binary: bool = False
    levels: tuple[int, ...] = ()
    colors: tuple[int, ...] = ()
    tolerance: int = 0


def map_values(media: EncodedItem) -> MapValues:
    """Return the values of the pixels of a class map.

    Raises:
        ValueError: If it cannot be read. The message names the file and the reason.
    """
    found = decode_indices(media)
    if found.pixels.ndim == 2:
        values, counts = np.unique(found.pixels, return_counts=True)
    else:
        values, counts = np.unique(_codes(found.pixels), return_counts=True)
    pairs = sorted(zip(counts.tolist(), values.tolist(), strict=True), reverse=True)
    kept = Counter({value: count for count, value in pairs[:_MOST_COUNTED]})
    return MapValues(kept, found.pixels.ndim == 3, found.is_lossy, found.palette)


def find_encoding(maps: Sequence[MapValues], num_classes: int | None) -> MapEncoding:
    """Return the encoding of classes in some maps.

    Args:
        maps: Values of each map.
        num_classes: Number of classes, if it is known.

    Raises:
        ValueError: If the maps hold one class only, more colors than classes can have, or values that JPEG changed
            beyond recognition.
    """
    counts: Counter[int] = Counter()
    is_color = any(one.is_color for one in maps)
    for one in maps:
        factor = 0x010101 if is_color and not one.is_color else 1
        counts.update({value * factor: count for value, count in one.counts.items()})
    _check_palettes(maps)
    is_lossy = any(one.is_lossy for one in maps)
    if is_color:
        return _colors(counts, is_lossy=is_lossy)
    values = sorted(counts)
    if num_classes in {None, 2} and values == [0, NO_CLASS]:
        return MapEncoding(2, is_binary=True)
    if not any(one.palette for one in maps):
        found = _lossy_levels(counts) if is_lossy or _is_blurred(counts) else _levels(values)
        if found is not None and num_classes in {None, found.num_classes}:
            return found
        if is_lossy and num_classes is None:
            raise ValueError(
                f"The class maps are JPEG files with {len(values)} different gray levels: JPEG changes values, so that "
                "classes cannot be distinguished. Save the maps as PNG."
            )
    count = num_classes or max((value for value in values if value != NO_CLASS), default=0) + 1
    if count < 2:
        raise ValueError(
            "The class maps hold class 0 alone: there is nothing to distinguish. Expected an image with a "
            "palette, or a gray one whose pixels are 0, 1, 2, ..."
        )
    return MapEncoding(count)


def _check_palettes(maps: Sequence[MapValues]) -> None:
    """Refuse maps in which one index has different colors: it is then unknown which index is which class."""
    colors: dict[int, tuple[int, ...]] = {}
    for one in maps:
        for value in one.counts if one.palette and not one.is_color else ():
            color = tuple(one.palette[3 * value : 3 * value + 3])
            if len(color) == 3 and colors.setdefault(value, color) != color:
                raise ValueError(
                    f"The palettes of the class maps differ: the index {value} has the color {colors[value]} in one of "
                    f"them and {color} in another. Save all maps with one palette, or as RGB images, whose colors then "
                    "are the classes."
                )


def to_indices(
    media: EncodedItem, levels: Sequence[int], colors: Sequence[int], tolerance: int
) -> Indices:
    """Return the class of each pixel, Y x X; without levels and colors, the indices in the file.

    Args:
        media: A file, its bytes or an array.
        levels: Gray level of each class.
        colors: R, G, B, R, ... of each class.
        tolerance: Largest difference of a pixel from its level.

    Raises:
        ValueError: If it cannot be read, or a pixel has the value of no class. The message names the file.
    """
    pixels = decode_indices(media).pixels
    if colors:
        codes = _codes(pixels) if pixels.ndim == 3 else pixels.astype(np.int64) * 0x010101
        known = _codes(np.array(colors, dtype=np.uint8).reshape(-1, 3))
        order = np.argsort(known)
        place = np.minimum(np.searchsorted(known[order], codes), known.size - 1)
        wrong = known[order][place] != codes
        if wrong.any():
            code = int(codes[wrong][0])
            raise ValueError(
                f"{media.name} holds the color ({code >> 16}, {code >> 8 & 255}, {code & 255}): expected those of the "
                f"{known.size} classes found in training, or list all of them in 'colors' of preprocess."
            )
        return order[place].astype(np.uint8)
    if pixels.ndim == 3:
        raise ValueError(
            f"Expected '{media.name}' to be an image of class indices from 0 to 255, gray or with a palette, got one "
            "in color, which the maps of the training data were not."
        )
    if not levels:
        return pixels
    distance = np.abs(np.arange(256)[:, None] - np.array(levels))
    table = distance.argmin(axis=1).astype(np.uint8)
    far = distance.min(axis=1) > tolerance
    if far[pixels].any():
        value = int(pixels[far[pixels]][0])
        raise ValueError(
            f"{media.name} holds the gray level {value}: expected {', '.join(map(str, levels))}, one for each class."
        )
    return table[pixels]


def describe_encoding(levels: Sequence[int], colors: Sequence[int], tolerance: int) -> str:
    """Return a sentence on how pixels encode classes, or "" if they are indices."""
    if colors:
        rows = np.array(colors).reshape(-1, 3).tolist()
        shown = ", ".join(f"{i}: ({r}, {g}, {b})" for i, (r, g, b) in enumerate(rows[:8]))
        more = ", ..." if len(rows) > 8 else ""
        return f"The class maps are in color; {len(rows)} colors are the classes: {shown}{more}."
    if levels:
        shown = ", ".join(f"{i}: {level}" for i, level in enumerate(levels))
        near = "; the nearest level counts, since the values are blurred" if tolerance else ""
        return f"{len(levels)} gray levels of the class maps are the classes: {shown}{near}."
    return ""


def _codes(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    wide = pixels.astype(np.int64)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def _colors(counts: Counter[int], *, is_lossy: bool) -> MapEncoding:
    """Return colors as classes, black first."""
    if is_lossy:
        raise ValueError(
            "The class maps are JPEG files in color: JPEG changes colors, so that classes cannot be "
            "distinguished. Save the maps as PNG, gray or with a palette."
        )
    if not 2 <= len(counts) <= MOST_COLORS:
        raise ValueError(
            f"The class maps are in color and hold {len(counts):,} different colors: expected one for each class, from "
            f"2 to {MOST_COLORS}. For values instead of classes use --recipe dense."
        )
    colors = [part for code in sorted(counts) for part in (code >> 16, code >> 8 & 255, code & 255)]
    return MapEncoding(len(counts), colors=tuple(colors))


def _levels(values: Sequence[int]) -> MapEncoding | None:
    """Return evenly spaced gray levels far apart as classes: 0 and 128, or 0, 85, 170 and 255."""
    if len(values) < 2 or len(values) > NO_CLASS // _LARGE_STEP + 1:
        return None
    first, last = values[0], values[-1]
    step = (last - first) / (len(values) - 1)
    even = all(abs(value - first - i * step) <= 1 for i, value in enumerate(values))
    starts = first == 0 or abs(first - step) <= 1
    return (
        MapEncoding(len(values), levels=tuple(values))
        if even and starts and step >= _LARGE_STEP
        else None
    )


def _is_blurred(counts: Counter[int]) -> bool:
    """Return whether black and white have gray edges between them, as of a mask that was resized."""
    between = [value for value in counts if _EDGE < value < NO_CLASS - _EDGE]
    bright = [value for value in counts if NO_CLASS - _EDGE <= value < NO_CLASS]
    ends = _near(counts, (0, NO_CLASS), _EDGE)
    return (
        len(between) >= 8
        and bool(bright)
        and max(between) > 192
        and min(ends) > _RARE
        and sum(ends) > 0.9
    )


def _lossy_levels(counts: Counter[int]) -> MapEncoding | None:
    """Return few evenly spaced gray levels near which most pixels lie."""
    top = max((c, v) for v, c in counts.items() if v > max(counts) / 2)[1]
    whites = (NO_CLASS, top) if top >= NO_CLASS - _EDGE else (top,)
    for count in range(2, 7):
        for white in whites:
            levels = tuple(round(white * i / (count - 1)) for i in range(count))
            step = white / (count - 1)
            shares = _near(counts, levels, round(min(_EDGE, step / 3)))
            mass = 0.9 if count == 2 and white == NO_CLASS else _MASS
            if step >= 2 * _LARGE_STEP and min(shares) > _RARE and sum(shares) >= mass:
                return MapEncoding(count, levels=levels, tolerance=NO_CLASS)
    return None


def _near(counts: Counter[int], levels: Iterable[int], distance: int) -> list[float]:
    """Return the share of pixels near each level."""
    total = sum(counts.values())
    return [
        sum(count for value, count in counts.items() if abs(value - level) <= distance) / total
        for level in levels
    ]
