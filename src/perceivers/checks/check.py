"""All checks of a data set, for `perceivers check`, and the cheap ones, for the start of `fit`."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from perceivers.checks.duplicates import find_duplicates
from perceivers.checks.finding import Finding, RowName
from perceivers.checks.groups import check_groups, check_leaks, check_names
from perceivers.checks.labels import check_classes, check_labels, count_classes
from perceivers.checks.scan import ScannedRow, scan_rows
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.fingerprint import value_fingerprint
from perceivers.recipes.files import find_recipe
from perceivers.recipes.registry import Recipe
from perceivers.recipes.resolve import ResolvedRun, resolve
from perceivers.wording import counted

_QUICK_ROWS = 20_000  # compared at the start of `fit`
_QUICK_BYTES = 2**26  # of files of one size, hashed at the start of `fit`
_ORDER = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """Content and findings of a data set.

    Attributes:
        form: Description of the recognized form.
        rows: Number of rows of each split.
        classes: Number of rows of each class in each split.
        inputs: Kind of each input.
        target: Target column or None.
        recipe: Name of the recipe that `fit` would use.
        notes: Sentences about the data and the choices made.
        findings: Findings, serious ones first.
    """

    form: str
    rows: Mapping[str, int]
    classes: Mapping[str, Mapping[str, int]]
    inputs: Mapping[str, str]
    target: str | None
    recipe: str
    notes: Sequence[str]
    findings: Sequence[Finding]

    @property
    def has_errors(self) -> bool:
        """Whether a finding makes figures or training wrong."""
        return any(one.severity == "error" for one in self.findings)


def check_data(
    data: Any,
    recipe: str | Path | Recipe | None = None,
    *,
    threads: int | None = None,
    **overrides: Any,
) -> CheckReport:
    """Check data before training: unreadable rows, duplicates, labels, groups on both sides of a split.

    Args:
        data: As in `fit`.
        recipe: As in `fit`.
        threads: Threads that decode. By default one for each core.
        overrides: As in `fit`: `label="species"`, `group="patient"`.

    Raises:
        KeyError: If there is no such recipe or field. The message names the nearest.
        ValueError: If the data cannot be learned from, or are streamed.
        OSError: If they cannot be read.
    """
    chosen = None if recipe is None else find_recipe(recipe)
    run = resolve(data, chosen, overrides=overrides)
    return check(run, threads=threads or os.cpu_count() or 1)


def check(run: ResolvedRun, *, threads: int = 1) -> CheckReport:
    """Read every row once and return what was found.

    Args:
        run: Recipe, preprocessing and data, as `resolve` returns them.
        threads: Threads that decode.

    Raises:
        ValueError: If the data are streamed.
    """
    source = run.data
    rows = scan_rows(run, threads=threads)
    counts = count_classes(source)
    found = [
        *check_readable(rows, run.recipe.data.max_bad),
        *check_classes(counts),
        *find_duplicates(rows),
        *check_groups(source),
        *check_names(rows),
        *check_leaks(source, rows),
        *check_labels(rows, source.label_names),
    ]
    return CheckReport(
        form=source.form,
        rows={split: len(part) for split, part in source.splits.items()},
        classes=counts,
        inputs={name: part.kind for name, part in source.inputs.items()},
        target=source.target,
        recipe=run.recipe.name,
        notes=tuple(filter(None, (*source.notes, run.reason))),
        findings=sorted(found, key=lambda one: _ORDER[one.severity]),
    )


def quick_check(run: ResolvedRun) -> list[Finding]:
    """Return the findings that need no decoding: classes, groups, and equal files or texts in two splits.

    Files are compared by size first, and only those of equal size are read.
    """
    source = run.data
    if source.streams:
        return []
    found = [*check_classes(count_classes(source)), *check_groups(source)]
    found += [
        one
        for one in find_duplicates(list(_suspects(run)))
        if len({name.split for names in one.groups for name in names}) > 1
    ]
    return [one for one in found if one.severity != "info"]


def _suspects(run: ResolvedRun) -> Iterator[ScannedRow]:
    """Yield the rows whose inputs are as large as those of another row, with their fingerprints."""
    source = run.data
    if sum(map(len, source.splits.values())) > _QUICK_ROWS:
        return
    targets = {split: _class_targets(run, split) for split in source.splits}
    by_size: dict[tuple[int, ...], list[tuple[str, int, Mapping[str, Any]]]] = {}
    for split, table in source.splits.items():
        for index in range(len(table)):
            try:
                raw = table.row(index)
                cells = {key: cell for key, cell in raw.items() if key != source.target}
                sizes = tuple(_size(cell) for cell in cells.values())
            except (OSError, ValueError, KeyError):
                continue
            if any(size < 0 for size in sizes):
                return  # reading the cells takes time
            by_size.setdefault(sizes, []).append((split, index, cells))
    remaining = _QUICK_BYTES
    for sizes, members in by_size.items():
        remaining -= sum(sizes) * len(members) if len(members) > 1 else 0
        if len(members) < 2 or remaining < 0:
            continue
        for split, index, cells in members:
            target = targets[split][index] if targets[split] else None
            label = None if target is None else source.label_names[target]
            named = [cell.name for cell in cells.values() if isinstance(cell, EncodedItem)]
            where = named[0] if named else f"{split} row {index}"
            name = RowName(split=split, row=index, name=where, label=label)
            try:
                fingerprint = value_fingerprint(cells)
            except (OSError, ValueError):
                continue
            yield ScannedRow(name=name, target=target, fingerprint=fingerprint, inputs={})


def _class_targets(run: ResolvedRun, split: str) -> list[int | None]:
    source = run.data
    if source.target is None or source.target_kind != "class":
        return []
    try:
        return [None if target < 0 else target for target in source.targets(split)]
    except (ValueError, KeyError):
        return []


def _size(cell: Any) -> int:
    """Return the size of a cell without reading it; -1 if that is not possible."""
    if isinstance(cell, EncodedItem):
        if cell.path is not None:
            return cell.path.stat().st_size
        if cell.data is not None:
            return -1
        cell = cell.value if cell.array is None else cell.array
    if isinstance(cell, np.ndarray):
        return int(cell.nbytes)
    return len(cell) if isinstance(cell, str | bytes) else 8


def check_readable(rows: Sequence[ScannedRow], max_bad: float) -> Iterator[Finding]:
    """Yield a finding about rows that cannot be read; an error if `fit` would stop because of them."""
    bad = [replace(row.name, note=row.error) for row in rows if row.error]
    if not bad:
        return
    share = len(bad) / len(rows)
    limit = f"more than the {max_bad:.1%} that --max-bad allows" if share > max_bad else "skipped"
    yield Finding(
        kind="unreadable",
        severity="error" if share > max_bad else "warning",
        message=f"{counted(len(bad), 'row')} of {len(rows):,} cannot be read ({share:.1%}, {limit}).",
        groups=[[name] for name in bad],
    )
