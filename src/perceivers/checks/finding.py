"""Findings about data, with the rows that they concern."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "info"]
"""`error`: figures or training will be wrong. `warning`: worth a look. `info`: good to know."""

Kind = Literal[
    "unreadable", "duplicate", "near_duplicate", "label", "class", "group", "leak", "skipped"
]


@dataclass(frozen=True, kw_only=True)
class RowName:
    """A row of a split.

    Attributes:
        split: `train`, `validation` or `test`.
        row: Number of the row in the split, from 0.
        name: Its file, or its table and line.
        label: Name of its class, if it has one.
        note: Error message or suggested class.
    """

    split: str
    row: int
    name: str
    label: str | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something in the data that a person should know before training.

    Attributes:
        kind: Name of the check.
        severity: Effect on training and figures.
        message: A sentence with the numbers and what to do.
        groups: Rows that belong together: the copies of one sample, or single rows.
    """

    kind: Kind
    severity: Severity
    message: str
    groups: Sequence[Sequence[RowName]] = ()
