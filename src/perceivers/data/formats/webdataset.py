"""WebDataset shards: tar files whose members of one key, `cat_1.jpg` and `cat_1.cls`, are one row."""

import copy
import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path, PurePosixPath
from typing import Any, cast

from perceivers.data.base import is_hidden
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.formats.remote import Location, open_binary
from perceivers.data.registry import kind_of_name, media_kinds
from perceivers.data.tables.table import Field, Table, infer_field, plain

_TEXT_SUFFIXES = frozenset({"cls", "json", "txt", "text"})
_PLAIN = ("text", "array", "series")  # kinds of values that need no file
_BLOCK = 512  # block size of tar files; a block of zeros is the end
_LONG = 100  # characters from which a .txt is a caption instead of a class name


class TarTable(Table):
    """One tar file, read by index: its headers are read once, its files on demand.

    Args:
        path: The file, not compressed: a compressed one must be read from its beginning.

    Raises:
        ValueError: If the file is not a tar file or is cut off, or a member cannot be parsed.
        OSError: If it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        self.folder = path.parent
        rows: dict[str, tuple[dict[str, _Member], dict[str, bytes]]] = {}
        for key, cells, texts in _keys(path, 0, ()):
            known = rows.setdefault(key, ({}, {}))
            known[0].update(cells)
            known[1].update(texts)
        self.keys = list(rows)
        members = [cells for cells, _ in rows.values()]
        scalars = [_parse_texts(texts, self._where(key)) for key, (_, texts) in rows.items()]
        media = dict.fromkeys(c for row in members for c in row)
        others = dict.fromkeys(c for row in scalars for c in row)
        self._members = {c: [row.get(c) for row in members] for c in media}
        self._scalars = {c: [row.get(c) for row in scalars] for c in others if c not in media}
        self.fields = {
            **{c: kind_of_members(cells) for c, cells in self._members.items()},
            **{c: infer_text_field(cells) for c, cells in self._scalars.items()},
        }

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self.keys)

    def row(self, index: int) -> dict[str, Any]:
        """Return one row; files are read from the archive."""
        cells: dict[str, Any] = {}
        for column, held in self.fields.items():
            if column in self._scalars:
                cells[column] = text_cell(held, self._scalars[column][index], self.where(index))
            elif (member := self._members[column][index]) is None:
                cells[column] = EncodedItem(self.where(index))
            else:
                name, offset, size = member
                with self.path.open("rb") as file:
                    file.seek(offset)
                    data = file.read(size)
                cells[column] = EncodedItem(f"{self.path}/{printable_name(name)}", data=data)
        return cells

    def column(self, name: str) -> list[Any]:
        """Return the values of one column; of files, the names of the members."""
        if name in self._scalars:
            return [plain(cell) for cell in self._scalars[name]]
        return [None if member is None else member[0] for member in self._members[name]]

    def keep(self, fields: Mapping[str, Field]) -> "TarTable":
        """Return the table with these columns only."""
        other = copy.copy(self)
        other._members = {c: cells for c, cells in self._members.items() if c in fields}
        other._scalars = {c: cells for c, cells in self._scalars.items() if c in fields}
        other.fields = dict(fields)
        return other

    def where(self, index: int) -> str:
        """Return the name of a row in messages."""
        return self._where(self.keys[index])

    def _where(self, key: str) -> str:
        return f"{self.path}, key '{printable_name(key)}'"


_Member = tuple[str, int, int]
"""Name, offset and size of a file in an archive."""


def tar_rows(
    path: Location, start: int = 0, columns: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a tar file whose members of one key are adjacent, from number `start` on.

    Files are read for the named columns. In others, a cell is the member's name, offset and size.

    Raises:
        ValueError: If the file is not a tar file or is cut off, or a member cannot be parsed.
        OSError: If it cannot be read.
    """
    for key, cells, texts in _keys(path, start, columns):
        yield {**_parse_texts(texts, f"{path}, key '{printable_name(key)}'"), **cells}


def _keys(
    path: Location, start: int, columns: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any], dict[str, bytes]]]:
    """Yield each group of adjacent members with one key: the key, its cells, and contents of text members by suffix."""
    keyed = groupby(tar_members(path), lambda pair: _split_key(pair[1].name)[0])
    for key, members in islice(keyed, start, None):
        cells: dict[str, Any] = {}
        texts: dict[str, bytes] = {}
        for archive, member in members:
            suffix = _split_key(member.name)[1]
            # A member of an unknown kind is a column too, so that it is seen and listed.
            column = media_column(suffix) or suffix or "file"
            if suffix.rpartition(".")[2] in _TEXT_SUFFIXES:
                texts[suffix] = _content(archive, member)
            elif column in columns:
                name = f"{path}/{printable_name(member.name)}"
                cells[column] = EncodedItem(name, data=_content(archive, member))
            else:
                cells[column] = (member.name, member.offset_data, member.size)
        yield key, cells, texts


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return file.read() if file else b""


def kind_of_members(cells: Iterable[_Member | None]) -> Field:
    """Return the content of a column of files, by the suffixes of their names."""
    kinds = {kind_of_name(cell[0]) or "other" for cell in cells if cell is not None}
    return Field(kinds.pop() if len(kinds) == 1 else "other")


def tar_members(path: Location) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Yield the files in a tar file, in order, with the opened archive. Nothing is ever extracted to the disk.

    Links, devices, sparse and hidden files are skipped. Names of members are never used as paths.

    Args:
        path: A local file, or the address of a remote one, of which only the needed parts are downloaded.

    Raises:
        ValueError: If it is not a tar file, or is cut off.
        OSError: If it cannot be read.
    """
    with open_binary(path) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for member in archive:
                    if member.size < 0 or member.offset_data + member.size > size:
                        raise ValueError(
                            f"{path} is cut off inside '{printable_name(member.name)}': copy or download it again."
                        )
                    # tarfile keeps every header, and a large shard has a million.
                    cast("Any", archive).members = []
                    parts = PurePosixPath(member.name).parts
                    hidden = any(is_hidden(part) for part in parts if part != "..")
                    if member.isreg() and not member.issparse() and not hidden:
                        yield archive, member
                # tarfile treats an unreadable header as the end.
                file.seek(archive.offset)
                if file.read(_BLOCK) != bytes(_BLOCK):
                    raise ValueError(
                        f"{path} is cut off or damaged at byte {archive.offset:,}: expected another file or the mark "
                        "that ends a tar file. Copy or download it again."
                    )
        except tarfile.TarError as error:
            raise ValueError(
                f"{path} cannot be read as tar: {error}. It must be a tar file, complete and not compressed."
            ) from error


def printable_name(name: str) -> str:
    """Return the name of a member without terminal control characters."""
    return "".join(mark if mark.isprintable() else "?" for mark in name)


def infer_text_field(cells: Iterable[Any]) -> Field:
    """Infer the content of a column of .json, .cls and .txt members."""
    return text_field(infer_field(cells))


def text_field(field: Field) -> Field:
    """Return the content of a column of .json, .cls and .txt members, by what its cells seem to be.

    Strings there are never paths: an archive must not decide which local files are read.
    """
    if field.by_path:
        return replace(field, kind="string", by_path=False)
    return field if field.kind not in media_kinds() or field.kind in _PLAIN else Field("other")


def text_cell(field: Field, raw: Any, where: str) -> Any:
    """Return a value of a text member as an `EncodedItem` or a plain value, never as a path."""
    raw = plain(raw)
    return raw if field.kind not in media_kinds() else EncodedItem(where, value=raw)


def _split_key(name: str) -> tuple[str, str]:
    """Return key and suffix of a member: before and after the first dot of its file name."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


def media_column(suffix: str) -> str | None:
    """Return the column of a file: `left` for KEY.left.jpg, else its kind (`image`); None for text members."""
    kind = kind_of_name(f"x.{suffix}")
    name, _, last = suffix.rpartition(".")
    return None if kind is None or last in _TEXT_SUFFIXES else name or kind


def _parse_texts(texts: Mapping[str, bytes], where: str) -> dict[str, Any]:
    """Parse the text members of one key, given by suffix.

    `json` gives a column for each of its names, `cls` gives `label`, and `txt` gives `label` if it is short and
    neither of them does, else `txt`. `NAME.cls` and `NAME.txt` give the column NAME; without another label, the only
    `NAME.cls` gives `label`.
    """
    cells: dict[str, Any] = {}
    classes: list[str] = []
    for suffix, raw in texts.items():
        name, _, kind = suffix.rpartition(".")
        name = suffix if name in media_kinds() else name
        try:
            text = raw.decode()
            parsed = json.loads(text) if kind == "json" else text.strip()
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where}: the member .{suffix} cannot be read: {error}.") from error
        if kind == "json":
            cells |= (
                cast("dict[str, Any]", parsed)
                if isinstance(parsed, dict)
                else {name or "json": parsed}
            )
        elif kind == "cls":
            digits = parsed.removeprefix("-")
            cells[name or "label"] = (
                int(parsed) if digits.isdecimal() and len(digits) < 19 else parsed
            )
            classes += [name] if name else []
        else:
            cells[name or "txt"] = parsed
    if "label" not in cells and len(classes) == 1:
        cells["label"] = cells.pop(classes[0])
    text = cells.get("txt")
    if isinstance(text, str) and "label" not in cells and len(text) <= _LONG and "\n" not in text:
        cells["label"] = cells.pop("txt")
    return cells
