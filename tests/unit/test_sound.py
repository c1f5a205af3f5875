import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.audio import decode as module
from perceivers.data.modalities.audio.decode import (
    Audio,
    AudioHeader,
    cut_audio,
    decode_audio,
    read_audio_header,
    resample,
)
from perceivers.data.modalities.base import MissingValueError


def encoded(samples, rate=16_000, form="WAV", subtype=None):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()


def noise(seconds=2.0, rate=16_000, channels=1):
    shape = (int(seconds * rate), channels)
    return np.random.default_rng(0).uniform(-0.5, 0.5, shape).astype(np.float32)


def media(samples, **kwargs):
    return EncodedItem("a.wav", data=encoded(samples, **kwargs))


def decode(cell, **kwargs):
    return decode_audio(cell, **kwargs).value


def without_av(monkeypatch):
    real = module.require

    def require(name, extra):
        if name == "av":
            raise ImportError("install perceivers[video]")
        return real(name, extra)

    monkeypatch.setattr(module, "require", require)


def test_a_sound_is_float32_samples_by_channels(tmp_path):
    samples = noise(channels=2)
    path = tmp_path / "a.wav"
    path.write_bytes(encoded(samples, subtype="FLOAT"))
    sound = decode(EncodedItem("a.wav", path=path))
    assert sound.samples.dtype == np.float32
    np.testing.assert_array_equal(sound.samples, samples)
    assert (sound.sample_rate, sound.start, sound.duration) == (16_000, 0.0, 2.0)


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_a_clip_is_the_same_whether_the_whole_or_only_it_is_decoded(form):
    cell = media(noise(3.0, rate=44_100, channels=2), rate=44_100, form=form)
    for rate in (None, 16_000):
        whole = decode(cell, sample_rate=rate)
        for clip_position in (0.0, 0.37, 1.0):
            part = decode(cell, sample_rate=rate, seconds=0.5, clip_position=clip_position)
            assert part.samples.shape[0] < whole.samples.shape[0] / 2
            expected = cut_audio(whole, clip_position=clip_position, seconds=0.5)
            assert expected.shape == ((rate or 44_100) // 2, 2)
            clip = cut_audio(part, clip_position=clip_position, seconds=0.5)
            np.testing.assert_allclose(clip, expected, atol=1e-6)


def test_opus_in_ogg_is_read():
    assert (
        decode(media(noise(rate=48_000), rate=48_000, form="OGG", subtype="OPUS")).duration == 2.0
    )


def test_several_channels_are_mixed_to_mono_by_their_mean_and_said():
    samples = np.tile(np.arange(7, dtype=np.float32) / 10, (100, 1))
    decoded = decode_audio(media(samples, subtype="FLOAT"), num_channels=1)
    np.testing.assert_allclose(decoded.value.samples, np.full((100, 1), 0.3), atol=1e-6)
    assert decoded.notes == ("mixed to mono",)
    assert decode(media(samples)).samples.shape == (100, 7)


def test_channels_are_dealt_out_or_repeated_to_a_wanted_number():
    samples = np.tile(np.array([0.1, 0.2, 0.3], dtype=np.float32), (4, 1))
    mixed = decode_audio(media(samples, subtype="FLOAT"), num_channels=2)
    np.testing.assert_allclose(mixed.value.samples[0], [0.2, 0.2], atol=1e-6)
    assert mixed.notes == ("mixed to 2 channels",)
    more = decode_audio(media(samples[:, :2], subtype="FLOAT"), num_channels=3)
    np.testing.assert_allclose(more.value.samples[0], [0.1, 0.2, 0.1], atol=1e-6)
    assert more.notes == ("channels repeated",)


def test_a_tone_keeps_its_frequency_when_it_is_resampled():
    time = np.arange(48_000) / 48_000
    sound = decode(media(np.sin(2 * np.pi * 440 * time), rate=48_000), sample_rate=16_000)
    assert sound.samples.shape == (16_000, 1)
    expected = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(sound.samples[500:-500, 0], expected[500:-500], atol=1e-3)


@pytest.mark.parametrize("rate", [8_000, 48_000])
def test_one_sample_works(rate):
    sound = decode(media(np.full(1, 0.25), rate=rate), sample_rate=16_000)
    assert sound.samples.shape == (max(1, 16_000 // rate), 1)
    assert cut_audio(sound, clip_position=0.5, seconds=1.0).shape == sound.samples.shape


def test_silence_and_clipping_are_noted():
    assert decode_audio(media(np.zeros(100))).notes == ("silent",)
    loud = noise()
    loud[:100] = 1.0
    assert decode_audio(media(loud)).notes == ("clipped",)
    loud[2:] = 0.5
    assert decode_audio(media(loud)).notes == ()  # 2 of 32,000
    assert decode_audio(EncodedItem("a", value=(np.full(9, 1.5), 8_000))).notes == ("clipped",)


def test_samples_that_are_not_finite_are_counted():
    samples = noise()
    samples[3:5] = np.nan
    samples[7] = np.inf
    message = (
        r"Cannot read 'a.wav' as audio: 3 of 32,000 samples are not finite \(NaN or infinite\)"
    )
    with pytest.raises(ValueError, match=message):
        decode_audio(media(samples, subtype="FLOAT"))


def test_no_samples_are_an_error():
    with pytest.raises(ValueError, match="it holds no samples"):
        decode_audio(media(np.zeros(0)))
    with pytest.raises(ValueError, match="it holds no samples"):
        decode_audio(EncodedItem("a", value=(np.zeros(0), 8_000)))


def test_an_empty_cell_is_missing():
    for read in (decode_audio, read_audio_header):
        with pytest.raises(MissingValueError, match="a, row 3 is empty: expected audio"):
            read(EncodedItem("a, row 3"))
    with pytest.raises(MissingValueError, match="a is empty: expected audio"):
        decode_audio(EncodedItem("a", value={"array": None, "sampling_rate": 8_000}))


def test_decoded_samples_come_as_a_mapping_or_a_pair():
    sound = decode(EncodedItem("a", value={"array": [0.5, -0.5], "sampling_rate": 2.0}))
    np.testing.assert_array_equal(sound.samples, [[0.5], [-0.5]])
    assert (sound.sample_rate, sound.duration) == (2, 1.0)
    cell = EncodedItem("a", value=(np.zeros((2, 50), dtype=np.float32), 10))  # channels first
    assert read_audio_header(cell) == AudioHeader(10, 2, 5.0)


def test_whole_numbers_are_scaled_by_their_type():
    for dtype, value in (("int16", -(2**14)), ("uint8", 64), ("int32", -(2**30))):
        sound = decode(EncodedItem("a", value=(np.array([value], dtype), 10)))
        assert sound.samples.tolist() == [[-0.5]]


def test_samples_without_a_rate_or_of_another_kind_are_an_error():
    with pytest.raises(
        ValueError, match=r"a: expected samples with their rate, .* got the rate None"
    ):
        decode_audio(EncodedItem("a", value=[0.5, 0.5, 0.1]))
    with pytest.raises(ValueError, match="got the rate 0"):
        decode_audio(EncodedItem("a", value=(np.zeros(3), 0)))
    with pytest.raises(ValueError, match=r"a: expected samples as numbers, n or n x channels, got"):
        decode_audio(EncodedItem("a", value=(np.zeros((1, 2, 3)), 10)))


def test_a_header_is_read_without_decoding(tmp_path):
    cell = media(noise(channels=2), form="FLAC")
    assert read_audio_header(cell) == AudioHeader(16_000, 2, 2.0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"hello world, this is text", "it holds text that begins with 'hello world, thi'"),
        (b"#EXTM3U\n/etc/passwd", "it holds text"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "it is an image"),
        (b"\x00\x01\x02\xff" * 100, "it is in no known format, damaged or cut off"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt \x10\x00", "it is in no known format, damaged or cut off"),
    ],
)
def test_what_is_no_sound_is_said(data, reason):
    with pytest.raises(ValueError, match=r"Cannot read 'x.bin' as audio: ") as error:
        decode_audio(EncodedItem("x.bin", data=data))
    assert reason in str(error.value)
    assert str(error.value).endswith("Replace it or take it out of the data.")


def test_a_picture_that_is_already_decoded_is_no_sound():
    with pytest.raises(ValueError, match="it is an image"):
        decode_audio(EncodedItem("a", array=np.zeros((2, 2), dtype=np.uint8)))


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "gone.wav"
    with pytest.raises(
        ValueError, match=r"gone.wav' cannot be read: No such file or directory\. Replace"
    ):
        decode_audio(EncodedItem(str(path), path=path))


def test_a_raw_file_has_no_header(tmp_path):
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(range(200, 256)) * 4)
    with pytest.raises(ValueError, match="it is in no known format"):
        decode_audio(EncodedItem("a.raw", path=path))


def test_a_file_that_was_cut_off_is_an_error_or_noted():
    flac = encoded(noise(channels=2), form="FLAC")
    with pytest.raises(ValueError, match=r"damaged or cut off \(.*lost sync\)"):
        decode_audio(EncodedItem("a.flac", data=flac[: len(flac) // 2]))
    mp3 = encoded(noise(4.0), form="MP3")
    cut = decode_audio(EncodedItem("a.mp3", data=mp3[: len(mp3) // 2]))
    assert cut.notes == ("shorter than its header states",)
    assert cut.value.duration == cut.value.samples.shape[0] / 16_000 < 3.0


def test_a_header_without_samples_is_an_error(monkeypatch):
    class Short:
        samplerate, channels, frames = 10, 1, 50

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def read(self, frames, **_):
            return np.zeros((0, 1), dtype=np.float32)

    monkeypatch.setattr(module, "_audio_file", lambda cell: Short())
    with pytest.raises(ValueError, match="its header is followed by no samples"):
        decode_audio(EncodedItem("a.wav", data=b"x"))


def claimed(samples_of_flac, number):
    """Return a FLAC whose header claims so many samples (36 bits from the 21st byte on)."""
    data = bytearray(samples_of_flac)
    data[21] = (data[21] & 0xF0) | (number >> 32)
    data[22:26] = (number & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(data)


def test_an_absurd_length_is_refused_before_decoding():
    cell = EncodedItem("big.flac", data=claimed(encoded(noise(), form="FLAC"), 2**36 - 1))
    message = (
        r"Cannot read 'big.flac': it claims 68,719,476,735 samples; at most 691,200,000 are decoded"
    )
    with pytest.raises(ValueError, match=message):
        decode_audio(cell)


def test_a_stream_without_a_length_is_read_by_ffmpeg():
    pytest.importorskip("av")
    samples = np.round(noise() * 2**15) / 2**15
    cell = EncodedItem("stream.flac", data=claimed(encoded(samples, form="FLAC"), 0))
    np.testing.assert_array_equal(decode(cell).samples, samples)


def test_without_pyav_its_files_ask_for_it_and_garbage_does_not(monkeypatch):
    without_av(monkeypatch)
    with pytest.raises(ImportError, match="install perceivers"):
        decode_audio(EncodedItem("a.m4a", data=bytes(20)))
    with pytest.raises(ImportError, match="install perceivers"):
        decode_audio(EncodedItem("row 3", data=b"\x1a\x45\xdf\xa3" + bytes(20)))
    with pytest.raises(
        ValueError, match="libsndfile does not know it; it begins with the bytes 00 01 02 ff"
    ):
        decode_audio(EncodedItem("row 3", data=b"\x00\x01\x02\xff" * 9))


def test_a_clip_starts_at_its_moment_of_what_is_left():
    sound = Audio(np.arange(100, dtype=np.float32)[:, None], 10, 0.0, 10.0)
    assert cut_audio(sound, clip_position=0.0, seconds=2.0)[:, 0].tolist() == list(range(20))
    assert cut_audio(sound, clip_position=0.5, seconds=2.0)[0, 0] == 40
    assert cut_audio(sound, clip_position=1.0, seconds=2.0)[-1, 0] == 99
    assert cut_audio(sound, clip_position=0.7, seconds=20.0).shape == (100, 1)


def test_where_a_films_sound_does_not_reach_there_is_silence():
    late = Audio(np.ones((10, 1), dtype=np.float32), 10, 1.0, 3.0)
    assert (
        cut_audio(late, clip_position=0.0, seconds=3.0)[:, 0].tolist()
        == [0.0] * 10 + [1.0] * 10 + [0.0] * 10
    )
    assert cut_audio(late, clip_position=1.0, seconds=0.5)[:, 0].tolist() == [0.0] * 5
    early = Audio(np.arange(40, dtype=np.float32)[:, None], 10, -1.0, 3.0)
    assert cut_audio(early, clip_position=0.0, seconds=1.0)[0, 0] == 10


def test_resampling_nothing_changes_nothing():
    assert resample(np.zeros((0, 2), dtype=np.float32), 8_000, 16_000).shape == (0, 2)
    samples = noise()
    assert resample(samples, 8_000, 8_000) is samples
    for length in (1, 2, 3, 1000, 4801):
        assert resample(samples[:length], 44_100, 16_000).shape[0] == max(
            1, round(length * 16_000 / 44_100)
        )


def test_a_path_that_is_a_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        decode_audio(EncodedItem("folder", path=Path(tmp_path)))
