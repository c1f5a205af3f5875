"""Files become images: upright, 8 bit, gray or RGB. Every failure becomes one sentence."""

import io
import re
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.registry import kind_of_bytes, noun_of
from perceivers.optional import require

# An image of 400 kB can claim 400 million pixels (1.2 GB once decoded). Cameras end at about 100 million.
MAX_PIXELS = 100_000_000

# Formats that are only pixels. Pillow's others start programs (EPS runs Ghostscript) or draw vectors.
FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "MPO", "AVIF", "JPEG2000"),
    *("TGA", "ICO", "PCX", "SGI", "HEIF"),
)

IMAGE_BRANDS = {
    *(b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
}
"""Brands of AVIF and HEIC files, after `ftyp`."""

_UNREAD = (  # by the first bytes, or by those at an offset
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"gimp xcf", "a GIMP file"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"DDS ", "DDS"),
    (0, b"qoif", "QOI"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw file"),
    (4, b"ftypcrx ", "a camera's raw file"),
    (128, b"DICM", "DICOM"),
)

GRAY_MODES = ("1", "L", "LA", "La", "I", "F")  # and all that begin with "I;16"
_ORIENTATION = 0x0112  # EXIF tag; its values 5 to 8 swap height and width
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FRAMED = ("GIF", "PNG", "WEBP", "AVIF", "TIFF")  # MPO holds previews of one photograph, not frames


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image and what had to be decided to read it.

    Attributes:
        image: Mode `L` or `RGB`.
        notes: A few fixed phrases ("first of several frames"), so that they can be counted.
    """

    image: Image.Image
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Header:
    """Header of an image.

    Attributes:
        height: Rows, after the turn that EXIF asks for.
        width: Columns, likewise.
        gray: Whether it has no colors.
    """

    height: int
    width: int
    gray: bool


def decode_image(media: EncodedItem, *, num_channels: int) -> Image.Image:
    """Return the image upright, in mode `L` (1 channel) or `RGB` (3 channels).

    Args:
        media: A file, its bytes or an array of uint8, H x W or H x W x C.
        num_channels: 1 or 3.

    Raises:
        ValueError: If it cannot be read. The message names the file and the reason.
    """
    return decode(media, num_channels=num_channels).image


def decode(media: EncodedItem, *, num_channels: int) -> Decoded:
    """Return the image as `decode_image` does, with notes on what was decided.

    Args:
        media: A file, its bytes or an array of uint8, H x W or H x W x C.
        num_channels: 1 or 3.

    Raises:
        ValueError: If it cannot be read. The message names the file and the reason.
    """
    if num_channels not in (1, 3):
        raise ValueError(
            f"Images are read with num_channels=1 (gray) or 3 (RGB); got {num_channels}."
        )
    if media.array is not None:
        image, notes = _from_array(media.name, media.array), []
        return Decoded(to_mode(image, num_channels, notes), tuple(notes))
    with _opened(media) as image:
        notes = []
        if image.format in _FRAMED and getattr(image, "is_animated", False):
            notes.append("first of several frames")
        image.load()
        turn = _TURNS.get(_orientation(image, notes))
        eight_bit = to_mode(image, num_channels, notes)
        if turn is not None:
            notes.append("turned as EXIF states")
            eight_bit = eight_bit.transpose(turn)
        return Decoded(eight_bit, tuple(notes))


@dataclass(frozen=True, slots=True)
class IndexImage:
    """Pixels of an image that states classes.

    Attributes:
        pixels: Y x X of gray or palette indices, or Y x X x 3 in color; uint8.
        palette: R, G, B, R, ...; () if it has none.
        is_lossy: Whether its format changes values.
    """

    pixels: npt.NDArray[np.uint8]
    palette: tuple[int, ...] = ()
    is_lossy: bool = False


def decode_indices(media: EncodedItem) -> IndexImage:
    """Return the values of an image as they are stored; one in color whose channels are equal as gray.

    Args:
        media: A file, its bytes or an array of uint8.

    Raises:
        ValueError: If it cannot be read, is partly transparent or holds values beyond 8 bit. The message names it.
    """
    if media.array is not None:
        return IndexImage(_indices(_from_array(media.name, media.array), media.name, 0))
    with _opened(media) as image:
        image.load()
        palette = tuple(image.getpalette() or ()) if image.mode == "P" else ()
        is_lossy = image.format in {"JPEG", "MPO"}
        return IndexImage(_indices(image, media.name, 24 if is_lossy else 0), palette, is_lossy)


def _indices(image: Image.Image, name: str, tolerance: int) -> npt.NDArray[np.uint8]:
    """Return gray as Y x X, also if it is stored as RGB whose channels differ by the tolerance at most."""
    pixels = np.array(image)
    if image.mode == "1":
        return pixels.astype(np.uint8)
    if image.mode in {"LA", "RGBA"} and (pixels[..., -1] == 255).all():
        pixels = pixels[..., 0] if image.mode == "LA" else pixels[..., :3]
    is_color = pixels.ndim == 3 and pixels.shape[2] == 3 and image.mode in {"RGB", "RGBA"}
    if is_color and (np.ptp(pixels, axis=2) <= tolerance).all():
        pixels = np.array(image.convert("L")) if tolerance else pixels[..., 0]
    is_gray = pixels.ndim == 2 and pixels.min() >= 0 and pixels.max() <= 255
    if not (is_gray or is_color) or pixels.dtype.kind == "f":
        raise ValueError(
            f"Expected '{name}' to be an image of class indices from 0 to 255, gray or with a palette, or of one color "
            f"for each class, got mode {image.mode}{' with transparency' if 'A' in image.mode else ''}."
        )
    return pixels.astype(np.uint8)


def read_header(media: EncodedItem) -> Header:
    """Return size and kind of an image without decoding it.

    Raises:
        ValueError: If it is not an image. The message names the file and the reason.
    """
    if media.array is not None:
        image = _from_array(media.name, media.array)
        return Header(image.height, image.width, image.mode in GRAY_MODES)
    with _opened(media) as image:
        gray = image.mode in GRAY_MODES or image.mode.startswith("I;16")
        height, width = image.height, image.width
        if _orientation(image, []) >= 5:
            height, width = width, height
        return Header(height, width, gray)


@contextmanager
def _opened(media: EncodedItem) -> Generator[Image.Image]:
    """Open a file with Pillow. Every failure until the end of the `with` becomes one sentence."""
    try:
        file = media.open() if media.data is None else io.BytesIO(media.data)
    except (OSError, ValueError) as error:
        raise ValueError(f"{error} Replace it or take it out of the data.") from error
    start = b""
    try:
        with quiet_pillow, file:
            start = file.read(136)
            has_heif = start[4:8] == b"ftyp" and start[8:12] in IMAGE_BRANDS and _register_heif()
            image = Image.open(file, formats=_formats(has_heif=has_heif))
            if image.width * image.height > MAX_PIXELS:
                raise _bomb(media.name, image.width * image.height)
            yield image
    except _BombError:
        raise
    except (
        Image.DecompressionBombError
    ) as error:  # Pillow's own limit; it gives the number in words only
        found = re.search(r"\d+", str(error))
        raise _bomb(media.name, int(found[0]) if found else MAX_PIXELS) from None
    except UnidentifiedImageError:
        raise ValueError(_sentence(media.name, _what_it_is(start))) from None
    except Exception as error:  # damaged files make Pillow raise nearly anything, struct.error too
        reason = f"it is damaged or cut off ({str(error) or type(error).__name__})"
        raise ValueError(_sentence(media.name, reason)) from error


class _BombError(ValueError):
    """An image that would fill the memory. Its message is complete."""


def _bomb(name: str, pixels: int) -> _BombError:
    return _BombError(
        f"Cannot read '{name}': its header claims {pixels:,} pixels; at most {MAX_PIXELS:,} are decoded, "
        "since a small file could fill the memory. Make the image smaller."
    )


def _sentence(name: str, reason: str) -> str:
    return f"Cannot read '{name}' as an image: {reason}. Replace it or take it out of the data."


def _what_it_is(start: bytes) -> str:
    if not start:
        return "the file is empty"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS instead of the file, which 'git lfs pull' downloads"
    unread = next((n for at, magic, n in _UNREAD if start[at:].startswith(magic)), None)
    if unread:
        return f"it is {unread}, which is not read; convert it to PNG or JPEG"
    if start[4:8] == b"ftyp" and start[8:11] in {b"hei", b"hev", b"mif"}:
        extra = 'which is read with an extra: pip install "perceivers[heic]"'
        return f"it is HEIC, {'which is damaged or cut off' if _register_heif() else extra}"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in start):
        return f"it holds text that begins with {start[:16].decode('ascii')!r}"
    kind = kind_of_bytes(start)
    if kind == "image":
        return "its header is damaged or cut off"
    if kind is not None:
        return f"it holds {noun_of(kind)}"
    return f"it is in no image format that is known here; it begins with the bytes {start[:8].hex(' ')}"


@cache
def _formats(*, has_heif: bool) -> tuple[str, ...]:
    """Return those of `FORMATS` that this build of Pillow has.

    Args:
        has_heif: Whether pillow-heif has been registered.
    """
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN and (name != "HEIF" or has_heif))


@cache
def _register_heif() -> bool:
    """Make Pillow open HEIC files; return False if pillow-heif is not installed."""
    try:
        pillow_heif = require("pillow_heif", "heic")
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _orientation(image: Image.Image, notes: list[str]) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # as any damaged file; the pixels are still good
        notes.append("EXIF not readable")
        return 1


def _from_array(name: str, array: npt.NDArray[Any]) -> Image.Image:
    """Return an array as an image."""
    shape = array.shape
    known = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 2, 3, 4))
    if array.dtype != np.uint8 or not known or 0 in shape:
        raise ValueError(
            f"Expected '{name}' to be an array of uint8 of shape H x W or H x W x C (C from 1 to 4), got "
            f"{array.dtype} of shape {' x '.join(map(str, shape))}. Scale the values to 0..255, "
            "then use .astype('uint8')."
        )
    if shape[0] * shape[1] > MAX_PIXELS:
        raise _bomb(name, shape[0] * shape[1])
    return Image.fromarray(array[:, :, 0] if shape[2:] == (1,) else array)


def to_mode(image: Image.Image, num_channels: int, notes: list[str]) -> Image.Image:
    """Return the image in 8 bit, transparency laid on white, in mode `L` or `RGB`."""
    mode = "L" if num_channels == 1 else "RGB"
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        notes.append("scaled to 8 bit")
        image = to_eight_bit(image)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            notes.append("transparent parts laid on white")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=image.getchannel("A"))
        image = white
    return image if image.mode == mode else image.convert(mode)


def to_eight_bit(image: Image.Image) -> Image.Image:
    """Scale deeper gray to 8 bit (Pillow's own conversion clips at 255).

    16 bit is 0 to 65535. Whole and real numbers of 32 bit have no agreed white: it is the first of 1
    (real numbers only), 255 and 65535 that no value exceeds, else the largest value.
    """
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
    largest = float(values.max())
    if image.mode.startswith("I;16") or image.format == "PPM":
        whites = [65535.0]
    else:
        whites = [1.0, 255.0, 65535.0] if image.mode == "F" else [255.0, 65535.0]
    white = next((white for white in whites if largest <= white), largest)
    return Image.fromarray(np.rint(values.clip(0.0, white) * (255.0 / white)).astype(np.uint8))


class _QuietPillow:
    """Keeps Pillow's warnings from the user, from any number of threads.

    `warnings.catch_warnings` swaps a list of the whole process, so that two threads that leave in the
    order in which they came would bring the wrong list back. Here the last to leave does.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._saved = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\b")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._saved.__exit__(None, None, None)


quiet_pillow = _QuietPillow()
