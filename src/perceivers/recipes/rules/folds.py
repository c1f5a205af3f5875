"""Rule for folds: an ensemble where a single validation split would be too small. docs/defaults.md."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from perceivers.data.sources.bundle import DatasetBundle
from perceivers.recipes.registry import Recipe
from perceivers.recipes.rules.base import is_open
from perceivers.wording import counted

FOLDS = 5

FEW_ROWS = 100  # of validation, below which its metrics are uncertain

LARGEST_SHARE = 0.2  # of the rows, held out so that validation has `FEW_ROWS`

# Training rows up to which a preset has folds, whatever the validation split.
_MOST_ROWS = {"quick": 0, "default": 0, "best": 20_000}


def with_views(recipe: Recipe, overrides: Mapping[str, Any]) -> Recipe:
    """Return the recipe with test-time augmentation, unless it is quick; the end of the run decides by validation."""
    is_cached = recipe.training.cache_latents is not None  # latents of the samples as they are
    if recipe.preset in (None, "quick") or is_cached or not is_open(overrides, "training.tta"):
        return recipe
    return replace(recipe, training=replace(recipe.training, tta=True))


def with_folds(
    recipe: Recipe, source: DatasetBundle, overrides: Mapping[str, Any]
) -> tuple[Recipe, str]:
    """Return the recipe with folds or a larger validation split where the data have few rows, and a sentence on it.

    The sentence is "" if nothing changes. One model on most rows is worth more than members on four fifths of them,
    each with a fifth of the time, as soon as a fifth of the rows are enough for validation.

    Args:
        recipe: A recipe whose modalities are bound to the data.
        source: The data, before a validation split is held out.
        overrides: Fields that the user has set.
    """
    training, data, task = recipe.training, recipe.data, recipe.task
    if (
        recipe.preset in (None, "quick")
        or source.streams
        or "train" not in source.splits
        or "validation" in source.splits
        or not (
            is_open(overrides, "training.folds") and is_open(overrides, "data.validation_fraction")
        )
        or training.devices * training.nodes > 1
        or not task.requires_labels
        or task.chunked_modality is not None
    ):
        return recipe, ""
    rows = len(source.splits["train"])
    held = round(rows * data.validation_fraction)
    if held >= FEW_ROWS and rows > _MOST_ROWS[recipe.preset or "quick"]:
        return recipe, ""
    if held < FEW_ROWS <= rows * LARGEST_SHARE and rows > _MOST_ROWS[recipe.preset or "quick"]:
        return (
            replace(recipe, data=replace(data, validation_fraction=FEW_ROWS / rows)),
            f"Validation: {FEW_ROWS} rows instead of {held}, which would be too few to compare by "
            "(--validation-fraction).",
        )
    why = (
        f"a validation split would have {counted(held, 'row')}"
        if held < FEW_ROWS
        else "the preset best"
    )
    return (
        replace(recipe, training=replace(training, folds=FOLDS)),
        f"Validation: {FOLDS} folds, as {why} (--folds 1 for a single model).",
    )
