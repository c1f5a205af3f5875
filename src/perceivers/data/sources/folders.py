"""Folders as tables: a folder per class, a metadata table beside the files, image pairs, or just files."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from perceivers.data.base import nearest, split_of
from perceivers.data.formats.files import read_files
from perceivers.data.registry import is_media, kind_of_name, media_kinds, noun_of
from perceivers.data.tables.table import ColumnTable, Field, Subset, Table

_INPUTS = ("images", "image", "inputs", "input")
_TARGETS = ("masks", "mask", "targets", "target", "annotations", "labels")


def media_files(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder, sorted within each folder. Hidden files are skipped."""
    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_unreadable):
        state = Path(place).stat()
        if (state.st_dev, state.st_ino) in seen:  # a link to a parent
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(files) if not name.startswith("."))


def _unreadable(error: OSError) -> None:
    raise type(error)(f"The folder '{error.filename}' cannot be read: {error.strerror}.") from error


def class_table(folder: Path) -> tuple[Table, list[str]]:
    """Return the files of a folder of classes, with the folder's name as `label`; and notes."""
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    paths, others = _scan(classes)
    labels = [path.relative_to(folder).parts[0] for path in paths]
    return _table(folder, paths, others, {"label": labels})


def file_table(folder: Path) -> tuple[Table, list[str]]:
    """Return the files of a folder without labels; and notes."""
    paths, others = _scan([folder])
    return _table(folder, paths, others, {})


def one_file(path: Path) -> Table:
    """Return a single file as a table of one row, without labels."""
    return _table(path.parent, [path], [], {})[0]


def _scan(folders: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the files of known and of unknown kinds below some folders."""
    files = [path for folder in folders for path in media_files(folder)]
    known = [path for path in files if kind_of_name(path.name) in media_kinds()]
    return known, [path for path in files if kind_of_name(path.name) not in media_kinds()]


def _table(
    folder: Path,
    paths: Sequence[Path],
    others: Sequence[Path],
    columns: Mapping[str, Sequence[Any]],
) -> tuple[Table, list[str]]:
    """Return the files of the most frequent kind as a table, and a note about the others."""
    kinds = [str(kind_of_name(path.name)) for path in paths]
    media = [kind for path, kind in zip(paths, kinds, strict=True) if is_media(path.name)]
    kind = Counter(media or kinds).most_common(1)[0][0]
    chosen = [i for i, k in enumerate(kinds) if k == kind]
    left = [*others, *(paths[i] for i, k in enumerate(kinds) if k != kind)]
    notes: list[str] = []
    if left:
        names = ", ".join(str(path.relative_to(folder)) for path in left[:3])
        notes = [f"Left out of {folder} (not {noun_of(kind)}): {len(left)} files, such as {names}."]
    cells = {name: [values[i] for i in chosen] for name, values in columns.items()}
    table = ColumnTable(
        name=str(folder),
        columns={kind: [str(paths[i].relative_to(folder)) for i in chosen], **cells},
        fields={kind: Field(kind, by_path=True), **{name: Field("string") for name in cells}},
        folder=folder,
    )
    return table, notes


def metadata_table(folder: Path) -> tuple[Table, list[str]]:
    """Return the table `metadata.csv`, `.jsonl` or `.parquet` of a folder; its `file_name` names files of the folder.

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
    notes: list[str] = []
    if left:
        notes = [f"Left out (not in {paths[0].name}): {len(left)} files, such as {left[0]}."]
    return table, notes


def metadata_splits(table: Table) -> dict[str, Table]:
    """Return the splits of a metadata table whose files are all in folders called train, validation or test."""
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
    """Return the folder of images and that of their masks or target images, if a folder has just these two.

    Args:
        entries: Entries of the folder.
    """
    folders = {entry.name.lower(): entry for entry in entries if entry.is_dir()}
    inputs = [folders[name] for name in _INPUTS if name in folders]
    targets = [folders[name] for name in _TARGETS if name in folders]
    if len(inputs) != 1 or len(targets) != 1 or len(folders) != 2:
        return None
    both = {path.stem for path in _images(inputs[0])} & {path.stem for path in _images(targets[0])}
    return (inputs[0], targets[0]) if both else None


def image_pair_table(folder: Path) -> tuple[ColumnTable, list[str]]:
    """Return a table of two columns, `image` and `mask` or `target`, with a row per image; and notes.

    An image without a target has an empty cell, and is a bad row in training.
    """
    pair = find_image_pair(sorted(folder.iterdir()))
    assert pair is not None
    inputs, targets = pair
    partners = {path.stem: path for path in _images(targets)}
    name = "mask" if targets.name.lower() in {"masks", "mask"} else "target"
    images = _images(inputs)
    found = [partners.pop(path.stem, None) for path in images]
    columns = {
        "image": [str(path.relative_to(folder)) for path in images],
        name: [None if path is None else str(path.relative_to(folder)) for path in found],
    }
    notes: list[str] = []
    alone = sum(path is None for path in found)
    if alone:
        notes.append(f"{alone:,} of {len(found):,} images in {inputs} have no {name}.")
    if partners:
        first = next(iter(partners.values())).name
        notes.append(f"Left out of {targets} (no such image): {len(partners):,}, such as {first}.")
    fields = {column: Field("image", by_path=True) for column in columns}
    return ColumnTable(name=str(folder), columns=columns, fields=fields, folder=folder), notes


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if kind_of_name(path.name) == "image")
