"""Mixup and CutMix: two samples and their labels become one.

Two samples are read per mixed one, and with both kinds on each makes half a batch. Audio, video and series are blended
like images; unordered elements (points, arrays) are drawn from both samples by their shares.

Reference: mixup (arXiv:1710.09412) and CutMix (arXiv:1905.04899), as DeepMind's release of Perceiver IO uses them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch.nn.functional import one_hot

from perceivers.data.base import Batch
from perceivers.data.registry import find_modality
from perceivers.typing import Bool, Float, Tensor


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Configuration of mixing.

    Attributes:
        mixup: Alpha of mixup's beta distribution. 0: off.
        cutmix: Replace boxes of images.
        chosen: Modalities whose elements are drawn from both samples; the others are blended.
    """

    mixup: float = 0.0
    cutmix: bool = False
    chosen: frozenset[str] = field(default_factory=frozenset[str])


def mixing_of(augment: Mapping[str, Any]) -> Mixing | None:
    """Return the mixing configuration of these modalities, None if none enables it. If one does, all are mixed.

    Raises:
        ValueError: If a modality cannot be mixed, or CutMix is combined with other modalities than images.
    """
    mixup = max((getattr(part, "mixup", 0.0) for part in augment.values()), default=0.0)
    cutmix = any(getattr(part, "cutmix", False) for part in augment.values())
    if not mixup and not cutmix:
        return None
    ways = {name: find_modality(part).mixup for name, part in augment.items()}
    if None in ways.values() or (cutmix and any(part.kind != "image" for part in augment.values())):
        kinds = ", ".join(f"{name} ({part.kind})" for name, part in augment.items())
        raise ValueError(
            "Mixup mixes images, audio, video, series, points and arrays, and CutMix images only; got "
            f"{kinds}. Switch them off with --augment.NAME.mixup 0."
        )
    chosen = frozenset(name for name, way in ways.items() if way == "share")
    return Mixing(mixup=mixup, cutmix=cutmix, chosen=chosen)


def mix(
    batch: Batch,
    mixing: Mixing,
    num_classes: int | Mapping[str, int] | None,
    generator: np.random.Generator,
) -> Batch:
    """Return a batch of half the size: sample i is mixed from samples i and i + half of the given one.

    An odd last sample is dropped. Each mixed sample draws its share. Of several tasks, each target is mixed, and
    unknown if it is unknown in either sample.

    `num_classes` is the width of the new targets if the given ones are indices; of several tasks, of each.

    Raises:
        ValueError: If the batch has no targets or fewer than two samples.
    """
    half = len(batch) // 2
    if batch.targets is None or half == 0:
        raise ValueError(
            "Mixup and CutMix need labeled samples, at least two in a batch; got "
            f"{len(batch)} with {'no ' if batch.targets is None else ''}labels."
        )
    num_mixup = half if not mixing.cutmix else half // 2 if mixing.mixup > 0 else 0
    height, width = next(iter(batch.inputs.values())).shape[-2:] if mixing.cutmix else (1, 1)
    boxes = [_cutmix_box(height, width, generator) for _ in range(half - num_mixup)]
    drawn = generator.beta(mixing.mixup, mixing.mixup, size=num_mixup) if num_mixup else []
    kept = [
        1 - (bottom - top) * (right - left) / (height * width) for top, left, bottom, right in boxes
    ]
    shares = torch.tensor([*drawn, *kept], dtype=torch.float32)
    inputs: dict[str, Tensor] = {}
    masks: dict[str, Tensor] = {}
    for name, values in batch.inputs.items():
        mask = batch.masks.get(name)
        mask = None if mask is None else mask[: 2 * half]
        if name in mixing.chosen:
            inputs[name], mask = _choose(values[: 2 * half], mask, shares, generator)
        else:
            inputs[name] = _mix_values(values[: 2 * half], shares[:num_mixup], boxes)
            mask = None if mask is None else torch.logical_or(*mask.chunk(2))
        if mask is not None:
            masks[name] = mask
    names = zip(batch.names[:half], batch.names[half : 2 * half], strict=True)
    return replace(
        batch,
        inputs=inputs,
        masks=masks,
        targets=_mix_targets(batch.targets, num_classes, shares),
        names=tuple(f"{first} + {second}" for first, second in names),
    )


def _cutmix_box(
    height: int, width: int, generator: np.random.Generator
) -> tuple[int, int, int, int]:
    """Return top, left, bottom and right of a box whose area, before clipping to the image, is uniform."""
    side = generator.random() ** 0.5
    y, x = generator.random() * height, generator.random() * width
    top, bottom = round(y - side * height / 2), round(y + side * height / 2)
    left, right = round(x - side * width / 2), round(x + side * width / 2)
    return max(0, top), max(0, left), min(height, bottom), min(width, right)


def _mix_values(
    values: Float[Tensor, "B ..."],
    shares: Float[Tensor, " B1"],
    boxes: list[tuple[int, int, int, int]],
) -> Float[Tensor, "B2 ..."]:
    """Blend the first pairs by their shares and replace boxes in the other pairs, which are images."""
    first, second = values.chunk(2)
    blended = len(shares)
    mixed = first.clone()
    across = shares.view(-1, *[1] * (values.ndim - 1))
    mixed[:blended] = second[:blended].lerp(first[:blended], across)
    for sample, (top, left, bottom, right) in enumerate(boxes, start=blended):
        mixed[sample, :, top:bottom, left:right] = second[sample, :, top:bottom, left:right]
    return mixed


def _choose(
    values: Float[Tensor, "B L ..."],
    mask: Bool[Tensor, "B L"] | None,
    shares: Float[Tensor, " B2"],
    generator: np.random.Generator,
) -> tuple[Float[Tensor, "B2 L ..."], Bool[Tensor, "B2 L"] | None]:
    """Draw each element from the first sample of a pair with the probability of its share, else from the second."""
    first, second = values.chunk(2)
    drawn = torch.from_numpy(generator.random(first.shape[:2], dtype=np.float32))
    ours = drawn < shares[:, None]
    mixed = torch.where(ours.view(*ours.shape, *[1] * (values.ndim - 2)), first, second)
    return mixed, None if mask is None else torch.where(ours, *mask.chunk(2))


def _mix_targets(
    targets: Tensor | dict[str, Tensor],
    num_classes: int | Mapping[str, int] | None,
    shares: Float[Tensor, " B2"],
) -> Any:
    """Return the targets of mixed samples."""
    if isinstance(targets, dict):
        widths = num_classes if isinstance(num_classes, Mapping) else {}
        return {k: _mix_targets(part, widths.get(k), shares) for k, part in targets.items()}
    width = num_classes if isinstance(num_classes, int) else None
    both = _shares(targets[: 2 * shares.shape[0]], width)
    first, second = both.chunk(2)
    return first.lerp(second, 1 - shares[:, None])


def _shares(targets: Tensor, num_classes: int | None) -> Float[Tensor, "B K"]:
    """Return class indices as one-hot shares, NaN if unknown. Vectors are unchanged."""
    if targets.ndim == 1:
        known = targets >= 0
        hot = one_hot(targets.clamp_min(0), num_classes or -1).float()
        return hot.masked_fill(~known[:, None], torch.nan)
    return targets.float()
