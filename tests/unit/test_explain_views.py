from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from perceivers.data.modalities.array.modality import ArrayPreprocessConfig
from perceivers.data.modalities.audio.mel import mel_edges
from perceivers.data.modalities.audio.modality import MelPreprocessConfig, WavePreprocessConfig
from perceivers.data.modalities.image.modality import ImagePreprocessConfig
from perceivers.data.modalities.points.modality import PointsPreprocessConfig
from perceivers.data.modalities.series.decode import SeriesValue
from perceivers.data.modalities.series.modality import SeriesPreprocessConfig
from perceivers.data.modalities.table.modality import TablePreprocessConfig
from perceivers.data.modalities.text.modality import TextPreprocessConfig
from perceivers.data.modalities.video.modality import VideoPreprocessConfig
from perceivers.explain.attribution.explain import step_of
from perceivers.explain.contents import base
from perceivers.explain.contents.base import ElementsContent, ModelInput, content_of, register_view
from perceivers.explain.contents.image import shown_pixels
from perceivers.explain.contents.table import TableContent

ALL = np.ones(4, bool)


def content(config, value, x, real, step):
    return content_of(ModelInput(config=config, value=value, x=x, real=real, step=step))


def noise(height: int, width: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def adapter(frame_step=None, **config) -> SimpleNamespace:
    made = SimpleNamespace(config=SimpleNamespace(**config))
    if frame_step is not None:
        made.frame_step = frame_step
    return made


@pytest.mark.parametrize(
    ("given", "step"),
    [
        (adapter(patch=128), (128,)),
        (adapter(patch=(2, 8, 8)), (2, 8, 8)),
        (adapter(stride=4, stem_channels=(32, 64, 128)), (64,)),
        (adapter(stride=1, stem_channels=(128,), pool=8), (8,)),
        (adapter(stride=(2, 2), stem_channels=(32, 64)), (4, 4)),
        (adapter(stride=2, stem_channels=(32, 64), frame_step=3), (3, 4, 4)),
        (adapter(), (1,)),
        (SimpleNamespace(), (1,)),
    ],
)
def test_what_an_element_covers_follows_from_its_adapter(given, step):
    assert step_of(given) == step


def test_a_picture_is_shown_in_the_pixels_that_it_has():
    config = ImagePreprocessConfig.imagenet(size=(6, 8), crop_fraction=1.0)
    assert shown_pixels(noise(60, 80), config).shape == (60, 80, 3)
    assert shown_pixels(noise(3, 4), config).shape == (6, 8, 3)
    assert shown_pixels(noise(6000, 8000), config).shape == (64 * 6, 64 * 8, 3)


def test_a_gray_picture_has_three_equal_channels():
    config = ImagePreprocessConfig.imagenet(size=(6, 8), num_channels=1, crop_fraction=1.0)
    image = noise(6, 8, "L")
    found = content(config, image, np.zeros((1, 6, 8)), np.ones(1, bool), (1,))
    np.testing.assert_array_equal(found.pixels[..., 0], np.asarray(image))
    np.testing.assert_array_equal(found.pixels[..., 0], found.pixels[..., 2])


def test_samples_are_scaled_back_and_padding_is_left_out():
    config = WavePreprocessConfig(sample_rate=8000, seconds=0.1, scale=0.5)
    x = np.array([[1.0], [-2.0], [0.5], [0.0]], np.float32)
    found = content(config, None, x, np.array([True, True, True, False]), (2,))
    np.testing.assert_allclose(found.samples[:, 0], [0.5, -1.0, 0.25])
    assert (found.rate, found.step) == (8000.0, 2)


def test_a_spectrogram_has_its_loudness_seconds_and_bands():
    config = MelPreprocessConfig(
        sample_rate=8000, seconds=0.04, num_mels=3, hop=0.01, window=0.02, mean=-8.0, std=2.0
    )
    real = np.array([True, True, False, False])
    found = content(config, None, np.ones((4, 3), np.float32), real, (2, 1))
    np.testing.assert_allclose(found.values[:2], -6.0)
    assert np.isnan(found.values[2:]).all()
    assert found.seconds == pytest.approx(0.04)
    np.testing.assert_allclose(found.hertz, mel_edges(3, 20.0, 4000.0, "slaney")[1:-1])
    assert found.step == (2, 1)


def test_frames_are_bytes_again_without_padding():
    config = VideoPreprocessConfig(
        num_frames=4, frame_rate=12.5, size=(2, 3), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
    )
    frames = np.random.default_rng(0).integers(0, 256, (4, 2, 3, 3), dtype=np.uint8)
    x = np.moveaxis((frames / 255 - 0.5) / 0.25, -1, 1)
    real = np.array([True, True, True, False])
    found = content(config, None, x, real, (2, 8, 8))
    np.testing.assert_array_equal(found.frames, frames[:3])
    assert (found.rate, found.step) == (12.5, (2, 8, 8))


def test_of_points_only_the_coordinates_are_drawn():
    x = np.arange(20, dtype=np.float32).reshape(4, 5)
    found = content(PointsPreprocessConfig(num_points=4, num_channels=2), None, x, ALL, (1,))
    np.testing.assert_array_equal(found.points, x[:, :3])


def test_numbers_are_bytes_or_marks_again():
    ids = np.array([ord("a") + 6, 5, ord("b") + 6, 0])
    real = np.array([True, True, True, False])
    found = content(TextPreprocessConfig(max_length=8), None, ids, real, (4,))
    assert found.units.tolist() == [ord("a"), 256 + 5, ord("b")]
    assert found.marks[5] == "SEP"
    assert found.step == 4


class TestRecording:
    def config(self, **changes) -> SeriesPreprocessConfig:
        given = {
            "length": 4,
            "channels": ("x", "y"),
            "rate": 2.0,
            "irregular": False,
            "has_missing": False,
            "mean": (1.0, 0.0),
            "std": (2.0, 1.0),
        }
        return SeriesPreprocessConfig(**given | changes)

    def test_has_its_units_and_seconds(self):
        x = np.array([[0, 1], [1, 2], [2, 3], [0, 0]], np.float32)
        real = np.array([True, False, True, False])
        found = content(self.config(), None, x, real, (2,))
        np.testing.assert_allclose(found.values, [[1, 1], [np.nan, np.nan], [5, 3]])
        assert found.times.tolist() == [0.0, 0.5, 1.0]
        assert (found.channels, found.unit, found.step) == (("x", "y"), "s", 2)

    def test_without_a_rate_counts_steps(self):
        found = content(self.config(rate=None), None, np.zeros((4, 2)), ALL, (1,))
        assert found.times.tolist() == [0, 1, 2, 3]
        assert found.unit == "step"

    def test_a_value_whose_flag_is_off_is_missing(self):
        x = np.array([[0, 1, 1, 0], [0, 1, 0, 1]] * 2, np.float32)
        found = content(self.config(has_missing=True), None, x, ALL, (1,))
        np.testing.assert_allclose(found.values[:2], [[1, np.nan], [np.nan, 1]])

    @pytest.mark.parametrize("duration", [8.0, None])
    def test_times_that_are_not_even_are_seconds_again(self, duration):
        x = np.array([[0, 0, -1.0], [0, 0, 0.0], [0, 0, 0.5], [0, 0, 1.0]], np.float32)
        value = SeriesValue(
            np.zeros((4, 2), np.float32), np.array([0.0, 4.0, 6.0, 8.0]), ("x", "y")
        )
        real = np.array([True, False, True, True])
        config = self.config(rate=None, irregular=True, duration=duration)
        found = content(config, value, x, real, (1,))
        assert found.times.tolist() == [0.0, 3.0, 6.0, 8.0]  # between those that are there


def test_values_of_an_array_have_their_unit_and_no_coordinates():
    config = ArrayPreprocessConfig(
        length=4, num_channels=2, num_coordinates=1, mean=(1.0, 2.0), std=(2.0, 2.0)
    )
    x = np.array([[1, 1, 9]] * 4, np.float32)
    found = content(config, None, x, np.array([True, True, True, False]), (1,))
    np.testing.assert_allclose(found.values[:3], [[3, 4]] * 3)
    assert np.isnan(found.values[3]).all()


def test_fields_of_a_table_are_what_stood_in_it():
    config = TablePreprocessConfig(
        numbers=("age", "height"),
        categories={"sex": ("f", "m")},
        means=(40.0, 170.0),
        stds=(10.0, 10.0),
    )
    real = np.array([True, False, True])
    found = content(config, None, np.array([-0.9, 0, 1], np.float32), real, (1,))
    assert found.fields == ("age", "height", "sex")
    assert found.texts == ("31", "", "m")


def test_a_kind_without_a_view_shows_its_elements_and_another_can_be_registered(monkeypatch):
    monkeypatch.setattr(base, "_VIEWS", {})
    config, x = SimpleNamespace(kind="events"), np.zeros((4, 2), np.float32)
    assert isinstance(content(config, None, x, ALL, (1,)), ElementsContent)
    register_view("events", lambda given: TableContent(fields=("a",), texts=(str(given.step),)))
    assert content(config, None, x, ALL, (1,)).texts == ("(1,)",)
