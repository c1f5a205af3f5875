import numpy as np
import pytest
from PIL import Image

from perceivers.data.modalities.image.randaugment import OPERATIONS, randaugment


class Fixed(np.random.Generator):
    """Draws what the test says: the sign + or -, and the place of a square."""

    def __init__(self, sign=1, places=()):
        super().__init__(np.random.PCG64(0))
        self.sign = sign
        self.places = list(places)

    def random(self):
        return 0.0 if self.sign > 0 else 1.0

    def integers(self, _high):
        return self.places.pop(0)


def gray(*rows):
    return Image.fromarray(np.array(rows, dtype=np.uint8))


def apply(name, image, level, **fixed):
    return np.asarray(OPERATIONS[name](image, level, Fixed(**fixed))).tolist()


def test_there_are_sixteen_operations():
    assert len(OPERATIONS) == 16


def test_autocontrast_stretches_each_channel():
    assert apply("autocontrast", gray([50, 100, 150]), 5) == [[0, 127, 255]]


def test_equalize_spreads_the_values():
    close = gray(*[[10, 11, 12, 13]] * 256)
    assert apply("equalize", close, 5)[0] == pytest.approx([0, 85, 170, 255], abs=1)
    assert apply("equalize", gray([7]), 5) == [[7]]


def test_invert_turns_dark_into_bright():
    assert apply("invert", gray([0, 100, 255]), 5) == [[255, 155, 0]]


@pytest.mark.parametrize(
    ("level", "expected"), [(0, 0), (2, 0), (2.5, 128), (5, 192), (10, 0b11110000)]
)
def test_posterize_keeps_up_to_four_bits(level, expected):
    assert apply("posterize", gray([255]), level) == [[expected]]


@pytest.mark.parametrize(
    ("level", "expected"), [(0, [255, 127, 0]), (5, [0, 127, 0]), (10, [0, 128, 255])]
)
def test_solarize_inverts_from_its_threshold_on(level, expected):
    assert apply("solarize", gray([0, 128, 255]), level) == [expected]


def test_solarize_add_brightens_the_dark():
    assert apply("solarize_add", gray([0, 127, 128, 255]), 10) == [[110, 237, 128, 255]]
    assert apply("solarize_add", gray([0, 127, 128, 255]), 5) == [[55, 182, 128, 255]]


@pytest.mark.parametrize("name", ["color", "contrast", "brightness", "sharpness"])
def test_blends_change_nothing_at_level_five(name):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8))
    assert apply(name, image, 5) == np.asarray(image).tolist()


def test_brightness_goes_from_a_tenth_to_nearly_twice():
    assert apply("brightness", gray([100]), 0) == [[10]]
    assert apply("brightness", gray([100]), 10) == [[190]]


def test_contrast_goes_around_the_mean():
    assert apply("contrast", gray([50, 150]), 10) == [[5, 195]]
    assert apply("contrast", gray([50, 150]), 0) == [[95, 105]]


def test_color_goes_to_gray():
    red = Image.new("RGB", (1, 1), (255, 0, 0))
    (pixel,) = apply("color", red, 0)[0]
    assert max(pixel) - min(pixel) == pytest.approx(25.5, abs=1)


def test_sharpness_smooths_at_low_levels():
    spot = np.zeros((5, 5), dtype=np.uint8)
    spot[2, 2] = 255
    assert apply("sharpness", Image.fromarray(spot), 0)[2][2] < 130


@pytest.mark.parametrize(("sign", "corner"), [(1, [128, 128]), (-1, [128, 128])])
def test_rotate_fills_the_corners_with_gray(sign, corner):
    turned = apply("rotate", Image.new("L", (40, 40)), 10, sign=sign)
    assert [turned[0][0], turned[-1][-1]] == corner
    assert turned[20][20] == 0


def test_rotate_turns_by_thirty_degrees():
    line = np.zeros((41, 41), dtype=np.uint8)
    line[20, 20:] = 255  # from the center to the right
    turned = np.array(apply("rotate", Image.fromarray(line), 10, sign=1))
    ends = np.argwhere(turned == 255)
    y, x = ends[np.abs(ends - 20).sum(axis=1).argmax()]
    assert np.degrees(np.arctan2(20 - y, x - 20)) == pytest.approx(30, abs=3)


@pytest.mark.parametrize(("sign", "expected"), [(1, [2, 3, 128, 128]), (-1, [128, 128, 0, 1])])
def test_translate_is_a_share_of_the_shorter_side(sign, expected):
    # 100 of 224 of 4 pixels is 1.79, taken from the nearest pixel: two places.
    rows = gray(*[[0, 1, 2, 3]] * 4)
    assert apply("translate_x", rows, 10, sign=sign)[0] == expected
    columns = Image.fromarray(np.asarray(rows).T)
    assert np.array(apply("translate_y", columns, 10, sign=sign)).T.tolist()[0] == expected


def test_shear_shifts_rows_by_their_number():
    stripes = gray(*[[10, 20, 30, 40, 50, 60]] * 6)
    sheared = apply("shear_x", stripes, 10, sign=1)
    # Row y is read at x + 0.3 (y + 0.5): no shift in the first rows, by two in the last.
    assert sheared[0] == [10, 20, 30, 40, 50, 60]
    assert sheared[5] == [30, 40, 50, 60, 128, 128]
    other = np.array(apply("shear_y", Image.fromarray(np.asarray(stripes).T), 10, sign=1)).T
    assert other.tolist() == sheared


def test_cutout_covers_a_square_and_is_cut_by_the_edge():
    black = Image.new("L", (28, 28))
    covered = np.array(apply("cutout", black, 10, places=[14, 14]))  # 40 / 224 * 28 = 5 pixels
    assert (covered[9:19, 9:19] == 128).all()
    assert (covered == 128).sum() == 100
    corner = np.array(apply("cutout", black, 10, places=[0, 27]))
    assert (corner[22:, :5] == 128).all()
    assert (corner == 128).sum() == 30
    assert not np.asarray(black).any()  # the picture given is not painted over


def test_fill_is_gray_in_every_channel():
    moved = apply("translate_x", Image.new("RGB", (10, 10)), 10)
    assert moved[0][-1] == [128, 128, 128]


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [(1, 1), (2, 7), (33, 12)])
@pytest.mark.parametrize("level", [0, 5, 10])
def test_every_operation_keeps_mode_and_size(mode, size, level):
    image = Image.new(mode, size, 77 if mode == "L" else (1, 2, 3))
    for operation in OPERATIONS.values():
        changed = operation(image, level, np.random.default_rng(0))
        assert (changed.mode, changed.size) == (mode, size)


def test_layers_follow_each_other_and_all_operations_are_drawn():
    spot = np.zeros((6, 6), dtype=np.uint8)
    spot[1, 2] = 200
    image = Image.fromarray(spot)
    drawn = {
        randaugment(image, layers=1, magnitude=9, generator=np.random.default_rng(n)).tobytes()
        for n in range(300)
    }
    assert len(drawn) > 20
    same = randaugment(image, layers=0, magnitude=9, generator=np.random.default_rng(0))
    assert same is image


@pytest.mark.parametrize(("layers", "magnitude"), [(-1, 5), (2, 11), (2, -1)])
def test_levels_out_of_range_are_refused(layers, magnitude):
    with pytest.raises(ValueError, match=rf"magnitude from 0 to 10, got \({layers}, {magnitude}\)"):
        randaugment(
            Image.new("L", (4, 4)),
            layers=layers,
            magnitude=magnitude,
            generator=np.random.default_rng(0),
        )
