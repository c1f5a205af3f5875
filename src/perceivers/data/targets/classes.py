"""Values of a target column -> indices of classes: which classes there are, and which row is of which."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from perceivers.data.tables.table import Field, Table

__all__ = [
    "ClassIndex",
    "Labelled",
    "class_names",
    "describe_classes",
    "label_name",
    "quantity",
    "sort_names",
]

_INTEGER = re.compile(r"-?(0|[1-9]\d*)")
_FEW_NUMBERS = 20  # different fractions that may still be grades, not a quantity
_MANY_ROWS = 20  # rows from which a class for every second row is taken for a mistake
_SHOWN = 20  # names in a message


@dataclass(frozen=True)
class Labelled:
    """A split whose target column holds what a loss compares with.

    Attributes:
        base: The split as it was read.
        target: The target column.
        targets: For each row, the index of its class; or N x K, its labels or numbers.
    """

    base: Table
    target: str
    targets: npt.NDArray[np.int64] | npt.NDArray[np.float32]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.base)

    def row(self, index: int) -> dict[str, Any]:
        """Return one row."""
        target = self.targets[index]
        return {
            **self.base.row(index),
            self.target: target if self.targets.ndim > 1 else int(target),
        }

    def column(self, name: str) -> Sequence[Any]:
        """Return the values of one column."""
        if name != self.target:
            return self.base.column(name)
        return list(self.targets) if self.targets.ndim > 1 else self.targets.tolist()


@dataclass(frozen=True)
class ClassIndex:
    """Turns the value of a label into the index of its class.

    Attributes:
        names: The known classes, in the order of their indices.
        column: The target column.
        holds: What it holds.
    """

    names: tuple[str, ...]
    column: str
    holds: Field
    _known: dict[str, int] = field(init=False, repr=False)
    _numbered: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_known", {name: index for index, name in enumerate(self.names)})
        # Whole numbers without names, where the known classes have names, are indices of these.
        numbered = not self.holds.names and not any(_INTEGER.fullmatch(name) for name in self.names)
        object.__setattr__(self, "_numbered", numbered)

    def __call__(self, value: Any, where: str) -> int:
        """Return the index of the class.

        Args:
            value: The cell.
            where: Table and row, for messages.

        Raises:
            ValueError: If the label is missing, or is none of the known ones.
        """
        name = label_name(value, self.holds, where)
        if name is None:
            msg = f"{where} has no label: column '{self.column}' is empty there. Fill it in, or remove the row."
            raise ValueError(msg)
        index = self._known.get(name)
        if (
            index is None
            and self._numbered
            and _INTEGER.fullmatch(name)
            and 0 <= int(name) < len(self.names)
        ):
            index = int(name)
        if index is None:
            msg = (
                f"{where} has the label '{name}', which was not seen in training, where there were "
            )
            msg += describe_classes(self.names)
            raise ValueError(msg)
        return index


def label_name(value: Any, field: Field, where: str) -> str | None:
    """Return the name of the class that a cell stands for; None where it is missing.

    Args:
        value: The cell.
        field: What its column holds.
        where: Table and row, for messages.

    Raises:
        ValueError: If the column names its classes and the value is not one of their indices.
    """
    if value is None or value == "":
        return None
    if field.names and isinstance(value, int | float):
        if value == -1:  # how Hugging Face writes that a test split keeps its labels to itself
            return None
        if value != int(value) or not 0 <= value < len(field.names):
            msg = f"{where}: the label {value} is no index of {len(field.names)} named classes (0 is the first)."
            raise ValueError(msg)
        return field.names[int(value)]
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def class_names(values: Sequence[Any], field: Field, label: str) -> tuple[str, ...]:
    """Return the names of the classes in their order: as the data name them, else sorted, numbers by size.

    Args:
        values: The target column of train.
        field: What it holds.
        label: What to call it in messages.

    Raises:
        ValueError: If the column holds a quantity or an identifier rather than classes, or only one class.
    """
    names = {label_name(value, field, label) for value in values}
    known = sort_names(name for name in names if name is not None)
    if len(known) == 1:
        msg = (
            f"{label} has one class only, '{known[0]}', in all {len(values)} rows: there is nothing to tell apart. "
            "Expected at least two classes."
        )
        raise ValueError(msg)
    if field.names:
        return field.names
    found = quantity(values, field)
    if found is not None:
        msg = (
            f"{label} holds {found}: a quantity, not classes. Expected whole numbers or names; name another column "
            "with --label, or learn the number itself with --target number."
        )
        raise ValueError(msg)
    if len(values) >= _MANY_ROWS and len(known) > len(values) / 2:
        msg = (
            f"{label} has {len(known)} different values in {len(values)} rows, such as '{known[0]:.40}': rather an "
            "identifier or a text than a class. Name another column with --label, or say what it is with --target "
            "(labels: several in a cell; number: a quantity)."
        )
        raise ValueError(msg)
    return tuple(known)


def quantity(values: Sequence[Any], field: Field) -> str | None:
    """Return, in words, which numbers show that a column holds a quantity; None where it may hold classes.

    Args:
        values: The target column.
        field: What it holds.
    """
    if field.names:
        return None
    fractions = [value for value in values if isinstance(value, float) and not value.is_integer()]
    known = {label_name(value, field, "") for value in values} - {None}
    if not fractions or len(known) <= min(_FEW_NUMBERS, len(values) / 2):
        return None
    return f"{len(known)} different numbers with fractions, such as {fractions[0]:g}"


def sort_names(names: Iterable[str]) -> list[str]:
    """Return names sorted, numbers by size and before words."""
    return sorted(names, key=_order)


def describe_classes(names: Sequence[str], noun: str = "classes") -> str:
    """Return a sentence on which classes there are."""
    return (
        f"{len(names)} {noun}: {', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}."
    )


def _order(name: str) -> tuple[int, int, str]:
    return (0, int(name), name) if _INTEGER.fullmatch(name) else (1, 0, name)
