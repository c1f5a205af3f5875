"""Open data as streams: files and hub data sets that are read in the order of their shards."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np

from perceivers.data.base import DataConfig
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.formats.huggingface import (
    is_dataset,
    load_hub_dataset,
    select_splits,
)
from perceivers.data.formats.remote import Location, suffix_of
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.data.sources.layout import STREAMED, recognize
from perceivers.data.streaming.shards import (
    FileScan,
    FileShard,
    HubShard,
    Shard,
    hub_shards,
    scan_file,
)
from perceivers.data.streaming.stream import Stream
from perceivers.data.tables.columns import ColumnSelection, InputColumn, choose
from perceivers.data.tables.table import (
    Field,
    common_field,
    of_table,
)
from perceivers.data.targets.classes import label_name
from perceivers.data.targets.encode import KnownNames, wanted_kind
from perceivers.data.targets.infer import (
    Moments,
    TargetEncoder,
    find_targets,
    moments,
)

_TARGETS_SEEN = 100  # rows that decide what a target is, where its names are known


def open_streams(
    data: Any,
    config: DataConfig,
    label_names: KnownNames | None,
    inputs: Mapping[str, InputColumn] | None,
) -> DatasetBundle | None:
    """Return the data as streams, or None if their form can only be read by index. Arguments as for `open_data`."""
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
