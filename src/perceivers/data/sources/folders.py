"""Folders as tables: a folder per class, a metadata table beside the files, image pairs, or just files.

`media_files` is the one rule for the content of a folder, for training and prediction.
"""

import glob
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from perceivers.data.base import is_hidden, nearest, split_of
from perceivers.data.formats.files import read_files
from perceivers.data.registry import is_media, kind_of_name, media_kinds, noun_of
from perceivers.data.tables.table import ColumnTable, Field, Subset, Table
from perceivers.escaping import escape_surrogates
from perceivers.wording import counted

_INPUTS = ("images", "image", "inputs", "input")
_TARGETS = ("masks", "mask", "targets", "target", "annotations", "labels")
_TARGET_STEM = re.compile(
    r"(?P<image>.+)[_. -](?P<kind>masks?|segmentation|seg|labels?|gt|annotation|target)",
    re.IGNORECASE,
)


def media_files(folder: Path, hidden: list[Path] | None = None) -> Iterator[Path]:
    """Yield every file below a folder, sorted within each folder. Links are followed.

    Args:
        folder: The folder.
        hidden: Hidden files and folders, which are skipped, are appended to it.
    """
    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_unreadable):
        state = Path(place).stat()
        if (state.st_dev, state.st_ino) in seen:  # a link to a parent
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        if hidden is not None:
            hidden += (Path(place, name) for name in (*folders, *files) if is_hidden(name))
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield from (Path(place, name) for name in sorted(files) if not is_hidden(name))


def files_of_kinds(folder: Path, kinds: Collection[str], nouns: str) -> tuple[list[Path], str]:
    """Return the files of some modalities below a folder, and a sentence about those that are skipped, or "".

    Masks beside their images are skipped.

    Args:
        folder: The folder.
        kinds: The modalities.
        nouns: Their content, for the sentence: "images".
    """
    hidden: list[Path] = []
    files = list(media_files(folder, hidden))
    pairs = find_image_pairs([p for p in folder.iterdir() if not is_hidden(p.name)])
    targets = () if pairs is None else set(pairs.targets.values())
    found = [p for p in files if kind_of_name(p.name) in kinds and p not in targets]
    others = sorted(set(files).difference(found))
    hidden = [path for path in hidden if path.is_dir() or kind_of_name(path.name) in kinds]
    words: list[str] = []
    if others:
        count = counted(len(others), "file")
        words.append(f"{count} not read as {nouns} ({_examples(folder, others)})")
    if hidden:
        words.append(f"{len(hidden)} hidden ({_examples(folder, hidden)})")
    return found, f"Skipped in '{folder}': {' and '.join(words)}." if words else ""


def _examples(folder: Path, paths: Sequence[Path]) -> str:
    names = ", ".join(str(path.relative_to(folder)) for path in paths[:3])
    return f"{names}, ..." if len(paths) > 3 else names


def expand_pattern(text: str) -> list[Path]:
    """Return the paths that match a glob pattern, sorted; hidden ones only if the pattern names the dot.

    Folders at the beginning that exist under a name with brackets are taken literally.
    """
    parts = Path(text).expanduser().parts
    base, rest = Path(), list(parts)
    while rest and (base / rest[0]).exists():
        base /= rest.pop(0)
    if not rest:
        return [base]
    for tail in (str(Path(*rest)), str(Path(*rest)).replace("[", "[[]")):
        found = glob.glob(tail, root_dir=base, recursive=True)  # noqa: PTH207
        if found:
            return sorted(base / name for name in found)
    return []


def _unreadable(error: OSError) -> None:
    raise type(error)(f"The folder '{error.filename}' cannot be read: {error.strerror}.") from error


def class_table(folder: Path) -> tuple[Table, list[str]]:
    """Return the files of a folder of classes, with the folder's name as `label`; and notes."""
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not is_hidden(p.name))
    paths, others = _scan(classes)
    # A class has a name of characters in every file and message, also if its folder's name is not UTF-8.
    labels = [escape_surrogates(path.relative_to(folder).parts[0].strip()) for path in paths]
    table, notes = _table(folder, paths, others, {"label": labels})
    padded = [f"'{p.name}'" for p in classes if p.name != p.name.strip()]
    if padded:
        notes.append(f"Blanks around names of classes are dropped: {', '.join(padded)}.")
    return table, notes


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
        count = counted(len(left), "file")
        notes = [f"Left out of {folder} (not {noun_of(kind)}): {count}, such as {names}."]
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
        count = counted(len(left), "file")
        notes = [f"Left out (not in {paths[0].name}): {count}, such as {left[0]}."]
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


@dataclass(frozen=True, slots=True)
class ImagePairs:
    """Images and their masks or target images.

    Attributes:
        images: The images, sorted.
        targets: The masks or target images by the stem of their image.
        name: Column of the targets: `mask` or `target`.
    """

    images: list[Path]
    targets: dict[str, Path]
    name: str


def find_image_pairs(entries: Sequence[Path]) -> ImagePairs | None:
    """Return the images and their targets, if a folder holds just these.

    They lie in two folders (`images/1.jpg` with `masks/1.png` or `masks/1_mask.png`) or in one (`1.jpg` with
    `1_mask.png`).

    Args:
        entries: Entries of the folder.
    """
    folders = {entry.name.lower(): entry for entry in entries if entry.is_dir()}
    inputs = [folders[name] for name in _INPUTS if name in folders]
    targets = [folders[name] for name in _TARGETS if name in folders]
    if not folders:
        return _image_pairs_of_one_folder(entries)
    if len(inputs) != 1 or len(targets) != 1 or len(folders) != 2:
        return None
    images, found = _images(inputs[0].iterdir()), _images(targets[0].iterdir())
    stems = {path.stem for path in images}
    partners = {_image_stem(path, stems): path for path in found}
    name = "mask" if targets[0].name.lower() in {"masks", "mask"} else "target"
    return ImagePairs(images, partners, name) if stems & set(partners) else None


def _image_pairs_of_one_folder(entries: Sequence[Path]) -> ImagePairs | None:
    """Return the pairs of files such as `1.jpg` and `1_mask.png`, if most images have such a target."""
    files = _images(entries)
    stems = {path.stem for path in files}
    targets = {stem: path for path in files if (stem := _image_stem(path, stems)) != path.stem}
    images = [path for path in files if path not in targets.values()]
    if not targets or len(targets) * 2 < len(images):
        return None
    kinds = [
        match["kind"] for path in targets.values() if (match := _TARGET_STEM.fullmatch(path.stem))
    ]
    is_mask = all(kind.lower() not in {"target", "gt"} for kind in kinds)
    return ImagePairs(images, targets, "mask" if is_mask else "target")


def _image_stem(target: Path, stems: Collection[str]) -> str:
    """Return the stem of a target's image: `1` of `1_mask.png` if there is such an image, else its own."""
    match = _TARGET_STEM.fullmatch(target.stem)
    return match["image"] if match and match["image"] in stems else target.stem


def image_pair_table(folder: Path) -> tuple[ColumnTable, list[str]]:
    """Return a table of two columns, `image` and `mask` or `target`, with a row per image; and notes.

    An image without a target has an empty cell, and is a bad row in training.
    """
    pairs = find_image_pairs(sorted(p for p in folder.iterdir() if not is_hidden(p.name)))
    assert pairs is not None
    partners = dict(pairs.targets)
    found = [partners.pop(path.stem, None) for path in pairs.images]
    columns = {
        "image": [str(path.relative_to(folder)) for path in pairs.images],
        pairs.name: [None if path is None else str(path.relative_to(folder)) for path in found],
    }
    notes: list[str] = []
    alone = sum(path is None for path in found)
    if alone:
        where = pairs.images[0].parent
        has = "has" if alone == 1 else "have"
        notes.append(
            f"{alone:,} of {counted(len(found), 'image')} in {where} {has} no {pairs.name}."
        )
    if partners:
        first = next(iter(partners.values()))
        notes.append(
            f"Left out of {first.parent} (no such image): {len(partners):,}, such as {first.name}."
        )
    fields = {column: Field("image", by_path=True) for column in columns}
    return ColumnTable(name=str(folder), columns=columns, fields=fields, folder=folder), notes


def _images(entries: Iterable[Path]) -> list[Path]:
    return sorted(p for p in entries if kind_of_name(p.name) == "image" and not is_hidden(p.name))
