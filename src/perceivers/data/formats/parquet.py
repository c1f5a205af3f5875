"""Parquet files as tables: the schema declares the columns, and cells are read on first use."""

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

from perceivers.data.formats.remote import Location, folder_of, open_remote
from perceivers.data.registry import media_kinds
from perceivers.data.tables.table import ColumnScan, Field, NamedRow, Table, plain
from perceivers.optional import require

_WHOLE = 1 << 24  # bytes of a column up to which all of its cells decide what it holds
_CELLS, _FEW_CELLS = 1024, 16  # cells that are read together, of small and of large columns
_GROUPS = 8  # row groups whose first cells decide what a large column holds
_LISTS = ("list", "large_list", "fixed_size_list")
_FEATURES = {"Image": "image", "Audio": "audio", "Video": "video"}


class ParquetTable(Table):
    """One Parquet file.

    Opening reads the schema. The kept columns are read completely when the first row is requested, since rows in random
    order would otherwise decompress a row group each. A pickled copy reads for itself.

    Args:
        path: A local file, or the address of a remote one.
        fields: Columns to keep. By default all.

    Raises:
        ValueError: If the file is not a Parquet file.
        OSError: If it cannot be read.
    """

    def __init__(self, path: Location, fields: Mapping[str, Field] | None = None) -> None:
        self.path = path
        self.name = str(path)
        self.folder = folder_of(path)
        file = parquet_file(path)
        self.fields = parquet_fields(file) if fields is None else dict(fields)
        self.num_rows = int(file.metadata.num_rows)
        self.num_bytes = _uncompressed(file.metadata, list(self.fields))
        self._cells: dict[str, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Drop the cells that were read."""
        return {**self.__dict__, "_cells": None}

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.num_rows

    def row(self, index: int) -> dict[str, Any]:
        """Return one row."""
        if self._cells is None:
            table = self._read(list(self.fields))
            self._cells = {name: table.column(name) for name in self.fields}
        where = self.where(index)
        row = {
            name: self.fields[name].cell(
                _value(cells[index], self.fields[name].kind), where, self.folder
            )
            for name, cells in self._cells.items()
        }
        return NamedRow(row, where)

    def column(self, name: str) -> list[Any]:
        """Return the values of one column, without reading others."""
        value = self.fields[name].value if name in self.fields else plain
        return [value(cell) for cell in self._read([name]).column(name).to_pylist()]

    def _read(self, columns: list[str]) -> Any:
        with reading(self.path):
            return parquet_file(self.path).read(columns=columns)

    def keep(self, fields: Mapping[str, Field]) -> "ParquetTable":
        """Return the table with these columns only."""
        return ParquetTable(self.path, fields)


def _value(scalar: Any, kind: str) -> Any:
    """Return a cell as a Python value; lists of numbers for a model as arrays, ten times faster."""
    if kind not in media_kinds() or not str(scalar.type).startswith(_LISTS) or not scalar.is_valid:
        return scalar.as_py()
    values = scalar.values
    if values.null_count:
        return scalar.as_py()
    is_plain = str(values.type).startswith(("int", "uint", "float", "double", "halffloat"))
    return values.to_numpy(zero_copy_only=False) if is_plain else scalar.as_py()


def parquet_file(path: Location) -> Any:
    """Return an opened `pyarrow.parquet.ParquetFile`.

    Raises:
        ValueError: If the file is not a Parquet file, or is cut off.
        OSError: If it cannot be read.
    """
    parquet = require("pyarrow.parquet", "data")
    if isinstance(path, str):
        file = open_remote(path)
        with reading(path):
            return parquet.ParquetFile(file)
    with path.open("rb"):  # the system's error if the file cannot be opened
        pass
    with reading(path):
        return parquet.ParquetFile(path)


@contextmanager
def reading(path: Location) -> Generator[None]:
    """Translate pyarrow's errors about a file."""
    try:
        yield
    except (ValueError, OSError) as error:
        reason = str(error).strip().rstrip(".")
        raise ValueError(
            f"{path} cannot be read as Parquet: {reason}. The file may be cut off, damaged or something else."
        ) from error


def parquet_fields(file: Any) -> dict[str, Field]:
    """Return the columns of an opened Parquet file, by Hugging Face's features in its metadata or the first cells."""
    schema = file.schema_arrow
    features: Mapping[str, Any] = {}
    raw = (schema.metadata or {}).get(b"huggingface")
    if raw:
        info = cast("dict[str, Any]", json.loads(raw))
        features = info.get("info", {}).get("features", {})
    unknown: list[str] = []
    fields: dict[str, Field] = {}
    for name in schema.names:
        declared = field_of_feature(features.get(name))
        fields[name] = declared or Field("other")
        if declared is None:
            unknown.append(name)
    fields.update(_infer_columns(file, unknown))
    ours = (schema.metadata or {}).get(b"perceivers")  # written by `perceivers shard`
    kinds: Mapping[str, str] = json.loads(ours).get("kinds", {}) if ours else {}
    for name, kind in kinds.items():
        if name in fields:
            fields[name] = replace(fields[name], kind=kind, by_path=False)
    return fields


def _infer_columns(file: Any, columns: Sequence[str]) -> dict[str, Field]:
    """Infer columns from their cells: of all rows if they are small, else of rows in evenly spaced row groups.

    Further row groups are read for a column that is empty there.
    """
    metadata = file.metadata
    scans = {name: ColumnScan() for name in columns}
    large = [name for name in columns if _uncompressed(metadata, [name]) > _WHOLE]
    small = [name for name in columns if name not in large]
    if small:
        for batch in file.iter_batches(batch_size=_CELLS, columns=small):
            for name, cells in batch.to_pydict().items():
                scans[name].add(cells)
    groups = list(range(metadata.num_row_groups))
    spread = groups[:: max(1, len(groups) // _GROUPS)] if groups else []
    for name in large:
        for group in spread:
            batch = next(file.iter_batches(_FEW_CELLS, row_groups=[group], columns=[name]), None)
            if batch is not None:
                scans[name].add(batch.column(0).to_pylist())
        batches = file.iter_batches(_FEW_CELLS, columns=[name])
        while scans[name].field(name).kind == "other" and (batch := next(batches, None)):
            if batch.column(0).null_count < batch.num_rows:
                scans[name].add(batch.column(0).to_pylist())
                break
    return {name: scan.field(name) for name, scan in scans.items()}


def field_of_feature(feature: Any) -> Field | None:
    """Return the content of a Hugging Face feature (as JSON), None if it depends on the cells."""
    if not isinstance(feature, dict):
        return None
    known = cast("dict[str, Any]", feature)
    kind = str(known.get("_type"))
    if kind in _FEATURES:
        return Field(_FEATURES[kind])
    if kind == "ClassLabel":
        return Field("number", names=tuple(known.get("names") or ()))
    inner = known.get("feature")
    if isinstance(inner, dict) and inner.get("_type") == "ClassLabel":
        return Field("array", names=tuple(cast("dict[str, Any]", inner).get("names") or ()))
    if kind == "Value" and str(known.get("dtype", "")).startswith(("int", "uint", "float", "bool")):
        return Field("number")
    return None  # strings may be names, text or paths; lists series or points


def _uncompressed(metadata: Any, columns: Sequence[str]) -> int:
    """Return the size of columns in memory, in bytes, from the file's footer."""
    total = 0
    for g in range(metadata.num_row_groups):
        group = metadata.row_group(g)
        for c in range(group.num_columns):
            chunk = group.column(c)
            if chunk.path_in_schema.split(".")[0] in columns:
                total += int(chunk.total_uncompressed_size)
    return total
