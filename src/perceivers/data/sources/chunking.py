"""Chunking of long texts: one row per chunk, so that a model can be trained on a single book."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from perceivers.data.base import MapStyleSplit
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.sources.bundle import DatasetBundle

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
