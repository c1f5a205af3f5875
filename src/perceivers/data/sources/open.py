"""`open_data`: from whatever the user gave to splits, inputs, target and names of classes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from perceivers.data.base import DataConfig, Records
from perceivers.data.formats.files import read_files
from perceivers.data.formats.huggingface import (
    HuggingFaceTable,
    from_hub,
    from_object,
    from_saved,
    is_dataset,
)
from perceivers.data.modalities.video.audio_track import with_sound
from perceivers.data.sources.flow_datasets import pair_tables
from perceivers.data.sources.folders import (
    class_table,
    file_table,
    metadata_splits,
    metadata_table,
    one_file,
)
from perceivers.data.sources.image_pairs import picture_pair_table
from perceivers.data.sources.layout import Found, Place, recognize, split_of
from perceivers.data.streaming.open_stream import stream_files, stream_hub
from perceivers.data.streaming.stream import Stream
from perceivers.data.tables.columns import Choice, InputColumn, check_paths, choose
from perceivers.data.tables.memory import check_memory
from perceivers.data.tables.table import ColumnTable, Concatenated, Subset, Table
from perceivers.data.targets.encode import KnownNames, is_known, label_splits
from perceivers.data.targets.infer import Moments, TargetKind, TargetReader, moments

__all__ = ["DataSource", "InputColumn", "open_data", "open_tables"]

_LOOKED_AT = 12  # rows, for what is not told by names


@dataclass(frozen=True)
class DataSource:
    """Data that were recognized, and how they are used.

    Attributes:
        form: What was recognized, in words.
        splits: `train`, `validation`, `test`: those that the data have. A table or folder alone is `train`.
        inputs: Input columns by the name of their modality.
        target: Column of the target. None: files without labels. Of several tasks, the name under which a row holds the
            targets of all of them, by task.
        label_names: Names of the classes in the order of their indices, of the labels, or of the numbers to predict; of
            several tasks, their names. Empty without a target.
        ignored: Columns that are not used.
        notes: Sentences on what was seen and chosen.
        streams: The splits where rows are streamed; then `splits` is empty.
        target_kind: What the target of a row is: one class, several labels, or numbers; or `several` targets.
        stream_moments: Mean and deviation of each number to predict, where streams know them.
        tasks: Of several targets, what each is and holds, by the name of its column.
    """

    form: str
    splits: Mapping[str, Records]
    inputs: Mapping[str, InputColumn]
    target: str | None
    label_names: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    streams: Mapping[str, Stream] = field(default_factory=dict[str, Stream])
    target_kind: TargetKind | Literal["several"] = "class"
    stream_moments: Moments | None = None
    tasks: Mapping[str, TargetReader] = field(default_factory=dict[str, TargetReader])

    def targets(self, split: str) -> list[Any]:
        """Return, for every row of a split, the index of its class; or K labels (0 or 1) or numbers, as float32.

        Of several tasks, a dict of these, with -1 and NaN where the target of a task is not known.

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
        column = self.splits[split].column(self.target)
        return [int(index) for index in column] if self.target_kind == "class" else list(column)

    def known_targets(self, split: str, task: str | None = None) -> npt.NDArray[Any]:
        """Return the targets of the rows of a split that have one, as one array.

        Args:
            split: Which split.
            task: Which of several tasks. None: there is only one.

        Raises:
            ValueError: If there is no such split, or there are no labels.
        """
        found = self.targets(split)
        if task is None:
            return np.asarray(found)
        values = np.asarray([one[task] for one in found])
        return values[is_known(values)]

    def class_counts(self, split: str, task: str | None = None) -> list[int]:
        """Return how many rows of a split each class has, or each label.

        Args:
            split: Which split.
            task: Which of several tasks. None: there is only one.

        Raises:
            ValueError: If there is no such split, or there are no labels, or the targets are numbers.
        """
        targets = self.known_targets(split, task)
        kind = self.target_kind if task is None else self.tasks[task].kind
        names = self.label_names if task is None else self.tasks[task].names
        if kind == "number":
            msg = (
                f"The target '{task or self.target}' is a number, so there are no classes to count."
            )
            raise ValueError(msg)
        if kind == "labels":
            return targets.sum(axis=0).astype(int).tolist()
        return np.bincount(targets, minlength=len(names)).tolist()

    def target_moments(self, task: str | None = None) -> Moments | None:
        """Return mean and standard deviation of each number in train; None for classes and labels.

        Streams may not know them either.

        Args:
            task: Which of several tasks. None: there is only one.
        """
        kind = self.target_kind if task is None else self.tasks[task].kind
        if kind != "number" or self.streams:
            return self.stream_moments
        return moments(self.known_targets("train", task).astype(np.float32))


def open_data(
    data: Any,
    config: DataConfig,
    *,
    label_names: KnownNames | None = None,
    inputs: Mapping[str, InputColumn] | None = None,
) -> DataSource:
    """Return the data behind a path, hub id or object.

    Args:
        data: A path, a glob or brace pattern of shards, the id of a data set on the Hugging Face hub; or a pandas
            `DataFrame`, or a `Dataset` or `DatasetDict` of `datasets`. A path that exists wins over an id.
        config: What the user said about columns and splits.
        label_names: The classes, labels or numbers that a trained model knows; of several tasks, those of each by its
            name. By default, those of train.
        inputs: The input columns of a trained model, where the data have them. By default they are found.

    Raises:
        ValueError: If the data are not recognized, a column is missing or cannot be told, or a label is unknown.
        OSError: If a file is missing or cannot be read.
        TypeError: If `data` is nothing of this kind.
    """
    if config.stream:
        source = _open_streams(data, config, label_names, inputs)
        if source is not None:
            return source
    form, tables, notes = open_tables(data, config)
    name = next(iter(tables.values())).name
    fields = next(iter(tables.values())).fields
    choice = choose(fields, config, name, inputs=inputs)
    tables = {split: _narrow(table, choice, split) for split, table in tables.items()}
    if inputs is None and not config.columns:
        choice = with_sound(choice, _few_rows(next(iter(tables.values()))))
    for table in tables.values():
        check_paths(table, [c for part in choice.inputs.values() for c in part.all_columns])
    check_memory(tables.values())
    if config.stream:
        notes = (*notes, "These data are read by index, so streaming changes nothing.")
    source = DataSource(form, tables, choice.inputs, choice.target, (), choice.ignored, ())
    told: tuple[str, ...] = ()
    if choice.target is None:
        source = replace(source, label_names=tuple(label_names or ()))
    else:
        found = label_splits(tables, choice, config, label_names)
        told = found.notes
        source = replace(
            source,
            splits=found.splits,
            label_names=found.names,
            target_kind=found.kind,
            tasks=found.tasks,
        )
    rows = ", ".join(f"{split} {len(records):,} rows" for split, records in source.splits.items())
    seen = f"Recognized {form}: {rows}."
    return replace(
        source, notes=(seen, *choice.notes, *told, *notes, *_shared_groups(source, config))
    )


def open_tables(data: Any, config: DataConfig) -> tuple[str, dict[str, Table], tuple[str, ...]]:
    """Return what was recognized in words, the splits with all of their columns, and sentences about them.

    Raises what `open_data` raises where the data are not recognized or cannot be divided.
    """
    form, tables, notes = _open_tables(data)
    tables, more = _divide(tables, config)
    return form, tables, (*more, *notes)


def _few_rows(table: Table) -> Iterator[Mapping[str, Any]]:
    """Yield rows spread over a table, to look at."""
    for index in np.unique(np.linspace(0, len(table) - 1, _LOOKED_AT).round().astype(int)):
        yield table.row(int(index))


def _open_tables(data: Any) -> tuple[str, dict[str, Table], tuple[str, ...]]:
    if isinstance(data, str | Path | list | tuple):
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
    if place.kind == "files":
        return {"train": read_files(place.paths)}, []
    folder = Path(place.paths[0])
    if place.kind == "text":
        return {"train": one_file(folder)}, []
    if place.kind == "saved":
        splits, notes = from_object(from_saved(folder), str(folder))
        return _hugging_face(splits, str(folder)), notes
    if place.kind == "pairs":
        pairs, notes = pair_tables(folder)
        return {**pairs}, notes
    if place.kind == "metadata":
        table, notes = metadata_table(folder)
        return metadata_splits(table), notes
    if place.kind == "targets":
        pair, notes = picture_pair_table(folder)
        return {"train": pair}, notes
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
    kept = choice.kept(
        table.fields, f"The split {split} ({table.name})", without_target=split != "train"
    )
    return table.keep(kept)


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
    data: Any,
    config: DataConfig,
    label_names: KnownNames | None,
    inputs: Mapping[str, InputColumn] | None,
) -> DataSource | None:
    """Return the data as streams, or None where they are read by index anyway."""
    notes: list[str] = []
    if isinstance(data, str | Path | list | tuple):
        found = recognize(data)
        form, name = found.form, found.hub or found.form
        if found.hub:
            splits, notes = from_object(from_hub(found.hub, stream=True), name)
            parts = stream_hub(splits, name, config, label_names, inputs)
        elif all(place.kind == "files" for place in found.places.values()):
            files = {split: place.paths for split, place in found.places.items()}
            parts, notes = stream_files(files, config, label_names, inputs), list(found.notes)
        else:
            return None
    elif is_dataset(data):
        form = name = "a Hugging Face data set"
        splits, notes = from_object(data, name)
        parts = stream_hub(splits, name, config, label_names, inputs)
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
        target_kind=parts.target_kind,
        stream_moments=parts.moments,
    )
