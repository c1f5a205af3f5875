"""Decoded samples stay, in memory or in a folder: films, sounds and shapes are slow to decode and come again."""

import hashlib
import importlib
import io
import json
import shutil
import struct
import zlib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from perceivers.data.base import atomic_write

__all__ = ["DecodedCache", "open_cache", "pack", "unpack"]

_MAGIC = b"PVC1"
_HEAD = struct.Struct("<4sIQ")  # what it is, checksum and length of the rest
_OURS = "perceivers."  # classes that a file may name; a folder that anyone can write to runs nothing else
_RESERVE = 2**30  # bytes of the disk that are left for the run itself
_ASK_AFTER = 64  # values, between two looks at the free space


class DecodedCache:
    """Values of decoded samples by their key.

    In memory, the first values that fit stay: rows come by once in each epoch, so that to replace old ones would
    keep none of them. In a folder there is a file for each value, which all processes and later runs share. A
    file that is damaged counts as missing. If the disk gets full, reading goes on without keeping more.

    Args:
        folder: Where files are put. None: values stay in memory.
        limit_bytes: Memory that values may take. Of no meaning with a folder.
    """

    def __init__(self, folder: Path | None, limit_bytes: int) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.num_bytes = 0  # in memory
        self.is_full = False
        self._held: dict[str, bytes] = {}
        self._puts = 0

    def get(self, key: str) -> Any:
        """Return a copy of the value of a key. None if it was not kept, or its file is damaged."""
        try:
            raw = self._held.get(key) if self.folder is None else self._place(key).read_bytes()
        except OSError:
            return None
        return None if raw is None else unpack(raw, key)

    def put(self, key: str, value: Any) -> None:
        """Keep a value: an array, or a frozen dataclass of arrays, numbers, strings and None.

        Raises:
            TypeError: If it is, or holds, anything else.
        """
        if self.is_full:
            return
        raw = pack(key, value)
        if self.folder is not None:
            self._write(self._place(key), raw)
        elif self.num_bytes + len(raw) > self.limit_bytes:
            self.is_full = True
        elif key not in self._held:
            self._held[key] = raw
            self.num_bytes += len(raw)

    def _place(self, key: str) -> Path:
        name = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
        return cast("Path", self.folder) / name[:2] / f"{name[2:]}.kept"

    def _write(self, path: Path, raw: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if self._puts % _ASK_AFTER == 0 and shutil.disk_usage(path.parent).free < _RESERVE:
                self.is_full = True
                return
            self._puts += 1
            with atomic_write(path, sync=False) as new:
                new.write_bytes(raw)
        except OSError:
            self.is_full = True


def open_cache(folder: Path | None, fingerprint: str, limit_bytes: int) -> DecodedCache:
    """Return a cache.

    Args:
        folder: Where values of all data and settings may be kept, each in a folder of their own. None: in memory.
        fingerprint: All that the decoded values depend on: the path of the data and the configuration of decoding.
        limit_bytes: Memory that values may take where there is no folder.

    Raises:
        OSError: If the folder cannot be made.
    """
    if folder is None:
        return DecodedCache(None, limit_bytes)
    inside = folder.expanduser() / hashlib.blake2b(fingerprint.encode(), digest_size=8).hexdigest()
    try:
        inside.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"The folder '{folder}' for decoded samples cannot be made: {error.strerror}. Choose another --cache."
        raise type(error)(msg) from error
    return DecodedCache(inside, limit_bytes)


def pack(key: str, value: Any) -> bytes:
    """Return a value as bytes that `unpack` reads: nothing is pickled, so that reading them runs no code.

    Args:
        key: Of the value.
        value: An array, or a frozen dataclass of arrays, numbers, strings, None and tuples of these.

    Raises:
        TypeError: If it is, or holds, anything else.
    """
    arrays: list[npt.NDArray[Any]] = []
    told = json.dumps({"key": key, "value": _told(value, arrays)}).encode()
    body = io.BytesIO()
    body.write(struct.pack("<I", len(told)))
    body.write(told)
    for array in arrays:
        np.lib.format.write_array(body, array, allow_pickle=False)
    content = body.getvalue()
    return _HEAD.pack(_MAGIC, zlib.crc32(content), len(content)) + content


def unpack(raw: bytes, key: str) -> Any:
    """Return the value that `pack` wrote under this key. None if the bytes are damaged or something else."""
    try:
        magic, checksum, length = _HEAD.unpack_from(raw)
        content = memoryview(raw)[_HEAD.size :]
        if magic != _MAGIC or len(content) != length or zlib.crc32(content) != checksum:
            return None
        body = io.BytesIO(content)
        (size,) = struct.unpack("<I", body.read(4))
        told = json.loads(body.read(size))
        return _made(told["value"], body) if told["key"] == key else None
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, ImportError):
        return None  # written by another version, or nothing of ours


def _told(value: Any, arrays: list[npt.NDArray[Any]]) -> Any:
    """Return a value as JSON, its arrays put aside in their order."""
    if value is None or isinstance(value, str | int | float):  # bool is an int
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        array = cast("npt.NDArray[Any]", value)
        if array.dtype.hasobject:
            msg = f"Expected an array of numbers to keep, got one of {array.dtype}."
            raise TypeError(msg)
        arrays.append(array)
        return {"array": len(arrays) - 1}
    if isinstance(value, tuple):
        return {"tuple": [_told(part, arrays) for part in cast("tuple[Any, ...]", value)]}
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        parts = {one.name: _told(getattr(value, one.name), arrays) for one in fields(value)}
        return {"class": [kind.__module__, kind.__qualname__], "fields": parts}
    msg = (
        "Expected an array, or a frozen dataclass of arrays, numbers, strings and None to keep, got "
        f"{type(value).__name__}."
    )
    raise TypeError(msg)


def _made(told: Any, body: io.BytesIO) -> Any:
    """Return the value that JSON tells; its arrays follow in `body` in the same order."""
    if not isinstance(told, dict):
        return told
    parts = cast("dict[str, Any]", told)
    if "array" in parts:
        return np.lib.format.read_array(body, allow_pickle=False)
    if "tuple" in parts:
        return tuple(_made(part, body) for part in parts["tuple"])
    module, name = parts["class"]
    kind = getattr(importlib.import_module(module), name) if module.startswith(_OURS) else None
    if not is_dataclass(kind):
        msg = f"{module}.{name} is no class of values that are kept."
        raise ValueError(msg)
    return cast("Any", kind)(**{key: _made(part, body) for key, part in parts["fields"].items()})
