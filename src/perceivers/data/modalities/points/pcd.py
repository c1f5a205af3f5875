"""PCD, the format of the Point Cloud Library: ascii, binary and binary_compressed.

Reference:
    https://pointclouds.org/documentation/tutorials/pcd_file_format.html
    LZF: http://oldhome.schmorp.de/marc/liblzf.html
"""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from perceivers.data.modalities.array.decode import MAX_BYTES, ReasonError

_TYPES = {"F": "f", "I": "i", "U": "u"}
_SIZES = {"F": (4, 8), "I": (1, 2, 4, 8), "U": (1, 2, 4, 8)}
_NORMALS = ("normal_x", "normal_y", "normal_z")
_LONGEST_HEADER = 1 << 16
_MOST_VALUES = 4096  # of one field of one point


@dataclass(frozen=True, slots=True)
class PcdHeader:
    """Header of a PCD file.

    Attributes:
        dtype: Type of a point, a field for each of the file's.
        count: Number of points.
        encoding: `ascii`, `binary` or `binary_compressed`.
        start: Position of the first byte after the header.
    """

    dtype: np.dtype[Any]
    count: int
    encoding: str
    start: int


def read_pcd_header(data: bytes) -> PcdHeader:
    """Return the header of a PCD file.

    Raises:
        ReasonError: If it is incomplete or contradicts itself.
    """
    words: dict[str, list[str]] = {}
    place = 0
    while "DATA" not in words:
        end = data.find(b"\n", place, _LONGEST_HEADER)
        if end < 0:
            reason = "its header does not end with a line DATA"
            raise ReasonError(reason)
        line = data[place:end].decode("ascii", errors="replace").partition("#")[0].split()
        place = end + 1
        if line:
            words[line[0].upper()] = line[1:]
    names = words.get("FIELDS") or words.get("COLUMNS") or []
    try:
        sizes = [int(word) for word in words.get("SIZE", ["4"] * len(names))]
        counts = [int(word) for word in words.get("COUNT", ["1"] * len(names))]
        axes = [int(words[key][0]) for key in ("WIDTH", "HEIGHT") if key in words]
        count = int(words["POINTS"][0]) if "POINTS" in words else math.prod(axes or [0])
    except (ValueError, IndexError):
        reason = "its header holds a size, a count or a number of points that is no whole number"
        raise ReasonError(reason) from None
    types = [word.upper() for word in words.get("TYPE", ["F"] * len(names))]
    known = all(size in _SIZES.get(kind, ()) for kind, size in zip(types, sizes, strict=False))
    fits = len(names) == len(sizes) == len(types) == len(counts)
    if not (known and fits and all(0 < n <= _MOST_VALUES for n in counts)) or count < 0:
        reason = "its header names fields, sizes, types and counts that do not fit each other"
        raise ReasonError(reason)
    parts: list[Any] = []
    for index, (name, kind, size, number) in enumerate(
        zip(names, types, sizes, counts, strict=True)
    ):
        unique = name if names.count(name) == 1 and name != "_" else f"{name}{index}"
        parts.append((unique, f"<{_TYPES[kind]}{size}", (number,)))
    encoding = (words["DATA"] or [""])[0].lower()
    return PcdHeader(np.dtype(parts), count, encoding, place)


def read_pcd(data: bytes) -> npt.NDArray[np.float64]:
    """Return the points of a PCD file: x, y, z, then colors in [0, 1], normals and the intensity, if it has them.

    Points without coordinates (nan) are left out: a depth camera writes one for each pixel.

    Raises:
        ReasonError: If it is damaged, or lacks a coordinate.
    """
    header = read_pcd_header(data)
    body = data[header.start :]
    if header.count * header.dtype.itemsize > MAX_BYTES:
        reason = f"it claims {header.count:,} points of {header.dtype.itemsize} bytes"
        raise ReasonError(reason)
    if header.encoding == "ascii":
        fields = _ascii(body, header)
    elif header.encoding == "binary":
        fields = _binary(body, header)
    elif header.encoding == "binary_compressed":
        fields = _compressed(body, header)
    else:
        reason = f"its data are '{header.encoding}': expected ascii, binary or binary_compressed"
        raise ReasonError(reason)
    missing = [axis for axis in "xyz" if axis not in fields]
    if missing:
        reason = f"it has no field '{missing[0]}'; its fields are {', '.join(fields)}"
        raise ReasonError(reason)
    columns = [fields[axis][:, :1].astype(np.float64) for axis in "xyz"]
    packed = fields.get("rgb", fields.get("rgba"))
    if packed is not None and packed.dtype.itemsize == 4:
        columns.append(_colors(packed[:, 0]))
    if all(name in fields for name in _NORMALS):
        columns += [fields[name][:, :1].astype(np.float64) for name in _NORMALS]
    if "intensity" in fields:
        columns.append(fields["intensity"][:, :1].astype(np.float64))
    points = np.concatenate(columns, axis=1)
    return points[~np.isnan(points[:, :3]).any(axis=1)]


def _colors(packed: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return red, green and blue in [0, 1] of colors that are packed into 4 bytes, possibly as a float."""
    whole = np.ascontiguousarray(packed).view("<u4") if packed.dtype.kind == "f" else packed
    whole = whole.astype(np.int64)
    return np.stack([whole >> 16 & 255, whole >> 8 & 255, whole & 255], axis=1) / 255


def _ascii(body: bytes, header: PcdHeader) -> Mapping[str, npt.NDArray[Any]]:
    names = header.dtype.names or ()
    shapes = {name: header.dtype[name].shape[0] for name in names}
    numbers = np.loadtxt(io.BytesIO(body), dtype=np.float64, ndmin=2, comments="#")
    if numbers.size and numbers.shape != (header.count, sum(shapes.values())):
        reason = (
            f"its header promises {header.count:,} points of {sum(shapes.values())} numbers, got "
            f"{numbers.shape[0]:,} of {numbers.shape[1]}"
        )
        raise ReasonError(reason)
    found: dict[str, npt.NDArray[Any]] = {}
    place = 0
    for name in names:
        column = numbers[:, place : place + shapes[name]]
        place += shapes[name]
        is_packed = name in {"rgb", "rgba"}
        found[name] = column.astype(header.dtype[name].base) if is_packed else column
    return found


def _binary(body: bytes, header: PcdHeader) -> Mapping[str, npt.NDArray[Any]]:
    _check_length(len(body), header)
    records = np.frombuffer(body, dtype=header.dtype, count=header.count)
    return {name: records[name] for name in header.dtype.names or ()}


def _compressed(body: bytes, header: PcdHeader) -> Mapping[str, npt.NDArray[Any]]:
    """Return the fields of compressed data, which hold all values of a field together."""
    packed, size = (int.from_bytes(body[i : i + 4], "little") for i in (0, 4))
    if packed > len(body) - 8 or size != header.count * header.dtype.itemsize:
        reason = f"its header promises {packed:,} compressed bytes of {header.count:,} points, which do not fit"
        raise ReasonError(reason)
    plain = _lzf(body[8 : 8 + packed], size)
    _check_length(len(plain), header)
    found: dict[str, npt.NDArray[Any]] = {}
    place = 0
    for name in header.dtype.names or ():
        base, (number,) = header.dtype[name].base, header.dtype[name].shape
        values = np.frombuffer(plain, dtype=base, count=header.count * number, offset=place)
        found[name] = values.reshape(header.count, number)
        place += values.nbytes
    return found


def _check_length(there: int, header: PcdHeader) -> None:
    promised = header.count * header.dtype.itemsize
    if there < promised:
        reason = f"its header promises {promised:,} bytes of points, {there:,} are there; it is damaged or cut off"
        raise ReasonError(reason)


def _lzf(data: bytes, size: int) -> bytes:
    """Decompress LZF, up to a size.

    Raises:
        ReasonError: If the data refer to bytes before their beginning, or hold more than the size.
    """
    out = bytearray()
    place = 0
    while place < len(data) and len(out) <= size:
        control = data[place]
        place += 1
        if control < 32:  # so many bytes as they are
            out += data[place : place + control + 1]
            place += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += data[place] if place < len(data) else 0
            place += 1
        offset = (control & 31) << 8 | (data[place] if place < len(data) else 0)
        place += 1
        begin, length = len(out) - offset - 1, length + 2
        if begin < 0:
            reason = "its compressed data are damaged"
            raise ReasonError(reason)
        while length > 0:  # a copy may repeat what it writes
            piece = out[begin : begin + length]
            out += piece
            begin += len(piece)
            length -= len(piece)
    if len(out) != size:
        reason = f"its compressed data hold {len(out):,} bytes instead of {size:,}"
        raise ReasonError(reason)
    return bytes(out)
