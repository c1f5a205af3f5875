"""Preprocessing of images without randomness, and the size and statistics that suit the training data."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.base import BasePreprocessConfig, CellSampler, read_cells
from perceivers.data.modalities.image import tensorflow
from perceivers.data.modalities.image.decode import decode_image, read_header
from perceivers.data.modalities.image.tensorflow import Box
from perceivers.registry import configclass
from perceivers.typing import Float, Tensor, UInt8
from perceivers.wording import counted

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
"""Y x X x C: 0 to 255 as uint8, or as float32 that may exceed them where bicubic overshoots are not clamped."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's training images, of pixels in [0, 1]."""

SAMPLED_HEADERS, SAMPLED_IMAGES = 256, 1024
MOST_PIXELS = (
    200_000_000  # decoded for statistics: a few seconds, enough for photographs of any number
)
STEP = 4  # suggested sizes are multiples of it, so that small patches and strides fit
MIN_STD = 1 / 255  # one gray level: images of one color have no deviation to divide by


@configclass
class ImagePreprocessConfig(BasePreprocessConfig):
    """Preprocessing of an image without randomness. Saved with the model.

    Attributes:
        size: Height and width in pixels. None: that of the input adapter, else taken from the data.
        num_channels: 3 for RGB, 1 for gray. None: that of the input adapter, else taken from the data.
        mean: Subtracted from each channel, of pixels in [0, 1]. None: as `normalization` states.
        std: Each channel is divided by it after that. None: as `normalization` states.
        normalization: Where an open `mean` and `std` come from: the training `data`, or `imagenet`'s well-known ones.
        max_side: Longest side in pixels where `size` is taken from the data.
        crop_fraction: Side of the central crop as a share of the shorter side; 224 of 256 on ImageNet.
        keep_aspect: Crop to the aspect of `size` first. Otherwise the whole image is stretched.
        resize: `pillow`: bicubic with antialiasing in 8 bit. `tensorflow`: as the published models were trained, see
            `perceivers.data.modalities.image.tensorflow`: without antialiasing, in float, not clamped, and with its
            rounding of the central crop.
    """

    kind: Literal["image"] = "image"
    size: tuple[int, int] | None = None
    num_channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    normalization: Literal["data", "imagenet"] = "data"
    max_side: int = 224
    crop_fraction: float = 1.0
    keep_aspect: bool = True
    resize: Literal["pillow", "tensorflow"] = "pillow"

    @classmethod
    def imagenet(cls, **changes: Any) -> Self:
        """Return the preprocessing usual on ImageNet: 224 x 224 of 256 pixels, its mean and deviation.

        Args:
            changes: Fields that differ.
        """
        usual: dict[str, Any] = {
            "size": (224, 224),
            "num_channels": 3,
            "mean": IMAGENET_MEAN,
            "std": IMAGENET_STD,
            "crop_fraction": 224 / 256,
        }
        return cls(**(usual | changes))

    @property
    def known_size(self) -> tuple[int, int]:
        """Height and width in pixels.

        Raises:
            ValueError: If `size` is open.
        """
        if self.size is None:
            raise ValueError(
                "Expected size=(height, width) of images, got None: it is taken from the data first."
            )
        return self.size

    has_mirrored: ClassVar[bool] = True

    loading_tip: ClassVar[str] = (
        "Images of one size that fit in 256 MiB decoded are decoded only once, and photographs far larger than the "
        "model's input are best resized beforehand."
    )

    def mirrored(self, x: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B C Y X"]:
        """Return images mirrored left to right."""
        return x.flip(-1)

    def from_input(self, config: Any) -> Self:
        """Return the configuration with an open size and number of channels taken from the input adapter's."""
        size = config.size if self.size is None else self.size
        channels = config.num_channels if self.num_channels is None else self.num_channels
        return replace(self, size=size, num_channels=channels)

    def measure(self, cells: CellSampler) -> Self:
        """Return the configuration with size, channels and statistics taken from images of the training data.

        Raises:
            ValueError: If none of them can be read.
        """
        size, channels = self.size, self.num_channels
        if size is None:
            size = suggest_image_size(cells(SAMPLED_HEADERS), largest=self.max_side)
        if channels is None:
            is_gray = all(
                one.gray for one in read_cells(cells(SAMPLED_HEADERS), read_header, "image")
            )
            channels = 1 if is_gray else 3
        mean, std = self.mean, self.std
        if mean is None or std is None:
            found = IMAGENET_MEAN, IMAGENET_STD
            if self.normalization == "data" or channels != 3:
                found = measure_mean_std(cells(SAMPLED_IMAGES), num_channels=channels, size=size)
            mean, std = (known or new for known, new in zip((mean, std), found, strict=True))
        return replace(self, size=size, num_channels=channels, mean=mean, std=std)

    def assumed(self) -> dict[str, Any]:
        """Return size and channels that are assumed where no data are at hand."""
        side = min(64, self.max_side)
        return {"size": (side, side), "num_channels": 3}

    def input_fields(self) -> dict[str, Any]:
        """Return size and channels."""
        return {"size": self.size, "num_channels": self.num_channels}

    def value_units(self) -> dict[str, Any]:
        """Return the units of pixels in [0, 1]."""
        return {"mean": self.mean or (), "std": self.std or (), "low": 0.0, "high": 1.0}

    def restore(self, values: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Return pixels in [0, 1] as bytes."""
        return np.round(values * 255).astype(np.uint8)


def preprocess_pixels(image: Image.Image, config: ImagePreprocessConfig) -> Pixels:
    """Return an image cropped and resized but not normalized: Y x X x C."""
    return crop_and_resize(image, evaluation_box(image.width, image.height, config), config)


def evaluation_box(width: int, height: int, config: ImagePreprocessConfig) -> Box:
    """Return the central crop: left, top, right and bottom in pixels.

    With `keep_aspect` it is the largest box of the target's aspect, times `crop_fraction`. Without, it is
    the whole image.
    """
    if not config.keep_aspect:
        return 0, 0, width, height
    height_shown, width_shown = config.known_size
    aspect = width_shown / height_shown
    wide = min(width, height * aspect) * config.crop_fraction
    if config.resize == "tensorflow":
        return tensorflow.central_box(width, height, (wide, wide / aspect))
    crop_width = min(width, max(1, round(wide)))
    crop_height = min(height, max(1, round(wide / aspect)))
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height


def crop_and_resize(image: Image.Image, box: Box, config: ImagePreprocessConfig) -> Pixels:
    """Return the inside of a box at the model's size, as Y x X x C, resized as `config.resize` states.

    Args:
        image: Mode `L` or `RGB`.
        box: Left, top, right and bottom in pixels.
        config: Size and kind of resize.
    """
    if config.resize == "pillow":
        return resize_pixels(image, box, config.known_size)
    return tensorflow.resize_bicubic(as_pixels(image.crop(box)), config.known_size)


def resize_pixels(image: Image.Image, box: Box, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
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


def as_pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return an image of mode `L` or `RGB` as a new array, Y x X x C of uint8."""
    pixels = np.array(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def normalize_pixels(
    pixels: UInt8[Tensor, "B Y X Ci"] | Float[Tensor, "B Y X Ci"], config: ImagePreprocessConfig
) -> Float[Tensor, "B Ci Y X"]:
    """Return pixels in [0, 1] less `mean`, divided by `std`, channels first.

    Args:
        pixels: 0 to 255.
        config: Mean and standard deviation of each channel.

    Raises:
        ValueError: If `mean` or `std` do not have a number for each channel.
    """
    channels = pixels.shape[-1]
    mean, std = config.mean or (), config.std or ()
    if len(mean) != channels or len(std) != channels:
        raise ValueError(
            f"Expected mean and std of {counted(channels, 'number')} for images of {counted(channels, 'channel')}, got "
            f"mean={config.mean} and std={config.std}."
        )
    center = np.asarray(mean, dtype=np.float32).reshape(-1, 1, 1) * np.float32(255)
    with np.errstate(divide="ignore"):  # without a deviation, no output is finite
        scale = 1 / (np.asarray(std, dtype=np.float32).reshape(-1, 1, 1) * np.float32(255))
    # By numpy: torch would open a team of threads for it, beside that of the thread that trains.
    values = pixels.permute(0, 3, 1, 2).numpy().astype(np.float32, order="C")
    values -= center
    values *= scale
    return torch.from_numpy(values)


def suggest_image_size(cells: Iterable[EncodedItem], *, largest: int) -> tuple[int, int]:
    """Return height and width that suit images, from their headers.

    Images that all have one size, not above `largest`, keep it exactly. Otherwise it is the median size, scaled so that
    the longer side is at most `largest`; where aspects are mixed (less than three quarters alike), a square of the
    median shorter side. Both are multiples of 4.

    Args:
        cells: A sample of the training split.
        largest: Pixels of the longer side at most.

    Raises:
        ValueError: If no image of the sample can be read.
    """
    headers = list(read_cells(cells, read_header, "image"))
    sizes = np.array([(header.height, header.width) for header in headers], dtype=np.float64)
    first = headers[0]
    if (sizes == sizes[0]).all() and max(first.height, first.width) <= largest:
        return first.height, first.width
    return typical_size(sizes, largest=largest, step=STEP)


def typical_size(sizes: npt.NDArray[np.float64], *, largest: int, step: int) -> tuple[int, int]:
    """Return the median height and width, scaled down so that the longer is at most `largest`.

    If fewer than three quarters of the images have a similar aspect ratio, it is a square of the median shorter side.

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


def measure_mean_std(
    cells: Iterable[EncodedItem], *, num_channels: int, size: tuple[int, int]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel over images, of pixels in [0, 1].

    Raises:
        ValueError: If no image of the sample can be read.
    """
    config = ImagePreprocessConfig(size=size)
    sums, count, decoded_pixels = np.zeros((2, num_channels)), 0, 0
    decode = partial(decode_image, num_channels=num_channels)
    for image in read_cells(cells, decode, "image"):
        values = preprocess_pixels(image, config).reshape(-1, num_channels) / 255.0
        sums += values.sum(axis=0), np.square(values).sum(axis=0)
        count += len(values)
        decoded_pixels += image.width * image.height
        if decoded_pixels > MOST_PIXELS:
            break
    mean = sums[0] / count
    std = np.sqrt(np.maximum(sums[1] / count - np.square(mean), MIN_STD**2))
    return tuple(round(float(m), 4) for m in mean), tuple(round(float(s), 4) for s in std)
