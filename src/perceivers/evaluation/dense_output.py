"""What a model says of every pixel, as a picture that can be kept."""

import colorsys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from perceivers.data.base import atomic_write
from perceivers.evaluation.prediction import Prediction
from perceivers.tasks.dense import ImageToImageTask, SegmentationTask
from perceivers.typing import Float, Tensor

__all__ = ["pixel_predictions", "save_pictures"]

_TURN = 0.618034  # of the color wheel from class to class, so that neighbors differ


def pixel_predictions(
    names: Sequence[str],
    task: SegmentationTask | ImageToImageTask,
    outputs: Float[Tensor, "B O K"],
    palette: Sequence[int] = (),
) -> Iterator[Prediction]:
    """Yield a picture for each sample: of classes with a palette, or of values. And of what it consists.

    Args:
        names: Of the samples.
        task: Which the model has learned.
        outputs: Of its queries.
        palette: Red, green and blue of each class. Colors are made up for those that have none.
    """
    values = task.picture(task.probabilities(outputs)).float().cpu()
    if isinstance(task, ImageToImageTask):
        for name, one in zip(names, values, strict=True):
            pixels = one.mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
            image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
            yield Prediction(name=name, values={"mean": one.mean().item()}, picture=image)
        return
    colors = _colors(len(task.names), palette)
    for name, one in zip(names, values.argmax(dim=1), strict=True):
        shares = one.flatten().bincount(minlength=len(task.names)) / one.numel()
        image = Image.fromarray(one.to(torch.uint8).numpy())
        image.putpalette(colors)
        told = dict(zip(task.names, shares.tolist(), strict=True))
        yield Prediction(name=name, values=told, picture=image)


def save_pictures(predictions: Sequence[Prediction], folder: Path) -> list[Path]:
    """Write the picture of each prediction as PNG, called like the file that it is of, and return the paths.

    Files of one name get numbers. Each appears whole or not at all.

    Raises:
        ValueError: If a prediction has no picture.
        OSError: If one cannot be written.
    """
    if any(one.picture is None for one in predictions):
        msg = (
            "--save is for runs that answer with pictures, flow or reconstructions, and this one does not. The result "
            "itself goes to a file by --out."
        )
        raise ValueError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for place, one in enumerate(predictions):
        stem = Path(one.name).stem
        path = folder / f"{stem}.png"
        if path in written:
            path = folder / f"{stem}-{place}.png"
        picture: Any = one.picture
        with atomic_write(path) as new:
            picture.save(new, format="PNG")
        written.append(path)
    return written


def _colors(count: int, palette: Sequence[int]) -> list[int]:
    """Return red, green and blue of each class; of those without, colors far apart. Class 0 is then black."""
    colors = list(palette[: 3 * count])
    for number in range(len(colors) // 3, count):
        rgb = colorsys.hsv_to_rgb(number * _TURN % 1.0, 0.75, 1.0) if number else (0.0, 0.0, 0.0)
        colors += [round(255 * part) for part in rgb]
    return colors
