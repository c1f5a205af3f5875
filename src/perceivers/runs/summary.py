"""What a run was and how it ended, as data: `report.json`, which every look back reads."""

import json
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from perceivers.data.base import atomic_write
from perceivers.tasks.base import Details
from perceivers.typing import Int, Tensor

FACTS_FILE = "report.json"


@dataclass(frozen=True, kw_only=True)
class TaskSummary:
    """What the report tells of one task.

    Attributes:
        label_names: Of the classes, labels or numbers.
        confusion: Rows are true classes, columns predicted ones. None: not of this task.
        details: Measures of each label or number.
    """

    label_names: Sequence[str] = ()
    confusion: Int[Tensor, "K K"] | None = field(default=None, compare=False)
    details: Details = field(default_factory=Details)

    def recalls(self) -> list[tuple[str, int, float, str]]:
        """Return name, samples, recall and most frequent wrong class of each class with samples, hardest first."""
        rows: list[tuple[str, int, float, str]] = []
        for index, row in enumerate([] if self.confusion is None else self.confusion.tolist()):
            if total := sum(row):
                others = [0 if place == index else count for place, count in enumerate(row)]
                worst = max(range(len(row)), key=others.__getitem__)
                mistaken = f"{self.label_names[worst]} ({others[worst]})" if others[worst] else ""
                rows.append((self.label_names[index], total, row[index] / total, mistaken))
        return sorted(rows, key=lambda row: row[2])


@dataclass(frozen=True, kw_only=True)
class RunSummary(TaskSummary):
    """What the report tells.

    Attributes:
        name: Of the recipe.
        command: That began the run.
        metrics: Of the validation split, by the weights that were saved.
        main_metric: The one by which they were chosen.
        num_parameters: Weights of the model.
        steps: Optimizer steps of the whole run.
        best_step: The step whose weights were saved.
        epochs: Passes over train.
        seconds: Of training.
        device: Where, and on how many.
        batch: How a step was computed.
        waiting: Share of the step time that was waiting for data, as text. "": not measured.
        notes: Sentences on the data and the run.
        bad: Name and reason of each row that could not be read.
        versions: Of what computed it, by name.
        tasks: Of several tasks, each by its name.
    """

    name: str
    command: str
    metrics: Mapping[str, float]
    main_metric: str
    num_parameters: int
    steps: int
    best_step: int
    epochs: float
    seconds: float
    device: str
    batch: str = ""
    waiting: str = ""
    notes: Sequence[str] = ()
    bad: Sequence[tuple[str, str]] = ()
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    tasks: Mapping[str, TaskSummary] = field(default_factory=dict[str, TaskSummary])


def command_line() -> str:
    """Return the command that started this process, as one would type it."""
    program = Path(sys.argv[0]).name
    if program == "__main__.py":
        program = "perceivers"
    return shlex.join([program, *sys.argv[1:]]) if program else "python"


def versions() -> dict[str, str]:
    """Return the versions of this library and of what it computes with, by name."""
    found = {"python": platform.python_version()}
    for name in ("perceivers", "torch", "lightning", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def readable_duration(seconds: float) -> str:
    """Return `48 s`, `3 min 20 s` or `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def write_summary(folder: Path, facts: RunSummary) -> None:
    """Write `report.json` into a run folder."""
    text = json.dumps(_plain(facts), indent=1, ensure_ascii=False) + "\n"
    with atomic_write(folder / FACTS_FILE) as new:
        new.write_bytes(text.encode())


def read_summary(folder: Path) -> RunSummary | None:
    """Return what `write_summary` wrote into a run folder, or None if there is nothing.

    Raises:
        ValueError: If the file is something else.
    """
    path = folder / FACTS_FILE
    if not path.is_file():
        return None
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        tasks = {name: TaskSummary(**_filled(part)) for name, part in told.pop("tasks").items()}
        told["bad"] = [(name, reason) for name, reason in told["bad"]]
        return RunSummary(**_filled(told), tasks=tasks)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path} is not what `perceivers fit` wrote ({' '.join(str(error).split())[:120]}). Without it the report "
            "is made of what else the run holds: move the file away."
        ) from error


def _plain(facts: TaskSummary) -> dict[str, Any]:
    """Return facts as plain data. Counts of a confusion matrix are rows of numbers."""
    told = {one.name: getattr(facts, one.name) for one in fields(facts)}
    confusion: Tensor | None = told["confusion"]
    told["confusion"] = None if confusion is None else confusion.tolist()
    told["label_names"] = list(told["label_names"])
    if isinstance(facts, RunSummary):
        told["tasks"] = {name: _plain(part) for name, part in facts.tasks.items()}
    return told


def _filled(told: dict[str, Any]) -> dict[str, Any]:
    confusion = told["confusion"]
    counts = None if confusion is None else torch.tensor(confusion, dtype=torch.int64)
    return {**told, "confusion": counts}
