"""Clips: which frames, the same crop and colors in all of them, padding, and what the data say of their size."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.base import MissingValueError, Modality
from perceivers.data.modalities.video import modality as video
from perceivers.data.modalities.video.decode import Video
from perceivers.data.modalities.video.modality import (
    VideoAugmentConfig,
    VideoModality,
    VideoPreprocessConfig,
    measure_video,
)

av = pytest.importorskip("av")

PLAIN = VideoPreprocessConfig(
    num_frames=4, frame_rate=10.0, size=(8, 12), mean=(0.0,) * 3, std=(1.0,) * 3
)
STILL = VideoAugmentConfig(
    crop_scale=None, flip=False, brightness=0, contrast=0, saturation=0, hue=0
)


def film(count=10, height=8, width=12, start=0.0, duration=None):
    """Frame k has the value k everywhere."""
    frames = np.repeat(np.arange(count, dtype=np.uint8), height * width * 3)
    frames = frames.reshape(count, height, width, 3)
    return Video(frames, 10.0, start, count / 10 if duration is None else duration)


def noise(count=10, height=16, width=24, seed=0):
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    return Video(np.repeat(frames, count, axis=0), 10.0, 0.0, count / 10)


def encoded(count=30, rate=10, height=48, width=64):
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=rate)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for number in range(count):
            array = np.full((height, width, 3), 20 + 2 * number, np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        output.mux(stream.encode())
    return file.getvalue()


def test_it_is_a_timed_modality():
    assert isinstance(VideoModality(PLAIN), Modality)
    assert VideoModality.has_clips


@pytest.mark.parametrize(
    ("clip_position", "frames"), [(0.0, [0, 1, 2, 3]), (0.5, [3, 4, 5, 6]), (1.0, [6, 7, 8, 9])]
)
def test_a_clip_lies_at_its_moment(clip_position, frames):
    clip = VideoModality(PLAIN).transform(film(), clip_position=clip_position)
    assert clip.shape == (4, 8, 12, 3)
    assert clip.dtype == np.uint8
    assert clip[:, 0, 0, 0].tolist() == frames


def test_a_window_gives_the_clip_of_the_whole():
    media = EncodedItem("a.mp4", data=encoded())
    clips = VideoModality(replace(PLAIN, size=(24, 32)))
    whole = clips.decode(media).value
    for clip_position in (0.0, 0.3, 1.0):
        window = clips.decode(media, clip_position=clip_position).value
        assert window.frames.shape == (4, 24, 32, 3)
        np.testing.assert_array_equal(
            clips.transform(window, clip_position=clip_position),
            clips.transform(whole, clip_position=clip_position),
        )
    with pytest.raises(
        ValueError, match=r"decoded as a whole or at the position 0, got 4 frames from 2\.60 s"
    ):
        clips.transform(window, clip_position=0.0)


def test_a_shorter_film_gives_what_it_has():
    assert len(VideoModality(PLAIN).transform(film(3), clip_position=1.0)) == 3


@pytest.mark.parametrize(
    ("augment", "keep_aspect", "kept"),
    [
        (None, True, (48, 64)),  # the crop of 2:3 is 360 high and 540 wide of 360 x 640
        (VideoAugmentConfig(), True, (60, 80)),
        (STILL, True, (48, 64)),
        (None, False, (48, 72)),
    ],
)
def test_frames_are_kept_a_little_larger_than_the_clip(augment, keep_aspect, kept):
    config = replace(PLAIN, size=(48, 64 if keep_aspect else 72), keep_aspect=keep_aspect)
    assert VideoModality(config, augment).kept_size(96, 128) == kept


def test_small_frames_are_kept_as_they_are():
    assert VideoModality(replace(PLAIN, size=(480, 640))).kept_size(96, 128) == (96, 128)


def test_evaluation_shows_the_center():
    frames = np.zeros((1, 8, 20, 3), np.uint8)
    frames[:, :, 4:16] = 200
    clip = VideoModality(PLAIN).transform(Video(frames, 10.0, 0.0, 0.1))
    assert (clip == 200).all()


def test_frames_are_resized_with_antialiasing():
    value = noise(4)
    clip = VideoModality(PLAIN).transform(value)
    wanted = Image.fromarray(value.frames[0]).resize((12, 8), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(clip[0], np.asarray(wanted))


def test_chance_is_the_same_in_all_frames_and_comes_from_the_generator():
    clips = VideoModality(PLAIN, VideoAugmentConfig())
    first = clips.transform(noise(), rng=np.random.default_rng(1))
    assert (first == first[:1]).all()
    np.testing.assert_array_equal(first, clips.transform(noise(), rng=np.random.default_rng(1)))
    assert (first != clips.transform(noise(), rng=np.random.default_rng(2))).any()
    plain = VideoModality(PLAIN).transform(noise())
    np.testing.assert_array_equal(
        clips.transform(noise()), plain
    )  # without chance nothing is random


def test_half_of_the_clips_are_mirrored():
    clips = VideoModality(PLAIN, replace(STILL, flip=True))
    plain = VideoModality(PLAIN).transform(noise())
    mirrored = 0
    for seed in range(40):
        clip = clips.transform(noise(), rng=np.random.default_rng(seed))
        mirrored += (clip == plain[:, :, ::-1]).all()
        assert (clip == plain).all() or (clip == plain[:, :, ::-1]).all()
    assert 10 < mirrored < 30


class Fixed(np.random.Generator):
    """A generator that always draws the highest."""

    def uniform(self, low, high):
        return high

    def random(self):
        return 0.9


def colored(value, **strengths):
    config = replace(STILL, **strengths)
    return VideoModality(PLAIN, config).transform(value, rng=Fixed(np.random.PCG64()))


def test_colors_change_as_stated():
    value = film(4)
    value = replace_frames(
        value, np.where(np.arange(12)[:, None] < 6, (40, 80, 120), (80, 120, 160))
    )
    plain = VideoModality(PLAIN).transform(value)
    np.testing.assert_array_equal(plain[0, 0, 0], (40, 80, 120))
    np.testing.assert_array_equal(colored(value, brightness=0.5)[0, 0, 0], (60, 120, 180))
    # Gray is 0.299 r + 0.587 g + 0.114 b: 72.6 and 112.6, 92.6 on average.
    np.testing.assert_allclose(
        colored(value, contrast=0.5)[0, 0, 0], (60 - 46.3, 120 - 46.3, 180 - 46.3), atol=1
    )
    np.testing.assert_allclose(
        colored(value, saturation=0.5)[0, 0, 0], (60 - 36.3, 120 - 36.3, 180 - 36.3), atol=1
    )
    turned = colored(value, hue=0.5)[0, 0, 0]  # half a turn: what exceeds gray falls below it
    np.testing.assert_allclose(turned, 2 * 72.6 - np.array((40, 80, 120)), atol=2)
    grays = replace_frames(value, np.full((12, 3), 100))
    np.testing.assert_allclose(colored(grays, saturation=0.5, hue=0.2)[0, 0, 0], 100, atol=1)


def replace_frames(value, row):
    frames = np.broadcast_to(row.astype(np.uint8), value.frames.shape).copy()
    return replace(value, frames=frames)


def test_batches_are_padded_to_a_whole_clip_and_normalized():
    clips = VideoModality(replace(PLAIN, mean=(0.5, 0.0, 0.0), std=(0.5, 1.0, 2.0)))
    full = np.full((4, 8, 12, 3), 255, np.uint8)
    values, mask = clips.collate([full, full])
    assert mask is None
    assert values.shape == (2, 4, 3, 8, 12)
    assert values.dtype == torch.float32
    assert values[0, 0, :, 0, 0].tolist() == pytest.approx([1.0, 1.0, 0.5])
    values, mask = clips.collate([full[:2], None, full[:3]])
    assert values.shape == (3, 4, 3, 8, 12)
    assert mask.tolist() == [[True, True, False, False], [False] * 4, [True, True, True, False]]
    assert (values[0, 2:] == 0).all()
    assert (values[1] == 0).all()
    assert values[2, 2, :, 7, 11].tolist() == pytest.approx([1.0, 1.0, 0.5])


def test_a_cell_without_a_film_is_missing():
    with pytest.raises(MissingValueError, match="row 3 is empty"):
        VideoModality(PLAIN).decode(EncodedItem("row 3"))


@pytest.mark.parametrize("name", ["num_frames", "frame_rate", "size", "mean", "std"])
def test_what_is_open_is_refused(name):
    with pytest.raises(ValueError, match=r"measure_video\(\) takes them from the training data"):
        VideoModality(replace(PLAIN, **{name: None}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_frames": 0}, "num_frames of at least 1, got 0"),
        ({"frame_rate": 0.0}, "a frame_rate above 0 frames per second, got 0"),
        ({"size": (0, 8)}, "at least 1 pixel each, got"),
        ({"std": (0.0, 1.0, 1.0)}, "a std above 0 for each channel"),
        ({"crop_fraction": 1.5}, "not above 1, got 1.5"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        VideoPreprocessConfig(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contrast": 1.5}, "contrast must lie between 0 and 1, got 1.5"),
        ({"hue": 0.6}, "hue must lie between 0 and 0.5"),
        ({"mixup": -1.0}, "mixup must not be negative"),
    ],
)
def test_augmentation_that_makes_no_sense_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        VideoAugmentConfig(**change)


def frames_of(value, count=25, height=96, width=128, rate=25.0):
    frames = np.full((count, height, width, 3), value, np.uint8)
    return EncodedItem("x", value={"frames": frames, "frame_rate": rate})


def test_what_is_open_is_measured():
    cells = [frames_of(51), EncodedItem("empty"), frames_of(153), frames_of(51, count=5)]
    config = measure_video(cells, VideoPreprocessConfig(crop_fraction=0.9, max_side=64))
    # 25 frames a second are halved; three of four last a second or less; the larger side becomes 64.
    assert config == VideoPreprocessConfig(
        frame_rate=12.5,
        num_frames=16,
        size=(48, 64),
        mean=config.mean,
        std=config.std,
        crop_fraction=0.9,
        max_side=64,
    )
    # Of the clips every fourth frame: 4 of each long film, 1 of the short one.
    share = np.array([0.2] * 5 + [0.6] * 4)
    assert config.mean == pytest.approx([share.mean()] * 3, abs=1e-3)
    assert config.std == pytest.approx([share.std()] * 3, abs=1e-3)


def test_what_is_stated_stays():
    config = measure_video([frames_of(51)], PLAIN)
    assert config == PLAIN
    config = measure_video([frames_of(51)], replace(PLAIN, std=None))
    assert config == replace(PLAIN, std=(0.0039,) * 3)  # one gray level at least


def test_long_films_give_clips_of_the_most_frames_and_mixed_ones_a_square():
    cells = [frames_of(0, count=400, height=8, width=8) for _ in range(2)]
    config = measure_video(cells, VideoPreprocessConfig())
    assert (config.num_frames, config.frame_rate) == (20, 2.5)
    # 3 seconds in 20 frames: every fourth of 25 frames a second
    config = measure_video([frames_of(0, count=75, height=8, width=8)], VideoPreprocessConfig())
    assert (config.num_frames, config.frame_rate) == (20, 6.25)
    cells = [
        frames_of(0, height=64, width=128, rate=30.0),
        frames_of(0, height=128, width=64, rate=30.0),
    ]
    config = measure_video(cells, VideoPreprocessConfig(max_side=48))
    assert (config.size, config.frame_rate) == ((48, 48), 10.0)
    cells = [frames_of(0, count=1, height=3, width=4, rate=8.0)]
    config = measure_video(cells, VideoPreprocessConfig())
    assert (config.num_frames, config.size, config.frame_rate) == (4, (8, 8), 8.0)


def test_where_nothing_can_be_read_the_first_reason_is_told(monkeypatch):
    bad = EncodedItem("bad.mp4", data=b"nothing")
    with pytest.raises(ValueError, match=r"No video of a sample can be read\. .*bad\.mp4"):
        measure_video([bad, frames_of(0, count=0)], VideoPreprocessConfig())
    with pytest.raises(ValueError, match=r"No video of a sample can be read\. It holds no rows"):
        measure_video([], VideoPreprocessConfig())

    def fail(*_, **__):
        raise ValueError("cut off")

    monkeypatch.setattr(video, "decode_video", fail)
    with pytest.raises(
        ValueError, match=r"No video of a sample can be read\. 'x' cannot be read: cut off"
    ):
        measure_video([frames_of(0)], VideoPreprocessConfig())
