"""Two folders side by side, `images/` and `masks/` (or `targets/`): pictures and what is learned of their pixels."""

from collections.abc import Sequence
from pathlib import Path

from perceivers.data.registry import kind_of_name
from perceivers.data.tables.table import ColumnTable, Field

__all__ = ["picture_pair_table", "picture_pairs"]

_SHOWN = ("images", "image", "inputs", "input")
_LEARNED = ("masks", "mask", "targets", "target", "annotations", "labels")


def picture_pairs(entries: Sequence[Path]) -> tuple[Path, Path] | None:
    """Return the folder of pictures and that of what is learned, if these are two such folders.

    Args:
        entries: What lies in a folder.
    """
    folders = {entry.name.lower(): entry for entry in entries if entry.is_dir()}
    shown = [folders[name] for name in _SHOWN if name in folders]
    learned = [folders[name] for name in _LEARNED if name in folders]
    if len(shown) != 1 or len(learned) != 1 or len(folders) != 2:
        return None
    both = {path.stem for path in _pictures(shown[0])} & {p.stem for p in _pictures(learned[0])}
    return (shown[0], learned[0]) if both else None


def picture_pair_table(folder: Path) -> tuple[ColumnTable, list[str]]:
    """Return a table of two columns, `image` and `mask` or `target`, a row for each picture; and notes.

    A picture whose partner is missing has an empty cell, and is a bad row when it is learned from.
    """
    pair = picture_pairs(sorted(folder.iterdir()))
    assert pair is not None
    shown, learned = pair
    partners = {path.stem: path for path in _pictures(learned)}
    name = "mask" if learned.name.lower() in {"masks", "mask"} else "target"
    pictures = _pictures(shown)
    found = [partners.pop(path.stem, None) for path in pictures]
    columns = {
        "image": [str(path.relative_to(folder)) for path in pictures],
        name: [None if path is None else str(path.relative_to(folder)) for path in found],
    }
    notes: list[str] = []
    alone = sum(path is None for path in found)
    if alone:
        notes.append(f"{alone:,} of {len(found):,} pictures in {shown} have no {name}.")
    if partners:
        first = next(iter(partners.values())).name
        notes.append(
            f"Left out of {learned} (no such picture): {len(partners):,}, such as {first}."
        )
    fields = {column: Field("image", by_path=True) for column in columns}
    return ColumnTable(name=str(folder), columns=columns, fields=fields, folder=folder), notes


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if kind_of_name(path.name) == "image")
