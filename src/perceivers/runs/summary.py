"""Results and cost of a finished run: `report.json`."""

import json
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from perceivers.baselines.result import BaselineResult
from perceivers.data.base import atomic_write
from perceivers.escaping import encode_text
from perceivers.tasks.calibration import Calibration
from perceivers.tasks.classes import ClassResult, class_results
from perceivers.tasks.curves import Curve
from perceivers.tasks.intervals import Interval
from perceivers.tasks.meters import Details, Meter
from perceivers.typing import Int, Tensor

SUMMARY_FILE = "report.json"


@dataclass(frozen=True, kw_only=True)
class TaskSummary:
    """Results of one task on the validation split.

    Attributes:
        label_names: Names of the classes, labels or numbers.
        confusion: Confusion matrix; rows are true classes, columns predicted ones. None: the task has none.
        details: Metrics of each label or number.
        intervals: 95 % confidence interval of each metric that has one, by name.
        detail_intervals: Those of `details`.
        calibration: Calibration of the probabilities, with the fitted temperature. None: the task has none.
        curves: ROC and precision-recall curves of the classes or labels.
    """

    label_names: Sequence[str] = ()
    confusion: Int[Tensor, "K K"] | None = field(default=None, compare=False)
    details: Details = field(default_factory=Details)
    intervals: Mapping[str, Interval] = field(default_factory=dict[str, Interval])
    detail_intervals: Sequence[Mapping[str, Interval]] = ()
    calibration: Calibration | None = None
    curves: Sequence[Curve] = ()

    def classes(self) -> list[ClassResult]:
        """Return the results of each class with samples, the lowest recall first."""
        if self.confusion is None:
            return []
        found = class_results(self.label_names, self.confusion.tolist())
        return sorted((one for one in found if one.n), key=lambda one: one.right / one.n)


def evaluation_summary(content: Mapping[str, Any]) -> dict[str, TaskSummary]:
    """Return the results in a file of `perceivers evaluate`, "" for the whole, and those of each of several tasks."""
    names = content.get("label_names", [])
    details = content.get("details", {})
    intervals = content.get("detail_intervals", {})
    plain = {
        "confusion": content.get("confusion"),
        "intervals": content.get("intervals", {}),
        "detail_intervals": [intervals.get(name, {}) for name in names] if intervals else [],
        "calibration": content.get("calibration"),
        "curves": content.get("curves", []),
        "label_names": names,
        "details": list(details.values()),
    }
    parts = {name: evaluation_summary(one)[""] for name, one in content.get("tasks", {}).items()}
    return {"": TaskSummary(**_filled(plain)), **parts}


def meter_results(meter: Meter) -> dict[str, Any]:
    """Return the results of a meter as fields of `TaskSummary`; a temperature is fitted to its samples."""
    return {
        "confusion": meter.confusion,
        "details": meter.details(),
        "intervals": meter.intervals(),
        "detail_intervals": tuple(meter.detail_intervals()),
        "calibration": meter.calibration(),
        "curves": meter.curves(),
    }


@dataclass(frozen=True, kw_only=True)
class MemberSummary:
    """Result of one member of an ensemble on the rows of its fold.

    Attributes:
        rows: Number of rows that it was validated on, and not trained on.
        step: Optimizer step of the weights that were kept.
        steps: Optimizer steps of its training.
        seconds: Duration of its training.
        value: Main metric. None: it has none.
        loss: Loss. None: it has none.
    """

    rows: int
    step: int
    steps: int
    seconds: float
    value: float | None = None
    loss: float | None = None


@dataclass(frozen=True, kw_only=True)
class RunSummary(TaskSummary):
    """Results and cost of a finished run: the content of `report.json`.

    Attributes:
        name: Name of the recipe.
        metrics: Metrics of the validation split, with the saved weights; of an ensemble, of all rows out of fold: each
            is predicted by the member that has not learned it.
        main_metric: Metric by which runs are compared.
        steps: Optimizer steps of the whole run, of all members.
        best_step: Optimizer step of the saved weights, of the first member.
        epochs: Passes over the training split, of each member.
        seconds: Duration of training.
        device: Number and type of the devices, and precision.
        batch: Size of a step and of its batches.
        waiting: Share of the step time spent waiting for data, as text. "": not measured.
        notes: Sentences on the data and the run.
        bad: Name and reason of each row that could not be decoded.
        tasks: Results of each of several tasks, by name.
        members: Results of each member of an ensemble. Empty: a single model.
        baseline: Score of a simple baseline on the same validation split. None: there is none.
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
    members: Sequence[MemberSummary] = ()
    baseline: BaselineResult | None = None


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
    text = json.dumps(_plain(summary), indent=1) + "\n"
    with atomic_write(folder / SUMMARY_FILE) as new:
        new.write_bytes(encode_text(text))


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
        content["members"] = tuple(MemberSummary(**one) for one in content.get("members", []))
        content["baseline"] = (found := content.get("baseline")) and _baseline(found)
        return RunSummary(**_filled(content), tasks=tasks)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path} is not what `perceivers fit` wrote ({' '.join(str(error).split())[:120]}). Without it the report "
            "is made of the other files of the run: move the file away."
        ) from error


def _baseline(content: Mapping[str, Any]) -> BaselineResult:
    """Return the result of a simple baseline from plain data."""
    known = dict(content)
    if (ends := known.pop("interval", None)) is not None:
        known["interval"] = (ends[0], ends[1])
    return BaselineResult(**known)


def _plain(summary: TaskSummary) -> dict[str, Any]:
    """Return a summary as plain data; a confusion matrix as rows of numbers."""
    content = {one.name: getattr(summary, one.name) for one in fields(summary)}
    confusion: Tensor | None = content["confusion"]
    content["confusion"] = None if confusion is None else confusion.tolist()
    content["label_names"] = list(content["label_names"])
    content["calibration"] = None if summary.calibration is None else asdict(summary.calibration)
    content["curves"] = [asdict(one) for one in summary.curves]
    if isinstance(summary, RunSummary):
        content["baseline"] = None if summary.baseline is None else asdict(summary.baseline)
        content["tasks"] = {name: _plain(part) for name, part in summary.tasks.items()}
        content["members"] = [asdict(one) for one in summary.members]
    return content


def _filled(content: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a summary from plain data."""
    confusion = content["confusion"]
    calibration = content.get("calibration")
    ends = content.get("intervals", {})
    return {
        **content,
        "confusion": None if confusion is None else torch.tensor(confusion, dtype=torch.int64),
        "intervals": {name: (low, high) for name, (low, high) in ends.items()},
        "detail_intervals": tuple(
            {name: (low, high) for name, (low, high) in one.items()}
            for one in content.get("detail_intervals", [])
        ),
        "calibration": calibration and TypeAdapter(Calibration).validate_python(calibration),
        "curves": TypeAdapter(tuple[Curve, ...]).validate_python(content.get("curves", [])),
    }
