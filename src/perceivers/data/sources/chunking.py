"""Chunking of long samples: one row per chunk, so that a model can be trained on a single book or series."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from perceivers.data.base import MapStyleSplit
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.data.sources.series_parts import windows_of_series

# Bytes of a chunk of text, if the recipe leaves that open; and chunk lengths of a training text, so that a random
# crop can begin anywhere in it.
_CHUNK, _CHUNKS_PER_TEXT = 2048, 2

# Steps of a window of a series, if the recipe leaves that open.
_WINDOW = 128

_CONTINUATION = bytes(range(0x80, 0xC0))  # bytes of a character after its first


class ChunkedTexts:
    """Rows of a split with every text cut into chunks of similar length, at most `length` bytes.

    Characters stay whole: each belongs to the chunk in which it begins if it fits there, else to none.
    """

    def __init__(self, split: MapStyleSplit, column: str, length: int) -> None:
        self.split, self.text = split, column
        self.chunks: list[tuple[int, int, int]] = []  # row, first byte, end
        for row in range(len(split)):
            size = _size(split.row(row)[column])
            count = math.ceil(size / length)
            step = math.ceil(size / count) if count else 0
            ends = [min(size, (part + 1) * step) for part in range(count)]
            self.chunks += [(row, part * step, end) for part, end in enumerate(ends)]

    def __len__(self) -> int:
        """Return the number of chunks."""
        return len(self.chunks)

    def row(self, index: int) -> Mapping[str, Any]:
        """Return a row with one chunk of its text."""
        number, first, end = self.chunks[index]
        row = self.split.row(number)
        item = row[self.text]
        if item.path is None:
            data = _encoded(item)[first:end]
        else:
            with item.open() as file:
                file.seek(first)
                data = file.read(end - first)
        data = data.lstrip(_CONTINUATION) if first else data
        is_whole = first == 0 and end >= _size(item)
        name = item.name if is_whole else f"{item.name} from byte {first}"
        return {**row, self.text: EncodedItem(name, data=_whole_characters(data))}

    def column(self, name: str) -> Sequence[Any]:
        """Return one column of scalars, each cell repeated for the chunks of its row."""
        cells = self.split.column(name)
        return [cells[row] for row, _, _ in self.chunks]


def chunk_texts(
    source: DatasetBundle, modality: str, length: int, *, leave: str | None = None
) -> DatasetBundle:
    """Return data with chunked texts, and a note about it.

    Args:
        source: Data read by index.
        modality: Name of a text input.
        length: Largest length of a chunk in bytes.
        leave: A split that is not chunked.

    Raises:
        ValueError: If the data are streamed, or a split has no text.
    """
    if source.streams:
        raise ValueError(
            "Texts are cut into pieces, which must be read by index. Leave --stream out."
        )
    column = source.inputs[modality].column
    splits = {
        name: ChunkedTexts(split, column, length)
        for name, split in source.splits.items()
        if name != leave
    }
    counts = ", ".join(f"{name} {len(chunks):,}" for name, chunks in splits.items())
    if not all(map(len, splits.values())):
        raise ValueError(f"A split has no text in column '{column}' that is not empty: {counts}.")
    note = f"Texts are cut into pieces of at most {length} bytes: {counts}."
    return replace(source, splits={**source.splits, **splits}, notes=(*source.notes, note))


def _size(item: EncodedItem) -> int:
    if item.path is not None:
        return item.path.stat().st_size
    return len(_encoded(item))


def _encoded(item: EncodedItem) -> bytes:
    if item.data is not None:
        return item.data
    return item.value.encode("utf-8", "surrogatepass") if isinstance(item.value, str) else b""


def _whole_characters(data: bytes) -> bytes:
    """Remove an incomplete last character."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        wanted = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return data[:-back] if wanted > back else data
    return data


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


def _chunk_all_texts(source: DatasetBundle, request: ChunkRequest) -> DatasetBundle:
    length = getattr(request.preprocess, "max_length", None) or _CHUNK
    source = chunk_texts(source, request.modality, _CHUNKS_PER_TEXT * length)
    source = source if request.hold_out is None else request.hold_out(source)
    # Cut again after the split: chunks of train and validation never overlap.
    return chunk_texts(source, request.modality, length, leave="train")


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
    "text": _chunk_all_texts,
    "series": _chunk_all_series,
}
"""Functions that cut the samples of a modality into chunks, by its name."""
