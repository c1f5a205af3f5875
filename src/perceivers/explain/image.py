"""What a trained model attended to in one picture, as arrays on the picture's grid."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from PIL import Image

from perceivers.data.base import ImagePreprocessConfig
from perceivers.data.images import decode_image, preprocess_image
from perceivers.data.media import as_media
from perceivers.explain.reads import read_inputs
from perceivers.hub.checkpoint import Saved
from perceivers.tasks.classification import ClassificationTask
from perceivers.typing import Float, Tensor

__all__ = ["ImageExplanation", "explain_picture", "show_pixels"]

DRAWN = 512  # pixels of the longer side, for a picture that has them


@dataclass(frozen=True, kw_only=True)
class ImageExplanation:
    """One picture, what the model says about it, and where each read looked.

    Attributes:
        name: The name of the file.
        picture: The region that the model saw, rows x columns x 3, as finely as the file allows.
        label_names: All labels.
        probabilities: Of each label.
        attention: For each read, how many times its even share each cell of the grid got: T x rows x
            columns. 1 everywhere means that the model looked nowhere in particular.
        latents: Which latents `scores` is of.
        scores: For each read and latent, the scores before the softmax: T x L x rows x columns.
    """

    name: str
    picture: npt.NDArray[np.uint8]
    label_names: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]
    attention: npt.NDArray[np.float32]
    latents: tuple[int, ...]
    scores: npt.NDArray[np.float32]


def explain_picture(
    saved: Saved, file: Any, *, latents: int | Sequence[int] = 8
) -> ImageExplanation:
    """Return what a model attended to in a picture.

    Args:
        saved: What `perceivers.hub.checkpoint.load` returned, of a model that reads one picture.
        file: A path, a PIL image, or an array of rows x columns [x channels].
        latents: Whose scores to return: so many, spread evenly over the latent array, or these.

    Raises:
        ValueError: If the model does not read a single picture, or the file is missing or holds none.
    """
    modality, config = _only_picture(saved)
    image = decode_image(as_media(file, "the picture", Path()), num_channels=config.num_channels)
    array = preprocess_image(image, config)
    device = next(saved.model.parameters()).device
    chosen = _spread(latents, _num_latents(saved)) if isinstance(latents, int) else tuple(latents)
    outputs, reads = read_inputs(
        saved.model.eval(), {modality: array[None].to(device)}, latents=chosen
    )

    adapter: Any = saved.model.inputs[modality]
    rows, columns = adapter.grid(*config.size)
    order = getattr(saved.model, f"order_{modality}")
    share = _on_grid(torch.stack([read.share for read in reads]), order, rows)
    scores = _on_grid(torch.stack([read.scores for read in reads]), order, rows)
    task = saved.config.task
    assert task is not None  # checked with the modality
    probabilities = ClassificationTask(task).probabilities(outputs)[0]
    return ImageExplanation(
        name=Path(file).name if isinstance(file, str | Path) else "picture",
        picture=show_pixels(image, config),
        label_names=tuple(task.label_names),
        probabilities=probabilities.float().cpu().numpy(),
        attention=(share * (rows * columns)).numpy(),
        latents=chosen,
        scores=scores.numpy(),
    )


def show_pixels(image: Image.Image, config: ImagePreprocessConfig) -> npt.NDArray[np.uint8]:
    """Return the region that the model sees, for a person: rows x columns x 3, in more pixels if it has them."""
    height, width = config.size
    finer = min(image.height // height, image.width // width, math.ceil(DRAWN / max(config.size)))
    finer = max(finer, 1)
    array = preprocess_image(image, replace(config, size=(height * finer, width * finer)))
    mean, std = (torch.tensor(values)[:, None, None] for values in (config.mean, config.std))
    pixels = (array * std + mean).clamp(0, 1) * 255
    shown = rearrange(pixels.round().to(torch.uint8), "Ci Y X -> Y X Ci").numpy()
    return np.repeat(shown, 3, axis=2) if shown.shape[2] == 1 else shown[..., :3]


def _only_picture(saved: Saved) -> tuple[str, ImagePreprocessConfig]:
    """Return name and preprocessing of the one modality, a picture."""
    preprocess = saved.config.preprocess
    if len(preprocess) != 1 or saved.config.task is None:
        msg = (
            "Expected a classifier of single pictures to explain, got one saved with the inputs "
            f"{sorted(preprocess)} and task {type(saved.config.task).__name__} in {saved.folder}."
        )
        raise ValueError(msg)
    return next(iter(preprocess.items()))


def _num_latents(saved: Saved) -> int:
    """Return how many readers there are: latents, or the elements themselves in the baseline."""
    count: int | None = getattr(saved.config.model.encoder, "num_latents", None)
    if count is not None:
        return count
    (adapter,) = saved.model.inputs.values()
    return cast("int", adapter.num_elements)


def _spread(count: int, num_latents: int) -> tuple[int, ...]:
    """Return `count` latents spread evenly, or all of them if there are fewer."""
    count = max(min(count, num_latents), 1)
    return tuple(round((i + 0.5) * num_latents / count - 0.5) for i in range(count))


def _on_grid(
    elements: Float[Tensor, "... M"], order: Tensor | None, rows: int
) -> Float[Tensor, "... Y X"]:
    """Return values of elements where they stand in the picture, also after `permute`."""
    if order is not None:
        placed = torch.empty_like(elements)
        placed[..., order.cpu()] = elements
        elements = placed
    return rearrange(elements, "... (Y X) -> ... Y X", Y=rows)
