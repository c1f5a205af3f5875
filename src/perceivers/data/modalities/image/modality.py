"""Pictures as a modality: decoded upright, cropped, resized, augmented in training, normalized."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.base import DecodedValue, MissingValueError
from perceivers.data.modalities.image.augment import (
    ImageAugmentConfig,
    augment_pixels,
    check_crop,
)
from perceivers.data.modalities.image.decode import decode
from perceivers.data.modalities.image.preprocess import (
    ImagePreprocessConfig,
    Pixels,
    normalize_pixels,
    preprocess_pixels,
)
from perceivers.typing import Bool, Tensor


class ImageModality:
    """How cells become pictures. See `perceivers.data.modalities.base.Modality`.

    Args:
        preprocess: Size, crop and statistics.
        augment: What is random. None: nothing.

    Raises:
        ValueError: If `crop_scale` or `crop_ratio` are out of range, or something in `preprocess` is open.
    """

    has_clips = False

    def __init__(
        self, preprocess: ImagePreprocessConfig, augment: ImageAugmentConfig | None = None
    ) -> None:
        if augment is not None:
            check_crop(augment)
        mean, std = preprocess.mean, preprocess.std
        if preprocess.num_channels is None or mean is None or std is None:
            raise ValueError(
                "Expected num_channels, mean and std of images, got "
                f"{preprocess}: they are taken from the data first."
            )
        self.size, self.num_channels = preprocess.known_size, preprocess.num_channels
        self.mean, self.std = mean, std
        self.preprocess = preprocess
        self.augment = augment

    def decode(self, media: EncodedItem, *, clip_position: float | None = None) -> DecodedValue:  # noqa: ARG002
        """Return a picture of Pillow's, mode `L` or `RGB`.

        Args:
            media: A file, its bytes, or an array of uint8.
            clip_position: A picture has none.

        Raises:
            MissingValueError: If the cell is empty.
            ValueError: If it cannot be decoded.
        """
        if media.is_missing:
            raise MissingValueError(f"{media.name} is empty: expected a picture, got nothing.")
        decoded = decode(media, num_channels=self.num_channels)
        return DecodedValue(decoded.image, decoded.notes)

    def prepare(
        self,
        value: Image.Image,
        *,
        clip_position: float = 0.5,  # noqa: ARG002
        rng: np.random.Generator | None = None,
    ) -> Pixels:
        """Return the pixels that the model sees, Y x X x C of uint8.

        Args:
            value: Of `decode`.
            clip_position: A picture has none.
            rng: Where augmentation takes its chance from. None: nothing is random.
        """
        if self.augment is None or rng is None:
            return preprocess_pixels(value, self.preprocess)
        return augment_pixels(value, self.augment, self.preprocess, rng)

    def collate(self, samples: Sequence[Any]) -> tuple[Tensor, Bool[Tensor, "B 1"] | None]:
        """Return pictures as B x C x Y x X, normalized; and which of them are there, if some are missing."""
        there = [sample is not None for sample in samples]
        nothing = np.zeros((*self.size, self.num_channels), dtype=np.uint8)
        pixels = np.stack([nothing if sample is None else sample for sample in samples])
        values = normalize_pixels(torch.from_numpy(pixels), self.preprocess)
        if all(there):
            return values, None
        mask = torch.tensor(there)
        return values.masked_fill(~mask[:, None, None, None], 0.0), mask[:, None]


def image_from_pixels(pixels: Pixels) -> Image.Image:
    """Return kept pixels as a picture again. Faster than `Image.fromarray`, which matters for small ones."""
    height, width, channels = pixels.shape
    return Image.frombytes("L" if channels == 1 else "RGB", (width, height), pixels.tobytes())
