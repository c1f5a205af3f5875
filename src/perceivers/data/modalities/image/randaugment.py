"""RandAugment: a few operations on 8 bit pictures, drawn anew for each picture, all of one strength.

Source: RandAugment (arXiv:1909.13719), with the 16 operations and the strengths of the TPU implementation
that DeepMind's release of Perceiver IO trains with. Its ways are kept, also the odd ones: a higher level
makes Posterize and Solarize *weaker*, and at level 5 Color, Contrast, Brightness and Sharpness do nothing.
Differs from it: the operations are Pillow's, and lengths in pixels scale with the picture.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

MAX_LEVEL = 10
FILL = 128  # gray of what comes in from outside the picture, and of the cut-out square

# Pixels on a picture of 224 x 224. The release uses them on crops of any size; here they are shares of
# the shorter side, so that a picture of 32 x 32 is not moved out of itself.
REFERENCE_SIDE = 224
CUTOUT = 40  # half the side of the square at the highest level
TRANSLATE = 100

Operation = Callable[[Image.Image, float, np.random.Generator], Image.Image]


def randaugment(
    image: Image.Image, *, layers: int, magnitude: float, generator: np.random.Generator
) -> Image.Image:
    """Return the picture after `layers` operations, each drawn from all 16 and always carried out.

    Args:
        image: Mode `L` or `RGB`.
        layers: How many operations follow each other.
        magnitude: Level of all of them, 0 to 10.
        generator: Where chance comes from.

    Raises:
        ValueError: If `layers` is negative or `magnitude` is not in 0 to 10.
    """
    if layers < 0 or not 0 <= magnitude <= MAX_LEVEL:
        raise ValueError(
            f"Expected randaugment=(layers, magnitude) with layers >= 0 and magnitude from 0 to {MAX_LEVEL}, "
            f"got ({layers}, {magnitude})."
        )
    for drawn in generator.integers(len(OPERATIONS), size=layers):
        image = _OPERATIONS[int(drawn)](image, magnitude, generator)
    return image


def autocontrast(image: Image.Image, _level: float, _generator: np.random.Generator) -> Image.Image:
    """Stretch each channel so that its darkest value is 0 and its brightest 255."""
    return ImageOps.autocontrast(image)


def equalize(image: Image.Image, _level: float, _generator: np.random.Generator) -> Image.Image:
    """Make all values of a channel about equally frequent."""
    return ImageOps.equalize(image)


def invert(image: Image.Image, _level: float, _generator: np.random.Generator) -> Image.Image:
    """Turn dark into bright."""
    return ImageOps.invert(image)


def rotate(image: Image.Image, level: float, generator: np.random.Generator) -> Image.Image:
    """Turn by up to 30 degrees, to either side."""
    degrees = _signed(30 * level / MAX_LEVEL, generator)
    return image.rotate(degrees, Image.Resampling.NEAREST, fillcolor=_fill(image))


def posterize(image: Image.Image, level: float, _generator: np.random.Generator) -> Image.Image:
    """Keep the highest 0 to 4 bits of each value, 4 at the highest level."""
    bits = int(4 * level / MAX_LEVEL)
    kept = 256 - 2 ** (8 - bits)
    return image.point([value & kept for value in range(256)] * len(image.getbands()))


def solarize(image: Image.Image, level: float, _generator: np.random.Generator) -> Image.Image:
    """Invert the values from a threshold on, which is 256 (none) at the highest level."""
    threshold = int(256 * level / MAX_LEVEL)
    return ImageOps.solarize(image, threshold)


def solarize_add(image: Image.Image, level: float, _generator: np.random.Generator) -> Image.Image:
    """Make the values below 128 brighter, by up to 110."""
    added = int(110 * level / MAX_LEVEL)
    table = [min(255, value + added) if value < 128 else value for value in range(256)]
    return image.point(table * len(image.getbands()))


def color(image: Image.Image, level: float, _generator: np.random.Generator) -> Image.Image:
    """Blend with its gray picture: gray at the lowest level, overdone at the highest."""
    return ImageEnhance.Color(image).enhance(_factor(level))


def contrast(image: Image.Image, level: float, _generator: np.random.Generator) -> Image.Image:
    """Blend with its mean gray."""
    return ImageEnhance.Contrast(image).enhance(_factor(level))


def brightness(image: Image.Image, level: float, _generator: np.random.Generator) -> Image.Image:
    """Blend with black."""
    return ImageEnhance.Brightness(image).enhance(_factor(level))


def sharpness(image: Image.Image, level: float, _generator: np.random.Generator) -> Image.Image:
    """Blend with a smoothed picture."""
    return ImageEnhance.Sharpness(image).enhance(_factor(level))


def shear_x(image: Image.Image, level: float, generator: np.random.Generator) -> Image.Image:
    """Shift each row by up to 0.3 of its number."""
    return _affine(image, (1, _signed(0.3 * level / MAX_LEVEL, generator), 0, 0, 1, 0))


def shear_y(image: Image.Image, level: float, generator: np.random.Generator) -> Image.Image:
    """Shift each column by up to 0.3 of its number."""
    return _affine(image, (1, 0, 0, _signed(0.3 * level / MAX_LEVEL, generator), 1, 0))


def translate_x(image: Image.Image, level: float, generator: np.random.Generator) -> Image.Image:
    """Move to the left or right by up to 100 of 224 pixels."""
    return _affine(image, (1, 0, _signed(_pixels(TRANSLATE, level, image), generator), 0, 1, 0))


def translate_y(image: Image.Image, level: float, generator: np.random.Generator) -> Image.Image:
    """Move up or down by up to 100 of 224 pixels."""
    return _affine(image, (1, 0, 0, 0, 1, _signed(_pixels(TRANSLATE, level, image), generator)))


def cutout(image: Image.Image, level: float, generator: np.random.Generator) -> Image.Image:
    """Cover a square around a random pixel. Its side is up to 80 of 224 pixels; the picture's edge cuts it."""
    half = round(_pixels(CUTOUT, level, image))
    x, y = int(generator.integers(image.width)), int(generator.integers(image.height))
    image = image.copy()
    image.paste(_fill(image), (max(0, x - half), max(0, y - half), x + half, y + half))
    return image


_OPERATIONS: tuple[Operation, ...] = (
    *(autocontrast, equalize, invert, rotate, posterize, solarize, color, contrast, brightness),
    *(sharpness, shear_x, shear_y, translate_x, translate_y, cutout, solarize_add),
)
OPERATIONS = {operation.__name__: operation for operation in _OPERATIONS}


def _factor(level: float) -> float:
    """Return the share of the picture itself in a blend: 0.1 to 1.9, so that 5 changes nothing."""
    return 1.8 * level / MAX_LEVEL + 0.1


def _pixels(length: float, level: float, image: Image.Image) -> float:
    return length * level / MAX_LEVEL * min(image.size) / REFERENCE_SIDE


def _signed(value: float, generator: np.random.Generator) -> float:
    return value if generator.random() < 0.5 else -value


def _fill(image: Image.Image) -> int | tuple[int, ...]:
    return FILL if image.mode == "L" else (FILL,) * len(image.getbands())


def _affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    """Return the picture whose pixel (x, y) is taken from (a x + b y + c, d x + e y + f)."""
    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        matrix,
        resample=Image.Resampling.NEAREST,
        fillcolor=_fill(image),
    )
