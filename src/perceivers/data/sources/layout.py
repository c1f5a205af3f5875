"""Detect the form of data from the names of their files."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from perceivers.data.base import SPLIT_NAMES, is_hidden, split_of
from perceivers.data.formats.huggingface import is_hub_id
from perceivers.data.formats.remote import (
    Location,
    expand_braces,
    expand_remote,
    is_remote,
    suffix_of,
)
from perceivers.data.registry import get_modality, is_media, kind_of_name, media_kinds, noun_of
from perceivers.data.sources.flow_datasets import find_flow_layout
from perceivers.data.sources.folders import (
    expand_pattern,
    find_image_pairs,
    media_files,
)
from perceivers.wording import counted

_FORMATS = {
    ".parquet": "Parquet",
    ".csv": "CSV",
    ".tsv": "TSV",
    ".jsonl": "JSON lines",
    ".json": "JSON",
    ".tar": "WebDataset shards",
    ".npz": "NumPy arrays",
    ".h5": "HDF5",
}
DATA_SUFFIXES = tuple(_FORMATS)
STREAMED = (".parquet", ".tar", ".jsonl", ".csv", ".tsv")
"""Suffixes of files that can be streamed."""

_SUFFIXES = ", ".join(DATA_SUFFIXES)
_SPLIT_STEM = (
    rf"({'|'.join(name for names in SPLIT_NAMES.values() for name in names)})(-.*|[_.]\d.*)?"
)
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_MEDIA_NAME = re.compile(
    rb"\.(jpe?g|png|gif|bmp|webp|tiff?|wav|flac|mp3|ogg|mp4|avi|mov|mkv|webm)\b", re.IGNORECASE
)

Kind = Literal["files", "metadata", "classes", "flat", "saved", "single", "pairs", "targets"]


@dataclass(frozen=True, slots=True)
class SplitLocation:
    """Location of one split: data files, or a folder.

    Attributes:
        kind: `files` (tables, one or several shards), `metadata` (a folder with such a table), `classes` (a folder with
            one folder per class), `flat` (files without labels), `saved` (by `datasets`), `single` (a long text or
            piece of music), `pairs` (of frames), `targets` (images beside their masks or target images).
        paths: The files, or the folder.
    """

    kind: Kind
    paths: tuple[Location, ...]


@dataclass(frozen=True, slots=True)
class DetectedLayout:
    """Detected form of data.

    Attributes:
        form: Description, for messages and reports.
        splits: Location of each split. Undivided data are `train`.
        hub: Id on the Hugging Face hub; `splits` is then empty.
        notes: Sentences about files that were left out.
    """

    form: str
    splits: dict[str, SplitLocation]
    hub: str | None = None
    notes: tuple[str, ...] = ()


def recognize(data: str | Path | Sequence[str | Path]) -> DetectedLayout:
    """Detect the form of the data at a path, remote address, glob or brace pattern, or hub id.

    A path that exists wins over a hub id. A list names the shards of one split.

    Raises:
        ValueError: If nothing is recognized. The message lists what was found.
        FileNotFoundError: If nothing exists there and the name cannot be a hub id.
    """
    if not isinstance(data, str | Path):
        return _list(data)
    text = str(data)
    if is_remote(data):
        return _remote(text)
    path = Path(text).expanduser()
    if path.is_file():
        return _file(path)
    if path.is_dir():
        return _folder(path)
    if any(mark in text for mark in "*?[{"):
        return _pattern(text)
    is_id = isinstance(data, str) and is_hub_id(text, suffixes=DATA_SUFFIXES)
    if is_id and not kind_of_name(text):
        return DetectedLayout("a data set of the Hugging Face hub", {}, hub=text)
    raise FileNotFoundError(
        f"'{text}' does not exist here, and it cannot be the id of a data set on the Hugging Face hub (these look "
        "like 'owner/name', and no folder 'owner' exists here). Check the path."
    )


def _undivided(
    form: str, kind: Kind, *paths: Location, notes: tuple[str, ...] = ()
) -> DetectedLayout:
    return DetectedLayout(form, {"train": SplitLocation(kind, paths)}, notes=notes)


def _file(path: Path) -> DetectedLayout:
    suffix = path.suffix.lower()
    if suffix in DATA_SUFFIXES:
        return _undivided(f"a file of {_FORMATS[suffix]}", "files", path)
    kind = kind_of_name(path.name)
    if kind is not None and get_modality(kind).is_chunked:
        return _undivided(f"a single file of {noun_of(kind)}", "single", path)
    if path.name.lower().endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")):
        raise ValueError(
            f"{path} is compressed, so nothing in it can be read by index. Unpack it and give the folder or .tar."
        )
    raise ValueError(
        f"{path} is no data file: expected {_SUFFIXES} or a folder, got '{suffix or path.name}'."
    )


def _pattern(text: str) -> DetectedLayout:
    paths: list[Path] = []
    for one in expand_braces(text):
        paths += expand_pattern(one)
    paths = [path for path in dict.fromkeys(paths) if path.is_file()]
    if not paths:
        raise FileNotFoundError(
            f"No file matches '{text}'. Put the pattern in quotes, and check its folder."
        )
    suffixes = {path.suffix.lower() for path in paths}
    if len(suffixes) > 1 or not suffixes <= set(DATA_SUFFIXES):
        raise ValueError(
            f"'{text}' matches files of {', '.join(sorted(suffixes))}: expected one of {_SUFFIXES}."
        )
    return _undivided(
        f"{counted(len(paths), 'file')} of {_FORMATS[suffixes.pop()]}", "files", *paths
    )


def _list(data: Sequence[str | Path]) -> DetectedLayout:
    """Several paths or addresses, read as one split."""
    paths = [path for one in data for part in recognize(one).splits.values() for path in part.paths]
    suffixes = {suffix_of(path) for path in paths}
    if len(suffixes) != 1 or not suffixes <= set(DATA_SUFFIXES):
        seen = f"{', '.join(map(str, data[:4]))}{', ...' if len(data) > 4 else ''}" or "nothing"
        raise ValueError(f"Expected a list of files of one kind, of {_SUFFIXES}; got {seen}.")
    return _undivided(
        f"{counted(len(paths), 'file')} of {_FORMATS[suffixes.pop()]}", "files", *paths
    )


def _remote(text: str) -> DetectedLayout:
    """Remote files; several files named like splits are these splits."""
    paths = [path for path in expand_remote(text) if suffix_of(path) in DATA_SUFFIXES]
    suffixes = sorted({suffix_of(path) for path in paths})
    if len(suffixes) != 1:
        seen = f"files of {', '.join(suffixes)}" if suffixes else "no such file"
        raise ValueError(f"'{text}' names {seen}: expected one of {_SUFFIXES}.")
    word = f"{_FORMATS[suffixes[0]]} at {text.partition('://')[0]}://"
    stems = [path.rpartition("/")[2].partition(".")[0] for path in paths]
    matches = [re.fullmatch(_SPLIT_STEM, stem, re.IGNORECASE) for stem in stems]
    names = [split_of(match[1]) if match else None for match in matches]
    if len(paths) > 1 and None not in names and {"train", "test"} & set(names):
        found = {
            split: [path for path, name in zip(paths, names, strict=True) if name == split]
            for split in SPLIT_NAMES
            if split in names
        }
        return _divided(word, found)
    form = f"{'a file' if len(paths) == 1 else f'{len(paths)} files'} of {word}"
    return _undivided(form, "files", *paths)


def _divided(
    word: str, files: Mapping[str, Sequence[Location]], notes: tuple[str, ...] = ()
) -> DetectedLayout:
    splits = {s: SplitLocation("files", tuple(files[s])) for s in SPLIT_NAMES if s in files}
    return DetectedLayout(f"{word}, {_split_into(splits)}", splits, notes=notes)


def _folder(folder: Path) -> DetectedLayout:
    entries = _entries(folder)
    names = {entry.name for entry in entries}
    if "dataset_dict.json" in names or {"dataset_info.json", "state.json"} <= names:
        return _undivided("a saved Hugging Face data set", "saved", folder)
    layout = find_flow_layout(folder)
    if layout is not None:
        return _undivided(layout, "pairs", folder)
    for detect in (_split_files, _single_table, _split_folders, _inner_folder, _one_folder):
        found = detect(folder, entries)
        if found is not None:
            return found
    seen = ", ".join(sorted(names)[:8]) or "nothing"
    raise ValueError(
        f"No data are recognized in the folder '{folder}': expected files (images, audio, video, points, texts, "
        f"series, arrays), a folder of them for each class, or files of {_SUFFIXES}; it holds {seen}."
    )


def _entries(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise type(error)(f"The folder '{folder}' cannot be read: {error.strerror}.") from error
    return [entry for entry in entries if not is_hidden(entry.name)]


def _split_files(folder: Path, entries: list[Path]) -> DetectedLayout | None:
    """`train-00000-of-00002.parquet`, `test.tar`, ..., in the folder or its subfolder `data` (as on the hub).

    Also `ply_data_train0.h5` (ModelNet), if some are of train.
    """
    splits = _named_by_split(entries, _SPLIT_STEM)
    if not splits:
        splits = _named_by_split(entries, r".*[_-](train|test)\d*")
        splits = splits if "train" in splits else {}
    if not splits:
        inner = folder / "data"
        nested = inner.is_dir() and folder.name != "data"
        return _split_files(inner, _entries(inner)) if nested else None
    for split, paths in splits.items():
        if len({path.suffix.lower() for path in paths}) > 1:
            raise ValueError(
                f"'{folder}' holds {split} in several forms: {_listed(paths)}. Keep one, or give the path of a file."
            )
    used = {path for paths in splits.values() for path in paths}
    notes = _left_out([entry for entry in entries if entry not in used], "no split files")
    word = _FORMATS[next(iter(splits.values()))[0].suffix.lower()]
    return _divided(word, splits, notes)


def _named_by_split(entries: list[Path], pattern: str) -> dict[str, list[Path]]:
    """Return the data files of each split, whose name is the first group of `pattern`."""
    splits: dict[str, list[Path]] = {}
    for entry in entries:
        match = re.fullmatch(pattern, entry.stem, re.IGNORECASE)
        split = split_of(match[1]) if match else None
        if split and entry.suffix.lower() in DATA_SUFFIXES and entry.is_file():
            splits.setdefault(split, []).append(entry)
    return splits


def _single_table(folder: Path, entries: list[Path]) -> DetectedLayout | None:
    files = [e for e in entries if e.suffix.lower() in DATA_SUFFIXES and e.is_file()]
    files = [e for e in files if e.name not in _METADATA]
    tables = [e for e in files if e.suffix.lower() != ".json"]  # mostly describes other files
    files = tables or files
    if not files or (not tables and any(is_media(e.name) or e.is_dir() for e in entries)):
        return None
    if not any(_may_name_media(path) for path in files) and any(
        e.is_dir() and _has_media(e) for e in entries
    ):
        return None  # a list of something else beside folders of images
    if len({(re.sub(r"\d+", "#", path.stem), path.suffix.lower()) for path in files}) > 1:
        if all(path.suffix.lower() == ".tsv" for path in files):
            return None  # recordings
        raise ValueError(
            f"'{folder}' holds several tables, {_listed(files)}, and none is called train, validation or test. "
            "Rename them so, or give the path of one."
        )
    count = "a file" if len(files) == 1 else f"{len(files)} files"
    form = f"a folder with {count} of {_FORMATS[files[0].suffix.lower()]}"
    return _undivided(form, "files", *files)


def _split_folders(folder: Path, entries: list[Path]) -> DetectedLayout | None:
    if any((folder / name).is_file() for name in _METADATA):
        return None
    folders: dict[str, Path] = {}
    for entry in entries:
        split = split_of(entry.name)
        if split and entry.is_dir():
            if split in folders:
                raise ValueError(
                    f"'{folder}' holds two folders for {split}: {folders[split].name} and {entry.name}. Keep one."
                )
            folders[split] = entry
    if not {"train", "test"} & set(folders) or _is_class_beside_others(folder, folders, entries):
        return None
    splits: dict[str, SplitLocation] = {}
    form, notes = "", ()
    for split in (name for name in SPLIT_NAMES if name in folders):
        inner = _content(folders[split])
        found = _single_table(inner, _entries(inner)) or _one_folder(inner, _entries(inner))
        if found is None:
            raise ValueError(
                f"The folder '{inner}' is empty: expected the files of {split}, or a folder for each class."
            )
        splits[split] = found.splits["train"]
        form, notes = form or found.form, (*notes, *found.notes)
    rest = [entry for entry in entries if entry not in folders.values()]
    notes = (*notes, *_left_out(rest, "not part of a split"))
    return DetectedLayout(f"{form}, {_split_into(splits)}", splits, notes=notes)


def _content(split: Path) -> Path:
    """Return the folder of a split that holds its class folders: `train`, or `train/train` and the like."""
    entries = _entries(split)
    if len(entries) != 1 or entries[0].name not in {split.name, "data", "images"}:
        return split
    return entries[0] if entries[0].is_dir() and _media_folders(entries[0]) else split


def _is_class_beside_others(
    folder: Path, splits: Mapping[str, Path], entries: Sequence[Path]
) -> bool:
    """Return whether the only folder named like a split is a class: it lies beside others of the same form.

    Raises:
        ValueError: If it may be both: folders that look like classes lie in it and beside it.
    """
    others = [e for e in entries if e.is_dir() and e not in splits.values() and _has_media(e)]
    if len(splits) != 1 or not others:
        return False
    (split, alone), *_ = splits.items()
    inside = _entries(alone)
    if _single_table(alone, inside) or any(entry.name in _METADATA for entry in inside):
        return False
    if not _media_folders(alone):
        return True
    if not any(_media_folders(other) for other in others):
        return False  # class folders inside, files beside
    if len(others) > 1:
        return True
    raise ValueError(
        f"'{folder}' holds the folder '{alone.name}', which may be the {split} split or a class beside "
        f"'{others[0].name}': both hold folders of files. Give {alone} alone if it is the split; if it is a class, "
        "rename the folder."
    )


def _media_folders(folder: Path) -> set[str]:
    return {entry.name for entry in _entries(folder) if entry.is_dir() and _has_media(entry)}


def _inner_folder(folder: Path, entries: list[Path]) -> DetectedLayout | None:
    """Return the layout of the only folder inside, if that holds splits, tables or several classes."""
    if any((folder / name).is_file() for name in _METADATA):
        return None
    inner = [entry for entry in entries if entry.is_dir()]
    if len(inner) != 1 or folder.resolve().is_relative_to(inner[0].resolve()):  # a link to a parent
        return None
    if any(is_media(entry.name) for entry in entries if entry not in inner):
        return None
    try:
        found = _folder(inner[0])
    except ValueError:
        return None
    kinds = {location.kind for location in found.splits.values()}
    if kinds == {"flat"}:
        return None
    if kinds == {"classes"} and len(found.splits) == 1:
        classes = _media_folders(Path(found.splits["train"].paths[0]))
        if len(classes) < 2:
            return None
    note = f"Everything lies in the folder '{inner[0].name}' of '{folder}', which is read."
    return replace(found, notes=(note, *found.notes))


def _one_folder(folder: Path, entries: list[Path]) -> DetectedLayout | None:
    """A folder with metadata, with a folder for each class, or with files only."""
    if any((folder / name).is_file() for name in _METADATA):
        return _undivided("a folder with a metadata table", "metadata", folder)
    if find_image_pairs(entries) is not None:
        return _undivided("images and targets side by side", "targets", folder)
    classes = [entry for entry in entries if entry.is_dir() and _has_media(entry)]
    files = [e for e in entries if kind_of_name(e.name) in media_kinds() and e.is_file()]
    media = [file for file in files if is_media(file.name)]
    if len(classes) > 1 or (classes and not media):
        empty = [entry for entry in entries if entry.is_dir() and entry not in classes]
        notes = (
            *_left_out(empty, "folders without files that can be read"),
            *_left_out(media, "not in a folder of a class"),
            *(
                f"The folder '{entry.name}' is read as a class, since it lies beside folders of other names."
                for entry in classes
                if split_of(entry.name) and len(classes) > 1
            ),
        )
        return _undivided("a folder of classes", "classes", folder, notes=notes)
    return _undivided("a folder of files without labels", "flat", folder) if files else None


def _may_name_media(path: Path) -> bool:
    """Return True if a table may hold files or their names; the beginning of a text file decides."""
    if path.suffix.lower() not in {".csv", ".tsv", ".jsonl", ".json"}:
        return True
    with path.open("rb") as file:
        return bool(_MEDIA_NAME.search(file.read(1 << 16)))


def _has_media(folder: Path) -> bool:
    return any(kind_of_name(path.name) in media_kinds() for path in media_files(folder))


def _left_out(paths: Iterable[Path], why: str) -> tuple[str, ...]:
    names = [path for path in paths if path.suffix.lower() not in {".md", ".txt", ".json"}]
    return (f"Left out ({why}): {_listed(names)}.",) if names else ()


def _listed(paths: Iterable[Path]) -> str:
    names = [path.name for path in paths]
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _split_into(names: Iterable[str]) -> str:
    *most, last = names
    return f"split into {', '.join(most)} and {last}" if most else f"{last} only"
