"""What must hold for every piece of music, every row of events and every damaged file."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from perceivers.data.modalities.music.events import (
    PAD,
    STEPS,
    VELOCITY_STEP,
    decode_events,
    encode_events,
    stretch_events,
    transpose_events,
)
from perceivers.data.modalities.music.midi_file import midi_bytes, parse_midi
from perceivers.data.modalities.music.score import MusicScore, Note, Part, PedalChange, one_part

times = st.floats(0, 30, allow_nan=False)
velocities = st.integers(1, 127)
# Plain numbers: the music is made of them in the tests, where types are checked at random places.
notes = st.tuples(times, st.floats(0, 5), st.integers(0, 127), velocities)
pedals = st.lists(st.tuples(times, st.integers(0, 127)), max_size=8).map(sorted)
scores = st.lists(st.tuples(st.lists(notes, max_size=30), pedals), min_size=1, max_size=3)
rows = st.lists(st.integers(0, PAD - 1), max_size=200).map(lambda row: np.array(row, np.int16))


def music(drawn):
    return MusicScore(
        tuple(
            Part(
                tuple(Note(start, start + length, *rest) for start, length, *rest in found),
                tuple(PedalChange(*move) for move in moves),
            )
            for found, moves in drawn
        )
    )


@st.composite
def separate_notes(draw):
    """Draw notes of which those of one pitch follow each other, on a grid of 10 ms."""
    found = []
    for pitch in draw(st.lists(st.integers(0, 127), unique=True, max_size=6)):
        now = 0
        for _ in range(draw(st.integers(1, 5))):
            start = now + draw(st.integers(0, 250))
            now = start + draw(st.integers(1, 250))
            found.append((start / STEPS, now / STEPS, pitch, draw(velocities)))
    return sorted(found)


@given(separate_notes(), st.booleans())
def test_decoded_notes_are_those_that_were_encoded(found, repeat):
    tokens = encode_events(one_part(Note(*one) for one in found), repeat_velocity=repeat)
    decoded = decode_events(tokens).notes
    assert [note[:3] for note in decoded] == [note[:3] for note in found]
    steps = [note[3] // VELOCITY_STEP for note in found]
    assert [note.velocity // VELOCITY_STEP for note in decoded] == steps


@given(scores)
def test_times_are_rounded_by_themselves_and_no_start_is_lost(drawn):
    score = music(drawn)
    decoded = decode_events(encode_events(score))
    expected = {(round(note.start * STEPS), note.pitch) for note in score.notes}
    found = [(round(note.start * STEPS), note.pitch) for note in decoded.notes]
    assert sorted(found) == sorted(expected)  # each once
    assert (
        encode_events(decoded).tolist()
        == encode_events(decode_events(encode_events(decoded))).tolist()
    )


@given(rows)
def test_any_events_are_music_that_can_be_written(row):
    score = decode_events(row)
    by_pitch = {}
    for note in score.notes:
        assert note.end > note.start >= by_pitch.get(note.pitch, 0)
        assert 1 <= note.velocity <= 127
        by_pitch[note.pitch] = note.end
    read = parse_midi(midi_bytes(score), "a.mid")
    assert [note[2:] for note in read.notes] == [note[2:] for note in score.notes]
    np.testing.assert_allclose(
        [note[:2] for note in read.notes], [note[:2] for note in score.notes], atol=1e-6
    )


@given(rows, st.integers(-140, 140))
def test_transposition_keeps_intervals_and_stays_on_the_keyboard(row, semitones):
    moved = transpose_events(row, semitones)
    keys = row < 256
    assert moved.shape == row.shape
    assert len({*(moved - row)[keys].tolist()}) <= 1
    assert ((moved // 128) == (row // 128))[keys].all()
    assert (moved[~keys] == row[~keys]).all()


@given(rows, st.floats(0.5, 2))
def test_stretched_times_are_multiples_and_all_other_events_stay(row, factor):
    assert decode_events(stretch_events(row, 1.0)) == decode_events(row)
    stretched = stretch_events(row, factor)

    def others(tokens):
        return tokens[(tokens < 256) | (tokens >= 356)].tolist()

    def length(tokens):
        return sum(token - 255 for token in tokens.tolist() if 256 <= token < 356)

    assert others(stretched) == others(row)
    assert abs(length(stretched) - length(row) * factor) <= 0.5 + 1e-9


@settings(max_examples=200)
@given(scores, st.data())
def test_a_damaged_file_is_read_or_refused_with_its_name(drawn, data):
    file = bytearray(midi_bytes(music(drawn)))
    for _ in range(data.draw(st.integers(0, 3))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(file)))
    try:
        read = parse_midi(bytes(file[:end]), "a.mid")
    except ValueError as error:
        named = "'a.mid'" in str(error)
        assert named
        return
    assert all(note.end >= note.start for note in read.notes)
