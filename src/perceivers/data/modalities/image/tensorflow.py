"""Crop and resize of TensorFlow's image operations, with which the published ImageNet models were trained.

Float32 arithmetic in TensorFlow's order, so that boxes are equal and pixels equal up to the last bit.

Reference: DeepMind's release of Perceiver IO (train/dataset.py) and the TensorFlow operations that it calls:
`tf.image.sample_distorted_bounding_box` and `tf.image.resize` with `BICUBIC`.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels."""

MIN_COVERED = (
    0.1  # smallest share of the image in a random crop, whatever the range of areas allows
)
_TABLE = 1024  # positions between two pixels at which the cubic kernel is tabulated
_SHARPNESS = np.float32(-0.5)  # of Keys' cubic kernel


def central_box(width: int, height: int, crop: tuple[float, float]) -> Box:
    """Return the central crop with sides truncated and offsets rounded up.

    Args:
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        crop: Width and height of the crop in pixels.
    """
    across, down = (max(1, int(np.float32(side))) for side in crop)
    left, top = (width - across + 1) // 2, (height - down + 1) // 2
    return left, top, left + across, top + down


def random_box(
    width: int,
    height: int,
    generator: np.random.Generator,
    *,
    areas: tuple[float, float],
    aspects: tuple[float, float],
    tries: int,
) -> Box | None:
    """Return a random crop, or None if no try gave one.

    The aspect is uniform in its range. The height is uniform among those whose area lies in its range; crops that cover
    less than a tenth of the image are rejected. The last row and column of offsets are never drawn.

    Args:
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        generator: Random numbers.
        areas: Smallest and largest share of the image.
        aspects: Narrowest and widest width / height.
        tries: Number of boxes drawn at most.
    """
    lowest, highest = np.float32(aspects[0]), np.float32(aspects[1])
    for _ in range(tries):
        aspect = generator.random(dtype=np.float32) * (highest - lowest) + lowest
        size = _random_size(width, height, aspect, areas, generator)
        if size is None or np.float32(size[0] * size[1]) / np.float32(width * height) < np.float32(
            MIN_COVERED
        ):
            continue
        across, down = size
        top = int(generator.integers(height - down)) if down < height else 0
        left = int(generator.integers(width - across)) if across < width else 0
        return left, top, left + across, top + down
    return None


def _random_size(
    width: int,
    height: int,
    aspect: np.float32,
    areas: tuple[float, float],
    generator: np.random.Generator,
) -> tuple[int, int] | None:
    """Return width and height of a crop of this aspect, or None if rounding leaves the range of areas."""
    smallest, largest = (np.float32(a) * np.float32(width) * np.float32(height) for a in areas)
    down, most = (int(np.rint(np.sqrt(area / aspect))) for area in (smallest, largest))
    if _across(most, aspect) > width:
        most = int((width + 0.5 - 1e-7) / float(aspect))
        most -= _across(most, aspect) > width
    most = min(most, height)
    down = min(down, most)
    if down < most:
        down += int(generator.integers(most - down + 1))
    if np.float32(_across(down, aspect) * down) < smallest:
        down += 1
    if np.float32(_across(down, aspect) * down) > largest:
        down -= 1
    across = _across(down, aspect)
    is_inside = 0 < across <= width and 0 < down <= height
    is_inside = is_inside and smallest <= np.float32(across * down) <= largest
    return (across, down) if is_inside else None


def _across(height: int, aspect: np.float32) -> int:
    """Return the width of a crop of this height, rounded half to even."""
    return int(np.rint(np.float32(height) * aspect))


def resize_bicubic(pixels: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Return an image at another size: Keys' cubic kernel over 4 x 4 pixels at any scale, not clamped.

    Weights of pixels beyond the border are zero, and the rest are normalized. Values may lie outside of 0 to 255.

    Args:
        pixels: Y x X x C.
        size: Height and width in pixels.
    """
    rows, row_weights = _taps(pixels.shape[0], size[0])
    columns, column_weights = _taps(pixels.shape[1], size[1])
    values = _weighted_sum(pixels, rows, row_weights, axis=0)
    return _weighted_sum(values, columns, column_weights, axis=1)


def _weighted_sum(
    values: npt.NDArray[np.uint8] | npt.NDArray[np.float32],
    index: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float32],
    *,
    axis: int,
) -> npt.NDArray[np.float32]:
    shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
    total = values.take(index[0], axis=axis) * weights[0].reshape(shape)
    for tap in range(1, 4):
        total += values.take(index[tap], axis=axis) * weights[tap].reshape(shape)
    return total


@cache
def _kernel() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the cubic kernel at 0 to 1, and at 1 to 2, in 1,025 steps each."""
    a, near = float(_SHARPNESS), np.arange(_TABLE + 1, dtype=np.float64) / _TABLE
    far = near + 1
    inner = ((a + 2) * near - (a + 3)) * near * near + 1
    outer = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    return inner.astype(np.float32), outer.astype(np.float32)


def _taps(length: int, wanted: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the index and the weight of the four pixels of each output pixel along an axis, each 4 x `wanted`."""
    scale = np.float32(length) / np.float32(wanted)
    where = (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    first = np.floor(where)
    offset = np.rint((where - first) * np.float32(_TABLE)).astype(np.int64)
    index = first.astype(np.int64) + np.arange(-1, 3)[:, None]
    inner, outer = _kernel()
    weights = np.stack(
        [outer[offset], inner[offset], inner[_TABLE - offset], outer[_TABLE - offset]]
    )
    weights = np.where((index >= 0) & (index < length), weights, np.float32(0))
    weights *= np.float32(1) / (weights[0] + weights[1] + weights[2] + weights[3])
    return index.clip(0, length - 1), weights
