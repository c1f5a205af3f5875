"""`open_data`: from whatever the user gave to splits, inputs, target and names of classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from perceivers.data.base import DataConfig, Records
from perceivers.data.columns import Choice, InputColumn, check_paths, choose
from perceivers.data.folders import class_table, file_table, metadata_splits, metadata_table
from perceivers.data.huggingface import (
    HuggingFaceTable,
    from_hub,
    from_object,
    from_saved,
    is_dataset,
)
from perceivers.data.labels import ClassIndex, Labelled, class_names, describe_classes
from perceivers.data.memory import check_memory
from perceivers.data.readers import read_files
from perceivers.data.recognize import Found, Place, recognize, split_of
from perceivers.data.stream import Stream
from perceivers.data.streams import stream_files, stream_hub
from perceivers.data.tables import ColumnTable, Concatenated, Field, Subset, Table

__all__ = ["DataSource", "InputColumn", "open_data"]


@dataclass(frozen=True)
class DataSource:
    """Data that were recognized, and how they are used.

    Attributes:
        form: What was recognized, in words.
        splits: `train`, `validation`, `test`: those that the data have. A table or folder alone is `train`.
        inputs: Input columns by the name of their modality.
        target: Column of the target. None: files without labels.
        label_names: Names of the classes in the order of their indices. Empty without a target.
        ignored: Columns that are not used.
        notes: Sentences on what was seen and chosen.
        streams: The splits where rows are streamed; then `splits` is empty.
    """

    form: str
    splits: Mapping[str, Records]
    inputs: Mapping[str, InputColumn]
    target: str | None
    label_names: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    streams: Mapping[str, Stream] = field(default_factory=dict[str, Stream])

    def targets(self, split: str) -> list[int]:
        """Return the class index of every row of a split.

        Raises:
            ValueError: If there is no such split, or there are no labels.
        """
        if split not in self.splits:
            there = ", ".join(self.splits) or "none that is read by index"
            msg = f"There is no split '{split}' in {self.form}; there is {there}."
            raise ValueError(msg)
        if self.target is None:
            msg = f"There are no labels in {self.form}, so there is nothing to compare with."
            raise ValueError(msg)
        return [int(index) for index in self.splits[split].column(self.target)]


def open_data(
    data: Any, config: DataConfig, *, label_names: Sequence[str] | None = None
) -> DataSource:
    """Return the data behind a path, hub id or object.

    Args:
        data: A path, a glob or brace pattern of shards, the id of a data set on the Hugging Face hub; or a pandas
            `DataFrame`, or a `Dataset` or `DatasetDict` of `datasets`. A path that exists wins over an id.
        config: What the user said about columns and splits.
        label_names: The classes that a trained model knows. By default, those of train.

    Raises:
        ValueError: If the data are not recognized, a column is missing or cannot be told, or a label is unknown.
        OSError: If a file is missing or cannot be read.
        TypeError: If `data` is nothing of this kind.
    """
    if config.stream:
        source = _open_streams(data, config, label_names)
        if source is not None:
            return source
    form, tables, notes = _open_tables(data)
    tables, more = _divide(tables, config)
    name = next(iter(tables.values())).name
    fields = next(iter(tables.values())).fields
    choice = choose(fields, config, name)
    tables = {split: _narrow(table, choice, split) for split, table in tables.items()}
    for table in tables.values():
        check_paths(table, [column.column for column in choice.inputs.values()])
    check_memory(tables.values())
    if config.stream:
        notes = (*notes, "These data are read by index, so streaming changes nothing.")
    source = DataSource(form, tables, choice.inputs, choice.target, (), choice.ignored, ())
    source, told = _label(source, tables, label_names)
    rows = ", ".join(f"{split} {len(records):,} rows" for split, records in source.splits.items())
    seen = f"Recognized {form}: {rows}."
    return replace(
        source, notes=(seen, *choice.notes, *told, *more, *notes, *_shared_groups(source, config))
    )


def _open_tables(data: Any) -> tuple[str, dict[str, Table], tuple[str, ...]]:
    if isinstance(data, str | Path):
        found = recognize(data)
        if found.hub:
            splits, notes = from_object(from_hub(found.hub, stream=False), found.hub)
            return found.form, _hugging_face(splits, found.hub), tuple(notes)
        return _found_tables(found)
    if is_dataset(data):
        splits, notes = from_object(data, "the data set")
        if any(not hasattr(dataset, "__len__") for dataset in splits.values()):
            msg = "An iterable data set is streamed: set stream=True (--stream), or give a Dataset."
            raise ValueError(msg)
        return "a Hugging Face data set", _hugging_face(splits, "the data set"), tuple(notes)
    if type(data).__module__.split(".")[0] == "pandas" and hasattr(data, "columns"):
        columns = {str(name): data[name].tolist() for name in data.columns}
        table = ColumnTable(name="the DataFrame", columns=columns)
        if not len(table):
            msg = "The DataFrame holds no rows."
            raise ValueError(msg)
        return "a DataFrame", {"train": table}, ()
    msg = (
        "Expected a path, a hub id, a pandas DataFrame or a Hugging Face Dataset or DatasetDict, got "
        f"{type(data).__name__}."
    )
    raise TypeError(msg)


def _found_tables(found: Found) -> tuple[str, dict[str, Table], tuple[str, ...]]:
    notes = list(found.notes)
    tables: dict[str, Table] = {}
    for split, place in found.places.items():
        opened, more = _place_tables(place)
        notes += more
        if len(found.places) == 1 and split == "train":
            tables |= opened
        else:
            parts = list(opened.values())
            tables[split] = parts[0] if len(parts) == 1 else Concatenated(parts)
    if {place.kind for place in found.places.values()} == {"saved"} and len(tables) > 1:
        return f"{found.form}, split into {' and '.join(tables)}", tables, tuple(notes)
    return found.form, tables, tuple(notes)


def _place_tables(place: Place) -> tuple[dict[str, Table], list[str]]:
    folder = place.paths[0]
    if place.kind == "files":
        return {"train": read_files(place.paths)}, []
    if place.kind == "saved":
        splits, notes = from_object(from_saved(folder), str(folder))
        return _hugging_face(splits, str(folder)), notes
    if place.kind == "metadata":
        table, notes = metadata_table(folder)
        return metadata_splits(table), notes
    table, notes = class_table(folder) if place.kind == "classes" else file_table(folder)
    return {"train": table}, notes


def _hugging_face(splits: Mapping[str, Any], name: str) -> dict[str, Table]:
    tables: dict[str, Table] = {}
    for split, dataset in splits.items():
        if not len(dataset):
            msg = f"The split {split} of {name} holds no rows."
            raise ValueError(msg)
        tables[split] = HuggingFaceTable(dataset, f"{name} ({split})" if len(splits) > 1 else name)
    return tables


def _divide(
    tables: dict[str, Table], config: DataConfig
) -> tuple[dict[str, Table], tuple[str, ...]]:
    """Divide the rows by the column that tells their split, if one is named."""
    if config.split_column is None:
        if config.test is not None:
            msg = f"test='{config.test}' says a value, but not of which column. Add --split-column COLUMN."
            raise ValueError(msg)
        return tables, ()
    parts = list(tables.values())
    whole = parts[0] if len(parts) == 1 else Concatenated(parts)
    column = config.split_column
    if column not in whole.fields:
        choose(whole.fields, config, whole.name)  # says what is missing
    values = [None if value is None else str(value) for value in whole.column(column)]
    if config.test is not None:
        names = ["test" if value == config.test else "train" for value in values]
    else:
        names = [split_of(value or "") for value in values]
    seen = sorted({str(value) for value in values})
    shown = ", ".join(seen[:20]) + (", ..." if len(seen) > 20 else "")
    if config.test is not None and "test" not in names:
        msg = f"No row of {whole.name} has '{config.test}' in column '{column}'; the values there are {shown}."
        raise ValueError(msg)
    if None in names:
        msg = (
            f"Column '{column}' of {whole.name} must say train, validation or test, but its values are {shown}. Say "
            "which of them is the test split with --test VALUE."
        )
        raise ValueError(msg)
    divided = {
        split: Subset(whole, [i for i, name in enumerate(names) if name == split])
        for split in ("train", "validation", "test")
        if split in names
    }
    if "train" not in divided:
        msg = f"Every row of {whole.name} is in {' or '.join(divided)} by column '{column}': nothing is left to train."
        raise ValueError(msg)
    return dict(divided), (f"Rows are divided by column '{column}'.",)


def _narrow(table: Table, choice: Choice, split: str) -> Table:
    """Keep the columns that are used. A split may lack the target: then it is left out later, and said so."""
    inputs = {column.column: column.kind for column in choice.inputs.values()}
    kept: dict[str, Field] = {}
    for column in choice.columns:
        if column not in table.fields:
            if column == choice.target and split != "train":
                continue
            msg = f"The split {split} ({table.name}) lacks the column '{column}' that the others have."
            raise ValueError(msg)
        known = table.fields[column]
        kept[column] = replace(known, kind=inputs[column]) if column in inputs else known
    return table.keep(kept)


def _label(
    source: DataSource, tables: Mapping[str, Table], label_names: Sequence[str] | None
) -> tuple[DataSource, list[str]]:
    """Turn the target of every split into indices, and find the names of the classes."""
    target = source.target
    if target is None:
        return replace(source, label_names=tuple(label_names or ())), []
    splits: dict[str, Records] = {}
    notes: list[str] = []
    classes = tuple(label_names) if label_names is not None else None
    for split, table in tables.items():
        values = table.column(target) if target in table.fields else [None]
        if split != "train" and all(value in {None, "", -1} for value in values):
            notes.append(f"Left out: {split}, as none of its {len(table):,} rows has a label.")
            continue
        column = table.fields[target]
        if classes is None:
            classes = class_names(values, column, f"Column '{target}' of {table.name}")
        index = ClassIndex(classes, target, column)
        found = [index(value, table.where(row)) for row, value in enumerate(values)]
        splits[split] = Labelled(table, target, np.asarray(found, dtype=np.int64))
    classes = classes or ()
    notes.insert(0, describe_classes(classes))
    return replace(source, splits=splits, label_names=classes), notes


def _shared_groups(source: DataSource, config: DataConfig) -> tuple[str, ...]:
    if config.group is None or "train" not in source.splits or "test" not in source.splits:
        return ()
    both = set(source.splits["train"].column(config.group)) & set(
        source.splits["test"].column(config.group)
    )
    if not both:
        return ()
    return (
        f"Warning: {len(both)} values of '{config.group}' stand in both train and test, as the data come.",
    )


def _open_streams(
    data: Any, config: DataConfig, label_names: Sequence[str] | None
) -> DataSource | None:
    """Return the data as streams, or None where they are read by index anyway."""
    notes: list[str] = []
    if isinstance(data, str | Path):
        found = recognize(data)
        form, name = found.form, found.hub or found.form
        if found.hub:
            splits, notes = from_object(from_hub(found.hub, stream=True), name)
            parts = stream_hub(splits, name, config, label_names)
        elif all(place.kind == "files" for place in found.places.values()):
            files = {split: place.paths for split, place in found.places.items()}
            parts, notes = stream_files(files, config, label_names), list(found.notes)
        else:
            return None
    elif is_dataset(data):
        form = name = "a Hugging Face data set"
        splits, notes = from_object(data, name)
        parts = stream_hub(splits, name, config, label_names)
    else:
        return None
    if parts is None:
        return None
    seen = f"Recognized {form}, streamed: {', '.join(parts.streams)}."
    choice, told = parts.choice, (*parts.notes, *notes)
    return DataSource(
        form=form,
        splits={},
        inputs=choice.inputs,
        target=choice.target,
        label_names=parts.classes,
        ignored=choice.ignored,
        notes=(seen, *choice.notes, *told),
        streams=parts.streams,
    )
