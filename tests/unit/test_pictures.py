import io

import numpy as np
import pytest
import torch
from PIL import Image

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.base import MissingValueError, Modality
from perceivers.data.modalities.image.modality import (
    ImageAugmentConfig,
    ImageModality,
    ImagePreprocessConfig,
    image_from_pixels,
)
from perceivers.data.modalities.registry import build_modality
from perceivers.data.modalities.text.modality import TextAugmentConfig
from support.loaders import png

CONFIG = ImagePreprocessConfig.imagenet(
    size=(6, 6), mean=(0.0,) * 3, std=(1.0,) * 3, crop_fraction=1.0
)


def test_pictures_are_a_modality_without_time():
    pictures = ImageModality(CONFIG)
    assert isinstance(pictures, Modality)
    assert not pictures.has_clips


def test_a_picture_is_decoded_and_cut_to_size():
    pictures = ImageModality(CONFIG)
    value = pictures.decode(EncodedItem("a.png", data=png(7))).value
    assert isinstance(value, Image.Image)
    pixels = pictures.transform(value)
    assert pixels.shape == (6, 6, 3)
    assert pixels[0, 0, 0] == 7
    assert np.array_equal(np.asarray(image_from_pixels(pixels)), pixels)


def test_only_chance_augments():
    augment = ImageAugmentConfig(crop_scale=(0.2, 0.3))
    value = Image.open(io.BytesIO(png(7)))
    pictures = ImageModality(CONFIG, augment)
    assert np.array_equal(pictures.transform(value), ImageModality(CONFIG).transform(value))
    cropped = pictures.transform(value, rng=np.random.default_rng(0))
    assert not np.array_equal(cropped, pictures.transform(value))


def test_missing_pictures_are_zeros_and_masked():
    pictures = ImageModality(CONFIG)
    pixels = pictures.transform(pictures.decode(EncodedItem("a.png", data=png(7))).value)
    values, mask = pictures.collate([pixels, None])
    assert values.shape == (2, 3, 6, 6)
    assert mask.tolist() == [[True], [False]]
    assert not values[1].any()
    values, mask = pictures.collate([pixels])
    assert mask is None
    torch.testing.assert_close(values[0, 0, 0, 0], torch.tensor(7 / 255))


def test_an_empty_cell_is_missing():
    with pytest.raises(MissingValueError, match="row 3 is empty: expected an image, got nothing"):
        ImageModality(CONFIG).decode(EncodedItem("row 3"))


def test_augmentation_of_another_modality_is_refused():
    with pytest.raises(
        ValueError, match="Expected augmentation of kind 'image' for 'image', got 'text'"
    ):
        build_modality(CONFIG, TextAugmentConfig())
    assert isinstance(build_modality(CONFIG), ImageModality)
