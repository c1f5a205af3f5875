"""Run folders: their names, their files, and the checks before a run is started or resumed in one."""

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from perceivers.data.base import atomic_write
from perceivers.recipes.files import RECIPE_FILE, dump_recipe, read_run_recipe
from perceivers.recipes.registry import Recipe

LAST, BEST = "checkpoints/last.ckpt", "checkpoints/best.ckpt"

_RUNS = Path("runs")
_CHOSEN = "PERCEIVERS_RUN_FOLDER"

# Fields that a resumed run may change: where it computes and what it shows.
_FREE = (
    "training.device",
    "training.devices",
    "training.nodes",
    "training.strategy",
    "training.logger",
    "training.progress",
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
        is_free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
        if not is_free and not (folder / RECIPE_FILE).is_file():
            raise ValueError(
                f"'{folder}' exists and is not a run (it has no {RECIPE_FILE}). Expected a new folder, an "
                "empty one, or a run to resume; nothing was written."
            )
        if not is_free and not resume:
            raise ValueError(
                f"'{folder}' already holds a run. Expected another --out, or --resume to continue it; "
                "nothing was written."
            )
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


def open_folder(out: Path, recipe: Recipe, *, resume: bool) -> Path | None:
    """Create a run folder, or return the checkpoint to resume from, if there is one.

    Raises:
        ValueError: If the folder holds a run that is not to be resumed, or one with another recipe.
        OSError: If there is no run to resume, or the folder cannot be created.
    """
    recipe_file, last = out / RECIPE_FILE, out / LAST
    if resume:
        if not recipe_file.exists():
            raise OSError(
                f"There is no run to resume in {out}: it has no {RECIPE_FILE}. Expected the --out of a "
                "run that was interrupted; without --resume, a new one starts."
            )
        check_same_recipe(read_run_recipe(out), recipe, out)
        return last if last.exists() else None  # it was interrupted before its first checkpoint
    if recipe_file.exists() or last.exists():
        raise ValueError(
            f"{out} holds a run already. Continue it with --resume, or choose another --out "
            "for a new one."
        )
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file. Expected a folder for the run, new or empty (--out).")
    write_run_recipe(out, recipe)
    return None


def write_run_recipe(folder: Path, recipe: Recipe) -> None:
    """Write the recipe of a run into its folder."""
    with atomic_write(folder / RECIPE_FILE) as new:
        new.write_bytes(dump_recipe(recipe).encode())


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
        ValueError: If they differ in more than where to compute and what to show. The message names the fields.
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
