"""Open data: from a path, hub id or object to splits, inputs and targets."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np

from perceivers.data.base import DataConfig, split_of
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.formats.files import column_table, frame_table, is_pandas, read_files
from perceivers.data.formats.huggingface import (
    HuggingFaceTable,
    is_dataset,
    load_hub_dataset,
    load_saved_dataset,
    select_splits,
)
from perceivers.data.formats.remote import Location, suffix_of
from perceivers.data.modalities.video.decode import read_video_header
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
from perceivers.data.sources.layout import STREAMED, SplitLocation, recognize
from perceivers.data.sources.named_files import name_files
from perceivers.data.streaming.shards import (
    FileScan,
    FileShard,
    HubShard,
    Shard,
    hub_shards,
    scan_file,
)
from perceivers.data.streaming.stream import Stream
from perceivers.data.tables.bad_rows import check_bad_share
from perceivers.data.tables.columns import ColumnSelection, InputColumn, check_paths, choose
from perceivers.data.tables.memory import check_memory
from perceivers.data.tables.table import (
    ColumnTable,
    Concatenated,
    Field,
    Subset,
    Table,
    common_field,
    of_table,
)
from perceivers.data.targets.classes import label_name
from perceivers.data.targets.encode import KnownNames, encode_targets, wanted_kind
from perceivers.data.targets.infer import (
    Moments,
    TargetEncoder,
    find_targets,
    moments,
)
from perceivers.wording import counted

_LOOKED_AT = 12  # rows that decide what names do not

_BAD_SHOWN = 3  # bad rows in a note
_TARGETS_SEEN = 100  # rows that decide what a target is, where its names are known


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
    if config.stream:
        source = _open_streams(data, config, label_names, inputs)
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
    if source.label_names and label_names is not None and tuple(label_names) != source.label_names:
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
    form, tables, notes = _open_tables(data)
    notes += tuple(note for table in tables.values() for note in table.notes)
    bad = {name: reason for table in tables.values() for name, reason in table.bad}
    if bad:
        num_rows = len(bad) + sum(len(table) for table in tables.values())
        check_bad_share(bad, num_rows, config.max_bad)
        shown = " ".join(list(bad.values())[:_BAD_SHOWN])
        notes += (f"Skipped: {counted(len(bad), 'row')} that cannot be read. {shown}",)
    tables, more = _divide(tables, config)
    return form, tables, (*more, *notes)


def _open_tables(data: Any) -> tuple[str, dict[str, Table], tuple[str, ...]]:
    if not isinstance(data, str | Path | list | tuple) or _are_rows(data):
        return _open_object(data)
    found = recognize(data)
    if found.hub:
        splits, notes = select_splits(load_hub_dataset(found.hub, stream=False), found.hub)
        return found.form, _hugging_face(splits, found.hub), tuple(notes)
    tables, notes = {}, list(found.notes)
    for split, location in found.splits.items():
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
    if location.kind == "text":
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


def _open_streams(
    data: Any,
    config: DataConfig,
    label_names: KnownNames | None,
    inputs: Mapping[str, InputColumn] | None,
) -> DatasetBundle | None:
    """Return the data as streams, or None if their form can only be read by index."""
    if _are_rows(data):
        return None
    if isinstance(data, str | Path | list | tuple):
        found = recognize(data)
        form, notes = found.form, list(found.notes)
        if found.hub:
            name = found.hub
            splits, notes = select_splits(load_hub_dataset(name, stream=True), name)
            source = _stream_hub(splits, name, config, label_names, inputs)
        elif all(part.kind == "files" for part in found.splits.values()):
            files = {split: part.paths for split, part in found.splits.items()}
            if any(suffix_of(path) not in STREAMED for paths in files.values() for path in paths):
                return None
            source = _stream_files(files, config, label_names, inputs)
        else:
            return None
    elif is_dataset(data):
        form = "a Hugging Face data set"
        splits, notes = select_splits(data, form)
        source = _stream_hub(splits, form, config, label_names, inputs)
    else:
        return None
    seen = f"Recognized {form}, streamed: {', '.join(source.streams)}."
    return replace(source, form=form, notes=(seen, *source.notes, *notes))


def _stream_files(
    files: Mapping[str, Sequence[Location]],
    config: DataConfig,
    label_names: KnownNames | None,
    inputs: Mapping[str, InputColumn] | None,
) -> DatasetBundle:
    """Return files as streams.

    Text files and archives are read once to count their rows and infer their columns and classes; of Parquet files, the
    label column alone. A damaged file is used as far as it can be read; the run counts the rest.
    """
    wanted = _wanted_targets(config)
    scans = {split: [scan_file(path, wanted) for path in paths] for split, paths in files.items()}
    start = next(iter(files))
    first, fields = _common_fields(scans[start])
    choice = _choose_streamed(fields, config, first, inputs)
    notes = [note for found in scans.values() for scan in found for note in scan.notes]
    shards: dict[str, list[FileShard]] = {}
    for split, found in scans.items():
        name, of_split = (first, fields) if split == start else _common_fields(found)
        kept = choice.kept(of_split, name)
        shards[split] = [
            FileShard(scan.path, of_table(kept, scan.fields), scan.num_rows) for scan in found
        ]
    values = {
        split: [cell for scan in found for cell in scan.values.get(choice.target or "", ())]
        for split, found in scans.items()
    }
    source = _streams(shards, choice, config, first, values, label_names)
    return replace(source, notes=(*source.notes, *dict.fromkeys(notes)))


def _wanted_targets(config: DataConfig) -> tuple[str, ...]:
    """Return the columns that may hold the target."""
    if config.label is None:
        return ("label",)
    parts = [part.strip() for part in config.label.split(",")]
    return (config.label, *parts, *(part.rpartition(":")[0] for part in parts if ":" in part))


def _common_fields(scans: Sequence[FileScan]) -> tuple[str, dict[str, Field]]:
    """Return the name of the first file that can be read, and the columns of all.

    Raises:
        ValueError: If no file can be read. The message states the reason of the first.
    """
    good = [scan for scan in scans if scan.fields and scan.num_rows]
    if not good:
        raise ValueError(scans[0].damage or f"{scans[0].path} holds no rows.")
    names = dict.fromkeys(name for scan in good for name in scan.fields)
    return str(good[0].path), {
        name: common_field([scan.fields[name] for scan in good if name in scan.fields])
        for name in names
    }


def _stream_hub(
    datasets: Mapping[str, Any],
    name: str,
    config: DataConfig,
    label_names: KnownNames | None,
    inputs: Mapping[str, InputColumn] | None,
) -> DatasetBundle:
    """Return data sets of the `datasets` library as streams, whose target must name its classes."""
    parts = {split: hub_shards(dataset, name) for split, dataset in datasets.items()}
    fields = next(iter(parts.values()))[0].fields
    choice = _choose_streamed(fields, config, name, inputs)
    shards: dict[str, list[HubShard]] = {}
    for split, of_split in parts.items():
        kept = choice.kept(of_split[0].fields, f"{name} ({split})")
        shards[split] = [replace(part, fields=kept) for part in of_split]
    names = label_names
    if choice.target is not None and names is None:
        names = fields[choice.target].names or None
        if names is None and config.target != "number":
            raise ValueError(
                f"Column '{choice.target}' of {name} does not name its classes, and reading all of it to find them "
                "would take as long as training. Leave --stream out, or use data whose label is a ClassLabel; a "
                "quantity is learned with --target number."
            )
    return _streams(shards, choice, config, name, None, names)


def _choose_streamed(
    fields: Mapping[str, Field],
    config: DataConfig,
    name: str,
    inputs: Mapping[str, InputColumn] | None,
) -> ColumnSelection:
    """Select columns, and refuse what streams do not support."""
    if config.split_column is not None:
        raise ValueError(
            f"Rows are divided by column '{config.split_column}' only if they are read by index. Leave --stream out, "
            "or keep each split in separate files."
        )
    choice = choose(fields, config, name, inputs=inputs)
    if len(choice.tasks) > 1:
        raise ValueError(
            f"Several labels ({', '.join(choice.tasks)}) are learned from rows that are read by index. Leave --stream "
            "out, or give one label."
        )
    return choice


def _first_values(shards: Sequence[Shard], column: str) -> list[Any]:
    """Return some targets of each shard without reading their media."""
    few = [replace(cast("Any", shard), fields={column: shard.fields[column]}) for shard in shards]
    each = max(1, _TARGETS_SEEN // len(few))
    cells = [row[column] for shard in few for row in islice(Stream([shard]), each)]
    return [cell.value if isinstance(cell, EncodedItem) else cell for cell in cells]


def _streams(
    shards: Mapping[str, Sequence[Shard]],
    choice: ColumnSelection,
    config: DataConfig,
    name: str,
    values: Mapping[str, Sequence[Any]] | None,
    label_names: KnownNames | None,
) -> DatasetBundle:
    """Return shards as streams with their targets; `values` are the targets of the splits, if they were read."""
    encoder: TargetEncoder | None = None
    notes: list[str] = []
    statistics: Moments | None = None
    if choice.target is not None:
        start, first = next(iter(shards.items()))
        known = values[start] if values is not None else _first_values(first, choice.target)
        encoder, found = find_targets(
            known,
            first[0].fields[choice.target],
            choice.target,
            table=name,
            kind=wanted_kind(choice, config, choice.target),
            names=None if label_names is None else tuple(label_names),
        )
        notes += found
        if values is not None:
            notes += _unlearnable(values, encoder)
        if encoder.kind == "number" and values is not None and label_names is None:
            where = f"Column '{choice.target}' of {name}"
            numbers = [np.asarray(encoder(v, where)) for v in known if not encoder.is_missing(v)]
            statistics = moments(np.stack(numbers))
    streams: dict[str, Stream] = {}
    for split, parts in shards.items():
        labels = encoder and replace(encoder, field=parts[0].fields[encoder.column])
        stream = Stream(parts, labels=labels)
        streams[split] = stream.shuffled(config.shuffle_buffer, 0) if split == "train" else stream
    return DatasetBundle(
        form="",
        splits={},
        inputs=choice.inputs,
        target=choice.target,
        label_names=encoder.names if encoder else (),
        ignored=choice.ignored,
        notes=(*choice.notes, *notes),
        streams=streams,
        target_kind=encoder.kind if encoder else "class",
        stream_moments=statistics,
    )


def _unlearnable(values: Mapping[str, Sequence[Any]], encoder: TargetEncoder) -> list[str]:
    """Return sentences about rows without a label, and with one that the training data lack."""
    notes: list[str] = []
    known = set(encoder.names)
    for split, cells in values.items():
        empty = sum(encoder.is_missing(cell) for cell in cells)
        if empty:
            notes.append(f"Skipped: {empty:,} of {len(cells):,} rows of {split} have no label.")
        if encoder.kind != "class":
            continue
        names = Counter(label_name(cell, encoder.field, split) for cell in cells)
        del names[None]
        new = {name: count for name, count in names.items() if name not in known}
        if new and not all(str(name).isdecimal() for name in new):
            shown = ", ".join(f"'{name}' ({count:,})" for name, count in list(new.items())[:10])
            notes.append(
                f"{sum(new.values()):,} of {len(cells):,} rows of {split} have a label that is not in the training "
                f"data and cannot be learned, and count as rows that cannot be read: {shown}."
            )
    return notes


def with_audio_tracks(
    choice: ColumnSelection, rows: Iterable[Mapping[str, Any]]
) -> ColumnSelection:
    """Add the audio track of a video column as an input, if all videos have one.

    In some data sets only some classes have audio, so an audio track that is missing in some videos could reveal the
    class, and is read only on request.

    Args:
        choice: Inferred columns.
        rows: A few rows of train.
    """
    videos = [part for part in choice.inputs.values() if part.kind == "video"]
    if len(videos) != 1 or "audio" in choice.inputs:
        return choice
    column = videos[0].column
    with_audio = [has for row in rows if (has := _has_audio(row[column])) is not None]
    if not any(with_audio):
        return choice
    if all(with_audio):
        inputs = {**choice.inputs, "audio": InputColumn(column, "audio")}
        note = "All videos examined have an audio track, which is read with them."
    else:
        inputs = choice.inputs
        note = (
            f"Of {len(with_audio)} videos examined, {sum(with_audio)} have an audio track. It is not read, as having "
            f"one may give the class away; --columns {column}:film reads it all the same."
        )
    return replace(choice, inputs=inputs, notes=(*choice.notes, note))


def _has_audio(item: EncodedItem) -> bool | None:
    """Return True if a video has an audio track, None if it cannot be read."""
    try:
        return read_video_header(item).has_audio
    except (ValueError, OSError):
        return None
