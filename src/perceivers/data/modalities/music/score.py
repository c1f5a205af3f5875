"""Notes of a piece of music."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from perceivers.data.base import atomic_write


class Note(NamedTuple):
    """A note.

    Attributes:
        start: Time at which the key goes down, in seconds.
        end: Time at which it goes up.
        pitch: Number of the key, 0 to 127. 60 is the middle C.
        velocity: Loudness, 1 to 127.
    """

    start: float
    end: float
    pitch: int
    velocity: int


class PedalChange(NamedTuple):
    """A movement of the sustain pedal (controller 64).

    Attributes:
        time: Time in seconds.
        value: Position, 0 to 127. From 64 on it is down.
    """

    time: float
    value: int


@dataclass(frozen=True, slots=True)
class Part:
    """Notes of one channel of a track.

    Attributes:
        notes: The notes, in any order.
        pedals: Movements of the sustain pedal in the order of time.
        is_percussion: Whether a pitch is a percussion instrument, as in channel 10 of a MIDI file.
    """

    notes: tuple[Note, ...]
    pedals: tuple[PedalChange, ...] = ()
    is_percussion: bool = False


@dataclass(frozen=True, slots=True)
class MusicScore:
    """A piece of music.

    Attributes:
        parts: Its parts.
    """

    parts: tuple[Part, ...]

    @property
    def notes(self) -> list[Note]:
        """All notes, in the order of their starts."""
        return sorted(note for part in self.parts for note in part.notes)

    @property
    def seconds(self) -> float:
        """Time of the end of the last note."""
        return max((note.end for part in self.parts for note in part.notes), default=0.0)

    @classmethod
    def load(cls, path: str | Path) -> "MusicScore":
        """Return the music in a MIDI file.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If it is no MIDI file, or is cut short. The message names it.
        """
        from perceivers.data.modalities.music.midi_file import parse_midi

        return parse_midi(Path(path).read_bytes(), str(path))

    def save(self, path: str | Path) -> None:
        """Write the music as a MIDI file (`.mid`, `.midi`), an image of its notes over time (`.png`) or audio (`.wav`).

        Raises:
            OSError: If the file cannot be written.
            ValueError: If the suffix is another one, or audio is to be written and FluidSynth is not installed.
        """
        from perceivers.data.modalities.music.midi_file import midi_bytes
        from perceivers.data.modalities.music.piano_roll import draw_piano_roll
        from perceivers.data.modalities.music.synthesize import write_wav

        path = Path(path)
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES:
            raise ValueError(
                f"Expected a file that ends in {', '.join(SUFFIXES)}, got '{path}'. Choose one of these suffixes."
            )
        with atomic_write(path) as new:
            if suffix == ".png":
                draw_piano_roll(self).save(new, format="PNG")
            elif suffix == ".wav":
                write_wav(midi_bytes(self), new, is_silent=not self.notes)
            else:
                new.write_bytes(midi_bytes(self))


SUFFIXES = (".mid", ".midi", ".png", ".wav")
"""Suffixes of the files that `MusicScore.save` writes."""


def one_part(notes: Iterable[Note]) -> MusicScore:
    """Return notes as music of a single part without pedal."""
    return MusicScore((Part(tuple(notes)),))
