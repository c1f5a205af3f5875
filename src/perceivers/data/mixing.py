"""Mixup and CutMix: two pictures become one, and so do their labels.

Source: mixup (arXiv:1710.09412), CutMix (arXiv:1905.04899) as DeepMind's release of Perceiver IO uses them:
two pictures are read for each one that the model sees, and with both kinds on each makes half a batch.
"""

from dataclasses import replace

import numpy as np
import torch
from torch.nn.functional import one_hot

from perceivers.data.base import Batch, ImageAugmentConfig
from perceivers.typing import Float, Tensor

__all__ = ["mix", "mixes"]


def mixes(augment: ImageAugmentConfig) -> bool:
    """Return whether pictures are mixed at all."""
    return augment.mixup > 0 or augment.cutmix


def mix(
    batch: Batch, augment: ImageAugmentConfig, num_classes: int, generator: np.random.Generator
) -> Batch:
    """Return a batch of half the size: sample i is mixed from samples i and i + half of the given one.

    An odd sample at the end is left out. Without mixup and CutMix the batch comes back as it is. Each mixed
    sample draws its own share.

    Args:
        batch: Pictures, B x C x Y x X, with targets: class indices, or shares of each class.
        augment: Alpha of mixup, and whether there is CutMix.
        num_classes: Width of the shares in the new targets.
        generator: Where chance comes from.

    Raises:
        ValueError: If the batch has no targets, fewer than two samples, or inputs that are not pictures.
    """
    if not mixes(augment):
        return batch
    half = len(batch) // 2
    if batch.targets is None or half == 0:
        msg = (
            "Mixup and CutMix need labeled pictures, at least two in a batch; got "
            f"{len(batch)} with {'no ' if batch.targets is None else ''}labels."
        )
        raise ValueError(msg)
    odd = [name for name, pictures in batch.inputs.items() if pictures.ndim != 4]
    if odd or batch.masks:
        msg = f"Mixup and CutMix mix pictures (B x C x Y x X); got other inputs: {odd or [*batch.masks]}."
        raise ValueError(msg)

    height, width = next(iter(batch.inputs.values())).shape[-2:]
    num_mixup = half if not augment.cutmix else half // 2 if augment.mixup > 0 else 0
    boxes = [_cutmix_box(height, width, generator) for _ in range(half - num_mixup)]
    drawn = generator.beta(augment.mixup, augment.mixup, size=num_mixup) if num_mixup else []
    kept = [
        1 - (bottom - top) * (right - left) / (height * width) for top, left, bottom, right in boxes
    ]
    shares = torch.tensor([*drawn, *kept], dtype=torch.float32)

    targets = _shares(batch.targets[: 2 * half], num_classes)
    return replace(
        batch,
        inputs={
            name: _mix_pictures(pictures[: 2 * half], shares[:num_mixup], boxes)
            for name, pictures in batch.inputs.items()
        },
        targets=targets[:half].lerp(targets[half:], 1 - shares[:, None]),
        names=tuple(
            f"{first} + {second}"
            for first, second in zip(batch.names[:half], batch.names[half : 2 * half], strict=True)
        ),
    )


def _cutmix_box(
    height: int, width: int, generator: np.random.Generator
) -> tuple[int, int, int, int]:
    """Return top, left, bottom and right of a box whose area is uniform before the edges cut it."""
    side = generator.random() ** 0.5
    y, x = generator.random() * height, generator.random() * width
    top, bottom = round(y - side * height / 2), round(y + side * height / 2)
    left, right = round(x - side * width / 2), round(x + side * width / 2)
    return max(0, top), max(0, left), min(height, bottom), min(width, right)


def _mix_pictures(
    pictures: Float[Tensor, "B Ci Y X"],
    shares: Float[Tensor, " B1"],
    boxes: list[tuple[int, int, int, int]],
) -> Float[Tensor, "B2 Ci Y X"]:
    """Blend the first pairs by their shares and cut boxes into the others."""
    first, second = pictures.chunk(2)
    blended = len(shares)
    mixed = first.clone()
    mixed[:blended] = second[:blended].lerp(first[:blended], shares.view(-1, 1, 1, 1))
    for sample, (top, left, bottom, right) in enumerate(boxes, start=blended):
        mixed[sample, :, top:bottom, left:right] = second[sample, :, top:bottom, left:right]
    return mixed


def _shares(targets: Tensor, num_classes: int) -> Float[Tensor, "B K"]:
    """Return class indices as one-hot shares. Shares stay as they are."""
    if targets.ndim == 1:
        return one_hot(targets, num_classes).float()
    return targets.float()
