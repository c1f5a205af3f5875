"""PNG files of three channels with 16 bit each, which Pillow reads as 8."""

import struct
import zlib

import numpy as np
import numpy.typing as npt

_HEADER = struct.Struct(">IIBBBBB")
_PIXEL = 6  # bytes
_MOST = 2**27  # pixels; a header that says more is damaged

Bytes = npt.NDArray[np.int16]  # wide enough for sums and differences of bytes


def read_deep_png(data: bytes, name: str) -> npt.NDArray[np.uint16]:
    """Return the pixels of a PNG, Y x X x 3.

    Args:
        data: The file.
        name: Of the file, for messages.

    Raises:
        ValueError: If it has another depth or other channels, is interlaced, or is damaged.

    Source: W3C, Portable Network Graphics (third edition), sections 5, 9 and 10.
    """
    chunks = _chunks(data, name)
    if len(chunks.get(b"IHDR", b"")) != _HEADER.size:
        raise ValueError(f"'{name}' is no PNG: it has no head.")
    width, height, depth, color, _, _, interlaced = _HEADER.unpack(chunks[b"IHDR"])
    if (depth, color, interlaced) != (16, 2, 0):
        raise ValueError(
            f"'{name}' is no flow: expected a PNG of 16 bit and three channels, not interlaced, as KITTI's; got "
            f"{depth} bit, color type {color}{', interlaced' if interlaced else ''}."
        )
    if not 0 < width * height <= _MOST:
        raise ValueError(
            f"'{name}' says that it is {width} pixels wide and {height} high: its head is damaged."
        )
    length = height * (1 + _PIXEL * width)
    unpacker = zlib.decompressobj()
    try:
        raw = unpacker.decompress(chunks.get(b"IDAT", b""), length)
    except zlib.error as error:
        raise ValueError(f"'{name}' is damaged: {error}.") from error
    if len(raw) < length:
        raise ValueError(
            f"'{name}' is cut off: {len(raw):,} of {length:,} bytes of its pixels are there."
        )
    rows = np.frombuffer(raw, dtype=np.uint8).reshape(height, 1 + _PIXEL * width)
    if rows[:, 0].max() > 4:
        raise ValueError(
            f"'{name}' is damaged: a row has the filter {rows[:, 0].max()}, of which there are 0 to 4."
        )
    filtered = rows[:, 1:].reshape(height, width, _PIXEL)
    return _unfiltered(rows[:, 0], filtered).view(">u2").astype(np.uint16)


def _chunks(data: bytes, name: str) -> dict[bytes, bytes]:
    """Return the parts of a file by their names, those of one name joined."""
    found: dict[bytes, bytes] = {}
    place = 8
    while place + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind = data[place + 4 : place + 8]
        part = data[place + 8 : place + 8 + length]
        if len(part) < length:
            raise ValueError(
                f"'{name}' is cut off: its part {kind.decode('latin1')} has {len(part)} of {length} bytes."
            )
        found[kind] = found.get(kind, b"") + part
        if kind == b"IEND":
            break
        place += 12 + length
    return found


def _unfiltered(
    filters: npt.NDArray[np.uint8], filtered: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """Return the bytes of the pixels, Y x X x 6.

    Each byte was stored as its difference from what its neighbors to the left, above and between foretell. All pixels
    of one diagonal need only those of the two before it, so they are done at once.
    """
    height, width, _ = filtered.shape
    values = np.zeros(
        (height + 1, width + 1, _PIXEL), dtype=np.int16
    )  # zeros lie beyond the border
    for diagonal in range(height + width - 1):
        rows = np.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
        columns = diagonal - rows
        left, above = values[rows + 1, columns], values[rows, columns + 1]
        foretold = _foretold(filters[rows, None], left, above, values[rows, columns])
        values[rows + 1, columns + 1] = (filtered[rows, columns] + foretold) & 255
    return np.ascontiguousarray(values[1:, 1:].astype(np.uint8))


def _foretold(kinds: npt.NDArray[np.uint8], left: Bytes, above: Bytes, corner: Bytes) -> Bytes:
    """Return what each byte's neighbors say of it: nothing, the left, the upper, their mean, or Paeth's choice."""
    guess = left + above - corner
    far_left, far_above, far_corner = (abs(guess - one) for one in (left, above, corner))
    nearest = np.where(far_above <= far_corner, above, corner)
    nearest = np.where((far_left <= far_above) & (far_left <= far_corner), left, nearest)
    return np.select(
        [kinds == 1, kinds == 2, kinds == 3, kinds == 4],
        [left, above, (left + above) // 2, nearest],
        np.zeros_like(left),
    )
