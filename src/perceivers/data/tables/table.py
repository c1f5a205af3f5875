"""Tables: rows with named columns, whose images, audio, ... stay encoded until they are decoded by a modality."""

import datetime as dt
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, cast

import numpy as np

from perceivers.data.encoded_item import EncodedItem, as_encoded_item
from perceivers.data.registry import kind_of_bytes, kind_of_name, media_kinds
from perceivers.data.tables.numbers import NumberFormat, NumberScan, is_missing_spelling

_LONG = 100  # mean length from which strings are text instead of names
_SENTENCE = 2.5  # mean number of words from which strings are sentences
_FEW = 20  # distinct values of a category, unless most rows differ
_REPEATED = 5  # rows per distinct value from which few values are categories
_MOST_VALUES = 1000  # distinct values that are counted
_LONGEST_PATH = 4096
_SHAPES = 100  # arrays that are tried for their shape
_MOSTLY = 0.95  # share of cells that decide over a column; the other cells are bad


@dataclass(frozen=True, slots=True)
class ColumnStatistics:
    """Statistics of a column's cells.

    Attributes:
        filled: Number of cells that are not empty.
        distinct: Number of distinct values, at most about 1,000.
        words: Mean number of words of a text.
        is_counter: Whether the cells are whole numbers that increase by one from row to row.
        notes: Sentences about missing values and cells of another kind.
        example: Number that shows how the numbers are spelled.
    """

    filled: int = 0
    distinct: int = 0
    words: float = 0.0
    is_counter: bool = False
    notes: tuple[str, ...] = ()
    example: str = ""

    @property
    def few_values(self) -> bool:
        """Whether the values repeat, as those of a category do."""
        few = min(_FEW, max(2, self.filled // 2))
        often = self.filled >= _REPEATED * self.distinct and self.distinct < _MOST_VALUES
        return self.distinct <= few or often

    @property
    def are_sentences(self) -> bool:
        """Whether short strings are sentences, rather than names or categories."""
        is_category = self.distinct <= _FEW and self.filled >= _REPEATED * self.distinct
        return self.words >= _SENTENCE and not is_category


@dataclass(frozen=True, slots=True)
class Field:
    """Content of a column.

    Attributes:
        kind: A kind of encoded item, or `array`, `number`, `string`, `other`.
        names: Class names of the indices in the column, if the file names them.
        by_path: The kind was inferred from the suffix of paths.
        shape: Shape of the first array, in a column of arrays.
        number: Spelling of numbers in texts. None: the column holds no such texts.
        statistics: Statistics of the cells.
    """

    kind: str
    names: tuple[str, ...] = ()
    by_path: bool = False
    shape: tuple[int, ...] = ()
    number: NumberFormat | None = field(default=None, compare=False)
    statistics: ColumnStatistics = field(default=ColumnStatistics(), compare=False)

    def cell(self, raw: Any, where: str, folder: Path) -> Any:
        """Return a raw cell as an `EncodedItem` if a model may read it, else as a plain value."""
        if self.kind not in media_kinds():
            value = self.value(raw)
            is_wrong = self.kind == "number" and isinstance(value, str)
            return EncodedItem(where, value=value) if is_wrong else value  # to name the row
        if self.by_path and isinstance(raw, str) and is_missing_spelling(raw):
            raw = None
        return as_encoded_item(raw, where, folder, kind=self.kind, by_path=self.by_path)

    def value(self, raw: Any) -> Any:
        """Return a raw cell as a plain value; a text in a column of numbers as a number, if it is one."""
        raw = plain(raw)
        if self.kind == "number" and isinstance(raw, str):
            with suppress(ValueError):
                return (self.number or NumberFormat()).parse(raw)
        return raw


class NamedRow(dict[str, Any]):
    """Cells of a row by column.

    Args:
        cells: The cells.
        where: Name of the row in messages.
    """

    def __init__(self, cells: Mapping[str, Any], where: str = "") -> None:
        super().__init__(cells)
        self.where = where


class Table(ABC):
    """Base of all tables: a `MapStyleSplit` with typed columns.

    Attributes:
        name: Name in messages.
        folder: Folder of relative paths in cells.
        fields: Content of each column.
        num_bytes: Memory that reading rows takes, 0 if rows stay on the disk.
        notes: Sentences about how the table was read.
        bad: Name and reason of each row that cannot be read. The table is without them.
    """

    name: str
    folder: Path
    fields: Mapping[str, Field]
    num_bytes: int = 0
    notes: tuple[str, ...] = ()
    bad: tuple[tuple[str, str], ...] = ()

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
        first: Number of the first row in messages.
        unit: Word for a row in messages.
        unused: Columns of numbers and short strings that are no part of a row; `column` returns them, too.
        lines: Line of each row in the file. By default rows are numbered from `first`.
        notes: Sentences about how the table was read.
        bad: Name and reason of each row that cannot be read.
    """

    name: str
    columns: Mapping[str, Any]
    fields: Mapping[str, Field] = field(default_factory=dict[str, Field])
    folder: Path = field(default_factory=Path)
    first: int = 0
    unit: str = "row"
    unused: Mapping[str, Any] = field(default_factory=dict[str, Any])
    lines: Sequence[int] = ()
    notes: tuple[str, ...] = ()
    bad: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        known = {c: self.fields.get(c) or infer_field(v) for c, v in self.columns.items()}
        object.__setattr__(self, "fields", known)

    def __len__(self) -> int:
        """Return the number of rows."""
        return max((len(cells) for cells in self.columns.values()), default=0)

    def row(self, index: int) -> NamedRow:
        """Return one row."""
        where = self.where(index)
        cells = {
            name: self.fields[name].cell(cells[index], where, self.folder)
            for name, cells in self.columns.items()
        }
        return NamedRow(cells, where)

    def column(self, name: str) -> list[Any]:
        """Return the values of one column."""
        if name not in self.columns:
            return [plain(cell) for cell in self.unused[name]]
        field = self.fields[name]
        return [field.value(cell) for cell in self.columns[name]]

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
        number = self.lines[index] if len(self.lines) else index + self.first
        return f"{self.name}, {self.unit} {number}"


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
        self.fields = {c: common_field([table.fields[c] for table in tables]) for c in first.fields}
        self.num_bytes = sum(table.num_bytes for table in tables)
        self.notes = tuple(dict.fromkeys(note for table in tables for note in table.notes))
        self.bad = tuple(one for table in tables for one in table.bad)

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
        return Concatenated([table.keep(of_table(fields, table.fields)) for table in self.tables])

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
            self.notes, self.bad = base.notes, base.bad

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


def of_table(fields: Mapping[str, Field], known: Mapping[str, Field]) -> dict[str, Field]:
    """Return fields with the spelling of numbers of one table among several, whose columns are `known`."""
    return {
        name: replace(field, number=known[name].number or field.number if name in known else None)
        for name, field in fields.items()
    }


def common_field(fields: Sequence[Field]) -> Field:
    """Return the content of a column that is divided over several tables."""
    kinds = {field.kind for field in fields}
    chosen = next((field for field in fields if field.kind != "other"), fields[0])
    if kinds == {"string", "text"}:  # some shards hold shorter texts
        chosen = replace(chosen, kind="text", by_path=False)
    known = [field.statistics for field in fields]
    filled = sum(one.filled for one in known)
    statistics = ColumnStatistics(
        filled=filled,
        distinct=max(one.distinct for one in known),
        words=sum(one.words * one.filled for one in known) / max(filled, 1),
        is_counter=all(one.is_counter for one in known),
        notes=tuple(dict.fromkeys(note for one in known for note in one.notes)),
        example=chosen.statistics.example,
    )
    return replace(chosen, statistics=statistics)


def infer_field(cells: Iterable[Any]) -> Field:
    """Infer the content of a column from all of its cells."""
    scan = ColumnScan()
    scan.add(list(cells))
    return scan.field("")


class ColumnScan:
    """Infers the content of a column from cells that are added chunk by chunk, in bounded memory.

    Args:
        spelled: Cells are texts, as in CSV, so that numbers are spelled.
    """

    def __init__(self, *, spelled: bool = False) -> None:
        self.spelled = spelled
        self.numbers = NumberScan()
        self._kinds: Counter[str] = Counter()
        self._media: Counter[str | None] = Counter()  # kinds of paths among the strings
        self._shape: tuple[int, ...] = ()
        self._values: set[Any] = set()
        self._length = self._words = self._missing_paths = 0
        self._has_lines = False
        self._next: int | None = None  # number that a counter has in the next row
        self._is_counter = True

    def add(self, cells: Sequence[Any]) -> None:
        """Add cells in the order of the rows."""
        cells = [plain(cell) for cell in cells]
        self._count_up(cells)
        filled = [c for c in cells if c is not None and not (isinstance(c, str) and not c)]
        types = set(map(type, filled))
        if types <= {int, float, bool}:
            self._kinds["number"] += len(filled)
            self._remember(filled)
        elif types == {str}:
            self._add_strings(filled)
        else:
            for cell in filled:
                self._add_any(cell)

    def _add_any(self, cell: Any) -> None:
        kind = _kind_of_cell(cell)
        if kind == "string":
            self._add_strings([str(cell)])
            return
        self._kinds[kind] += 1
        if kind == "array" and not self._shape and self._kinds[kind] <= _SHAPES:
            self._shape = _shape_of(cell)

    def _count_up(self, cells: Sequence[Any]) -> None:
        if not self._is_counter:
            return
        for cell in cells:
            number = int(cell) if isinstance(cell, str) and cell.isdecimal() else cell
            if type(number) is not int or self._next not in {None, number}:
                self._is_counter = False
                return
            self._next = number + 1

    def _remember(self, cells: Sequence[Any]) -> None:
        if len(self._values) < _MOST_VALUES:
            self._values.update(cells)

    def _add_strings(self, texts: Sequence[str]) -> None:
        self._kinds["string"] += len(texts)
        self._remember(texts)
        self._media.update(map(_kind_of_path, texts))
        self._missing_paths += sum(map(is_missing_spelling, texts))
        self._length += sum(map(len, texts))
        self._words += sum(len(text.split()) for text in texts)
        self._has_lines = self._has_lines or any("\n" in text for text in texts)
        self.numbers.add(texts)

    def field(self, column: str, *, comma: bool = False, grouped: bool = False) -> Field:
        """Return the content of the column.

        Args:
            column: Name of the column, for notes.
            comma: As in `NumberScan.found`.
            grouped: As in `NumberScan.found`.
        """
        filled = self._kinds.total()
        strings = self._kinds["string"]
        statistics = ColumnStatistics(
            filled=filled,
            distinct=len(self._values),
            words=self._words / max(strings, 1),
            is_counter=self._is_counter and filled > 1,
            example=self.numbers.example(),
        )
        if not filled:
            return Field("other")
        declared = self.numbers.found(comma=comma, grouped=grouped, declared=True)
        if self.spelled and strings == filled:
            number = self.numbers.found(comma=comma, grouped=grouped)
            if number is not None:
                note = self.numbers.note_about_rest(column)
                notes = (note,) if note else ()
                return Field("number", number=number, statistics=replace(statistics, notes=notes))
        kinds = [kind for kind, count in self._kinds.items() if count]
        if kinds == ["string"]:
            return self._field_of_strings(statistics, declared)
        is_array = self.spelled and set(kinds) == {"array", "string"} and 2 * strings < filled
        if kinds == ["array"] or is_array:
            rest = f"Cells of '{column}' that are no list of numbers: {strings:,} of {filled:,}"
            notes = (f"{rest}; their rows are left out.",) if strings else ()
            return Field("array", shape=self._shape, statistics=replace(statistics, notes=notes))
        kind = kinds[0] if len(kinds) == 1 else "other"
        return Field(kind, number=declared, statistics=statistics)

    def _field_of_strings(self, statistics: ColumnStatistics, number: NumberFormat | None) -> Field:
        count = self._kinds["string"] - self._missing_paths
        paths = Counter({kind: n for kind, n in self._media.items() if kind is not None})
        for kind, named in paths.most_common(1):
            others = count - named
            if not others or (named >= _MOSTLY * count and count >= _FEW):
                note = f"{others:,} of {count:,} cells name no file of {kind}; their rows are left out."
                notes = (note,) if others else ()
                return Field(kind, by_path=True, statistics=replace(statistics, notes=notes))
        is_text = self._has_lines or self._length > _LONG * self._kinds["string"]
        return Field("text" if is_text else "string", number=number, statistics=statistics)


def _kind_of_path(text: str) -> str | None:
    """Return the modality of a path by its suffix, None for other texts."""
    if text.rfind(".", -12) < 0 or len(text) > _LONGEST_PATH:
        return None
    return kind_of_name(text)


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
