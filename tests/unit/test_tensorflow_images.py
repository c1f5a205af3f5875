"""Crop and resize of the published ImageNet models, against TensorFlow's formulas written out pixel by pixel."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from perceivers.data.modalities.image import tensorflow
from perceivers.data.modalities.image.augment import inception_box
from perceivers.data.modalities.image.modality import (
    ImageAugmentConfig,
    ImageModality,
    ImagePreprocessConfig,
)
from perceivers.data.modalities.image.preprocess import evaluation_box
from perceivers.exporting.script_media import READ_IMAGE
from perceivers.recipes.registry import get_recipe

CONFIG = ImagePreprocessConfig.imagenet(resize="tensorflow")
F = np.float32


def keys(distance: float) -> float:
    """Keys' cubic kernel with a = -1/2."""
    x = abs(distance)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def weights(length: int, wanted: int, place: int) -> dict[int, float]:
    """Weight of each input pixel for one output pixel: half-pixel centers, none beyond the border, sum 1."""
    where = float(F(F(place) + F(0.5)) * F(F(length) / F(wanted)) - F(0.5))
    first = math.floor(where)
    offset = round((where - first) * 1024) / 1024  # the kernel is a table of 1,024 positions
    taps = {first + k: keys(offset - k) for k in range(-1, 3) if 0 <= first + k < length}
    total = sum(taps.values())
    return {index: weight / total for index, weight in taps.items()}


def resized(pixels: Any, size: tuple[int, int]) -> Any:
    out = np.zeros((*size, pixels.shape[2]))
    for y in range(size[0]):
        for x in range(size[1]):
            for j, down in weights(pixels.shape[0], size[0], y).items():
                for i, across in weights(pixels.shape[1], size[1], x).items():
                    out[y, x] += down * across * pixels[j, i]
    return out


sides = st.integers(1, 40)


@settings(deadline=None, max_examples=40)
@given(sides, sides, st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_the_resize_is_keys_cubic_without_antialiasing(height, width, rows, columns, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    found = tensorflow.resize_bicubic(pixels, (rows, columns))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, resized(pixels, (rows, columns)), atol=2e-3)


def test_an_image_of_the_size_is_unchanged_and_overshoots_are_kept():
    pixels = np.zeros((16, 16, 1), np.uint8)
    pixels[:, 8:] = 255
    np.testing.assert_array_equal(tensorflow.resize_bicubic(pixels, (16, 16)), pixels)
    wide = tensorflow.resize_bicubic(pixels, (16, 64))
    assert wide.min() < -10
    assert wide.max() > 265


# Crops by the release's formulas: side int(0.875 * min(height, width)), offsets (difference + 1) // 2.
@pytest.mark.parametrize(
    ("width", "height", "box"),
    [
        (500, 375, (86, 24, 414, 352)),  # int(328.125) = 328; (172 + 1) // 2 and (47 + 1) // 2
        (400, 300, (69, 19, 331, 281)),  # int(262.5) = 262; (138 + 1) // 2 and (38 + 1) // 2
        (333, 333, (21, 21, 312, 312)),  # int(291.375) = 291; (42 + 1) // 2
        (256, 256, (16, 16, 240, 240)),
    ],
)
def test_the_central_crop_is_truncated_and_its_offset_rounded_up(width, height, box):
    assert evaluation_box(width, height, CONFIG) == box


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_the_central_crop_follows_the_formula(width, height):
    side = max(1, int(F(224 / 256) * F(min(width, height))))
    left, top = (width - side + 1) // 2, (height - side + 1) // 2
    assert evaluation_box(width, height, CONFIG) == (left, top, left + side, top + side)


def limits(width: int, height: int, aspect: Any) -> tuple[int, int]:
    """Lowest and highest height of a crop of 8 to 100 % of the image, of an aspect, that lies inside."""
    low, high = (round(math.sqrt(float(F(a) * F(width) * F(height)) / aspect)) for a in (0.08, 1.0))
    if round(high * aspect) > width:
        high = int((width + 0.5 - 1e-7) / aspect)
    return low, min(high, height)


@settings(deadline=None)
@given(st.integers(8, 600), st.integers(8, 600), st.integers(0, 2**32 - 1))
def test_random_crops_obey_the_samplers_limits(width, height, seed):
    box = tensorflow.random_box(
        width,
        height,
        np.random.default_rng(seed),
        areas=(0.08, 1.0),
        aspects=(3 / 4, 4 / 3),
        tries=10,
    )
    if box is None:
        return
    left, top, right, bottom = box
    across, down = right - left, bottom - top
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert across * down >= F(0.1) * width * height * (1 - 1e-6)
    aspect = F(np.random.default_rng(seed).random(dtype=np.float32) * F(4 / 3 - 3 / 4) + F(3 / 4))
    first = abs(across - down * aspect) <= 0.51
    if first:  # the first try was taken
        low, high = limits(width, height, float(aspect))
        assert low - 1 <= down <= high + 1
    assert (right < width) or across == width  # the last offset is never drawn
    assert (bottom < height) or down == height


def test_the_height_of_crops_is_uniform_and_so_is_the_aspect():
    config, rng = (
        ImageAugmentConfig(crop_sampler="tensorflow", crop_ratio=(1.0, 1.0)),
        np.random.default_rng(0),
    )
    boxes = [inception_box(400, 400, config, CONFIG, rng) for _ in range(4000)]
    sides = np.array([box[3] - box[1] for box in boxes])
    # Side uniform in [113, 400], of which those below sqrt(0.1) * 400 = 126.5 are drawn again.
    assert sides[sides < 400].min() == 127
    counts, _ = np.histogram(sides[sides < 400], bins=np.linspace(127, 400, 8))
    assert np.abs(counts / counts.mean() - 1).max() < 0.15
    areas = sides.astype(float) ** 2 / 400**2
    assert (areas < 0.25).mean() > 0.22  # 16 % where the area is uniform
    config = ImageAugmentConfig(crop_sampler="tensorflow", crop_scale=(0.2, 0.3))
    boxes = [inception_box(900, 900, config, CONFIG, rng) for _ in range(4000)]
    aspects = np.array([(b[2] - b[0]) / (b[3] - b[1]) for b in boxes])
    counts, _ = np.histogram(aspects, bins=np.linspace(3 / 4, 4 / 3, 8))
    assert np.abs(counts / counts.mean() - 1).max() < 0.15


def test_a_crop_that_fails_is_that_of_evaluation():
    config = ImageAugmentConfig(crop_sampler="tensorflow", crop_scale=(0.99, 1.0))
    box = inception_box(1000, 20, config, CONFIG, np.random.default_rng(0))
    assert box == evaluation_box(1000, 20, CONFIG)


def test_published_recipes_prepare_images_as_the_release():
    for name in (
        "imagenet",
        "imagenet_learned",
        "imagenet_io",
        "imagenet_io_learned",
        "imagenet_io_conv",
    ):
        recipe = get_recipe(name)
        preprocess, augment = recipe.preprocess["image"], recipe.augment["image"]
        assert isinstance(preprocess, ImagePreprocessConfig)
        assert isinstance(augment, ImageAugmentConfig)
        assert preprocess.resize == augment.crop_sampler == "tensorflow"
    own = get_recipe("images").preprocess["image"]
    assert isinstance(own, ImagePreprocessConfig)
    assert own.resize == "pillow"


def test_pixels_are_normalized_unclamped_from_the_crop():
    modality = ImageModality(CONFIG)
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    pixels = modality.transform(Image.fromarray(noise))
    assert pixels.dtype == np.float32
    crop = noise[19:281, 69:331]
    np.testing.assert_array_equal(pixels, tensorflow.resize_bicubic(crop, (224, 224)))
    values, _ = modality.collate([pixels, None])
    expected = (pixels / 255 - CONFIG.mean) / CONFIG.std
    torch.testing.assert_close(
        values[0], torch.tensor(expected.transpose(2, 0, 1), dtype=torch.float32)
    )
    assert not values[1].any()


def test_training_with_randaugment_gives_floats_of_the_models_size():
    augment = ImageAugmentConfig(crop_sampler="tensorflow", randaugment=(4, 5))
    modality = ImageModality(CONFIG, augment)
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1200, 3), np.uint8)
    found = [
        modality.transform(Image.fromarray(noise), rng=np.random.default_rng(seed))
        for seed in (1, 1, 2)
    ]
    assert found[0].dtype == np.float32
    assert found[0].shape == (224, 224, 3)
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_the_exported_script_prepares_images_alike(tmp_path):
    path = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 401, 3), np.uint8)).save(path)
    scope: dict[str, Any] = {"np": np}
    for template in (*READ_IMAGE.uses, READ_IMAGE):
        for line in template.imports:
            exec(line if line.startswith("from") else f"import {line}", scope)
        exec(template.text, scope)
    how = {"size": (224, 224), "num_channels": 3, "crop_fraction": 224 / 256, "keep_aspect": True}
    found = scope["read_image"](str(path), how | {"resize": "tensorflow"}, 0.5)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, ImageModality(CONFIG).transform(Image.open(path)))
