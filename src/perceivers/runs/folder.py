"""Where runs go, and where their data can be found again."""

import os
import re
from pathlib import Path
from typing import Any

from perceivers.training.distributed import is_first_process
from perceivers.training.prepare import RECIPE_FILE

__all__ = ["data_path", "goes_on", "next_free", "run_folder"]

RUNS = Path("runs")
_CHOSEN = "PERCEIVERS_RUN_FOLDER"


def run_folder(data: Any, out: str | Path | None = None, *, resume: bool = False) -> Path:
    """Return the folder of a run: `out`, or the next free one of the data's name in `runs/`.

    Of several processes that run together, only the first looks at what is there already.

    Raises:
        ValueError: If `out` holds something that is not a run, or a run that is not to be resumed; if
            processes that something else started cannot agree on a folder.
    """
    if not is_first_process():
        return _folder_of_first(out)
    folder = _free_folder(data, out, resume=resume or _is_requeued())
    os.environ[_CHOSEN] = str(folder)  # for the processes that this one starts
    return folder


def goes_on(folder: Path, *, resume: bool) -> bool:
    """Return whether a run is gone on with: if asked, or if SLURM has started its job again."""
    return resume or (_is_requeued() and (folder / RECIPE_FILE).is_file())


def _is_requeued() -> bool:
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0


def _free_folder(data: Any, out: str | Path | None, *, resume: bool) -> Path:
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


def _folder_of_first(out: str | Path | None) -> Path:
    """Return the folder that the first of several processes writes into."""
    chosen = os.environ.get(_CHOSEN) if out is None else out
    if chosen is None:
        msg = "Several processes must know the folder of the run: say where with --out."
        raise ValueError(msg)
    return Path(chosen)


def data_path(data: Any) -> str | None:
    """Return where data can be found again from any folder; None for objects in memory."""
    if not isinstance(data, str | Path):
        return None
    path = Path(data).expanduser()
    is_local = path.exists() or any(sign in str(data) for sign in "*?{")
    return str(path.absolute()) if is_local else str(data)


def _name_of(data: Any) -> str:
    """Return a folder's name for data: `birds` for `data/birds/`, `user/birds`, `birds.parquet` and `builtin:birds`."""
    if not isinstance(data, str | Path):
        return "run"
    name = str(data).removeprefix("builtin:")
    last = Path(name).resolve().name if Path(data).exists() else Path(name).name
    stem = last.split(".")[0] or last
    return re.sub(r"\W+", "-", stem).strip("-") or "run"
