"""Runs as data. Importing this package lists every recipe."""

from perceivers.recipes import (
    audioset,
    audioset_io,
    autoencode,
    dense,
    digits,
    flow,
    glue,
    imagenet,
    imagenet_io,
    images,
    language,
    modelnet,
    multimodal,
    own_data,
    text_io,
)
from perceivers.recipes.base import (
    OptimConfig,
    Recipe,
    TrainingConfig,
    get_recipe,
    list_recipes,
)

__all__ = [
    "OptimConfig",
    "Recipe",
    "TrainingConfig",
    "audioset",
    "audioset_io",
    "autoencode",
    "dense",
    "digits",
    "flow",
    "get_recipe",
    "glue",
    "imagenet",
    "imagenet_io",
    "images",
    "language",
    "list_recipes",
    "modelnet",
    "multimodal",
    "own_data",
    "text_io",
]
