"""Rules for images: docs/defaults.md."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.image.augment import ImageAugmentConfig
from perceivers.data.modalities.image.decode import decode_image
from perceivers.inputs.image import ResidualInputConfig
from perceivers.inputs.stems import ResidualStemConfig
from perceivers.recipes.rules.base import Choice, ModalityFacts, Topic, register_rules

# The test of symmetry: images at most, and pixels decoded at most, about a second of JPEG files.
SAMPLED_IMAGES, MOST_PIXELS = 1000, 100_000_000
_SIDE = 12  # pixels of an image that are compared
_FEWEST = 24  # images below which nothing is concluded
_FEWEST_TO_TURN = 300
# Mirrored images are like the others if at most this share of them beyond a half, or two standard errors, is farther
# from its nearest neighbor than the original is (0.01 to 0.05 on photographs, 0.43 to 0.47 on digits), and if their
# neighbors' classes are not worse by more than this many standard errors.
_FARTHER, _ERRORS = 0.08, 2.6
_FARTHER_TO_TURN, _ERRORS_TO_TURN = 0.04, 2.0

# Rows below which the learning rate is lower, and batch sizes with the fewest rows of each.
_FEW_ROWS = 20_000
_BATCHES = {64: 4_096, 32: 1_024, 16: 0}


class Symmetry(NamedTuple):
    """Whether images occur mirrored, and turned by quarters."""

    mirrored: bool
    turned: bool


Sample = Sequence[tuple[Image.Image, int | None]]
"""Images, and the class of each where it has one."""


def image_symmetry(sample: Sample) -> Symmetry:
    """Return whether mirrored and turned images look like other images of the data, of the same class.

    The nearest neighbor of each image among the others is compared with that of its mirrored copy: its distance, and
    whether it has the same class. A mirrored letter is far from all others, a mirrored photograph is not.

    Args:
        sample: Images of training, in mixed order.
    """
    if len(sample) < _FEWEST:
        return Symmetry(mirrored=False, turned=False)
    arrays = np.stack([_features(image) for image, _ in sample])
    mean = arrays.mean(axis=0)
    mean = (mean + mean[:, ::-1]) / 2  # what it differs by from its mirrored copy is no evidence
    mean = (mean + mean[::-1]) / 2
    arrays -= (mean + np.rot90(mean)) / 2
    arrays -= arrays.mean(axis=(1, 2, 3), keepdims=True)
    arrays /= np.sqrt(np.square(arrays).sum(axis=(1, 2, 3), keepdims=True)) + 1e-6
    known = [label for _, label in sample if label is not None]
    labels = np.array(known) if len(known) == len(sample) else None
    plain = _neighbors(arrays, arrays, labels)

    def occurs(changed: npt.NDArray[np.float32], most: float, errors: float) -> bool:
        other = _neighbors(arrays, changed, labels)
        worse = (plain.hit & ~other.hit).sum()
        better = (other.hit & ~plain.hit).sum()
        is_like = worse - better <= errors * np.sqrt(worse + better)
        return bool(is_like and (other.distance > plain.distance).mean() <= 0.5 + most)

    mirrored = occurs(arrays[:, :, ::-1], max(_FARTHER, len(sample) ** -0.5), _ERRORS)
    turned = len(sample) >= _FEWEST_TO_TURN and all(
        occurs(changed, _FARTHER_TO_TURN, _ERRORS_TO_TURN)
        for changed in (arrays[:, ::-1], np.rot90(arrays, 1, (1, 2)))
    )
    return Symmetry(mirrored, mirrored and turned)


@dataclass(frozen=True)
class _Neighbors:
    """Distance of each image to its nearest neighbor, and whether that has its class (False if unknown)."""

    distance: npt.NDArray[np.float32]
    hit: npt.NDArray[np.bool_]


def _neighbors(
    arrays: npt.NDArray[np.float32],
    changed: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64] | None,
) -> _Neighbors:
    """Return the nearest neighbors of changed images among the others, each without its original."""
    known, looked_up = (part.reshape(len(part), -1) for part in (arrays, changed))
    likeness = looked_up @ known.T  # all have length 1
    np.fill_diagonal(likeness, -np.inf)
    nearest = likeness.argmax(axis=1)
    hit = np.zeros(len(nearest), np.bool_) if labels is None else labels[nearest] == labels
    return _Neighbors(1 - likeness.max(axis=1), hit)


def _features(image: Image.Image) -> npt.NDArray[np.float32]:
    side = _SIDE
    shrinks = min(image.size) >= side
    resample = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
    pixels = np.asarray(image.resize((side, side), resample), dtype=np.float32)
    return pixels.reshape(side, side, -1)


def sampled_images(facts: ModalityFacts, num_channels: int) -> list[tuple[Image.Image, int | None]]:
    """Return a sample of training images with their classes, in mixed order, without those that cannot be read."""
    cells: list[tuple[EncodedItem, int | None]] = [*facts.labelled_cells(SAMPLED_IMAGES)]
    if cells:
        cells = [cells[place] for place in np.random.default_rng(0).permutation(len(cells))]
    else:
        cells = [(cell, None) for cell in facts.cells(SAMPLED_IMAGES)]
    found: list[tuple[Image.Image, int | None]] = []
    seen = 0
    for cell, label in cells:
        try:
            image = decode_image(cell, num_channels=num_channels)
        except ImportError:
            raise
        except Exception:  # named and counted in training
            continue
        found.append((image, label))
        seen += image.width * image.height
        if seen > MOST_PIXELS:
            break
    return found


def stem_for(size: tuple[int, int], channels: tuple[int, ...]) -> ResidualStemConfig:
    """Return the levels of the stem for images of a size: about 8 x 8 cells, 14 x 14 of large images.

    Args:
        size: Height and width in pixels.
        channels: Channels of the levels for images of 32 x 32 pixels.
    """
    side, last = max(size), channels[-1]
    if side < 24:
        return ResidualStemConfig(channels=channels, pools=(1, 1, 2))
    if side < 48:
        return ResidualStemConfig(channels=channels, pools=(1, 2, 2))
    if side < 96:
        return ResidualStemConfig(channels=channels, pools=(1, 2, 2), stride=2)
    return ResidualStemConfig(
        channels=(*channels, last), blocks=(0, 0, 1, 1), pools=(1, 2, 2, 2), stride=2
    )


def augment_for(
    augment: ImageAugmentConfig, size: tuple[int, int], symmetry: Symmetry, rows: int
) -> ImageAugmentConfig:
    """Return the augmentation for images of a size, by what occurs among them and their number."""
    augment = replace(augment, flip=symmetry.mirrored, turn=symmetry.turned)
    if symmetry.mirrored:
        cutout = 0.25 if rows >= 1000 else 0.375
        return replace(augment, crop_scale=None, shift=0.125, cutout=cutout)
    scale = (0.85, 1.0) if min(size) < 16 else (0.75, 1.0)
    return replace(augment, crop_scale=scale, crop_ratio=(4 / 5, 5 / 4), shift=0.07)


def _mirror_reason(symmetry: Symmetry) -> str:
    """Return a phrase on mirrored and turned images, and the reason."""
    if symmetry.turned:
        return "images are mirrored and turned, since turned ones occur"
    if symmetry.mirrored:
        return "images are mirrored, since mirrored ones occur"
    return "images are not mirrored, since mirrored ones do not occur"


def choose(choice: Choice, facts: ModalityFacts) -> Choice:
    """Return stem and augmentation for images."""
    made: Any = choice.input
    measured = facts.measured
    size: tuple[int, int] = measured.known_size
    reasons: dict[Topic, str] = {}
    if isinstance(made, ResidualInputConfig) and facts.data.is_open(f"inputs.{facts.name}.stem"):
        made = replace(made, stem=stem_for(size, made.stem.channels))
        rows, columns = made.stem.grid(size)
        channels = "gray" if measured.num_channels == 1 else f"{measured.num_channels} channels"
        reasons["Input"] = (
            f"images of {size[0]} x {size[1]} pixels ({channels}) as {rows} x {columns} elements"
        )
    augment = choice.augment
    if augment is not None:
        symmetry = image_symmetry(sampled_images(facts, measured.num_channels))
        augment = augment_for(augment, size, symmetry, facts.data.rows)
        reasons["Augmentation"] = _mirror_reason(symmetry)
    fields: dict[str, Any] = {}
    if facts.data.rows < _FEW_ROWS:  # more steps an epoch
        batch = next(size for size, fewest in _BATCHES.items() if facts.data.rows >= fewest)
        fields = {"training.batch_size": batch, "optim.lr": 2e-3}
    return replace(choice, input=made, augment=augment, fields=fields, reasons=reasons)


register_rules("image", choose)
