"""Runs as data. Importing this package lists every recipe."""

from perceivers.recipes import digits, imagenet, images
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
    "digits",
    "get_recipe",
    "imagenet",
    "images",
    "list_recipes",
]
