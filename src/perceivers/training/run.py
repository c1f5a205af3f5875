"""A whole run from data to a trained model: what `perceivers fit` and `pv.fit` share."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from perceivers.data.base import DataConfig
from perceivers.data.named import is_embedded, open_named
from perceivers.data.sources import DataSource
from perceivers.data.split import with_validation
from perceivers.hub.checkpoint import WEIGHTS_FILE
from perceivers.models.perceiver import build
from perceivers.recipes import get_recipe
from perceivers.recipes.base import Recipe
from perceivers.recipes.files import read_recipe
from perceivers.recipes.fitting import choose_recipe, specialize
from perceivers.training.fit import Run, fit_source
from perceivers.training.overrides import override, override_data

__all__ = ["asked_recipe", "fit", "fit_opened", "next_free", "run_folder", "suitable_recipe"]

RECIPE_FILE = "recipe.yaml"
RUNS = Path("runs")


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
        init_from: A run folder or hub id, whose fitting weights the model begins with.
        say: Called with each sentence about what was seen and chosen.
        changes: Any field of the recipe: `max_time="10m"`, `label="species"`, `**{"optim.lr": 1e-3}`.

    Raises:
        KeyError: If there is no such recipe or field. The message names the nearest.
        ValueError: If the data cannot be learned from, or `out` holds something else.
    """
    folder = run_folder(data, out, resume=resume)
    asked = asked_recipe(recipe, size=size, folder=folder if resume else None)
    config = override_data(DataConfig() if asked is None else asked.data, changes)
    source = open_named(data, config)
    chosen, why = (asked, None) if asked else suitable_recipe(data, source, size=size)
    if why:
        say(why)
    chosen = override(dataclasses.replace(chosen, data=config), changes)
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
    data: Any, source: DataSource, *, size: str | None = None
) -> tuple[Recipe, str]:
    """Return the recipe for data where none is named, and a sentence that says why this one."""
    if size is None and is_embedded(data):
        return get_recipe("digits"), "Recipe digits, made for these."
    return choose_recipe(source, size=size)


def fit_opened(
    source: DataSource,
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
        init_from: A run folder or hub id, whose fitting weights the model begins with.
        say: Called with each sentence about what was seen and chosen.
    """
    source = with_validation(source, recipe.data)
    for note in source.notes:
        say(note)
    recipe, preprocess = specialize(recipe, source)
    say(f"Model: {count_parameters(recipe):,} parameters. The run goes to {folder}.")
    if resume and (folder / WEIGHTS_FILE).is_file():  # written when a run ends
        say(f"The run in {folder} has ended already; only its report is written again.")
    return fit_source(
        source,
        recipe,
        preprocess,
        out=folder,
        resume=resume,
        init_from=init_from,
        data=where(data),
    )


def where(data: Any) -> str | None:
    """Return where data can be found again from any folder; None for objects in memory."""
    if not isinstance(data, str | Path):
        return None
    path = Path(data).expanduser()
    is_local = path.exists() or any(sign in str(data) for sign in "*?{")
    return str(path.absolute()) if is_local else str(data)


def run_folder(data: Any, out: str | Path | None = None, *, resume: bool = False) -> Path:
    """Return the folder of a run: `out`, or the next free one of the data's name in `runs/`.

    Raises:
        ValueError: If `out` holds something that is not a run, or a run that is not to be resumed.
    """
    if out is None:
        first = RUNS / _name_of(data)
        return _latest(first) if resume else next_free(first)
    folder = Path(out)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return folder
    if not (folder / RECIPE_FILE).is_file():
        msg = (
            f"'{folder}' exists and is not a run (it has no {RECIPE_FILE}). Expected a new folder, an "
            "empty one, or a run to go on with; nothing was written."
        )
        raise ValueError(msg)
    if not resume:
        msg = (
            f"'{folder}' already holds a run. Expected another --out, or --resume to go on with it; "
            "nothing was written."
        )
        raise ValueError(msg)
    return folder


def next_free(folder: Path) -> Path:
    """Return the folder, or else the first of `folder-2`, `folder-3`, ... that does not exist."""
    candidate, number = folder, 1
    while candidate.exists():
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate


def _latest(folder: Path) -> Path:
    """Return the last of `folder`, `folder-2`, `folder-3`, ... that exists, or `folder`."""
    latest, number = folder, 2
    while (candidate := folder.with_name(f"{folder.name}-{number}")).exists():
        latest, number = candidate, number + 1
    return latest


def count_parameters(recipe: Recipe) -> int:
    """Return the number of weights of a filled-in recipe's model, without allocating them."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in build(recipe.model_config()).parameters())


def _name_of(data: Any) -> str:
    """Return a folder's name for data: `birds` for `data/birds/`, `user/birds` and `birds.parquet`."""
    if not isinstance(data, str | Path):
        return "run"
    last = Path(str(data)).resolve().name if Path(data).exists() else Path(str(data)).name
    stem = last.split(".")[0] or last
    return re.sub(r"\W+", "-", stem).strip("-") or "run"
