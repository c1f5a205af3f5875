"""Recipes: registered configurations of runs. Importing this package registers all built-in recipes."""

from perceivers.recipes import autoencode, autoregressive, hip_mae, mae, own_data
from perceivers.recipes import hip as own_hip
from perceivers.recipes.published import (
    audioset,
    flow,
    glue,
    hip,
    imagenet,
    imagenet64_ar,
    language,
    language_ar,
    modelnet,
    music,
)
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
    "autoregressive",
    "flow",
    "get_recipe",
    "glue",
    "hip",
    "hip_mae",
    "imagenet",
    "imagenet64_ar",
    "language",
    "language_ar",
    "list_recipes",
    "mae",
    "modelnet",
    "music",
    "own_data",
    "own_hip",
]
