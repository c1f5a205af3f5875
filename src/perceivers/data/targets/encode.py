"""Cells of target columns -> what a loss compares with, in every split; of several tasks, one beside the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from perceivers.data.base import DataConfig, MapStyleSplit
from perceivers.data.tables.columns import ColumnSelection
from perceivers.data.tables.table import Field, Table
from perceivers.data.targets.classes import Labelled, describe_classes
from perceivers.data.targets.infer import TargetEncoder, TargetKind, find_targets, is_missing

__all__ = [
    "KnownNames",
    "LabelledSplits",
    "MultiLabelled",
    "encode_targets",
    "is_known",
    "wanted_kind",
]

KnownNames = Sequence[str] | Mapping[str, Sequence[str]]
"""What a trained model knows: its classes, labels or numbers; of several tasks, those of each by its name."""

NO_CLASS = -1  # stands in the place of a class that is not known; numbers and labels are NaN there


@dataclass(frozen=True)
class LabelledSplits:
    """Splits with their targets.

    Attributes:
        splits: Those that have any.
        kind: What the target of a row is.
        names: Of the classes, labels or numbers; of several tasks, of these.
        tasks: Of several tasks, what reads the target of each.
        notes: Sentences on what was seen.
    """

    splits: dict[str, MapStyleSplit]
    kind: TargetKind | Literal["several"]
    names: tuple[str, ...]
    tasks: dict[str, TargetEncoder] = field(default_factory=dict[str, TargetEncoder])
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class MultiLabelled:
    """A split with the targets of several tasks.

    Attributes:
        base: The split as it was read.
        target: Under what name all targets of a row stand together.
        targets: For each task and row, the index of its class, -1 if that is not known; or N x K, its labels or
            numbers, NaN if they are not.
    """

    base: Table
    target: str
    targets: Mapping[str, npt.NDArray[Any]]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.base)

    def row(self, index: int) -> dict[str, Any]:
        """Return one row."""
        return {**self.base.row(index), self.target: self._of(index)}

    def column(self, name: str) -> Sequence[Any]:
        """Return the values of one column."""
        if name != self.target:
            return self.base.column(name)
        return [self._of(index) for index in range(len(self))]

    def _of(self, index: int) -> dict[str, Any]:
        return {name: values[index] for name, values in self.targets.items()}


def is_known(targets: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Tell for each row whether its target is known, N.

    Args:
        targets: Of one task: N indices of classes, or N x K.
    """
    if targets.ndim == 1:
        return targets != NO_CLASS
    return np.logical_not(np.isnan(targets).any(axis=1))


def encode_targets(
    tables: Mapping[str, Table],
    choice: ColumnSelection,
    config: DataConfig,
    known: KnownNames | None,
) -> LabelledSplits:
    """Turn the targets of every split into indices or vectors, and find what they are and how they are called.

    Args:
        tables: The splits as they were read.
        choice: Which columns are targets.
        config: What the user said about them.
        known: What a trained model knows. None: it is found in the first split.

    Raises:
        ValueError: If a target is missing or of another kind; of several tasks, if one has no target at all.
    """
    if len(choice.tasks) > 1:
        return _label_several(tables, choice, config, known)
    assert choice.target is not None
    names = tuple(known or ())
    splits: dict[str, MapStyleSplit] = {}
    notes: list[str] = []
    told = (describe_classes(names),)
    reader: TargetEncoder | None = None
    target, wanted = choice.target, wanted_kind(choice, config, choice.target)
    for split, table in tables.items():
        values = table.column(target) if target in table.fields else [None]
        is_number = (reader.kind if reader else wanted) == "number"
        marks = ("",) if is_number else ("", -1)
        if split != "train" and all(is_missing(value, marks=marks) for value in values):
            notes.append(_left_out(split, table))
            continue
        holds = table.fields[target]
        if reader is None:
            reader, told = find_targets(
                values,
                holds,
                target,
                table=table.name,
                kind=wanted,
                names=None if known is None else names,
            )
        reader = replace(reader, holds=holds)
        found = [reader(value, table.where(row)) for row, value in enumerate(values)]
        splits[split] = Labelled(table, target, reader.stacked(found))
    if reader is None:
        return LabelledSplits(splits, "class", names, notes=(*told, *notes))
    return LabelledSplits(splits, reader.kind, reader.names, notes=(*told, *notes))


def _label_several(
    tables: Mapping[str, Table],
    choice: ColumnSelection,
    config: DataConfig,
    known: KnownNames | None,
) -> LabelledSplits:
    assert choice.target is not None
    notes: list[str] = []
    readers: dict[str, TargetEncoder] = {}
    targets: dict[str, dict[str, npt.NDArray[Any]]] = {split: {} for split in tables}
    for task in choice.tasks:
        names = known.get(task) if isinstance(known, Mapping) else None
        first = next(table for table in tables.values() if task in table.fields)
        reader, told = _reader_of(first, task, wanted_kind(choice, config, task), names)
        readers[task] = reader
        notes += [f"{task}: {note}" for note in told]
        for split, table in tables.items():
            targets[split][task] = _read_all(table, reader)
            count = int((~is_known(targets[split][task])).sum())
            if count:
                notes.append(f"{task}: {count:,} of {len(table):,} rows of {split} have no label.")
    splits: dict[str, MapStyleSplit] = {}
    for split, table in tables.items():
        if split != "train" and not any(is_known(found).any() for found in targets[split].values()):
            notes.append(_left_out(split, table))
            continue
        splits[split] = MultiLabelled(table, choice.target, targets[split])
    return LabelledSplits(splits, "several", tuple(readers), readers, tuple(notes))


def _reader_of(
    table: Table, task: str, kind: Any, names: Sequence[str] | None
) -> tuple[TargetEncoder, tuple[str, ...]]:
    """Return what reads the targets of a task, and sentences about them.

    Raises:
        ValueError: If it has none.
    """
    values, holds = table.column(task), table.fields[task]
    filled = [value for value in values if not is_missing(value, marks=_marks(holds))]
    if names is None and not filled:
        msg = (
            f"Column '{task}' of {table.name} is empty in all of its {len(values):,} rows, so there is nothing to "
            "learn for this task. Leave it out of --label."
        )
        raise ValueError(msg)
    return find_targets(filled or values, holds, task, table=table.name, kind=kind, names=names)


def _read_all(table: Table, reader: TargetEncoder) -> npt.NDArray[Any]:
    """Return the targets of all rows; those that are missing are marked."""
    task = reader.column
    nothing: Any = NO_CLASS
    if reader.kind != "class":
        nothing = np.full(len(reader.names), np.nan, dtype=np.float32)
    if task not in table.fields:
        return reader.stacked([nothing] * len(table))
    reader = replace(reader, holds=table.fields[task])
    marks = _marks(reader.holds)
    # An empty text names none of several labels: it is an answer, as it is where they are the only task.
    says_none = reader.kind == "labels" and bool(reader.separator)
    found = [
        nothing
        if is_missing(value, marks=marks) and not says_none
        else reader(value, table.where(row))
        for row, value in enumerate(table.column(task))
    ]
    return reader.stacked(found)


def _marks(holds: Field) -> tuple[Any, ...]:
    """Return what says that a cell is empty; -1 where classes are named, as Hugging Face writes it."""
    return ("", -1) if holds.names else ("",)


def wanted_kind(choice: ColumnSelection, config: DataConfig, column: str) -> Any:
    """Return what a target column is said to hold: by its own word, else by the one that holds for all."""
    return choice.tasks.get(column) or config.target


def _left_out(split: str, table: Table) -> str:
    return f"Left out: {split}, as none of its {len(table):,} rows has a label."
