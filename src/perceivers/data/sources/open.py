"""Open data: from a path, hub id or object to splits, inputs and targets."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np

from perceivers.data.base import DataConfig, split_of
from perceivers.data.formats.files import column_table, frame_table, is_pandas, read_files
from perceivers.data.formats.huggingface import (
    HuggingFaceTable,
    is_dataset,
    load_hub_dataset,
    load_saved_dataset,
    select_splits,
)
from perceivers.data.sources.audio_tracks import with_audio_tracks
from perceivers.data.sources.builtin import PREFIX, open_builtin
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.data.sources.flow_datasets import flow_tables
from perceivers.data.sources.folders import (
    class_table,
    file_table,
    image_pair_table,
    metadata_splits,
    metadata_table,
    one_file,
)
from perceivers.data.sources.layout import SplitLocation, recognize
from perceivers.data.sources.named_files import name_files
from perceivers.data.sources.open_streams import open_streams
from perceivers.data.sources.series_parts import series_of_steps, series_table
from perceivers.data.tables.bad_rows import check_bad_share
from perceivers.data.tables.columns import ColumnSelection, InputColumn, check_paths, choose
from perceivers.data.tables.memory import check_memory
from perceivers.data.tables.table import (
    ColumnTable,
    Concatenated,
    Field,
    Subset,
    Table,
)
from perceivers.data.targets.encode import KnownNames, encode_targets
from perceivers.wording import counted

_LOOKED_AT = 12  # rows that decide what names do not
_BAD_SHOWN = 3  # bad rows in a note


def open_data(
    data: Any,
    config: DataConfig,
    *,
    label_names: KnownNames | None = None,
    inputs: Mapping[str, InputColumn] | None = None,
) -> DatasetBundle:
    """Return the data behind a path, hub id or object.

    Args:
        data: A path, a glob or brace pattern of shards, the id of a data set on the Hugging Face hub, `builtin:digits`
            or `builtin:flow`; or a list of dicts, a dict of lists, a pandas `DataFrame`, or a `Dataset` or
            `DatasetDict` of `datasets`. A path that exists wins over an id. Opened data are returned as they are.
        config: Columns and splits.
        label_names: Classes, labels or numbers of a trained model; of several tasks, those of each by its name. By
            default those of train.
        inputs: Input columns of a trained model, if the data have them. By default inferred.

    Raises:
        ValueError: If the data are not recognized, a column is missing or cannot be inferred, or a label is unknown.
        OSError: If a file is missing or cannot be read.
        TypeError: If `data` has another type.
    """
    if isinstance(data, DatasetBundle):
        return data
    if isinstance(data, str) and data.startswith(PREFIX):
        return _builtin(data, label_names)
    if config.stream and not _are_rows(data):
        source = open_streams(data, config, label_names, inputs)
        if source is not None:
            return source
    form, tables, notes = open_tables(data, config)
    tables = name_files(tables, config)
    name = next(iter(tables.values())).name
    fields = next(iter(tables.values())).fields
    choice = choose(fields, config, name, inputs=inputs)
    for split, table in tables.items():
        # A split without the target is left out later, with a note.
        where = f"The split {split} ({table.name})"
        kept = choice.kept(table.fields, where, without_target=split != "train")
        tables[split] = table.keep(kept)
    if inputs is None and not config.columns:
        first = next(iter(tables.values()))
        few = np.unique(np.linspace(0, len(first) - 1, _LOOKED_AT).round().astype(int))
        choice = with_audio_tracks(choice, (first.row(int(index)) for index in few))
    _check_tables(tables, fields, choice)
    if config.stream:
        notes = (*notes, "These data are read by index, so streaming changes nothing.")
    source = DatasetBundle(form, tables, choice.inputs, choice.target, (), choice.ignored)
    target_notes: tuple[str, ...] = ()
    if choice.target is None:
        source = replace(source, label_names=tuple(label_names or ()))
    else:
        found = encode_targets(tables, choice, config, label_names)
        target_notes = found.notes
        source = replace(
            source,
            splits=found.splits,
            label_names=found.names,
            target_kind=found.kind,
            tasks=found.tasks,
        )
    rows = ", ".join(f"{name} {counted(len(x), 'row')}" for name, x in source.splits.items())
    shared = _shared_groups(source, config)
    seen = f"Recognized {form}: {rows}."
    return replace(source, notes=(seen, *choice.notes, *target_notes, *notes, *shared))


def _check_tables(
    tables: Mapping[str, Table], fields: Mapping[str, Field], choice: ColumnSelection
) -> None:
    """Refuse texts and paths that are none, and tables that do not fit into memory."""
    _check_texts(next(iter(tables.values())), fields, choice)
    for table in tables.values():
        check_paths(table, [c for part in choice.inputs.values() for c in part.all_columns])
    check_memory(tables.values())


def _check_texts(table: Table, fields: Mapping[str, Field], choice: ColumnSelection) -> None:
    """Check that short strings that are read as text are not names of files.

    Raises:
        ValueError: If they are.
    """
    for part in choice.inputs.values():
        if part.kind != "text" or fields[part.column].kind != "string":
            continue
        filled = (str(cell) for cell in table.column(part.column) if cell is not None)
        few = list(islice(filled, _LOOKED_AT))
        if few and all(_is_file(table.folder / text) for text in few):
            raise ValueError(
                f"Column '{part.column}' of {table.name} holds short strings that name files, such as '{few[0]}', "
                f"whose suffix does not show what they hold. Name their kind: --columns {part.column}:image."
            )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # no name of a file
        return False


def _builtin(name: str, label_names: KnownNames | None) -> DatasetBundle:
    """Return a built-in data set, and refuse it for a model with other classes."""
    source = open_builtin(name)
    if source.label_names and label_names and tuple(label_names) != source.label_names:
        raise ValueError(
            f"{name} has the labels {', '.join(source.label_names)}; the model was trained on "
            f"{', '.join(label_names)}."
        )
    return source


def open_tables(data: Any, config: DataConfig) -> tuple[str, dict[str, Table], tuple[str, ...]]:
    """Return the recognized form, the splits with all of their columns, and notes.

    Raises:
        ValueError: If the data are not recognized or cannot be divided.
        OSError: If a file is missing or cannot be read.
        TypeError: If `data` has another type.
    """
    form, tables, notes = _open_tables(data, series_files=config.series_files)
    notes += tuple(note for table in tables.values() for note in table.notes)
    bad = {name: reason for table in tables.values() for name, reason in table.bad}
    if bad:
        num_rows = len(bad) + sum(len(table) for table in tables.values())
        check_bad_share(bad, num_rows, config.max_bad)
        shown = " ".join(list(bad.values())[:_BAD_SHOWN])
        notes += (f"Skipped: {counted(len(bad), 'row')} that cannot be read. {shown}",)
    tables, more = _divide(tables, config)
    return form, tables, (*more, *notes)


def _open_tables(data: Any, *, series_files: bool) -> tuple[str, dict[str, Table], tuple[str, ...]]:
    if not isinstance(data, str | Path | list | tuple) or _are_rows(data):
        form, objects, object_notes = _open_object(data)
        if series_files:
            objects = {split: series_of_steps(table) for split, table in objects.items()}
        return form, objects, object_notes
    found = recognize(data)
    if found.hub:
        splits, notes = select_splits(load_hub_dataset(found.hub, stream=False), found.hub)
        return found.form, _hugging_face(splits, found.hub), tuple(notes)
    tables, notes = {}, list(found.notes)
    for split, location in found.splits.items():
        if series_files and location.kind == "files":
            opened, more = (
                {"train": series_table([Path(path) for path in location.paths])},
                list[str](),
            )
        else:
            opened, more = open_location(location)
        notes += more
        if len(found.splits) == 1 and split == "train":
            tables |= opened
        else:
            tables[split] = _joined(list(opened.values()))
    form = found.form
    if len(tables) > 1 and all(part.kind == "saved" for part in found.splits.values()):
        form = f"{form}, split into {' and '.join(tables)}"
    return form, tables, tuple(notes)


def _open_object(data: Any) -> tuple[str, dict[str, Table], tuple[str, ...]]:
    """Return the form, the splits and notes of data in memory."""
    if _are_rows(data):
        return "a list of dicts", {"train": _rows_table(data)}, ()
    if is_dataset(data):
        splits, notes = select_splits(data, "the data set")
        if any(not hasattr(dataset, "__len__") for dataset in splits.values()):
            raise ValueError(
                "An iterable data set is streamed: set stream=True (--stream), or give a Dataset."
            )
        return "a Hugging Face data set", _hugging_face(splits, "the data set"), tuple(notes)
    if is_pandas(data) and hasattr(data, "columns"):
        return "a DataFrame", {"train": frame_table(data)}, ()
    if isinstance(data, Mapping):
        return "a dict of columns", {"train": _dict_table(cast("Mapping[Any, Any]", data))}, ()
    raise TypeError(
        "Expected a path, a hub id, a list of dicts, a dict of lists, a pandas DataFrame or a Hugging Face Dataset or "
        f"DatasetDict, got {type(data).__name__}."
    )


def _are_rows(data: Any) -> bool:
    return isinstance(data, list | tuple) and any(isinstance(row, Mapping) for row in data)


def _rows_table(rows: Sequence[Any]) -> Table:
    """Return a list of dicts as a table."""
    wrong = next((n for n, row in enumerate(rows) if not isinstance(row, Mapping)), None)
    if wrong is not None:
        raise TypeError(
            f"Expected a list of dicts, a row each, got {type(rows[wrong]).__name__} in row {wrong}."
        )
    return column_table("the list", rows, folder=Path())


def _dict_table(data: Mapping[Any, Any]) -> Table:
    """Return a dict of lists as a table."""
    columns = {str(name): cells for name, cells in data.items()}
    wrong = [
        n for n, c in columns.items() if isinstance(c, str | bytes) or not hasattr(c, "__len__")
    ]
    lengths = {name: len(cells) for name, cells in columns.items() if name not in wrong}
    if wrong or len(set(lengths.values())) != 1 or not next(iter(lengths.values())):
        seen = ", ".join(f"{name} ({length})" for name, length in lengths.items())
        raise ValueError(
            "Expected a dict of columns, equally long lists or arrays with at least one row, got "
            f"{seen or 'none'}{f'; {wrong[0]} is no list' if wrong else ''}."
        )
    return ColumnTable(name="the dict", columns=columns)


def _joined(tables: Sequence[Table]) -> Table:
    return tables[0] if len(tables) == 1 else Concatenated(tables)


def open_location(location: SplitLocation) -> tuple[dict[str, Table], list[str]]:
    """Return the tables of a location by split, and notes; without divisions of its own, the split is `train`."""
    if location.kind == "files":
        return {"train": read_files(location.paths)}, []
    folder = Path(location.paths[0])
    if location.kind == "single":
        return {"train": one_file(folder)}, []
    if location.kind == "saved":
        splits, notes = select_splits(load_saved_dataset(folder), str(folder))
        return _hugging_face(splits, str(folder)), notes
    if location.kind == "pairs":
        pairs, notes = flow_tables(folder)
        return {**pairs}, notes
    if location.kind == "metadata":
        table, notes = metadata_table(folder)
        return metadata_splits(table), notes
    readers = {"targets": image_pair_table, "classes": class_table, "flat": file_table}
    table, notes = readers[location.kind](folder)
    return {"train": table}, notes


def _hugging_face(splits: Mapping[str, Any], name: str) -> dict[str, Table]:
    tables: dict[str, Table] = {}
    for split, dataset in splits.items():
        if not len(dataset):
            raise ValueError(f"The split {split} of {name} holds no rows.")
        tables[split] = HuggingFaceTable(dataset, f"{name} ({split})" if len(splits) > 1 else name)
    return tables


def _divide(
    tables: dict[str, Table], config: DataConfig
) -> tuple[dict[str, Table], tuple[str, ...]]:
    """Divide the rows by `config.split_column`, if it is set."""
    if config.split_column is None:
        if config.test is not None:
            raise ValueError(
                f"test='{config.test}' names a value, but not its column. Add --split-column COLUMN."
            )
        return tables, ()
    table = _joined(list(tables.values()))
    column = config.split_column
    if column not in table.fields:
        choose(table.fields, config, table.name)  # raises the error
    values = [None if value is None else str(value) for value in table.column(column)]
    if config.test is not None:
        names = ["test" if value == config.test else "train" for value in values]
    else:
        names = [split_of(value or "") for value in values]
    seen = sorted({str(value) for value in values})
    shown = ", ".join(seen[:20]) + (", ..." if len(seen) > 20 else "")
    if config.test is not None and "test" not in names:
        raise ValueError(
            f"No row of {table.name} has '{config.test}' in column '{column}'; the values there are {shown}."
        )
    if None in names:
        raise ValueError(
            f"Column '{column}' of {table.name} must hold train, validation or test, but its values are {shown}. Name "
            "the one of the test split with --test VALUE."
        )
    divided = {
        split: Subset(table, [i for i, name in enumerate(names) if name == split])
        for split in ("train", "validation", "test")
        if split in names
    }
    if "train" not in divided:
        raise ValueError(
            f"Every row of {table.name} is in {' or '.join(divided)} by column '{column}': nothing is left to train."
        )
    return dict(divided), (f"Rows are divided by column '{column}'.",)


def _shared_groups(source: DatasetBundle, config: DataConfig) -> tuple[str, ...]:
    if config.group is None or "train" not in source.splits or "test" not in source.splits:
        return ()
    both = set(source.splits["train"].column(config.group)) & set(
        source.splits["test"].column(config.group)
    )
    if not both:
        return ()
    occur = "occurs" if len(both) == 1 else "occur"
    return (
        f"Warning: {counted(len(both), 'value')} of '{config.group}' {occur} in both train and test.",
    )
