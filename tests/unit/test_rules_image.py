"""Rules for images: symmetry of the data, levels of the stem, augmentation."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from perceivers.data.modalities.image.augment import ImageAugmentConfig
from perceivers.recipes.resolve import resolve
from perceivers.recipes.rules.image import Symmetry, augment_for, image_symmetry, stem_for
from support.runs import make_image_folder

CHANNELS = (32, 64, 128)


def glyphs(count, rng, *, mirrored=False, turned=False, labelled=True):
    """Noisy pictures of four glyphs: where mirrored ones occur, of the same class."""
    forms = np.random.default_rng(3).random((4, 4, 4)) > 0.5
    sample = []
    for _ in range(count):
        label = int(rng.integers(4))
        pixels = np.kron(forms[label], np.ones((6, 6))) * 200
        if mirrored and rng.random() < 0.5:
            pixels = pixels[:, ::-1]
        if turned:
            pixels = np.rot90(pixels, rng.integers(4))
        noisy = pixels + rng.normal(0, 60, pixels.shape) + 20
        image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        sample.append((image, label if labelled else None))
    return sample


@pytest.mark.parametrize("labelled", [True, False])
def test_glyphs_are_not_mirrored_unless_mirrored_ones_occur(labelled):
    rng = np.random.default_rng(0)
    plain = glyphs(200, rng, labelled=labelled)
    assert image_symmetry(plain) == Symmetry(mirrored=False, turned=False)
    both = glyphs(200, rng, mirrored=True, labelled=labelled)
    assert image_symmetry(both) == Symmetry(mirrored=True, turned=False)


def test_pictures_that_occur_in_all_directions_are_turned():
    sample = glyphs(600, np.random.default_rng(0), mirrored=True, turned=True)
    assert image_symmetry(sample) == Symmetry(mirrored=True, turned=True)
    assert not image_symmetry(sample[:200]).turned


def test_a_mirrored_class_is_another_class():
    rng = np.random.default_rng(0)
    arrows = []
    for image, label in glyphs(400, rng):
        is_mirrored = bool(rng.integers(2))
        shown = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if is_mirrored else image
        arrows.append((shown, 2 * label + is_mirrored))
    assert not image_symmetry(arrows).mirrored


def test_few_pictures_prove_nothing():
    assert not image_symmetry(glyphs(10, np.random.default_rng(0), mirrored=True)).mirrored
    same = [(Image.new("L", (8, 8)), 0)] * 30  # no difference between any two
    image_symmetry(same)


@pytest.mark.parametrize(
    ("side", "cells"), [(8, 4), (16, 8), (28, 7), (32, 8), (64, 8), (128, 8), (224, 14)]
)
def test_pictures_of_any_size_have_8_by_8_elements_or_so(side, cells):
    assert stem_for((side, side), CHANNELS).grid((side, side)) == (cells, cells)


def test_augmentation_follows_symmetry_size_and_rows():
    start = ImageAugmentConfig()
    photos = augment_for(start, (32, 32), Symmetry(mirrored=True, turned=False), 50_000)
    assert (photos.flip, photos.turn, photos.crop_scale) == (True, False, None)
    assert augment_for(start, (32, 32), Symmetry(mirrored=True, turned=True), 500).turn
    digits = augment_for(start, (8, 8), Symmetry(mirrored=False, turned=False), 500)
    assert not digits.flip
    assert not digits.cutout


def test_rules_for_images_choose_stem_and_augmentation(tmp_path):
    run = resolve(str(make_image_folder(tmp_path / "data", count=20)))
    made = run.recipe.inputs["image"]
    assert made.stem == stem_for((10, 10), CHANNELS)
    assert run.recipe.augment["image"].flip  # noise is as likely mirrored
    assert run.choices[0] == "Input: images of 10 x 10 pixels (3 channels) as 5 x 5 elements."
    assert "images are mirrored, since mirrored ones occur" in run.choices[1]


def test_flags_win_over_the_rules_for_images(tmp_path):
    data = str(make_image_folder(tmp_path / "data", count=20))
    flags = {"inputs.image.stem.channels": (8, 8, 8), "augment.image.flip": False}
    recipe = resolve(data, overrides=flags).recipe
    assert recipe.inputs["image"].stem == replace(
        type(recipe.inputs["image"].stem)(), channels=(8, 8, 8)
    )
    assert not recipe.augment["image"].flip


def test_few_images_have_small_batches(tmp_path):
    data = make_image_folder(tmp_path / "data", count=30)
    recipe = resolve(str(data)).recipe
    assert (recipe.training.batch_size, recipe.optim.lr) == (16, 2e-3)
