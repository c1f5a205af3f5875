"""Folders of files as tables: one folder for each class, a table of metadata beside the files, or just files."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from perceivers.data.base import nearest, split_of
from perceivers.data.formats.files import read_files
from perceivers.data.registry import is_media, kind_of_name, media_kinds, noun_of
from perceivers.data.tables.table import ColumnTable, Field, Subset, Table

_SHOWN = ("images", "image", "inputs", "input")
_LEARNED = ("masks", "mask", "targets", "target", "annotations", "labels")


def media_files(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder, sorted within each folder. Hidden ones are passed over."""
    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_unreadable):
        state = Path(place).stat()
        if (state.st_dev, state.st_ino) in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(files) if not name.startswith("."))


def _unreadable(error: OSError) -> None:
    raise type(error)(f"The folder '{error.filename}' cannot be read: {error.strerror}.") from error


def class_table(folder: Path) -> tuple[Table, list[str]]:
    """Return the files of a folder of classes, with the folder's name as `label`; and notes."""
    paths: list[Path] = []
    labels: list[str] = []
    others: list[Path] = []
    for place in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        for path in media_files(place):
            if kind_of_name(path.name) in media_kinds():
                paths.append(path)
                labels.append(place.name)
            else:
                others.append(path)
    return _table(folder, paths, others, {"label": labels})


def one_file(path: Path) -> Table:
    """Return a single file as a table of one row, without labels."""
    return _table(path.parent, [path], [], {})[0]


def file_table(folder: Path) -> tuple[Table, list[str]]:
    """Return the files of a folder without labels; and notes."""
    paths: list[Path] = []
    others: list[Path] = []
    for path in media_files(folder):
        (paths if kind_of_name(path.name) in media_kinds() else others).append(path)
    return _table(folder, paths, others, {})


def _table(
    folder: Path,
    paths: Sequence[Path],
    others: Sequence[Path],
    columns: Mapping[str, Sequence[Any]],
) -> tuple[Table, list[str]]:
    """Take the kind of which there are most, and say what is left out."""
    kinds = [kind_of_name(path.name) for path in paths]
    media = [kind for path, kind in zip(paths, kinds, strict=True) if is_media(path.name)]
    kind = Counter(media or kinds).most_common(1)[0][0]
    chosen = [i for i, k in enumerate(kinds) if k == kind]
    left = [*others, *(paths[i] for i, k in enumerate(kinds) if k != kind)]
    notes: list[str] = []
    if left:
        names = ", ".join(str(path.relative_to(folder)) for path in left[:3])
        notes = [
            f"Left out of {folder} (not {noun_of(str(kind))}): {len(left)} files, such as {names}."
        ]
    cells = {name: [values[i] for i in chosen] for name, values in columns.items()}
    table = ColumnTable(
        name=str(folder),
        columns={str(kind): [str(paths[i].relative_to(folder)) for i in chosen], **cells},
        fields={
            str(kind): Field(str(kind), by_path=True),
            **{name: Field("string") for name in cells},
        },
        folder=folder,
    )
    return table, notes


def metadata_table(folder: Path) -> tuple[Table, list[str]]:
    """Return the table `metadata.csv`, `.jsonl` or `.parquet` of a folder, whose `file_name` names files there.

    Raises:
        ValueError: If there are several such tables, or no column of file names.
    """
    paths = [p for s in ("csv", "jsonl", "parquet") if (p := folder / f"metadata.{s}").is_file()]
    if len(paths) > 1:
        raise ValueError(f"'{folder}' holds {' and '.join(p.name for p in paths)}. Keep one.")
    table = read_files(paths)
    named = [c for c in table.fields if c == "file_name" or c.endswith("_file_name")]
    if not named and not any(field.kind in media_kinds() for field in table.fields.values()):
        hint = nearest("file_name", table.fields)
        raise ValueError(
            f"{paths[0]} has no column 'file_name'.{hint} Its columns are {', '.join(table.fields)}."
        )
    listed: set[str] = set()
    for column in named:
        listed |= {str(Path(str(cell))) for cell in table.column(column) if cell is not None}
    files = [str(path.relative_to(folder)) for path in media_files(folder) if is_media(path.name)]
    left = [name for name in files if name not in listed] if named else []
    notes = (
        [f"Left out (not in {paths[0].name}): {len(left)} files, such as {left[0]}."]
        if left
        else []
    )
    return table, notes


def metadata_splits(table: Table) -> dict[str, Table]:
    """Return the splits of a metadata table whose files all lie in folders called train, validation or test."""
    if "file_name" not in table.fields:
        return {"train": table}
    first = [
        split_of(Path(str(cell)).parts[0]) if cell else None for cell in table.column("file_name")
    ]
    if None in first:
        return {"train": table}
    names = cast("list[str]", first)
    order = [split for split in ("train", "validation", "test") if split in names]
    return {
        split: Subset(table, [i for i, name in enumerate(names) if name == split])
        for split in order
    }


def find_image_pair(entries: Sequence[Path]) -> tuple[Path, Path] | None:
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


def image_pair_table(folder: Path) -> tuple[ColumnTable, list[str]]:
    """Return a table of two columns, `image` and `mask` or `target`, a row for each picture; and notes.

    A picture whose partner is missing has an empty cell, and is a bad row when it is learned from.
    """
    pair = find_image_pair(sorted(folder.iterdir()))
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
