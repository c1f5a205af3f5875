"""Augmentation of images: Inception crop, flip and RandAugment, then the resize.

Reference: Perceiver IO (arXiv:2107.14795), appendix A and DeepMind's release: RandAugment acts on the crop in
8 bit, before the bicubic resize.
"""

import math
from typing import Literal, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from perceivers.data.modalities.image import tensorflow
from perceivers.data.modalities.image.preprocess import (
    ImagePreprocessConfig,
    Pixels,
    crop_and_resize,
    evaluation_box,
)
from perceivers.data.modalities.image.randaugment import randaugment
from perceivers.data.modalities.image.tensorflow import Box
from perceivers.registry import configclass

TRIES = 10

# RandAugment on a photograph of 12 megapixels would take seconds. A crop of at least four times the
# target's sides is first averaged down to at least twice of them; ImageNet's photographs never are.
KEPT_OVERSAMPLING = 2


@configclass
class ImageAugmentConfig:
    """Augmentation of an image in training.

    Attributes:
        crop_scale: Smallest and largest area of the Inception crop, as a share of the image. None: no crop.
        crop_ratio: Narrowest and widest aspect (width / height) of the crop.
        crop_sampler: `area`: area uniform, aspect log-uniform. `tensorflow`: height and aspect uniform, at least a
            tenth of the image, as the published models were trained.
        flip: Mirror half of the images left to right.
        turn: Turn by 0 or 180 degrees, square images also by 90 and 270. For images without an upper side, as from a
            microscope or a satellite.
        shift: Largest shift along each axis, as a share of the side; pixels from beyond the edge are mirrored.
        cutout: Side of a square around a random pixel that is set to the mean color, as a share of the shorter side.
        randaugment: Number of layers and magnitude (0 to 10) of RandAugment. None: off.
        mixup: Alpha of mixup's beta distribution. 0: off.
        cutmix: Whether CutMix is used. With mixup too, each gets half of every batch.
    """

    kind: Literal["image"] = "image"
    crop_scale: tuple[float, float] | None = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    crop_sampler: Literal["area", "tensorflow"] = "area"
    flip: bool = True
    turn: bool = False
    shift: float = 0.0
    cutout: float = 0.0
    randaugment: tuple[int, int] | None = None
    mixup: float = 0.0
    cutmix: bool = False

    def __post_init__(self) -> None:
        """Refuse shares that mean nothing."""
        for name in ("shift", "cutout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}.")


def augment_pixels(
    image: Image.Image,
    augment: ImageAugmentConfig,
    preprocess: ImagePreprocessConfig,
    generator: np.random.Generator,
) -> Pixels:
    """Return an image cropped at random, flipped, augmented and resized, not normalized: Y x X x C.

    Args:
        image: Mode `L` or `RGB`.
        augment: Augmentation.
        preprocess: Size in pixels.
        generator: Random numbers.

    Raises:
        ValueError: If `crop_scale`, `crop_ratio` or `randaugment` are out of range.
    """
    if augment.crop_scale is None:
        box = evaluation_box(image.width, image.height, preprocess)
    else:
        box = inception_box(image.width, image.height, augment, preprocess, generator)
    flip = augment.flip and generator.random() < 0.5
    if augment.randaugment is None:
        pixels = crop_and_resize(image, box, preprocess)
        return moved(pixels[:, ::-1] if flip else pixels, augment, preprocess, generator)
    crop = _cropped(image, box, preprocess)
    if flip:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    layers, magnitude = augment.randaugment
    crop = randaugment(crop, layers=layers, magnitude=magnitude, generator=generator)
    pixels = crop_and_resize(crop, (0, 0, crop.width, crop.height), preprocess)
    return moved(pixels, augment, preprocess, generator)


def moved(
    pixels: Pixels,
    augment: ImageAugmentConfig,
    preprocess: ImagePreprocessConfig,
    generator: np.random.Generator,
) -> Pixels:
    """Return an image of the model's size turned, shifted and with a square cut out, Y x X or Y x X x C.

    The same state of `generator` turns and shifts an image and its class map alike; only images have squares cut out.
    """
    height, width = pixels.shape[:2]
    if augment.turn:
        turns = int(generator.integers(4)) if height == width else 2 * int(generator.integers(2))
        pixels = np.rot90(pixels, turns)
    if augment.shift > 0:
        rows, columns = (_shifted(length, augment.shift, generator) for length in (height, width))
        pixels = pixels.take(rows, axis=0).take(columns, axis=1)
    if augment.cutout > 0 and pixels.ndim == 3:
        half = augment.cutout * min(height, width) / 2
        y, x = generator.integers(height), generator.integers(width)
        top, left = (max(0, round(center - half)) for center in (y, x))
        pixels = pixels.copy()
        mean = np.multiply(preprocess.mean or (0.5,), 255).round()
        pixels[top : round(y + half), left : round(x + half)] = mean.astype(pixels.dtype)
    return cast("Pixels", np.ascontiguousarray(pixels))


def _shifted(length: int, share: float, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return for each place the index of its pixel after a random shift; those beyond the edge are mirrored."""
    most = min(round(share * length), length - 1)
    places = np.abs(np.arange(length) + generator.integers(-most, most + 1))
    return np.minimum(places, 2 * (length - 1) - places)


def check_crop(augment: ImageAugmentConfig) -> None:
    """Refuse crops that mean nothing.

    Raises:
        ValueError: If `crop_scale` or `crop_ratio` are out of range.
    """
    scale, ratio = augment.crop_scale or (1.0, 1.0), augment.crop_ratio
    if not (0 < scale[0] <= scale[1] <= 1 and 0 < ratio[0] <= ratio[1]):
        raise ValueError(
            "Expected crop_scale=(smallest, largest) with 0 < smallest <= largest <= 1 and "
            f"crop_ratio=(narrowest, widest) with 0 < narrowest <= widest, got {scale} and {ratio}."
        )


def inception_box(
    width: int,
    height: int,
    augment: ImageAugmentConfig,
    preprocess: ImagePreprocessConfig,
    generator: np.random.Generator,
) -> Box:
    """Return a random box: left, top, right and bottom in pixels.

    Its area is uniform in `crop_scale` of the image's, its aspect log-uniform in `crop_ratio`, relative to
    the aspect that evaluation shows: the target's, or the image's where it is stretched. After 10 boxes
    that do not fit, it is the largest central one with an aspect within the limits. With the sampler `tensorflow`, see
    `perceivers.data.modalities.image.tensorflow.random_box`; where it finds none, or the whole image, it is
    the crop of evaluation.

    Args:
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        augment: Scale and ratio.
        preprocess: The target's size.
        generator: Random numbers.

    Raises:
        ValueError: If `crop_scale` or `crop_ratio` are out of range.
    """
    check_crop(augment)
    scale, ratio = augment.crop_scale or (1.0, 1.0), augment.crop_ratio
    size = preprocess.known_size
    shown = size[1] / size[0] if preprocess.keep_aspect else width / height
    if augment.crop_sampler == "tensorflow":
        aspects = ratio[0] * shown, ratio[1] * shown
        box = tensorflow.random_box(
            width, height, generator, areas=scale, aspects=aspects, tries=TRIES
        )
        is_whole = box is None or box == (0, 0, width, height)
        return evaluation_box(width, height, preprocess) if is_whole or box is None else box
    lowest, highest = math.log(ratio[0] * shown), math.log(ratio[1] * shown)
    for _ in range(TRIES):
        area = width * height * generator.uniform(*scale)
        aspect = math.exp(generator.uniform(lowest, highest))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left = int(generator.integers(width - crop_width + 1))
            top = int(generator.integers(height - crop_height + 1))
            return left, top, left + crop_width, top + crop_height
    aspect = math.exp(min(max(math.log(width / height), lowest), highest))
    crop_width = max(1, min(width, round(height * aspect)))
    crop_height = max(1, min(height, round(width / aspect)))
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height


def _cropped(image: Image.Image, box: Box, preprocess: ImagePreprocessConfig) -> Image.Image:
    """Return the inside of a box, averaged down where it is far larger than needed and resized with antialiasing."""
    size = preprocess.known_size
    factor = min((box[3] - box[1]) // size[0], (box[2] - box[0]) // size[1]) // KEPT_OVERSAMPLING
    is_reduced = factor > 1 and preprocess.resize == "pillow"
    return image.reduce(factor, box) if is_reduced else image.crop(box)
