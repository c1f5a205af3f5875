"""Samples given by a user: files, folders, globs, arrays, tables, dicts -> raw cells by column."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from perceivers.data.base import Row, nearest
from perceivers.data.encoded_item import EncodedItem, as_encoded_item
from perceivers.data.formats.files import column_table, frame_table, is_pandas, read_files
from perceivers.data.formats.huggingface import HuggingFaceTable, is_dataset, select_splits
from perceivers.data.formats.remote import expand_remote, is_remote, open_remote
from perceivers.data.modalities.base import error_reason
from perceivers.data.registry import (
    can_read_as,
    get_modality,
    kind_of_name,
    media_kinds,
    noun_of,
)
from perceivers.data.sources.flow_datasets import list_frame_pairs
from perceivers.data.sources.folders import expand_pattern, files_of_kinds
from perceivers.data.sources.layout import DATA_SUFFIXES, recognize
from perceivers.data.sources.open import open_location
from perceivers.data.streaming.shards import DamagedRow, FileShard, scan_file
from perceivers.data.tables.columns import InputColumn, cell_key, input_kinds, read_as
from perceivers.data.tables.table import Field, Table

_MISSPELLED = 0.65  # likeness of a key to an input from which it is a misspelled one
_LONGEST_NAME = 300  # of a text that is the name of its sample

OnError = Callable[[str, Exception], None]
OnSkip = Callable[[str], None]
Columns = Mapping[str, InputColumn]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A sample that is not decoded yet.

    Attributes:
        name: Name for messages and tables.
        row: Raw cell of each column that the model reads.
    """

    name: str
    row: dict[str, Any]


def samples_of(
    items: Any,
    columns: Columns,
    *,
    on_error: OnError | None = None,
    on_skip: OnSkip | None = None,
) -> Iterator[Sample]:
    """Yield the samples in `items`, in order; the files of a folder sorted by path.

    Args:
        items: As in `Predictor.predict`.
        columns: Columns of each modality of the model in the training data.
        on_error: Called with the name and error of an item without samples. By default the error is raised.
        on_skip: Called with a sentence about the files of a folder that are skipped.

    Raises:
        FileNotFoundError: If a path does not exist or a glob matches nothing.
        ValueError: If a folder has no files that the model reads, or a table lacks its columns.
        KeyError: If a dict names an unknown modality, or none.
        TypeError: If an item has another type, or its modality is ambiguous.
    """
    table = _table_of(items, columns)
    if table is not None:
        yield from _rows(table, columns, on_error)
        return
    items = items.tolist() if is_pandas(items) and hasattr(items, "tolist") else items
    several: list[Any] = [items]
    if isinstance(items, Sequence) and not isinstance(items, str | bytes):
        first = next(iter(cast("Sequence[Any]", items)), None)
        several = [items] if isinstance(first, int | float) else list(cast("Sequence[Any]", items))
    if [part.kind for part in columns.values()] == ["frame_pair"]:
        several = join_frame_pairs(several)
    for place, item in enumerate(several):
        is_named = isinstance(item, str | Path) and len(str(item)) < _LONGEST_NAME
        name = str(item) if is_named else f"item {place}"
        try:
            yield from _samples(item, name, columns, on_error, on_skip)
        except (ValueError, OSError) as error:
            if on_error is None:
                raise
            on_error(name, error)


def one_sample(item: Any, columns: Columns, name: str = "sample") -> Row:
    """Return a single sample.

    Args:
        item: A path, a PIL image, an array or a text, for a model of one modality or of videos with audio; a dict with
            one of these for each modality, where missing ones may be left out; or a `Row`, which is returned as it is.
        columns: Columns of each modality of the model in the training data.
        name: Name of the sample, if it is no file.

    Raises:
        ValueError: If the item is of another kind, or it is ambiguous which modality it is.
    """
    if isinstance(item, Row) and not isinstance(item, Path):
        return item
    try:
        if isinstance(item, Mapping):
            return _from_dict(cast("Mapping[str, Any]", item), name, columns)
        return _from_one(item, str(item) if isinstance(item, Path) else name, columns)
    except (KeyError, TypeError) as error:
        raise ValueError(error.args[0]) from error


def _samples(
    item: Any, name: str, columns: Columns, on_error: OnError | None, on_skip: OnSkip | None
) -> Iterator[Sample]:
    if isinstance(item, Mapping):
        yield _from_dict(_without_others(cast("Mapping[str, Any]", item), columns), name, columns)
    elif isinstance(item, str) and is_remote(item):
        yield from _remote_samples(item, columns, on_error)
    elif isinstance(item, str | Path) and not _is_text(item, columns):
        pairs = {} if _exists(str(item)) else parse_pairs(str(item), columns)
        if pairs:
            yield _from_dict(pairs, name, columns)
            return
        for path in _paths(item):
            if path.is_dir():
                yield from _folder_samples(path, columns, on_error, on_skip)
            else:
                yield from _file_samples(path, columns, on_error)
    else:
        yield _from_one(item, name, columns)


def _file_samples(path: Path, columns: Columns, on_error: OnError | None) -> Iterator[Sample]:
    """Yield the sample of a file, or the rows of a table; an error is that of this file only."""
    try:
        if _is_table(path, columns):
            yield from _rows(read_files([path]), columns, on_error)
        else:
            yield _from_one(path, str(path), columns)
    except (ValueError, OSError) as error:
        if on_error is None:
            raise
        on_error(str(path), error)


def _table_of(items: Any, columns: Columns) -> Table | None:
    """Return a DataFrame, a row of one, or a Hugging Face data set as a table; None for other items.

    Raises:
        ValueError: If a data set has several splits, or names of columns are not different.
    """
    if is_pandas(items):
        wanted = {column for part in columns.values() for column in part.all_columns}
        if not hasattr(items, "columns"):
            if not wanted <= {str(key) for key in items.index}:
                return None
            return column_table("the Series", [items.to_dict()], folder=Path())
        return frame_table(items)
    if not is_dataset(items):
        return None
    splits, _ = select_splits(items, "the data set")
    if len(splits) > 1 or not hasattr(next(iter(splits.values())), "__len__"):
        raise ValueError(
            f"Expected one split of a data set, not iterable, to predict; got {', '.join(splits)}. Give one, such as "
            f"data['{next(iter(splits))}']."
        )
    return HuggingFaceTable(next(iter(splits.values())), "the data set")


def _without_others(item: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    """Return a row without keys that are no input, unless one may be a misspelled input.

    Raises:
        KeyError: If it may, or no key is an input.
    """
    known = {*columns, *(column for part in columns.values() for column in part.all_columns)}
    plain = {str(key): cell for key, cell in item.items()}
    given = {key: cell for key, cell in plain.items() if key in known}
    if any(cell is not None for cell in given.values()):
        lacking = [
            name
            for key, part in columns.items()
            if not {key, *part.all_columns} & set(given)
            for name in (key, *part.all_columns)
        ]
        others = [key for key in plain if key not in known]
        if not any(difflib.get_close_matches(key, lacking, 1, _MISSPELLED) for key in others):
            return given
    return plain  # `_from_dict` raises the error


def _remote_samples(address: str, columns: Columns, on_error: OnError | None) -> Iterator[Sample]:
    """Yield the samples of remote files: one of each, or the rows of tables."""
    for one in expand_remote(address):
        if _is_table(Path(one), columns):
            found = scan_file(one)
            if not found.fields:
                raise ValueError(found.damage)
            shard = FileShard(one, _input_fields(one, found.fields, columns))
            for row in shard.rows(0):
                if isinstance(row, DamagedRow):
                    _report(row.name, ValueError(row.reason), on_error)
                else:
                    yield Sample(name=row.where, row=dict(row))
            continue
        with open_remote(one) as file:
            media = EncodedItem(one, data=file.read())
        yield _from_one(media, one, columns)


def _report(name: str, error: Exception, on_error: OnError | None) -> None:
    if on_error is None:
        raise error
    on_error(name, error)


def _is_text(item: str | Path, columns: Columns) -> bool:
    """Return True for a text for a model of texts: any string that names no existing file."""
    if isinstance(item, Path) or [part.kind for part in columns.values()] != ["text"]:
        return False
    if "\n" in item or len(item) > _LONGEST_NAME or Path(item).exists():
        return "\n" in item or len(item) > _LONGEST_NAME
    is_pattern = any(mark in item for mark in "*?[") and not any(c.isspace() for c in item)
    named = is_pattern and (kind_of_name(item) or Path(item).suffix.lower() in DATA_SUFFIXES)
    return not (named and expand_pattern(item))


def _from_one(item: Any, name: str, columns: Columns) -> Sample:
    """Return a sample of one file or array: of the only modality, or a video with audio."""
    places = {part.all_columns for part in columns.values()}
    if len(places) > 1:
        example = ",".join(f"{key}=..." for key in columns)
        raise TypeError(
            f"This model reads {', '.join(columns)} together: give a dict with one of each, or {example} on the "
            "command line. What is missing may be left out."
        )
    part = next(iter(columns.values()))
    if part.kind == "frame_pair":
        name, row = _pair_row(item, part, name)
        return Sample(name=name, row=row)
    if part.columns:
        raise TypeError(
            f"This model reads the columns {', '.join(part.columns)}: give a table that has them (parquet, csv, "
            f"jsonl), or a dict; got '{name}'."
        )
    media = as_encoded_item(item, name, Path(), kind=part.kind, by_path=isinstance(item, Path))
    return Sample(name=name, row={part.column: media})


def _from_dict(item: Mapping[str, Any], name: str, columns: Columns) -> Sample:
    """Return a sample from the values of modalities or columns."""
    known = {**dict.fromkeys(columns), **{c: None for p in columns.values() for c in p.all_columns}}
    unknown = [key for key in item if key not in known]
    if unknown or not item:
        key = unknown[0] if unknown else ""
        raise KeyError(
            f"Expected a dict with some of {', '.join(known)}; got {f'{key!r} in {name}' if unknown else 'none'}."
            f"{nearest(key, known)}"
        )
    row: dict[str, Any] = {}
    for key, part in columns.items():
        whole = item.get(key)
        inside = cast("Mapping[str, Any]", whole) if isinstance(whole, Mapping) else item
        for column in part.columns:
            row[column] = inside.get(column)
        if part.columns:
            continue
        cell = whole
        if whole is None and (part.column == key or part.column not in columns):
            cell = item.get(part.column)
        row[cell_key(key, part, columns)] = as_encoded_item(
            cell, f"{key} of {name}", Path(), kind=part.kind, by_path=isinstance(cell, Path)
        )
    cells = [cell for cell in row.values() if isinstance(cell, EncodedItem) and not cell.is_missing]
    names = [cell.name for cell in cells if cell.path]
    texts = [cell.value for cell in cells if isinstance(cell.value, str)]
    several = [c for part in columns.values() if part.kind == "text" for c in part.columns]
    texts += [cell for column in several if isinstance(cell := row.get(column), str)]
    if len(cells) <= 1 and not names and sum(map(len, texts)) < _LONGEST_NAME:
        names = [" | ".join(texts)] if texts else []
    return Sample(name=" + ".join(names) or name, row=row)


def parse_pairs(text: str, columns: Columns) -> dict[str, Any]:
    """Return `image=a.jpg,age=41` as a dict; {} if the text is a path or pattern with "=".

    A comma belongs to the path before it unless NAME= follows, where NAME is an input, or that path does not exist.
    """
    known = {*columns, *(column for part in columns.values() for column in part.all_columns)}
    first = text.partition("=")[0].strip()
    if "=" not in text or (first not in known and ("/" in first or any(m in text for m in "*?["))):
        return {}
    texts = {
        name
        for key, part in columns.items()
        if part.kind == "text"
        for name in (key, *part.all_columns)
    }
    pairs: dict[str, str] = {}
    key = ""
    for part in text.split(","):
        name, equals, value = part.partition("=")
        longer = f"{pairs.get(key, '')},{part}"
        if equals and (name.strip() in known or not key or not _exists(longer)):
            key = name.strip()
            pairs[key] = value
        else:
            pairs[key] = longer
    for name, value in pairs.items():
        if "," in value and name not in texts and not _exists(value):
            raise ValueError(
                f"Expected NAME=FILE,NAME=FILE,... for a model of several modalities, got '{text}': there is no file "
                f"'{value.strip()}'."
            )
    return {name: value.strip() for name, value in pairs.items()}


def _exists(text: str) -> bool:
    try:
        return Path(text.strip()).exists()
    except (OSError, ValueError):  # longer than names may be, or with a zero byte
        return False


def _is_table(path: Path, columns: Columns) -> bool:
    """Return True for a table of samples, rather than one sample."""
    if path.suffix.lower() not in DATA_SUFFIXES:
        return False
    kinds = {kind for part in columns.values() if not part.columns for kind in _file_kinds(part)}
    if kind_of_name(path.name) not in kinds:
        return True
    if kind_of_name(path.name) != "array":
        return False
    try:  # an archive of several samples has labels, or arrays of three axes or more
        fields = read_files([path]).fields
    except (ValueError, OSError):
        return False
    return "label" in fields or any(len(field.shape) > 1 for field in fields.values())


def _rows(table: Table, columns: Columns, on_error: OnError | None) -> Iterator[Sample]:
    """Yield the rows of a table that has the columns of the model; an error of a row is that of this row only."""
    kept = table.keep(_input_fields(table.name, table.fields, columns))
    for name, reason in table.bad:
        _report(name, ValueError(reason), on_error)
    for index in range(len(kept)):
        try:
            row = dict(kept.row(index))
        except ImportError:
            raise
        except Exception as error:
            reason = ValueError(error_reason(kept.where(index), error))
            if on_error is None:
                raise reason from error
            on_error(kept.where(index), reason)
            continue
        yield Sample(name=kept.where(index), row=row)


def _input_fields(name: str, fields: Mapping[str, Field], columns: Columns) -> dict[str, Field]:
    """Return the columns that the model reads, each with the kind as which it is read.

    Raises:
        ValueError: If one is missing.
    """
    kinds = input_kinds(columns)
    missing = [column for column in kinds if column not in fields]
    if missing:
        raise ValueError(
            f"{name} has no column '{missing[0]}', which the model reads."
            f"{nearest(missing[0], fields)} Its columns are {', '.join(fields)}."
        )
    return {column: read_as(fields[column], kind) for column, kind in kinds.items()}


def _paths(item: str | Path) -> list[Path]:
    """Return the path, or the matches of a pattern."""
    path = Path(item)
    if path.exists():
        return [path]
    matches = expand_pattern(str(item))
    if not matches:
        raise FileNotFoundError(f"There is no file, folder or match for '{item}'.")
    return matches


def _folder_samples(
    folder: Path, columns: Columns, on_error: OnError | None, on_skip: OnSkip | None
) -> Iterator[Sample]:
    """Yield the samples of a folder: its files of the model's modality, or the rows of its tables.

    Raises:
        ValueError: If it holds neither.
    """
    parts = list(columns.values())
    is_one_file = len({part.all_columns for part in parts}) == 1 and not parts[0].columns
    if not is_one_file:
        found = recognize(folder).splits.values()
        if any(location.kind in {"classes", "flat"} for location in found):
            _from_one(folder, str(folder), columns)  # raises the error
        for table in (table for location in found for table in open_location(location)[0].values()):
            yield from _rows(table, columns, on_error)
        return
    kinds = {kind for part in parts for kind in _file_kinds(part)}
    nouns = " or ".join(sorted({noun_of(part.kind) for part in parts}))
    files, skipped = files_of_kinds(folder, kinds, nouns)
    if not files:
        raise ValueError(
            f"Expected {nouns} in the folder '{folder}'; found none. {skipped}".rstrip()
        )
    if skipped and on_skip is not None:
        on_skip(skipped)
    for path in files:
        yield from _file_samples(path, columns, on_error)


def _file_kinds(part: InputColumn) -> set[str]:
    """Return the modalities of files that a model reads as its input: also those that it was trained on."""
    kinds = {part.kind, *get_modality(part.kind).accepts}
    if part.column in media_kinds() and can_read_as(part.column, part.kind):
        kinds.add(part.column)  # the column of a folder's files is called by their modality
    return kinds


def join_frame_pairs(items: Sequence[Any]) -> list[Any]:
    """Join every two image files to a pair, and replace folders by their pairs; other items are unchanged.

    Raises:
        ValueError: If an image is left without a second, or a folder holds no pairs.
    """
    found: list[Any] = []
    first: Any = None
    for item in items:
        if isinstance(item, str | Path) and Path(item).is_dir():
            pairs = [(pair.first, pair.second) for pair in list_frame_pairs(Path(item))]
            if not pairs:
                raise ValueError(
                    f"Expected pairs of frames in the folder '{item}', laid out as FlyingChairs (1_img1.ppm, "
                    "1_img2.ppm), Sintel or KITTI; found none. Give two files instead."
                )
            found += pairs
        elif not _is_frame(item):
            found.append(item)
        elif first is None:
            first = item
        else:
            found.append((first, item))
            first = None
    if first is not None:
        name = first if isinstance(first, str | Path) else type(first).__name__
        raise ValueError(
            f"Expected two frames, the first and the second: '{name}' has no second one."
        )
    return found


def _pair_row(item: Any, column: InputColumn, name: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the cells of a pair: two files, images or arrays, or one array of both."""
    if isinstance(item, str | Path) or not hasattr(item, "__len__") or len(item) != 2:
        raise TypeError(
            "This model reads pairs of frames: give two files, the first and the second, a folder of pairs, an array "
            f"of 2 x height x width x 3, or a table with the columns {', '.join(column.columns)}; got '{name}'."
        )
    frames = cast("Sequence[Any]", item)
    cells = {
        key: as_encoded_item(frame, f"frame {number} of {name}", Path())
        for number, (key, frame) in enumerate(zip(column.columns, frames, strict=True), 1)
    }
    paths = [str(cell.path) for cell in cells.values() if cell.path is not None]
    return " -> ".join(paths) or name, cells


def _is_frame(item: Any) -> bool:
    """Return True for a single frame."""
    if isinstance(item, str | Path):
        return kind_of_name(str(item)) == "image" and "=" not in str(item)
    return hasattr(item, "getexif") or getattr(item, "ndim", 0) in {2, 3}
