"""Frames that come decoded, and where windows lie: what of films needs no file."""

import numpy as np
import pytest

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.video.decode import (
    Video,
    decode_video,
    read_video_header,
    window_of,
)

H, W = 32, 48


def picture(number):
    return np.full((H, W, 3), number, np.uint8)


def numbers(film):
    return film.frames[:, 0, 0, 0].tolist()


def test_frames_may_come_decoded():
    frames = np.stack([picture(number) for number in range(50)])
    header = read_video_header(EncodedItem("x", array=frames))
    assert (header.height, header.width, header.frame_rate, header.seconds) == (H, W, 25.0, 2.0)
    film, _ = decode_video(EncodedItem("x", value=frames), frame_rate=12.5)
    assert numbers(film) == list(range(0, 50, 2))
    slow = EncodedItem("x", value={"frames": frames, "frame_rate": 10})
    film, _ = decode_video(slow, frame_rate=5.0, clip=(4, 1.0))
    assert isinstance(film, Video)
    assert (film.start, film.duration) == (4.2, 5.0)
    assert numbers(film) == [42, 44, 46, 48]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((4, 8, 8, 3)), "got float64 of shape 4 x 8 x 8 x 3"),
        (np.zeros((4, 8, 8), np.uint8), "got uint8 of shape 4 x 8 x 8"),
        ("a video", "got str"),
        ({"clip": 1}, "got NoneType"),
        (np.zeros((0, 8, 8, 3), np.uint8), "it has no frames"),
        (
            {"frames": np.zeros((4, 8, 8, 3), np.uint8), "frame_rate": -1},
            "a frame_rate above 0, got -1",
        ),
    ],
)
def test_other_arrays_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        decode_video(EncodedItem("x", value=value), frame_rate=25.0)


def test_windows_lie_where_the_sound_of_the_same_moment_does():
    assert window_of(10.0, frame_rate=25.0, clip=None) == (0, 250)
    assert window_of(10.0, frame_rate=25.0, clip=(32, 0.0)) == (0, 32)
    assert window_of(10.0, frame_rate=25.0, clip=(32, 1.0)) == (218, 32)
    assert window_of(10.0, frame_rate=25.0, clip=(32, 0.5)) == (109, 32)
    assert window_of(1.0, frame_rate=25.0, clip=(32, 0.7)) == (0, 25)
    assert window_of(0.0, frame_rate=25.0, clip=(4, 0.0)) == (0, 1)
    first, count = window_of(3.03, frame_rate=10.0, clip=(10, 1.0))
    assert (first, count) == (20, 10)
