"""What lies at a path: the form of the data, told by looking at names only."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from perceivers.data.base import SPLIT_NAMES, split_of
from perceivers.data.formats.remote import (
    Location,
    expand_braces,
    expand_remote,
    is_remote,
    suffix_of,
)
from perceivers.data.registry import is_media, kind_of_name, media_kinds
from perceivers.data.sources.flow_datasets import find_flow_layout
from perceivers.data.sources.folders import find_image_pair, media_files

DATA_SUFFIXES = (".parquet", ".csv", ".jsonl", ".tar", ".npz", ".h5")
_SPLIT_STEM = (
    rf"({'|'.join(name for names in SPLIT_NAMES.values() for name in names)})(-.*|[_.]\d.*)?"
)
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_WORDS = {
    ".parquet": "Parquet",
    ".csv": "CSV",
    ".jsonl": "JSON lines",
    ".tar": "WebDataset shards",
    ".npz": "NumPy arrays",
    ".h5": "HDF5",
}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(:[\w.-]+)?")

_MEDIA_NAME = re.compile(
    rb"\.(jpe?g|png|gif|bmp|webp|tiff?|wav|flac|mp3|ogg|mp4|avi|mov|mkv|webm)\b", re.IGNORECASE
)

Kind = Literal["files", "metadata", "classes", "flat", "saved", "text", "pairs", "targets"]


@dataclass(frozen=True, slots=True)
class SplitLocation:
    """Where one split lies: data files, or a folder that is read in one way.

    Attributes:
        kind: `files` (tables, one or several shards), `metadata` (a folder with such a table), `classes` (a
            folder of one folder for each class), `flat` (files without labels), `saved` (by `datasets`), `text` (one),
            `pairs` (of frames), `targets` (pictures, and beside them what is learned of their pixels).
        paths: The files, or the folder.
    """

    kind: Kind
    paths: tuple[Location, ...]


@dataclass(frozen=True, slots=True)
class DetectedLayout:
    """What was recognized.

    Attributes:
        form: In words, for messages and reports.
        places: Where each split lies. Data that are not split are `train`.
        hub: Id on the Hugging Face hub; then there are no places.
        notes: What was left out, and why.
    """

    form: str
    places: dict[str, SplitLocation]
    hub: str | None = None
    notes: tuple[str, ...] = ()


def recognize(data: str | Path | Sequence[str | Path]) -> DetectedLayout:
    """Return the form of the data at a path, remote address, glob or brace pattern, or hub id.

    A path that exists wins over a hub id. A list names the shards of one split.

    Raises:
        ValueError: If nothing is recognized. The message says what was seen.
        FileNotFoundError: If there is nothing there and the name cannot be a hub id.
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
    if (
        isinstance(data, str)
        and _HUB_ID.fullmatch(text)
        and path.suffix.lower() not in DATA_SUFFIXES
    ):
        return DetectedLayout("a data set of the Hugging Face hub", {}, hub=text)
    raise FileNotFoundError(
        f"'{text}' does not exist here, and it cannot be the id of a data set on the Hugging Face hub (these look "
        "like 'name' or 'owner/name'). Check the path."
    )


def _file(path: Path) -> DetectedLayout:
    suffix = path.suffix.lower()
    if suffix in DATA_SUFFIXES:
        return DetectedLayout(
            f"a file of {_WORDS[suffix]}", {"train": SplitLocation("files", (path,))}
        )
    if kind_of_name(path.name) == "text":
        return DetectedLayout("one text", {"train": SplitLocation("text", (path,))})
    if path.name.lower().endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")):
        raise ValueError(
            f"{path} is compressed, so nothing in it can be read by index. Unpack it and give the folder or .tar."
        )
    raise ValueError(
        f"{path} is no data file: expected {', '.join(DATA_SUFFIXES)} or a folder, got '{suffix or path.name}'."
    )


def _pattern(text: str) -> DetectedLayout:
    paths: list[Path] = []
    for one in expand_braces(text):
        pattern = Path(one).expanduser()
        inside = pattern.relative_to(pattern.anchor)
        paths += sorted(Path(pattern.anchor).glob(str(inside)))
    paths = [path for path in dict.fromkeys(paths) if path.is_file()]
    if not paths:
        raise FileNotFoundError(
            f"No file matches '{text}'. Put the pattern in quotes, and check its folder."
        )
    suffixes = {path.suffix.lower() for path in paths}
    if len(suffixes) > 1 or not suffixes <= set(DATA_SUFFIXES):
        raise ValueError(
            f"'{text}' matches files of {', '.join(sorted(suffixes))}: expected one of {', '.join(DATA_SUFFIXES)}."
        )
    word = _WORDS[suffixes.pop()]
    return DetectedLayout(
        f"{len(paths)} files of {word}", {"train": SplitLocation("files", tuple(paths))}
    )


def _list(data: Sequence[str | Path]) -> DetectedLayout:
    """Several paths or addresses, whose files are read as one split."""
    paths = tuple(
        path for one in data for place in recognize(one).places.values() for path in place.paths
    )
    suffixes = {suffix_of(path) for path in paths}
    if len(suffixes) != 1 or not suffixes <= set(DATA_SUFFIXES):
        seen = f"{', '.join(map(str, data[:4]))}{', ...' if len(data) > 4 else ''}" or "nothing"
        raise ValueError(
            f"Expected a list of files of one kind, of {', '.join(DATA_SUFFIXES)}; got {seen}."
        )
    return DetectedLayout(
        f"{len(paths)} files of {_WORDS[suffixes.pop()]}", {"train": SplitLocation("files", paths)}
    )


def _remote(text: str) -> DetectedLayout:
    """Remote files; where several are named like splits, these splits."""
    paths = [path for path in expand_remote(text) if suffix_of(path) in DATA_SUFFIXES]
    suffixes = sorted({suffix_of(path) for path in paths})
    if len(suffixes) != 1:
        seen = f"files of {', '.join(suffixes)}" if suffixes else "no such file"
        raise ValueError(f"'{text}' names {seen}: expected one of {', '.join(DATA_SUFFIXES)}.")
    word = f"{_WORDS[suffixes[0]]} at {text.partition('://')[0]}://"
    splits = [_split_of_stem(path.rpartition("/")[2].partition(".")[0]) for path in paths]
    if len(paths) > 1 and None not in splits and {"train", "test"} & set(splits):
        places = {
            split: SplitLocation(
                "files", tuple(p for p, s in zip(paths, splits, strict=True) if s == split)
            )
            for split in SPLIT_NAMES
            if split in splits
        }
        return DetectedLayout(f"{word}, {_split_into(places)}", places)
    form = f"{'a file' if len(paths) == 1 else f'{len(paths)} files'} of {word}"
    return DetectedLayout(form, {"train": SplitLocation("files", tuple(paths))})


def _split_of_stem(stem: str) -> str | None:
    match = re.fullmatch(_SPLIT_STEM, stem, re.IGNORECASE)
    return split_of(match[1]) if match else None


def _folder(folder: Path) -> DetectedLayout:
    entries = _entries(folder)
    names = {entry.name for entry in entries}
    if "dataset_dict.json" in names or {"dataset_info.json", "state.json"} <= names:
        return DetectedLayout(
            "a saved Hugging Face data set", {"train": SplitLocation("saved", (folder,))}
        )
    layout = find_flow_layout(folder)
    if layout is not None:
        return DetectedLayout(layout, {"train": SplitLocation("pairs", (folder,))})
    for look in (_split_files, _single_table, _split_folders, _one_folder):
        found = look(folder, entries)
        if found is not None:
            return found
    seen = ", ".join(sorted(names)[:8]) or "nothing"
    raise ValueError(
        f"No data are recognized in the folder '{folder}': expected files (pictures, sounds, films, shapes, texts, "
        f"recordings, arrays), a folder of them for each class, or files of {', '.join(DATA_SUFFIXES)}; it holds "
        f"{seen}."
    )


def _entries(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise type(error)(f"The folder '{folder}' cannot be read: {error.strerror}.") from error
    return [entry for entry in entries if not entry.name.startswith(".")]


def _split_files(folder: Path, entries: list[Path]) -> DetectedLayout | None:
    """`train-00000-of-00002.parquet`, `test.tar`, ..., there or in a folder `data` (as the hub keeps them).

    Also `ply_data_train0.h5`, as ModelNet's files are called, where some are of train.
    """
    splits = _named_by_split(entries, _SPLIT_STEM)
    if not splits:
        splits = _named_by_split(entries, r".*[_-](train|test)\d*")
        splits = splits if "train" in splits else {}
    if not splits:
        inner = folder / "data"
        return (
            _split_files(inner, _entries(inner))
            if inner.is_dir() and folder.name != "data"
            else None
        )
    for split, paths in splits.items():
        if len({path.suffix.lower() for path in paths}) > 1:
            raise ValueError(
                f"'{folder}' holds {split} in several forms: {_listed(paths)}. Keep one, or give the path of a file."
            )
    used = {path for paths in splits.values() for path in paths}
    word = _WORDS[next(iter(splits.values()))[0].suffix.lower()]
    ordered = {
        split: SplitLocation("files", tuple(splits[split]))
        for split in SPLIT_NAMES
        if split in splits
    }
    notes = _left_out([entry for entry in entries if entry not in used], "no split files")
    return DetectedLayout(f"{word}, {_split_into(ordered)}", ordered, notes=notes)


def _named_by_split(entries: list[Path], pattern: str) -> dict[str, list[Path]]:
    """Return the data files whose name tells their split, by it."""
    splits: dict[str, list[Path]] = {}
    for entry in entries:
        match = re.fullmatch(pattern, entry.stem, re.IGNORECASE)
        split = split_of(match[1]) if match else None
        if split and entry.suffix.lower() in DATA_SUFFIXES and entry.is_file():
            splits.setdefault(split, []).append(entry)
    return splits


def _single_table(folder: Path, entries: list[Path]) -> DetectedLayout | None:
    files = [
        e
        for e in entries
        if e.suffix.lower() in DATA_SUFFIXES and e.name not in _METADATA and e.is_file()
    ]
    if not files:
        return None
    same = {(re.sub(r"\d+", "#", path.stem), path.suffix.lower()) for path in files}
    if not any(_may_name_media(path) for path in files) and any(
        e.is_dir() and _has_media(e) for e in entries
    ):
        return None  # a list of something else beside folders of pictures
    if len(same) > 1:
        raise ValueError(
            f"'{folder}' holds several tables, {_listed(files)}, and none is called train, validation or test. "
            "Rename them so, or give the path of one."
        )
    word = _WORDS[files[0].suffix.lower()]
    form = f"a folder with {'a file' if len(files) == 1 else f'{len(files)} files'} of {word}"
    return DetectedLayout(form, {"train": SplitLocation("files", tuple(files))})


def _split_folders(folder: Path, entries: list[Path]) -> DetectedLayout | None:
    splits: dict[str, Path] = {}
    if any((folder / name).is_file() for name in _METADATA):
        return None
    for entry in entries:
        split = split_of(entry.name)
        if split and entry.is_dir():
            if split in splits:
                raise ValueError(
                    f"'{folder}' holds two folders for {split}: {splits[split].name} and {entry.name}. Keep one."
                )
            splits[split] = entry
    if not {"train", "test"} & set(splits):
        return None
    places: dict[str, SplitLocation] = {}
    form, notes = "", ()
    for split in (name for name in SPLIT_NAMES if name in splits):
        inner = splits[split]
        found = _single_table(inner, _entries(inner)) or _one_folder(inner, _entries(inner))
        if found is None:
            raise ValueError(
                f"The folder '{inner}' is empty: expected the files of {split}, or a folder for each class."
            )
        places[split] = found.places["train"]
        form, notes = form or found.form, (*notes, *found.notes)
    rest = _left_out(
        [entry for entry in entries if entry not in splits.values()], "not part of a split"
    )
    return DetectedLayout(f"{form}, {_split_into(places)}", places, notes=(*notes, *rest))


def _one_folder(folder: Path, entries: list[Path]) -> DetectedLayout | None:
    """A folder with metadata, with a folder for each class, or with files only."""
    if any((folder / name).is_file() for name in _METADATA):
        return DetectedLayout(
            "a folder with a metadata table", {"train": SplitLocation("metadata", (folder,))}
        )
    if find_image_pair(entries) is not None:
        return DetectedLayout(
            "pictures and targets side by side", {"train": SplitLocation("targets", (folder,))}
        )
    classes = [entry for entry in entries if entry.is_dir() and _has_media(entry)]
    files = [
        entry for entry in entries if kind_of_name(entry.name) in media_kinds() and entry.is_file()
    ]
    media = [file for file in files if is_media(file.name)]
    if len(classes) > 1 or (classes and not media):
        empty = [entry for entry in entries if entry.is_dir() and entry not in classes]
        notes = (
            *_left_out(empty, "folders without files that can be read"),
            *_left_out(media, "not in a folder of a class"),
        )
        return DetectedLayout(
            "a folder of classes", {"train": SplitLocation("classes", (folder,))}, notes=notes
        )
    if files:
        return DetectedLayout(
            "a folder of files without labels", {"train": SplitLocation("flat", (folder,))}
        )
    return None


def _may_name_media(path: Path) -> bool:
    """Tell whether a table may hold media, or names of files. Of text, the beginning is looked at."""
    if path.suffix.lower() not in {".csv", ".jsonl"}:
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
