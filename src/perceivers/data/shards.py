"""Shards: files, or parts of a data set on the hub, whose rows are read one after the other."""

import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from perceivers.data.archives import (
    TEXT_SUFFIXES,
    media_column,
    parse_members,
    split_key,
    tar_members,
)
from perceivers.data.huggingface import feature_fields, undecoded
from perceivers.data.media import MEDIA_KINDS, Media, as_media, kind_of_name
from perceivers.data.parquet import parquet_fields, parquet_file, reading
from perceivers.data.readers import csv_rows, jsonl_rows
from perceivers.data.tables import Field, field_of, plain

__all__ = ["FileShard", "HubShard", "Shard", "file_shards", "hub_shards", "sample_fields"]

_SAMPLE = 100  # rows that are looked at to tell what the columns hold


@runtime_checkable
class Shard(Protocol):
    """Rows that are read in their order, from any one on."""

    @property
    def name(self) -> str:
        """What to call it in messages."""
        ...

    @property
    def fields(self) -> Mapping[str, Field]:
        """The columns that are read, and what they hold."""
        ...

    @property
    def num_rows(self) -> int | None:
        """Number of rows, where it is known without reading them."""
        ...

    def rows(self, start: int) -> Iterator[dict[str, Any]]:
        """Yield the rows from number `start` on: media as `Media`, the rest as plain values."""
        ...


@dataclass(frozen=True)
class FileShard:
    """One Parquet, tar, JSON lines or CSV file.

    Attributes:
        path: The file.
        fields: The columns to read, and what they hold. Empty: all, as raw cells.
        num_rows: Number of rows, if the file tells.
    """

    path: Path
    fields: Mapping[str, Field]
    num_rows: int | None = None

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return str(self.path)

    def rows(self, start: int) -> Iterator[dict[str, Any]]:
        """Yield the rows from number `start` on."""
        for index, raw in enumerate(_raw_rows(self.path, start, list(self.fields)), start=start):
            yield _cells(raw, self.fields, f"{self.path}, row {index}", self.path.parent)

    def values(self, column: str) -> list[Any]:
        """Return one column of plain values, without reading media."""
        if self.path.suffix.lower() == ".tar":
            return [plain(row.get(column)) for row in _tar_rows(self.path)]
        return [plain(row.get(column)) for row in _raw_rows(self.path, 0, [column])]


@dataclass(frozen=True)
class HubShard:
    """One shard of a `datasets.IterableDataset`.

    Attributes:
        dataset: The shard.
        name: What to call it in messages.
        fields: The columns to read, and what they hold.
        num_rows: Not known before they are read.
    """

    dataset: Any
    name: str
    fields: Mapping[str, Field]
    num_rows: int | None = None

    def rows(self, start: int) -> Iterator[dict[str, Any]]:
        """Yield the rows from number `start` on."""
        rows = self.dataset.select_columns(list(self.fields))
        for index, raw in enumerate(rows.skip(start) if start else rows, start=start):
            yield _cells(raw, self.fields, f"{self.name}, row {index}", Path())


def hub_shards(dataset: Any, name: str) -> list[HubShard]:
    """Return the shards of a data set (iterable or not) of the `datasets` library."""
    if not hasattr(dataset, "num_shards") or hasattr(dataset, "to_iterable_dataset"):
        dataset = dataset.to_iterable_dataset()
    if dataset.features is None:
        dataset = dataset._resolve_features()
    dataset = undecoded(dataset)
    fields = feature_fields(dataset)
    count = int(dataset.num_shards)
    return [
        HubShard(dataset.shard(count, i) if count > 1 else dataset, f"{name}, shard {i}", fields)
        for i in range(count)
    ]


def sample_fields(path: Path) -> dict[str, Field]:
    """Return what the columns of a file hold, told from its schema or its first rows.

    Raises:
        ValueError: If it holds no rows or is not what its suffix says.
    """
    if path.suffix.lower() == ".parquet":
        return parquet_fields(parquet_file(path))
    rows = list(islice(_raw_rows(path, 0, []), _SAMPLE))
    if not rows:
        msg = f"{path} holds no rows."
        raise ValueError(msg)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: _field([row.get(name) for row in rows]) for name in names}


def file_shards(paths: Sequence[Path], fields: Mapping[str, Field]) -> list[FileShard]:
    """Return files as shards that yield the named columns."""
    shards: list[FileShard] = []
    for path in paths:
        is_parquet = path.suffix.lower() == ".parquet"
        count = int(parquet_file(path).metadata.num_rows) if is_parquet else None
        shards.append(FileShard(path, fields, count))
    return shards


def _field(cells: Sequence[Any]) -> Field:
    """Return what a column holds; the members of tar files tell their kind themselves."""
    kinds = {cell[1] for cell in cells if isinstance(cell, tuple)}
    if kinds:
        return Field(kinds.pop() if len(kinds) == 1 else "other")
    return field_of(cells)


def _raw_rows(path: Path, start: int, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet_rows(path, start, columns)
    if suffix == ".tar":
        return _tar_rows(path, start, columns)
    return islice(jsonl_rows(path) if suffix == ".jsonl" else _csv_cells(path), start, None)


def _csv_cells(path: Path) -> Iterator[dict[str, str | None]]:
    """Yield rows of text; types are not told, which would take a pass over the file. Empty is missing."""
    for row in csv_rows(path):
        yield {name: cell or None for name, cell in row.items()}


def _parquet_rows(path: Path, start: int, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    file = parquet_file(path)
    groups: list[int] = []
    for g in range(file.metadata.num_row_groups):
        count = int(file.metadata.row_group(g).num_rows)
        if groups or start < count:
            groups.append(g)
        else:
            start -= count
    if not groups:
        return
    batches = file.iter_batches(batch_size=64, row_groups=groups, columns=list(columns) or None)
    with reading(path):
        for batch in batches:
            if start < batch.num_rows:
                yield from batch.slice(start).to_pylist()
            start = max(0, start - batch.num_rows)


def _tar_rows(path: Path, start: int = 0, columns: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Yield the rows of a tar file, whose members of one key follow each other.

    Media are read for the named columns. Of the others, a cell is the member's name and kind.
    """
    keyed = groupby(tar_members(path), lambda pair: split_key(pair[1].name)[0])
    for index, (key, members) in enumerate(keyed):
        if index < start:
            continue
        row: dict[str, Any] = {}
        texts: dict[str, bytes] = {}
        for archive, member in members:
            suffix = split_key(member.name)[1]
            column = media_column(suffix) or suffix or "file"
            if suffix in TEXT_SUFFIXES:
                texts[suffix] = _content(archive, member)
            elif column in columns:
                row[column] = Media(f"{path}/{member.name}", data=_content(archive, member))
            else:
                row[column] = (member.name, kind_of_name(f"x.{suffix}") or "other")
        yield {**row, **parse_members(texts, f"{path}, key '{key}'")}


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return file.read() if file else b""


def _cells(
    raw: Mapping[str, Any], fields: Mapping[str, Field], where: str, folder: Path
) -> dict[str, Any]:
    return {
        name: as_media(raw.get(name), where, folder)
        if field.kind in MEDIA_KINDS
        else plain(raw.get(name))
        for name, field in fields.items()
    }
