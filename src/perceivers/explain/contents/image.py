"""View of images: attention over the gray image."""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from perceivers.data.modalities.image.modality import ImagePreprocessConfig
from perceivers.data.modalities.image.preprocess import preprocess_pixels
from perceivers.explain.contents import base, plot

TILE = 1.5  # inches of the scores of a latent
SHOWN = 512  # pixels of the longer side, for an image that has them


@dataclass(frozen=True, kw_only=True)
class ImageContent(base.Content):
    """Region of an image that the model received: rows x columns x 3, in the resolution of the file."""

    array_names: ClassVar = {"pixels": "image"}

    pixels: npt.NDArray[np.uint8]

    def to_json(self, view: base.View) -> base.Json:
        """Return the image as PNG."""
        height, width = self.pixels.shape[:2]
        known = {"width": width, "height": height, "image": base.image_url(self.pixels)}
        return {"media": "image", "extent": [1.0, 1.0], **known}

    def size(self, view: base.View) -> tuple[float, float]:
        """Return a size with panels of equal area, whatever the shape of the image."""
        return plot.panels_size(view, 2 / self._tall, 2 * self._tall)

    def draw(self, figure: Any, view: base.View) -> None:
        """Draw the image and each map over it."""
        plot.draw_panels(figure, view, self.pixels, self.pixels.shape[1::-1])

    def thumbnail(self) -> Image.Image:
        """Return the image in a small size."""
        return plot.sized_image(self.pixels)

    def latents_size(self, view: base.View) -> tuple[float, float]:
        """Return a size with a row for each cross-attention and a column for each latent."""
        rows, columns = view.scores.shape[:2]
        return columns * (TILE / self._tall + 0.08) + 1.5, rows * (TILE * self._tall + 0.1) + 0.6

    def draw_latents(self, figure: Any, view: base.View, latents: tuple[int, ...]) -> None:
        """Draw the scores before the softmax, each on its own scale, as in figure 3 of arXiv:2103.03206."""
        grid = figure.subplots(*view.scores.shape[:2], squeeze=False)
        rows, columns = view.scores.shape[2:]
        height, width = self.pixels.shape[:2]
        for (read, place), axes in np.ndenumerate(grid):
            scores = view.scores[read, place]
            seen = scores[np.isfinite(scores)]
            low, high = np.percentile(seen, [1, 99]) if seen.size else (0.0, 1.0)
            limits = {"vmin": low, "vmax": max(high, low + 1e-6)}
            aspect = (height / rows) / (width / columns)
            plot.lay_image(axes, scores, aspect=aspect, interpolation="nearest", **limits)
            if read == 0:
                axes.set_title(f"latent {latents[place]}", color=plot.QUIET, fontsize=9)
            if place == 0:
                plot.name_beside(axes, f"cross-attention {read + 1}\nof {len(grid)}")
        text = "Scores of single latents before the softmax, each on its own scale."
        figure.supxlabel(text, fontsize=8.5, color=plot.QUIET)

    @property
    def _tall(self) -> float:
        """Square root of height by width; long images keep some room."""
        height, width = self.pixels.shape[:2]
        return min(max(height / width, 0.25), 4.0) ** 0.5


def shown_pixels(image: Image.Image, config: ImagePreprocessConfig) -> npt.NDArray[np.uint8]:
    """Return the region that the model receives, rows x columns x 3, in a finer resolution if the image has it."""
    height, width = config.known_size
    finer = min(image.height // height, image.width // width, math.ceil(SHOWN / max(height, width)))
    finer = max(finer, 1)
    config = replace(config, size=(height * finer, width * finer), resize="pillow")
    shown = preprocess_pixels(image, config).astype(np.uint8)
    return np.repeat(shown, 3, axis=2) if shown.shape[2] == 1 else shown[..., :3]


def _image(given: base.ModelInput) -> ImageContent:
    return ImageContent(pixels=shown_pixels(given.value, given.config))


def _first_frame(given: base.ModelInput) -> ImageContent:
    """Return the first frame of a pair, in the window that the model received."""
    pixels = np.rint(np.clip((given.x[0] + 1) / 2, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    return ImageContent(pixels=np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels)


base.register_view("image", _image)
base.register_view("frame_pair", _first_frame)
