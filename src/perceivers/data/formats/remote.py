"""Data that lie elsewhere: `s3://`, `https://`, `memory://`, ... paths, opened and expanded through fsspec."""

import io
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, cast
from urllib.parse import urlsplit

from perceivers.data.base import require

Location = Path | str
"""A local file, or the address of a remote one."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(::[A-Za-z0-9+.:/-]+)?://")
_BLOCK = (
    2**20
)  # bytes that are fetched at a time: reading goes forward, and small members share a request


def is_remote(text: Any) -> bool:
    """Tell whether this is the address of something that fsspec opens: `s3://bucket/train.tar`."""
    return isinstance(text, str) and _SCHEME.match(text) is not None


def suffix_of(location: Location) -> str:
    """Return the suffix of a file's name in lower case, `.tar`. What stands behind `?` in an address is no part."""
    return _path_of(location).suffix.lower()


def folder_of(location: Location) -> Path:
    """Return what relative paths in a local file are relative to. A remote one has no folder here."""
    return location.parent if isinstance(location, Path) else Path()


def join_remote(address: str, name: str) -> str:
    """Return the address of a file that is named relative to the folder of `address`, or by an address itself."""
    return name if is_remote(name) else f"{address.rpartition('/')[0]}/{name.lstrip('/')}"


def open_binary(location: Location) -> Any:
    """Return an opened file, local or remote, that can be read from any place.

    Raises:
        OSError: If it is missing or cannot be reached. The message names it.
    """
    return location.open("rb") if isinstance(location, Path) else open_remote(location)


def open_remote(address: str) -> Any:
    """Return a remote file. What is read is fetched by ranges of bytes; a server without these gives it whole.

    Raises:
        ImportError: If fsspec, or what it needs for this kind of address, is not installed.
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
    except (
        Exception
    ) as error:  # each kind of storage has its own errors: no network, no permission, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise OSError(f"'{address}' cannot be read: {reason[:300]}.") from error


def expand_remote(text: str) -> list[str]:
    """Return the addresses that a remote address, glob, brace pattern or folder stands for, sorted in each part.

    Raises:
        FileNotFoundError: If there are none.
        OSError: If the storage cannot be asked.
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
    """A fetched file that goes with its last reader, some of which never close it."""

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
    except Exception as error:  # an unknown kind of address, settings that are missing
        raise OSError(f"'{address}' cannot be opened: {' '.join(str(error).split())}.") from error
    return files, str(path)


def _fetched(files: Any, path: str) -> Any:
    """Return a file that is fetched whole, into memory while it is small and onto the disk if it is not."""
    copy = _Copy(max_size=64 * _BLOCK)
    with files.open(path, "rb", block_size=0) as file:
        shutil.copyfileobj(file, copy, _BLOCK)
    copy.seek(0, io.SEEK_SET)
    return copy
