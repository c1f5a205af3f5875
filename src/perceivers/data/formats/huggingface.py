"""Data sets of the Hugging Face `datasets` library: saved ones, objects, and hub ids."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perceivers.data.base import split_of
from perceivers.data.formats.parquet import field_of_feature
from perceivers.data.tables.table import Field, NamedRow, Table, infer_field, plain
from perceivers.optional import require

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[\w.-]+)?")
_SOME_ROWS = 256  # rows that decide what columns of strings, lists and bytes hold
_SOME_SHARDS = 8  # shards of an iterable data set that give such rows


class HuggingFaceTable(Table):
    """A `datasets.Dataset` as a table. Its rows stay on the disk, its images, audio, ... encoded.

    By default its features declare the columns.
    """

    def __init__(self, dataset: Any, name: str, fields: Mapping[str, Field] | None = None) -> None:
        dataset = disable_decoding(dataset.with_format(None))
        self.name = name
        self.folder = Path()
        self.fields = feature_fields(dataset) if fields is None else dict(fields)
        self._dataset = dataset

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._dataset)

    def row(self, index: int) -> dict[str, Any]:
        """Return one row."""
        cells = self._dataset[index]
        where = self.where(index)
        row = {
            name: self.fields[name].cell(cells[name], where, self.folder) for name in self.fields
        }
        return NamedRow(row, where)

    def column(self, name: str) -> list[Any]:
        """Return the values of one column, without reading others."""
        value = self.fields[name].value if name in self.fields else plain
        return [value(cell) for cell in self._dataset.select_columns([name])[:][name]]

    def keep(self, fields: Mapping[str, Field]) -> "HuggingFaceTable":
        """Return the table with these columns only."""
        return HuggingFaceTable(self._dataset.select_columns(list(fields)), self.name, fields)


def disable_decoding(dataset: Any) -> Any:
    """Return a data set (or an iterable one) with images, audio and video as bytes and paths."""
    datasets = require("datasets", "data")
    for name, feature in (dataset.features or {}).items():
        for kind in (datasets.Image, datasets.Audio, datasets.Video):
            if isinstance(feature, kind) and feature.decode:
                dataset = dataset.cast_column(name, kind(decode=False))
    return dataset


def feature_fields(dataset: Any) -> dict[str, Field]:
    """Return the content of the columns, by their features, and for strings, lists and bytes by evenly spaced rows.

    Of an iterable data set, these are the first rows of evenly spaced shards.
    """
    features: Mapping[str, Any] = dataset.features.to_dict()
    fields = {name: field_of_feature(feature) for name, feature in features.items()}
    unknown = [name for name, field in fields.items() if field is None]
    rows = _some_rows(dataset.select_columns(unknown), unknown) if unknown else []
    found = {name: infer_field(row[name] for row in rows) for name in unknown}
    return {name: field or found[name] for name, field in fields.items()}


def _some_rows(dataset: Any, columns: Sequence[str]) -> list[Any]:
    """Return rows of a data set from all of its parts; more of it if a column is empty there."""
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        indices = np.unique(
            np.linspace(0, max(len(dataset) - 1, 0), _SOME_ROWS).round().astype(int)
        )
        rows = [dataset[int(index)] for index in indices if len(dataset)]
        for name in columns:
            if len(dataset) > len(rows) and all(plain(row[name]) is None for row in rows):
                only = dataset.select_columns([name])
                cell = next((row[name] for row in only if plain(row[name]) is not None), None)
                rows.append({**dict.fromkeys(columns), name: cell})
        return rows
    count = int(getattr(dataset, "num_shards", 1))
    chosen = range(0, count, max(1, count // _SOME_SHARDS))
    shards = [dataset.shard(count, index) for index in chosen] if count > 1 else [dataset]
    return [row for shard in shards for row in shard.take(max(16, _SOME_ROWS // len(shards) // 4))]


def is_dataset(data: Any) -> bool:
    """Return True for an object of `datasets`, without importing it."""
    return type(data).__module__.split(".")[0] == "datasets"


def select_splits(data: Any, name: str) -> tuple[dict[str, Any], list[str]]:
    """Return the splits of a `Dataset` or `DatasetDict` (or iterable variants) by standard names; and notes.

    Raises:
        ValueError: If no split is called train, validation or test, or two are the same.
    """
    if not isinstance(data, Mapping):
        return {"train": data}, []
    splits: dict[str, Any] = {}
    left: list[str] = []
    for key, dataset in data.items():
        split = split_of(str(key))
        if split is None:
            left.append(str(key))
        elif split in splits:
            raise ValueError(f"{name} has two splits for {split}. Give one of them.")
        else:
            splits[split] = dataset
    if not splits and len(left) == 1:
        return {"train": data[left[0]]}, []
    if not splits:
        raise ValueError(
            f"{name} has no split called train, validation or test; it has {', '.join(left) or 'none'}."
        )
    order = [split for split in ("train", "validation", "test") if split in splits]
    notes = (
        [f"Left out (splits that are neither train, validation nor test): {', '.join(left)}."]
        if left
        else []
    )
    return {split: splits[split] for split in order}, notes


def load_saved_dataset(folder: Path) -> Any:
    """Load a data set written by `save_to_disk`.

    Raises:
        ValueError: If it cannot be read.
    """
    datasets = require("datasets", "data")
    try:
        return datasets.load_from_disk(str(folder))
    except Exception as error:  # whatever pyarrow, json and the library raise
        raise ValueError(
            f"'{folder}' looks like a saved Hugging Face data set, but cannot be read: {error}"
        ) from error


def is_hub_id(text: str, *, suffixes: Collection[str] = ()) -> bool:
    """Return whether a name that does not exist here may be looked up on the Hugging Face hub.

    An id is `owner/name`, of a data set perhaps with `:subset`. A path is never one: a text without `/`, or that begins
    with `.`, `/` or `~`, ends with `/` or the suffix of a file, has a backslash or more than one `/`, or whose first
    folder exists here or is `runs`, where `fit` writes by default.

    Args:
        text: The argument.
        suffixes: Suffixes of files, such as `.csv`.
    """
    if _HUB_ID.fullmatch(text) is None or Path(text).suffix.lower() in suffixes:
        return False
    owner = text.partition("/")[0]
    return owner != "runs" and not Path(owner).exists()


def load_hub_dataset(name: str, *, stream: bool) -> Any:
    """Load a data set of the hub; `owner/name:subset` names one of its subsets.

    Raises:
        ValueError: If there is none, or it cannot be loaded.
    """
    datasets = require("datasets", "data")
    path, _, subset = name.partition(":")
    arguments: Sequence[str] = (path, subset) if subset else (path,)
    try:
        return datasets.load_dataset(*arguments, streaming=stream)
    except Exception as error:  # network, missing, private, several subsets
        reason = " ".join(str(error).split())
        raise ValueError(
            f"'{name}' is no path that exists here, and the Hugging Face hub did not give a data set of this name: "
            f"{reason[:600].rstrip('.')}. Built-in data are named builtin:digits and builtin:flow."
        ) from error
