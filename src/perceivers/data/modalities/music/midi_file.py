"""Reading and writing of standard MIDI files.

The library mido (1.3.3) is not used: it drops the time before meta messages that it does not know, so that later notes
come too early, refuses files with an odd key signature, and needs as much code around it and 3.5 times as long.

Reference: Standard MIDI Files 1.0 (MIDI Manufacturers Association, 1996).
"""

import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from perceivers.data.modalities.music.score import MusicScore, Note, Part, PedalChange

_HEADER, _TRACK = b"MThd", b"MTrk"
_PERCUSSION = 9  # channel 10, counted from 0
_SUSTAIN = 64
_TEMPO = 500_000  # microseconds of a quarter note, unless a file states it
_MOST_SECONDS = 24 * 3600
_DATA_BYTES = {8: 2, 9: 2, 10: 2, 11: 2, 12: 1, 13: 1, 14: 2}  # of a message, by its status
_RESOLUTION = 500  # ticks of a quarter note in written files, so that a tick is a millisecond


def is_midi(data: bytes) -> bool:
    """Return whether bytes begin like a MIDI file, or like one in a RIFF file."""
    return data.startswith(_HEADER) or (data[:4] == b"RIFF" and data[8:12] == b"RMID")


@dataclass
class _Track:
    """Messages of a track, in the order of time.

    Attributes:
        notes: Time in ticks, channel, pitch, and velocity; 0 ends the note.
        pedals: Time in ticks, channel and value of the sustain pedal.
        tempos: Time in ticks, microseconds of a quarter note.
        end: Time of its last message in ticks.
    """

    notes: list[tuple[int, int, int, int]] = field(default_factory=list)
    pedals: list[tuple[int, int, int]] = field(default_factory=list)
    tempos: list[tuple[int, int]] = field(default_factory=list)
    end: int = 0


def parse_midi(data: bytes, name: str) -> MusicScore:
    """Return the music in the bytes of a MIDI file: a part for each channel of each track that has notes.

    A note that is struck again ends there; one that is never released ends with its track.

    Args:
        data: The file.
        name: Name for messages.

    Raises:
        ValueError: If it is no MIDI file, is cut short or damaged, or is longer than 24 hours.
    """
    if not data:
        raise ValueError(
            f"'{name}' is empty: expected a MIDI file, got 0 bytes. Take it out of the data."
        )
    if not is_midi(data):
        raise ValueError(
            f"Cannot read '{name}' as MIDI: expected a file that begins with MThd, got the bytes {data[:8].hex(' ')}. "
            "Export the music as a standard MIDI file."
        )
    data = data[max(data.find(_HEADER), 0) :]
    try:
        division, tracks = _read_tracks(data)
    except (IndexError, struct.error):
        raise ValueError(
            f"'{name}' is cut short: expected a whole MIDI file, got one that ends after {len(data):,} bytes in the "
            "middle of a track. Copy or export it again."
        ) from None
    except ValueError as error:
        raise ValueError(f"Cannot read '{name}' as MIDI: {error}") from None
    clock = _Clock(division, [tempo for track in tracks for tempo in track.tempos])
    seconds = float(clock.seconds([max((track.end for track in tracks), default=0)])[0])
    if seconds > _MOST_SECONDS:
        raise ValueError(
            f"'{name}' lasts {seconds / 3600:,.0f} hours: expected at most 24. Its times are probably damaged; export "
            "it again."
        )
    return MusicScore(tuple(_parts(tracks, clock)))


def _read_tracks(data: bytes) -> tuple[int, list[_Track]]:
    """Return the division of time in the header, and the tracks."""
    length, form, count, division = struct.unpack(">IHHh", data[4:14])
    if form == 2:
        raise ValueError(
            "expected a file of format 0 or 1, got independent patterns (format 2). Export it in format 1."
        )
    if division == 0:
        raise ValueError("its header states 0 ticks for a quarter note. Export it again.")
    place = 8 + length
    tracks: list[_Track] = []
    while len(tracks) < count:
        kind, size = data[place : place + 4], struct.unpack(">I", data[place + 4 : place + 8])[0]
        place += 8
        if place + size > len(data):
            raise IndexError
        if kind == _TRACK:
            tracks.append(_read_track(data[place : place + size]))
        place += size
    return division, tracks


def _read_track(data: bytes) -> _Track:
    """Return the messages of a track that are of use."""
    track, place, status = _Track(), 0, 0
    tick = 0
    while place < len(data):
        delta, place = _number(data, place)
        tick += delta
        if data[place] & 0x80:
            status = data[place]
            place += 1
        if status >= 0xF0:
            kind = data[place] if status == 0xFF else -1
            place += status == 0xFF
            size, place = _number(data, place)
            if place + size > len(data):
                raise IndexError
            if kind == 0x51 and size == 3:
                track.tempos.append((tick, int.from_bytes(data[place : place + 3])))
            place += size
            if kind == 0x2F:  # end of the track
                break
            status = 0
            continue
        if not status:
            raise ValueError("a track holds data without a message. The file is damaged.")
        first, second = data[place], data[place + 1] if _DATA_BYTES[status >> 4] == 2 else 0
        place += _DATA_BYTES[status >> 4]
        command, channel = status >> 4, status & 15
        if command in {8, 9}:
            track.notes.append((tick, channel, first & 127, second & 127 if command == 9 else 0))
        elif command == 11 and first == _SUSTAIN:
            track.pedals.append((tick, channel, second & 127))
    track.end = tick
    return track


def _number(data: bytes, place: int) -> tuple[int, int]:
    """Return a number of variable length, and the place after it."""
    value = 0
    for place in range(place, place + 4):  # noqa: B020, PLR1704
        byte = data[place]
        value = value << 7 | byte & 127
        if byte < 128:
            return value, place + 1
    raise ValueError("a number has more than four bytes. The file is damaged.")


class _Clock:
    """Times in seconds of times in ticks.

    Args:
        division: Ticks of a quarter note; below 0 the negative frames of a second, and ticks of a frame.
        tempos: Time in ticks and microseconds of a quarter note, of each change.
    """

    def __init__(self, division: int, tempos: Sequence[tuple[int, int]]) -> None:
        changes = dict(sorted([(0, _TEMPO), *sorted(tempos, key=lambda one: one[0])], key=_tick))
        if division < 0:
            frames, ticks = 256 - (division >> 8 & 255), max(division & 255, 1)
            rate = 30 / 1.001 if frames == 29 else float(frames)
            changes, division = {0: 1e6 / rate}, ticks
        self.ticks = np.array([*changes], dtype=np.int64)
        self.each = np.array([*changes.values()], dtype=np.float64) / 1e6 / division
        spans = np.diff(self.ticks) * self.each[:-1]
        self.begins = np.concatenate([[0.0], np.cumsum(spans)])

    def seconds(self, ticks: Sequence[int]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        """Return times in seconds."""
        times = np.asarray(ticks, dtype=np.int64)
        segment = np.searchsorted(self.ticks, times, side="right") - 1
        return self.begins[segment] + (times - self.ticks[segment]) * self.each[segment]


def _tick(change: tuple[int, float]) -> int:
    return change[0]


def _parts(tracks: Sequence[_Track], clock: _Clock) -> Iterator[Part]:
    """Yield a part for each channel of each track that has notes."""
    pedals: dict[int, list[PedalChange]] = defaultdict(list)
    moved = sorted((one for track in tracks for one in track.pedals), key=lambda one: one[0])
    times = clock.seconds([tick for tick, _, _ in moved])
    for time, (_, channel, value) in zip(times.tolist(), moved, strict=True):
        pedals[channel].append(PedalChange(time, value))
    for track in tracks:
        closed = _closed(track)
        starts = clock.seconds([start for _, start, _, _, _ in closed]).tolist()
        ends = clock.seconds([end for _, _, end, _, _ in closed]).tolist()
        by_channel: dict[int, list[Note]] = defaultdict(list)
        for start, end, (channel, _, _, pitch, velocity) in zip(starts, ends, closed, strict=True):
            by_channel[channel].append(Note(start, end, pitch, velocity))
        for channel, notes in sorted(by_channel.items()):
            yield Part(tuple(notes), tuple(pedals[channel]), channel == _PERCUSSION)


def _closed(track: _Track) -> list[tuple[int, int, int, int, int]]:
    """Return channel, start, end, pitch and velocity of each note of a track, in the order of their ends."""
    sounding: dict[tuple[int, int], tuple[int, int]] = {}
    found: list[tuple[int, int, int, int, int]] = []

    def end(channel: int, pitch: int, tick: int) -> None:
        started = sounding.pop((channel, pitch), None)
        if started is not None:
            found.append((channel, started[0], tick, pitch, started[1]))

    for tick, channel, pitch, velocity in track.notes:
        end(channel, pitch, tick)
        if velocity:
            sounding[channel, pitch] = tick, velocity
    for channel, pitch in list(sounding):
        end(channel, pitch, track.end)
    return found


def midi_bytes(score: MusicScore, *, resolution: int = _RESOLUTION) -> bytes:
    """Return music as a MIDI file: of format 0 if it has one part, otherwise of format 1.

    Args:
        score: The music. Parts that are no percussion get channels in their order, 16 at most without channel 10.
        resolution: Ticks of a quarter note, which lasts half a second.
    """
    free = [channel for channel in range(16) if channel != _PERCUSSION]
    tracks: list[bytes] = []
    for number, part in enumerate(score.parts or (Part(()),)):
        channel = _PERCUSSION if part.is_percussion else free[number % len(free)]
        tempo = b"\0\xff\x51\3" + _TEMPO.to_bytes(3) if number == 0 else b""
        tracks.append(tempo + _track_bytes(part, channel, resolution * 1e6 / _TEMPO))
    header = struct.pack(">4sIHHH", _HEADER, 6, len(tracks) > 1, len(tracks), resolution)
    return header + b"".join(struct.pack(">4sI", _TRACK, len(one)) + one for one in tracks)


def _track_bytes(part: Part, channel: int, ticks: float) -> bytes:
    """Return the messages of a part, with the number of ticks of a second."""
    messages: list[tuple[int, int, bytes]] = []  # time, order at this time, message
    for start, end, pitch, velocity in part.notes:
        first = round(start * ticks)
        last = max(round(end * ticks), first + 1)
        messages.append((first, 2, bytes([0x90 | channel, pitch, max(velocity, 1)])))
        messages.append((last, 0, bytes([0x80 | channel, pitch, 0])))
    for time, value in part.pedals:
        messages.append((round(time * ticks), 1, bytes([0xB0 | channel, _SUSTAIN, value])))
    written: list[bytes] = []
    now = 0
    for tick, _, message in sorted(messages):
        written.append(_variable(tick - now) + message)
        now = tick
    return b"".join(written) + b"\0\xff\x2f\0"


def _variable(number: int) -> bytes:
    """Return a number in bytes of seven bits, of which all but the last have the highest bit."""
    found = [number & 127]
    while number := number >> 7:
        found.append(number & 127 | 128)
    return bytes(reversed(found))
