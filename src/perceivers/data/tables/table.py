"""Tables: rows and named columns whose media stay encoded until a row is asked for."""

import datetime as dt
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np

from perceivers.data.encoded_item import MEDIA_KINDS, as_encoded_item, kind_of_bytes, kind_of_name

__all__ = ["ColumnTable", "Concatenated", "Field", "Subset", "Table", "infer_field", "plain"]

_SAMPLE = 100  # cells of a column that are looked at to tell what it holds
_LONG = 100  # characters in the mean from which a column of strings is text, not names


@dataclass(frozen=True, slots=True)
class Field:
    """What a column holds.

    Attributes:
        kind: A kind of media, or `array`, `number`, `string`, `other`.
        names: Names of the classes whose indices stand in the column, where the file tells them.
        by_path: The kind is only told by the suffix of paths.
        shape: Of the first array, where the column holds such.
    """

    kind: str
    names: tuple[str, ...] = ()
    by_path: bool = False
    shape: tuple[int, ...] = ()

    def cell(self, raw: Any, where: str, folder: Path) -> Any:
        """Return a raw cell as rows hand it on: as `EncodedItem` if a model may read it, else as a plain value."""
        if self.kind not in MEDIA_KINDS:
            return plain(raw)
        return as_encoded_item(raw, where, folder, kind=self.kind, by_path=self.by_path)


@runtime_checkable
class Table(Protocol):
    """`MapStyleSplit` that also say what their columns hold."""

    @property
    def name(self) -> str:
        """What to call the table in messages."""
        ...

    @property
    def folder(self) -> Path:
        """What relative paths in its cells are relative to."""
        ...

    @property
    def fields(self) -> Mapping[str, Field]:
        """What each column holds."""
        ...

    @property
    def num_bytes(self) -> int:
        """Memory that reading rows takes, in bytes; 0 where rows stay on the disk."""
        ...

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def row(self, index: int) -> Mapping[str, Any]:
        """Return one row: media as `EncodedItem`, the rest as plain values."""
        ...

    def column(self, name: str) -> Sequence[Any]:
        """Return the plain values of one column, without reading media."""
        ...

    def keep(self, fields: Mapping[str, Field]) -> "Table":
        """Return the table with these columns only, so that no other is ever read, holding what is said."""
        ...

    def where(self, index: int) -> str:
        """Return what to call a row in messages."""
        ...


@dataclass(frozen=True, kw_only=True)
class ColumnTable:
    """A table whose columns lie in memory: a list of paths, a CSV file, arrays.

    Attributes:
        name: What to call it in messages.
        columns: The cells: lists or arrays, all equally long.
        fields: What each column holds. By default, told from the cells.
        folder: What relative paths are relative to.
        first: Number of the first row in messages: 2 for a CSV file, whose first line is the header.
        unit: What a row is called there.
    """

    name: str
    columns: Mapping[str, Any]
    fields: Mapping[str, Field] = field(default_factory=dict[str, Field])
    folder: Path = field(default_factory=Path)
    first: int = 0
    unit: str = "row"

    def __post_init__(self) -> None:
        known = {c: self.fields.get(c) or infer_field(v) for c, v in self.columns.items()}
        object.__setattr__(self, "fields", known)

    @property
    def num_bytes(self) -> int:
        """Nothing more is read than what is there already."""
        return 0

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
        return [plain(cell) for cell in self.columns[name]]

    def keep(self, fields: Mapping[str, Field]) -> "ColumnTable":
        """Return the table with these columns only."""
        return replace(self, columns={c: self.columns[c] for c in fields}, fields=fields)

    def where(self, index: int) -> str:
        """Return what to call a row in messages."""
        return f"{self.name}, {self.unit} {index + self.first}"


class Concatenated:
    """Several tables of the same columns, one after the other: the shards of a split.

    Args:
        tables: The tables. What the first says of its columns holds for all.

    Raises:
        ValueError: If a table lacks a column of the first, or gives its classes other names.
    """

    def __init__(self, tables: Sequence[Table]) -> None:
        first = tables[0]
        for table in tables[1:]:
            missing = [c for c in first.fields if c not in table.fields]
            if missing:
                msg = (
                    f"{table.name} lacks the column '{missing[0]}' that {first.name} has. Files that make one "
                    "split must have the same columns."
                )
                raise ValueError(msg)
            for column, known in first.fields.items():
                if known.names and table.fields[column].names != known.names:
                    msg = f"{table.name} and {first.name} give the classes of column '{column}' different names."
                    raise ValueError(msg)
        self.tables = tuple(tables)
        self.ends = np.cumsum([len(table) for table in tables])
        self.name = first.name if len(tables) == 1 else f"{first.name} and {len(tables) - 1} more"
        self.folder = first.folder
        self.fields = dict(first.fields)

    @property
    def num_bytes(self) -> int:
        """Memory that reading rows takes, in bytes."""
        return sum(table.num_bytes for table in self.tables)

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
        """Return what to call a row in messages."""
        table, inside = self._find(index)
        return table.where(inside)


class Subset:
    """Some rows of a table, in a given order.

    Args:
        base: The table (or any `MapStyleSplit`).
        indices: Which of its rows.
    """

    def __init__(self, base: Any, indices: Sequence[int]) -> None:
        self.base = base
        self.indices = np.asarray(indices, dtype=np.int64)

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return self.base.name

    @property
    def folder(self) -> Path:
        """What relative paths are relative to."""
        return self.base.folder

    @property
    def fields(self) -> Mapping[str, Field]:
        """What each column holds."""
        return self.base.fields

    @property
    def num_bytes(self) -> int:
        """Memory that reading rows takes: that of the whole table."""
        return self.base.num_bytes

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
        """Return what to call a row in messages."""
        return self.base.where(int(self.indices[index]))


def plain(cell: Any) -> Any:
    """Return a scalar as the Python value it stands for; a missing one as None; the rest unchanged."""
    if isinstance(cell, np.generic):
        cell = cell.item()
    if isinstance(cell, float) and math.isnan(cell):
        return None
    if type(cell).__name__ in {"NAType", "NaTType"}:  # pandas' two other ways to say missing
        return None
    return cell


def infer_field(cells: Iterable[Any]) -> Field:
    """Return what a column holds, told from its first cells."""
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
    """Return the shape of an array or of nested lists; () where it holds no numbers, or ragged rows."""
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
        picture = cell.ndim == 2 or (cell.ndim == 3 and cell.shape[-1] in {1, 3, 4})
        return "image" if picture and cell.dtype == np.uint8 else "array"
    return "array" if isinstance(cell, Sequence) else "other"
