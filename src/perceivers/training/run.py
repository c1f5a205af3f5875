"""A whole run from data to a trained model: what `perceivers fit` and `pv.fit` share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from perceivers.data.base import DataConfig
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.data.sources.open import open_data
from perceivers.hub.checkpoint import WEIGHTS_FILE
from perceivers.models.compression import compression
from perceivers.models.perceiver import build
from perceivers.recipes import get_recipe
from perceivers.recipes.files import read_recipe
from perceivers.recipes.registry import Recipe
from perceivers.recipes.resolve import choose_recipe, joined, learnable, made_for, specialize
from perceivers.recipes.resolve_dense import for_pairs
from perceivers.recipes.resolve_tasks import for_targets
from perceivers.runs.folder import data_path, goes_on, run_folder
from perceivers.tasks.autoencode import AutoencodeConfig
from perceivers.training.distributed import is_first_process
from perceivers.training.fit import Run, fit_source
from perceivers.training.overrides import override, override_data
from perceivers.training.prepare import RECIPE_FILE

__all__ = ["asked_recipe", "fit", "fit_opened", "suitable_recipe"]


def fit(
    data: Any,
    recipe: str | Path | Recipe | None = None,
    *,
    size: str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    init_from: str | Path | None = None,
    say: Callable[[str], object] = print,
    **changes: Any,
) -> Run:
    """Train on data and return the run: its folder and its metrics.

    Args:
        data: A path, a hub id, a Hugging Face dataset or a DataFrame.
        recipe: A recipe's name, a YAML file, or a `Recipe`. By default one that suits the data.
        size: `tiny`, `small` or `base`. By default one that suits the machine.
        out: The run's folder. By default a new one in `runs/`, named like the data.
        resume: Go on from the last checkpoint of the run.
        init_from: A run folder or hub id, from which the model takes over the weights that fit.
        say: Called with each sentence about what was seen and chosen.
        changes: Any field of the recipe: `max_time="10m"`, `label="species"`, `**{"optim.lr": 1e-3}`.

    Raises:
        KeyError: If there is no such recipe or field. The message names the nearest.
        ValueError: If the data cannot be learned from, or `out` holds something else.
    """
    folder = run_folder(data, out, resume=resume)
    resume = goes_on(folder, resume=resume)
    asked = asked_recipe(recipe, size=size, folder=folder if resume else None)
    config = override_data(DataConfig() if asked is None else asked.data, changes)
    source = open_data(data, config)
    if asked is None:
        chosen, why = suitable_recipe(data, source, size=size)
    else:
        chosen, why = made_for(asked, source, size=size), None
    if why and is_first_process():
        say(why)
    chosen = override(for_targets(chosen, source), changes)
    return fit_opened(
        source, chosen, data=data, folder=folder, resume=resume, init_from=init_from, say=say
    )


def asked_recipe(
    recipe: str | Path | Recipe | None, *, size: str | None = None, folder: Path | None = None
) -> Recipe | None:
    """Return the recipe that was asked for, or None where the data are to decide.

    Args:
        recipe: A name, a YAML file or a recipe.
        size: Of a recipe that is named.
        folder: A run to be resumed, whose recipe serves where none is named.

    Raises:
        KeyError: If no recipe has this name.
        ValueError: If the recipe does not come in this size, or the file is not a recipe.
        OSError: If the file cannot be read.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if recipe is None:
        own = None if folder is None else folder / RECIPE_FILE
        return read_recipe(own) if own is not None and own.is_file() else None
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml", ".json") or path.is_file():
        if size is not None:
            msg = f"The recipe in '{path}' has its sizes written out; leave --size {size} away."
            raise ValueError(msg)
        return read_recipe(path)
    return get_recipe(str(recipe), size=size)


def suitable_recipe(
    data: Any, source: DatasetBundle, *, size: str | None = None
) -> tuple[Recipe, str]:
    """Return the recipe for data where none is named, and a sentence that says why this one."""
    if size is None and data == "builtin:digits":
        return get_recipe("digits"), "Recipe digits, made for these."
    return choose_recipe(source, size=size)


def fit_opened(
    source: DatasetBundle,
    recipe: Recipe,
    *,
    data: Any,
    folder: Path,
    resume: bool = False,
    init_from: str | Path | None = None,
    say: Callable[[str], object] = print,
) -> Run:
    """Train on opened data: hold out a validation split, fill in the recipe, and learn.

    Args:
        source: The data.
        recipe: With or without what the data say about sizes and labels.
        data: What the data were opened from. A path is remembered for `evaluate`.
        folder: Where the run goes.
        resume: Go on from the last checkpoint in `folder`.
        init_from: A run folder or hub id, from which the model takes over the weights that fit.
        say: Called with each sentence about what was seen and chosen.
    """
    if not is_first_process():
        say = _nothing
    recipe = for_pairs(recipe, source)
    source = joined(source, recipe)
    source = learnable(source, recipe.task, recipe.preprocess, recipe.data)
    for note in source.notes:
        say(note)
    recipe, preprocess = specialize(recipe, source)
    say(f"Model: {count_parameters(recipe):,} parameters. The run goes to {folder}.")
    if isinstance(recipe.task, AutoencodeConfig):
        say(f"Compression: {compression(recipe.model_config()).sentence()}.")
    if resume and (folder / WEIGHTS_FILE).is_file():  # written when a run ends
        say(f"The run in {folder} has ended already; only its report is written again.")
    return fit_source(
        source,
        recipe,
        preprocess,
        out=folder,
        resume=resume,
        init_from=init_from,
        data=data_path(data),
    )


def count_parameters(recipe: Recipe) -> int:
    """Return the number of weights of a filled-in recipe's model, without allocating them."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in build(recipe.model_config()).parameters())


def _nothing(_sentence: str) -> None:
    """Say nothing: the first of several processes has said it."""
