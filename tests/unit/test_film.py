"""Films: which frame is on screen when, windows that equal the whole, and what is refused."""

import io
from fractions import Fraction

import numpy as np
import pytest

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.base import MissingValueError, TooLongError
from perceivers.data.modalities.video import decode as film_file
from perceivers.data.modalities.video import decode as films
from perceivers.data.modalities.video.decode import (
    decode_video,
    read_video_header,
)

av = pytest.importorskip("av")

H, W = 32, 48
CONTAINERS = {
    "mp4": ("mp4", "libx264", {"bf": "3", "g": "12"}),
    "open": ("mp4", "libx264", {"x264-params": "open-gop=1:keyint=12:bframes=3"}),
    "intra": ("mpegts", "libx264", {"x264-params": "intra-refresh=1:keyint=15"}),
    "mkv": ("matroska", "libx264", {"bf": "3", "g": "12"}),
    "avi": ("avi", "mpeg4", {"bf": "2", "g": "12"}),
    "mpg": ("mpeg", "mpeg2video", {"bf": "2", "g": "12"}),
    "flv": ("flv", "flv1", {"g": "12"}),
    "gif": ("gif", "gif", {}),
    "h264": ("h264", "libx264", {"bf": "3", "g": "12"}),
}


def picture(number, height=H, width=W):
    """A picture that says its number: brighter and brighter, with a bar that moves."""
    frame = np.full((height, width, 3), (20 + number * 4) % 236, np.uint8)
    frame[:, number % width] = 255
    return frame


def sine(seconds, rate=16_000):
    wave = np.sin(np.arange(int(seconds * rate)) * 0.05) * 8000
    return wave.astype(np.int16)[None]


def written(
    container="mp4",
    codec="libx264",
    options=None,
    *,
    count=50,
    rate=25,
    times=None,
    rotation=None,
    sound=0.0,
    aspect=None,
    make=picture,
    container_options=None,
    file=None,
):
    """A film as bytes. `times` are those of its frames, in hundredths of a second."""
    file = io.BytesIO() if file is None else file
    place = file if isinstance(file, io.BytesIO) else str(file)
    with av.open(place, "w", format=container, options=container_options or {}) as output:
        stream = output.add_stream(codec, rate=rate, options=options or {})
        frames = [make(number) for number in range(count)]
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        base = Fraction(1, rate) if times is None else Fraction(1, 100)
        stream.codec_context.time_base = base
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation is not None:
            stream.set_display_rotation(rotation)
        track = output.add_stream("aac", rate=16_000, layout="mono") if sound else None
        for number, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts, frame.time_base = (number if times is None else times[number]), base
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
        if track is not None:
            frame = av.AudioFrame.from_ndarray(sine(sound), format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16_000, 0
            output.mux(track.encode(frame))
            output.mux(track.encode())
    return file.getvalue() if isinstance(file, io.BytesIO) else file.read_bytes()


def media(data):
    return EncodedItem("a.film", data=data)


def all_frames(data):
    """Time and RGB of every frame, by PyAV alone."""
    found = []
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        origin = None if container.format.name == "avi" else stream.start_time
        for number, frame in enumerate(container.decode(stream)):
            stamp = frame.dts if frame.pts is None else frame.pts
            if stamp is None:
                time = number / float(stream.average_rate)
            else:
                origin = stamp if origin is None else origin
                time = float((stamp - origin) * stream.time_base)
            found.append((time, frame.to_ndarray(format="rgb24")))
    return found


def on_screen(found, time):
    return [rgb for begin, rgb in found if begin <= time + 1e-3][-1]


def numbers(film):
    """The numbers of the pictures in a film, by their brightness."""
    return [round((float(np.median(frame)) - 20) / 4) for frame in film.frames]


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("rate", [25.0, 10.0])
def test_frames_are_those_of_a_full_decode(name, rate):
    data = written(*CONTAINERS[name])
    found = all_frames(data)
    film, notes = decode_video(media(data), frame_rate=rate)
    assert len(found) == 50
    assert film.duration == pytest.approx(2.0)
    assert (film.start, film.frame_rate, notes) == (0.0, rate, ())
    assert len(film.frames) == 2 * rate
    for place, frame in enumerate(film.frames):
        np.testing.assert_array_equal(frame, on_screen(found, place / rate))


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_window_equals_the_same_part_of_a_full_decode(name):
    data = written(*CONTAINERS[name], count=75)
    whole, _ = decode_video(media(data), frame_rate=25.0)
    for clip_position in (0.0, 0.21, 0.5, 0.77, 1.0):
        film, _ = decode_video(media(data), frame_rate=25.0, clip=(8, clip_position))
        first = round(film.start * 25)
        assert film.start == pytest.approx(
            clip_position * (film.duration - 8 / 25), abs=0.5 / 25 + 1e-9
        )
        assert film.duration == whole.duration
        np.testing.assert_array_equal(film.frames, whole.frames[first : first + 8])


def test_a_window_is_sought_and_not_decoded_from_the_beginning(monkeypatch):
    data = written("mp4", "libx264", {"g": "10"}, count=100)
    seen = []
    timed = films._timed

    def watched(frames, stream, origin=None):
        for time, frame in timed(frames, stream, origin):
            seen.append(time)
            yield time, frame

    monkeypatch.setattr(films, "_timed", watched)
    decode_video(media(data), frame_rate=25.0, clip=(5, 1.0))
    assert min(seen) >= 3.5
    assert len(seen) <= 15


def test_where_seeking_lands_too_late_the_film_is_decoded_from_further_back(monkeypatch):
    data = written(count=100, options={"g": "10"})
    whole, _ = decode_video(media(data), frame_rate=25.0)
    monkeypatch.setattr(films, "STEPS_BACK", (-0.5, -0.3, 0.0))  # the first two land behind it
    film, _ = decode_video(media(data), frame_rate=25.0, clip=(5, 0.5))
    np.testing.assert_array_equal(film.frames, whole.frames[48:53])
    monkeypatch.setattr(films, "STEPS_BACK", (-0.5, 9.0))  # none fits: from the beginning
    film, _ = decode_video(media(data), frame_rate=25.0, clip=(5, 0.5))
    np.testing.assert_array_equal(film.frames, whole.frames[48:53])


def test_a_container_that_refuses_to_seek_is_decoded_from_the_beginning(monkeypatch):
    data = written()
    whole, _ = decode_video(media(data), frame_rate=25.0)

    def refuse(first, packets):
        raise av.error.InvalidDataError(1, "no")
        yield

    monkeypatch.setattr(films, "_decoded", refuse)
    film, _ = decode_video(media(data), frame_rate=25.0, clip=(5, 1.0))
    np.testing.assert_array_equal(film.frames, whole.frames[45:])


def test_a_rate_that_varies_is_told_by_the_time_stamps():
    data = written(count=5, times=[0, 4, 50, 54, 100], options={"bf": "0"})
    film, _ = decode_video(media(data), frame_rate=10.0)
    assert numbers(film) == [0, 1, 1, 1, 1, 2, 3, 3, 3, 3, 4][: len(film.frames)]
    assert len(film.frames) >= 10


def test_a_higher_rate_repeats_frames():
    film, _ = decode_video(media(written(count=4)), frame_rate=50.0)
    assert numbers(film) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_film_of_one_frame_has_one():
    data = written(count=1)
    film, _ = decode_video(media(data), frame_rate=25.0)
    assert film.frames.shape == (1, H, W, 3)
    assert read_video_header(media(data)).seconds == pytest.approx(0.04)
    film, _ = decode_video(media(data), frame_rate=25.0, clip=(8, 0.5))
    assert len(film.frames) == 1


def corners(number):
    frame = np.zeros((H, W, 3), np.uint8)
    frame[: H // 2, : W // 2] = 255  # above, at the left
    return frame


@pytest.mark.parametrize(
    ("rotation", "bright", "shape"),
    [
        (-90, (0, 1), (W, H)),  # a telephone held upright: turned to the right
        (90, (1, 0), (W, H)),
        (180, (1, 1), (H, W)),
    ],
)
def test_rotated_films_are_turned_upright(rotation, bright, shape):
    data = written(count=3, rotation=rotation, make=corners)
    film, notes = decode_video(media(data), frame_rate=25.0)
    assert notes == ("turned as its rotation states",)
    assert film.frames.shape == (3, *shape, 3)
    header = read_video_header(media(data))
    assert (header.height, header.width) == shape
    quarters = film.frames[0].reshape(2, shape[0] // 2, 2, shape[1] // 2, 3).mean(axis=(1, 3, 4))
    assert np.unravel_index(quarters.argmax(), (2, 2)) == bright
    scaled, _ = decode_video(media(data), frame_rate=25.0, fit=lambda h, w: (h // 2, w // 2))
    assert scaled.frames.shape == (3, shape[0] // 2, shape[1] // 2, 3)


def test_pixels_that_are_not_square_become_so():
    data = written(count=2, aspect=Fraction(2, 1))
    assert decode_video(media(data), frame_rate=25.0)[0].frames.shape == (2, H, 2 * W, 3)
    header = read_video_header(media(data))
    assert (header.height, header.width) == (H, 2 * W)


def test_frames_are_scaled_while_they_are_converted():
    data = written(count=2)
    film, _ = decode_video(media(data), frame_rate=25.0, fit=lambda h, w: (h // 4, w // 4))
    with av.open(io.BytesIO(data)) as container:
        frame = next(container.decode(video=0))
    wanted = frame.to_ndarray(width=W // 4, height=H // 4, format="rgb24")
    np.testing.assert_array_equal(film.frames[0], wanted)


def test_sound_that_is_longer_does_not_make_a_film_longer():
    data = written(count=25, sound=3.0)
    header = read_video_header(media(data))
    assert header.has_audio
    assert header.seconds == pytest.approx(1.0)
    film, notes = decode_video(media(data), frame_rate=25.0)
    assert len(film.frames) == 25
    assert notes == ()


def test_a_header_tells_size_rate_and_length():
    header = read_video_header(media(written(count=20)))
    assert (header.height, header.width, header.frame_rate) == (H, W, 25.0)
    assert header.seconds == pytest.approx(0.8)
    assert not header.has_audio


def test_a_container_without_lengths_is_read_through():
    live = written("matroska", container_options={"live": "1"})
    assert read_video_header(media(live)).seconds == pytest.approx(2.0, abs=0.01)


def test_a_film_cut_off_gives_what_is_before_the_damage(tmp_path):
    faststart = {"movflags": "faststart"}
    data = written(count=100, container_options=faststart, file=tmp_path / "a.mp4")
    data = data[: len(data) * 6 // 10]
    whole, _ = decode_video(media(written(count=100)), frame_rate=25.0)
    film, _ = decode_video(media(data), frame_rate=25.0, clip=(8, 0.1))
    np.testing.assert_array_equal(film.frames, whole.frames[9:17])
    message = r"it is cut off or damaged\. Its frames end after \d\.\d\d s of 4\.00 s"
    with pytest.raises(ValueError, match=message):
        decode_video(media(data), frame_rate=25.0)
    with pytest.raises(ValueError, match=r"cut off or damaged"):
        decode_video(media(data), frame_rate=25.0, clip=(8, 1.0))


def test_a_length_that_is_a_little_too_long_is_filled_by_the_last_frame(monkeypatch):
    monkeypatch.setattr(films, "video_seconds", lambda *_: 2.3)
    film, notes = decode_video(media(written()), frame_rate=10.0)
    assert numbers(film) == [*(5 * k // 2 for k in range(20)), 49, 49, 49]
    assert notes == ("last frame held to the end",)


def test_a_stream_that_does_not_tell_its_length_ends_where_its_frames_do():
    data = written("mpegts", "libx264", count=100)
    film, _ = decode_video(media(data[: len(data) // 2] + b"U" * 10_000), frame_rate=25.0)
    assert 20 < len(film.frames) < 80
    assert film.duration == pytest.approx(len(film.frames) / 25, abs=0.05)


def test_an_error_of_the_decoder_ends_a_film(monkeypatch):
    timed = films._timed

    def broken(frames, stream, after=10):
        for number, found in enumerate(timed(frames, stream)):
            if number == after:
                raise av.error.InvalidDataError(1, "bad block")
            yield found

    monkeypatch.setattr(films, "_timed", broken)
    film, _ = decode_video(media(written()), frame_rate=25.0, clip=(5, 0.0))
    assert numbers(film) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match=r"Its frames end after 0\.40 s of 2\.00 s"):
        decode_video(media(written()), frame_rate=25.0)
    monkeypatch.setattr(films, "_timed", lambda frames, stream: broken(frames, stream, 0))
    with pytest.raises(ValueError, match="bad block"):
        decode_video(media(written()), frame_rate=25.0)


def test_a_film_without_frames_is_refused(monkeypatch):
    monkeypatch.setattr(films, "_timed", lambda *_: iter(()))
    data = written()
    with pytest.raises(ValueError, match=r"Cannot read 'a\.film' as a video: it has no frames"):
        decode_video(media(data), frame_rate=25.0)

    class Container:
        streams = None

        def decode(self, stream):
            return iter(())

    monkeypatch.setattr(films, "video_seconds", lambda *_: 1.0)

    class Opened:
        def __enter__(self):
            return Container(), None

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(films, "open_video", lambda _: Opened())
    with pytest.raises(ValueError, match="it has no frames"):
        read_video_header(media(data))


def test_a_film_whose_header_promises_frames_that_are_not_there_is_refused():
    file = io.BytesIO()
    with av.open(file, "w", format="avi") as output:
        stream = output.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = H, W, "yuv420p"
        output.start_encoding()
    with pytest.raises(ValueError, match=r"no frames|damaged"):
        read_video_header(media(file.getvalue()))


def test_sound_alone_is_no_film(tmp_path):
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        track = output.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(sine(1.0), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 16_000, 0
        output.mux(track.encode(frame))
        output.mux(track.encode())
    for read in (read_video_header, lambda m: decode_video(m, frame_rate=25.0)):
        with pytest.raises(MissingValueError, match=r"'a\.film' has no video stream"):
            read(media(file.getvalue()))


def test_a_giant_frame_is_refused(monkeypatch):
    monkeypatch.setattr(film_file, "MAX_FRAME_PIXELS", 1000)
    with pytest.raises(
        ValueError, match="claims frames of 1,536 pixels; at most 1,000 are decoded"
    ):
        read_video_header(media(written(count=2)))


def test_a_film_that_would_fill_the_memory_is_decoded_by_windows(monkeypatch):
    monkeypatch.setattr(films, "MAX_VIDEO_BYTES", 10 * H * W * 3)
    data = written()
    with pytest.raises(TooLongError, match=r"too long to be kept as a whole: 50 frames of 32 x 48"):
        decode_video(media(data), frame_rate=25.0)
    assert len(decode_video(media(data), frame_rate=25.0, clip=(10, 0.5))[0].frames) == 10


def test_files_are_read_and_missing_ones_are_told(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(written(count=3))
    film, _ = decode_video(EncodedItem(str(path), path=path), frame_rate=25.0)
    assert numbers(film) == [0, 1, 2]
    gone = tmp_path / "b.mp4"
    with pytest.raises(ValueError, match=r"b\.mp4' cannot be read: No such file.* take it out"):
        read_video_header(EncodedItem(str(gone), path=gone))
    with pytest.raises(MissingValueError, match="row 3 is empty: expected a video"):
        read_video_header(EncodedItem("row 3"))
