"""One process: do the contestants compute the same, how long do they take, how much memory do they need?"""

import contextlib
import ctypes
import gc
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.setting import Case, Contestant, Setting, Skip, Work

__all__ = ["Budget", "Disagreement", "agree", "memory", "timings"]

# Norm of the difference over the norm of what was expected, float32; the models have 56 layers.
TOLERANCE = 2e-4
TOLERANCE_OF_ONE = 1e-2
MIB = 2**20


class Disagreement(Exception):  # noqa: N818
    """Two contestants that must compute the same do not."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Number of repetitions of a case.

    Attributes:
        seconds: No further round begins after so long.
        at_least: Rounds in any case.
        at_most: Rounds, however short.
    """

    seconds: float = 30.0
    at_least: int = 3
    at_most: int = 15


def agree(case: Case, works: Mapping[str, Work]) -> dict[str, float]:
    """Run every contestant once and return its relative difference from the first.

    Outputs count each for itself and gradients all together. A single gradient may be a small difference of
    large numbers, so that rounding shows in it: it is only asked not to be another one.

    Raises:
        Disagreement: If one that must compute the same differs by more than rounding.
    """
    first = case.contestants[0].name
    expected = works[first]()
    differences: dict[str, float] = {}
    for contestant in case.contestants[1:]:
        name = contestant.name
        if name not in works:
            continue
        found = works[name]()
        if not contestant.same:
            continue
        if set(found) != set(expected):
            odd = sorted(set(found) ^ set(expected))
            msg = f"{name} and {first} do not compute the same things: {odd}."
            raise Disagreement(msg)
        gradients = [key for key in expected if key.startswith("gradient")]
        compared = [([key], TOLERANCE) for key in expected if key not in gradients]
        compared += [([key], TOLERANCE_OF_ONE) for key in gradients]
        compared += [(gradients, TOLERANCE)] if gradients else []
        differences[name] = 0.0
        for keys, tolerance in compared:
            off = difference(found, expected, keys)
            if not off <= tolerance:  # also where it is not a number
                what = keys[0] if len(keys) == 1 else "gradient of everything"
                msg = (
                    f"{name} does not compute what {first} does. The {what} differs by {off:.2g} of its "
                    f"norm, expected at most {tolerance:.0e}. Nothing was timed."
                )
                raise Disagreement(msg)
            if tolerance == TOLERANCE:
                differences[name] = max(differences[name], off)
    return differences


def difference(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], keys: list[str]
) -> float:
    """Return the norm of the difference over the norm of what was expected, over several tensors."""
    pairs = [(found[key].detach().double(), expected[key].detach().double()) for key in keys]
    off = sum(float((a - b).square().sum()) for a, b in pairs)
    return (off / sum(float(b.square().sum()) for _, b in pairs)) ** 0.5


def timings(case: Case, setting: Setting, budget: Budget) -> dict[str, Any]:
    """Return the seconds of every round, for each contestant, and who was skipped and why.

    Contestants take turns, and every round begins with another of them, so that a machine that gets slower
    or faster does so for all.
    """
    # What is the same in float32 is the same model; bfloat16 rounds away what the check would look at.
    exact, skipped = built(case, replace(setting, dtype="float32"))
    differences = agree(case, exact)
    if setting.dtype == "float32":
        works = exact
    else:
        del exact
        free(setting)
        works, skipped = built(case, setting)
    for work in works.values():  # the check was the first warm-up
        work()
    rounds: dict[str, list[float]] = {name: [] for name in works}
    names = list(works)
    start, done = time.perf_counter(), 0
    while done < budget.at_least or (
        done < budget.at_most and time.perf_counter() - start < budget.seconds
    ):
        for name in names[done % len(names) :] + names[: done % len(names)]:
            rounds[name].append(seconds_of(works[name], setting))
        done += 1
    return {"rounds": rounds, "differences": differences, "skipped": skipped}


def built(case: Case, setting: Setting) -> tuple[dict[str, Work], dict[str, str]]:
    """Return the contestants that can run here, and why the others cannot."""
    works: dict[str, Work] = {}
    skipped: dict[str, str] = {}
    for contestant in case.contestants:
        if setting.device not in contestant.devices:
            continue
        try:
            works[contestant.name] = build(contestant, setting)
        except Skip as reason:
            skipped[contestant.name] = str(reason)
    return works, skipped


def build(contestant: Contestant, setting: Setting) -> Work:
    """Return the work of a contestant.

    Raises:
        Skip: If it cannot run here.
    """
    available = available_gib(setting)
    if not setting.smoke and contestant.gib > available:
        msg = f"needs {contestant.gib:.0f} GiB of memory; {available:.0f} GiB are free"
        raise Skip(msg)
    return contestant.build(setting)


def seconds_of(work: Work, setting: Setting) -> float:
    """Return the seconds of one pass."""
    if setting.device == "cuda":
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        before.record()
        work()
        after.record()
        torch.cuda.synchronize()
        return before.elapsed_time(after) / 1000
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def memory(contestant: Contestant, setting: Setting) -> dict[str, float]:
    """Return the memory of two passes in this process, which must be a fresh one, in MiB.

    `peak_mib` is the highest that the process (on a GPU: its tensors) ever held during the passes, and
    `over_mib` how much of that came on top of the model and its input.
    """
    with contextlib.suppress(Skip):  # what is loaded when it is first used belongs to no model
        contestant.build(replace(setting, smoke=True))()
    work = build(contestant, setting)
    free(setting)
    if setting.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        peak: Callable[[], int] = torch.cuda.max_memory_allocated
    else:
        before, peak = watch_resident()
    for _ in range(2):
        seconds_of(work, setting)
    highest = peak()
    return {"peak_mib": round(highest / MIB, 1), "over_mib": round((highest - before) / MIB, 1)}


def free(setting: Setting) -> None:
    """Give back what is not used any more, so that it is not counted."""
    gc.collect()
    if setting.device == "cuda":
        torch.cuda.empty_cache()
    elif sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def watch_resident() -> tuple[int, Callable[[], int]]:
    """Return the resident bytes of this process, and a function that returns their peak from now on.

    Linux forgets the highest so far when 5 is written to `clear_refs`: what building the model needed for a
    moment, or the parent process before the fork, is then not counted. Elsewhere it is.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        scale = 1 if sys.platform == "darwin" else 1024

        def ever() -> int:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale

        return ever(), ever
    return status("VmRSS"), lambda: status("VmHWM")


def status(field: str) -> int:
    """Return a size from this process' status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def available_gib(setting: Setting) -> float:
    """Return the memory that can still be had."""
    if setting.device == "cuda":
        return torch.cuda.mem_get_info()[0] / 2**30
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    return int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) / 2**20
