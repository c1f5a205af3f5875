"""What streams need to know before the first row comes: their columns, and what their targets are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, cast

import numpy as np

from perceivers.data.base import DataConfig
from perceivers.data.encoded_item import Media
from perceivers.data.formats.remote import Location, suffix_of
from perceivers.data.streaming.shards import (
    FileShard,
    HubShard,
    Shard,
    file_shards,
    hub_shards,
    sample_fields,
    shards_with_values,
)
from perceivers.data.streaming.stream import Stream
from perceivers.data.tables.columns import Choice, InputColumn, choose
from perceivers.data.tables.table import Field
from perceivers.data.targets.encode import KnownNames, wanted_kind
from perceivers.data.targets.infer import (
    Moments,
    TargetKind,
    TargetReader,
    find_targets,
    is_missing,
    moments,
)

__all__ = ["Streams", "stream_files", "stream_hub"]

STREAMED = (".parquet", ".tar", ".jsonl", ".csv")
_LOOKED_AT = 100  # rows by which it is told what a target is, where its names are known


@dataclass(frozen=True)
class Streams:
    """Streams, and what was found out about them.

    Attributes:
        streams: A stream for each split; train is shuffled.
        choice: The columns that are used.
        classes: Names of the classes, of the labels, or of the numbers to predict.
        notes: Sentences about that.
        target_kind: What the target of a row is.
        moments: Mean and deviation of each number to predict, where all of them were read.
    """

    streams: dict[str, Stream]
    choice: Choice
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    target_kind: TargetKind = "class"
    moments: Moments | None = None


def stream_files(
    files: Mapping[str, Sequence[Location]],
    config: DataConfig,
    label_names: KnownNames | None,
    inputs: Mapping[str, InputColumn] | None = None,
) -> Streams | None:
    """Return files as streams, or None where they are of a kind that is only read by index.

    Where the names of the classes are not known, the label column alone is read once. A file that is damaged is
    used as far as it can be read; the run counts the rest.

    Raises:
        ValueError: If the columns or the targets cannot be told.
        OSError: If a file is missing or cannot be reached.
    """
    if any(suffix_of(path) not in STREAMED for paths in files.values() for path in paths):
        return None
    _refuse_split_column(config)
    start = next(iter(files))
    first, fields = _first_readable(files[start])
    choice = _one_task(choose(fields, config, str(first), inputs=inputs))
    shards: dict[str, list[FileShard]] = {}
    values: list[Any] = []
    for split, paths in files.items():
        path, found = (first, fields) if split == start else _first_readable(paths)
        kept = choice.kept(found, str(path))
        if split == start and choice.target and label_names is None:
            shards[split], values = shards_with_values(paths, kept, choice.target)
        else:
            shards[split] = file_shards(paths, kept)
    if choice.target is None:
        return _streams(shards, choice, None, (), config)
    if label_names is not None:
        values = _first_values(shards[start], choice.target)
    reader, notes = find_targets(
        values,
        shards[start][0].fields[choice.target],
        choice.target,
        table=str(first),
        kind=wanted_kind(choice, config, choice.target),
        names=None if label_names is None else tuple(label_names),
    )
    streams = _streams(shards, choice, reader, notes, config)
    if reader.kind == "number" and label_names is None:
        where = f"Column '{choice.target}' of {first}"
        numbers = [np.asarray(reader(v, where)) for v in values if not is_missing(v)]
        streams = replace(streams, moments=moments(np.stack(numbers)))
    return streams


def stream_hub(
    splits: Mapping[str, Any],
    name: str,
    config: DataConfig,
    label_names: KnownNames | None,
    inputs: Mapping[str, InputColumn] | None = None,
) -> Streams:
    """Return data sets of the `datasets` library as streams.

    Raises:
        ValueError: If the columns cannot be told, or the target does not name its classes.
    """
    _refuse_split_column(config)
    whole = {split: hub_shards(dataset, name) for split, dataset in splits.items()}
    fields = next(iter(whole.values()))[0].fields
    choice = _one_task(choose(fields, config, name, inputs=inputs))
    shards: dict[str, list[HubShard]] = {}
    for split, parts in whole.items():
        kept = choice.kept(parts[0].fields, f"{name} ({split})")
        shards[split] = [replace(part, fields=kept) for part in parts]
    if choice.target is None:
        return _streams(shards, choice, None, (), config)
    holds = fields[choice.target]
    if label_names is None and not holds.names and config.target != "number":
        msg = (
            f"Column '{choice.target}' of {name} does not name its classes, and reading all of it to find them "
            "would take as long as training. Leave --stream out, or use data whose label is a ClassLabel; a quantity "
            "is learned with --target number."
        )
        raise ValueError(msg)
    reader, notes = find_targets(
        _first_values(next(iter(shards.values())), choice.target),
        holds,
        choice.target,
        table=name,
        kind=wanted_kind(choice, config, choice.target),
        names=tuple(label_names or holds.names) or None,
    )
    return _streams(shards, choice, reader, notes, config)


def _first_readable(paths: Sequence[Location]) -> tuple[Location, dict[str, Field]]:
    """Return the first file that tells its columns, and these. A damaged one may stand before it."""
    failure: ValueError | None = None
    for path in paths:
        try:
            return path, sample_fields(path)
        except ValueError as error:
            failure = failure or error
    msg = str(failure)
    raise ValueError(msg)


def _first_values(shards: Sequence[Shard], column: str) -> list[Any]:
    """Return the target of the first rows, whose media are not read."""
    first = shards[0]
    only = replace(cast("Any", first), fields={column: first.fields[column]})
    cells = [row[column] for row in islice(Stream([only]), _LOOKED_AT)]
    return [cell.value if isinstance(cell, Media) else cell for cell in cells]


def _streams(
    shards: Mapping[str, Sequence[Shard]],
    choice: Choice,
    reader: TargetReader | None,
    notes: tuple[str, ...],
    config: DataConfig,
) -> Streams:
    streams: dict[str, Stream] = {}
    for split, parts in shards.items():
        labels = reader
        if reader is not None:
            labels = replace(reader, holds=next(iter(parts)).fields[reader.column])
        stream = Stream(parts, labels=labels)
        streams[split] = stream.shuffled(config.shuffle_buffer, 0) if split == "train" else stream
    if reader is None:
        return Streams(streams, choice, (), notes)
    return Streams(streams, choice, reader.names, notes, reader.kind)


def _refuse_split_column(config: DataConfig) -> None:
    if config.split_column is not None:
        msg = (
            f"Rows are told apart by column '{config.split_column}' only when they are read by index. Leave --stream "
            "out, or keep each split in files of its own."
        )
        raise ValueError(msg)


def _one_task(choice: Choice) -> Choice:
    """Return the choice if it has one target at most.

    Raises:
        ValueError: If it has several.
    """
    if len(choice.tasks) > 1:
        msg = (
            f"Several labels ({', '.join(choice.tasks)}) are learned from rows that are read by index. Leave --stream "
            "out, or give one label."
        )
        raise ValueError(msg)
    return choice
