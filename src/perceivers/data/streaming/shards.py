"""Shards: files, or parts of a data set on the hub, whose rows are read in order."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.formats.files import csv_rows, jsonl_rows
from perceivers.data.formats.huggingface import disable_decoding, feature_fields
from perceivers.data.formats.parquet import parquet_fields, parquet_file, reading
from perceivers.data.formats.remote import (
    Location,
    folder_of,
    is_remote,
    join_remote,
    open_binary,
    open_remote,
    suffix_of,
)
from perceivers.data.formats.webdataset import (
    infer_text_field,
    kind_of_members,
    tar_rows,
    text_cell,
)
from perceivers.data.registry import media_kinds
from perceivers.data.tables.table import Field, infer_field, plain

_SAMPLE = 100  # rows that decide the content of columns
_TRIES = 4  # attempts to read the next row of a remote file
_PAUSE = 1.0  # seconds before the second attempt, doubled before each further one


@runtime_checkable
class Shard(Protocol):
    """Rows that are read in order, from any one on."""

    @property
    def name(self) -> str:
        """Name in messages."""
        ...

    @property
    def fields(self) -> Mapping[str, Field]:
        """Content of the columns that are read."""
        ...

    @property
    def num_rows(self) -> int | None:
        """Number of rows, None if unknown before they are read."""
        ...

    def rows(self, start: int) -> Iterator[dict[str, Any]]:
        """Yield the rows from number `start` on: `EncodedItem`s and plain values."""
        ...


@dataclass(frozen=True)
class FileShard:
    """One Parquet, tar, JSON lines or CSV file, local or remote.

    Without `fields`, its cells are raw. In `num_rows`, a damaged rest of the file counts as one row.
    """

    path: Location
    fields: Mapping[str, Field]
    num_rows: int | None = None

    @property
    def name(self) -> str:
        """Name in messages."""
        return str(self.path)

    def rows(self, start: int) -> Iterator[dict[str, Any]]:
        """Yield the rows from number `start` on.

        Raises:
            ValueError: If the file is damaged or cut off, after the rows before that.
            OSError: If it is missing or cannot be reached.
        """
        tries = 1
        while True:
            try:
                for raw in _raw_rows(self.path, start, list(self.fields)):
                    cells = _cells(raw, self.fields, f"{self.path}, row {start}", self.path)
                    start, tries = start + 1, 1
                    yield cells
            except (ValueError, FileNotFoundError):
                raise
            except Exception as error:  # storage backends raise their own
                if not is_remote(self.path):
                    raise
                if tries == _TRIES:
                    reason = " ".join(str(error).split()) or type(error).__name__
                    raise OSError(
                        f"{self.path} cannot be read from row {start} on, tried {_TRIES} times: {reason[:300]}."
                    ) from error
                time.sleep(_PAUSE * 2 ** (tries - 1))
                tries += 1
            else:
                return


@dataclass(frozen=True)
class HubShard:
    """One shard of a `datasets.IterableDataset`."""

    dataset: Any
    name: str
    fields: Mapping[str, Field]
    num_rows: int | None = None

    def rows(self, start: int) -> Iterator[dict[str, Any]]:
        """Yield the rows from number `start` on."""
        rows = self.dataset.select_columns(list(self.fields))
        for index, raw in enumerate(rows.skip(start) if start else rows, start=start):
            yield _cells(raw, self.fields, f"{self.name}, row {index}", Path("rows"))


def hub_shards(dataset: Any, name: str) -> list[HubShard]:
    """Return the shards of a `datasets.Dataset` or `IterableDataset`."""
    if not hasattr(dataset, "num_shards") or hasattr(dataset, "to_iterable_dataset"):
        dataset = dataset.to_iterable_dataset()
    if dataset.features is None:
        dataset = dataset._resolve_features()
    dataset = disable_decoding(dataset)
    fields = feature_fields(dataset)
    count = int(dataset.num_shards)
    return [
        HubShard(dataset.shard(count, i) if count > 1 else dataset, f"{name}, shard {i}", fields)
        for i in range(count)
    ]


def infer_fields(path: Location) -> dict[str, Field]:
    """Infer the columns of a file from its schema or first rows.

    Raises:
        ValueError: If it has no rows or another format than its suffix.
    """
    if suffix_of(path) == ".parquet":
        return parquet_fields(parquet_file(path))
    rows, damage = _intact([], islice(_raw_rows(path, 0, []), _SAMPLE))
    if not rows:
        raise ValueError(damage or f"{path} holds no rows.")
    names = dict.fromkeys(name for row in rows for name in row)
    is_tar = suffix_of(path) == ".tar"
    return {name: _field([row.get(name) for row in rows], is_tar=is_tar) for name in names}


def file_shards(paths: Sequence[Location], fields: Mapping[str, Field]) -> list[FileShard]:
    """Return files as shards with these columns. Rows are counted without reading images, audio, ...

    Raises:
        OSError: If a file is missing or cannot be reached.
    """
    return [FileShard(path, fields, _count(path)) for path in paths]


def shards_with_values(
    paths: Sequence[Location], fields: Mapping[str, Field], column: str
) -> tuple[list[FileShard], list[Any]]:
    """Return files as shards, and the plain values of one column of all of them, without reading images, audio, ...

    A damaged file gives the values before the damage.

    Raises:
        OSError: If a file is missing or cannot be reached.
    """
    shards: list[FileShard] = []
    values: list[Any] = []
    for path in paths:
        is_tar = suffix_of(path) == ".tar"
        count = None if is_tar or suffix_of(path) == ".csv" else _count(path)
        rows = tar_rows(path) if is_tar else _raw_rows(path, 0, [column])
        found, damage = _intact([], (plain(row.get(column)) for row in rows))
        values += found
        if count is None:
            count = len(found) + (damage is not None)
        shards.append(FileShard(path, fields, count))
    return shards, values


def _count(path: Location) -> int:
    """Return the number of rows of a file. A damaged rest of the file counts as a row."""
    suffix = suffix_of(path)
    if suffix == ".jsonl":
        with open_binary(path) as file:
            return sum(1 for line in file if line.strip())
    if suffix == ".parquet":
        try:
            return int(parquet_file(path).metadata.num_rows)
        except ValueError:
            return 1
    # The same count as `shards_with_values`, since resuming checks it.
    rows, damage = _intact([], (None for _ in (tar_rows if suffix == ".tar" else csv_rows)(path)))
    return len(rows) + (damage is not None)


def _intact(found: list[Any], rows: Iterator[Any]) -> tuple[list[Any], str | None]:
    """Append readable rows to `found`; return them and the reason why reading stopped, if it failed."""
    try:
        for row in rows:
            found.append(row)  # noqa: PERF402  (rows before an error stay)
    except ValueError as error:
        return found, str(error)
    return found, None


def _field(cells: Sequence[Any], *, is_tar: bool) -> Field:
    members = [cell for cell in cells if isinstance(cell, tuple)]
    if members:
        return kind_of_members(members)
    return infer_text_field(cells) if is_tar else infer_field(cells)


def _raw_rows(path: Location, start: int, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    suffix = suffix_of(path)
    if suffix == ".parquet":
        return _parquet_rows(path, start, columns)
    if suffix == ".tar":
        return tar_rows(path, start, columns)
    if suffix == ".jsonl":
        return jsonl_rows(path, start)
    # Cells stay strings, since inferring types would need a pass over the file; empty ones are None.
    rows = islice(csv_rows(path), start, None)
    return ({name: cell or None for name, cell in row.items()} for row in rows)


def _parquet_rows(
    path: Location, start: int, columns: Sequence[str]
) -> Iterator[Mapping[str, Any]]:
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


def _cells(
    raw: Mapping[str, Any], fields: Mapping[str, Field], where: str, path: Location
) -> dict[str, Any]:
    """Return the cells of a row. Cells of archives and remote tables never name local files."""
    if suffix_of(path) == ".tar":
        return {
            name: cell
            if isinstance(cell := raw.get(name), EncodedItem)
            else text_cell(field, cell, where)
            for name, field in fields.items()
        }
    if isinstance(path, str):
        raw = {name: _fetched(raw.get(name), field, where, path) for name, field in fields.items()}
    return {
        name: field.cell(raw.get(name), where, folder_of(path)) for name, field in fields.items()
    }


def _fetched(cell: Any, field: Field, where: str, address: str) -> Any:
    """Return a cell of a remote table, downloaded if it names a file beside the table."""
    if field.kind not in media_kinds():
        return cell
    name = cell if isinstance(cell, str) and (field.kind != "text" or field.by_path) else None
    if isinstance(cell, Mapping):
        parts = cast("Mapping[str, Any]", cell)
        name = parts.get("path") if parts.get("bytes") is None else None
    if name is None:
        return cell
    target = join_remote(address, str(name))
    try:
        with open_remote(target) as file:
            return EncodedItem(target, data=file.read())
    except OSError as error:
        return EncodedItem(f"{where}: {error}", path=Path(target))
