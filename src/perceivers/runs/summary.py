"""Results and cost of a finished run: `report.json`."""

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

SUMMARY_FILE = "report.json"


@dataclass(frozen=True, kw_only=True)
class TaskSummary:
    """Results of one task.

    Attributes:
        label_names: Names of the classes, labels or numbers.
        confusion: Confusion matrix; rows are true classes, columns predicted ones. None: the task has none.
        details: Metrics of each label or number.
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
    """Results and cost of a finished run: the content of `report.json`.

    Attributes:
        name: Name of the recipe.
        metrics: Metrics of the validation split, with the saved weights.
        main_metric: Metric by which the weights were chosen.
        steps: Optimizer steps of the whole run.
        best_step: Optimizer step of the saved weights.
        epochs: Passes over the training split.
        seconds: Duration of training.
        device: Number and type of the devices, and precision.
        batch: Size of a step and of its batches.
        waiting: Share of the step time spent waiting for data, as text. "": not measured.
        notes: Sentences on the data and the run.
        bad: Name and reason of each row that could not be decoded.
        tasks: Results of each of several tasks, by name.
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
    """Return the command line of this process."""
    program = Path(sys.argv[0]).name
    if program == "__main__.py":
        program = "perceivers"
    return shlex.join([program, *sys.argv[1:]]) if program else "python"


def versions() -> dict[str, str]:
    """Return the versions of Python, this package, PyTorch, Lightning and NumPy."""
    found = {"python": platform.python_version()}
    for name in ("perceivers", "torch", "lightning", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_summary(folder: Path, summary: RunSummary) -> None:
    """Write `report.json` into a run folder."""
    text = json.dumps(_plain(summary), indent=1, ensure_ascii=False) + "\n"
    with atomic_write(folder / SUMMARY_FILE) as new:
        new.write_bytes(text.encode())


def read_summary(folder: Path) -> RunSummary | None:
    """Read `report.json` in a run folder. None if there is none.

    Raises:
        ValueError: If the file is not one of `write_summary`.
    """
    path = folder / SUMMARY_FILE
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        tasks = {name: TaskSummary(**_filled(part)) for name, part in content.pop("tasks").items()}
        content["bad"] = [(name, reason) for name, reason in content["bad"]]
        return RunSummary(**_filled(content), tasks=tasks)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path} is not what `perceivers fit` wrote ({' '.join(str(error).split())[:120]}). Without it the report "
            "is made of the other files of the run: move the file away."
        ) from error


def _plain(summary: TaskSummary) -> dict[str, Any]:
    """Return a summary as plain data; a confusion matrix as rows of numbers."""
    content = {one.name: getattr(summary, one.name) for one in fields(summary)}
    confusion: Tensor | None = content["confusion"]
    content["confusion"] = None if confusion is None else confusion.tolist()
    content["label_names"] = list(content["label_names"])
    if isinstance(summary, RunSummary):
        content["tasks"] = {name: _plain(part) for name, part in summary.tasks.items()}
    return content


def _filled(content: dict[str, Any]) -> dict[str, Any]:
    confusion = content["confusion"]
    counts = None if confusion is None else torch.tensor(confusion, dtype=torch.int64)
    return {**content, "confusion": counts}
