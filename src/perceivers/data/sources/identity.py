"""Identity of the rows of a run: which rows were trained on and held out, also after the data have changed."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import fspath
from pathlib import Path
from typing import Any

from perceivers.data.base import MapStyleSplit, open_regular
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.fingerprint import bytes_fingerprint, value_fingerprint
from perceivers.data.streaming.stream import Stream
from perceivers.data.tables.columns import InputColumn

WHOLE_FILES = 20_000
"""Number of rows up to which files are compared by content, above it by size."""

_SAMPLE = 64 * 1024  # bytes at the beginning, in the middle and at the end of a file
_DIGITS = 16  # of a fingerprint


@dataclass(frozen=True, slots=True)
class RowIdentity:
    """One row: its key, the fingerprint of its inputs, and its label.

    Attributes:
        key: Path of its files below the folder of the data, or, without files, the fingerprint of its inputs.
        content: Fingerprint of its inputs: of large files, of their size and a part of their content.
        label: Name of its class, or the fingerprint of another target.
        split: `train` or `validation`; of folds, `fold-0` for the rows that the first one holds out.
        present: Whether the row is in the data now: one that was removed is remembered.
    """

    key: str
    content: str
    label: str
    split: str = "train"
    present: bool = True


@dataclass(frozen=True, kw_only=True)
class SavedSplits:
    """Rows of a run and the split of each.

    Attributes:
        rows: All rows of train and validation since the run began.
        held_out: Whether validation was held out of train, and not given by the data.
        takes_new: Whether rows that are new since then are divided, too. Otherwise they are in neither split.
        folds: Number of folds. 0: a single validation split.
    """

    rows: Sequence[RowIdentity]
    held_out: bool
    takes_new: bool = True
    folds: int = 0

    def divide(self, rows: Sequence[RowIdentity], fraction: float, seed: int) -> list[str | None]:
        """Return the split of each row: that of the run, found by its key or, after it was renamed, by its content.

        A row that is new gets that of its content, if it is a copy, or else one by a hash of its key; or None.
        """
        by_key, now = {row.key: row.split for row in self.rows}, {row.key for row in rows}
        known = [row for row in self.rows if self.takes_new or row.key not in now]
        # Of equal contents in both splits, a renamed one counts as trained on.
        order = sorted(known, key=lambda row: row.split == "train")
        by_content = {row.content: row.split for row in order}
        found: list[str | None] = []
        for row in rows:
            split = by_key.get(row.key) or by_content.get(row.content)
            if split is None and self.takes_new:
                split = self._new(row.key, fraction, seed)
            found.append(split)
        return found

    def _new(self, key: str, fraction: float, seed: int) -> str:
        """Return the split of a row that is new since the split was drawn: a function of its key alone."""
        if self.folds:
            return fold_name(int(share_of_key(key, seed) * self.folds))
        return "validation" if held_out_by_key(key, fraction, seed) else "train"


def row_identities(
    table: MapStyleSplit,
    inputs: Mapping[str, InputColumn],
    targets: Sequence[Any] | None,
    names: Sequence[str],
    *,
    split: str = "train",
) -> list[RowIdentity]:
    """Return the identity of each row. Rows with equal keys are numbered.

    Args:
        table: The rows.
        inputs: Input columns.
        targets: Target of each row. None: there are no labels.
        names: Class names of integer targets.
        split: Split of the rows.
    """
    columns = list(dict.fromkeys(c for part in inputs.values() for c in part.all_columns))
    folder = _folder_of(table)
    is_whole = len(table) <= WHOLE_FILES
    seen: Counter[str] = Counter()
    found: list[RowIdentity] = []
    for index in range(len(table)):
        paths: list[str] = []
        contents: list[str] = []
        try:
            row = table.row(index)
            for cell in (row.get(name) for name in columns):
                if isinstance(cell, EncodedItem) and cell.path is not None:
                    paths.append(_below(cell.path, folder))
                    contents.append(_file_content(cell.path, is_whole=is_whole))
                else:
                    contents.append(value_fingerprint(cell))
        except (OSError, ValueError, TypeError):  # reported when it is decoded
            contents.append("unreadable")
        content = bytes_fingerprint("\n".join(contents).encode())[:_DIGITS]
        key = " ".join(dict.fromkeys(paths)) or content
        seen[key] += 1
        if seen[key] > 1:
            key = f"{key}#{seen[key]}"
        label = "" if targets is None else _label(targets[index], names)
        found.append(RowIdentity(key, content, label, split))
    return found


def shard_identities(stream: Stream, split: str) -> list[RowIdentity]:
    """Return the identity of each shard of a stream."""
    found: list[RowIdentity] = []
    for shard in stream.shards:
        path = Path(shard.name)
        content = str(shard.num_rows)
        if path.is_file():
            content = _file_content(path, is_whole=True)
        found.append(RowIdentity(path.name, content[:_DIGITS], "", split))
    return found


def held_out_by_key(key: str, fraction: float, seed: int) -> bool:
    """Return whether a row that is new since the split was drawn is held out: a function of its key alone."""
    return share_of_key(key, seed) < fraction


def share_of_key(key: str, seed: int) -> float:
    """Return a number in [0, 1) that is uniform over keys."""
    digest = hashlib.blake2b(
        f"{seed}/{key}".encode("utf-8", "surrogatepass"), digest_size=8
    ).digest()
    return (int.from_bytes(digest) >> 11) / 2**53


def fold_name(index: int) -> str:
    """Return the name of the split of the rows that a fold holds out."""
    return f"fold-{index}"


def _folder_of(split: Any) -> Path | None:
    """Return the folder of the paths in a table, also inside of labelled, divided or chunked rows."""
    while split is not None:
        folder = getattr(split, "folder", None)
        if folder is not None:
            return folder
        split = getattr(split, "base", None) or getattr(split, "split", None)
    return None


def _below(path: Path, folder: Path | None) -> str:
    """Return a path relative to the folder of the data, so that data can be moved as a whole."""
    if folder is not None and path.is_relative_to(folder):
        return fspath(path.relative_to(folder))
    return fspath(path)


def _file_content(path: Path, *, is_whole: bool) -> str:
    size = path.stat().st_size
    if not is_whole:
        return str(size)
    with open_regular(path) as file:
        if size <= 3 * _SAMPLE:
            return bytes_fingerprint(file.read())
        parts = [str(size).encode()]
        for start in (0, size // 2, size - _SAMPLE):
            file.seek(start)
            parts.append(file.read(_SAMPLE))
    return bytes_fingerprint(*parts)


def _label(target: Any, names: Sequence[str]) -> str:
    if isinstance(target, int) and 0 <= target < len(names):
        return names[target]
    return value_fingerprint(target)[:_DIGITS]
