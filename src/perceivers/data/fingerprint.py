"""Fingerprints of files, rows and weights, by which finished work is recognized.

Two values have the same fingerprint if their contents are the same, whatever they are called and wherever they are
stored. A file that must not be read in full can be identified by path, size and times instead: nearly every change of
its content in place alters these, but a copy does, too.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, cast, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from perceivers.data.encoded_item import EncodedItem
from perceivers.typing import Tensor

By = Literal["content", "stat", "ctime"]
"""Identity of a file.

- `content`: all of its bytes.
- `stat`: path, size and modification time, without reading the file.
- `ctime`: these and the time of the last change of its inode, which no program can set back. Also a new mode or a copy
  alters it, so it is for caches, where a needless difference costs little.
"""

_CHUNK = 2**20
_DIGEST_BYTES = 16


@runtime_checkable
class _Hash(Protocol):
    def update(self, data: Any, /) -> None:
        """Add bytes."""


def bytes_fingerprint(*parts: bytes) -> str:
    """Return the fingerprint of bytes."""
    found = _new()
    for part in parts:
        _add(found, part, "content")
    return found.hexdigest()


def value_fingerprint(value: Any, *, by: By = "content") -> str:
    """Return the fingerprint of a cell or a row: an `EncodedItem`, array, text, number, or a list or mapping of these.

    The order of a mapping does not matter. Names of encoded items, which are for messages only, are ignored, except
    those of files that cannot be read.

    Args:
        value: The value. Anything else is identified by its `repr`.
        by: Identity of files: see `By`.
    """
    found = _new()
    _add(found, value, by)
    return found.hexdigest()


class RowsFingerprint:
    """Fingerprint of rows in their order, to which rows are added one by one. Arguments: see `value_fingerprint`."""

    def __init__(self, *, by: By = "content") -> None:
        self._hash = _new()
        self._by: By = by

    def add(self, row: Any) -> None:
        """Add a row: its cells by column."""
        _add(self._hash, row, self._by)

    def hexdigest(self) -> str:
        """Return the fingerprint of the rows that were added."""
        return self._hash.hexdigest()


def rows_fingerprint(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the fingerprint of rows in their order."""
    found = RowsFingerprint()
    for row in rows:
        found.add(row)
    return found.hexdigest()


def weights_fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Return the fingerprint of the parameters and buffers of a model: names, types, shapes and values."""
    found = _new()
    for name in sorted(weights):
        weight = weights[name].detach().contiguous().cpu()
        _add(found, [name, str(weight.dtype), list(weight.shape)], "content")
        found.update(weight.flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _new() -> "hashlib.blake2b":
    return hashlib.blake2b(digest_size=_DIGEST_BYTES)


def _add(found: _Hash, value: Any, by: By) -> None:
    """Add a value to a hash, with its type and size, so that no two values give the same bytes."""
    if isinstance(value, EncodedItem):
        _add_item(found, value, by)
    elif isinstance(value, np.ndarray):
        _add_array(found, cast("npt.NDArray[Any]", value), by)
    elif isinstance(value, bytes | bytearray | memoryview):
        _add_bytes(found, "bytes", bytes(value))
    elif isinstance(value, str):
        _add_bytes(found, "str", value.encode("utf-8", "surrogatepass"))
    elif isinstance(value, Mapping):
        parts = cast("Mapping[Any, Any]", value)
        _tag(found, "mapping", len(parts))
        for key in sorted(parts, key=str):
            _add(found, [str(key), parts[key]], by)
    elif isinstance(value, list | tuple):
        items = cast("list[Any]", value)
        _tag(found, "list", len(items))
        for item in items:
            _add(found, item, by)
    else:
        plain = value.item() if isinstance(value, np.generic) else value
        _tag(found, type(plain).__name__, repr(plain))


def _add_array(found: _Hash, array: npt.NDArray[Any], by: By) -> None:
    _tag(found, "array", f"{array.dtype.str}{array.shape}")
    if array.dtype.hasobject:
        _add(found, array.tolist(), by)
    else:
        found.update(np.ascontiguousarray(array).tobytes())


def _add_bytes(found: _Hash, kind: str, raw: bytes) -> None:
    _tag(found, kind, len(raw))
    found.update(raw)


def _add_item(found: _Hash, item: EncodedItem, by: By) -> None:
    if item.path is None:
        # A file in a table and the same file on the disk have one fingerprint.
        _add(
            found, next((v for v in (item.data, item.array, item.value) if v is not None), None), by
        )
        return
    try:
        _add_file(found, item.path, by)
    except OSError:
        _tag(found, "unreadable", repr(str(item.path)))


def _add_file(found: _Hash, path: Path, by: By) -> None:
    if by != "content":
        about = path.stat()
        changed = about.st_ctime_ns if by == "ctime" else ""
        # Files of one archive often have one size and one time, so that these alone do not tell them apart.
        _tag(found, by, f"{path.absolute()} {about.st_size} {about.st_mtime_ns} {changed}")
        return
    with path.open("rb") as file:
        _tag(found, "bytes", path.stat().st_size)
        while chunk := file.read(_CHUNK):
            found.update(chunk)


def _tag(found: _Hash, kind: str, about: object) -> None:
    found.update(f"\0{kind} {about}\0".encode("utf-8", "surrogatepass"))
