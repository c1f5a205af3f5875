"""Series of which a table file or the rows of a table are one, and windows of long series as rows of a split."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from perceivers.data.base import MapStyleSplit
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.series.decode import SeriesValue, read_series
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.data.tables.columns import InputColumn
from perceivers.data.tables.table import ColumnTable, Field, Table

MANY_SERIES = 20
"""Number of series from which on some of them are held out for validation, instead of the end of each."""

_COLUMN, _TIME = "series", "time [s]"
_WINDOWS = 8  # windows of a training series that begin within the length of one


def series_table(paths: Sequence[Path]) -> Table:
    """Return a table with a row for each file, which is one series."""
    cells = [EncodedItem(str(path), path=Path(path)) for path in paths]
    return ColumnTable(
        name=str(paths[0]), columns={_COLUMN: cells}, fields={_COLUMN: Field(_COLUMN)}
    )


def series_of_steps(table: Table) -> Table:
    """Return a table whose rows are time steps as one series; a table of series unchanged."""
    kinds = {field.kind for field in table.fields.values()}
    if not kinds <= {"number", "string", "other"}:
        return table
    columns = {name: table.column(name) for name in table.fields}
    cell = EncodedItem(table.name, value=columns)
    return ColumnTable(name=table.name, columns={_COLUMN: [cell]}, fields={_COLUMN: Field(_COLUMN)})


class SeriesParts:
    """Rows of a split, each a part of one of its series.

    Args:
        split: The split.
        column: Where the series are.
        series: The series of each of its rows.
        parts: Row, first step and end of each part.
    """

    def __init__(
        self,
        split: MapStyleSplit,
        column: InputColumn,
        series: Sequence[SeriesValue],
        parts: Sequence[tuple[int, int, int]],
    ) -> None:
        self.split, self.input, self.series, self.parts = split, column, series, parts

    def __len__(self) -> int:
        """Return the number of parts."""
        return len(self.parts)

    def row(self, index: int) -> Mapping[str, Any]:
        """Return a row with one part of its series."""
        number, first, end = self.parts[index]
        row, one = self.split.row(number), self.series[number]
        values = one.values[first:end]
        name = f"{_item(row, self.input).name} from step {first}"
        if self.input.columns:
            columns = dict(zip(one.names, values.T, strict=True))
            return {**row, **{key: EncodedItem(name, value=x) for key, x in columns.items()}}
        value: Any = dict(zip(one.names, values.T, strict=True)) if one.names else values
        if one.times is not None and one.names:
            value[_TIME] = one.times[first:end]
        return {**row, self.input.column: EncodedItem(name, value=value)}

    def column(self, name: str) -> Sequence[Any]:
        """Return one column of scalars, each cell repeated for the parts of its row."""
        cells = self.split.column(name)
        return [cells[row] for row, _, _ in self.parts]


def windows_of_series(
    source: DatasetBundle,
    modality: str,
    *,
    length: int,
    step: int,
    fraction: float,
    hold_out: Callable[[DatasetBundle], DatasetBundle] | None,
) -> DatasetBundle:
    """Return data whose rows are windows of series, and a note about it.

    Windows of evaluation end at a distance of `step`, of which the last `step` are predicted; those of training are a
    little longer than `length`, so that a random window of it is learned. Of fewer than 20 series the end of each is
    held out for validation; its windows begin before it, in steps that are context only. Of more series some are held
    out.

    Args:
        source: Data read by index.
        modality: Name of the series.
        length: Steps of a window at most.
        step: Steps of a window that are predicted.
        fraction: Share that is held out for validation.
        hold_out: Holds rows out. None: there is no validation split.

    Raises:
        ValueError: If the data are streamed, or a series cannot be read.
    """
    if source.streams:
        raise ValueError(
            "Series are cut into windows, which must be read by index. Leave --stream out."
        )
    is_held = hold_out is not None and "validation" not in source.splits and fraction > 0
    if hold_out is not None and is_held and len(source.splits.get("train", ())) >= MANY_SERIES:
        source, is_held = hold_out(source), False
    column = source.inputs[modality]
    splits: dict[str, MapStyleSplit] = {}
    for name, split in source.splits.items():
        series = [read_series(_item(split.row(n), column))[0] for n in range(len(split))]
        sizes = [len(one.values) for one in series]
        held = [max(round(fraction * n), min(step, n // 2)) if is_held else 0 for n in sizes]
        if name == "train":
            ends = [size - last for size, last in zip(sizes, held, strict=True)]
            parts = [part for n, end in enumerate(ends) for part in _training(n, end, length, step)]
            splits[name] = SeriesParts(split, column, series, parts)
            if is_held:
                sized = zip(ends, sizes, strict=True)
                found = [
                    p for n, (e, s) in enumerate(sized) for p in _windows(n, e, s, length, step)
                ]
                splits["validation"] = SeriesParts(split, column, series, found)
        else:
            found = [p for n, size in enumerate(sizes) for p in _windows(n, 0, size, length, step)]
            splits[name] = SeriesParts(split, column, series, found)
    counts = ", ".join(f"{name} {len(parts):,}" for name, parts in splits.items())
    note = f"Series are cut into windows of at most {length} steps, of which the last {step} are predicted: {counts}."
    if is_held:
        note += f" The last {fraction:.0%} of each series are held out for validation."
    return replace(source, splits=splits, notes=(*source.notes, note))


def _windows(row: int, first: int, size: int, length: int, step: int) -> list[tuple[int, int, int]]:
    """Return windows of a series whose last `step` steps together are those from `first` on."""
    ends = list(range(size, first + step - 1, -step)) or [size]
    return [(row, max(end - length, 0), end) for end in reversed(ends)]


def _training(row: int, size: int, length: int, step: int) -> list[tuple[int, int, int]]:
    """Return overlapping parts, the first of which are shorter than a window."""
    stride = max(length // _WINDOWS, 1)
    ends = list(range(size, step, -stride)) or [size]
    return [(row, max(end - length - stride, 0), end) for end in reversed(ends)]


def _item(row: Mapping[str, Any], column: InputColumn) -> EncodedItem:
    """Return the cell of a series, or of several columns their cells."""
    if not column.columns:
        return row[column.column]
    cells = {name: row[name] for name in column.columns}
    items = [cell for cell in cells.values() if isinstance(cell, EncodedItem)]
    values = {n: c.value if isinstance(c, EncodedItem) else c for n, c in cells.items()}
    return EncodedItem(items[0].name if items else column.column, value=values)
