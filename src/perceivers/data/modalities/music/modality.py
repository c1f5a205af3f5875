"""Music as a modality: the events of MIDI files."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

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
from perceivers.data.modalities.music.events import (
    PAD,
    Tokens,
    encode_events,
    stretch_events,
    transpose_events,
)
from perceivers.data.modalities.music.midi_file import is_midi, midi_bytes, parse_midi
from perceivers.data.modalities.music.original_events import encode_events_as_original
from perceivers.data.modalities.music.score import MusicScore, Note, one_part
from perceivers.data.registry import (
    ModalitySpec,
    OwnDataSize,
    Preprocessing,
    UploadSize,
    register_modality,
)
from perceivers.registry import configclass
from perceivers.typing import Bool, Int, Tensor

MULTIPLE = 64  # lengths of batches are multiples of it, so that few different ones occur
_SHORTEST = 8
_LARGEST = 2048  # events of a sample, where their number is taken from the data

Ids = npt.NDArray[np.int64]


@configclass
class MusicPreprocessConfig(BasePreprocessConfig):
    """Preprocessing of music without randomness. Saved with the model.

    Attributes:
        max_length: Events of a sample at most. None: taken from the data, see `measure_music`.
        repeat_velocity: Write a velocity event before every note, as in the data of krasserm's models. Otherwise only
            before notes whose velocity differs from that of the last one.
        percussion: Whether percussion is read, too, whose instruments become pitches.
        reproduce_original_faults: Encode as krasserm's library does, with its faults: some notes at the sustain pedal
            are lost or repeated (`original_events`). Percussion is read, too.

    Raises:
        ValueError: If `max_length` is below 8.
    """

    kind: Literal["music"] = "music"
    max_length: int | None = None
    repeat_velocity: bool = False
    percussion: bool = False
    reproduce_original_faults: bool = False

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length < _SHORTEST:
            raise ValueError(
                f"Expected max_length of at least {_SHORTEST} events, got {self.max_length}."
            )

    def measure(self, cells: CellSampler) -> "MusicPreprocessConfig":
        """Return the configuration with open fields taken from the training data, see `measure_music`."""
        return self if self.max_length else measure_music(cells(SAMPLED_CELLS), self)

    def assumed(self) -> dict[str, Any]:
        """Return sizes that are assumed without data."""
        return {"max_length": 1024}

    def input_fields(self) -> dict[str, Any]:
        """Return the sizes that the input adapter takes over."""
        return {"max_length": self.max_length}

    def chunking(self) -> "MusicChunking":
        """Return lengths and chunks of pieces, in events."""
        return MusicChunking(self)


@configclass
class MusicAugmentConfig:
    """Augmentation of music in training.

    Attributes:
        transpose: Semitones by which all pitches are moved at most, up or down.
        stretch: Smallest and largest factor of all times.
        crop: Read a random window of a piece that is too long.

    Raises:
        ValueError: If a number is out of range.
    """

    kind: Literal["music"] = "music"
    transpose: int = 0
    stretch: tuple[float, float] = (1.0, 1.0)
    crop: bool = True

    def __post_init__(self) -> None:
        low, high = self.stretch
        if self.transpose < 0 or not 0 < low <= high:
            raise ValueError(
                "Expected transpose of at least 0 semitones and stretch=(smallest, largest) above 0, got "
                f"transpose={self.transpose} and stretch={self.stretch}."
            )


class MusicModality:
    """Modality of music as events.

    Raises:
        ValueError: If `max_length` is not known yet.
    """

    has_clips = True

    def __init__(
        self, preprocess: MusicPreprocessConfig, augment: MusicAugmentConfig | None = None
    ) -> None:
        if preprocess.max_length is None:
            raise ValueError(
                "Expected max_length in events, got None. Measure it with measure_music, or state it."
            )
        self.preprocess = preprocess
        self.augment = MusicAugmentConfig(crop=False) if augment is None else augment
        self.max_length = preprocess.max_length

    def decode(self, media: EncodedItem, *, clip_position: float | None = None) -> DecodedValue:  # noqa: ARG002
        """Return all events of a piece, int16."""
        tokens = read_music(media, self.preprocess)
        notes = (f"cut to {self.max_length} events",) if len(tokens) > self.max_length else ()
        return DecodedValue(tokens, notes)

    def transform(
        self, value: Any, *, clip_position: float = 0.5, rng: np.random.Generator | None = None
    ) -> Ids:
        """Return at most `max_length` events: L, int64."""
        tokens: Tokens = value
        augment = self.augment
        position = clip_position if rng is None or not augment.crop else rng.random()
        if rng is not None and augment.stretch != (1.0, 1.0):
            tokens = stretch_events(tokens, rng.uniform(*augment.stretch))
        start = round(position * max(len(tokens) - self.max_length, 0))
        tokens = tokens[start : start + self.max_length]
        if rng is not None and augment.transpose:
            most = augment.transpose
            tokens = transpose_events(tokens, int(rng.integers(-most, most + 1)))
        return tokens.astype(np.int64)

    def collate(
        self, samples: Sequence[Any]
    ) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"] | None]:
        """Return pieces as B x L events, zeros after the shorter ones, and which of them are real.

        L is a multiple of 64, or `max_length`.
        """
        return stack_padded(samples, like=(self.max_length,), dtype=np.int64, multiple=MULTIPLE)


def read_music(media: EncodedItem, config: MusicPreprocessConfig) -> Tokens:
    """Return all events of a cell: of a MIDI file, a `MusicScore`, or numbers that are events already.

    Raises:
        MissingValueError: If there is nothing.
        ValueError: If it is no MIDI file, is cut short, or holds no notes. The message names it.
    """
    if media.is_missing:
        raise MissingValueError(f"'{media.name}' is empty: expected music, got no cell.")
    score = media.value
    if score is not None and not isinstance(score, MusicScore):
        return _checked(score, media.name)
    if score is None:
        score = parse_midi(media.read(), media.name)
    if config.reproduce_original_faults:
        tokens = encode_events_as_original(score)
    else:
        tokens = encode_events(
            score, repeat_velocity=config.repeat_velocity, percussion=config.percussion
        )
    if not len(tokens):
        found = "no notes"
        if score.notes:
            found = "percussion only" if not config.reproduce_original_faults else "none that stay"
        raise ValueError(
            f"'{media.name}' holds {found}: expected music with notes of a pitch. Take it out of the data"
            f"{', or read percussion with --preprocess.music.percussion true' if score.notes else ''}."
        )
    return tokens


def _checked(value: Any, name: str) -> Tokens:
    """Return numbers as events."""
    tokens = np.asarray(value)
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu" or not tokens.size:
        raise ValueError(
            f"Cannot read '{name}' as music: expected a MIDI file or a row of events (integers from 0 to {PAD - 1}), "
            f"got {type(value).__name__} of shape {tokens.shape}."
        )
    if tokens.min() < 0 or tokens.max() >= PAD:
        raise ValueError(
            f"'{name}' holds numbers from {tokens.min()} to {tokens.max()}: expected events from 0 to {PAD - 1}."
        )
    return tokens.astype(np.int16)


@dataclass
class MusicChunking:
    """Chunks of the events of a piece. The events of all pieces are kept in memory, two bytes for each.

    Attributes:
        config: Preprocessing.
    """

    config: MusicPreprocessConfig
    unit: str = "events"
    _pieces: dict[str, Tokens] = field(default_factory=dict)

    def size(self, item: EncodedItem) -> int:
        """Return the number of events.

        Raises:
            ValueError: If the piece cannot be read.
        """
        return len(self._events(item))

    def cut(self, item: EncodedItem, first: int, end: int) -> EncodedItem:
        """Return the events from `first` to before `end`."""
        events = self._events(item)
        is_whole = first == 0 and end >= len(events)
        name = item.name if is_whole else f"{item.name} from event {first}"
        return EncodedItem(name, value=events[first:end])

    def _events(self, item: EncodedItem) -> Tokens:
        if isinstance(item.value, np.ndarray):
            return read_music(item, self.config)
        if item.name not in self._pieces:
            self._pieces[item.name] = read_music(item, self.config)
        return self._pieces[item.name]


def measure_music(
    cells: Iterable[EncodedItem], config: MusicPreprocessConfig
) -> MusicPreprocessConfig:
    """Return the configuration with `max_length` taken from pieces.

    It is the length into which 19 of 20 pieces fit, rounded up to a multiple of 64, at most 2,048.

    Raises:
        ValueError: If no cell holds music.
    """
    lengths = list(read_cells(cells, lambda cell: len(read_music(cell, config)), "music"))
    most = int(np.percentile(lengths, 95, method="higher"))
    return replace(config, max_length=min(_LARGEST, max(MULTIPLE, -(-most // MULTIPLE) * MULTIPLE)))


def describe_music(value: Any) -> Comparable:
    """Return the square roots of the counts of each event as features."""
    counts = np.bincount(value, minlength=PAD)
    return Comparable(features=np.sqrt(counts).astype(np.float32), is_standardized=False)


def _upload_sizes(media: EncodedItem) -> Iterator[UploadSize]:
    if media.value is None:
        yield UploadSize(len(media.read()), "bytes of MIDI", "characters")


def _default(_: OwnDataSize) -> tuple[MusicPreprocessConfig, MusicAugmentConfig]:
    return MusicPreprocessConfig(), MusicAugmentConfig(transpose=3)


register_modality(
    ModalitySpec(
        name="music",
        noun="music",
        example_file=midi_bytes(one_part([Note(0.0, 0.5, 60, 64)])),
        preprocessing=(Preprocessing(MusicPreprocessConfig, MusicModality, _default),),
        augment=MusicAugmentConfig,
        suffixes=("mid", "midi"),
        magic=is_midi,
        upload_sizes=_upload_sizes,
        describe=describe_music,
    )
)
