"""Encoded cells of a data set: files, bytes, arrays and other values, each with a name for messages."""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from perceivers.data.base import open_regular


@dataclass(frozen=True, slots=True)
class EncodedItem:
    """One cell that the model reads, not yet decoded. At most one of path, data, array and value is there.

    Attributes:
        name: Name for messages: its path, or its table and row.
        path: Where it lies on the disk.
        data: Its bytes.
        array: An image that is already decoded: rows, columns and, if there are any, channels.
        value: Anything else that needs no decoding: a text, a list of numbers, an array; of a modality that
            lies in several columns, a dict of them.
    """

    name: str
    path: Path | None = None
    data: bytes | None = None
    array: npt.NDArray[np.uint8] | None = None
    value: Any = None

    @property
    def is_missing(self) -> bool:
        """Whether there is nothing: an empty cell."""
        return self.path is None and self.data is None and self.array is None and self.value is None

    def open(self) -> io.BytesIO | io.BufferedReader:
        """Return the encoded file, opened for reading.

        Raises:
            OSError: If the file is missing or cannot be read. The message names it.
            ValueError: If there is nothing to open: an empty cell, or a decoded image.
        """
        if self.data is not None:
            return io.BytesIO(self.data)
        if self.path is not None:
            try:
                return open_regular(self.path)
            except OSError as error:
                if error.strerror is None:  # the message is complete
                    raise
                raise type(error)(f"'{self.name}' cannot be read: {error.strerror}.") from error
        if self.array is not None:
            raise ValueError(f"{self.name} is a decoded image and has no bytes; use its array.")
        raise ValueError(f"{self.name} is empty: expected a file, got nothing.")

    def read(self) -> bytes:
        """Return all bytes of the encoded file. Raises what `open` raises."""
        if self.data is not None:
            return self.data
        with self.open() as file:
            try:
                return file.read()
            except OSError as error:
                raise type(error)(f"'{self.name}' cannot be read: {error.strerror}.") from error


def as_encoded_item(
    cell: Any, where: str, folder: Path, *, kind: str = "image", by_path: bool = False
) -> EncodedItem:
    """Return a cell of a table as `EncodedItem`, whatever it holds.

    Args:
        cell: A path, bytes, a mapping of `bytes` and `path`, an array, a PIL image, `EncodedItem`, or None.
        where: Table and row, for messages about cells without a path.
        folder: Base of relative paths.
        kind: Kind of the column. Arrays become an image only if it is `image`; else they become a `value`.
        by_path: Whether a string is a path, also where the kind is `text`.

    Raises:
        TypeError: If the cell is none of these.
    """
    if cell is None or (
        isinstance(cell, float) and math.isnan(cell)
    ):  # pandas writes missing as NaN
        return EncodedItem(where)
    if isinstance(cell, EncodedItem):
        return cell
    if isinstance(cell, bytes | bytearray | memoryview):
        return EncodedItem(where, data=bytes(cell))
    if isinstance(cell, str) and kind == "text" and not by_path:
        return EncodedItem(where, value=cell)
    if isinstance(cell, str | PathLike):
        path = folder / Path(cast("str", cell)).expanduser()
        return EncodedItem(str(path), path=path)
    if isinstance(cell, Mapping):
        return _from_mapping(cast("Mapping[str, Any]", cell), where, folder, kind)
    if isinstance(cell, np.ndarray) or (kind != "image" and isinstance(cell, list | tuple)):
        return _from_numbers(cast("Any", cell), where, kind)
    if hasattr(cell, "getexif"):
        return _from_pil(cell, where)
    raise TypeError(
        f"{where}: expected a path, bytes, an array or an image, got {type(cell).__name__}."
    )


def _from_numbers(numbers: Any, where: str, kind: str) -> EncodedItem:
    """Return numbers as an image, or as the value that they are for every other kind."""
    if kind == "image":
        return EncodedItem(where, array=to_uint8_images(numbers, where))
    return EncodedItem(where, value=numbers)


def _from_mapping(cell: Mapping[str, Any], where: str, folder: Path, kind: str) -> EncodedItem:
    """Return bytes and their path, as `datasets` keeps them; or what is decoded already."""
    if not {"bytes", "path"} & set(cell):
        return EncodedItem(where, value=dict(cell))
    data, path = cell.get("bytes"), cell.get("path")
    if data is None:
        return as_encoded_item(path, where, folder, kind=kind, by_path=True)
    return EncodedItem(f"{where} ({path})" if path else where, data=bytes(data))


def to_uint8_images(array: npt.NDArray[Any], where: str) -> npt.NDArray[np.uint8]:
    """Return decoded images as uint8: bytes as they are, numbers in [0, 1] times 255.

    Raises:
        ValueError: If the numbers are neither, since their scale is unknown.
    """
    if array.dtype == np.uint8:
        return cast("npt.NDArray[np.uint8]", array)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{where}: expected images as numbers, got an array of {array.dtype}.")
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    if array.dtype.kind == "f" and low >= 0 and high <= 1:
        return np.rint(array * 255).astype(np.uint8)
    if array.dtype.kind != "f" and low >= 0 and high <= 255:
        return array.astype(np.uint8)
    raise ValueError(
        f"{where}: expected images of uint8 (0 to 255) or of numbers in [0, 1], got {array.dtype} "
        f"from {low:g} to {high:g}. Scale them first."
    )


def _from_pil(image: Any, where: str) -> EncodedItem:
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode in {"L", "RGB", "RGBA"}:
        return EncodedItem(where, array=np.asarray(image))
    # Palette, 16-bit and CMYK images are decoded with care elsewhere; TIFF keeps all of them exactly.
    if "transparency" in image.info:
        return EncodedItem(where, array=np.asarray(image.convert("RGBA")))
    if image.mode not in {"1", "P", "LA", "PA", "I;16", "I", "F", "CMYK", "YCbCr", "LAB"}:
        return EncodedItem(where, array=np.asarray(image.convert("RGB")))
    buffer = io.BytesIO()
    image.save(buffer, format="TIFF")
    return EncodedItem(where, data=buffer.getvalue())
