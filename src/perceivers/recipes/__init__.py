"""Runs as data. Importing this package lists every recipe."""

from perceivers.recipes import autoencode, dense, digits, images, multimodal, own_data, text_io
from perceivers.recipes.published import audioset, flow, glue, imagenet, language, modelnet
from perceivers.recipes.registry import (
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
    "autoencode",
    "dense",
    "digits",
    "flow",
    "get_recipe",
    "glue",
    "imagenet",
    "images",
    "language",
    "list_recipes",
    "modelnet",
    "multimodal",
    "own_data",
    "text_io",
]
