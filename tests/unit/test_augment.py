import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from perceivers.data.modalities.image.augment import augment_pixels, inception_box
from perceivers.data.modalities.image.modality import (
    ClassMapModality,
    ClassMapPreprocessConfig,
    ImageAugmentConfig,
    ImageModality,
    ImagePreprocessConfig,
)
from perceivers.data.modalities.image.preprocess import normalize_pixels, preprocess_pixels

SQUARE = ImagePreprocessConfig.imagenet(size=(8, 8))
NOTHING = ImageAugmentConfig(crop_scale=None, flip=False)


def noise(height, width):
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def boxes(width, height, augment, preprocess=SQUARE, count=300):
    generator = np.random.default_rng(0)
    return [inception_box(width, height, augment, preprocess, generator) for _ in range(count)]


def test_without_chance_it_is_the_evaluation():
    image = noise(20, 30)
    pixels = augment_pixels(image, NOTHING, SQUARE, np.random.default_rng(0))
    np.testing.assert_array_equal(pixels, preprocess_pixels(image, SQUARE))


def test_half_of_the_pictures_are_mirrored():
    image, generator = noise(8, 8), np.random.default_rng(0)
    config = replace(SQUARE, crop_fraction=1.0)
    augment = replace(NOTHING, flip=True)
    original, mirrored = np.asarray(image), np.asarray(image)[:, ::-1]
    drawn = [augment_pixels(image, augment, config, generator) for _ in range(400)]
    flips = sum(np.array_equal(pixels, mirrored) for pixels in drawn)
    assert flips + sum(np.array_equal(pixels, original) for pixels in drawn) == 400
    assert 160 < flips < 240


def test_one_generator_state_gives_one_picture():
    image = noise(40, 30)
    augment = ImageAugmentConfig(randaugment=(3, 7))
    first, again, other = (
        augment_pixels(image, augment, SQUARE, np.random.default_rng(seed)) for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_augmented_picture_is_normalized():
    images = ImageModality(SQUARE, ImageAugmentConfig())
    pixels = images.transform(noise(40, 30), rng=np.random.default_rng(5))
    expected = normalize_pixels(torch.from_numpy(pixels)[None], SQUARE)
    torch.testing.assert_close(images.collate([pixels])[0], expected)


def test_area_is_uniform_and_aspect_log_uniform():
    augment = ImageAugmentConfig(crop_scale=(0.1, 0.5))
    found = boxes(1000, 1000, augment, count=2000)
    areas = [(right - left) * (bottom - top) / 1e6 for left, top, right, bottom in found]
    ratios = [math.log((right - left) / (bottom - top)) for left, top, right, bottom in found]
    for values, low, high in ((areas, 0.1, 0.5), (ratios, math.log(3 / 4), math.log(4 / 3))):
        assert low - 0.01 < min(values) < low + 0.02 * (high - low) + 0.01
        assert high - 0.02 * (high - low) - 0.01 < max(values) < high + 0.01
        assert np.mean(values) == pytest.approx((low + high) / 2, abs=0.03 * (high - low))
        assert np.std(values) == pytest.approx((high - low) / 12**0.5, rel=0.05)


def test_boxes_reach_every_edge():
    found = np.array(boxes(30, 20, ImageAugmentConfig(crop_scale=(0.2, 0.4)), count=2000))
    assert found[:, :2].min(axis=0).tolist() == [0, 0]
    assert found[:, 2:].max(axis=0).tolist() == [30, 20]


@pytest.mark.parametrize(("width", "height"), [(1000, 10), (10, 1000)])
def test_a_picture_too_narrow_for_any_box_gives_its_center(width, height):
    augment = ImageAugmentConfig(crop_scale=(0.9, 1.0))
    left, top, right, bottom = boxes(width, height, augment, count=1)[0]
    ratio = (right - left) / (bottom - top)
    assert ratio == pytest.approx(4 / 3 if width > height else 3 / 4, rel=0.1)
    assert abs(left - (width - right)) <= 1
    assert abs(top - (height - bottom)) <= 1


def test_aspects_are_relative_to_what_evaluation_shows():
    augment = ImageAugmentConfig(crop_ratio=(1.0, 1.0), crop_scale=(0.2, 0.2))
    wide = ImagePreprocessConfig.imagenet(size=(10, 40))
    left, top, right, bottom = boxes(800, 400, augment, wide, count=1)[0]
    assert (right - left) / (bottom - top) == pytest.approx(4, rel=0.02)
    stretched = ImagePreprocessConfig.imagenet(size=(10, 40), keep_aspect=False)
    left, top, right, bottom = boxes(800, 400, augment, stretched, count=1)[0]
    assert (right - left) / (bottom - top) == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop_scale": (0.0, 1.0)},
        {"crop_scale": (0.5, 0.2)},
        {"crop_scale": (0.5, 2.0)},
        {"crop_ratio": (0.0, 1.0)},
        {"crop_ratio": (2.0, 1.0)},
    ],
)
def test_limits_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=r"Expected crop_scale=\(smallest, largest\).*crop_ratio"):
        boxes(10, 10, ImageAugmentConfig(**wrong), count=1)


def test_randaugment_acts_on_the_crop_before_the_resize():
    image = noise(16, 16)
    augment = replace(NOTHING, randaugment=(0, 5))
    config = replace(SQUARE, crop_fraction=1.0)
    pixels = augment_pixels(image, augment, config, np.random.default_rng(0))
    np.testing.assert_array_equal(pixels, preprocess_pixels(image, config))


def test_a_flip_comes_before_randaugment():
    image = noise(8, 8)
    augment = ImageAugmentConfig(crop_scale=None, flip=True, randaugment=(0, 0))
    config = replace(SQUARE, crop_fraction=1.0)
    drawn = [augment_pixels(image, augment, config, np.random.default_rng(n)) for n in range(20)]
    assert any(np.array_equal(pixels, np.asarray(image)[:, ::-1]) for pixels in drawn)


def test_a_photograph_far_larger_than_needed_is_averaged_before_randaugment():
    image = Image.new("RGB", (400, 400), (10, 200, 30))
    augment = replace(NOTHING, randaugment=(0, 5))
    pixels = augment_pixels(image, augment, SQUARE, np.random.default_rng(0))
    assert (pixels == (10, 200, 30)).all()


def test_square_pictures_turn_by_four_angles_and_others_by_two():
    config = replace(SQUARE, crop_fraction=1.0)
    augment = replace(NOTHING, turn=True)
    for size, angles in (((8, 8), 4), ((8, 4), 2)):
        image, generator = noise(*size), np.random.default_rng(0)
        shown = replace(config, size=size)
        drawn = [augment_pixels(image, augment, shown, generator) for _ in range(60)]
        assert {pixels.shape for pixels in drawn} == {(*size, 3)}
        assert len({pixels.tobytes() for pixels in drawn}) == angles


def test_a_shift_mirrors_what_lies_beyond_the_edge():
    config = replace(SQUARE, crop_fraction=1.0)
    image, generator = noise(8, 8), np.random.default_rng(0)
    augment = replace(NOTHING, shift=0.25)
    drawn = [augment_pixels(image, augment, config, generator) for _ in range(400)]
    assert len({pixels.tobytes() for pixels in drawn}) == 25  # -2 to 2 pixels on both axes
    wide = np.pad(np.asarray(image), ((2, 2), (2, 2), (0, 0)), mode="reflect")
    windows = [wide[y : y + 8, x : x + 8].tobytes() for y in range(5) for x in range(5)]
    assert {pixels.tobytes() for pixels in drawn} == set(windows)


def test_a_square_of_the_mean_color_is_cut_out():
    config = replace(SQUARE, crop_fraction=1.0, mean=(0.0, 0.0, 0.0))
    image = Image.fromarray(np.full((8, 8, 3), 200, np.uint8))
    generator = np.random.default_rng(0)
    augment = replace(NOTHING, cutout=0.5)
    drawn = [augment_pixels(image, augment, config, generator) for _ in range(100)]
    black = [int((pixels[..., 0] == 0).sum()) for pixels in drawn]
    assert max(black) == 16
    assert min(black) == 4
    assert np.asarray(image).min() == 200


def test_a_class_map_turns_and_shifts_with_its_picture():
    augment = ImageAugmentConfig(turn=True, shift=0.25, cutout=0.25)
    values = np.random.default_rng(2).integers(0, 200, (8, 8), dtype=np.uint8)
    config = replace(SQUARE, num_channels=1, mean=(0.0,), std=(1.0,), crop_fraction=1.0)
    images = ImageModality(config, replace(augment, crop_scale=None, cutout=0.0))
    maps = ClassMapModality(
        ClassMapPreprocessConfig(size=(8, 8), num_classes=200), replace(augment, crop_scale=None)
    )
    for seed in range(20):
        image = images.transform(Image.fromarray(values), rng=np.random.default_rng(seed))
        classes = maps.transform(values, rng=np.random.default_rng(seed))
        np.testing.assert_array_equal(image[..., 0], classes)


@pytest.mark.parametrize("name", ["shift", "cutout"])
def test_a_share_beyond_the_picture_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must lie between 0 and 1, got 1.5"):
        ImageAugmentConfig(**{name: 1.5})
