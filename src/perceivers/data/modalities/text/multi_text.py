"""Several texts of a row that are read as one: a premise and its hypothesis, a question and a sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from perceivers.data.encoded_item import EncodedItem


@dataclass(frozen=True, slots=True)
class MultiText:
    """The bytes of several texts.

    Attributes:
        data: All of them, one text behind the other.
        ends: Where each text ends.
    """

    data: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int64]

    def parts(self) -> list[npt.NDArray[np.uint8]]:
        """Return each text by itself."""
        return np.split(self.data, self.ends[:-1])


def read_multi_text(media: EncodedItem, most: int) -> tuple[MultiText, tuple[str, ...]] | None:
    """Return the texts of a cell that stands for several columns, and notes on those that are empty. Else None.

    Args:
        media: With a dict of texts by column as its value, where there are several.
        most: Bytes that are kept of each.

    Raises:
        ValueError: If one of them is no text, or all are empty.
    """
    if not isinstance(media.value, Mapping):
        return None
    parts: list[bytes] = []
    notes: list[str] = []
    for column, cell in cast("Mapping[str, Any]", media.value).items():
        text = cell.read() if isinstance(cell, EncodedItem) else cell  # a file of its own
        if text is not None and not isinstance(text, str | bytes):
            raise ValueError(
                f"'{column}' of '{media.name}' is no text: expected a string, got {type(text).__name__}."
            )
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text or b""
        parts.append(data[:most])
        if not data:
            notes.append(f"no {column}")
    if not any(parts):
        raise ValueError(
            f"'{media.name}' is empty: expected texts, got nothing. Write them or take the row out of the data."
        )
    ends = np.cumsum([len(part) for part in parts])
    joined = np.frombuffer(b"".join(parts), dtype=np.uint8)
    return MultiText(joined, ends.astype(np.int64)), tuple(notes)


def room_of_each(lengths: Sequence[int], room: int) -> list[int]:
    """Return how many bytes each text keeps where all of them share a room: the longest lose first, as BERT has it.

    Source: BERT (arXiv:1810.04805), its release's truncation of pairs.
    """
    kept = [0] * len(lengths)
    for count, place in enumerate(sorted(range(len(lengths)), key=lambda i: lengths[i])):
        kept[place] = min(lengths[place], room // (len(lengths) - count))
        room -= kept[place]
    return kept
