"""The encoder and decoder of krasserm's `perceiver-io` with their faults, to compare tokens with those of its models.

Faults: notes after the last release of the sustain pedal are lost; where no note starts after a release, its pedal
lengthens nothing and its notes appear again for each further pedal; rounding errors add up over a piece; a decoded note
may have velocity 0, which a MIDI file takes for its end; notes that are not released are lost.

Reference: krasserm's `perceiver-io` 0.11.1, written anew from a description of its behavior.
"""

from collections.abc import Sequence

import numpy as np

from perceivers.data.modalities.music.events import (
    NOTE_OFF,
    STEPS,
    TIME_SHIFT,
    VELOCITY,
    VELOCITY_STEP,
    Tokens,
)
from perceivers.data.modalities.music.score import MusicScore, Note, Part, one_part


def encode_events_as_original(score: MusicScore) -> Tokens:
    """Return the events of music as krasserm's library does. Percussion is encoded, too.

    Returns:
        Tokens, int16.
    """
    notes = sorted(
        (note for part in score.parts for note in _sustained(part)), key=lambda note: note.start
    )
    events = [
        event for note in notes for event in ((note.start, True, note), (note.end, False, note))
    ]
    found: list[int] = []
    now, loudness = 0.0, 0
    for time, is_on, note in sorted(events, key=lambda event: event[0]):
        steps = round(100 * (time - now))
        found += [TIME_SHIFT + STEPS - 1] * (steps // STEPS)
        found += [TIME_SHIFT + steps % STEPS - 1] if steps % STEPS else []
        now = time
        if is_on:
            step = note.velocity // VELOCITY_STEP
            # Compared with the velocity itself, so that it is stated before nearly every note.
            found += [VELOCITY + step] if step != loudness else []
        loudness = note.velocity if is_on else -1
        found.append(note.pitch if is_on else NOTE_OFF + note.pitch)
    return np.array(found, dtype=np.int16)


def decode_events_as_original(tokens: Sequence[int] | Tokens) -> MusicScore:
    """Return the notes of events as krasserm's library does."""
    now, velocity = 0, 0
    struck: dict[int, tuple[int, int]] = {}
    notes: list[Note] = []
    for token in map(int, tokens):
        if token < NOTE_OFF:
            struck[token] = now, velocity
        elif token < TIME_SHIFT:
            pitch = token - NOTE_OFF
            if pitch in struck and struck[pitch][0] < now:
                start, loudness = struck[pitch]
                notes.append(Note(start / STEPS, now / STEPS, pitch, loudness))
        elif token < VELOCITY:
            now += token - TIME_SHIFT + 1
        else:
            velocity = (token - VELOCITY) * VELOCITY_STEP
    return one_part(sorted(notes, key=lambda note: note.start))


def _sustained(part: Part) -> list[Note]:
    """Return the notes of a part, some of them lengthened, lost or repeated."""
    spans: list[list[float]] = []
    down: float | None = None
    for time, value in part.pedals:
        if value >= 64:
            down = time if down is None else down
        elif down is not None:
            spans.append([down, time])
            down = None
        elif spans:
            spans[-1][1] = time
    if not spans:
        return list(part.notes)
    found: list[Note] = []
    held: list[Note] = []
    left = list(part.notes)
    for down, up in spans:
        within: list[Note] = []
        for place, note in enumerate(left):
            if note.start > up:
                left, within = left[place:], _lengthened(within, up)
                break
            (found if note.start < down else within).append(note)
        held += within
    return found + held


def _lengthened(notes: Sequence[Note], up: float) -> list[Note]:
    """Return notes that end at the next one of the same pitch, the last of a pitch at the release of the pedal."""
    following: dict[int, float] = {}
    found: list[Note] = []
    for note in reversed(notes):
        end = following.get(note.pitch, max(up, note.end))
        following[note.pitch] = note.start
        found.append(note._replace(end=end))
    return found[::-1]
