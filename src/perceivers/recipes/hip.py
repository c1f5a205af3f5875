"""Hierarchical Perceiver for a user's own data: one configuration for raw elements of any modalities."""

from collections.abc import Mapping
from typing import Any

from perceivers.data.registry import find_defaults
from perceivers.inputs.registry import raw_input
from perceivers.models.hip_config import HiPConfig, hip_blocks, hip_config
from perceivers.outputs.heads import MeanPoolConfig
from perceivers.recipes.common import SIZES, Size, own_optim
from perceivers.recipes.registry import Recipe, TrainingConfig, recipe
from perceivers.tasks.classification import ClassificationConfig

_BLOCKS: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "tiny": {
        "num_latents": (16, 32, 32, 32, 16),
        "channels": (64, 96, 128, 96, 64),
        "num_self_attends": (1, 1, 4, 1, 1),
        "num_self_attend_heads": (2, 3, 4, 3, 2),
    },
    "small": {
        "num_latents": (64, 128, 128, 128, 64),
        "channels": (96, 192, 384, 192, 96),
        "num_self_attends": (2, 2, 8, 2, 2),
        "num_self_attend_heads": (3, 6, 12, 6, 3),
    },
}


HIP_RECIPE_SIZES = (*_BLOCKS, "mini")
"""Sizes of the recipes of Hierarchical Perceivers."""

_SIZES: Mapping[str, Size] = {"tiny": SIZES["tiny"], "small": SIZES["small"], "mini": SIZES["base"]}
"""Optimizer, batch size and sizes of the data of each."""


def own_hip(size: str) -> HiPConfig:
    """Return the encoder of a size: 16 groups, 4 of their latents, and one of those; `mini` is that of the release."""
    if size == "mini":
        return hip_config("hip_mini")
    blocks = hip_blocks(num_groups=(16, 4, 1, 4, 16), **_BLOCKS[size])
    return HiPConfig(blocks=blocks, embed_channels=32, attend_padding=False)


def size_of(encoder: HiPConfig) -> str:
    """Return the size of the recipes whose blocks an encoder has; the smallest for other blocks."""
    return next(
        (size for size in HIP_RECIPE_SIZES if own_hip(size).blocks == encoder.blocks), "tiny"
    )


def hip_for(kinds: Mapping[str, str], size: str = "tiny") -> Recipe:
    """Return a recipe for these modalities together; `kinds` are by name. The encoder is the same for all.

    Raises:
        ValueError: If a modality has no defaults.
    """
    sizes = _SIZES[size]
    parts = {name: find_defaults(kind)(sizes) for name, kind in kinds.items()}
    inputs: dict[str, Any] = {
        name: raw_input(preprocess.kind, sizes.stem_channels)
        for name, (preprocess, _) in parts.items()
    }
    return Recipe(
        name="hip",
        inputs=inputs,
        encoder=own_hip(size),
        output=MeanPoolConfig(num_outputs=None),
        task=ClassificationConfig(label_smoothing=0.05),
        preprocess={name: preprocess for name, (preprocess, _) in parts.items()},
        augment={name: augment for name, (_, augment) in parts.items()},
        optim=own_optim(sizes.lr),
        training=TrainingConfig(batch_size=sizes.batch_size // 2),
    )


@recipe(sizes=HIP_RECIPE_SIZES)
def hip(size: str = "tiny") -> Recipe:
    """Any set of modalities as raw elements in one Hierarchical Perceiver: pixels, spectrogram cells, points, bytes.

    Elements have learned positions and no stem, and the encoder is the same for all data. Image, audio and points are
    an example: `fit` replaces them by the modalities of the data. Size `mini` has the release's encoder `hip_mini`.

    Run:      perceivers fit DATA --recipe hip
    Expected: CIFAR-10 32.6 %, ModelNet10 81.0 % after 3 minutes of one thread (docs/results/hip.md).
    Reference: Ours, of the parts of the Hierarchical Perceiver (arXiv:2202.10890).
    """
    return hip_for({"image": "image", "audio": "audio", "points": "points"}, size)
