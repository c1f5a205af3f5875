import io
from types import SimpleNamespace

import numpy as np
import pytest

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.audio import decode_av as soundtrack
from perceivers.data.modalities.audio.decode import cut_audio, decode_audio, read_audio_header
from perceivers.data.modalities.audio.decode_av import AudioHeader, Clip, decode_track
from perceivers.data.modalities.base import MissingValueError

av = pytest.importorskip("av")

RATE = 16_000


def noise(seconds, channels=1):
    shape = (int(seconds * RATE), channels)
    return np.random.default_rng(0).uniform(-0.5, 0.5, shape).astype(np.float32)


def film(form, codec=None, samples=None, *, pictures=0, offset=0.0, format_of_samples=None):
    """Return a container with sound from `offset` seconds on, and 25 pictures a second."""
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        streams = []
        if pictures:
            video = container.add_stream("mpeg4", rate=25)
            video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
            streams.append(video)
        if samples is not None:
            layout = {1: "mono", 2: "stereo"}[samples.shape[1]]
            sound = container.add_stream(codec, rate=RATE, layout=layout)
            if format_of_samples:
                sound.codec_context.format = format_of_samples
            streams.append(sound)
        for number in range(pictures):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), number % 256, np.uint8))
            frame.pts = number
            for packet in video.encode(frame):
                container.mux(packet)
        if samples is not None:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), "fltp", layout)
            frame.sample_rate, frame.pts = RATE, round(offset * RATE)
            resampler = av.AudioResampler(
                format=sound.codec_context.format.name,
                layout=layout,
                rate=RATE,
                frame_size=sound.codec_context.frame_size or 1024,
            )
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                for packet in sound.encode(part):
                    container.mux(packet)
        for stream in streams:
            for packet in stream.encode(None):
                container.mux(packet)
    return EncodedItem(f"a.{form}", data=file.getvalue())


@pytest.mark.parametrize(
    ("form", "codec"),
    [("ipod", "aac"), ("adts", "aac"), ("matroska", "aac"), ("mp4", "flac"), ("avi", "mp2")],
)
def test_a_clip_is_the_same_whether_the_whole_or_only_it_is_decoded(form, codec):
    cell = film(form, codec, noise(6.0))
    for rate in (None, 8_000):
        whole = decode_audio(cell, sample_rate=rate).value
        assert abs(whole.duration - 6.0) < 0.15  # encoders fill up their last frame
        for clip_position in (0.0, 0.37, 1.0):
            part = decode_audio(
                cell, sample_rate=rate, seconds=0.5, clip_position=clip_position
            ).value
            expected = cut_audio(whole, clip_position=clip_position, seconds=0.5)
            assert expected.shape == ((rate or RATE) // 2, 1)
            clip = cut_audio(part, clip_position=clip_position, seconds=0.5)
            np.testing.assert_allclose(clip, expected, atol=1e-6)


def test_only_the_clip_is_decoded_where_the_container_can_be_sought():
    part = decode_audio(film("ipod", "aac", noise(8.0)), seconds=0.5, clip_position=1.0).value
    assert part.samples.shape[0] < 1.0 * RATE
    assert part.start > 7.0


@pytest.mark.parametrize(
    ("codec", "kind", "step"),
    [
        ("pcm_s16le", None, 2.0**-15),
        ("pcm_u8", None, 2.0**-7),
        ("pcm_s32le", None, 2.0**-24),
        ("pcm_f32le", None, 0.0),
        ("pcm_f64le", None, 0.0),
        ("alac", "s16p", 2.0**-15),
    ],
)
def test_every_type_of_samples_is_scaled_to_one(codec, kind, step):
    samples = noise(0.5, channels=2)
    decoded = decode_track(film("mov", codec, samples, format_of_samples=kind)).samples
    assert (decoded.shape, decoded.dtype) == (samples.shape, np.float32)
    np.testing.assert_allclose(decoded, samples, atol=step)


@pytest.mark.parametrize("form", ["mp4", "matroska"])
def test_a_films_clip_is_cut_by_the_length_of_its_pictures(form):
    samples = np.linspace(-0.5, 0.5, 3 * RATE, dtype=np.float32)[:, None]
    cell = film(form, "flac", samples, pictures=50)
    header = read_audio_header(cell)
    assert header == AudioHeader(RATE, 1, header.seconds)
    assert header.seconds == pytest.approx(2.0, abs=0.002)
    whole = decode_audio(cell).value
    assert (whole.samples.shape, whole.duration) == ((3 * RATE, 1), header.seconds)
    clip = cut_audio(whole, clip_position=1.0, seconds=0.5)
    np.testing.assert_allclose(clip[:, 0], samples[int(1.5 * RATE) : 2 * RATE, 0], atol=1e-3)


def test_sound_that_begins_later_than_the_pictures_stays_there():
    cell = film("mov", "pcm_s16le", noise(1.0), pictures=50, offset=0.5)
    whole = decode_audio(cell).value
    assert whole.start == pytest.approx(0.5)
    clip = cut_audio(whole, clip_position=0.0, seconds=2.0)[:, 0]
    assert not clip[: RATE // 2].any()
    assert not clip[-RATE // 2 :].any()
    assert clip[RATE // 2 : RATE].all()
    part = decode_audio(cell, seconds=0.25, clip_position=0.0).value
    assert not cut_audio(part, clip_position=0.0, seconds=0.25).any()


def test_a_clip_beyond_the_end_of_the_sound_is_silent():
    cell = film("mov", "pcm_s16le", noise(1.0), pictures=250)
    decoded = decode_audio(cell, seconds=0.5, clip_position=1.0)
    assert decoded.value.samples.shape == (0, 1)
    assert cut_audio(decoded.value, clip_position=1.0, seconds=0.5).tolist() == [[0.0]] * (
        RATE // 2
    )


def test_a_length_that_no_header_tells_is_that_of_the_film(monkeypatch):
    cell = film("mpeg", "mp2", noise(2.0), pictures=50)
    monkeypatch.setattr(soundtrack, "read_video_header", lambda cell: SimpleNamespace(seconds=1.75))
    assert read_audio_header(cell).seconds == 1.75


def test_a_stream_without_a_length_of_its_own_has_the_containers():
    seconds = read_audio_header(film("matroska", "aac", noise(2.0))).seconds
    assert seconds == pytest.approx(2.0, abs=0.1)


def test_a_film_without_sound_track_is_missing():
    cell = film("mp4", pictures=5)
    for read in (decode_audio, read_audio_header):
        with pytest.raises(MissingValueError, match=r"'a.mp4' has no audio track\."):
            read(cell)


def test_a_container_that_was_cut_off_is_an_error():
    cell = film("ipod", "aac", noise(2.0))
    with pytest.raises(ValueError, match="it is in no known format, damaged or cut off"):
        decode_audio(EncodedItem("a.m4a", data=cell.data[:-500]))


def test_a_sound_track_without_frames_holds_no_samples(monkeypatch):
    reader = soundtrack._Reader("a.mp4", None)
    with pytest.raises(ValueError, match="as audio: it holds no samples"):
        reader.audio(0.0, None)


def test_a_rate_that_changes_on_the_way_is_an_error():
    reader = soundtrack._Reader("a.mp4", None)
    frames = [
        av.AudioFrame.from_ndarray(np.zeros((1, 4), np.float32), "fltp", "mono") for _ in "ab"
    ]
    frames[0].sample_rate, frames[1].sample_rate = 10, 20
    assert reader.take(frames[0])
    with pytest.raises(
        ValueError, match="it changes from 10 Hz and 1 channel to 20 Hz and 1 channel"
    ):
        reader.take(frames[1])


def test_what_would_fill_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr(soundtrack, "MOST_SAMPLES", RATE)
    with pytest.raises(ValueError, match="it claims 32,000 samples; at most 16,000 are decoded"):
        decode_audio(film("ipod", "aac", noise(2.0)))
    # A header that tells too little does not help.
    monkeypatch.setattr(soundtrack, "_claimed_seconds", lambda container, media: None)
    with pytest.raises(ValueError, match="at most 16,000 are decoded"):
        decode_audio(film("adts", "aac", noise(2.0)))


def test_lists_of_other_files_are_not_followed(tmp_path):
    (tmp_path / "secret.wav").write_bytes(bytes(100))
    text = f"ffconcat version 1.0\nfile {tmp_path}/secret.wav\n".encode()
    with pytest.raises(ValueError, match="it is in no known format"):
        decode_track(EncodedItem("list", data=text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="No such file or directory"):
        decode_track(EncodedItem("gone.mp4", path=tmp_path / "gone.mp4"))


def test_a_clip_begins_where_a_resampled_whole_has_a_sample():
    first, last = Clip(1.0, 1.0, 16_000).indices(44_100, 10.0)
    assert first % 441 == 0
    assert first < 9 * 44_100 - 4_410
    assert last > 441_000
    assert Clip(0.0, 1.0).indices(10, 5.0)[0] == 0
