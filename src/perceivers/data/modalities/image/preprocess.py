"""Pictures become arrays without chance, and the data say what size and statistics suit them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from perceivers.data.base import ImagePreprocessConfig, MapStyleSplit
from perceivers.data.modalities.image.decode import (
    Header,
    decode_image,
    read_header,
)
from perceivers.typing import Float, Tensor, UInt8

Box = tuple[int, int, int, int]
Pixels = npt.NDArray[np.uint8]

MOST_PIXELS = (
    200_000_000  # decoded for statistics: a few seconds, enough for photographs of any number
)
STEP = 4  # suggested sizes are multiples of it, so that small patches and strides fit
MIN_STD = 1 / 255  # one gray level: pictures of one color have no deviation to divide by


def preprocess_image(image: Image.Image, config: ImagePreprocessConfig) -> Float[Tensor, "Ci Y X"]:
    """Return a picture as the model takes it in evaluation and prediction.

    Args:
        image: Mode `L` or `RGB`, as `decode_image` returns it.
        config: Size, crop and statistics.

    Raises:
        ValueError: If `mean` or `std` do not have a number for each channel.
    """
    pixels = torch.from_numpy(preprocess_pixels(image, config))
    return normalize_pixels(pixels[None], config)[0]


def preprocess_pixels(image: Image.Image, config: ImagePreprocessConfig) -> Pixels:
    """Return a picture cropped and resized but not normalized: Y x X x C, uint8."""
    return resize_pixels(image, evaluation_box(image.width, image.height, config), config.size)


def evaluation_box(width: int, height: int, config: ImagePreprocessConfig) -> Box:
    """Return the central crop: left, top, right and bottom in pixels.

    With `keep_aspect` it is the largest box of the target's aspect, times `crop_fraction`. Without, it is
    the whole picture.
    """
    if not config.keep_aspect:
        return 0, 0, width, height
    aspect = config.size[1] / config.size[0]
    wide = min(width, height * aspect) * config.crop_fraction
    crop_width = min(width, max(1, round(wide)))
    crop_height = min(height, max(1, round(wide / aspect)))
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height


def resize_pixels(image: Image.Image, box: Box, size: tuple[int, int]) -> Pixels:
    """Return the inside of a box at another size, as Y x X x C of uint8.

    Bicubic with antialiasing (Pillow's), in 8 bit. A box that has the size already is copied unchanged.

    Args:
        image: Mode `L` or `RGB`.
        box: Left, top, right and bottom in pixels.
        size: Height and width in pixels.
    """
    height, width = size
    if (box[2] - box[0], box[3] - box[1]) == (width, height):
        image = image if image.size == (width, height) else image.crop(box)
    else:
        image = image.resize((width, height), Image.Resampling.BICUBIC, box=box)
    return as_pixels(image)


def as_pixels(image: Image.Image) -> Pixels:
    """Return a picture of mode `L` or `RGB` as a new array, Y x X x C of uint8."""
    pixels = np.array(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def normalize_pixels(
    pixels: UInt8[Tensor, "B Y X Ci"], config: ImagePreprocessConfig
) -> Float[Tensor, "B Ci Y X"]:
    """Return pixels in [0, 1] less `mean`, divided by `std`, channels first.

    Args:
        pixels: 0 to 255.
        config: Where `mean` and `std` stand.

    Raises:
        ValueError: If `mean` or `std` do not have a number for each channel.
    """
    channels = pixels.shape[-1]
    if len(config.mean) != channels or len(config.std) != channels:
        raise ValueError(
            f"Expected mean and std of {channels} numbers for pictures of {channels} channels, got "
            f"mean={config.mean} and std={config.std}."
        )
    mean = np.asarray(config.mean, dtype=np.float32).reshape(-1, 1, 1) * np.float32(255)
    scale = 1 / (np.asarray(config.std, dtype=np.float32).reshape(-1, 1, 1) * np.float32(255))
    # By numpy: torch would open a team of threads for it, beside that of the thread that trains.
    values = pixels.permute(0, 3, 1, 2).numpy().astype(np.float32, order="C")
    values -= mean
    values *= scale
    return torch.from_numpy(values)


def suggest_image_size(
    records: MapStyleSplit, column: str, *, largest: int, sample: int = 256
) -> tuple[int, int]:
    """Return height and width that suit the pictures, from an evenly spaced sample of their headers.

    Pictures that all have one size, not above `largest`, keep it exactly. Otherwise it is the median size,
    scaled so that the longer side is at most `largest`; where shapes are mixed (less than three quarters
    alike), a square of the median shorter side. Both are multiples of 4.

    Args:
        records: A split.
        column: Where the pictures stand.
        largest: Pixels of the longer side at most.
        sample: How many headers are read.

    Raises:
        ValueError: If no picture of the sample can be read.
    """
    headers = _headers(records, column, sample)
    sizes = np.array([(header.height, header.width) for header in headers], dtype=np.float64)
    first = headers[0]
    if (sizes == sizes[0]).all() and max(first.height, first.width) <= largest:
        return first.height, first.width
    return typical_size(sizes, largest=largest, step=STEP)


def typical_size(sizes: npt.NDArray[np.float64], *, largest: int, step: int) -> tuple[int, int]:
    """Return the median height and width, scaled down so that the longer is at most `largest`.

    Where shapes are mixed (less than three quarters alike), it is a square of the median shorter side.

    Args:
        sizes: Heights and widths in pixels, n x 2.
        largest: Pixels of the longer side at most.
        step: Both are multiples of it.
    """
    height, width = np.median(sizes, axis=0)
    aspects = np.log(sizes[:, 1] / sizes[:, 0])
    if (np.abs(aspects - np.median(aspects)) < np.log(1.25)).mean() < 0.75:  # 4:3 and 3:2 are alike
        height = width = np.median(sizes.min(axis=1))
    scale = min(1.0, largest / max(height, width))
    most = max(step, largest // step * step)

    def rounded(length: float) -> int:
        return min(most, max(step, round(length * scale / step) * step))

    return rounded(float(height)), rounded(float(width))


def suggest_num_channels(records: MapStyleSplit, column: str, *, sample: int = 256) -> int:
    """Return 1 if every picture of a sample is gray, else 3.

    Raises:
        ValueError: If no picture of the sample can be read.
    """
    return 1 if all(header.gray for header in _headers(records, column, sample)) else 3


def measure_mean_std(
    records: MapStyleSplit,
    column: str,
    *,
    num_channels: int,
    size: tuple[int, int] = (64, 64),
    sample: int = 1024,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel over a sample of pictures, of pixels in [0, 1].

    Args:
        records: The training split.
        column: Where the pictures stand.
        num_channels: 1 or 3.
        size: Height and width at which they are measured, best those of the model: shrinking averages.
        sample: How many pictures are decoded, evenly spaced. Fewer where they are large photographs.

    Raises:
        ValueError: If no picture of the sample can be read.
    """
    config = ImagePreprocessConfig(size=size, num_channels=num_channels, crop_fraction=1.0)
    sums = np.zeros((2, num_channels))
    count, failure = 0, _Failure()
    decoded_pixels = 0
    for media in _sampled(records, column, sample, failure):
        if decoded_pixels > MOST_PIXELS:
            break
        with failure:
            image = decode_image(media, num_channels=num_channels)
            decoded_pixels += image.width * image.height
            pixels = preprocess_pixels(image, config)
            values = pixels.reshape(-1, num_channels) / 255.0
            sums += values.sum(axis=0), np.square(values).sum(axis=0)
            count += len(values)
    if not count:
        failure.complain(column)
    mean = sums[0] / count
    std = np.sqrt(np.maximum(sums[1] / count - np.square(mean), MIN_STD**2))
    return tuple(round(float(m), 4) for m in mean), tuple(round(float(s), 4) for s in std)


class _Failure:
    """Remembers the first picture of a sample that could not be read, and goes on to the next."""

    def __init__(self) -> None:
        self.first: Exception | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: object, __: object) -> bool:
        if isinstance(error, (ValueError, OSError)):
            self.first = self.first or error
            return True
        return False

    def complain(self, column: str) -> None:
        msg = f"No picture of a sample of column '{column}' can be read. "
        raise ValueError(msg + str(self.first or "It holds no rows."))


def _sampled(records: MapStyleSplit, column: str, sample: int, failure: _Failure) -> Iterator[Any]:
    """Yield the cells of evenly spaced rows, in an order that does not go through the classes."""
    indices = np.unique(np.linspace(0, max(len(records) - 1, 0), sample).round().astype(int))
    for index in np.random.default_rng(0).permutation(indices[: len(records)]):
        cell = None
        with failure:
            cell = records.row(int(index))[column]
        if cell is not None:
            yield cell


def _headers(records: MapStyleSplit, column: str, sample: int) -> list[Header]:
    failure = _Failure()
    headers: list[Header] = []
    for media in _sampled(records, column, sample, failure):
        with failure:
            headers.append(read_header(media))
    if not headers:
        failure.complain(column)
    return headers
