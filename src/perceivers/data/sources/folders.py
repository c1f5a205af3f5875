"""Folders of files as tables: one folder for each class, a table of metadata beside the files, or just files."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from perceivers.data.base import nearest
from perceivers.data.formats.files import read_files
from perceivers.data.registry import is_media, kind_of_name, media_kinds, noun_of
from perceivers.data.sources.layout import media_files, split_of
from perceivers.data.tables.table import ColumnTable, Field, Subset, Table

__all__ = ["class_table", "file_table", "metadata_splits", "metadata_table", "one_file"]


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
        msg = f"'{folder}' holds {' and '.join(p.name for p in paths)}. Keep one."
        raise ValueError(msg)
    table = read_files(paths)
    named = [c for c in table.fields if c == "file_name" or c.endswith("_file_name")]
    if not named and not any(field.kind in media_kinds() for field in table.fields.values()):
        hint = nearest("file_name", table.fields)
        msg = f"{paths[0]} has no column 'file_name'.{hint} Its columns are {', '.join(table.fields)}."
        raise ValueError(msg)
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
