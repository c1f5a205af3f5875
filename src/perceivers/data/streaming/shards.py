"""Shards: files, or parts of a data set on the hub, whose rows are read in order."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.formats.delimited import (
    DELIMITED,
    Dialect,
    TextRow,
    delimited_rows,
    detect_dialect,
    detect_encoding,
    encoding_notes,
    json_rows,
    text_rows,
)
from perceivers.data.formats.files import delimited_fields
from perceivers.data.formats.huggingface import disable_decoding, feature_fields
from perceivers.data.formats.parquet import parquet_fields, parquet_file, reading
from perceivers.data.formats.remote import (
    Location,
    folder_of,
    is_remote,
    join_remote,
    open_remote,
    suffix_of,
)
from perceivers.data.formats.webdataset import tar_rows, text_cell, text_field
from perceivers.data.registry import kind_of_name, media_kinds
from perceivers.data.tables.table import ColumnScan, Field, NamedRow, plain

_CHUNK = 1000  # rows of a text file whose cells are looked at together
_TRIES = 4  # attempts to read the next row of a remote file
_PAUSE = 1.0  # seconds before the second attempt, doubled before each further one


@dataclass(frozen=True, slots=True)
class DamagedRow:
    """A row that cannot be read.

    Attributes:
        name: Its file and line.
        reason: Reason, with the name.
    """

    name: str
    reason: str


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

    def rows(self, start: int) -> Iterator[dict[str, Any] | DamagedRow]:
        """Yield the rows from number `start` on: `EncodedItem`s and plain values."""
        ...


@dataclass(frozen=True)
class FileShard:
    """One Parquet, tar, JSON lines or delimited file, local or remote.

    A line of a text file that cannot be read is a row, and so is the damaged rest of another file.
    """

    path: Location
    fields: Mapping[str, Field]
    num_rows: int | None = None

    @property
    def name(self) -> str:
        """Name in messages."""
        return str(self.path)

    def rows(self, start: int) -> Iterator[NamedRow | DamagedRow]:
        """Yield the rows from number `start` on.

        Raises:
            ValueError: If the file is damaged or cut off, after the rows before that.
            OSError: If it is missing or cannot be reached.
        """
        tries = 1
        while True:
            try:
                for raw in _raw_rows(self.path, start, list(self.fields)):
                    row = raw
                    if not isinstance(row, DamagedRow):
                        where = row.where or f"{self.path}, row {start}"
                        row = NamedRow(_cells(row, self.fields, where, self.path), where)
                    start, tries = start + 1, 1
                    yield row
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


@dataclass(frozen=True)
class FileScan:
    """Content of a file, from one pass over it without reading images, audio, ...

    Attributes:
        path: The file.
        fields: Its columns. Empty if no row can be read.
        num_rows: Number of rows, with those that cannot be read.
        values: Cells of the requested columns.
        notes: Sentences about how it is read.
        damage: Reason of the first damage, None without.
    """

    path: Location
    fields: Mapping[str, Field]
    num_rows: int
    values: Mapping[str, list[Any]]
    notes: tuple[str, ...] = ()
    damage: str | None = None


def scan_file(path: Location, columns: Sequence[str] = ()) -> FileScan:
    """Infer the columns of a file from all rows (of Parquet: its schema), count the rows and read some columns.

    Args:
        path: The file.
        columns: Columns whose values are returned, if the file has them.

    Raises:
        OSError: If it is missing or cannot be reached.
    """
    suffix = suffix_of(path)
    if suffix == ".parquet":
        return _scan_parquet(path, columns)
    return _scan_tar(path, columns) if suffix == ".tar" else _scan_text(path, columns)


def _scan_text(path: Location, columns: Sequence[str]) -> FileScan:
    spelled = suffix_of(path) in DELIMITED
    try:
        dialect = detect_dialect(path) if spelled else Dialect(encoding=detect_encoding(path))
        rows = delimited_rows(path, dialect) if spelled else json_rows(path)
        scans, raw, num_rows, damage = _scan_rows(rows, columns, spelled=spelled)
    except ValueError as error:
        return FileScan(path, {}, 1, {}, damage=str(error))
    if not scans and damage is None:
        damage = f"{path} holds no rows."
    fields = (
        delimited_fields(scans, dialect)
        if spelled
        else {name: scan.field(name) for name, scan in scans.items()}
    )
    values = {name: [fields[name].value(cell) for cell in cells] for name, cells in raw.items()}
    notes = dialect.notes if spelled else encoding_notes(path, dialect.encoding)
    return FileScan(path, fields, num_rows, values, notes, damage)


def _scan_rows(
    rows: Iterator[TextRow], columns: Sequence[str], *, spelled: bool
) -> tuple[dict[str, ColumnScan], dict[str, list[Any]], int, str | None]:
    """Return scans of the columns, values of some, the number of rows, and the first error."""
    scans: dict[str, ColumnScan] = {}
    values: dict[str, list[Any]] = {}
    num_rows, damage = 0, None
    while chunk := list(islice(rows, _CHUNK)):
        cells = [row.cells for row in chunk if row.cells is not None]
        damage = damage or next((row.error for row in chunk if row.cells is None), None)
        for name in dict.fromkeys(name for row in cells for name in row):
            if name not in scans:
                scans[name] = ColumnScan(spelled=spelled)
                if name in columns:
                    values[name] = [None] * (num_rows if damage is None else 0)
            of_column = [row.get(name) for row in cells]
            scans[name].add(of_column)
            if name in values:
                values[name] += [None if cell == "" else cell for cell in of_column]
        num_rows += len(chunk)
    return scans, values, num_rows, damage


def _scan_tar(path: Location, columns: Sequence[str]) -> FileScan:
    members: dict[str, dict[str, None]] = {}  # suffixes of the members of a column
    scans: dict[str, ColumnScan] = {}
    values: dict[str, list[Any]] = {name: [] for name in columns}
    num_rows, damage = 0, None
    try:
        for row in tar_rows(path):
            num_rows += 1
            for name, cell in row.items():
                if isinstance(cell, tuple):
                    name_of = cast("tuple[str, int, int]", cell)[0]
                    members.setdefault(name, {})[kind_of_name(name_of) or "other"] = None
                else:
                    scans.setdefault(name, ColumnScan()).add([cell])
            for name in columns:
                cell = row.get(name)
                values[name].append(cell[0] if isinstance(cell, tuple) else plain(cell))
    except ValueError as error:
        num_rows, damage = num_rows + 1, str(error)
    if not num_rows:
        damage = f"{path} holds no rows."
    fields = {name: text_field(scan.field(name)) for name, scan in scans.items()}
    fields |= {
        name: Field(next(iter(kinds)) if len(kinds) == 1 else "other")
        for name, kinds in members.items()
    }
    known = {name: cells for name, cells in values.items() if name in fields}
    return FileScan(path, fields, num_rows, known, damage=damage)


def _scan_parquet(path: Location, columns: Sequence[str]) -> FileScan:
    try:
        file = parquet_file(path)
        fields = parquet_fields(file)
    except ValueError as error:
        return FileScan(path, {}, 1, {}, damage=str(error))
    num_rows = int(file.metadata.num_rows)
    values: dict[str, list[Any]] = {}
    damage = None if num_rows else f"{path} holds no rows."
    for name in columns:
        if name in fields:
            rows = _parquet_rows(path, 0, [name])
            values[name], failure = _intact([], (plain(row.get(name)) for row in rows))
            damage = damage or failure
    return FileScan(path, fields, num_rows, values, damage=damage)


def infer_fields(path: Location) -> dict[str, Field]:
    """Infer the columns of a file from its schema or rows.

    Raises:
        ValueError: If it has no rows or another format than its suffix.
        OSError: If it is missing or cannot be reached.
    """
    scan = scan_file(path)
    if not scan.fields or not scan.num_rows:
        raise ValueError(scan.damage or f"{path} holds no rows.")
    return dict(scan.fields)


def _intact(found: list[Any], rows: Iterator[Any]) -> tuple[list[Any], str | None]:
    """Append readable rows to `found`; return them and the reason why reading stopped, if it failed."""
    try:
        for row in rows:
            found.append(row)  # noqa: PERF402  (rows before an error stay)
    except ValueError as error:
        return found, str(error)
    return found, None


def _raw_rows(
    path: Location, start: int, columns: Sequence[str]
) -> Iterator[NamedRow | DamagedRow]:
    suffix = suffix_of(path)
    if suffix in {".parquet", ".tar"}:
        rows = _parquet_rows if suffix == ".parquet" else tar_rows
        yield from map(NamedRow, rows(path, start, columns))
        return
    for row in islice(text_rows(path), start, None):
        where = f"{path}, line {row.line}"
        if row.cells is None:
            yield DamagedRow(where, row.error)
            continue
        cells = {k: None if cell == "" else cell for k, cell in row.cells.items()}
        yield NamedRow(cells, where)


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
