"""Splits of a run: the identity of each row, with which resumed runs and evaluations find the same splits again."""

import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from perceivers.data.base import atomic_write
from perceivers.data.fingerprint import bytes_fingerprint
from perceivers.data.sources.identity import WHOLE_FILES, RowIdentity, SavedSplits, fold_name
from perceivers.runs.folder import SPLITS_FILE
from perceivers.wording import counted, names_text

_FORMAT = 1


def write_splits(
    folder: Path, rows: Sequence[RowIdentity], *, held_out: bool, folds: int = 0
) -> None:
    """Write `splits.jsonl.gz` into a run folder: a line of settings, then one line for each row."""
    lines = [json.dumps({"format": _FORMAT, "held_out": held_out, "folds": folds})]
    lines += [json.dumps([r.split, r.key, r.content, r.label, r.present]) for r in rows]
    text = "\n".join(lines) + "\n"
    with atomic_write(folder / SPLITS_FILE) as new:
        new.write_bytes(gzip.compress(text.encode("ascii"), 6, mtime=0))


def read_splits(folder: Path) -> SavedSplits | None:
    """Read `splits.jsonl.gz` in a run folder. None if there is none.

    Raises:
        ValueError: If the file is damaged or of another version.
    """
    path = folder / SPLITS_FILE
    if not path.is_file():
        return None
    try:
        head, *lines = gzip.decompress(path.read_bytes()).decode("ascii").splitlines()
        settings = json.loads(head)
        if settings["format"] != _FORMAT:
            raise ValueError(f"its format is {settings['format']}")
        rows: list[RowIdentity] = []
        for line in lines:
            split, key, content, label, present = json.loads(line)
            rows.append(RowIdentity(key, content, label, split, present))
        return SavedSplits(
            rows=rows, held_out=bool(settings["held_out"]), folds=int(settings.get("folds", 0))
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not what this version of `perceivers fit` wrote ({error}): it is damaged. Without it the "
            "splits of the run are drawn anew: move the file away."
        ) from error


def fingerprint_of(rows: Sequence[RowIdentity]) -> str:
    """Return the fingerprint of the rows of a run: their contents, labels, splits and order."""
    lines = (json.dumps([r.split, r.key, r.content, r.label]) for r in rows if r.present)
    return bytes_fingerprint("\n".join(lines).encode("ascii"))


def with_removed(old: SavedSplits, rows: Sequence[RowIdentity]) -> list[RowIdentity]:
    """Return rows followed by those of a run that are gone, which are never held out if they come back."""
    keys = {row.key for row in rows}
    return [*rows, *(replace(row, present=False) for row in old.rows if row.key not in keys)]


def count_learned(
    source: SavedSplits, rows: Sequence[RowIdentity], *, folds: int = 0
) -> tuple[int, int]:
    """Return the number of validation rows of a run that another one was trained on, and that of its validation rows.

    Of an ensemble, member i is compared with the member of the other run whose weights it starts from: member i, or of
    fewer members counted from the first again.

    Args:
        source: Splits of the other run.
        rows: Rows of this run.
        folds: Number of folds of this run. 0: a single validation split.
    """
    by_content = max(len(source.rows), len(rows)) <= WHOLE_FILES
    learned = held = 0
    for index in range(folds or 1):
        mine = fold_name(index) if folds else "validation"
        theirs = fold_name(index % source.folds) if source.folds else "validation"
        known = {
            _identity(row, by_content=by_content) for row in source.rows if row.split != theirs
        }
        here = [
            _identity(row, by_content=by_content)
            for row in rows
            if row.present and row.split == mine
        ]
        held += len(here)
        learned += sum(one in known for one in here)
    return learned, held


def _identity(row: RowIdentity, *, by_content: bool) -> tuple[str, ...]:
    """Return the content of a row, which is its size alone where there are many files, and then also its key."""
    return (row.content,) if by_content else (row.key, row.content)


def compare_rows(
    old: SavedSplits, rows: Sequence[RowIdentity], folder: Path, *, other_data: bool
) -> str:
    """Compare the rows of a resumed run with those with which it began; return a note on what differs.

    Args:
        old: The saved splits.
        rows: The rows now.
        folder: The run folder.
        other_data: Whether other data are allowed.

    Raises:
        ValueError: If rows were added, removed, changed, relabelled, renamed or reordered, and that is not allowed.
    """
    found = "; ".join(differences([row for row in old.rows if row.present], rows))
    if found and not other_data:
        raise ValueError(
            f"The data have changed since the run in {folder} began: {found}. Expected the data of the run. With "
            "--resume-with-other-data it continues all the same: rows that it has trained on or held out stay in their "
            "splits. A new run needs another --out."
        )
    return f"Resuming with other data, from the next epoch: {found}." if found else ""


def differences(old: Sequence[RowIdentity], new: Sequence[RowIdentity]) -> list[str]:
    """Return phrases on the rows that were added, removed, changed, relabelled, renamed or reordered."""
    before, now = {row.key: row for row in old}, {row.key: row for row in new}
    names = {row.key: _name(row, place) for rows in (old, new) for place, row in enumerate(rows)}
    gone = [row for row in old if row.key not in now]
    come = [row for row in new if row.key not in before]
    found_again: set[str] = set()  # keys of rows that were renamed
    same = [(before[key], now[key]) for key in now if key in before]
    changed = [b.key for a, b in same if a.content != b.content]
    relabelled = [b.key for a, b in same if a.content == b.content and a.label != b.label]
    renamed: list[str] = []
    by_content = {row.content: row for row in gone}
    for row in come:
        other = by_content.pop(row.content, None)
        if other is not None:
            found_again |= {row.key, other.key}
            (renamed if other.label == row.label else relabelled).append(row.key)
    kinds = {
        "added": [row.key for row in come if row.key not in found_again],
        "removed": [row.key for row in gone if row.key not in found_again],
        "changed": changed,
        "relabelled": relabelled,
        "renamed": renamed,
    }
    found = [
        f"{counted(len(keys), 'row')} {word} ({names_text([names[key] for key in keys])})"
        for word, keys in kinds.items()
        if keys
    ]
    if not found and [row.key for row in old] != [row.key for row in new]:
        found = ["the rows have another order"]
    return found


def _name(row: RowIdentity, place: int) -> str:
    """Return the name of a row in messages: its files, or its number."""
    is_number = row.key.rpartition("/")[2].partition("#")[0] == row.content
    return f"row {place + 1:,}" if is_number else row.key
