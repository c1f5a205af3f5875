"""Music: MIDI files against `mido`, the pedal, percussion, windows, chunks, the vocabulary, and what is refused."""

import io
import shutil
import sys
import wave

import mido
import numpy as np
import pytest
import torch
from PIL import Image

from perceivers.data.base import DataConfig
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.base import MissingValueError
from perceivers.data.modalities.music.events import decode_events, encode_events
from perceivers.data.modalities.music.midi_file import is_midi, midi_bytes, parse_midi
from perceivers.data.modalities.music.modality import (
    MusicAugmentConfig,
    MusicChunking,
    MusicModality,
    MusicPreprocessConfig,
    describe_music,
    measure_music,
)
from perceivers.data.modalities.music.score import MusicScore, Note, Part, PedalChange, one_part
from perceivers.data.registry import get_modality
from perceivers.data.sources.chunking import chunk_samples
from perceivers.data.sources.open import open_data
from perceivers.inputs.music import MusicInputConfig, MusicTokenInputConfig
from perceivers.inputs.registry import build_input, default_input
from perceivers.recipes.common import SIZES
from perceivers.recipes.resolve import split_for_task
from perceivers.tasks.midi_tokens import MidiVocabulary
from perceivers.tasks.next_token import NextTokenTaskConfig

NOTES = [Note(0.0, 0.5, 60, 64), Note(0.5, 1.0, 62, 64), Note(1.0, 1.5, 64, 100)]


def written(*tracks, form=1, resolution=480):
    """Return the bytes of a MIDI file that mido writes; messages are given with their times in ticks."""
    file = mido.MidiFile(type=form, ticks_per_beat=resolution)
    for messages in tracks:
        file.tracks.append(mido.MidiTrack(messages))
    data = io.BytesIO()
    file.save(file=data)
    return data.getvalue()


def message(kind, time=0, **fields):
    made = mido.MetaMessage if kind in {"set_tempo", "key_signature"} else mido.Message
    return made(kind, time=time, **fields)


def on(pitch, time=0, velocity=64, channel=0):
    return message("note_on", time, note=pitch, velocity=velocity, channel=channel)


def off(pitch, time=0, channel=0):
    return message("note_off", time, note=pitch, channel=channel)


def item(value):
    return EncodedItem(
        "a.mid", **({"data": value} if isinstance(value, bytes) else {"value": value})
    )


class TestFiles:
    def test_tempo_changes_of_one_track_hold_for_all(self):
        tempos = [message("set_tempo", tempo=500_000), message("set_tempo", 960, tempo=1_000_000)]
        data = written(tempos, [on(60, 480), off(60, 960)], [on(64, 480, 30), on(64, 480, 0)])
        score = parse_midi(data, "a.mid")
        assert score.notes == [Note(0.5, 1.0, 64, 30), Note(0.5, 2.0, 60, 64)]
        assert [len(part.notes) for part in score.parts] == [1, 1]
        times = [one.time for one in mido.MidiFile(file=io.BytesIO(data))]
        assert score.seconds == pytest.approx(sum(times))

    def test_other_messages_are_passed_over(self):
        track = [
            message("key_signature", key="C"),
            message("sysex", 10, data=[1, 2, 3]),
            message("program_change", 10, program=7),
            message("pitchwheel", 10, pitch=77),
            message("control_change", 10, control=7, value=100),
            message("control_change", 10, control=64, value=127, channel=0),
            on(60, 10),
            message("aftertouch", 10, value=5),
            off(60, 420),
        ]
        (part,) = parse_midi(written(track, form=0), "a.mid").parts
        assert part.notes == (Note(0.0625, 0.5104166666666666, 60, 64),)
        assert part.pedals == (PedalChange(0.052083333333333336, 127),)

    def test_a_file_of_ours_is_read_by_mido(self):
        drums = Part((Note(0, 0.1, 36, 90),), is_percussion=True)
        pedal = Part(tuple(NOTES), (PedalChange(0.2, 127), PedalChange(0.9, 0)))
        data = midi_bytes(MusicScore((pedal, drums)))
        file = mido.MidiFile(file=io.BytesIO(data))
        assert file.type == 1
        assert file.length == pytest.approx(1.5)
        channels = [{one.channel for one in track if not one.is_meta} for track in file.tracks]
        assert channels == [{0}, {9}]
        assert parse_midi(data, "a.mid") == MusicScore((pedal, drums))

    def test_a_note_that_is_struck_again_or_never_released_ends(self):
        data = written([on(60), on(60, 480), off(60, 480), on(62), off(70, 480)])
        assert parse_midi(data, "a.mid").notes == [
            Note(0.0, 0.5, 60, 64),
            Note(0.5, 1.0, 60, 64),
            Note(1.0, 1.5, 62, 64),
        ]

    def test_frames_of_video_as_times(self):
        data = bytearray(written([on(60), off(60, 1000)], form=0))
        for frames, seconds in {25: 1.0, 29: 1000 / 40 / (30 / 1.001)}.items():
            data[12:14] = bytes([256 - frames, 40])
            assert parse_midi(bytes(data), "a.mid").seconds == pytest.approx(seconds)

    def test_a_file_in_a_riff_file(self):
        data = midi_bytes(one_part(NOTES))
        riff = b"RIFF" + (len(data) + 12).to_bytes(4, "little") + b"RMIDdata" + b"\0\0\0\0" + data
        assert is_midi(riff)
        assert parse_midi(riff, "a.rmi").notes == NOTES

    def test_an_unknown_chunk_is_passed_over(self):
        data = midi_bytes(one_part(NOTES))
        unknown = data[:14] + b"XFIH\0\0\0\2ab" + data[14:]
        assert parse_midi(unknown, "a.mid").notes == NOTES

    @pytest.mark.parametrize(
        ("data", "why"),
        [
            (b"", "is empty: expected a MIDI file, got 0 bytes"),
            (b"RIFF....WAVEfmt ", "begins with MThd, got the bytes 52 49 46 46"),
            (midi_bytes(one_part(NOTES))[:-9], "is cut short"),
            (midi_bytes(one_part(NOTES))[:9], "is cut short"),
            (written([on(60), off(60, 5)], form=2), r"independent patterns \(format 2\)"),
            (b"MThd\0\0\0\6\0\0\0\1\0\0MTrk\0\0\0\0", "0 ticks for a quarter note"),
            (b"MThd\0\0\0\6\0\0\0\1\0\x60MTrk\0\0\0\2\0\x40", "data without a message"),
            (b"MThd\0\0\0\6\0\0\0\1\0\x60MTrk\0\0\0\5\xff\xff\xff\xff\1", "more than four bytes"),
            (b"MThd\0\0\0\6\0\0\0\1\0\x60MTrk\0\0\0\4\0\xff\x51\x09", "is cut short"),
            (written([on(60), off(60, 2**28 - 1)], resolution=1), "hours: expected at most 24"),
        ],
    )
    def test_what_is_no_whole_midi_file_is_refused_with_its_name(self, data, why):
        with pytest.raises(ValueError, match=why) as raised:
            parse_midi(data, "a.mid")
        assert "'a.mid'" in str(raised.value)


class TestScore:
    def test_music_is_saved_and_loaded(self, tmp_path):
        score = one_part(NOTES)
        score.save(tmp_path / "a.mid")
        assert MusicScore.load(tmp_path / "a.mid") == score
        assert (score.seconds, one_part([]).seconds) == (1.5, 0)
        with pytest.raises(ValueError, match=r"\.mid, \.midi, \.png, \.wav, got 'a\.mp3'"):
            score.save("a.mp3")

    @pytest.mark.parametrize("seconds", [0, 3, 100, 20_000])
    def test_an_image_of_notes(self, tmp_path, seconds):
        notes = [Note(one * seconds / 8, (one + 1) * seconds / 8, 55 + one, 64) for one in range(8)]
        one_part(notes if seconds else []).save(tmp_path / "a.png")
        with Image.open(tmp_path / "a.png") as image:
            assert image.width < 20_000
            colors = {color for _, color in image.getcolors()}
            assert any(blue > red + 40 for red, _, blue in colors) == bool(seconds)


class TestEvents:
    def test_the_pedal_lengthens_notes_that_are_released_while_it_is_down(self):
        notes = (
            Note(0.0, 0.3, 60, 64),  # struck before the pedal goes down
            Note(0.4, 0.5, 60, 64),  # until it is struck again
            Note(0.6, 0.7, 60, 64),  # until the pedal goes up
            Note(0.6, 1.4, 62, 64),  # is held longer
            Note(1.2, 1.3, 64, 64),  # no pedal
            Note(2.1, 2.2, 65, 64),  # a pedal that never goes up
            Note(2.1, 3.0, 67, 64),
        )
        moves = ((0.2, 64), (0.25, 100), (1.0, 63), (1.1, 0), (2.0, 127))
        pedals = tuple(PedalChange(*move) for move in moves)
        found = decode_events(encode_events(MusicScore((Part(notes, pedals),)))).notes
        assert [(note.pitch, note.start, note.end) for note in found] == [
            (60, 0.0, 0.4),
            (60, 0.4, 0.6),
            (60, 0.6, 1.0),
            (62, 0.6, 1.4),
            (64, 1.2, 1.3),
            (65, 2.1, 3.0),
            (67, 2.1, 3.0),
        ]

    def test_notes_of_one_pitch_follow_each_other_or_are_one(self):
        parts = (Part((Note(0, 1, 60, 40), Note(2, 3, 60, 90))), Part((Note(0.5, 2.5, 60, 50),)))
        doubled = Part((Note(2, 2.7, 60, 30),))
        found = decode_events(encode_events(MusicScore((*parts, doubled)))).notes
        assert [note[:2] for note in found] == [(0, 0.5), (0.5, 2), (2, 3)]
        assert [note.velocity // 4 for note in found] == [10, 12, 22]

    def test_velocities_are_written_where_they_change(self):
        assert encode_events(one_part(NOTES)).tolist() == [
            *[372, 60, 305, 188, 62, 305, 190, 381, 64, 305, 192],
        ]
        assert encode_events(one_part(NOTES), repeat_velocity=True).tolist().count(372) == 2

    def test_percussion_is_read_where_it_is_stated(self):
        score = MusicScore((one_part(NOTES).parts[0], Part((Note(0, 0.1, 36, 90),), (), True)))
        assert 36 not in encode_events(score)
        assert 36 in encode_events(score, percussion=True)


class TestModality:
    def test_a_file_becomes_its_events(self):
        modality = MusicModality(MusicPreprocessConfig(max_length=8))
        decoded = modality.decode(item(midi_bytes(one_part(NOTES))))
        assert decoded.value.tolist() == encode_events(one_part(NOTES)).tolist()
        assert decoded.notes == ("cut to 8 events",)
        assert modality.transform(decoded.value, clip_position=0).tolist() == [
            *[372, 60, 305, 188, 62, 305, 190, 381],
        ]
        ends = modality.transform(decoded.value, clip_position=1)
        assert ends.dtype == np.int64
        assert ends.tolist() == decoded.value[-8:].tolist()

    def test_windows_and_augmentation_are_random_in_training(self):
        augment = MusicAugmentConfig(transpose=2, stretch=(0.5, 2.0))
        modality = MusicModality(MusicPreprocessConfig(max_length=8), augment)
        tokens = encode_events(one_part(NOTES))
        rng = np.random.default_rng(0)
        rows = [modality.transform(tokens, rng=rng) for _ in range(40)]
        assert all(len(row) <= 8 for row in rows)
        keys = np.concatenate([row[row < 128] for row in rows])
        assert {*keys.tolist()} == {*range(58, 67)}
        assert len({tuple(row[(row >= 256) & (row < 356)]) for row in rows}) > 10
        whole = MusicModality(MusicPreprocessConfig(max_length=64), MusicAugmentConfig(crop=False))
        assert whole.transform(tokens, rng=rng).tolist() == tokens.tolist()

    def test_pieces_are_padded_to_a_multiple_of_64(self):
        modality = MusicModality(MusicPreprocessConfig(max_length=100))
        batch, mask = modality.collate([np.arange(3), None])
        assert batch.shape == (2, 64)
        assert mask.sum(dim=1).tolist() == [3, 0]
        assert modality.collate([np.arange(70)])[0].shape == (1, 100)

    def test_events_and_scores_are_music_too(self):
        modality = MusicModality(MusicPreprocessConfig(max_length=8))
        assert modality.decode(item([60, 255])).value.tolist() == [60, 255]
        assert len(modality.decode(item(one_part(NOTES))).value) == 11
        assert describe_music(np.array([5, 5], np.int16)).features[5] == pytest.approx(2**0.5)

    def test_the_length_is_taken_from_the_data(self):
        config = MusicPreprocessConfig()
        cells = [item(midi_bytes(one_part(NOTES))), item(list(range(200)) * 9)]
        assert measure_music(cells[:1], config).max_length == 64
        assert config.measure(lambda _: cells).max_length == 1856
        assert config.measure(lambda _: [item([60] * 9999)]).max_length == 2048
        stated = MusicPreprocessConfig(max_length=70)
        assert stated.measure(lambda _: cells) is stated
        assert config.assumed() == {"max_length": 1024}
        assert stated.input_fields() == {"max_length": 70}

    @pytest.mark.parametrize(
        ("value", "why"),
        [
            (midi_bytes(one_part([])), "holds no notes"),
            (
                midi_bytes(MusicScore((Part((Note(0, 1, 36, 64),), (), True),))),
                "holds percussion only.*--preprocess.music.percussion true",
            ),
            ([[60, 61]], r"row of events \(integers from 0 to 387\), got list of shape \(1, 2\)"),
            ([0.5], "row of events"),
            ([60, 388], "numbers from 60 to 388: expected events from 0 to 387"),
        ],
    )
    def test_what_has_no_notes_is_refused(self, value, why):
        modality = MusicModality(MusicPreprocessConfig(max_length=8))
        with pytest.raises(ValueError, match=why):
            modality.decode(item(value))

    def test_an_empty_cell_is_missing(self):
        modality = MusicModality(MusicPreprocessConfig(max_length=8))
        with pytest.raises(MissingValueError, match="expected music, got no cell"):
            modality.decode(EncodedItem("row 1"))

    def test_the_faults_of_the_original_are_reproduced_on_demand(self):
        config = MusicPreprocessConfig(max_length=64, reproduce_original_faults=True)
        after = Part(
            (Note(0, 1, 60, 64), Note(3, 4, 62, 64)), (PedalChange(1, 127), PedalChange(2, 0))
        )
        tokens = MusicModality(config).decode(item(MusicScore((after,)))).value
        assert 62 not in tokens  # lost after the last release
        lost = Part((Note(3, 4, 62, 64), Note(5, 6, 62, 64)), after.pedals)
        with pytest.raises(ValueError, match="holds none that stay"):
            MusicModality(config).decode(item(MusicScore((lost,))))

    @pytest.mark.parametrize(
        ("make", "why"),
        [
            (lambda: MusicPreprocessConfig(max_length=7), "at least 8 events, got 7"),
            (lambda: MusicAugmentConfig(transpose=-1), "transpose of at least 0"),
            (lambda: MusicAugmentConfig(stretch=(1.1, 1.0)), "stretch="),
            (lambda: MusicModality(MusicPreprocessConfig()), "max_length in events, got None"),
        ],
    )
    def test_numbers_out_of_range_are_refused(self, make, why):
        with pytest.raises(ValueError, match=why):
            make()

    def test_it_is_registered(self):
        spec = get_modality("music")
        assert spec.preprocessing[0].default(SIZES["tiny"])[1].transpose == 3
        assert is_midi(spec.example_file)
        assert [one.count for one in spec.upload_sizes(item(spec.example_file))] == [
            len(spec.example_file)
        ]
        assert list(spec.upload_sizes(item([60]))) == []


class TestSound:
    def test_fluidsynth_is_needed(self, tmp_path, monkeypatch):
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(ValueError, match=r"FluidSynth, which is not installed: .* \.mid"):
            one_part(NOTES).save(tmp_path / "a.wav")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("loud", [True, False])
    def test_silence_is_refused(self, tmp_path, monkeypatch, loud):
        # Writes a WAV file, as FluidSynth does, of silence if it has no SoundFont.
        program = tmp_path / "fluidsynth"
        program.write_text(
            f"#!{sys.executable}\n"
            "import sys, wave\n"
            "assert open(sys.argv[-1], 'rb').read(4) == b'MThd'\n"
            "with wave.open(sys.argv[sys.argv.index('-F') + 1], 'wb') as sound:\n"
            "    sound.setparams((2, 2, 44100, 0, 'NONE', ''))\n"
            f"    sound.writeframes({b'a' if loud else bytes(1)} * 400)\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        out = tmp_path / "a.wav"
        if loud:
            one_part(NOTES).save(out)
            assert out.read_bytes()[:4] == b"RIFF"
        else:
            with pytest.raises(OSError, match=r"wrote no audio.*with a SoundFont"):
                one_part(NOTES).save(out)
            assert not out.exists()
            one_part([]).save(out)  # a piece without notes is silent
            assert out.exists()

    @pytest.mark.skipif(shutil.which("fluidsynth") is None, reason="FluidSynth is not installed")
    def test_fluidsynth_plays_every_note(self, tmp_path):
        one_part(NOTES).save(tmp_path / "a.wav")
        with wave.open(str(tmp_path / "a.wav")) as sound:
            assert sound.getnframes() / sound.getframerate() >= max(note.end for note in NOTES)


class TestChunks:
    def test_chunks_cover_all_events_and_bad_pieces_stay_rows(self, tmp_path):
        notes = [Note(one, one + 0.5, 60, 64) for one in range(20)]
        one_part(notes).save(tmp_path / "a.mid")
        (tmp_path / "b.mid").write_bytes(b"nothing")
        one_part(NOTES).save(tmp_path / "c.mid")
        source = open_data(str(tmp_path), DataConfig(target="nothing"))
        assert {part.kind for part in source.inputs.values()} == {"music"}
        chunking = MusicChunking(MusicPreprocessConfig(max_length=16))
        pieces = chunk_samples(source, "music", 32, chunking)
        split = pieces.splits["train"]
        rows = [split.row(index)["music"] for index in range(len(split))]
        halves = [row for row in rows if "a.mid" in row.name]
        whole = np.concatenate([chunking.cut(row, 0, 99).value for row in halves])
        assert whole.tolist() == encode_events(one_part(notes)).tolist()
        (bad,) = [row for row in rows if "b.mid" in row.name]
        assert bad.path == tmp_path / "b.mid"
        (short,) = [row for row in rows if "c.mid" in row.name]
        assert short.name == str(tmp_path / "c.mid")
        assert len(short.value) == 11
        assert "music are cut into pieces of at most 32 events" in " ".join(pieces.notes)

    def test_a_task_of_chunks_needs_a_modality_that_has_some(self):
        source = open_data({"array": [np.zeros((2, 2))] * 3}, DataConfig(target="nothing"))
        task = NextTokenTaskConfig(modality="array", vocabulary=MidiVocabulary())
        with pytest.raises(ValueError, match="preprocessed as 'array' cannot be cut into chunks"):
            split_for_task(source, task, {}, None)


def test_the_vocabulary_names_events():
    vocabulary = MidiVocabulary()
    assert (vocabulary.size, vocabulary.start, len(vocabulary.data_tokens)) == (389, 388, 388)
    names = [vocabulary.token_name(token) for token in (60, 189, 256, 355, 372, 388)]
    assert names == ["C4 on", "C#4 off", "10 ms", "1000 ms", "velocity 64", "start"]
    assert vocabulary.text([388, 60, 256]) == "C4 on, 10 ms"
    content = torch.tensor([[60, 61], [62, 0]])
    assert vocabulary.tokens(content, None)[1].all()
    mask = torch.tensor([[True, True], [True, False]])
    assert vocabulary.tokens(content, mask)[1].tolist() == mask.tolist()
    assert (
        NextTokenTaskConfig(vocabulary=vocabulary).next_commands[1] == "generate RUN --out song.mid"
    )


def test_events_as_elements():
    tokens = build_input(MusicTokenInputConfig(max_length=12))
    assert tokens.example(2).shape == (2, 12)
    assert int(tokens(tokens.example(1)).content.max()) == 388
    config = default_input("music", 32)
    assert isinstance(config, MusicInputConfig)
    adapter = build_input(MusicInputConfig(max_length=12, channels=8))
    assert adapter(adapter.example(2)).content.shape == (2, 12, 8)
