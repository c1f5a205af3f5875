"""Tables: rows with named columns, whose images, audio, ... stay encoded until they are decoded by a modality."""

import datetime as dt
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, cast

import numpy as np

from perceivers.data.encoded_item import as_encoded_item
from perceivers.data.registry import kind_of_bytes, kind_of_name, media_kinds

_SAMPLE = 100  # cells that decide the kind of a column
_LONG = 100  # mean length from which strings are text instead of names


@dataclass(frozen=True, slots=True)
class Field:
    """Content of a column.

    Attributes:
        kind: A kind of encoded item, or `array`, `number`, `string`, `other`.
        names: Class names of the indices in the column, if the file names them.
        by_path: The kind was inferred from the suffix of paths.
        shape: Shape of the first array, in a column of arrays.
    """

    kind: str
    names: tuple[str, ...] = ()
    by_path: bool = False
    shape: tuple[int, ...] = ()

    def cell(self, raw: Any, where: str, folder: Path) -> Any:
        """Return a raw cell as an `EncodedItem` if a model may read it, else as a plain value."""
        if self.kind not in media_kinds():
            return plain(raw)
        return as_encoded_item(raw, where, folder, kind=self.kind, by_path=self.by_path)


class Table(ABC):
    """Base of all tables: a `MapStyleSplit` with typed columns.

    Attributes:
        name: Name in messages.
        folder: Folder of relative paths in cells.
        fields: Content of each column.
        num_bytes: Memory that reading rows takes, 0 if rows stay on the disk.
    """

    name: str
    folder: Path
    fields: Mapping[str, Field]
    num_bytes: int = 0

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows."""

    @abstractmethod
    def row(self, index: int) -> Mapping[str, Any]:
        """Return one row: `EncodedItem`s and plain values."""

    @abstractmethod
    def column(self, name: str) -> Sequence[Any]:
        """Return the plain values of one column, without reading files."""

    @abstractmethod
    def keep(self, fields: Mapping[str, Field]) -> "Table":
        """Return the table with these columns only, read as declared. No other column is ever read."""

    def where(self, index: int) -> str:
        """Return the name of a row in messages."""
        return f"{self.name}, row {index}"


@dataclass(frozen=True, kw_only=True)
class ColumnTable(Table):
    """A table whose columns are in memory: a list of paths, a CSV file, arrays.

    Attributes:
        columns: Lists or arrays of cells, of equal length.
        first: Number of the first row in messages: 2 for a CSV file with a header.
        unit: Word for a row in messages.
        unused: Columns of numbers and short strings that are no part of a row; `column` returns them, too.
    """

    name: str
    columns: Mapping[str, Any]
    fields: Mapping[str, Field] = field(default_factory=dict[str, Field])
    folder: Path = field(default_factory=Path)
    first: int = 0
    unit: str = "row"
    unused: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        known = {c: self.fields.get(c) or infer_field(v) for c, v in self.columns.items()}
        object.__setattr__(self, "fields", known)

    def __len__(self) -> int:
        """Return the number of rows."""
        return max((len(cells) for cells in self.columns.values()), default=0)

    def row(self, index: int) -> dict[str, Any]:
        """Return one row."""
        return {
            name: self.fields[name].cell(cells[index], self.where(index), self.folder)
            for name, cells in self.columns.items()
        }

    def column(self, name: str) -> list[Any]:
        """Return the values of one column."""
        cells = self.columns[name] if name in self.columns else self.unused[name]
        return [plain(cell) for cell in cells]

    def keep(self, fields: Mapping[str, Field]) -> "ColumnTable":
        """Return the table with these columns only."""
        plain_kinds = ("number", "string")
        rest = {
            c: cells
            for c, cells in self.columns.items()
            if c not in fields and self.fields[c].kind in plain_kinds
        }
        kept = {c: self.columns[c] for c in fields}
        return replace(self, columns=kept, fields=fields, unused={**self.unused, **rest})

    def where(self, index: int) -> str:
        """Return the name of a row in messages."""
        return f"{self.name}, {self.unit} {index + self.first}"


class Concatenated(Table):
    """Several tables with the same columns, such as the shards of a split.

    Args:
        tables: The tables. The columns of the first hold for all.

    Raises:
        ValueError: If a table lacks a column of the first, or names its classes differently.
    """

    def __init__(self, tables: Sequence[Table]) -> None:
        first = tables[0]
        for table in tables[1:]:
            missing = [c for c in first.fields if c not in table.fields]
            if missing:
                raise ValueError(
                    f"{table.name} lacks the column '{missing[0]}' that {first.name} has. Files that make one "
                    "split must have the same columns."
                )
            for column, known in first.fields.items():
                if known.names and table.fields[column].names != known.names:
                    raise ValueError(
                        f"{table.name} and {first.name} give the classes of column '{column}' different names."
                    )
        self.tables = tuple(tables)
        self.ends = np.cumsum([len(table) for table in tables])
        self.name = first.name if len(tables) == 1 else f"{first.name} and {len(tables) - 1} more"
        self.folder = first.folder
        self.fields = dict(first.fields)
        self.num_bytes = sum(table.num_bytes for table in tables)

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self.ends[-1])

    def _find(self, index: int) -> tuple[Table, int]:
        at = int(np.searchsorted(self.ends, index, side="right"))
        return self.tables[at], index - (int(self.ends[at - 1]) if at else 0)

    def row(self, index: int) -> Mapping[str, Any]:
        """Return one row."""
        table, inside = self._find(index)
        return table.row(inside)

    def column(self, name: str) -> list[Any]:
        """Return the values of one column."""
        return [cell for table in self.tables for cell in table.column(name)]

    def keep(self, fields: Mapping[str, Field]) -> "Concatenated":
        """Return the table with these columns only."""
        return Concatenated([table.keep(fields) for table in self.tables])

    def where(self, index: int) -> str:
        """Return the name of a row in messages."""
        table, inside = self._find(index)
        return table.where(inside)


class Subset(Table):
    """Some rows of a table, in a given order.

    Args:
        base: A table, or any `MapStyleSplit`; the subset then has rows and columns only.
        indices: Rows of the base.
    """

    def __init__(self, base: Any, indices: Sequence[int]) -> None:
        self.base = base
        self.indices = np.asarray(indices, dtype=np.int64)
        if isinstance(base, Table):
            self.name, self.folder, self.fields = base.name, base.folder, base.fields
            self.num_bytes = base.num_bytes

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.indices)

    def row(self, index: int) -> Mapping[str, Any]:
        """Return one row."""
        return self.base.row(int(self.indices[index]))

    def column(self, name: str) -> list[Any]:
        """Return the values of one column."""
        cells = self.base.column(name)
        return [cells[int(i)] for i in self.indices]

    def keep(self, fields: Mapping[str, Field]) -> "Subset":
        """Return the table with these columns only."""
        return Subset(self.base.keep(fields), self.indices.tolist())

    def where(self, index: int) -> str:
        """Return the name of a row in messages."""
        return self.base.where(int(self.indices[index]))


def plain(cell: Any) -> Any:
    """Return a scalar as a Python value and a missing one as None; other cells unchanged."""
    if isinstance(cell, np.generic):
        cell = cell.item()
    if isinstance(cell, float) and math.isnan(cell):
        return None
    if type(cell).__name__ in {"NAType", "NaTType"}:  # pandas' other missing values
        return None
    return cell


def infer_field(cells: Iterable[Any]) -> Field:
    """Infer the content of a column from its first cells."""
    sample = [c for c in (plain(cell) for cell in islice(cells, _SAMPLE)) if c is not None]
    if not sample:
        return Field("other")
    kinds = {_kind_of_cell(cell) for cell in sample}
    if kinds == {"string"}:
        return _field_of_strings([str(cell) for cell in sample])
    if kinds == {"array"}:
        return Field("array", shape=_shape_of(sample[0]))
    return Field(kinds.pop()) if len(kinds) == 1 else Field("other")


def _field_of_strings(sample: Sequence[str]) -> Field:
    kinds = {kind_of_name(text) for text in sample}
    kind = kinds.pop()
    if kind is not None and not kinds:
        return Field(kind, by_path=True)
    is_text = sum(map(len, sample)) > _LONG * len(sample) or any("\n" in text for text in sample)
    return Field("text" if is_text else "string")


def _shape_of(cell: Any) -> tuple[int, ...]:
    """Return the shape of an array or of nested lists; () if it is not numeric or ragged."""
    try:
        array = np.asarray(cell)
    except ValueError:
        return ()
    return array.shape if array.dtype.kind in "biuf" else ()


def _kind_of_cell(cell: Any) -> str:
    if isinstance(cell, bool | int | float):
        return "number"
    if isinstance(cell, str | PathLike | dt.date):
        return "string"
    if isinstance(cell, bytes):
        return kind_of_bytes(cell) or "other"
    if isinstance(cell, Mapping):
        parts = cast("Mapping[str, Any]", cell)
        named = kind_of_name(str(parts.get("path") or ""))
        data = parts.get("bytes")
        return named or (kind_of_bytes(data) if isinstance(data, bytes) else None) or "other"
    if hasattr(cell, "getexif"):
        return "image"
    if isinstance(cell, np.ndarray):
        is_image = cell.ndim == 2 or (cell.ndim == 3 and cell.shape[-1] in {1, 3, 4})
        return "image" if is_image and cell.dtype == np.uint8 else "array"
    return "array" if isinstance(cell, Sequence) else "other"
