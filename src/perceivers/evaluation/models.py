"""Models by name: fresh ones, of a recipe."""

from pathlib import Path

from perceivers.models.perceiver import Perceiver, build
from perceivers.recipes import get_recipe
from perceivers.recipes.files import read_recipe
from perceivers.recipes.registry import Recipe

__all__ = ["create"]


def create(recipe: str | Path | Recipe, *, size: str | None = None) -> Perceiver:
    """Return a fresh model, with the weights at their start.

    Args:
        recipe: A recipe's name, a YAML file, or a `Recipe`.
        size: Which size of a recipe that is named.

    Raises:
        KeyError: If no recipe has this name. The message names the nearest.
        ValueError: If the recipe leaves sizes to the data, as `images` does: `pv.fit` fills them in.
    """
    if isinstance(recipe, str | Path):
        is_file = Path(recipe).suffix in (".yaml", ".yml", ".json")
        recipe = read_recipe(recipe) if is_file else get_recipe(str(recipe), size=size)
    return build(recipe.model_config())
