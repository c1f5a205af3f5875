"""Run commands on a disk that is full from their n-th file operation on. Not a test: see `inject_faults.environment`.

Prints one JSON object: for each command the number of its file operations, and a list of problems.
"""

import json
import os
import shutil
import sys
from pathlib import Path

from perceivers.cli.main import main
from support.files import write_parquet
from support.image_data import cells
from support.inject_faults import FULL, fork, warm_up
from support.runs import make_finished_run, make_image_folder

EXACT = ("predict", "predict-shards", "shard", "evaluate", "explain-npz", "explain-html", "push")
"""Commands that write the same bytes each time. Others name the time or the place."""


def commands(folder: Path) -> dict[str, list[str]]:
    """Return commands that write into `folder / "out"`, with everything that they read."""
    data = make_image_folder(folder / "data", count=3)
    run = str(make_finished_run(folder / "run", data=data))
    image, out = str(data / "dark" / "0.png"), folder / "out"
    shards = write_parquet(folder / "a.parquet", cells(range(3)))
    return {
        "predict": ["predict", run, image, "--format", "csv", "--out", f"{out}/p.csv"],
        "predict-shards": ["predict", run, str(shards), "--shards", f"{out}"],
        "evaluate": ["evaluate", run, "--format", "json", "--out", f"{out}/e.json"],
        "explain-png": ["explain", run, image, "--out", f"{out}/a.png"],
        "explain-html": ["explain", run, image, "--out", f"{out}/a.html"],
        "explain-npz": ["explain", run, image, "--out", f"{out}/a.npz"],
        "report": ["report", run, "--out", f"{out}/r.html"],
        "shard": ["shard", str(data), "--out", str(out), "--rows-per-shard", "2"],
        "export": ["export", run, "--format", "safetensors", "--out", f"{out}/export"],
        "push": ["push", run, "user/name", "--dry-run", f"{out}/push"],
    }


def tree(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def check(name: str, command: list[str], out: Path, problems: list[str]) -> int:
    """Run a command with a full disk from each of its operations on, and return their number."""
    overwrites = name not in ("predict-shards", "shard", "push")

    def begin() -> None:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        if overwrites:
            for path, content in whole.items():
                (out / path).parent.mkdir(exist_ok=True)
                # An export replaces only what an export wrote.
                is_manifest = path.endswith("preprocess.json")
                (out / path).write_bytes(content if is_manifest else b"earlier")

    whole: dict[str, bytes] = {}
    begin()
    if main(command) != 0:
        problems.append(f"{name}: fails on an empty disk")
    whole = tree(out)
    begin()
    counted = fork(lambda: main(command), out)
    for at in range(1, counted.operations + 1):
        begin()
        ended = fork(lambda: main(command), out, at=at, mode=FULL)
        found = tree(out)
        where = f"{name}, operation {at} of {counted.operations}"
        if unknown := set(found) - set(whole):
            problems.append(f"{where}: left {unknown}")
        for path, content in found.items():
            complete = content == whole.get(path) if name in EXACT else len(content) > 100
            if not complete and content != b"earlier":
                problems.append(f"{where}: {path} is neither the earlier file nor a whole one")
        if ended.status == 0 and set(found) != set(whole):
            problems.append(f"{where}: exit status 0, but files are missing")
        elif ended.status not in (0, 1):
            problems.append(f"{where}: exit status {ended.status}")
        elif ended.status == 1 and "No space left on device" not in ended.output:
            problems.append(f"{where}: {ended.output[-300:]}")
        if "Traceback" in ended.output:
            problems.append(f"{where}: {ended.output[-500:]}")
    return counted.operations


def run(folder: Path, chosen: list[str]) -> None:
    os.chdir(folder)
    known = commands(folder)
    out = folder / "out"
    problems: list[str] = []
    operations: dict[str, int] = {}
    for name in chosen or list(known):
        out.mkdir(exist_ok=True)
        warm_up(lambda name=name: main(known[name]), folder)
        operations[name] = check(name, known[name], out, problems)
    print(json.dumps({"operations": operations, "problems": problems}))


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2:])
