"""Models by name: fresh ones, of a recipe."""

from pathlib import Path

from perceivers.models.perceiver import Perceiver, build
from perceivers.recipes.files import find_recipe
from perceivers.recipes.registry import Recipe

__all__ = ["create"]


def create(recipe: str | Path | Recipe, *, size: str | None = None) -> Perceiver:
    """Return a fresh model, with the weights at their start.

    Args:
        recipe: A recipe's name, a YAML file, `module:function`, or a `Recipe`.
        size: Which size of a recipe that is named.

    Raises:
        KeyError: If no recipe has this name. The message names the nearest.
        ValueError: If the recipe leaves sizes to the data, as `images` does: `pv.fit` fills them in.
    """
    return build(find_recipe(recipe, size=size).model_config())
