"""Recipes resolved for data of which no validation split is held out."""

from dataclasses import replace
from typing import Any

from perceivers.data.sources.bundle import DatasetBundle
from perceivers.recipes.registry import Recipe
from perceivers.recipes.resolve import resolve


def specialize(recipe: Recipe, source: DatasetBundle) -> tuple[Recipe, dict[str, Any]]:
    """Return the recipe with nothing left open, and the preprocessing of each modality."""
    whole = replace(recipe, data=replace(recipe.data, validation_fraction=0.0))
    run = resolve(source, whole)
    return replace(run.recipe, data=recipe.data), dict(run.preprocess)
