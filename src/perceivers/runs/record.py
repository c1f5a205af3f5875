"""Load the configuration, metrics and cost of a run from its folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from perceivers.hub.checkpoint import CONFIG_FILE, WEIGHTS_FILE, SavedConfig, read_config
from perceivers.models.cost import Cost, cost
from perceivers.models.perceiver import PerceiverConfig
from perceivers.recipes.files import RECIPE_FILE, read_run_recipe
from perceivers.recipes.registry import Recipe
from perceivers.runs.folder import FOLD_RESULT, FOLDS
from perceivers.runs.metrics import METRICS_FILE, read_metrics
from perceivers.runs.summary import RunSummary, TaskSummary, evaluation_summary, read_summary
from perceivers.tasks.base import Task
from perceivers.tasks.intervals import Interval
from perceivers.tasks.registry import TaskConfig, build_task
from perceivers.wording import counted

EVALUATIONS = "evaluation-*.json"  # of `perceivers evaluate`, one for each split


@dataclass(frozen=True, kw_only=True)
class LoadedRun:
    """Content of a run folder, finished or not.

    Attributes:
        folder: The run folder.
        recipe: The resolved recipe. None: of a model saved with `pv.save`.
        saved: Configuration saved with the weights. None: the run has not ended.
        summary: Results of the run. None: it has not ended, or the model was not trained here.
        rows: Lines of `metrics.jsonl`.
        measured: Evaluation of each split.
        state: `ended`, or a description of the progress.
    """

    folder: Path
    recipe: Recipe | None = None
    saved: SavedConfig | None = None
    summary: RunSummary | None = None
    rows: Sequence[Mapping[str, Any]] = ()
    measured: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Any])
    state: str = "ended"

    @property
    def name(self) -> str:
        """Name of the run: that of its folder."""
        return self.folder.resolve().name

    @property
    def task_config(self) -> TaskConfig | None:
        """Task configuration, with its label names."""
        found = None if self.saved is None else self.saved.task
        return found or (None if self.recipe is None else self.recipe.task)

    @cached_property
    def task(self) -> Task | None:
        """The task; None if its configuration is incomplete before training."""
        try:
            return None if self.task_config is None else build_task(self.task_config)
        except ValueError:
            return None

    @property
    def main_metric(self) -> str:
        """Metric by which runs are compared. "": unknown."""
        if self.summary is not None:
            return self.summary.main_metric
        return "" if self.task is None else self.task.main_metric

    @cached_property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Metrics of each split; of validation in an unfinished run, those of its last one."""
        found: dict[str, dict[str, float]] = {}
        key = f"validation/{self.main_metric}"
        rows = [row for row in self.rows if key in row]
        if self.summary is not None and self.summary.metrics:
            found["validation"] = dict(self.summary.metrics)
        elif self.summary is None and rows:
            found["validation"] = {
                name.removeprefix("validation/"): value
                for name, value in rows[-1].items()
                if name.startswith("validation/")
            }
        return found | {split: dict(one["metrics"]) for split, one in self.measured.items()}

    @cached_property
    def results(self) -> dict[str, dict[str, TaskSummary]]:
        """Results of each measured split: of the whole (""), and of each of several tasks."""
        found: dict[str, dict[str, TaskSummary]] = {}
        if self.summary is not None:
            found["validation"] = {"": self.summary, **self.summary.tasks}
        return found | {split: evaluation_summary(one) for split, one in self.measured.items()}

    def interval(self, split: str, metric: str) -> Interval | None:
        """Return the 95 % confidence interval of a metric. None: it has none, or none is known."""
        results = self.results.get(split)
        return None if results is None else results[""].intervals.get(metric)

    def rows_of(self, split: str) -> int:
        """Return the number of samples that were measured of a split; 0 if it is unknown."""
        return int(self.metrics.get(split, {}).get("samples", 0))

    @property
    def data(self) -> str | None:
        """Path or id of the data. None: unknown, or an object."""
        path = None if self.saved is None else self.saved.columns.get("data")
        return None if path is None else str(path)

    @property
    def steps(self) -> int | None:
        """Number of optimizer steps."""
        if self.summary is not None:
            return self.summary.steps
        return int(self.rows[-1]["step"]) if self.rows else None

    @property
    def seconds(self) -> float | None:
        """Duration of training."""
        if self.summary is not None:
            return self.summary.seconds
        return self.rows[-1].get("elapsed") if self.rows else None

    @property
    def samples_per_second(self) -> float | None:
        """Training samples per second, including the time of validation."""
        if not self.steps or not self.seconds or self.recipe is None:
            return None
        return self.steps * self.recipe.training.batch_size / self.seconds

    @property
    def num_members(self) -> int:
        """Number of models whose outputs are averaged."""
        if self.saved is not None:
            return self.saved.num_members
        return 1 if self.recipe is None else self.recipe.training.folds or 1

    @property
    def model(self) -> PerceiverConfig | None:
        """Configuration of the model, or of each member."""
        if self.saved is not None:
            return self.saved.model
        return None if self.recipe is None else self.recipe.model_config()

    @cached_property
    def cost(self) -> Cost | None:
        """Cost of the model, of all members together. None: its sizes depend on data that are not known yet."""
        try:
            return None if self.model is None else cost(self.model).times(self.num_members)
        except (ValueError, TypeError):
            return None


def read_run(folder: str | Path) -> LoadedRun:
    """Load a run from its folder. No weights are read.

    Raises:
        OSError: If there is no such folder, it is no run, or its weights are truncated.
        ValueError: If one of its files is invalid.
    """
    folder = Path(folder)
    expected = "a run folder, as `perceivers fit` writes it (its last lines name it)"
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise OSError(f"{folder} {what}. Expected {expected}.")
    has_recipe, has_config = (folder / RECIPE_FILE).is_file(), (folder / CONFIG_FILE).is_file()
    if not has_recipe and not has_config:
        raise OSError(
            f"{folder} is not a run: it has neither {RECIPE_FILE} nor {CONFIG_FILE}. Expected {expected}."
        )
    recipe = read_run_recipe(folder) if has_recipe else None
    rows = read_metrics(folder / METRICS_FILE)
    saved = read_config(folder / CONFIG_FILE) if has_config else None
    state = _state(folder, rows, ended=saved is not None)
    summary = read_summary(folder)
    return LoadedRun(
        folder=folder,
        recipe=recipe,
        saved=saved,
        summary=summary if state == "ended" else None,
        rows=rows,
        measured=_measured(folder),
        state=state,
    )


def _state(folder: Path, rows: Sequence[Mapping[str, Any]], *, ended: bool) -> str:
    """Return `ended`, or the progress of the run."""
    from safetensors import SafetensorError, safe_open

    path = folder / WEIGHTS_FILE
    if ended and path.is_file():
        try:
            with safe_open(path, framework="pt"):
                return "ended"
        except (SafetensorError, OSError) as error:
            raise OSError(
                f"{path} cannot be read as safetensors ({error}): it is truncated or another kind of file."
            ) from error
    if (folder / FOLDS).is_dir():
        done = len(list((folder / FOLDS).glob(f"*/{FOLD_RESULT}")))
        return f"unfinished, {counted(done, 'fold')} done"
    return f"unfinished, {rows[-1]['step']:,} steps done" if rows else "unfinished, before a report"


def _measured(folder: Path) -> dict[str, Mapping[str, Any]]:
    """Return the results of `perceivers evaluate`, by split."""
    found: dict[str, Mapping[str, Any]] = {}
    for path in sorted(folder.glob(EVALUATIONS)):
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            evaluation_summary(content)
            found[str(content["split"])] = {**content, "metrics": dict(content["metrics"])}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} is not what `perceivers evaluate` wrote. Remove it, and measure again."
            ) from error
    return found
