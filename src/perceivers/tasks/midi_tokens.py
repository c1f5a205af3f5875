"""Events of music as a vocabulary."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch

from perceivers.registry import configclass
from perceivers.tasks.vocabulary import BaseVocabulary, register_vocabulary
from perceivers.typing import Bool, Int, Tensor

_NOTE_OFF, _TIME_SHIFT, _VELOCITY, _PAD = 128, 256, 356, 388
_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


@configclass
class _Midi(BaseVocabulary):
    """Events of MIDI files: keys down and up, time shifts, velocities; and padding."""

    unit: ClassVar[str] = "event"
    units: ClassVar[str] = "events"
    first: ClassVar[int] = 0
    is_chunked: ClassVar[bool] = True
    generate_flags: ClassVar[str] = "--out song.mid"

    @property
    def size(self) -> int:
        """388 events and padding."""
        return _PAD + 1

    @property
    def data_tokens(self) -> range:
        """All events."""
        return range(_PAD)

    def tokens(
        self, content: Int[Tensor, "B L"], mask: Bool[Tensor, "B Lm"] | None
    ) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
        """Return the events, as which music is prepared, and which are real."""
        if mask is None:
            return content, torch.ones_like(content, dtype=torch.bool)
        return content, mask.expand_as(content)

    def token_name(self, token: int) -> str:
        """Return the name of a key, as `C4 on` and `C4 off`, the time in milliseconds, or the velocity."""
        if token < _TIME_SHIFT:
            key = token % _NOTE_OFF
            name = f"{_NAMES[key % 12]}{key // 12 - 1}"
            return f"{name} {'on' if token < _NOTE_OFF else 'off'}"
        if token < _VELOCITY:
            return f"{10 * (token - _TIME_SHIFT + 1)} ms"
        return f"velocity {4 * (token - _VELOCITY)}" if token < _PAD else "start"

    def text(self, tokens: Sequence[int]) -> str:
        """Return the names of events, with commas between them."""
        return ", ".join(self.token_name(token) for token in tokens if token in self.data_tokens)


@configclass
class MidiVocabulary(_Midi):
    """Events of MIDI files: keys down and up, time shifts, velocities; and padding, which also begins a piece."""

    kind: Literal["midi"] = "midi"

    start: ClassVar[int] = _PAD


@configclass
class MidiWindowVocabulary(_Midi):
    """Events of MIDI files for models that have not learned a token for the start: a second of silence begins a piece.

    krasserm's models were trained on windows of pieces.
    """

    kind: Literal["midi_windows"] = "midi_windows"

    start: ClassVar[int] = _VELOCITY - 1


register_vocabulary(MidiVocabulary)
register_vocabulary(MidiWindowVocabulary)
