"""Caches of decoded samples: small images in shared memory, other values in memory or in a folder."""

import hashlib
import importlib
import json
import mmap
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from perceivers.data.base import MapStyleSplit, atomic_write
from perceivers.data.modalities.image.decode import read_header
from perceivers.data.registry import PREPROCESS

_DESCRIPTION = "description"  # name of the array that holds the JSON
_RESERVED_BYTES = 2**30  # of the disk, left for the run
_CHECK_EVERY = 64  # writes between two checks of the free space
_TRIED = 10  # rows of which one has a readable size


class ImageCache:
    """Decoded images of one size by row, in memory that forked workers share.

    The operating system allocates the memory page by page, when it is written.
    """

    def __init__(self, num_rows: int, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        size = num_rows * int(np.prod(shape))
        memory = np.frombuffer(mmap.mmap(-1, size + num_rows), dtype=np.uint8)
        self._pixels = memory[:size].reshape(num_rows, *shape)
        self._known = memory[size:]  # 1 where an image is stored; written after the image

    def get(self, row: int) -> npt.NDArray[np.uint8] | None:
        """Return the image of a row, None if it is not stored."""
        return self._pixels[row] if self._known[row] else None

    def put(self, row: int, pixels: npt.NDArray[np.uint8]) -> None:
        """Store the image of a row, unless it has another shape."""
        if pixels.shape == self.shape:
            self._pixels[row] = pixels
            self._known[row] = 1


def open_image_cache(
    split: MapStyleSplit, column: str, *, num_channels: int, largest: int
) -> ImageCache | None:
    """Return a cache for images of the size of the first readable one, None if it would exceed `largest` bytes."""
    for row in range(min(_TRIED, len(split))):
        try:
            header = read_header(split.row(row)[column])
        except (OSError, ValueError):
            continue
        shape = (header.height, header.width, num_channels)
        fits = len(split) * (int(np.prod(shape)) + 1) <= largest
        return ImageCache(len(split), shape) if fits else None
    return None


class SampleCache:
    """Decoded values by key.

    In memory, the first values that fit stay: an epoch reads every row once, so replacing old values would never hit.
    In a folder each value is a file, shared by all processes and later runs. A damaged file counts as missing. On
    a full disk nothing more is stored.

    Args:
        folder: Folder of the files. None: values stay in memory.
        limit_bytes: Largest memory that values take. Ignored with a folder.
    """

    def __init__(self, folder: Path | None, limit_bytes: int) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.num_bytes = 0  # in memory
        self.is_full = False
        self._held: dict[str, bytes] = {}
        self._writes = 0

    def get(self, key: str) -> Any:
        """Return a copy of the value of a key. None if it is not stored or its file is damaged."""
        try:
            raw = self._held.get(key) if self.folder is None else self._path(key).read_bytes()
        except OSError:
            return None
        return None if raw is None else unpack(raw, key)

    def put(self, key: str, value: Any) -> None:
        """Store a value: an array, or a frozen dataclass of arrays, numbers, strings and None.

        Raises:
            TypeError: If it is, or holds, anything else.
        """
        if self.is_full:
            return
        raw = pack(key, value)
        if self.folder is not None:
            self._write(self._path(key), raw)
        elif self.num_bytes + len(raw) > self.limit_bytes:
            self.is_full = True
        elif key not in self._held:
            self._held[key] = raw
            self.num_bytes += len(raw)

    def _path(self, key: str) -> Path:
        name = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
        return cast("Path", self.folder) / name[:2] / f"{name[2:]}.sample"

    def _write(self, path: Path, raw: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if self._writes % _CHECK_EVERY == 0:
                self.is_full = shutil.disk_usage(path.parent).free < _RESERVED_BYTES
            if not self.is_full:
                self._writes += 1
                with atomic_write(path, sync=False) as new:
                    new.write_bytes(raw)
        except OSError:
            self.is_full = True


def open_cache(folder: Path | None, fingerprint: str, limit_bytes: int) -> SampleCache:
    """Return a cache.

    Args:
        folder: Parent of the folders of each configuration of decoding. None: values stay in memory.
        fingerprint: Everything that decoded values depend on besides the raw cells, which the keys identify.
        limit_bytes: Largest memory that values take if there is no folder.

    Raises:
        OSError: If the folder cannot be made.
    """
    if folder is None:
        return SampleCache(None, limit_bytes)
    inside = folder.expanduser() / hashlib.blake2b(fingerprint.encode(), digest_size=8).hexdigest()
    try:
        inside.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(
            f"The folder '{folder}' for decoded samples cannot be made: {error.strerror}. Choose another --cache."
        ) from error
    return SampleCache(inside, limit_bytes)


def pack(key: str, value: Any) -> bytes:
    """Return a value as bytes: a CRC-32, then safetensors with the arrays and a JSON description of the rest.

    Raises:
        TypeError: If it is, or holds, anything else.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    description = json.dumps({"key": key, "value": _describe(value, arrays)}).encode()
    content = save({**arrays, _DESCRIPTION: np.frombuffer(description, dtype=np.uint8)})
    return zlib.crc32(content).to_bytes(4, "little") + content


def unpack(raw: bytes, key: str) -> Any:
    """Return the value that `pack` wrote under this key, without running code. None if the bytes are damaged."""
    content = raw[4:]
    if zlib.crc32(content) != int.from_bytes(raw[:4], "little"):
        return None
    try:
        arrays = load(content)
        description = json.loads(arrays[_DESCRIPTION].tobytes())
        return _restore(description["value"], arrays) if description["key"] == key else None
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, ImportError):
        return None  # written by another version or program


def _describe(value: Any, arrays: dict[str, npt.NDArray[Any]]) -> Any:
    """Return a value as JSON, its arrays moved into `arrays`."""
    if value is None or isinstance(value, str | int | float):  # bool is an int
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        array = cast("npt.NDArray[Any]", value)
        if array.dtype.kind == "U":
            return {"strings": array.tolist(), "dtype": array.dtype.str}
        if array.dtype.kind not in "biuf":
            raise TypeError(f"Expected an array of numbers to keep, got one of {array.dtype}.")
        arrays[str(len(arrays))] = np.asarray(array, order="C")  # safetensors ignores strides
        return {"array": str(len(arrays) - 1)}
    if isinstance(value, tuple):
        return {"tuple": [_describe(part, arrays) for part in cast("tuple[Any, ...]", value)]}
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        parts = {one.name: _describe(getattr(value, one.name), arrays) for one in fields(value)}
        return {"class": [kind.__module__, kind.__qualname__], "fields": parts}
    raise TypeError(
        "Expected an array, or a frozen dataclass of arrays, numbers, strings and None to keep, got "
        f"{type(value).__name__}."
    )


def _restore(description: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
    """Return the value of a JSON description."""
    if not isinstance(description, dict):
        return description
    parts = cast("dict[str, Any]", description)
    if "array" in parts:
        return arrays[parts["array"]]
    if "strings" in parts:
        return np.array(parts["strings"], dtype=parts["dtype"])
    if "tuple" in parts:
        return tuple(_restore(part, arrays) for part in parts["tuple"])
    module, name = parts["class"]
    # Only dataclasses of packages with registered modalities, so that a file cannot run other code.
    packages = {config_class.__module__.partition(".")[0] for config_class in PREPROCESS}
    is_known = module.partition(".")[0] in packages
    kind = getattr(importlib.import_module(module), name) if is_known else None
    if not is_dataclass(kind):
        raise ValueError(f"{module}.{name} is no dataclass of a package with a modality.")
    values = {key: _restore(part, arrays) for key, part in parts["fields"].items()}
    return cast("Any", kind)(**values)
