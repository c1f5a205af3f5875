"""Chunking of long samples: one row per chunk, so that a model can be trained on a single text, piece or series."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from perceivers.data.base import MapStyleSplit
from perceivers.data.modalities.base import Chunking
from perceivers.data.registry import get_modality, noun_of
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.data.sources.series_parts import windows_of_series
from perceivers.data.tables.table import Subset

# Length of a chunk, if the recipe leaves that open; and chunk lengths of a training sample, so that a random
# crop can begin anywhere in it.
_CHUNK, _CHUNKS_PER_SAMPLE = 2048, 2

# Steps of a window of a series, if the recipe leaves that open.
_WINDOW = 128


class ChunkedSamples:
    """Rows of a split with every sample of a column cut into chunks of similar length.

    A sample that cannot be read stays as it is, so that it is counted among the bad rows.

    Args:
        split: The rows.
        column: Name of the column.
        length: Largest length of a chunk.
        chunking: Lengths and chunks of samples.
    """

    def __init__(self, split: MapStyleSplit, column: str, length: int, chunking: Chunking) -> None:
        self.split, self.name, self.chunking = split, column, chunking
        # Row, begin and end; nothing is cut if the end is 0.
        self.chunks: list[tuple[int, int, int]] = []
        for row in range(len(split)):
            try:
                size = chunking.size(split.row(row)[column])
            except ValueError:
                self.chunks.append((row, 0, 0))
                continue
            count = math.ceil(size / length)
            step = math.ceil(size / count) if count else 0
            ends = [min(size, (part + 1) * step) for part in range(count)]
            self.chunks += [(row, part * step, end) for part, end in enumerate(ends)]

    def __len__(self) -> int:
        """Return the number of chunks."""
        return len(self.chunks)

    def row(self, index: int) -> Mapping[str, Any]:
        """Return a row with one chunk of its sample."""
        number, first, end = self.chunks[index]
        row = self.split.row(number)
        item = row[self.name]
        return {**row, self.name: self.chunking.cut(item, first, end) if end else item}

    def column(self, name: str) -> Sequence[Any]:
        """Return one column of scalars, each cell repeated for the chunks of its row."""
        cells = self.split.column(name)
        return [cells[row] for row, _, _ in self.chunks]

    def with_margins(self, kept: Sequence[int], margin: int) -> "ChunkedSamples":
        """Return some of the chunks, extended into the neighbors in the same sample that are kept, too.

        If the margin is half a window, random windows of the extended chunks begin everywhere in the sample equally
        often.

        Args:
            kept: Indices of the chunks.
            margin: Largest extension at each side.
        """
        known = set(kept)

        def extended(index: int) -> tuple[int, int, int]:
            row, first, end = self.chunks[index]
            if index - 1 in known and self.chunks[index - 1][0] == row:
                first = max(self.chunks[index - 1][1], first - margin)
            if index + 1 in known and self.chunks[index + 1][0] == row:
                end = min(self.chunks[index + 1][2], end + margin)
            return row, first, end

        found = copy.copy(self)
        found.chunks = [extended(index) for index in kept]
        return found


def chunk_samples(
    source: DatasetBundle,
    modality: str,
    length: int,
    chunking: Chunking,
    *,
    leave: str | None = None,
) -> DatasetBundle:
    """Return data with chunked samples, and a note about it.

    Args:
        source: Data read by index.
        modality: Name of an input.
        length: Largest length of a chunk, in bytes of a text or events of music.
        chunking: Lengths and chunks of samples.
        leave: A split that is not chunked.

    Raises:
        ValueError: If the data are streamed, or a split has no sample that is not empty.
    """
    column = source.inputs[modality].column
    noun = noun_of(source.inputs[modality].kind)
    if source.streams:
        raise ValueError(
            f"Samples of {noun} are cut into pieces, which must be read by index. Leave --stream out."
        )
    splits = {
        name: ChunkedSamples(split, column, length, chunking)
        for name, split in source.splits.items()
        if name != leave
    }
    counts = ", ".join(f"{name} {len(chunks):,}" for name, chunks in splits.items())
    if not all(map(len, splits.values())):
        raise ValueError(f"A split has no {noun} in column '{column}' that is not empty: {counts}.")
    note = f"Samples of {noun} are cut into pieces of at most {length} {chunking.unit}: {counts}."
    return replace(source, splits={**source.splits, **splits}, notes=(*source.notes, note))


@dataclass(frozen=True, kw_only=True)
class ChunkRequest:
    """Data whose samples are to be cut into chunks.

    Attributes:
        modality: Name of the input whose samples are cut.
        preprocess: Its preprocessing, which has the length of a chunk. None: it is open.
        step: Elements at the end of a chunk that are predicted. None: all, or a quarter of a window of a series.
        fraction: Share that is held out for validation.
        hold_out: Holds rows out. None: there is no validation split.
    """

    modality: str
    preprocess: Any
    step: int | None
    fraction: float
    hold_out: Callable[[DatasetBundle], DatasetBundle] | None


def chunk_all(source: DatasetBundle, request: ChunkRequest) -> DatasetBundle:
    """Return data with a validation split and with the samples of a modality cut into chunks.

    Raises:
        ValueError: If they cannot be cut.
    """
    kind = source.inputs[request.modality].kind
    return CHUNKERS.get(kind, _chunk_all_samples)(source, request)


def _chunk_all_samples(source: DatasetBundle, request: ChunkRequest) -> DatasetBundle:
    config, name = request.preprocess, request.modality
    if config is None:
        config = get_modality(source.inputs[name].kind).preprocessing[0].config()
    chunking, length = config.chunking(), getattr(config, "max_length", None) or _CHUNK
    if chunking is None:
        raise ValueError(f"Samples preprocessed as '{config.kind}' cannot be cut into chunks.")
    source = chunk_samples(source, name, _CHUNKS_PER_SAMPLE * length, chunking)
    if request.hold_out is not None:
        if request.fraction and "validation" not in source.splits:
            _check_several(source, name, _CHUNKS_PER_SAMPLE * length, chunking)
        source = request.hold_out(source)
    # Extended and cut after the split: chunks of train and validation never overlap.
    source = _extend_train(source, length // 2)
    return chunk_samples(source, name, length, chunking, leave="train")


def _extend_train(source: DatasetBundle, margin: int) -> DatasetBundle:
    """Return data whose chunks of train overlap, so that random windows read all parts of a sample equally often."""
    train = source.splits.get("train")
    if isinstance(train, ChunkedSamples):
        train = train.with_margins(range(len(train)), margin)
    elif isinstance(train, Subset) and isinstance(train.base, ChunkedSamples):
        train = train.base.with_margins(train.indices.tolist(), margin)
    else:  # there is no train split
        return source
    return replace(source, splits={**source.splits, "train": train})


def _check_several(source: DatasetBundle, modality: str, length: int, chunking: Chunking) -> None:
    """Refuse a train split of a single chunk, of which none can be held out for validation."""
    train = source.splits.get("train")
    if not isinstance(train, ChunkedSamples) or len(train) != 1:
        return
    item = train.split.row(train.chunks[0][0])[source.inputs[modality].column]
    size = chunking.size(item)  # raises if it cannot be read
    raise ValueError(
        f"'{item.name}' alone has {size:,} {chunking.unit}, so that no part of it can be held out for validation: "
        f"expected more than {length:,} of them, or several files. Add some, or give a folder with the folders train "
        "and validation."
    )


def _chunk_all_series(source: DatasetBundle, request: ChunkRequest) -> DatasetBundle:
    length = getattr(request.preprocess, "length", None) or _WINDOW
    return windows_of_series(
        source,
        request.modality,
        length=length,
        step=request.step or max(length // 4, 1),
        fraction=request.fraction,
        hold_out=request.hold_out,
    )


CHUNKERS: dict[str, Callable[[DatasetBundle, ChunkRequest], DatasetBundle]] = {
    "series": _chunk_all_series,
}
"""Functions that cut the samples of a modality whose preprocessing has no `chunking`, by its name."""
