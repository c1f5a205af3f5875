"""WebDataset shards: tar files whose members of one key, `cat_1.jpg` and `cat_1.cls`, make one row."""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, cast

from perceivers.data.encoded_item import MEDIA_KINDS, EncodedItem, kind_of_name
from perceivers.data.formats.remote import Location, open_binary
from perceivers.data.tables.table import Field, Table, infer_field, plain

__all__ = [
    "TEXT_SUFFIXES",
    "TarTable",
    "infer_text_field",
    "media_column",
    "parse_members",
    "printable_name",
    "split_key",
    "tar_members",
    "text_cell",
]

TEXT_SUFFIXES = frozenset({"cls", "json", "txt", "text"})
_PLAIN = ("text", "array", "series")  # what a value can be without being a file
_BLOCK = 512  # what a tar file is made of; one of zeros ends it
_LONG = 100  # characters from which a .txt beside a picture is a caption, not the name of its class


class TarTable(Table):
    """One tar file, read by index: its headers are walked once, its media are read where they lie.

    Args:
        path: The file. Not compressed: nothing in a compressed one can be reached without reading all before it.

    Raises:
        ValueError: If the file is no tar file or is cut off, or a member cannot be parsed.
        OSError: If it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        self.folder = path.parent
        self.keys: list[str] = []
        places: list[dict[str, tuple[str, int, int]]] = []
        scalars: list[dict[str, Any]] = []
        for key, row in _index(path):
            self.keys.append(key)
            places.append({c: cell for c, cell in row.items() if isinstance(cell, tuple)})
            scalars.append({c: cell for c, cell in row.items() if not isinstance(cell, tuple)})
        media = dict.fromkeys(c for row in places for c in row)
        others = dict.fromkeys(c for row in scalars for c in row)
        self._places = {c: [row.get(c) for row in places] for c in media}
        self._scalars = {c: [row.get(c) for row in scalars] for c in others if c not in media}
        self.fields: dict[str, Field] = {
            **{c: Field(_kind(cells)) for c, cells in self._places.items()},
            **{c: infer_text_field(cells) for c, cells in self._scalars.items()},
        }

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self.keys)

    def row(self, index: int) -> dict[str, Any]:
        """Return one row; media are read from the archive."""
        cells: dict[str, Any] = {}
        for column in self.fields:
            if column in self._scalars:
                raw = self._scalars[column][index]
                cells[column] = text_cell(self.fields[column], raw, self.where(index))
            else:
                cells[column] = self._read(self._places[column][index], index)
        return cells

    def _read(self, place: tuple[str, int, int] | None, index: int) -> EncodedItem:
        if place is None:
            return EncodedItem(self.where(index))
        member, offset, size = place
        with self.path.open("rb") as file:
            file.seek(offset)
            return EncodedItem(f"{self.path}/{printable_name(member)}", data=file.read(size))

    def column(self, name: str) -> list[Any]:
        """Return the values of one column; of media, the names of the members."""
        if name in self._scalars:
            return [plain(cell) for cell in self._scalars[name]]
        return [None if place is None else place[0] for place in self._places[name]]

    def keep(self, fields: Mapping[str, Field]) -> "TarTable":
        """Return the table with these columns only."""
        other = object.__new__(TarTable)
        other.__dict__.update(self.__dict__)
        other._places = {c: cells for c, cells in self._places.items() if c in fields}
        other._scalars = {c: cells for c, cells in self._scalars.items() if c in fields}
        other.fields = dict(fields)
        return other

    def where(self, index: int) -> str:
        """Return what to call a row in messages."""
        return f"{self.path}, key '{printable_name(self.keys[index])}'"


def tar_members(path: Location) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Yield the files in a tar file, in order, with the opened archive. Nothing is ever unpacked to the disk.

    Links, devices and sparse files are passed over: only what lies in the archive itself is read. Names of
    members are names only, whatever they look like.

    Args:
        path: A local file, or the address of a remote one, of which only what is needed is fetched.

    Raises:
        ValueError: If it is no tar file, or is cut off.
        OSError: If it cannot be read.
    """
    with open_binary(path) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for member in archive:
                    if member.size < 0 or member.offset_data + member.size > size:
                        msg = f"{path} is cut off inside '{printable_name(member.name)}': copy or download it again."
                        raise ValueError(msg)
                    cast(
                        "Any", archive
                    ).members = []  # tarfile keeps every header; a large shard has a million
                    if (
                        member.isreg()
                        and not member.issparse()
                        and not PurePosixPath(member.name).name.startswith(".")
                    ):
                        yield archive, member
                # tarfile takes a header that it cannot read for the end.
                file.seek(archive.offset)
                if file.read(_BLOCK) != bytes(_BLOCK):
                    msg = (
                        f"{path} is cut off or damaged at byte {archive.offset:,}: expected another file or the mark "
                        "that ends a tar file. Copy or download it again."
                    )
                    raise ValueError(msg)
        except tarfile.TarError as error:
            msg = f"{path} cannot be read as tar: {error}. It must be a tar file, complete and not compressed."
            raise ValueError(msg) from error


def printable_name(name: str) -> str:
    """Return the name of a member as it may be printed: without characters that steer a terminal."""
    return "".join(mark if mark.isprintable() else "?" for mark in name)


def infer_text_field(cells: Iterable[Any]) -> Field:
    """Return what a column holds whose values stand in .json, .cls and .txt members.

    What looks like the path of a file there is not one: an archive never says what is read from this disk.
    """
    field = infer_field(cells)
    if field.by_path:
        return replace(field, kind="string", by_path=False)
    return field if field.kind not in MEDIA_KINDS or field.kind in _PLAIN else Field("other")


def text_cell(field: Field, raw: Any, where: str) -> Any:
    """Return a value of such a column as rows hand it on. It never becomes a path."""
    raw = plain(raw)
    return raw if field.kind not in MEDIA_KINDS else EncodedItem(where, value=raw)


def split_key(name: str) -> tuple[str, str]:
    """Return key and suffix of a member: all before and after the first dot of its file name."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


def media_column(suffix: str) -> str | None:
    """Return the column of a member with media: `left` for KEY.left.jpg, else what it holds (`image`)."""
    kind = kind_of_name(f"x.{suffix}")
    name, _, last = suffix.rpartition(".")
    return None if kind is None or last in TEXT_SUFFIXES else name or kind


def _index(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each key with its cells: parsed scalars, and (member, offset, size) for media."""
    rows: dict[str, dict[str, Any]] = {}
    texts: dict[str, dict[str, bytes]] = {}
    for archive, member in tar_members(path):
        key, suffix = split_key(member.name)
        row = rows.setdefault(key, {})
        if suffix in TEXT_SUFFIXES:
            file = archive.extractfile(member)
            texts.setdefault(key, {})[suffix] = file.read() if file else b""
        else:
            # A member of an unknown kind is a column too, so that it is seen and listed.
            column = media_column(suffix) or suffix or "file"
            row[column] = (member.name, member.offset_data, member.size)
    for key, row in rows.items():
        yield (
            key,
            {**row, **parse_members(texts.get(key, {}), f"{path}, key '{printable_name(key)}'")},
        )


def parse_members(texts: Mapping[str, bytes], where: str) -> dict[str, Any]:
    """Return the columns that the text members of one key stand for.

    `json` gives a column for each of its names, `cls` gives `label`, and `txt` gives `label` where neither
    of them does and it is short, else `txt`.

    Args:
        texts: Contents by suffix.
        where: Archive and key, for messages.

    Raises:
        ValueError: If a member cannot be parsed.
    """
    cells: dict[str, Any] = {}
    for suffix, raw in texts.items():
        try:
            text = raw.decode()
            parsed = json.loads(text) if suffix == "json" else text.strip()
        except ValueError as error:
            msg = f"{where}: the member .{suffix} cannot be read: {error}."
            raise ValueError(msg) from error
        if suffix == "json":
            cells |= (
                cast("dict[str, Any]", parsed) if isinstance(parsed, dict) else {"json": parsed}
            )
        elif suffix == "cls":
            digits = parsed.removeprefix("-")
            cells["label"] = int(parsed) if digits.isdecimal() else parsed
        else:
            cells["txt"] = parsed
    text = cells.get("txt")
    if isinstance(text, str) and "label" not in cells and len(text) <= _LONG and "\n" not in text:
        cells["label"] = cells.pop("txt")
    return cells


def _kind(cells: Sequence[tuple[str, int, int] | None]) -> str:
    kinds = {kind_of_name(cell[0]) or "other" for cell in cells if cell is not None}
    return kinds.pop() if len(kinds) == 1 else "other"
