import io

import numpy as np
import pytest
from PIL import Image

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.image.class_map import find_encoding, map_values
from perceivers.data.modalities.image.modality import ClassMapModality, ClassMapPreprocessConfig

CLASSES = np.zeros((32, 32), np.uint8)
CLASSES[8:24, 4:20] = 1
CLASSES[26:, :] = 2
BINARY = (CLASSES == 1).astype(np.uint8)


def item(pixels, form="PNG", mode=None, **options):
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(buffer, form, **options)
    return EncodedItem("mask", data=buffer.getvalue())


def learned(*items):
    config = ClassMapPreprocessConfig(size=(32, 32)).measure(lambda _: items)
    modality = ClassMapModality(config)
    return config, [modality.decode(one).value for one in items]


@pytest.mark.parametrize(
    ("mask", "levels"),
    [
        (item(BINARY * 255, "JPEG", quality=75), (0, 255)),
        (item(BINARY * 255, "JPEG", mode="RGB"), (0, 255)),
        (item(BINARY * 128), (0, 128)),
        (item(BINARY * 128, "JPEG"), (0, 128)),
        (item(np.kron(BINARY, np.full((4, 4), 255, np.uint8))), ()),
    ],
    ids=["jpeg", "rgb jpeg", "0 and 128", "0 and 128 jpeg", "0 and 255"],
)
def test_two_gray_levels_are_two_classes(mask, levels):
    config, (found,) = learned(mask)
    assert (config.num_classes, config.levels) == (2, levels)
    assert config.is_binary == (levels == ())
    expected = BINARY if found.shape == (32, 32) else np.kron(BINARY, np.ones((4, 4), np.uint8))
    np.testing.assert_array_equal(found, expected)
    assert config.notes() == () or config.notes()[0].startswith("2 gray levels of the class maps")


def test_a_resized_mask_has_gray_edges():
    image = Image.fromarray(BINARY * 255).resize((100, 100), Image.Resampling.BICUBIC)
    config, (found,) = learned(item(np.asarray(image)))
    assert (config.num_classes, config.levels) == (2, (0, 255))
    np.testing.assert_array_equal(found, np.asarray(image) >= 128)
    assert "the nearest level counts, since the values are blurred" in config.notes()[0]


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_three_levels(form):
    levels = np.array([0, 127, 255], np.uint8)
    config, (found,) = learned(item(levels[CLASSES], form))
    assert config.num_classes == 3
    np.testing.assert_array_equal(found, CLASSES)


def test_colors_are_classes_black_first():
    colors = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 64]], np.uint8)
    config, (found, other) = learned(item(colors[CLASSES]), item(colors[BINARY], mode="RGBA"))
    assert config.colors == (0, 0, 0, 0, 128, 64, 128, 0, 0)
    assert config.palette == config.colors
    np.testing.assert_array_equal(found, np.array([0, 2, 1])[CLASSES])
    np.testing.assert_array_equal(other, BINARY * 2)
    assert config.notes() == (
        "The class maps are in color; 3 colors are the classes: 0: (0, 0, 0), 1: (0, 128, 64), 2: (128, 0, 0).",
    )
    with pytest.raises(ValueError, match=r"mask holds the color \(9, 9, 8\): expected those of"):
        ClassMapModality(config).decode(item(np.full((4, 4, 3), (9, 9, 8), np.uint8)))


def test_indices_stay_indices():
    rows = [CLASSES, CLASSES * 9, np.where(CLASSES == 2, 255, CLASSES)]
    for row, count in zip(rows, (3, 19, 2), strict=True):
        config, (found,) = learned(item(row.astype(np.uint8)))
        assert (config.num_classes, config.levels, config.colors) == (count, (), ())
        np.testing.assert_array_equal(found, row)
    image = Image.fromarray(BINARY * 200)
    image.putpalette([value for value in range(256) for _ in range(3)])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    assert learned(EncodedItem("mask", data=buffer.getvalue()))[0].num_classes == 201


def test_gray_stored_as_rgb_is_gray():
    config, (found,) = learned(item(CLASSES, mode="RGB"))
    assert (config.num_classes, config.colors) == (3, ())
    np.testing.assert_array_equal(found, CLASSES)


def test_maps_without_clear_classes_are_refused_with_the_reason():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (32, 32, 3), np.uint8)
    with pytest.raises(ValueError, match=r"hold 1,024 different colors: .* --recipe dense"):
        learned(item(noise))
    with pytest.raises(ValueError, match=r"JPEG files in color: .* Save the maps as PNG"):
        learned(item(noise, "JPEG"))
    smooth = np.linspace(0, 255, 32 * 32).reshape(32, 32).astype(np.uint8)
    with pytest.raises(ValueError, match=r"JPEG files with \d+ different gray levels"):
        learned(item(smooth, "JPEG"))
    with pytest.raises(ValueError, match="class 0 alone"):
        learned(item(BINARY * 0))
    clear = item(np.zeros((4, 4, 4), np.uint8))
    modality = ClassMapModality(ClassMapPreprocessConfig(size=(4, 4), num_classes=2))
    with pytest.raises(ValueError, match="got mode RGBA with transparency"):
        modality.decode(clear)


def test_another_level_than_in_training_is_a_bad_row():
    config, _ = learned(item(BINARY * 128))
    with pytest.raises(ValueError, match="mask holds the gray level 64: expected 0, 128"):
        ClassMapModality(config).decode(item(BINARY * 64))


def test_the_number_of_classes_may_be_given():
    config = ClassMapPreprocessConfig(size=(32, 32), num_classes=200)
    assert config.measure(lambda _: [item(BINARY * 128)]).levels == ()


def test_palettes_of_another_order_are_refused():
    def with_palette(colors):
        image = Image.new("P", (4, 4))
        image.putdata([0] * 8 + [1] * 8)
        image.putpalette([value for color in colors for value in color])
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        return map_values(EncodedItem("a.png", data=buffer.getvalue()))

    red, blue = (200, 0, 0), (0, 0, 200)
    same = find_encoding([with_palette([red, blue]), with_palette([red, blue])], None)
    assert same.num_classes == 2
    with pytest.raises(
        ValueError,
        match=r"palettes of the class maps differ: the index [01] has the color",
    ):
        find_encoding([with_palette([red, blue]), with_palette([blue, red])], None)
