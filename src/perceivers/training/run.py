"""A whole run from data to a trained model: what `perceivers fit` and `pv.fit` share."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from perceivers.data.base import DataConfig
from perceivers.data.sources import DataSource, open_data
from perceivers.data.split import with_validation
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.recipes import get_recipe
from perceivers.recipes.base import Recipe
from perceivers.recipes.files import read_recipe
from perceivers.recipes.fitting import choose_recipe, specialize
from perceivers.training.fit import Run, fit_source
from perceivers.training.overrides import override, override_data

__all__ = ["asked_recipe", "fit", "fit_opened", "run_folder"]

RECIPE_FILE = "recipe.yaml"
RUNS = Path("runs")


def fit(  # noqa: PLR0913  (a keyword for each flag of the command)
    data: Any,
    recipe: str | Path | Recipe | None = None,
    *,
    size: str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
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
        say: Called with each sentence about what was seen and chosen.
        changes: Any field of the recipe: `max_time="10m"`, `label="species"`, `**{"optim.lr": 1e-3}`.

    Raises:
        KeyError: If there is no such recipe or field. The message names the nearest.
        ValueError: If the data cannot be learned from, or `out` holds something else.
    """
    folder = run_folder(data, out, resume=resume)
    asked = asked_recipe(recipe, size=size, folder=folder)
    config = override_data(DataConfig() if asked is None else asked.data, changes)
    source = open_data(data, config)
    chosen, why = (asked, "") if asked else choose_recipe(source, size=size)
    chosen = override(dataclasses.replace(chosen, data=config), changes)
    return fit_opened(source, chosen, data=data, folder=folder, resume=resume, say=say)


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


def fit_opened(
    source: DataSource,
    recipe: Recipe,
    *,
    data: Any,
    folder: Path,
    resume: bool = False,
    say: Callable[[str], object] = print,
) -> Run:
    """Train on opened data: hold out a validation split, fill in the recipe, and learn.

    Args:
        source: The data.
        recipe: With or without what the data say about sizes and labels.
        data: What the data were opened from. A path is remembered for `evaluate`.
        folder: Where the run goes.
        resume: Go on from the last checkpoint in `folder`.
        say: Called with each sentence about what was seen and chosen.
    """
    source = with_validation(source, recipe.data)
    say(f"Data: {source.form}: {_counts(source)}.")
    for note in source.notes:
        say(f"  {note}")
    recipe, preprocess = specialize(recipe, source)
    say(f"Model: {count_parameters(recipe):,} parameters ({recipe.name}).")
    say(f"Run folder: {folder}")
    return fit_source(source, recipe, preprocess, out=folder, resume=resume)


def run_folder(data: Any, out: str | Path | None = None, *, resume: bool = False) -> Path:
    """Return the folder of a run: `out`, or the next free one of the data's name in `runs/`.

    Raises:
        ValueError: If `out` holds something that is not a run, or a run that is not to be resumed.
    """
    if out is None:
        first = RUNS / _name_of(data)
        taken, folder, number = None, first, 1
        while folder.exists():
            number += 1
            taken, folder = folder, first.with_name(f"{first.name}-{number}")
        return taken if resume and taken is not None else folder
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


def count_parameters(recipe: Recipe) -> int:
    """Return the number of weights of a filled-in recipe's model, without allocating them."""
    config = PerceiverConfig(inputs=recipe.inputs, encoder=recipe.encoder, output=recipe.output)
    with torch.device("meta"):
        return sum(weight.numel() for weight in build(config).parameters())


def _name_of(data: Any) -> str:
    """Return a folder's name for data: `birds` for `data/birds/`, `user/birds` and `birds.parquet`."""
    if not isinstance(data, str | Path):
        return "run"
    last = Path(str(data)).resolve().name if Path(data).exists() else Path(str(data)).name
    stem = last.split(".")[0] or last
    return re.sub(r"[^\w-]+", "-", stem).strip("-") or "run"


def _counts(source: DataSource) -> str:
    rows = ", ".join(f"{len(records):,} {name}" for name, records in source.splits.items())
    return f"{rows}; {len(source.label_names)} classes"
