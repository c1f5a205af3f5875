"""What an upload may hold at most, looked at before anything of it is decoded."""

import io
import math
import re
import zipfile
from collections.abc import Callable
from typing import Any

from perceivers.data.base import require
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.audio.decode import sound_header
from perceivers.data.modalities.image.decode import read_header
from perceivers.data.modalities.video.container import opened_film, picture_seconds
from perceivers.server.settings import UploadLimits

_BYTES_PER_NUMBER = 8
_SHORTEST_POINT = 6  # bytes of a point in text: `0 0 0` and the end of its line
_CLAIMS = re.compile(rb"element (?:vertex|face) (\d+)")
_OFF_COUNTS = re.compile(rb"\s*(?:(?:ST)?C?N?4?OFF)?\s*(?:#[^\n]*\n\s*)*(\d+)\s+(\d+)")


class TooLargeError(ValueError):
    """More than a limit allows. The message says what, how much and what is allowed."""


def check(kind: str, media: EncodedItem, limits: UploadLimits) -> None:
    """Look at the header of a file, and refuse what is too large to be decoded.

    Args:
        kind: What it is read as: `image`, `audio`, `video`, ...
        media: Its bytes, or a text.
        limits: What is allowed.

    Raises:
        TooLargeError: If it says that it holds more than that.
        ValueError: If its header cannot be read. The message names it and the reason.
    """
    look = _LOOKS.get(kind)
    if look is not None and not media.is_missing:
        look(media, limits)


def _refuse(media: EncodedItem, count: float, unit: str, most: float) -> None:
    """Raise if the count is above the limit."""
    if not count <= most:  # nor is what is no number
        raise TooLargeError(
            f"'{media.name}' holds {count:,.10g} {unit}; at most {most:,.10g} are accepted here. Send a smaller one."
        )


def _picture(media: EncodedItem, limits: UploadLimits) -> None:
    header = read_header(media)
    _refuse(media, header.height * header.width, "pixels", limits.pixels)


def _sound(media: EncodedItem, limits: UploadLimits) -> None:
    seconds = sound_header(media).seconds
    if seconds is not None:  # some streams do not say; the memory of the process is bounded as well
        _refuse(media, seconds, "seconds of sound", limits.seconds)


def _film(media: EncodedItem, limits: UploadLimits) -> None:
    with opened_film(media) as (_, stream):
        codec = stream.codec_context
        _refuse(media, codec.width * codec.height, "pixels in a frame", limits.pixels)
        _refuse(media, picture_seconds(media, stream), "seconds of film", limits.seconds)


def _cloud(media: EncodedItem, limits: UploadLimits) -> None:
    data = media.data or b""
    kind = media.name.rpartition(".")[2].lower()
    if kind in {"npy", "npz"}:
        _array(media, limits)
        return
    claims = [0]
    if kind == "ply":
        claims = [int(claim) for claim in _CLAIMS.findall(data[:4096])]
    elif kind == "off":
        found = _OFF_COUNTS.match(data[:4096])
        claims = [] if found is None else [int(found[1]), int(found[2])]
    elif kind == "stl" and b"facet" not in data[:4096]:
        claims = [int.from_bytes(data[80:84], "little")]
    elif kind == "obj":
        claims = [data.count(b"\nv "), data.count(b"\nf ")]
    elif kind != "glb" and len(data) > _SHORTEST_POINT * limits.points:
        claims = [data.count(b"\n")]
    _refuse(media, max(claims, default=0), "points or triangles", limits.points)


def _text(media: EncodedItem, limits: UploadLimits) -> None:
    text = media.value if media.data is None else media.data
    size = len(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text or b"")
    _refuse(media, size, "bytes of text", limits.characters)


def _recording(media: EncodedItem, limits: UploadLimits) -> None:
    data = media.data or b""
    if data[:4] == b"PAR1":
        reader = require("pyarrow.parquet", "data")
        try:
            told = reader.ParquetFile(io.BytesIO(data)).metadata
        except Exception as error:  # what damaged files raise is the library's choice
            raise ValueError(
                f"Cannot read '{media.name}' as a recording: it is damaged or cut off ({error})."
            ) from error
        groups = (told.row_group(place) for place in range(told.num_row_groups))
        size = sum(group.total_byte_size for group in groups)
        _refuse(media, max(told.num_rows * told.num_columns, 0), "numbers", limits.numbers)
        _refuse(media, size / _BYTES_PER_NUMBER, "numbers", limits.numbers)
        return
    header = data[: data.find(b"\n") + 1]
    cells = 1 + max(header.count(mark) for mark in (b",", b";", b"\t"))
    _refuse(media, data.count(b"\n") * cells, "numbers", limits.numbers)


def _array(media: EncodedItem, limits: UploadLimits) -> None:
    data = media.data or b""
    if data[:2] != b"PK":
        _refuse(media, _numbers_of_npy(data), "numbers", limits.numbers)
        return
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for part in archive.infolist():
                with archive.open(part) as file:
                    count = _numbers_of_npy(file.read(4096))
                _refuse(media, count, "numbers", limits.numbers)
                size = part.file_size / _BYTES_PER_NUMBER
                _refuse(media, size, "numbers", limits.numbers)
    except TooLargeError:
        raise
    except Exception as error:  # archives are damaged in as many ways as there are
        raise ValueError(
            f"Cannot read '{media.name}' as arrays: it is damaged or cut off ({error or type(error).__name__})."
        ) from error


def _numbers_of_npy(data: bytes) -> int:
    """Return how many numbers the header of an array claims. 0 if it is none: reading it says why."""
    found = re.search(rb"'shape':\s*\(([\d, ]*)\)", data[:4096])
    if not data.startswith(b"\x93NUMPY") or found is None:
        return 0
    return math.prod(int(axis) for axis in found[1].replace(b",", b" ").split())


_LOOKS: dict[str, Callable[[Any, UploadLimits], None]] = {
    "image": _picture,
    "frame_pair": _picture,
    "audio": _sound,
    "video": _film,
    "points": _cloud,
    "text": _text,
    "series": _recording,
    "array": _array,
}
