import io

import numpy as np
import pytest
import torch
from PIL import Image

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.loading.transform import sample_cells
from perceivers.data.modalities.image.modality import ImageModality, ImagePreprocessConfig
from perceivers.data.modalities.image.preprocess import (
    evaluation_box,
    measure_mean_std,
    normalize_pixels,
    preprocess_pixels,
    suggest_image_size,
)
from perceivers.data.tables.columns import InputColumn


class Rows:
    """Records of one column, given as arrays, Media, None or exceptions."""

    def __init__(self, cells):
        self.cells = cells

    def __len__(self):
        return len(self.cells)

    def row(self, index):
        cell = self.cells[index]
        if isinstance(cell, Exception):
            raise cell
        return {
            "image": EncodedItem(f"row {index}", array=cell)
            if isinstance(cell, np.ndarray)
            else cell
        }

    def column(self, name):
        raise KeyError(name)


def cells(values, count=1024):
    return sample_cells(Rows(values), InputColumn("image", "image"), count)


def channels(values):
    config = ImagePreprocessConfig(size=(4, 4), normalization="imagenet")
    return config.measure(lambda count: cells(values, count)).num_channels


def shown(image, config):
    images = ImageModality(config)
    return images.collate([images.transform(image)])[0][0]


def plain(height, width, channels=3, value=0):
    return np.full((height, width, channels), value, dtype=np.uint8)


def noise(height, width):
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_equal_sizes_leave_the_pixels_alone():
    image = noise(6, 8)
    config = ImagePreprocessConfig.imagenet(size=(6, 8), crop_fraction=1.0)
    np.testing.assert_array_equal(preprocess_pixels(image, config), image)


def test_crop_of_the_right_size_is_not_resized():
    image = noise(8, 8)
    config = ImagePreprocessConfig.imagenet(size=(4, 4), crop_fraction=0.5)
    np.testing.assert_array_equal(preprocess_pixels(image, config), np.asarray(image)[2:6, 2:6])


@pytest.mark.parametrize(
    ("picture", "size", "fraction", "box"),
    [
        ((500, 400), (224, 224), 0.875, (75, 25, 425, 375)),  # 350 of 400
        ((300, 300), (10, 20), 1.0, (0, 75, 300, 225)),
        ((1, 1), (8, 8), 0.875, (0, 0, 1, 1)),
        ((1000, 2), (64, 64), 0.5, (499, 0, 500, 1)),
    ],
)
def test_evaluation_takes_the_central_box_of_the_targets_aspect(picture, size, fraction, box):
    config = ImagePreprocessConfig.imagenet(size=size, crop_fraction=fraction)
    assert evaluation_box(*picture, config) == box


def test_without_keeping_the_aspect_the_whole_picture_is_stretched():
    config = ImagePreprocessConfig.imagenet(size=(4, 4), keep_aspect=False)
    assert evaluation_box(30, 10, config) == (0, 0, 30, 10)
    assert shown(noise(10, 30), config).shape == (3, 4, 4)


def test_resizing_down_averages():
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (64, 32)))
    config = ImagePreprocessConfig.imagenet(size=(4, 4), num_channels=1, mean=(0,), std=(1,))
    pixels = shown(stripes, config)
    assert pixels.shape == (1, 4, 4)
    torch.testing.assert_close(pixels, torch.full((1, 4, 4), 0.5), rtol=0, atol=0.02)


def test_pixels_are_normalized_by_hand():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    config = ImagePreprocessConfig.imagenet(mean=(0.5, 0.2, 0.0), std=(0.5, 0.1, 0.25))
    expected = torch.tensor([-1.0, 0.0, 4.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(normalize_pixels(pixels, config), expected, rtol=0, atol=1e-6)


def test_statistics_of_another_number_of_channels_are_refused():
    config = ImagePreprocessConfig.imagenet(size=(4, 4), num_channels=1)
    with pytest.raises(ValueError, match=r"Expected mean and std of 1 number .* mean=\(0\.485"):
        shown(Image.new("L", (4, 4)), config)


@pytest.mark.parametrize(
    ("shapes", "largest", "expected"),
    [
        ([(31, 33)] * 5, 64, (31, 33)),  # all one size: exactly that
        ([(1, 1)] * 2, 64, (1, 1)),
        ([(200, 400)] * 5, 64, (32, 64)),  # too large: scaled
        ([(200, 400), (100, 200), (210, 400)], 64, (32, 64)),
        ([(20, 40), (22, 40), (18, 40)], 64, (20, 40)),  # small ones are not enlarged
        (
            [(300, 400), (400, 300), (300, 400), (400, 300)],
            64,
            (64, 64),
        ),  # both ways round: a square
        ([(30, 40), (40, 30)], 64, (32, 32)),
        ([(1000, 10)] * 3, 64, (64, 4)),
        ([(100, 100)] * 3, 3, (4, 4)),
        ([(100, 100)] * 3, 63, (60, 60)),
    ],
)
def test_size_follows_the_pictures(shapes, largest, expected):
    rows = [plain(height, width) for height, width in shapes]
    assert suggest_image_size(cells(rows), largest=largest) == expected


def test_pictures_that_cannot_be_read_have_no_say():
    rows = [OSError("gone"), None, EncodedItem("x", data=b""), plain(8, 8, 1)]
    assert suggest_image_size(cells(rows), largest=64) == (8, 8)
    assert channels(rows) == 1
    mean, std = measure_mean_std(cells(rows), size=(8, 8), num_channels=1)
    assert (mean, std) == ((0.0,), (0.0039,))


def test_nothing_readable_tells_the_first_reason():
    rows = [EncodedItem("empty.png", data=b""), OSError("gone")]
    with pytest.raises(
        ValueError, match=r"No image of a sample can be read.* 'empty.png' .* file is empty"
    ):
        suggest_image_size(cells(rows), largest=64)
    with pytest.raises(
        ValueError, match=r"No image of a sample can be read.* 'empty.png' .* file is empty"
    ):
        measure_mean_std(cells(rows), size=(4, 4), num_channels=3)
    with pytest.raises(ValueError, match="It holds no rows"):
        channels([])


def test_a_missing_column_is_not_a_bad_picture():
    with pytest.raises(KeyError, match="photo"):
        next(sample_cells(Rows([plain(4, 4)]), InputColumn("photo", "image"), 1))


def test_one_picture_in_color_makes_three_channels():
    assert channels([plain(4, 4, 1), plain(4, 4, 3)]) == 3


def test_mean_and_deviation_are_those_of_the_pixels():
    halves = np.zeros((4, 4, 3), dtype=np.uint8)
    halves[:2] = 255
    halves[:, :, 2] = 51
    mean, std = measure_mean_std(cells([halves, halves]), size=(4, 4), num_channels=3)
    assert mean == (0.5, 0.5, 0.2)
    assert std == (0.5, 0.5, 0.0039)  # one gray level, not zero, where there is one color


def test_the_sample_is_spread_over_all_rows():
    rows = [plain(4, 4, value=value) for value in range(101)]
    mean, _ = measure_mean_std(cells(rows, 3), size=(4, 4), num_channels=3)
    assert mean[0] == pytest.approx(50 / 255, abs=1e-4)


def test_large_photographs_are_not_all_decoded(monkeypatch):
    monkeypatch.setattr("perceivers.data.modalities.image.preprocess.MOST_PIXELS", 15)
    rows = [plain(4, 4, value=51), plain(4, 4, value=255)]
    mean, _ = measure_mean_std(cells(rows), size=(4, 4), num_channels=3)
    assert mean[0] in (0.2, 1.0)


def test_encoded_pictures_are_measured_by_their_header():
    file = io.BytesIO()
    Image.new("1", (12, 8)).save(file, "PNG")
    rows = [EncodedItem("it.png", data=file.getvalue())]
    assert suggest_image_size(cells(rows), largest=64) == (8, 12)
    assert channels(rows) == 1
