"""Long texts as many short ones: one row for each piece, so that a single book can be learned from."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from perceivers.data.base import MapStyleSplit
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.sources.bundle import DatasetBundle

_CONTINUATION = bytes(range(0x80, 0xC0))  # bytes of a character behind its first


class ChunkedTexts:
    """The rows of a split with every text cut into pieces of about one length, none longer than asked for.

    No character is cut in two: the piece in which it begins has it if it fits, else nobody.

    Args:
        records: Rows with a column of texts.
        column: Its name.
        length: Bytes of a piece at most.
    """

    def __init__(self, records: MapStyleSplit, column: str, length: int) -> None:
        self.records, self.text = records, column
        self.pieces: list[tuple[int, int, int]] = []  # row, first byte, end
        for row in range(len(records)):
            size = _size(records.row(row)[column])
            count = math.ceil(size / length)
            step = math.ceil(size / count) if count else 0
            ends = [min(size, (part + 1) * step) for part in range(count)]
            self.pieces += [(row, part * step, end) for part, end in enumerate(ends)]

    def __len__(self) -> int:
        """Return the number of pieces."""
        return len(self.pieces)

    def row(self, index: int) -> Mapping[str, Any]:
        """Return a row with one piece of its text."""
        number, first, end = self.pieces[index]
        row = self.records.row(number)
        media = row[self.text]
        data = _bytes(media, first, end)
        data = data.lstrip(_CONTINUATION) if first else data
        name = (
            media.name if first == 0 and end >= _size(media) else f"{media.name} from byte {first}"
        )
        return {**row, self.text: EncodedItem(name, data=_whole_characters(data))}

    def column(self, name: str) -> Sequence[Any]:
        """Return one column of scalars, each cell as often as its row has pieces."""
        cells = self.records.column(name)
        return [cells[row] for row, _, _ in self.pieces]


def chunk_texts(
    source: DatasetBundle, modality: str, length: int, *, leave: str | None = None
) -> DatasetBundle:
    """Return data whose texts are cut into pieces, and a note that says so.

    Args:
        source: With a text among its inputs, read by index.
        modality: Of the text.
        length: Bytes of a piece at most.
        leave: A split that stays as it is.

    Raises:
        ValueError: If the data are streamed, since nobody knows where a piece begins then, or hold no text at all.
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
    counts = ", ".join(f"{name} {len(pieces):,}" for name, pieces in splits.items())
    if not all(map(len, splits.values())):
        raise ValueError(f"A split has no text in column '{column}' that is not empty: {counts}.")
    note = f"Texts are cut into pieces of at most {length} bytes: {counts}."
    return replace(source, splits={**source.splits, **splits}, notes=(*source.notes, note))


def _size(media: EncodedItem) -> int:
    if media.path is not None:
        return media.path.stat().st_size
    return len(_encoded(media))


def _bytes(media: EncodedItem, first: int, end: int) -> bytes:
    if media.path is None:
        return _encoded(media)[first:end]
    with media.open() as file:
        file.seek(first)
        return file.read(end - first)


def _encoded(media: EncodedItem) -> bytes:
    if media.data is not None:
        return media.data
    return media.value.encode("utf-8", "surrogatepass") if isinstance(media.value, str) else b""


def _whole_characters(data: bytes) -> bytes:
    """Return bytes without a part of a character at the end."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        wanted = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return data[:-back] if wanted > back else data
    return data
