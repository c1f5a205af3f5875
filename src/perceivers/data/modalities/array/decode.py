"""Files of numbers (.npy, .npz) and cells of numbers become arrays and elements. Every failure becomes one sentence."""

import io
import math
import re
import zipfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.base import MissingValueError
from perceivers.data.registry import UploadSize

Array = npt.NDArray[Any]
Numbers = npt.NDArray[np.float32]

# A zip of a few kB can claim any size. 20 million points of six float64 channels are just below it.
MAX_BYTES = 1 << 30
MAX_ELEMENTS = 20_000_000  # of one array
NPY_MAGIC, _ZIP = b"\x93NUMPY", b"PK\x03\x04"
_BYTES_PER_NUMBER = 8
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}

_NOUN = "an array"
_VALUES = ("values", "x", "data", "array")
_COORDINATES = ("coordinates", "coords", "positions", "xyz", "times")


@dataclass(frozen=True, slots=True)
class ArrayValue:
    """The elements of one array.

    Attributes:
        values: M x C, float32.
        coordinates: M x d, float32. None: there are none.
        mask: M, True where an element is real; the values elsewhere are zero. None: all are.
        made: Whether the coordinates were made from the array's axes.
    """

    values: Numbers
    coordinates: Numbers | None = None
    mask: npt.NDArray[np.bool_] | None = None
    made: bool = False


class ReasonError(ValueError):
    """Why a cell cannot be read, as the middle of a sentence that `one_sentence` completes."""


@contextmanager
def one_sentence(name: str, noun: str) -> Generator[None]:
    """Turn every failure inside the `with` into one sentence that names the file.

    Args:
        name: Name of the cell.
        noun: Noun of the content: "an array".

    Raises:
        ValueError: For every exception but `MissingValueError`, which passes.
    """
    try:
        yield
    except MissingValueError:
        raise
    except ReasonError as error:
        raise ValueError(_sentence(name, noun, str(error))) from None
    except Exception as error:  # damaged files make libraries raise nearly anything
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(_sentence(name, noun, f"it is damaged or cut off ({words})")) from error


def read_bytes(media: EncodedItem, noun: str) -> bytes:
    """Return all bytes of a cell.

    Raises:
        MissingValueError: If the cell is empty.
        ValueError: If the file is empty, above `MAX_BYTES`, missing or cannot be read. The message names it.
    """
    if media.is_missing:
        raise MissingValueError(f"{media.name} is empty: expected {noun}, got nothing.")
    try:
        size = media.path.stat().st_size if media.data is None and media.path is not None else 0
        if size > MAX_BYTES:
            reason = f"it has {size:,} bytes; at most {MAX_BYTES:,} are read"
            raise ValueError(_sentence(media.name, noun, reason))
        data = media.read()
    except OSError as error:
        words = f"'{media.name}' cannot be read: {error.strerror}." if error.strerror else error
        raise ValueError(f"{words} Replace it or take it out of the data.") from error
    if not data:
        raise ValueError(_sentence(media.name, noun, "the file is empty"))
    return data


def load_arrays(media: EncodedItem, noun: str, *groups: tuple[str, ...]) -> list[Array | None]:
    """Return one array of a cell for each group of names: the first that is there, None if none is.

    A single array, as a file or as a list of numbers, is the first group's. So is the only array of an archive
    whatever its name. Nothing is ever unpickled.

    Args:
        media: A `.npy` or `.npz` file, or a value: numbers, or a dict of numbers by name.
        noun: Noun of the content, for messages.
        groups: Names under which an array may stand, for each that is wanted.

    Raises:
        MissingValueError: If the cell is empty.
        ValueError: If the first cannot be found or read. The message names the file and the reason.
    """
    value = media.value if media.array is None else media.array
    if value is not None:
        with one_sentence(media.name, noun):
            if not isinstance(value, Mapping):
                return [as_numbers(value), *[None] * (len(groups) - 1)]
            columns = cast("Mapping[str, Any]", value)
            names = _chosen([str(name) for name in columns], groups)
            return [None if name is None else as_numbers(columns[name]) for name in names]
    data = read_bytes(media, noun)
    with one_sentence(media.name, noun):
        if data.startswith(NPY_MAGIC):
            return [_parse(data), *[None] * (len(groups) - 1)]
        if data.startswith(_ZIP):
            return _from_archive(data, groups)
        reason = f"it is neither .npy nor .npz; it begins with the bytes {data[:8].hex(' ')}"
        raise ReasonError(reason)


def as_numbers(value: Any) -> Array:
    """Return numbers, however nested, as an array of booleans, integers or floats.

    Raises:
        ReasonError: If they are no numbers, or lists of different lengths.
    """
    try:
        array = np.asarray(value)
        if array.dtype == object:  # None among numbers is nan; tables give arrays of arrays
            nested = value.tolist() if isinstance(value, np.ndarray) else value
            array = np.array(nested, dtype=np.float64)
    except (ValueError, TypeError):
        reason = (
            "expected numbers in rows of one length, got rows of different lengths or no numbers"
        )
        raise ReasonError(reason) from None
    return _checked(array)


def read_array(media: EncodedItem) -> ArrayValue:
    """Return the elements of an array, checked.

    The last axis holds the channels; an array of one axis has a single one. Where there are more than two axes, the
    others are flattened, and if the file states no coordinates each element gets those of its cell, from -1 to 1.

    Args:
        media: A `.npy` or `.npz` file (`values`, and if there are any `coordinates` and `mask`), or such numbers.

    Raises:
        MissingValueError: If the cell is empty, or the mask states that no element is real.
        ValueError: If it cannot be read, parts do not fit each other, or a number is nan or infinite where the mask
            does not cover it. The message names the file and the reason.
    """
    array, places, real = load_arrays(media, _NOUN, _VALUES, _COORDINATES, ("mask",))
    assert array is not None
    with one_sentence(media.name, _NOUN):
        if array.ndim == 0 or array.size == 0:
            reason = f"expected M x C numbers, got shape {array.shape}"
            raise ReasonError(reason)
        grid = array.shape[: max(array.ndim - 1, 1)]
        count = int(np.prod(grid))
        if count > MAX_ELEMENTS:
            reason = (
                f"it holds {count:,} elements; at most {MAX_ELEMENTS:,} are read. Thin it first"
            )
            raise ReasonError(reason)
        mask = None if real is None else _mask(real, array, count)
        values = _finite(array.reshape(count, -1), mask, "values")
        if places is not None:
            if places.size % count or (
                places.shape[: len(grid)] != grid and places.shape[:1] != (count,)
            ):
                reason = f"expected coordinates of {grid} elements, got shape {places.shape}"
                raise ReasonError(reason)
            coordinates = _finite(places.reshape(count, -1), mask, "coordinates")
            return ArrayValue(values, coordinates, mask)
    if mask is not None and not mask.any():
        raise MissingValueError(
            f"{media.name} is empty: its mask states that none of its {count:,} elements is real."
        )
    if len(grid) == 1:
        return ArrayValue(values, None, mask)
    axes = [np.linspace(-1, 1, size) if size > 1 else np.zeros(1) for size in grid]
    cells = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(count, -1)
    return ArrayValue(values, cells.astype(np.float32), mask, made=True)


def _sentence(name: str, noun: str, reason: str) -> str:
    return f"Cannot read '{name}' as {noun}: {reason}. Replace it or take it out of the data."


def _checked(array: Array) -> Array:
    if array.dtype.kind not in "biuf":
        reason = f"expected real numbers, got {array.dtype}"
        raise ReasonError(reason)
    return array


def _chosen(names: list[str], groups: tuple[tuple[str, ...], ...]) -> list[str | None]:
    """Return for each group which of `names` is its array."""
    chosen = [next((name for name in group if name in names), None) for group in groups]
    if chosen[0] is None:
        others = [name for name in names if name not in chosen]
        if len(others) != 1:
            reason = f"expected an array called {' or '.join(groups[0])}, got {names}"
            raise ReasonError(reason)
        chosen[0] = others[0]
    return chosen


def _from_archive(data: bytes, groups: tuple[tuple[str, ...], ...]) -> list[Array | None]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        arrays: list[Array | None] = []
        for name in _chosen(list(members), groups):
            if name is None:
                arrays.append(None)
                continue
            size = members[name].file_size
            if size > MAX_BYTES:
                reason = f"its array '{name}' claims {size:,} bytes; at most {MAX_BYTES:,} are read"
                raise ReasonError(reason)
            arrays.append(_parse(archive.read(members[name])))
    return arrays


def _parse(data: bytes) -> Array:
    """Return the array of a `.npy` file without copying it: it stays in the file's bytes, read-only."""
    wide = (
        data[6:7] == b"\x02"
    )  # version 2 states the length of its header in four bytes, version 1 in two
    start = (
        12 + int.from_bytes(data[8:12], "little")
        if wide
        else 10 + int.from_bytes(data[8:10], "little")
    )
    shape, fortran, dtype = _header(data[:start])
    count = math.prod(shape)
    if count * dtype.itemsize > len(data) - start:
        reason = f"its header promises {count * dtype.itemsize:,} bytes of numbers, {len(data) - start:,} are there"
        raise ReasonError(reason)
    array = np.frombuffer(data, dtype=dtype, count=count, offset=start)
    return _checked(array.reshape(shape, order="F" if fortran else "C"))


@lru_cache(
    maxsize=256
)  # reading a header takes longer than the numbers; the files of a folder share a few
def _header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, order and type of the numbers."""
    file = io.BytesIO(header)
    version = npy.read_magic(file)
    if version not in _HEADERS:
        reason = f"its .npy version {version} is for named columns; expected a plain array"
        raise ReasonError(reason)
    shape, fortran, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        reason = "it holds pickled Python objects, which can run programs; expected numbers"
        raise ReasonError(reason)
    if min(shape, default=0) < 0:
        reason = f"its header states the negative shape {shape}"
        raise ReasonError(reason)
    return shape, fortran, dtype


def _mask(real: Array, array: Array, count: int) -> npt.NDArray[np.bool_]:
    """Return the mask of elements whose channels are all finite."""
    if real.size == count:
        return real.reshape(count) != 0
    if real.shape == array.shape:
        return (real.reshape(count, -1) != 0).all(axis=1)
    reason = f"expected a mask of {count:,} elements, got shape {real.shape}"
    raise ReasonError(reason)


def _finite(numbers: Array, mask: npt.NDArray[np.bool_] | None, noun: str) -> Numbers:
    with np.errstate(over="ignore"):  # beyond float32 is infinite here
        numbers = numbers.astype(np.float32)
    if mask is not None:
        numbers[~mask] = 0
    wrong = numbers.size - int(np.isfinite(numbers).sum())
    if wrong:
        reason = (
            f"{wrong:,} of its {numbers.size:,} {noun} are nan or infinite and no mask covers them; a .npz may "
            "hold a 'mask' of M booleans beside them, True where an element is real"
        )
        raise ReasonError(reason)
    return numbers


def array_upload_sizes(media: EncodedItem) -> Iterator[UploadSize]:
    """Yield the numbers that the headers of `.npy` and `.npz` state, and those that fit into their size.

    Raises:
        ValueError: If an archive is damaged.
    """
    data = media.data or b""
    if data[:2] != b"PK":
        yield UploadSize(_numbers_of_npy(data), "numbers", "numbers")
        return
    counts: list[float] = []
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for part in archive.infolist():
                with archive.open(part) as file:
                    counts += [_numbers_of_npy(file.read(4096)), part.file_size / _BYTES_PER_NUMBER]
    except Exception as error:  # archives are damaged in as many ways as there are
        raise ValueError(
            f"Cannot read '{media.name}' as arrays: it is damaged or cut off ({error or type(error).__name__})."
        ) from error
    for count in counts:
        yield UploadSize(count, "numbers", "numbers")


def _numbers_of_npy(data: bytes) -> int:
    """Return the count that the header of an array states; 0 if it is none: decoding names the reason."""
    found = re.search(rb"'shape':\s*\(([\d, ]*)\)", data[:4096])
    if not data.startswith(b"\x93NUMPY") or found is None:
        return 0
    return math.prod(int(axis) for axis in found[1].replace(b",", b" ").split())
