"""Defaults for a user's own data: input adapter, preprocessing and augmentation of each modality in three sizes.

The adapters begin with a small convolutional stem where neighbors mean something (pixels, samples, bytes, steps): on
small data it is worth tens of percent against single values (docs/log.md). `array` and `points`, of which nothing is
known or whose order means nothing, have none.
"""

from dataclasses import dataclass
from typing import Any

from perceivers.data.registry import find_defaults
from perceivers.inputs.registry import default_input
from perceivers.recipes.common import Size


@dataclass(frozen=True)
class Part:
    """Configuration of one modality.

    Attributes:
        input: The adapter.
        preprocess: Makes the model's array of a file.
        augment: Randomness in training.
    """

    input: Any
    preprocess: Any
    augment: Any


def part_of(kind: str, size: Size) -> Part:
    """Return the defaults of a modality.

    Args:
        kind: A modality, or a kind of preprocessing: `wave` for audio by its samples.
        size: Decides the width of stems and the longest side of images.

    Raises:
        ValueError: If the modality has no defaults.
    """
    preprocess, augment = find_defaults(kind)(size)
    return Part(default_input(preprocess.kind, size.stem_channels), preprocess, augment)
