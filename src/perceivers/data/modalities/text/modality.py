"""Text as a modality: UTF-8 bytes behind the six special tokens of DeepMind's release."""

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import SEEK_END
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.base import (
    SAMPLED_CELLS,
    BasePreprocessConfig,
    CellSampler,
    Comparable,
    DecodedValue,
    MissingValueError,
    read_cells,
    stack_padded,
)
from perceivers.data.modalities.text.chunks import TextChunking
from perceivers.data.registry import (
    ColumnKind,
    ModalitySpec,
    OwnDataSize,
    Preprocessing,
    UploadSize,
    kind_of_bytes,
    register_modality,
)
from perceivers.registry import configclass
from perceivers.typing import Bool, Int, Tensor


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
    """Return the lengths of texts that share a number of bytes: the longest are cut first, as in BERT.

    Reference: BERT (arXiv:1810.04805), its release's truncation of pairs.
    """
    kept = [0] * len(lengths)
    for count, place in enumerate(sorted(range(len(lengths)), key=lambda i: lengths[i])):
        kept[place] = min(lengths[place], room // (len(lengths) - count))
        room -= kept[place]
    return kept


PAD, BOS, EOS, MASK, CLS, SEP = range(6)
BYTE_OFFSET = 6
"""The byte b is the number b + 6."""
VOCAB_SIZE = 256 + BYTE_OFFSET

MOST_BYTES = 1 << 20
"""Bytes that are kept of a text whose crop is random, from its start on."""

SHORTEST = 8  # a character has up to four bytes, and both ends of a text must get one
MULTIPLE = (
    64  # lengths of batches and of models are multiples of it, so that few different ones occur
)

_WORD_FEATURES = 1024  # to which words are hashed
_MASK_WORD = b"[MASK]"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_CONTINUATION = bytes(range(0x80, 0xC0))  # bytes of a character behind its first
_WHITESPACE = np.isin(np.arange(256), np.frombuffer(b" \t\n\r\v\f", dtype=np.uint8))

Bytes = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.int64]


@configclass
class TextPreprocessConfig(BasePreprocessConfig):
    """Preprocessing of a text without randomness. Saved with the model.

    Attributes:
        max_length: Bytes that are read at most. None: taken from the data, see `measure_text`.
        keep: Part of a longer text that is kept: its `start`, both `ends` with the mark SEP between them, or a part
            anywhere (`random`): drawn in training, otherwise at the clip position, by default the middle.
        marks: Whether `[MASK]` in a text is the mark that stands for one hidden byte.

    Raises:
        ValueError: If `max_length` is below 8.
    """

    kind: Literal["text"] = "text"
    max_length: int | None = None
    keep: Literal["start", "ends", "random"] = "start"
    marks: bool = False

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length < SHORTEST:
            raise ValueError(
                f"Expected max_length of at least {SHORTEST} bytes, got {self.max_length}."
            )

    def measure(self, cells: CellSampler) -> "TextPreprocessConfig":
        """Return the configuration with open fields taken from the training data, see `measure_text`."""
        return measure_text(cells(SAMPLED_CELLS), self)

    def assumed(self) -> dict[str, Any]:
        """Return sizes that are assumed without data."""
        return {"max_length": 1024}

    def input_fields(self) -> dict[str, Any]:
        """Return the sizes that the input adapter takes over."""
        return {"max_length": self.max_length}

    def chunking(self) -> TextChunking:
        """Return lengths and chunks of texts, in bytes."""
        return TextChunking()


@configclass
class TextAugmentConfig:
    """Augmentation of a text in training.

    Attributes:
        crop: Read a random part of a text that is too long, whatever `keep` states.
        mask: Share of the text that is hidden behind the mark MASK.
        mask_unit: Whether whole words are hidden, as in Perceiver IO, or single bytes.
        word_dropout: Share of words that are left out.

    Raises:
        ValueError: If a share is not in [0, 1).
    """

    kind: Literal["text"] = "text"
    crop: bool = True
    mask: float = 0.0
    mask_unit: Literal["word", "byte"] = "word"
    word_dropout: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.mask < 1 and 0 <= self.word_dropout < 1):
            raise ValueError(
                f"Expected shares of the text in [0, 1), got mask={self.mask} and "
                f"word_dropout={self.word_dropout}."
            )


class TextModality:
    """Modality of text as bytes.

    Raises:
        ValueError: If `max_length` is not known yet.
    """

    has_clips: bool

    def __init__(
        self, preprocess: TextPreprocessConfig, augment: TextAugmentConfig | None = None
    ) -> None:
        if preprocess.max_length is None:
            raise ValueError(
                "Expected max_length in bytes, got None. Measure it with measure_text, or state it."
            )
        self.preprocess = preprocess
        self.augment = TextAugmentConfig(crop=False) if augment is None else augment
        self.max_length = preprocess.max_length
        self.has_clips = preprocess.keep == "random"  # then a longer text has many parts

    def decode(self, media: EncodedItem, *, clip_position: float | None = None) -> DecodedValue:  # noqa: ARG002
        """Return the bytes of a text, no more of them than may be needed.

        Bytes that are not valid UTF-8 are kept, since the model reads bytes; this is noted.
        """
        several = read_multi_text(media, MOST_BYTES)
        if several is not None:
            return DecodedValue(*several)
        data, length = self._read(media)
        data = data.removeprefix(_BYTE_ORDER_MARK)
        if not data:
            raise ValueError(
                f"'{media.name}' is empty: expected a text, got nothing. Write one or take it out of the data."
            )
        notes: list[str] = []
        if length > self.max_length:
            notes.append(f"cut to {self.max_length} bytes")
        if not _is_utf8(data):
            _complain_if_binary(media.name, data)
            notes.append("not valid UTF-8")
        return DecodedValue(np.frombuffer(data, dtype=np.uint8), tuple(notes))

    def transform(
        self, value: Any, *, clip_position: float = 0.5, rng: np.random.Generator | None = None
    ) -> Ids:
        """Return at most `max_length` numbers, one for each byte: L, int64."""
        if isinstance(value, MultiText):
            return self._joined(value, rng)
        text = value
        if self.preprocess.marks and _MASK_WORD in text.tobytes():
            return _marked(_numbers(text))[: self.max_length]
        anywhere = self.preprocess.keep == "random"
        if rng is not None and (self.augment.crop or anywhere):
            ids = _window(text, self.max_length, rng.random())
        elif anywhere:
            ids = _window(text, self.max_length, clip_position)
        elif self.preprocess.keep == "ends" and text.shape[0] > self.max_length:
            ids = _ends(text, self.max_length)
        else:
            ids = _numbers(_start(text, self.max_length))
        return ids if rng is None else self._augmented(ids, rng)

    def collate(
        self, samples: Sequence[Any]
    ) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"] | None]:
        """Return texts as B x L numbers with PAD behind the shorter ones, and which of them are real.

        L is a multiple of 64, or `max_length`.
        """
        return stack_padded(samples, like=(self.max_length,), dtype=np.int64, multiple=MULTIPLE)

    def _read(self, media: EncodedItem) -> tuple[bytes, int]:
        """Return the part of a text that may be needed, and its number of bytes."""
        if media.is_missing:
            raise MissingValueError(f"'{media.name}' is empty: expected a text, got no cell.")
        whole = self.preprocess.keep == "random" or self.augment.crop
        most = self.max_length * (len(_MASK_WORD) if self.preprocess.marks else 1)
        first = MOST_BYTES if whole else most + len(_BYTE_ORDER_MARK)
        last = self.max_length if self.preprocess.keep == "ends" else 0
        if media.value is not None or media.data is not None:
            data = media.data if media.data is not None else encoded_text(media)
            if len(data) <= first + last:
                return data, _length(data, len(data))
            return _joined(data[:first], data[len(data) - last :]), _length(data, len(data))
        with media.open() as file:
            size = file.seek(0, SEEK_END)
            file.seek(0)
            data = file.read(min(first + last, size))
            if size > first + last and last:
                file.seek(size - last)
                data = _joined(data[:first], file.read(last))
            return data, _length(data, size)

    def _joined(self, texts: MultiText, rng: np.random.Generator | None) -> Ids:
        """Return several texts as one; where they are too long, the longest lose their ends."""
        parts = [_numbers(text) for text in texts.parts()]
        if self.preprocess.marks:
            parts = [_marked(ids) if ids.shape[0] >= len(_MASK_WORD) else ids for ids in parts]
        if rng is not None:
            parts = [self._augmented(ids, rng) if ids.shape[0] else ids for ids in parts]
        rooms = room_of_each([ids.shape[0] for ids in parts], self.max_length - len(parts) + 1)
        kept = [ids[:room] for ids, room in zip(parts, rooms, strict=True)]
        marked = [part for ids in kept for part in (np.array([SEP]), ids)]
        return np.concatenate(marked[1:])

    def _augmented(self, ids: Ids, rng: np.random.Generator) -> Ids:
        """Leave out and hide words."""
        augment = self.augment
        if augment.word_dropout:
            words = _words(ids)
            kept = (rng.random(words[-1] + 1) >= augment.word_dropout)[words]
            ids = ids[kept] if kept.any() else ids
        if augment.mask:
            units = _words(ids) if augment.mask_unit == "word" else np.arange(ids.shape[0])
            hidden = (rng.random(units[-1] + 1) < augment.mask)[units] & ~_is_blank(ids)
            ids = np.where(hidden, MASK, ids)
        return ids


def encoded_text(media: EncodedItem) -> bytes:
    """Return a text that is already in memory as bytes."""
    text = media.value
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str):
        raise ValueError(
            f"'{media.name}' is no text: expected a string, got {type(text).__name__}."
        )
    return text.encode("utf-8", "surrogatepass")


def _length(data: bytes, size: int) -> int:
    return size - len(_BYTE_ORDER_MARK) * data.startswith(_BYTE_ORDER_MARK)


def _joined(head: bytes, tail: bytes) -> bytes:
    """Return both without the characters that were cut in two."""
    if not tail:
        return head
    head = head[:-3] + head[-3:].rstrip(_CONTINUATION)
    return head[:-1] + tail[:3].lstrip(_CONTINUATION) + tail[3:]


def _is_utf8(data: bytes) -> bool:
    """Return whether bytes are UTF-8 without NUL; the last character may be cut off."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        cut_off = error.reason == "unexpected end of data"
        return cut_off and b"\0" not in data
    return b"\0" not in data


def _complain_if_binary(name: str, data: bytes) -> None:
    kind = kind_of_bytes(data)
    if kind is None and data.rstrip(b"\0").count(0) * 1000 <= len(data):
        return
    found = f"it holds {kind}" if kind else "it is full of NUL bytes, so it is binary, or UTF-16"
    raise ValueError(
        f"Cannot read '{name}' as a text: {found}; it begins with the bytes {data[:8].hex(' ')}. "
        "Save it as text in UTF-8 or take it out of the data."
    )


def _numbers(text: Bytes) -> Ids:
    return text.astype(np.int64) + BYTE_OFFSET


def _marked(ids: Ids) -> Ids:
    """Return numbers with the mark MASK in place of each `[MASK]`, of which there is one."""
    word = _numbers(np.frombuffer(_MASK_WORD, dtype=np.uint8))
    windows = np.lib.stride_tricks.sliding_window_view(ids, len(word))
    starts = (windows == word).all(axis=1).nonzero()[0]
    marked = ids.copy()
    marked[starts] = MASK
    behind = (starts[:, None] + np.arange(1, len(word))).ravel()
    return np.delete(marked, behind)


def _start(text: Bytes, most: int) -> Bytes:
    """Return the first bytes, at most so many, without a part of a character at the end."""
    if text.shape[0] <= most:
        return text
    end = most
    while end > most - 3 and text[end] & 0xC0 == 0x80:  # within a character of valid UTF-8
        end -= 1
    return text[:end]


def _end(text: Bytes, most: int) -> Bytes:
    """Return the last bytes, at most so many, without a part of a character at the start."""
    start = max(text.shape[0] - most, 0)
    last = min(start + 3, text.shape[0] - 1)
    while 0 < start < last and text[start] & 0xC0 == 0x80:
        start += 1
    return text[start:]


def _window(text: Bytes, most: int, clip_position: float) -> Ids:
    """Return as many bytes as fit, from a place between the first (0) and the last (1) possible."""
    room = text.shape[0] - most
    if room <= 0:
        return _numbers(text)
    start = round(clip_position * room)
    return _numbers(_start(_end(text, text.shape[0] - start), most))


def _ends(text: Bytes, most: int) -> Ids:
    """Return half of the bytes from the start, SEP, and half from the end."""
    half = (most - 1) // 2
    head, tail = _start(text, half), _end(text, most - 1 - half)
    return np.concatenate([_numbers(head), [SEP], _numbers(tail)])


def _is_blank(ids: Ids) -> npt.NDArray[np.bool_]:
    return (ids >= BYTE_OFFSET) & _WHITESPACE[np.maximum(ids - BYTE_OFFSET, 0)]


def _words(ids: Ids) -> npt.NDArray[np.intp]:
    """Return for each number which word it belongs to; the blank behind a word belongs to it."""
    blank = _is_blank(ids)
    begins = ~blank[1:] & blank[:-1]
    return np.concatenate([[0], np.cumsum(begins)]).astype(np.intp)


def measure_text(
    cells: Iterable[EncodedItem], config: TextPreprocessConfig, *, largest: int = 2048
) -> TextPreprocessConfig:
    """Return the configuration with `max_length` taken from texts, where it is not stated.

    It is what 19 of 20 texts fit into, rounded up to a multiple of 64.

    Raises:
        ValueError: If no cell holds a text.
    """
    if config.max_length is not None:
        return config
    lengths = read_cells(cells, _size_of, "text")
    most = int(np.percentile(list(lengths), 95, method="higher"))
    rounded = max(MULTIPLE, -(-most // MULTIPLE) * MULTIPLE)
    return replace(config, max_length=min(largest, rounded))


def _size_of(media: EncodedItem) -> int:
    return start_of_text(media, 0)[1]


def start_of_text(media: EncodedItem, most: int) -> tuple[bytes, int]:
    """Return the first bytes of a text, at most so many, and the number of all its bytes.

    Several texts of one cell are one text.

    Raises:
        MissingValueError: If there is no text.
    """
    if isinstance(media.path, Path):
        size = media.path.stat().st_size
        with media.path.open("rb") as file:
            return file.read(most), size
    if media.is_missing:
        raise MissingValueError(f"'{media.name}' is empty.")
    several = read_multi_text(media, MOST_BYTES)
    if several is not None:
        texts = several[0]
        return b" ".join(text.tobytes() for text in texts.parts())[:most], (
            texts.data.shape[0] + texts.ends.shape[0] - 1
        )
    data = media.data if media.data is not None else encoded_text(media)
    return data[:most], len(data)


def describe_text(value: Any) -> Comparable:
    """Return the words of a text in lower case, and their counts, hashed, as features."""
    data = value.data if isinstance(value, MultiText) else value
    words = re.findall(r"\w+", data.tobytes().decode("utf-8", "replace").casefold())
    features = np.zeros(_WORD_FEATURES, dtype=np.float32)
    for word, count in Counter(words).items():
        features[zlib.crc32(word.encode("utf-8", "replace")) % _WORD_FEATURES] += count**0.5
    return Comparable(features=features, is_standardized=False, text=" ".join(words))


def _upload_sizes(media: EncodedItem) -> Iterator[UploadSize]:
    text = media.value if media.data is None else media.data
    size = len(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text or b"")
    yield UploadSize(size, "bytes of text", "characters")


def _default(_: OwnDataSize) -> tuple[TextPreprocessConfig, TextAugmentConfig]:
    return TextPreprocessConfig(keep="random"), TextAugmentConfig()


register_modality(
    ModalitySpec(
        name="text",
        noun="text",
        preprocessing=(Preprocessing(TextPreprocessConfig, TextModality, _default),),
        augment=TextAugmentConfig,
        suffixes=("txt", "md"),
        column_kinds={"text": ColumnKind("text", stored_as=("series",))},
        is_media=False,
        recipe="text",
        upload_sizes=_upload_sizes,
        describe=describe_text,
    )
)
