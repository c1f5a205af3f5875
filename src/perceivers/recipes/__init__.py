"""Runs as data. Importing this package lists every recipe."""

from perceivers.recipes import (
    audioset,
    digits,
    imagenet,
    images,
    modelnet,
    multimodal,
    own_data,
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
    "digits",
    "get_recipe",
    "imagenet",
    "images",
    "list_recipes",
    "modelnet",
    "multimodal",
    "own_data",
]
