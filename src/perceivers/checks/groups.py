"""Groups of rows (a patient, a session) on both sides of a split, and columns that state the label."""

import math
import re
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from perceivers.checks.finding import Finding
from perceivers.checks.scan import ScannedRow
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.sources.bundle import DatasetBundle

_GROUP_NAME = re.compile(
    r"(^|[_\W])(subject|patient|person|speaker|singer|user|customer|client|session|recording|record|video|clip|scene|"
    r"site|hospital|author|family|group|participant|device|source|src|fsid|game|match|trip|batch)s?"
    r"([_\W]?(id|no|nr|num|number|name|key))?$|_id$",
    re.IGNORECASE,
)
_FEWEST = 3  # values of a column of groups
_PER_GROUP = 1.5  # rows that a group has on average, at least
_PARTS = re.compile(r"[-_. ]+")
_MOST_CLASSES = 0.5  # share of the rows beyond which a column is a key, not a group


def check_groups(source: DatasetBundle) -> Iterator[Finding]:
    """Yield findings about columns that are not used and look like groups whose rows lie on both sides of a split."""
    for column in source.ignored:
        if not _GROUP_NAME.search(column):
            continue
        values = _column(source, column)
        found = _crossing(values)
        if found is None:
            continue
        count, total, other, shared = found
        yield Finding(
            kind="group",
            severity="warning",
            message=f"{count:,} of the {total:,} values of '{column}' occur in train and in {other}"
            f" (such as {shared}): if rows of one {column} are alike, the figures are too good. "
            f"--group {column} keeps them on one side.",
        )


def check_names(rows: Sequence[ScannedRow]) -> Iterator[Finding]:
    """Yield a finding if file names begin with a number or code that many rows of several splits share."""
    by_split: dict[str, list[Hashable]] = defaultdict(list)
    labels = {row.name.label for row in rows}
    for row in rows:
        parts = _PARTS.split(_stem(row.name.name))
        if len(parts) < 2:
            return
        by_split[row.name.split].append(parts[0])
    names = {name for values in by_split.values() for name in values}
    is_code = all(re.search(r"\d", str(name)) for name in names)
    found = _crossing(by_split)
    if found is None or not is_code or len(names) <= len(labels):
        return
    count, total, other, shared = found
    yield Finding(
        kind="group",
        severity="info",
        message=f"{count:,} of the {total:,} first parts of the file names ('{shared}-...') occur in train and in "
        f"{other}. If files that share it come from one recording, person or object, the figures are too good: list "
        "the files in a table with that part as a column, and name it by --group.",
    )


def check_leaks(source: DatasetBundle, rows: Sequence[ScannedRow]) -> Iterator[Finding]:
    """Yield findings about input columns of tables, each of whose values belongs to one class."""
    targets = {(row.name.split, row.name.row): row.target for row in rows if row.target is not None}
    if len(set(targets.values())) < 2:
        return
    for modality, part in source.inputs.items():
        for column in part.columns:
            classes: dict[Hashable, set[int]] = defaultdict(set)
            count = 0
            for split, table in source.splits.items():
                for index in range(len(table)):
                    value = _plain(table.row(index).get(column))
                    if value is not None and (split, index) in targets:
                        classes[value].add(int(targets[split, index] or 0))
                        count += 1
            is_key = len(classes) > _MOST_CLASSES * max(count, 1)
            if len(classes) < 2 or is_key or any(len(found) > 1 for found in classes.values()):
                continue
            yield Finding(
                kind="leak",
                severity="warning",
                message=f"Each of the {len(classes):,} values of the input '{column}' ({modality}) occurs with one "
                "class only: it states the label. Leave it out (--columns) if it is unknown for new rows.",
            )


def _plain(cell: Any) -> Hashable | None:
    value = cell.value if isinstance(cell, EncodedItem) else cell
    if isinstance(value, float) and math.isnan(value):
        return None
    return value if isinstance(value, str | int | float) else None


def _column(source: DatasetBundle, column: str) -> dict[str, list[Hashable]]:
    """Return the known values of a column by split; empty where a split lacks it."""
    found: dict[str, list[Hashable]] = {}
    for split, table in source.splits.items():
        try:
            values: Sequence[Any] = table.column(column)
        except (KeyError, ValueError):
            continue
        found[split] = [one for one in map(_plain, values) if one not in (None, "")]
    return found


def _crossing(values: Mapping[str, Sequence[Hashable]]) -> tuple[int, int, str, Any] | None:
    """Return the number of groups in train and another split, of all groups, that split, and one of them."""
    train = set(values.get("train", ()))
    every = {value for part in values.values() for value in part}
    count = sum(map(len, values.values()))
    if len(every) < _FEWEST or count < _PER_GROUP * len(every):
        return None
    for other in ("test", "validation"):
        shared = train & set(values.get(other, ()))
        if shared:
            return len(shared), len(every), other, min(shared, key=str)
    return None


def _stem(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2].partition(".")[0]
