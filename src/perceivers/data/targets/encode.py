"""Encoded target columns of all splits, of one task or several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from perceivers.data.base import DataConfig, MapStyleSplit
from perceivers.data.tables.columns import ColumnSelection
from perceivers.data.tables.numbers import MISSING_SPELLINGS
from perceivers.data.tables.table import Field, NamedRow, Subset, Table
from perceivers.data.targets.classes import describe_classes
from perceivers.data.targets.infer import (
    TargetEncoder,
    TargetKind,
    UnknownClassError,
    find_targets,
    is_missing,
)
from perceivers.wording import counted

KnownNames = Sequence[str] | Mapping[str, Sequence[str]]
"""Classes, labels or numbers of a trained model; of several tasks, those of each by its name."""

_SHOWN = 10  # names in a note
UNKNOWN_CLASS = -1  # unknown numbers and labels are NaN


@dataclass(frozen=True)
class LabelledSplit:
    """A split whose target column holds encoded targets.

    Attributes:
        base: Rows of the split.
        target: Name of the target column.
        targets: N class indices, or N x K labels or numbers. Of several tasks, these by task, -1 or NaN if unknown.
    """

    base: Table
    target: str
    targets: npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.base)

    def row(self, index: int) -> NamedRow:
        """Return one row."""
        row = {**self.base.row(index), self.target: self._target(index)}
        return NamedRow(row, self.base.where(index))

    def column(self, name: str) -> Sequence[Any]:
        """Return the values of one column."""
        if name != self.target:
            return self.base.column(name)
        return [self._target(index) for index in range(len(self))]

    def where(self, index: int) -> str:
        """Return the name of a row in messages."""
        return self.base.where(index)

    def _target(self, index: int) -> Any:
        if isinstance(self.targets, Mapping):
            return {name: values[index] for name, values in self.targets.items()}
        return self.targets[index] if self.targets.ndim > 1 else int(self.targets[index])


@dataclass(frozen=True)
class LabelledSplits:
    """Splits with encoded targets.

    Attributes:
        splits: Splits that have targets.
        kind: Kind of the target.
        names: Names of the classes, labels or numbers; of several tasks, names of the tasks.
        tasks: Encoder of each of several tasks.
        notes: Sentences about the targets.
    """

    splits: dict[str, MapStyleSplit]
    kind: TargetKind | Literal["several"]
    names: tuple[str, ...]
    tasks: dict[str, TargetEncoder] = field(default_factory=dict[str, TargetEncoder])
    notes: tuple[str, ...] = ()


def is_known(targets: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return for each row whether its target is known, N.

    Args:
        targets: Targets of one task: N class indices, or N x K.
    """
    if targets.ndim == 1:
        return targets != UNKNOWN_CLASS
    return np.logical_not(np.isnan(targets).any(axis=1))


def encode_targets(
    tables: Mapping[str, Table],
    choice: ColumnSelection,
    config: DataConfig,
    known: KnownNames | None,
) -> LabelledSplits:
    """Encode the targets of every split, and infer their kind and names from the first. Rows without are skipped.

    Args:
        tables: The splits.
        choice: Target columns.
        config: Kind of the targets, if configured.
        known: Names of a trained model. None: inferred.

    Raises:
        ValueError: If a target is of another kind, or no row has one; of several tasks, if one has no target at all.
    """
    assert choice.target is not None
    if _is_one_hot(choice, config):
        return _encode_one_hot(tables, choice, known)
    if len(choice.tasks) > 1:
        return _encode_tasks(tables, choice, config, known)
    names = tuple(known or ())
    splits: dict[str, MapStyleSplit] = {}
    notes: list[str] = []
    found = (describe_classes(names),)
    encoder: TargetEncoder | None = None
    target, wanted = choice.target, wanted_kind(choice, config, choice.target)
    for split, table in tables.items():
        values = table.column(target) if target in table.fields else [None]
        is_number = (encoder.kind if encoder else wanted) == "number"
        marks = ("",) if is_number else ("", -1)
        if split != "train" and all(is_missing(value, marks=marks) for value in values):
            notes.append(_left_out(split, table))
            continue
        column = table.fields[target]
        if encoder is None:
            encoder, found = find_targets(
                values,
                column,
                target,
                table=table.name,
                kind=wanted,
                names=None if known is None else names,
            )
        encoder = replace(encoder, field=column)
        kept = _known_rows(table, values, encoder, split)
        notes += kept.notes
        rows = table if len(kept.rows) == len(table) else Subset(table, kept.rows)
        splits[split] = LabelledSplit(rows, target, encoder.stacked(kept.targets))
    kind, names = (encoder.kind, encoder.names) if encoder else ("class", names)
    odd = [name for name in names if known is None and name.strip().lower() in MISSING_SPELLINGS]
    if odd and kind != "number":
        notes.append(
            f"Classes that are spelled like missing values: {', '.join(odd)}. If these rows have no label, empty their "
            "cells: they are then skipped."
        )
    return LabelledSplits(splits, kind, names, notes=(*found, *notes))


@dataclass(frozen=True)
class _KnownRows:
    """Rows of a split with a target that can be learned, their targets, and sentences about the others."""

    rows: list[int]
    targets: list[Any]
    notes: list[str]


def _known_rows(
    table: Table, values: Sequence[Any], encoder: TargetEncoder, split: str
) -> _KnownRows:
    """Return the rows that have a target; train defines the classes, so that others may hold further ones.

    Raises:
        ValueError: If no row has a target of the training data, or one is of another kind.
    """
    found = _KnownRows([], [], [])
    empty: list[int] = []
    unknown: dict[str, int] = {}
    first: UnknownClassError | None = None
    for row, value in enumerate(values):
        if encoder.is_missing(value):
            empty.append(row)
            continue
        try:
            found.targets.append(encoder(value, table.where(row)))
            found.rows.append(row)
        except UnknownClassError as error:
            first = first or error
            unknown[str(value)] = unknown.get(str(value), 0) + 1
    if not found.rows:
        if first is not None:
            raise first
        raise ValueError(
            f"Column '{encoder.column}' of {table.name} is empty in all of its {len(values):,} rows, so there is "
            "nothing to learn. Name another column with --label."
        )
    if empty:
        found.notes.append(
            f"Skipped: {len(empty):,} of {len(values):,} rows of {split} have no label in column "
            f"'{encoder.column}', such as {table.where(empty[0])}."
        )
    if unknown:
        names = ", ".join(f"'{name}' ({count:,})" for name, count in list(unknown.items())[:_SHOWN])
        more = ", ..." if len(unknown) > _SHOWN else ""
        found.notes.append(
            f"Skipped: {sum(unknown.values()):,} of {len(values):,} rows of {split} have a label that is not in the "
            f"training data and cannot be learned: {names}{more}. Metrics do not count them."
        )
    return found


def _is_one_hot(choice: ColumnSelection, config: DataConfig) -> bool:
    """Return whether several target columns are the labels of one task, with 0 or 1 in each."""
    return len(choice.tasks) > 1 and config.target == "labels" and not any(choice.tasks.values())


def _encode_one_hot(
    tables: Mapping[str, Table], choice: ColumnSelection, known: KnownNames | None
) -> LabelledSplits:
    """Encode columns of 0 and 1 as one task with several labels.

    Raises:
        ValueError: If a cell is neither 0 nor 1, or no row has all of them.
    """
    names = tuple(choice.tasks)
    if known is not None and tuple(known) != names:
        raise ValueError(
            f"The model was trained on the labels {', '.join(known)}, and these data have {', '.join(names)}."
        )
    splits: dict[str, MapStyleSplit] = {}
    notes = [describe_classes(names, "labels, several in a row, a column of 0 and 1 each")]
    for split, table in tables.items():
        columns = [
            table.column(name) if name in table.fields else [None] * len(table) for name in names
        ]
        kept: list[int] = []
        targets: list[list[float]] = []
        for row, cells in enumerate(zip(*columns, strict=True)):
            if any(is_missing(cell) for cell in cells):
                continue
            for name, cell in zip(names, cells, strict=True):
                if not isinstance(cell, int | float) or cell not in (0, 1):
                    raise ValueError(
                        f"{table.where(row)}, column '{name}': --target labels of several columns expects 0 or 1 in "
                        f"each of {', '.join(names)}, got {cell!r:.40}. Leave --target out to learn a task of each "
                        "column."
                    )
            kept.append(row)
            targets.append([float(cell) for cell in cells])
        if not kept and split != "train":
            notes.append(_left_out(split, table))
            continue
        if not kept:
            raise ValueError(
                f"No row of {table.name} has 0 or 1 in each of {', '.join(names)}, so there is nothing to learn."
            )
        if len(kept) < len(table):
            count = len(table) - len(kept)
            notes.append(f"Skipped: {count:,} of {len(table):,} rows of {split} lack a label.")
        rows = table if len(kept) == len(table) else Subset(table, kept)
        splits[split] = LabelledSplit(
            rows, choice.target or "", np.asarray(targets, dtype=np.float32)
        )
    return LabelledSplits(splits, "labels", names, notes=tuple(notes))


def _encode_tasks(
    tables: Mapping[str, Table],
    choice: ColumnSelection,
    config: DataConfig,
    known: KnownNames | None,
) -> LabelledSplits:
    notes: list[str] = []
    encoders: dict[str, TargetEncoder] = {}
    targets: dict[str, dict[str, npt.NDArray[Any]]] = {split: {} for split in tables}
    for task in choice.tasks:
        names = known.get(task) if isinstance(known, Mapping) else None
        first = next(table for table in tables.values() if task in table.fields)
        encoder, found = _find_task(first, task, wanted_kind(choice, config, task), names)
        encoders[task] = encoder
        notes += [f"{task}: {note}" for note in found]
        for split, table in tables.items():
            targets[split][task] = _encode_known(table, encoder)
            count = int((~is_known(targets[split][task])).sum())
            if count:
                has, rows = "has" if count == 1 else "have", counted(len(table), "row")
                notes.append(f"{task}: {count:,} of {rows} of {split} {has} no label.")
    splits: dict[str, MapStyleSplit] = {}
    for split, table in tables.items():
        if split != "train" and not any(is_known(part).any() for part in targets[split].values()):
            notes.append(_left_out(split, table))
            continue
        splits[split] = LabelledSplit(table, choice.target or "", targets[split])
    return LabelledSplits(splits, "several", tuple(encoders), encoders, tuple(notes))


def _find_task(
    table: Table, task: str, kind: Any, names: Sequence[str] | None
) -> tuple[TargetEncoder, tuple[str, ...]]:
    """Return the encoder of one of several tasks, some of whose rows may have no target, and notes."""
    values, column = table.column(task), table.fields[task]
    filled = [value for value in values if not is_missing(value, marks=_marks(column))]
    if names is None and not filled:
        raise ValueError(
            f"Column '{task}' of {table.name} is empty in all of its {len(values):,} rows, so there is nothing to "
            "learn for this task. Leave it out of --label."
        )
    return find_targets(filled or values, column, task, table=table.name, kind=kind, names=names)


def _encode_known(table: Table, encoder: TargetEncoder) -> npt.NDArray[Any]:
    """Return the targets of all rows, missing ones as -1 or NaN."""
    missing: Any = UNKNOWN_CLASS
    if encoder.kind != "class":
        missing = np.full(len(encoder.names), np.nan, dtype=np.float32)
    if encoder.column not in table.fields:
        return encoder.stacked([missing] * len(table))
    encoder = replace(encoder, field=table.fields[encoder.column])
    marks = _marks(encoder.field)
    # An empty text means that a row has none of several labels, as if they were the only task.
    empty_is_none = encoder.kind == "labels" and bool(encoder.separator)
    targets: list[Any] = []
    for row, value in enumerate(table.column(encoder.column)):
        if (is_missing(value, marks=marks) or encoder.is_missing(value)) and not empty_is_none:
            targets.append(missing)
            continue
        try:
            targets.append(encoder(value, table.where(row)))
        except UnknownClassError:  # not in train: it cannot be learned
            targets.append(missing)
    return encoder.stacked(targets)


def _marks(column: Field) -> tuple[Any, ...]:
    """Return the values of empty cells; -1 if classes are named, as Hugging Face writes it."""
    return ("", -1) if column.names else ("",)


def wanted_kind(choice: ColumnSelection, config: DataConfig, column: str) -> Any:
    """Return the declared kind of a target column; default: `config.target`."""
    return choice.tasks.get(column) or config.target


def _left_out(split: str, table: Table) -> str:
    return f"Left out: {split}, as none of its {len(table):,} rows has a label."
