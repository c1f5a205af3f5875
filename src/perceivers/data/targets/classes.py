"""Class names: which classes a target column holds, and the name of each value."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from perceivers.data.tables.table import Field
from perceivers.escaping import escape_line
from perceivers.wording import counted

INTEGER = re.compile(r"-?(0|[1-9]\d*)")
_FEW_NUMBERS = 20  # distinct fractions that may be grades instead of a quantity
_ROWS_OF_A_CLASS = 10  # on average, from which whole numbers are codes of classes
_MANY_ROWS = 20  # rows from which a class for every second row is taken for a mistake
_SHOWN = 20  # names in a message


def label_name(value: Any, field: Field, where: str) -> str | None:
    """Return the class name of a cell, None if it is missing.

    Args:
        value: The cell.
        field: Its column.
        where: Table and row, for messages.

    Raises:
        ValueError: If the column names its classes and the value is not one of their indices.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if field.names and isinstance(value, int | float):
        if value == -1:  # Hugging Face's mark of a hidden test label
            return None
        if value != int(value) or not 0 <= value < len(field.names):
            raise ValueError(
                f"{where}: the label {value} is no index of {len(field.names)} named classes (0 is the first)."
            )
        return field.names[int(value)]
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def class_names(values: Sequence[Any], field: Field, label: str) -> tuple[str, ...]:
    """Return the class names in order: as the data name them, else sorted, numbers by size.

    Args:
        values: Target column of train.
        field: Its column.
        label: Its name in messages.

    Raises:
        ValueError: If the column holds a quantity or an identifier rather than classes, or only one class.
    """
    filled = [value for value in values if value is not None and value != ""]
    names = {label_name(value, field, label) for value in filled}
    known = sort_names(name for name in names if name is not None)
    if not known:
        raise ValueError(
            f"{label} is empty in all of its {len(values):,} rows, so there is nothing to learn. Name another column "
            "with --label."
        )
    values = filled
    if len(known) == 1:
        raise ValueError(
            f"{label} has one class only, '{known[0]}', in all {counted(len(values), 'row')}: there is nothing to "
            "distinguish. Expected at least two classes."
        )
    if field.names:
        return field.names
    found = quantity(values, field)
    if found is not None:
        raise ValueError(
            f"{label} holds {found}: a quantity, not classes. Expected whole numbers or names; name another column "
            "with --label, or learn the number itself with --target number."
        )
    if len(values) >= _MANY_ROWS and len(known) > len(values) / 2:
        raise ValueError(
            f"{label} has {len(known)} different values in {len(values)} rows, such as '{known[0]:.40}': rather an "
            "identifier or a text than a class. Name another column with --label, or give its kind with --target "
            "(labels: several in a cell; number: a quantity)."
        )
    return tuple(known)


def quantity(values: Sequence[Any], field: Field) -> str | None:
    """Describe the numbers of a column that must be a quantity; None if it may hold classes."""
    if field.names:
        return None
    fractions = [value for value in values if isinstance(value, float) and not value.is_integer()]
    known = {label_name(value, field, "") for value in values} - {None}
    if not fractions or len(known) <= min(_FEW_NUMBERS, len(values) / 2):
        return None
    return f"{len(known)} different numbers with fractions, such as {fractions[0]:g}"


def quantity_hint(values: Sequence[Any], names: Sequence[str]) -> str:
    """Return a sentence on `--target number` if the classes are many different numbers, else nothing."""
    if len(names) <= _FEW_NUMBERS or len(values) >= _ROWS_OF_A_CLASS * len(names):
        return ""
    if any(isinstance(value, str) for value in values if value is not None):
        return ""
    return "If these numbers are a quantity, learn it with --target number."


def is_count(values: Sequence[Any], field: Field) -> bool:
    """Return whether whole numbers are rather a quantity than codes of classes or identifiers.

    Codes of classes follow each other or occur in many rows, and identifiers differ in nearly all rows.
    """
    filled = [
        value
        for value in values
        if value is not None and not (isinstance(value, str) and not value)
    ]
    are_numbers = all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in filled
    )
    if field.names or not are_numbers:
        return False
    known = {float(value) for value in filled}
    if not all(value.is_integer() for value in known) or len(known) <= _FEW_NUMBERS:
        return False
    has_gaps = len(known) < 0.9 * (max(known) - min(known) + 1)
    return has_gaps and len(filled) / _ROWS_OF_A_CLASS < len(known) < 0.95 * len(filled)


def sort_names(names: Iterable[str]) -> list[str]:
    """Sort names, numbers by size and before words."""

    def order(name: str) -> tuple[int, int, str]:
        return (0, int(name), name) if INTEGER.fullmatch(name) else (1, 0, name)

    return sorted(names, key=order)


def describe_classes(names: Sequence[str], noun: str = "classes") -> str:
    """Return a sentence that lists the classes."""
    shown = ", ".join(map(escape_line, names[:_SHOWN]))
    return f"{len(names)} {noun}: {shown}{', ...' if len(names) > _SHOWN else ''}."
