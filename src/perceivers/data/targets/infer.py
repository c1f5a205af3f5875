"""Kind of a target column (one class, several labels, or numbers), and the encoder of its cells."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from perceivers.data.tables.numbers import NumberFormat, is_missing_spelling
from perceivers.data.tables.table import Field
from perceivers.data.targets.classes import (
    INTEGER,
    class_names,
    describe_classes,
    is_count,
    label_name,
    quantity,
    quantity_hint,
    sort_names,
)
from perceivers.wording import counted

TargetKind = Literal["class", "labels", "number"]
Moments = tuple[tuple[float, ...], tuple[float, ...]]
Vector = npt.NDArray[np.float32]

_SEPARATORS = (";", "|", ",")
_LOOKED_AT = 1000  # evenly spaced lists that decide what all are
_MANY_LABELS = 20  # rows from which labels that mostly occur once are taken for texts


class UnknownClassError(ValueError):
    """A class or label that was not seen in training."""


@dataclass(frozen=True)
class TargetEncoder:
    """Encodes the cells of a target column.

    Attributes:
        kind: One class (encoded as an index), several labels (a vector of 0 and 1), or numbers (a vector).
        names: Names of the classes, labels or numbers.
        column: Name of the column.
        field: Content of the column in the split that is read.
        separator: Separator of the labels in a text. "": cells are lists.
        is_dense: Cells hold 0 or 1 for each label instead of a list of labels.
    """

    kind: TargetKind
    names: tuple[str, ...]
    column: str
    field: Field
    separator: str = ""
    is_dense: bool = False

    @cached_property
    def _indices(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}

    @cached_property
    def _accepts_indices(self) -> bool:
        """Whether whole numbers are indices: if the known classes have names and these numbers have none."""
        return not self.field.names and not any(INTEGER.fullmatch(name) for name in self.names)

    def is_missing(self, value: Any) -> bool:
        """Return whether a cell has no target. An empty text among texts of several labels means none of them."""
        if self.kind == "labels" and self.separator:
            return False
        if isinstance(value, str) and self.kind == "number":
            return is_missing_spelling(value)
        marks = ("", -1) if self.field.names else ("",)
        return is_missing(value, marks=marks) or (isinstance(value, str) and not value.strip())

    def __call__(self, value: Any, where: str) -> int | Vector:
        """Return the class index, or a vector with one number per name.

        Args:
            value: The cell.
            where: Table and row, for messages.

        Raises:
            UnknownClassError: If a class or label was not seen in training.
            ValueError: If the target is missing or of another kind.
        """
        if self.kind == "class":
            return self._class_index(value, where)
        if self.kind == "number" or self.is_dense:
            return self._numbers(value, where)
        found = np.zeros(len(self.names), dtype=np.float32)
        for label in _labels_of(value, self.separator, self.names):
            found[self._class_index(label, where)] = 1.0
        if value is None and not self.separator:
            raise ValueError(
                f"{where} has no labels: column '{self.column}' is empty there. Give an empty list if it has none of "
                "the labels, or remove the row."
            )
        return found

    def _class_index(self, value: Any, where: str) -> int:
        name = label_name(value, self.field, where)
        if name is None:
            raise ValueError(
                f"{where} has no label: column '{self.column}' is empty there. Fill it in, or remove the row."
            )
        if name in self._indices:
            return self._indices[name]
        if self._accepts_indices and INTEGER.fullmatch(name) and 0 <= int(name) < len(self.names):
            return int(name)
        msg = f"{where} has the label '{name}', which was not seen in training, where there were "
        raise UnknownClassError(msg + describe_classes(self.names))

    def stacked(self, targets: Sequence[int | Vector]) -> npt.NDArray[np.int64] | Vector:
        """Stack the targets of all rows: N indices, or N x K."""
        if self.kind == "class":
            return np.asarray(targets, dtype=np.int64)
        return np.stack(cast("Sequence[Vector]", targets))

    def _numbers(self, value: Any, where: str) -> Vector:
        count = len(self.names)
        what = "labels of 0 or 1" if self.is_dense else "number" if count == 1 else "numbers"
        if is_missing(value):
            raise ValueError(
                f"{where} has no {what}: column '{self.column}' is empty there. Fill it in, or remove the row."
            )
        try:
            if isinstance(value, str):
                value = (self.field.number or NumberFormat()).parse(value)
            with np.errstate(over="ignore"):
                numbers = np.atleast_1d(np.asarray(value, dtype=np.float64)).astype(np.float32)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{where}: expected {count} {what} in column '{self.column}', got {value!r:.60}."
            ) from error
        if numbers.shape != (count,):
            shape = " x ".join(map(str, numbers.shape))
            raise ValueError(
                f"{where}: expected {count} {what} in column '{self.column}', as many as in the first row of train, "
                f"got {shape}."
            )
        wrong = ~np.isin(numbers, (0, 1)) if self.is_dense else ~np.isfinite(numbers)
        if wrong.any():
            known = (
                "neither 0 nor 1, as the labels of other rows are" if self.is_dense else "no number"
            )
            raise ValueError(f"{where}: {numbers[wrong][0]} in column '{self.column}' is {known}.")
        return numbers


def find_targets(
    values: Sequence[Any],
    field: Field,
    column: str,
    *,
    table: str,
    kind: Literal["auto", "class", "labels", "number", "nothing"] = "auto",
    names: Sequence[str] | None = None,
) -> tuple[TargetEncoder, tuple[str, ...]]:
    """Return the encoder of a target column, and notes about it.

    Args:
        values: Cells of the column in train.
        field: Content of the column.
        column: Name of the column.
        table: Name of the table, for messages.
        kind: Kind of the targets. `auto`: lists of names, or of indices of different number, are labels, and so are
            lists of 0 and 1 that cannot be indices; other lists, numbers with fractions and whole numbers with gaps
            and few rows each are quantities.
        names: Classes, labels or numbers of a trained model. By default those of the values.

    Raises:
        ValueError: If the values are not of this kind, or all the same.
    """
    label = f"Column '{column}' of {table}"
    known = tuple(names) if names is not None else None
    chosen = _kind_of(values, field, known, label) if kind == "auto" else kind
    if chosen == "class":
        if any(_is_list(value) for value in values):
            raise ValueError(
                f"{label} holds lists: expected one class a row. Several labels a row are --target labels."
            )
        classes = class_names(values, field, label) if known is None else known
        is_guess = kind == "auto" and known is None and not field.names
        hint = quantity_hint(values, classes) if is_guess else ""
        notes = tuple(note for note in (describe_classes(classes), hint) if note)
        return TargetEncoder("class", classes, column, field), notes
    if chosen == "labels":
        return _find_labels(values, field, column, known, label)
    hint = ""
    first = next((value for value in values if _is_list(value)), ())
    if kind == "auto" and len(first) and all(float(number).is_integer() for number in first):
        hint = " If they are indices of labels, say --target labels."
    elif kind == "auto" and is_count(values, field):
        hint = " If they are codes of classes, say --target class."
    return _find_numbers(values, field, column, known, label, hint)


def is_missing(value: Any, *, marks: Sequence[Any] = ("",)) -> bool:
    """Return True for an empty cell: None, or one of `marks`."""
    return value is None or (isinstance(value, str | int | float) and value in marks)


def moments(targets: Vector) -> Moments:
    """Return mean and standard deviation (1 instead of 0) of each of K numbers; `targets` is N x K."""
    wide = targets.astype(np.float64)
    std = wide.std(axis=0)
    return tuple(wide.mean(axis=0).tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray)


def _labels_of(value: Any, separator: str, names: Sequence[str]) -> list[Any]:
    """Return the labels of a cell."""
    if is_missing(value):
        return []
    if _is_list(value):
        return [label.item() if isinstance(label, np.generic) else label for label in value]
    if not isinstance(value, str) or not separator or value in names:
        return [value]
    return [part.strip() for part in value.split(separator) if part.strip()]


def _kind_of(
    values: Sequence[Any], field: Field, known: tuple[str, ...] | None, label: str
) -> TargetKind:
    lists = [value for value in values if _is_list(value)]
    if not lists:
        is_number = known is None and (
            quantity(values, field) is not None or is_count(values, field)
        )
        return "number" if is_number else "class"
    looked_at = lists[:: max(1, len(lists) // _LOOKED_AT)]
    cells = [cell for value in looked_at for cell in np.asarray(value, dtype=object).reshape(-1)]
    if any(isinstance(cell, str) for cell in cells) or _is_multi_hot(lists):
        return "labels"
    whole = all(float(cell).is_integer() for cell in cells if isinstance(cell, int | float))
    if len({len(value) for value in lists}) == 1 and not field.names:
        return "number"
    if whole:
        return "labels"
    raise ValueError(
        f"{label} holds lists of numbers with fractions, of different lengths: neither labels nor equally many "
        "quantities a row. Name another column with --label."
    )


def _is_multi_hot(lists: Sequence[Any]) -> bool:
    """Return True for lists with 0 or 1 for each label that cannot be lists of indices."""
    if len({len(value) for value in lists}) != 1:
        return False
    try:
        table = np.asarray(lists[:: max(1, len(lists) // _LOOKED_AT)], dtype=np.float64)
    except (TypeError, ValueError):
        return False
    if table.ndim != 2 or table.shape[1] < 2 or not np.isin(table, (0, 1)).all():
        return False
    # A list of indices names none twice.
    return table.shape[1] > 2 or bool((table[:, 0] == table[:, 1]).any())


def _find_labels(
    values: Sequence[Any],
    field: Field,
    column: str,
    known: tuple[str, ...] | None,
    label: str,
) -> tuple[TargetEncoder, tuple[str, ...]]:
    lists = [value for value in values if _is_list(value)]
    if lists and _is_multi_hot(lists):
        names = known or field.names or tuple(map(str, range(len(lists[0]))))
        encoder = TargetEncoder("labels", names, column, field, is_dense=True)
        return encoder, (_describe_labels(names),)
    texts = [value for value in values if isinstance(value, str)]
    separator = ""
    if texts and not lists:
        separator = next((mark for mark in _SEPARATORS if any(mark in text for text in texts)), ";")
    cells = [cell for value in values for cell in _labels_of(value, separator, known or ())]
    names = known or field.names
    if not names:
        found = {label_name(cell, field, label) for cell in cells} - {None}
        names = tuple(sort_names(cast("set[str]", found)))
        if not names:
            raise ValueError(
                f"{label} names no label in any of its {len(values)} rows: there is nothing to learn."
            )
        if len(values) >= _MANY_LABELS and len(names) > len(cells) / 2:
            raise ValueError(
                f"{label} has {len(names)} different labels in {len(values)} rows, such as '{names[0]:.40}': rather "
                "texts than labels. Name another column with --label."
            )
    notes = [_describe_labels(names)]
    none = sum(not _labels_of(value, separator, names) for value in values)
    if none:
        notes.append(
            f"{none:,} of {counted(len(values), 'row')} {'has' if none == 1 else 'have'} none of the labels."
        )
    return TargetEncoder("labels", names, column, field, separator=separator), tuple(notes)


def _find_numbers(
    values: Sequence[Any],
    field: Field,
    column: str,
    known: tuple[str, ...] | None,
    label: str,
    hint: str,
) -> tuple[TargetEncoder, tuple[str, ...]]:
    values = [None if _is_na(value) else value for value in values]
    first = next((value for value in values if not is_missing(value)), None)
    names: tuple[str, ...] = (column,)
    if known is not None:
        names = known
    elif _is_list(first):
        names = tuple(f"{column}[{index}]" for index in range(len(cast("list[Any]", first))))
    encoder = TargetEncoder("number", names, column, field)
    filled = [value for value in values if not is_missing(value)]
    numbers: list[Vector] = []
    for value in filled:
        with suppress(ValueError):  # reported with its row when it is encoded
            numbers.append(cast("Vector", encoder(value, label)))
    if not numbers or not names:
        got = f", such as {first!r:.60}" if filled else ""
        raise ValueError(
            f"{label} holds no numbers in its {len(values)} rows{got}: there is nothing to learn."
        )
    low, high = np.min(numbers, axis=0), np.max(numbers, axis=0)
    if known is None and len(numbers) == len(filled) and (low == high).any():
        at = int((low == high).argmax())
        raise ValueError(
            f"{label}: '{names[at]}' is {low[at]:g} in all rows, so there is nothing to learn."
        )
    ranges = [f"{n} ({a:g} to {b:g})" for n, a, b in zip(names, low, high, strict=True)]
    shown = ", ".join(ranges[:20]) + (", ..." if len(ranges) > 20 else "")
    what = "a number" if len(names) == 1 else f"{len(names)} numbers"
    return encoder, (f"{label} holds {what} to learn: {shown}.{hint}",)


def _is_na(value: Any) -> bool:
    return isinstance(value, str) and is_missing_spelling(value)


def _describe_labels(names: Sequence[str]) -> str:
    return describe_classes(names, "labels, several in a row")
