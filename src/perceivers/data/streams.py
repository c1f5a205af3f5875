"""What streams need to know before the first row comes: their columns, and which classes there are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from perceivers.data.base import DataConfig
from perceivers.data.columns import Choice, choose
from perceivers.data.labels import ClassIndex, class_names, describe_classes
from perceivers.data.shards import (
    FileShard,
    HubShard,
    Shard,
    file_shards,
    hub_shards,
    sample_fields,
)
from perceivers.data.stream import Stream
from perceivers.data.tables import Field

__all__ = ["Streams", "stream_files", "stream_hub"]

STREAMED = (".parquet", ".tar", ".jsonl", ".csv")


@dataclass(frozen=True)
class Streams:
    """Streams, and what was found out about them.

    Attributes:
        streams: A stream for each split; train is shuffled.
        choice: The columns that are used.
        classes: Names of the classes.
        notes: Sentences about that.
    """

    streams: dict[str, Stream]
    choice: Choice
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def stream_files(
    files: Mapping[str, Sequence[Path]], config: DataConfig, label_names: Sequence[str] | None
) -> Streams | None:
    """Return files as streams, or None where they are of a kind that is only read by index.

    The names of the classes are those the files tell; else the label column alone is read once.

    Raises:
        ValueError: If the columns or the classes cannot be told.
    """
    if any(path.suffix.lower() not in STREAMED for paths in files.values() for path in paths):
        return None
    first = next(iter(files.values()))[0]
    _refuse_split_column(config)
    choice = choose(sample_fields(first), config, str(first))
    shards: dict[str, list[FileShard]] = {}
    for split, paths in files.items():
        fields = _kept(sample_fields(paths[0]), choice, str(paths[0]))
        shards[split] = file_shards(paths, fields)
    classes = tuple(label_names) if label_names is not None else None
    if choice.target and classes is None:
        start = next(iter(shards))
        field = shards[start][0].fields[choice.target]
        columns = [shard.values(choice.target) for shard in shards[start]]
        values = [value for column in columns for value in column]
        classes = class_names(values, field, f"Column '{choice.target}' of {first}")
        shards[start] = [
            replace(s, num_rows=len(c)) for s, c in zip(shards[start], columns, strict=True)
        ]
    return _streams(shards, choice, classes or (), config)


def stream_hub(
    splits: Mapping[str, Any], name: str, config: DataConfig, label_names: Sequence[str] | None
) -> Streams:
    """Return data sets of the `datasets` library as streams.

    Raises:
        ValueError: If the columns cannot be told, or the target does not name its classes.
    """
    _refuse_split_column(config)
    whole = {split: hub_shards(dataset, name) for split, dataset in splits.items()}
    fields = next(iter(whole.values()))[0].fields
    choice = choose(fields, config, name)
    classes = tuple(label_names) if label_names is not None else None
    if choice.target and classes is None:
        classes = fields[choice.target].names
        if not classes:
            msg = (
                f"Column '{choice.target}' of {name} does not name its classes, and reading all of it to find them "
                "would take as long as training. Leave --stream out, or use data whose label is a ClassLabel."
            )
            raise ValueError(msg)
    shards: dict[str, list[HubShard]] = {}
    for split, parts in whole.items():
        kept = _kept(parts[0].fields, choice, f"{name} ({split})")
        shards[split] = [replace(part, fields=kept) for part in parts]
    return _streams(shards, choice, classes or (), config)


def _kept(fields: Mapping[str, Field], choice: Choice, name: str) -> dict[str, Field]:
    inputs = {column.column: column.kind for column in choice.inputs.values()}
    kept: dict[str, Field] = {}
    for column in choice.columns:
        if column not in fields:
            msg = f"{name} lacks the column '{column}' that the other splits have."
            raise ValueError(msg)
        kept[column] = (
            replace(fields[column], kind=inputs[column]) if column in inputs else fields[column]
        )
    return kept


def _streams(
    shards: Mapping[str, Sequence[Shard]],
    choice: Choice,
    classes: tuple[str, ...],
    config: DataConfig,
) -> Streams:
    streams: dict[str, Stream] = {}
    for split, parts in shards.items():
        field = next(iter(parts)).fields[choice.target] if choice.target else Field("other")
        labels = ClassIndex(classes, choice.target, field) if choice.target else None
        stream = Stream(parts, labels=labels)
        streams[split] = stream.shuffled(config.shuffle_buffer, 0) if split == "train" else stream
    notes = (describe_classes(classes),) if classes else ()
    return Streams(streams, choice, classes, notes)


def _refuse_split_column(config: DataConfig) -> None:
    if config.split_column is not None:
        msg = (
            f"Rows are told apart by column '{config.split_column}' only when they are read by index. Leave --stream "
            "out, or keep each split in files of its own."
        )
        raise ValueError(msg)
