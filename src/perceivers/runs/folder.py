"""Run folders: their names, their files, and the checks before a run is started or resumed in one."""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from perceivers.data.base import atomic_write, is_temporary, remove_temporary_files
from perceivers.escaping import encode_text
from perceivers.hub.checkpoint import WEIGHTS_FILE
from perceivers.recipes.files import RECIPE_FILE, dump_recipe, read_run_recipe
from perceivers.recipes.registry import Recipe
from perceivers.recipes.rules.length import LIMITS
from perceivers.runs.metrics import METRICS_FILE

LAST, BEST = "checkpoints/last.ckpt", "checkpoints/best.ckpt"
FOLDS = "folds"  # folder of the runs of an ensemble, named 0, 1, ...
FOLD_RESULT = "checkpoints/fold.ckpt"  # weights and results of a fold that has ended
LOCK_FILE = ".fit.lock"  # while a process trains in the folder
SPLITS_FILE = "splits.jsonl.gz"  # rows of train and validation, see `perceivers.runs.splits`
TENSORBOARD = "tensorboard"  # folder of the event files

# Entries of the folder of a run that has no checkpoint yet.
_FIRST_FILES = {
    RECIPE_FILE,
    LOCK_FILE,
    METRICS_FILE,
    SPLITS_FILE,
    TENSORBOARD,
    FOLDS,
    "checkpoints",
    "init.json",
    "latents",  # computed before the first step
    "wandb",
}

_RUNS = Path("runs")
_CHOSEN = "PERCEIVERS_RUN_FOLDER"

# Fields that a resumed run may change: where it computes, what it shows, and how long it lasts.
_FREE = (
    *(f"training.{name}" for name in LIMITS),
    "training.device",
    "training.devices",
    "training.nodes",
    "training.strategy",
    "training.logger",
    "training.progress",
    "training.baseline",
    "data.workers",
)


def is_first_process() -> bool:
    """Return whether this process writes files and messages; known before the processes are connected.

    torchrun sets RANK, SLURM sets SLURM_PROCID, and Lightning sets LOCAL_RANK and NODE_RANK.
    """
    names = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return not any(int(os.environ.get(name) or 0) for name in names)


def run_folder(data: Any, out: str | Path | None = None, *, resume: bool = False) -> Path:
    """Return the folder of a run: `out`, or the next free one of the data's name in `runs/`.

    Of several processes, only the first looks at existing folders.

    Raises:
        ValueError: If `out` holds something that is not a run, or a run that is not to be resumed; if `out` is missing
            for processes that something else launched.
    """
    if not is_first_process():
        chosen = os.environ.get(_CHOSEN) if out is None else out
        if chosen is None:
            raise ValueError(
                "Several processes must know the folder of the run: give it with --out."
            )
        return Path(chosen)
    resume = resume or _is_requeued()
    if out is None:
        folder = next_free(_RUNS / _name_of(data), latest=resume)
    else:
        folder = Path(out)
        check_folder(folder, resume=resume)
    os.environ[_CHOSEN] = str(folder)  # for the processes that this one launches
    return folder


def is_resumed(folder: Path, *, resume: bool) -> bool:
    """Return True if resuming was requested, or if SLURM has requeued the job of a run that has begun."""
    return resume or (_is_requeued() and (folder / RECIPE_FILE).is_file())


def _is_requeued() -> bool:
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0


def next_free(folder: Path, *, latest: bool = False) -> Path:
    """Return the folder, or else the first of `folder-2`, `folder-3`, ... that does not exist.

    Args:
        folder: The first candidate.
        latest: Return the last one that exists instead, or `folder`.
    """
    existing, candidate, number = folder, folder, 1
    while candidate.exists():
        existing, number = candidate, number + 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return existing if latest else candidate


def data_path(data: Any) -> str | None:
    """Return the absolute path or the id of data; None for objects in memory."""
    if not isinstance(data, str | Path):
        return None
    path = Path(data).expanduser()
    is_local = path.exists() or any(sign in str(data) for sign in "*?{")
    return str(path.absolute()) if is_local else str(data)


def _name_of(data: Any) -> str:
    """Return the name of a run folder: `birds` for `data/birds/`, `user/birds`, `birds.parquet` and `builtin:birds`."""
    if not isinstance(data, str | Path):
        return "run"
    name = str(data).removeprefix("builtin:")
    last = Path(name).resolve().name if Path(data).exists() else Path(name).name
    stem = last.split(".")[0] or last
    return re.sub(r"\W+", "-", stem).strip("-") or "run"


def has_begun(folder: Path) -> bool:
    """Return whether a folder holds a run with a checkpoint or with weights. Without, it can be started again."""
    first = fold_folder(folder, 0)
    checkpoints = (folder / LAST, first / LAST, first / FOLD_RESULT)
    return any(path.exists() for path in checkpoints) or (
        (folder / WEIGHTS_FILE).exists() and (folder / RECIPE_FILE).exists()
    )


def fold_folder(folder: Path, index: int) -> Path:
    """Return the folder of a member of an ensemble, below that of the run."""
    return folder / FOLDS / str(index)


def check_folder(folder: Path, *, resume: bool) -> None:
    """Check that a run can be started or resumed in a folder.

    A run that was interrupted before its first checkpoint has not begun: it can be started again, resumed or not.

    Raises:
        ValueError: If the folder is a file, holds something else, or a run that is not to be resumed.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(
            f"'{folder}' exists and is not a run: it is a file. Expected a new folder, an empty one, or a run to "
            "resume (--out); nothing was written."
        )
    if has_begun(folder) and (folder / RECIPE_FILE).is_file():
        if not resume:
            raise ValueError(
                f"'{folder}' already holds a run. Expected another --out, or --resume to continue it; "
                "nothing was written."
            )
        return
    entries = [] if not folder.exists() else list(folder.iterdir())
    foreign = sorted(path.name for path in entries if not _is_of_first_step(path))
    if foreign:
        lacks = "" if (folder / RECIPE_FILE).is_file() else f"it has no {RECIPE_FILE} and "
        raise ValueError(
            f"'{folder}' exists and is not a run ({lacks or 'it '}holds {', '.join(foreign[:3])}"
            f"{', ...' if len(foreign) > 3 else ''}). Expected a new folder, an empty one, or a run to resume; nothing "
            "was written."
        )


def _is_of_first_step(path: Path) -> bool:
    """Return whether a run without a checkpoint may have written this entry of its folder."""
    if path.name == "checkpoints":
        return all(one.name == Path(BEST).name or is_temporary(one.name) for one in path.iterdir())
    return path.name in _FIRST_FILES or is_temporary(path.name)


def open_folder(out: Path, recipe: Recipe, *, resume: bool) -> Path | None:
    """Create the folder of a run, or return the checkpoint from which it is resumed.

    Temporary files of an interrupted process are removed, and so are all files of a run without a checkpoint.

    Raises:
        ValueError: If the folder holds something else, a run that is not to be resumed, or one with another recipe.
        OSError: If the folder cannot be written, or the run has ended and its checkpoint is gone.
    """
    check_folder(out, resume=resume)
    old = read_run_recipe(out) if resume and (out / RECIPE_FILE).exists() else recipe
    check_same_recipe(old, recipe, out)
    for folder in (out, out / "checkpoints"):
        remove_temporary_files(folder)
    if has_begun(out):
        if not (out / LAST).exists() and not (out / FOLDS).is_dir():
            raise OSError(
                f"The run in {out} has ended, and its checkpoint {LAST} is gone, so it cannot be resumed. Expected "
                f"another --out; with --init-from {out} the new run starts from the weights of this one."
            )
        if limits_of(old) != limits_of(recipe):
            write_run_recipe(out, recipe)
        return out / LAST if (out / LAST).exists() else None
    for name in (METRICS_FILE, BEST):
        (out / name).unlink(missing_ok=True)
    for name in (TENSORBOARD, FOLDS):
        if (out / name).exists():
            shutil.rmtree(out / name)
    write_run_recipe(out, recipe)
    return None


def limits_of(recipe: Recipe) -> dict[str, Any]:
    """Return the limits of a run, by name."""
    return {name: getattr(recipe.training, name) for name in LIMITS}


def write_run_recipe(folder: Path, recipe: Recipe) -> None:
    """Write the recipe of a run into its folder."""
    with atomic_write(folder / RECIPE_FILE) as new:
        new.write_bytes(encode_text(dump_recipe(recipe)))


def with_found_batch(recipe: Recipe, folder: Path) -> Recipe:
    """Return the recipe with the batch size that a resumed run has found before, if it is `auto`."""
    path = folder / RECIPE_FILE
    if recipe.training.batch != "auto" or not path.exists():
        return recipe
    found = read_run_recipe(folder).training
    training = replace(recipe.training, batch=found.batch, accumulate=found.accumulate)
    return replace(recipe, training=training)


def differing_fields(old: Recipe, new: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return the fields in which two recipes differ, by dotted name, with both values."""
    before, after = _flatten(asdict(old)), _flatten(asdict(new))
    names = sorted(before.keys() | after.keys())
    return {
        name: (before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    }


def check_same_recipe(old: Recipe, new: Recipe, folder: Path) -> None:
    """Refuse to resume a run with another recipe.

    Raises:
        ValueError: If they differ in more than where to compute, what to show and how long. The message names fields.
    """
    differing = {k: v for k, v in differing_fields(old, new).items() if k not in _FREE}
    if not differing:
        return
    lines = "; ".join(
        f"{name} was {a!r}, now {b!r}" for name, (a, b) in list(differing.items())[:5]
    )
    more = f" (and {len(differing) - 5} more)" if len(differing) > 5 else ""
    raise ValueError(
        f"A resumed run must have its initial recipe, and this one differs from "
        f"{folder / 'recipe.yaml'}: {lines}{more}. Leave these flags out, or start a new run with another "
        f"--out (with --init-from {folder} it starts from the weights of this one)."
    )


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {prefix: list(tree) if isinstance(tree, tuple) else tree}
    parts = (_flatten(v, f"{prefix}.{k}" if prefix else str(k)) for k, v in tree.items())
    return {name: value for part in parts for name, value in part.items()}
