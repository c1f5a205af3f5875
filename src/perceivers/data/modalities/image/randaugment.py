"""RandAugment: a few operations on 8-bit images, drawn anew for each image, all of one strength.

Reference: RandAugment (arXiv:1909.13719), with the 16 operations and the strengths of the TPU implementation that
DeepMind's release of Perceiver IO trains with. Its oddities are kept: a higher level makes Posterize and Solarize
*weaker*, and at level 5 Color, Contrast, Brightness and Sharpness do nothing. Differs from it: the operations are
Pillow's, and lengths in pixels scale with the image.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

MAX_LEVEL = 10
FILL = 128  # gray of what comes in from outside the image, and of the cut-out square

# Pixels on an image of 224 x 224. The release uses them on crops of any size; here they are shares of the shorter
# side, so that an image of 32 x 32 is not moved out of itself.
REFERENCE_SIDE = 224
CUTOUT = 40  # half the side of the square at the highest level
TRANSLATE = 100

Operation = Callable[[Image.Image, float, np.random.Generator], Image.Image]


def randaugment(
    image: Image.Image, *, layers: int, magnitude: float, generator: np.random.Generator
) -> Image.Image:
    """Return the image after `layers` operations, each drawn from all 16 and always carried out.

    Args:
        image: Mode `L` or `RGB`.
        layers: Number of operations.
        magnitude: Level of all of them, 0 to 10.
        generator: Random numbers.

    Raises:
        ValueError: If `layers` is negative or `magnitude` is not in 0 to 10.
    """
    if layers < 0 or not 0 <= magnitude <= MAX_LEVEL:
        raise ValueError(
            f"Expected randaugment=(layers, magnitude) with layers >= 0 and magnitude from 0 to {MAX_LEVEL}, "
            f"got ({layers}, {magnitude})."
        )
    operations = list(OPERATIONS.values())
    for drawn in generator.integers(len(operations), size=layers):
        image = operations[int(drawn)](image, magnitude, generator)
    return image


def _point(image: Image.Image, table: list[int]) -> Image.Image:
    """Return the image with each value of each channel replaced by that in a table of 256."""
    return image.point(table * len(image.getbands()))


def _posterize(image: Image.Image, level: float) -> Image.Image:
    """Keep the highest 0 to 4 bits of each value, 4 at the highest level."""
    mask = 256 - 2 ** (8 - int(4 * level / MAX_LEVEL))
    return _point(image, [value & mask for value in range(256)])


def _solarize_add(image: Image.Image, level: float) -> Image.Image:
    """Make the values below 128 brighter, by up to 110."""
    added = int(110 * level / MAX_LEVEL)
    return _point(
        image, [min(255, value + added) if value < 128 else value for value in range(256)]
    )


def _cutout(image: Image.Image, level: float, generator: np.random.Generator) -> Image.Image:
    """Cover a square around a random pixel. Its side is up to 80 of 224 pixels; the image's edge cuts it."""
    half = round(_pixels(CUTOUT, level, image))
    x, y = int(generator.integers(image.width)), int(generator.integers(image.height))
    image = image.copy()
    image.paste(_fill(image), (max(0, x - half), max(0, y - half), x + half, y + half))
    return image


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:  # pyright: ignore[reportPrivateUsage]
    """Blend with a degenerate image: 0.1 of the image itself at the lowest level, 1.9 at the highest, 1 at 5."""
    return lambda image, level, _: kind(image).enhance(1.8 * level / MAX_LEVEL + 0.1)


def _pixels(length: float, level: float, image: Image.Image) -> float:
    return length * level / MAX_LEVEL * min(image.size) / REFERENCE_SIDE


def _signed(value: float, generator: np.random.Generator) -> float:
    return value if generator.random() < 0.5 else -value


def _fill(image: Image.Image) -> int | tuple[int, ...]:
    return FILL if image.mode == "L" else (FILL,) * len(image.getbands())


def _affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    """Return the image whose pixel (x, y) is taken from (a x + b y + c, d x + e y + f)."""
    nearest = Image.Resampling.NEAREST
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, resample=nearest, fillcolor=_fill(image)
    )


OPERATIONS: dict[str, Operation] = {
    "autocontrast": lambda image, _, __: ImageOps.autocontrast(image),
    "equalize": lambda image, _, __: ImageOps.equalize(image),
    "invert": lambda image, _, __: ImageOps.invert(image),
    "rotate": lambda image, level, rng: image.rotate(
        _signed(30 * level / MAX_LEVEL, rng), Image.Resampling.NEAREST, fillcolor=_fill(image)
    ),
    "posterize": lambda image, level, _: _posterize(image, level),
    # from a threshold on, which is 256 (none) at the highest level
    "solarize": lambda image, level, _: ImageOps.solarize(image, int(256 * level / MAX_LEVEL)),
    "color": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "shear_x": lambda image, level, rng: _affine(
        image, (1, _signed(0.3 * level / MAX_LEVEL, rng), 0, 0, 1, 0)
    ),
    "shear_y": lambda image, level, rng: _affine(
        image, (1, 0, 0, _signed(0.3 * level / MAX_LEVEL, rng), 1, 0)
    ),
    "translate_x": lambda image, level, rng: _affine(
        image, (1, 0, _signed(_pixels(TRANSLATE, level, image), rng), 0, 1, 0)
    ),
    "translate_y": lambda image, level, rng: _affine(
        image, (1, 0, 0, 0, 1, _signed(_pixels(TRANSLATE, level, image), rng))
    ),
    "cutout": _cutout,
    "solarize_add": lambda image, level, _: _solarize_add(image, level),
}
"""The operations by name: (image, level from 0 to 10, random numbers) -> image. Their order is that of the draws."""
