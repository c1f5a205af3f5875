"""Images drawn and completed by a run of an autoregressive model of pixels."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from perceivers.data.base import atomic_write
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.image.decode import decode_image
from perceivers.data.modalities.image.preprocess import as_pixels
from perceivers.evaluation.generate import autoregressive_model, generate_tokens
from perceivers.evaluation.generation_formats import (
    SampleFormat,
    SampleSettings,
    register_format,
    vocabulary_of,
)
from perceivers.models.generate import GenerationConfig
from perceivers.tasks.pixel_vocabulary import PixelVocabulary
from perceivers.wording import counted

if TYPE_CHECKING:
    from perceivers.evaluation.predict import Predictor

Pixels = npt.NDArray[np.uint8]

_GAP, _GRID_SIDE = 1, 512  # pixels between images; a grid is enlarged up to this width and height


def generate_images(
    predictor: "Predictor",
    prompt: Any = None,
    *,
    count: int = 1,
    config: GenerationConfig | None = None,
) -> Pixels:
    """Return images drawn by a run of the recipe `image_ar`, n x Y x X x C, 0 to 255.

    Args:
        predictor: The run.
        prompt: First rows of the images, which are completed: a file, or an array of y x X or y x X x C of uint8.
            None: images are drawn from their first pixel on.
        count: Number of images, n.
        config: Temperature, selection of levels, seed, and numbers of latents.

    Raises:
        ValueError: If the run is another one, the prompt has another width or no row is left to draw, or a number is
            out of range.
        OSError: If the prompt cannot be read.
    """
    autoregressive_model(predictor)  # refuses other runs
    vocabulary = _vocabulary(predictor)
    if count < 1:
        raise ValueError(f"Expected to draw at least one image, got count={count}.")
    begun = _tokens(prompt, vocabulary)
    left = math.prod(vocabulary.shape) - len(begun)
    steps = generate_tokens(predictor, [begun] * count, length=left, config=config)
    drawn = torch.tensor(list(steps)).T
    return vocabulary.images(
        torch.cat([torch.tensor([begun] * count).long(), drawn], dim=1)
    ).numpy()


def image_grid(images: Pixels) -> Image.Image:
    """Return images side by side in one image, in a square as far as possible, pixels enlarged.

    Args:
        images: n x Y x X x C, gray or RGB.
    """
    number, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(number))
    rows = math.ceil(number / columns)
    cell_height, cell_width = height + _GAP, width + _GAP
    grid = np.full(
        (rows * cell_height - _GAP, columns * cell_width - _GAP, channels), 128, np.uint8
    )
    for place, image in enumerate(images):
        top, left = place // columns * cell_height, place % columns * cell_width
        grid[top : top + height, left : left + width] = image
    factor = max(_GRID_SIDE // max(grid.shape[:2]), 1)
    grid = grid.repeat(factor, axis=0).repeat(factor, axis=1)
    return Image.fromarray(grid[..., 0] if channels == 1 else grid)


def _vocabulary(predictor: "Predictor") -> PixelVocabulary:
    """Return the vocabulary of a run.

    Raises:
        ValueError: If it is not of pixels.
    """
    vocabulary = vocabulary_of(predictor)
    if not isinstance(vocabulary, PixelVocabulary):
        raise ValueError(
            f"{predictor.folder} was trained on {vocabulary.units} and draws no images. Expected a run of the recipe "
            "image_ar: perceivers fit DATA --recipe image_ar."
        )
    return vocabulary


def _tokens(prompt: Any, vocabulary: PixelVocabulary) -> list[int]:
    """Return the tokens of the first rows of an image.

    Raises:
        ValueError: If they do not fit the images of the vocabulary.
    """
    if prompt is None:
        return []
    height, width, channels = vocabulary.shape
    if isinstance(prompt, str | Path):
        item = EncodedItem(str(prompt), path=Path(prompt))
    else:
        pixels = np.asarray(prompt)
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or not pixels.size:
            raise ValueError(
                "Expected the first rows of an image as an array of y x X or y x X x C of uint8, got "
                f"{pixels.dtype} of shape {pixels.shape}."
            )
        item = EncodedItem("the prompt", array=pixels)
    image = decode_image(item, num_channels=channels)
    if image.width != width or image.height >= height:
        raise ValueError(
            f"{item.name} has {counted(image.height, 'row')} of {image.width} pixels. Expected the first 1 to "
            f"{height - 1} rows of {width} pixels of an image of {height} x {width} pixels, which are completed: "
            "resize and crop it first."
        )
    values = torch.from_numpy(as_pixels(image)).permute(2, 0, 1)[None].float() / 255
    plain = PixelVocabulary(levels=vocabulary.levels)
    return plain.tokens(values, None)[0][0].tolist()


class PixelFormat(SampleFormat):
    """First rows of an image as prompts; the result are complete images, written side by side as one image."""

    suffixes: ClassVar[tuple[str, ...]] = (".png",)

    def sample(self, prompt: Any, settings: SampleSettings) -> Pixels:
        """Return images, n x Y x X x C. Arguments and errors as of `generate_images`.

        Raises:
            ValueError: If a length or quantiles are given: images are always complete.
        """
        if settings.length not in (None, "all") or settings.quantiles:
            raise ValueError(
                "Images are drawn to their last pixel and have no quantiles: expected no length (--length all) and no "
                f"quantiles, got {settings.length} and {settings.quantiles}."
            )
        count = 1 if settings.count is None else settings.count
        return generate_images(self.predictor, prompt, count=count, config=settings.config)

    def samples_json(self, samples: Pixels) -> dict[str, Any]:
        """Return the values of the pixels."""
        return {"images": samples.tolist()}

    def save(self, samples: Pixels, path: Path) -> str:
        """Write the images side by side."""
        with atomic_write(path) as new:
            image_grid(samples).save(new, format="png")
        return counted(len(samples), "image")


register_format("pixels", PixelFormat)
