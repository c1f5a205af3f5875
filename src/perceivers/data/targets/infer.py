"""What the target of a sample is: one class, several labels or numbers; and how a cell becomes it."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from perceivers.data.tables.table import Field
from perceivers.data.targets.classes import (
    ClassIndex,
    class_names,
    describe_classes,
    label_name,
    quantity,
    sort_names,
)

__all__ = ["Moments", "TargetEncoder", "TargetKind", "find_targets", "is_missing", "moments"]

TargetKind = Literal["class", "labels", "number"]
Moments = tuple[tuple[float, ...], tuple[float, ...]]
Vector = npt.NDArray[np.float32]

_SEPARATORS = (";", "|", ",")
_LOOKED_AT = 1000  # lists by whose content it is told what they are
_MANY_LABELS = 20  # rows from which labels of which most occur once are taken for texts


@dataclass(frozen=True)
class TargetEncoder:
    """Turns the cells of a target column into targets.

    Attributes:
        kind: One class (an index), several labels (a vector of 0 and 1), or numbers (a vector).
        names: Of the classes, of the labels, or of the numbers.
        column: The target column.
        holds: What it holds in the split that is read.
        separator: Stands between the labels of a text. "": cells are lists.
        is_dense: The labels are given as 0 or 1 for each, not as a list of those that there are.
    """

    kind: TargetKind
    names: tuple[str, ...]
    column: str
    holds: Field
    separator: str = ""
    is_dense: bool = False
    _classes: ClassIndex = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_classes", ClassIndex(self.names, self.column, self.holds))

    def __call__(self, value: Any, where: str) -> int | Vector:
        """Return the index of the class, or a vector of as many numbers as there are names.

        Args:
            value: The cell.
            where: Table and row, for messages.

        Raises:
            ValueError: If the target is missing, or is nothing of this kind.
        """
        if self.kind == "class":
            return self._classes(value, where)
        if self.kind == "number" or self.is_dense:
            return self._numbers(value, where)
        found = np.zeros(len(self.names), dtype=np.float32)
        for label in _labels_of(value, self.separator, self.names):
            found[self._classes(label, where)] = 1.0
        if value is None and not self.separator:
            msg = (
                f"{where} has no labels: column '{self.column}' is empty there. Give an empty list if it has none of "
                "the labels, or remove the row."
            )
            raise ValueError(msg)
        return found

    def stacked(self, targets: Sequence[int | Vector]) -> npt.NDArray[np.int64] | Vector:
        """Return the targets of all rows as one array: N indices, or N x K."""
        if self.kind == "class":
            return np.asarray(targets, dtype=np.int64)
        return np.stack(cast("Sequence[Vector]", targets))

    def _numbers(self, value: Any, where: str) -> Vector:
        count = len(self.names)
        what = "labels of 0 or 1" if self.is_dense else "number" if count == 1 else "numbers"
        if is_missing(value):
            msg = f"{where} has no {what}: column '{self.column}' is empty there. Fill it in, or remove the row."
            raise ValueError(msg)
        try:
            with np.errstate(over="ignore"):
                numbers = np.atleast_1d(np.asarray(value, dtype=np.float64)).astype(np.float32)
        except (TypeError, ValueError) as error:
            msg = f"{where}: expected {count} {what} in column '{self.column}', got {value!r:.60}."
            raise ValueError(msg) from error
        if numbers.shape != (count,):
            shape = " x ".join(map(str, numbers.shape))
            msg = (
                f"{where}: expected {count} {what} in column '{self.column}', as many as in the first row of train, "
                f"got {shape}."
            )
            raise ValueError(msg)
        wrong = ~np.isin(numbers, (0, 1)) if self.is_dense else ~np.isfinite(numbers)
        if wrong.any():
            known = (
                "neither 0 nor 1, as the labels of other rows are" if self.is_dense else "no number"
            )
            msg = f"{where}: {numbers[wrong][0]} in column '{self.column}' is {known}."
            raise ValueError(msg)
        return numbers


def find_targets(
    values: Sequence[Any],
    holds: Field,
    column: str,
    *,
    table: str,
    kind: Literal["auto", "class", "labels", "number", "nothing"] = "auto",
    names: Sequence[str] | None = None,
) -> tuple[TargetEncoder, tuple[str, ...]]:
    """Return what reads the targets of a column, and sentences on what was seen in it.

    Args:
        values: The column in train.
        holds: What it holds.
        column: Its name.
        table: Name of the table, for messages.
        kind: What the targets are. `auto`: lists of names, or of indices of different number, are labels, and so are
            lists of 0 and 1 that are no indices; other lists and numbers with fractions are quantities.
        names: Classes, labels or numbers that a trained model knows. By default those of these values.

    Raises:
        ValueError: If the values are nothing of this kind, or there is nothing to tell apart in them.
    """
    label = f"Column '{column}' of {table}"
    known = tuple(names) if names is not None else None
    chosen = _kind_of(values, holds, known, label) if kind == "auto" else kind
    if chosen == "class":
        if any(_is_list(value) for value in values):
            msg = f"{label} holds lists: expected one class a row. Several labels a row are --target labels."
            raise ValueError(msg)
        classes = class_names(values, holds, label) if known is None else known
        return TargetEncoder("class", classes, column, holds), (describe_classes(classes),)
    if chosen == "labels":
        return _find_labels(values, holds, column, known, label)
    hint = ""
    first = next((value for value in values if _is_list(value)), ())
    if kind == "auto" and len(first) and all(float(number).is_integer() for number in first):
        hint = " If they are indices of labels, say --target labels."
    return _find_numbers(values, holds, column, known, label, hint)


def is_missing(value: Any, *, marks: Sequence[Any] = ("",)) -> bool:
    """Tell whether a cell holds nothing.

    Args:
        value: The cell.
        marks: Values that say so, beside None.
    """
    return value is None or (isinstance(value, str | int | float) and value in marks)


def moments(targets: Vector) -> Moments:
    """Return mean and standard deviation (1 where it is 0) of each of several numbers.

    Args:
        targets: N x K.
    """
    wide = targets.astype(np.float64)
    std = wide.std(axis=0)
    return tuple(wide.mean(axis=0).tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray)


def _labels_of(value: Any, separator: str, names: Sequence[str]) -> list[Any]:
    """Return the single labels that stand in a cell."""
    if is_missing(value):
        return []
    if _is_list(value):
        return [label.item() if isinstance(label, np.generic) else label for label in value]
    if not isinstance(value, str) or not separator or value in names:
        return [value]
    return [part.strip() for part in value.split(separator) if part.strip()]


def _kind_of(
    values: Sequence[Any], holds: Field, known: tuple[str, ...] | None, label: str
) -> TargetKind:
    lists = [value for value in values if _is_list(value)]
    if not lists:
        return "number" if known is None and quantity(values, holds) is not None else "class"
    looked_at = lists[:_LOOKED_AT]
    cells = [cell for value in looked_at for cell in np.asarray(value, dtype=object).reshape(-1)]
    if any(isinstance(cell, str) for cell in cells) or _is_multi_hot(lists):
        return "labels"
    whole = all(float(cell).is_integer() for cell in cells if isinstance(cell, int | float))
    if len({len(value) for value in lists}) == 1 and not holds.names:
        return "number"
    if whole:
        return "labels"
    msg = (
        f"{label} holds lists of numbers with fractions, of different lengths: neither labels nor equally many "
        "quantities a row. Name another column with --label."
    )
    raise ValueError(msg)


def _is_multi_hot(lists: Sequence[Any]) -> bool:
    """Tell whether lists say yes or no to each label: 0 and 1 only, and in a way that no list of indices does."""
    if len({len(value) for value in lists}) != 1:
        return False
    try:
        table = np.asarray(lists[:_LOOKED_AT], dtype=np.float64)
    except (TypeError, ValueError):
        return False
    if table.ndim != 2 or table.shape[1] < 2 or not np.isin(table, (0, 1)).all():
        return False
    # A list of indices names none twice.
    return table.shape[1] > 2 or bool((table[:, 0] == table[:, 1]).any())


def _find_labels(
    values: Sequence[Any],
    holds: Field,
    column: str,
    known: tuple[str, ...] | None,
    label: str,
) -> tuple[TargetEncoder, tuple[str, ...]]:
    lists = [value for value in values if _is_list(value)]
    if lists and _is_multi_hot(lists):
        names = known or holds.names or tuple(map(str, range(len(lists[0]))))
        reader = TargetEncoder("labels", names, column, holds, is_dense=True)
        return reader, (_describe_labels(names),)
    texts = [value for value in values if isinstance(value, str)]
    separator = ""
    if texts and not lists:
        separator = next((mark for mark in _SEPARATORS if any(mark in text for text in texts)), ";")
    cells = [cell for value in values for cell in _labels_of(value, separator, known or ())]
    names = known or holds.names
    if not names:
        found = {label_name(cell, holds, label) for cell in cells} - {None}
        names = tuple(sort_names(cast("set[str]", found)))
        if not names:
            msg = f"{label} names no label in any of its {len(values)} rows: there is nothing to learn."
            raise ValueError(msg)
        if len(values) >= _MANY_LABELS and len(names) > len(cells) / 2:
            msg = (
                f"{label} has {len(names)} different labels in {len(values)} rows, such as '{names[0]:.40}': rather "
                "texts than labels. Name another column with --label."
            )
            raise ValueError(msg)
    notes = [_describe_labels(names)]
    none = sum(not _labels_of(value, separator, names) for value in values)
    if none:
        notes.append(f"{none:,} of {len(values):,} rows have none of the labels.")
    return TargetEncoder("labels", names, column, holds, separator=separator), tuple(notes)


def _find_numbers(
    values: Sequence[Any],
    holds: Field,
    column: str,
    known: tuple[str, ...] | None,
    label: str,
    hint: str,
) -> tuple[TargetEncoder, tuple[str, ...]]:
    first = next((value for value in values if not is_missing(value)), None)
    names: tuple[str, ...] = (column,)
    if known is not None:
        names = known
    elif _is_list(first):
        names = tuple(f"{column}[{index}]" for index in range(len(cast("list[Any]", first))))
    reader = TargetEncoder("number", names, column, holds)
    filled = [value for value in values if not is_missing(value)]
    numbers: list[Vector] = []
    for value in filled:
        with suppress(ValueError):  # the row is named when its target is read
            numbers.append(cast("Vector", reader(value, label)))
    if not numbers or not names:
        got = f", such as {first!r:.60}" if filled else ""
        msg = f"{label} holds no numbers in its {len(values)} rows{got}: there is nothing to learn."
        raise ValueError(msg)
    low, high = np.min(numbers, axis=0), np.max(numbers, axis=0)
    if known is None and len(numbers) == len(filled) and (low == high).any():
        at = int((low == high).argmax())
        msg = f"{label}: '{names[at]}' is {low[at]:g} in all rows, so there is nothing to learn."
        raise ValueError(msg)
    ranges = [f"{n} ({a:g} to {b:g})" for n, a, b in zip(names, low, high, strict=True)]
    shown = ", ".join(ranges[:20]) + (", ..." if len(ranges) > 20 else "")
    what = "a number" if len(names) == 1 else f"{len(names)} numbers"
    return reader, (f"{label} holds {what} to learn: {shown}.{hint}",)


def _describe_labels(names: Sequence[str]) -> str:
    return describe_classes(names, "labels, several in a row")
