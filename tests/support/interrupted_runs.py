"""Interrupt tiny runs at every file operation, and resume them. Not a test; started with `inject_faults.environment()`.

usage: support/interrupted_runs.py FOLDER CONFIGURATION kill|full

Prints one JSON object: the number of operations at which a run was interrupted, and a sentence for each that failed.
"""

import json
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import torch

from perceivers.cli.main import main
from perceivers.runs.metrics import read_metrics
from support.cli import TINY
from support.files import write_off
from support.inject_faults import FULL, KILL, fork, warm_up
from support.runs import make_image_folder

_FIRST = [*TINY[: TINY.index("--max-epochs")], "--no-progress", "--no-baseline"]
_TINY = [*_FIRST, "--max-epochs", "2", "--folds", "1"]
_STEP = ["--batch-size", "6", "--workers", "0"]
_POINTS = _TINY[_TINY.index("--encoder.num-latents") :]

CONFIGURATIONS: dict[str, tuple[str, list[str]]] = {
    "plain": ("images", [*_TINY, *_STEP]),
    "stream": ("shards", [*_TINY, *_STEP, "--stream", "--shuffle-buffer", "4"]),
    "workers": ("images", [*_TINY, *_STEP, "--workers", "2"]),
    "cache": ("points", [*_POINTS, *_STEP]),
    "accumulate": ("images", [*_TINY, *_STEP, "--accumulate", "2", "--training.ema", "0.9"]),
}


def write_data(kind: str, folder: Path) -> Path:
    """Write 16 samples of two classes, of which some are held out; 8 point clouds, each of which is cached."""
    if kind == "points":
        numbers = np.random.default_rng(0)
        for label in ("flat", "tall"):
            for index in range(4):
                cloud = numbers.normal(size=(20, 3)) * (1, 1, 0.1 if label == "flat" else 3)
                (folder / label).mkdir(parents=True, exist_ok=True)
                write_off(folder / label / f"{index}.off", cloud)
        return folder
    images = make_image_folder(folder, count=8, size=8)
    if kind == "images":
        return images
    shards = folder.with_name("shards")
    assert main(["shard", str(images), "--out", str(shards), "--rows-per-shard", "6"]) == 0
    return shards


def leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return the values of nested data by their path."""
    if isinstance(tree, dict):
        return {k: v for name in tree for k, v in leaves(tree[name], f"{prefix}.{name}").items()}
    if isinstance(tree, list | tuple):
        return {k: v for i, x in enumerate(tree) for k, v in leaves(x, f"{prefix}.{i}").items()}
    return {prefix: tree}


def difference(run: Path, other: Path) -> str:
    """Return a sentence on the first difference between two finished runs, "" if they are equal."""
    names, others = (
        sorted(str(p.relative_to(f)) for p in f.rglob("*") if "tfevents" not in p.name)
        for f in (run, other)
    )
    if names != others:
        return f"files differ: {sorted(set(names) ^ set(others))}"
    rows, expected = (
        [
            {k: v for k, v in row.items() if k not in ("elapsed", "waiting")}
            for row in read_metrics(f / "metrics.jsonl")
        ]
        for f in (run, other)
    )
    if rows != expected:
        return f"metrics.jsonl has {rows}, not {expected}"
    if (run / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes():
        return "the weights differ"
    for name in ("last", "best"):
        mine, theirs = (
            leaves(torch.load(f / f"checkpoints/{name}.ckpt", weights_only=True))
            for f in (run, other)
        )
        for key in mine.keys() | theirs.keys():
            # Times; and notes on decoding, which cached samples do not repeat.
            if key.startswith((".perceivers.elapsed", ".perceivers.wait_time")) or ".notes." in key:
                continue
            a, b = mine.get(key), theirs.get(key)
            if not (torch.equal(a, b) if torch.is_tensor(a) and torch.is_tensor(b) else a == b):
                return f"{name}.ckpt differs in {key}"
    return ""


def interrupted(
    begin: Callable[[Path], object],
    resume: Callable[[Path], object],
    work: Path,
    *,
    at: int,
    mode: int,
    whole: Path,
) -> str:
    """Interrupt a run at one operation and resume it; return a sentence on what is wrong, or ""."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    ended = fork(partial(begin, work), work, at=at, mode=mode)
    if mode == KILL and ended.status is not None:
        return f"it was not killed: {ended.output[-500:]}"
    if mode == FULL:
        if "Traceback" in ended.output or ended.status not in (0, 1):
            return f"status {ended.status}: {ended.output[-800:]}"
        if ended.status == 1 and "perceivers fit: " not in ended.output:
            return f"no message: {ended.output[-500:]}"
        left = [p.name for p in work.rglob("*.part")]
        if left:
            return f"temporary files stay: {left}"
    resumed = fork(partial(resume, work), work)
    if resumed.status != 0:
        return f"--resume ended with {resumed.status}: {resumed.output[-800:]}"
    return difference(work / "run", whole / "run")


def interrupt_everywhere(folder: Path, name: str, mode: int) -> dict[str, Any]:
    """Interrupt one configuration at each of its operations."""
    kind, flags = CONFIGURATIONS[name]
    data = write_data(kind, folder / "data")

    def begin(work: Path, *more: str) -> int:
        cache = ["--cache", str(work / "cache")] if name == "cache" else []
        return main(["fit", str(data), "--out", str(work / "run"), *flags, *cache, *more])

    def resume(work: Path) -> int:
        return begin(work, "--resume")

    whole, work = folder / "whole", folder / "work"
    whole.mkdir()
    warm_up(partial(begin, folder / "warm-up"), folder)
    log = folder / "operations.txt"
    ended = fork(partial(begin, whole), whole, log=log)
    assert ended.status == 0, ended.output
    failed: list[str] = []
    for at in range(1, ended.operations + 1):
        problem = interrupted(begin, resume, work, at=at, mode=mode, whole=whole)
        if problem:
            failed.append(f"at operation {log.read_text().splitlines()[at - 1]}: {problem}")
    return {"operations": ended.operations, "failed": failed}


if __name__ == "__main__":
    torch.set_num_threads(1)
    # Figures are not drawn: only the file operations matter, and hundreds of runs would draw them.
    matplotlib.figure.Figure.savefig = lambda self, file, **_: Path(file).touch()  # type: ignore
    place, configuration, how = sys.argv[1:]
    found = interrupt_everywhere(Path(place), configuration, {"kill": KILL, "full": FULL}[how])
    print(json.dumps(found))
