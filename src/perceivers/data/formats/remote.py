"""Remote data: `s3://`, `https://`, `memory://`, ... addresses, opened and expanded through fsspec."""

import io
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, cast
from urllib.parse import urlsplit

from perceivers.data.base import open_regular
from perceivers.optional import require

Location = Path | str
"""Path of a local file, or address of a remote one."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(::[A-Za-z0-9+.:/-]+)?://")
_BLOCK = 2**20  # bytes per request: files are read forward, and small members share a request


def is_remote(text: Any) -> bool:
    """Return True for an address that fsspec opens, such as `s3://bucket/train.tar`."""
    return isinstance(text, str) and _SCHEME.match(text) is not None


def suffix_of(location: Location) -> str:
    """Return the lower-case suffix of a file name, `.tar`, without the query of an address."""
    return _path_of(location).suffix.lower()


def folder_of(location: Location) -> Path:
    """Return the folder of relative paths in a local file; an empty path for a remote one."""
    return location.parent if isinstance(location, Path) else Path()


def join_remote(address: str, name: str) -> str:
    """Return the address of a file named relative to the folder of `address`, or by its own address."""
    return name if is_remote(name) else f"{address.rpartition('/')[0]}/{name.lstrip('/')}"


def open_binary(location: Location) -> Any:
    """Open a local or remote file for reading, seekable.

    Raises:
        OSError: If it is missing or cannot be reached. The message names it.
    """
    return open_regular(location) if isinstance(location, Path) else open_remote(location)


def open_remote(address: str) -> Any:
    """Open a remote file. Ranges are downloaded on demand, or the whole file from a server without ranges.

    Raises:
        ImportError: If fsspec, or its backend for this kind of address, is not installed.
        OSError: If it is missing or cannot be reached. The message names it.
    """
    files, path = _filesystem(address)
    try:
        file = files.open(path, "rb", block_size=_BLOCK, cache_type="readahead")
        if not address.startswith(("http://", "https://")):
            return file
        if hasattr(file, "cache"):
            try:
                file.seek(max(0, (file.size or 0) - 1))
                file.read(1)
                file.seek(0)
                return file
            except ValueError:  # the server ignores ranges
                file.close()
        return _fetched(files, path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"'{address}' does not exist or cannot be reached. Check the address."
        ) from error
    except Exception as error:  # storage backends raise their own: no network, no permission, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise OSError(f"'{address}' cannot be read: {reason[:300]}.") from error


def remote_version(address: str) -> str:
    """Return the size, time and hash that the storage reports for a remote file, as text.

    Raises:
        OSError: If it is missing or cannot be reached. The message names it.
    """
    files, path = _filesystem(address)
    try:
        about = cast("dict[str, Any]", files.info(path))
    except Exception as error:  # storage backends raise their own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise OSError(f"'{address}' cannot be read: {reason[:300]}.") from error
    return repr(sorted((key, repr(value)) for key, value in about.items()))


def expand_remote(text: str) -> list[str]:
    """Return the addresses that match a remote address, glob, brace pattern or folder, sorted in each part.

    Raises:
        FileNotFoundError: If there are none.
        OSError: If the storage cannot be listed.
    """
    found: list[str] = []
    for one in expand_braces(text):
        if _path_of(one).suffix and not any(mark in one for mark in "*["):
            found.append(one)
            continue
        files, path = _filesystem(one)
        try:
            names = files.glob(path if "*" in path or "[" in path else f"{path.rstrip('/')}/*")
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise OSError(
                f"'{one}' cannot be listed: {reason[:300]}. Name the files, or use a pattern such as {{000..012}}."
            ) from error
        found += sorted(files.unstrip_protocol(name) for name in cast("Sequence[str]", names))
    if not found:
        raise FileNotFoundError(
            f"No file matches '{text}'. Put the pattern in quotes, and check its folder."
        )
    return list(dict.fromkeys(found))


def expand_braces(text: str) -> list[str]:
    """Expand `{000..012}` and `{a,b}` as a shell does."""
    match = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", text)
    if match is None:
        return [text]
    first, last, several = match.groups()
    if several is None:
        width = len(first) if first.startswith("0") or len(first) == len(last) else 0
        pieces = [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]
    else:
        pieces = several.split(",")
    before, after = text[: match.start()], expand_braces(text[match.end() :])
    return [f"{before}{piece}{rest}" for piece in pieces for rest in after]


class _Copy(tempfile.SpooledTemporaryFile[bytes]):
    """A downloaded file that is deleted with its last reader, even if that never closes it."""

    def __del__(self) -> None:
        self.close()


def _path_of(location: Location) -> Path | PurePosixPath:
    if isinstance(location, Path):
        return location
    is_web = location.startswith(("http://", "https://"))
    return PurePosixPath(urlsplit(location).path if is_web else location)


def _filesystem(address: str) -> tuple[Any, str]:
    fsspec = require("fsspec.core", "data")
    try:
        files, path = fsspec.url_to_fs(address)
    except ImportError:
        raise
    except Exception as error:  # an unknown kind of address, missing settings
        raise OSError(f"'{address}' cannot be opened: {' '.join(str(error).split())}.") from error
    return files, str(path)


def _fetched(files: Any, path: str) -> Any:
    """Download a file completely, a small one into memory, else onto the disk."""
    copy = _Copy(max_size=64 * _BLOCK)
    with files.open(path, "rb", block_size=0) as file:
        shutil.copyfileobj(file, copy, _BLOCK)
    copy.seek(0, io.SEEK_SET)
    return copy
