"""The processes of a case, and its ratios.

A case is timed in one fresh process, in which its contestants take turns; then the memory of each is measured
in a fresh process of its own, because a peak is a property of a process.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.cases import find
from benchmarks.measure import Budget, Disagreement, memory, timings
from benchmarks.setting import Case, Setting, Skip, Target

__all__ = ["child", "judged", "merged", "run_case"]

ROOT = Path(__file__).parent.parent


def run_case(case: Case, setting: Setting, budget: Budget, threads: int) -> dict[str, Any]:
    """Return everything measured of a case."""
    options = {"case": case.name, "setting": asdict(setting), "threads": threads}
    timed = apart({**options, "budget": asdict(budget)})
    row: dict[str, Any] = {"case": case.name, "dtype": setting.dtype, "what": case.what}
    if "error" in timed:
        return row | {"error": timed["error"], "contestants": {}, "targets": []}
    found: dict[str, dict[str, Any]] = {}
    for name, seconds in timed["rounds"].items():
        found[name] = {"seconds": spread(seconds), "rounds": [round(s, 6) for s in seconds]}
        if name in timed["differences"]:
            found[name]["relative_difference"] = float(f"{timed['differences'][name]:.2g}")
        found[name] |= apart({**options, "contestant": name})
    row["contestants"] = found
    row["skipped"] = timed["skipped"]
    row["targets"] = [judged(target, row, setting) for target in case.targets]
    return row


def judged(target: Target, row: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """Return the result of a target. It binds on a CPU in float32 and in the real sizes only."""
    binding = setting == Setting()
    verdict = {name: value for name, value in asdict(target).items() if value is not None}
    if not binding:
        verdict = {k: v for k, v in verdict.items() if k not in ("at_least", "at_most", "stretch")}
    parts = [row["contestants"].get(name) for name in (target.of, target.to) if name]
    for name, part in zip((target.of, target.to), parts, strict=False):
        reason = row["skipped"].get(name) if part is None else part.get("error")
        if part is None or reason:
            return verdict | {"value": None, "met": None, "why": reason or "not here"}
    if target.quantity == "seconds":
        ratios = [a / b for a, b in zip(*(part["rounds"] for part in parts), strict=True)]
        value = spread(ratios)
    else:
        amounts = [part[target.quantity] for part in parts]
        value = {"median": amounts[0] / amounts[1] if target.to else amounts[0]}
    middle = value["median"]
    verdict |= {"value": {k: float(f"{v:.4g}") for k, v in value.items()}, "met": None}
    if binding and (target.at_least is not None or target.at_most is not None):
        enough = target.at_least is None or middle >= target.at_least
        verdict["met"] = enough and (target.at_most is None or middle <= target.at_most)
    return verdict


def spread(values: list[float]) -> dict[str, float]:
    """Return the median and the quartiles."""
    low, middle, high = values[0], values[0], values[0]
    if len(values) > 1:
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    numbers = {"median": middle, "low": low, "high": high}
    return {name: float(f"{number:.6g}") for name, number in numbers.items()}


def apart(options: dict[str, Any]) -> dict[str, Any]:
    """Run `child` in a fresh process and return what it found, or the error it ended with."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        command = [sys.executable, "-m", "benchmarks", "--child", json.dumps(options), str(path)]
        done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
        if path.exists():
            return json.loads(path.read_text())
    lines = done.stderr.strip().splitlines() or ["it said nothing"]
    return {"error": f"ended with status {done.returncode}: {lines[-1]}"}


def child(options: dict[str, Any], path: Path) -> None:
    """Measure what the parent process asked for, and write it to a file."""
    import torch

    torch.set_num_threads(options["threads"])
    setting = Setting(**options["setting"])
    case = next(case for case in find([options["case"]]) if case.name == options["case"])
    try:
        if "contestant" in options:
            contestant = next(c for c in case.contestants if c.name == options["contestant"])
            found = memory(contestant, setting)
        else:
            found = timings(case, setting, Budget(**options["budget"]))
    except (Disagreement, Skip) as error:
        found = {"error": str(error)}
    path.write_text(json.dumps(found))


def merged(
    path: Path, machine: dict[str, object], load_now: dict[str, object], row: dict[str, Any]
) -> dict[str, Any]:
    """Return the results on file with one row replaced or added.

    Rows of another machine or of other versions are dropped: a table is of one machine.
    """
    kept: list[dict[str, Any]] = []
    if path.exists():
        old = json.loads(path.read_text())
        if old.get("machine") == machine:
            kept = old["cases"]
    row = row | load_now
    same = [(r["case"], r["dtype"]) == (row["case"], row["dtype"]) for r in kept]
    if any(same):
        kept[same.index(True)] = row
    else:
        kept.append(row)
    return {"machine": machine, "cases": kept}
