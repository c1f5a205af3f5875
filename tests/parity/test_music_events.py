"""Events of music against those of krasserm's library: tokens, decoded notes, and a MIDI file that is read back."""

import json
from pathlib import Path

import numpy as np
import pytest

from perceivers.data.modalities.music import events
from perceivers.data.modalities.music.midi_file import midi_bytes, parse_midi
from perceivers.data.modalities.music.original_events import (
    decode_events_as_original,
    encode_events_as_original,
)
from perceivers.data.modalities.music.score import MusicScore, Note, Part, PedalChange

VECTORS = json.loads((Path(__file__).parent / "vectors" / "kr_midi.json").read_text())


def score_of(case):
    """Return the music of a case: notes are pitch, velocity, start, end; controls number, value, time."""
    return MusicScore(
        tuple(
            Part(
                tuple(Note(start, end, pitch, velocity) for pitch, velocity, start, end in notes),
                tuple(PedalChange(time, value) for number, value, time in controls if number == 64),
            )
            for notes, controls in zip(case["notes_in"], case["controls"], strict=True)
        )
    )


def rows_of(score):
    (part,) = score.parts
    return [[note.pitch, note.velocity, note.start, note.end] for note in part.notes]


def same(found, expected):
    shape = len(expected), 4
    return np.allclose(np.reshape(found, shape), np.reshape(expected, shape), atol=1e-9)


@pytest.mark.parametrize("name", VECTORS["encode"])
def test_tokens_and_decoded_notes_are_those_of_the_original(name):
    case = VECTORS["encode"][name]
    tokens = encode_events_as_original(score_of(case))
    assert tokens.tolist() == case["tokens"]
    decoded = decode_events_as_original(tokens)
    assert same(rows_of(decoded), case["notes_out"])
    assert encode_events_as_original(decoded).tolist() == case["tokens_again"]


@pytest.mark.parametrize("name", VECTORS["decode"])
def test_odd_tokens_are_decoded_as_by_the_original(name):
    case = VECTORS["decode"][name]
    assert same(rows_of(decode_events_as_original(case["tokens"])), case["notes_out"])


def test_a_case_through_a_file():
    case = VECTORS["through_a_file"]
    data = midi_bytes(score_of(VECTORS["encode"][case["case"]]), resolution=case["resolution"])
    read = parse_midi(data, "a.mid")
    assert same(rows_of(read), case["notes_read"])
    assert encode_events_as_original(read).tolist() == case["tokens"]


def test_the_layout_of_the_vocabulary():
    layout = VECTORS["layout"]
    starts = [events.NOTE_ON, events.NOTE_OFF, events.TIME_SHIFT, events.VELOCITY]
    names = ["note_on", "note_off", "time_shift", "velocity"]
    assert [layout[name][0] for name in names] == starts
    assert [layout[name][1] + 1 for name in names] == [*starts[1:], events.PAD]
    assert (layout["pad"], layout["vocab_size"]) == (events.PAD, events.VOCAB_SIZE)


# No pedal, no note twice at a time: here the encoder without faults writes the same.
PLAIN = ["scale", "long_rest_over_one_second", "exactly_one_second"]


@pytest.mark.parametrize("name", PLAIN)
def test_plain_music_is_encoded_as_by_the_original_where_velocities_are_repeated(name):
    case = VECTORS["encode"][name]
    assert events.encode_events(score_of(case), repeat_velocity=True).tolist() == case["tokens"]


@pytest.mark.parametrize(
    "name", ["sustain_no_note_after_release", "sustain_twice_no_note_between", "sustain_basic"]
)
def test_no_note_at_the_pedal_is_lost_or_repeated(name):
    case = VECTORS["encode"][name]
    score = score_of(case)
    decoded = events.decode_events(events.encode_events(score))
    assert [note.pitch for note in decoded.notes] == [note.pitch for note in score.notes]
    assert [note.start for note in decoded.notes] == [note.start for note in score.notes]
