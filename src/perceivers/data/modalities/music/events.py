"""Events of music: note on, note off, time shift and velocity, as numbers of a vocabulary of 389.

| tokens | event |
|---|---|
| 0 to 127, 128 to 255 | key of this pitch down, up |
| 256 to 355 | time passes: 10 ms to 1 s in steps of 10 ms |
| 356 to 387 | velocity of the notes that follow, in 32 steps |
| 388 | padding |

Reference: the events of krasserm's `perceiver-io`, after "This Time with Feeling" (arXiv:1808.03715).
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from perceivers.data.modalities.music.score import MusicScore, Note, Part, one_part

NOTE_ON, NOTE_OFF, TIME_SHIFT, VELOCITY, PAD = 0, 128, 256, 356, 388
VOCAB_SIZE = 389
STEPS = 100  # of 10 ms in the longest time shift, and in a second
VELOCITY_STEP = 4
_FIRST_VELOCITY = 16  # step of a note before which no velocity is stated: 64, medium loud

Tokens = npt.NDArray[np.int16]


def encode_events(
    score: MusicScore, *, repeat_velocity: bool = False, percussion: bool = False
) -> Tokens:
    """Return the events of music.

    Times are rounded to 10 ms, each by itself, so that errors do not add up; a note lasts at least 10 ms. While the
    sustain pedal is down, a released note lasts until the pedal goes up, the same key goes down again, or the music
    ends. Parts are merged: of notes of one pitch, each ends where the next one starts, and those that start together
    are one.

    Args:
        score: The music.
        repeat_velocity: State the velocity before each note, also where it does not change.
        percussion: Encode percussion, too, whose instruments become pitches.

    Returns:
        Tokens, int16.
    """
    end = score.seconds
    notes = [
        Note(round(note.start * STEPS), round(note.end * STEPS), note.pitch, note.velocity)
        for part in score.parts
        if percussion or not part.is_percussion
        for note in _sustained(part, end)
    ]
    # Keys go up before others go down, so that a repeated note is struck again.
    events: list[tuple[int, int, int, int]] = []
    for start, stop, pitch, velocity in _separated(notes):
        events.append((int(start), 1, pitch, velocity))
        events.append((int(stop), 0, pitch, 0))
    found: list[int] = []
    now, loudness = 0, -1
    for time, is_on, pitch, velocity in sorted(events):
        found += _time_shift(time - now)
        now = time
        if is_on:
            step = min(velocity, 127) // VELOCITY_STEP
            if step != loudness or repeat_velocity:
                found.append(VELOCITY + step)
            loudness = step
        found.append((NOTE_ON if is_on else NOTE_OFF) + pitch)
    return np.array(found, dtype=np.int16)


def decode_events(tokens: Sequence[int] | Tokens) -> MusicScore:
    """Return the music of events: one part of notes that do not overlap.

    Any sequence is music. A key that goes down again ends its note; keys that are down at the end go up there; a note
    lasts at least 10 ms. A key that goes up without having gone down, and padding, change nothing.
    """
    now, loudness = 0, _FIRST_VELOCITY
    sounding: dict[int, tuple[int, int]] = {}
    notes: list[Note] = []

    def end(pitch: int) -> None:
        if pitch in sounding:
            start, velocity = sounding.pop(pitch)
            notes.append(Note(start, now, pitch, velocity))

    for token in map(int, tokens):
        if token < NOTE_OFF:
            end(token)
            # The middle of its step.
            sounding[token] = now, loudness * VELOCITY_STEP + VELOCITY_STEP // 2
        elif token < TIME_SHIFT:
            end(token - NOTE_OFF)
        elif token < VELOCITY:
            now += token - TIME_SHIFT + 1
        elif token < PAD:
            loudness = token - VELOCITY
    for pitch in list(sounding):
        end(pitch)
    return one_part(
        Note(start / STEPS, stop / STEPS, pitch, velocity)
        for start, stop, pitch, velocity in sorted(_separated(notes))
    )


def transpose_events(tokens: Tokens, semitones: int) -> Tokens:
    """Return events with all pitches moved, by less where one would leave the 128 keys."""
    keys = tokens < TIME_SHIFT
    if not keys.any():
        return tokens
    pitches = tokens[keys] % NOTE_OFF
    moved = min(max(semitones, -int(pitches.min())), 127 - int(pitches.max()))
    return np.where(keys, tokens + moved, tokens).astype(np.int16)


def stretch_events(tokens: Tokens, factor: float) -> Tokens:
    """Return events whose times are multiplied by a factor and rounded to 10 ms again."""
    is_shift = (tokens >= TIME_SHIFT) & (tokens < VELOCITY)
    steps = np.where(is_shift, tokens.astype(np.int64) - TIME_SHIFT + 1, 0)
    times = np.append(np.cumsum(steps)[~is_shift], steps.sum())  # of each other event, and the end
    shifts = np.diff(np.rint(times * factor).astype(np.int64), prepend=0)
    rest = shifts % STEPS
    counts = shifts // STEPS + (rest > 0)
    others = np.append(tokens[~is_shift], PAD)
    found = np.full(int(counts.sum()) + len(others), TIME_SHIFT + STEPS - 1, dtype=np.int16)
    places = np.cumsum(counts + 1) - 1  # of the other events
    found[places] = others
    partial = rest > 0
    found[places[partial] - 1] = TIME_SHIFT + rest[partial] - 1
    return found[:-1]


def _time_shift(steps: int) -> list[int]:
    """Return the events for a time of so many steps."""
    seconds, rest = divmod(steps, STEPS)
    longest = [TIME_SHIFT + STEPS - 1] * seconds
    return [*longest, TIME_SHIFT + rest - 1] if rest else longest


def _sustained(part: Part, end: float) -> Iterable[Note]:
    """Return the notes of a part, lengthened by its sustain pedal. `end` is that of the music."""
    spans = _pedal_spans(part, end)
    if not spans:
        return part.notes
    downs = np.array([down for down, _ in spans])
    starts: dict[int, list[float]] = {}
    for note in sorted(part.notes):
        starts.setdefault(note.pitch, []).append(note.start)

    def end_of(note: Note) -> float:
        place = int(np.searchsorted(downs, note.end, side="right")) - 1
        if place < 0 or note.end >= spans[place][1]:
            return note.end
        of_pitch = starts[note.pitch]
        following = int(np.searchsorted(of_pitch, note.start, side="right"))
        again = of_pitch[following] if following < len(of_pitch) else end
        return max(note.end, min(spans[place][1], again))

    return [note._replace(end=end_of(note)) for note in part.notes]


def _pedal_spans(part: Part, end: float) -> list[tuple[float, float]]:
    """Return the times between which the pedal is down; one that never goes up is down until the end."""
    spans: list[tuple[float, float]] = []
    down: float | None = None
    for time, value in part.pedals:
        if value >= 64 and down is None:
            down = time
        elif value < 64 and down is not None:
            spans.append((down, time))
            down = None
    return spans if down is None else [*spans, (down, max(down, end))]


def _separated(notes: Iterable[Note]) -> list[Note]:
    """Return notes in whole steps so that those of one pitch do not overlap; each lasts at least a step."""
    found: list[Note] = []
    for start, end, pitch, velocity in sorted(notes, key=lambda note: (note.pitch, note.start)):
        note = Note(start, max(end, start + 1), pitch, velocity)
        before = found[-1] if found and found[-1].pitch == pitch else None
        if before is not None and before.start == start:
            found[-1] = Note(
                start, max(before.end, note.end), pitch, max(before.velocity, velocity)
            )
            continue
        if before is not None and before.end > start:
            found[-1] = before._replace(end=start)
        found.append(note)
    return found
