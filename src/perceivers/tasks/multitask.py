"""Multi-task learning: several tasks on the same latents, each with an output, a loss and metrics."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from perceivers.tasks.base import PredictionRequest, SupervisedTask, Task
from perceivers.tasks.calibration import Calibration
from perceivers.tasks.config import BaseTaskConfig, OutputPart, TargetInfo
from perceivers.tasks.intervals import Interval
from perceivers.tasks.meters import Meter
from perceivers.tasks.metric_text import SHARES
from perceivers.tasks.prediction import Prediction, Schema
from perceivers.tasks.registry import TaskConfig, build_task, config_for_target, register_task
from perceivers.typing import Bool, Float, Tensor, Tensors


@dataclass(frozen=True, kw_only=True)
class MultiTaskConfig(BaseTaskConfig):
    """Tasks that are learned together.

    Attributes:
        parts: Each task by its name: the column of its label, and the name of its output in the model.
        weights: Factor of the loss of each task, by name. Default: 1.
    """

    kind: Literal["multitask"] = "multitask"
    parts: dict[str, TaskConfig] = field(default_factory=dict[str, BaseTaskConfig])
    weights: dict[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            if self.parts and name not in self.parts:
                raise ValueError(
                    f"weights names '{name}', which is none of the tasks {', '.join(self.parts)}."
                )
            if not weight >= 0:
                raise ValueError(
                    f"The weight of a task must be at least 0, got {weight} for '{name}'."
                )
        unlabeled = [name for name, part in self.parts.items() if not part.requires_labels]
        if unlabeled:
            raise ValueError(
                "Expected tasks that learn a label column (classification, multilabel, regression), got "
                f"{self.parts[unlabeled[0]].kind} for '{unlabeled[0]}'."
            )

    @property
    def target_kind(self) -> str:
        """Each task has a label column of its kind."""
        return "auto"

    @property
    def output_names(self) -> tuple[str, ...]:
        """Name of each task."""
        return tuple(self.parts)

    @property
    def subtasks(self) -> Mapping[str, BaseTaskConfig]:
        """Configuration of each task."""
        return self.parts

    @property
    def needs_class_counts(self) -> bool:
        """Some classification among the tasks may have balanced weights."""
        return any(part.needs_class_counts for part in self.parts.values())

    def fit_to(self, target: TargetInfo) -> "MultiTaskConfig":
        """Return the configuration with names and statistics of each task's target."""
        if not target.parts:
            return self
        parts = {name: part.fit_to(target.parts[name]) for name, part in self.parts.items()}
        return replace(self, parts=parts)

    def output_parts(self) -> dict[str, OutputPart]:
        """Return one output for each task."""
        return {name: next(iter(part.output_parts().values())) for name, part in self.parts.items()}


def multitask_config(
    config: TaskConfig, kinds: Mapping[str, str], *, recipe: str
) -> MultiTaskConfig:
    """Return the configuration of one task for each label column, whose kinds are `class`, `labels` or `number`.

    That of the recipe is of several tasks, or of one whose settings all tasks get.

    Raises:
        ValueError: If the recipe learns a column that the data lack.
    """
    known = config if isinstance(config, MultiTaskConfig) else MultiTaskConfig()
    unknown = [name for name in known.parts if name not in kinds]
    if unknown:
        raise ValueError(
            f"Recipe {recipe} learns '{unknown[0]}', which is none of the labels {', '.join(kinds)}."
        )
    parts = {
        name: config_for_target(known.parts.get(name, config), kind) for name, kind in kinds.items()
    }
    return replace(known, parts=parts)


class MultiTask(SupervisedTask):
    """Several tasks on the same latents. Outputs and targets are dicts by the name of the task.

    A sample may lack the target of some tasks (-1 for a class, NaN for labels and numbers): the loss and the metrics of
    a task are those of the samples that have it.

    Reference: Perceiver IO (arXiv:2107.14795), section 3.2 and table 2: one learned query for each task.
    """

    config: MultiTaskConfig
    main_metric = "score"

    def __init__(self, config: MultiTaskConfig, parts: Mapping[str, Task]) -> None:
        super().__init__(config)
        self._parts = dict(parts)
        # Errors in the units of different numbers cannot be added up; shares of correct predictions can.
        self._scored = [name for name, part in parts.items() if part.score_name in SHARES]
        self.score_name = "score" if self._scored else "loss"

    @property
    def parts(self) -> Mapping[str, Task]:
        """Each task by its name."""
        return self._parts

    @property
    def num_outputs(self) -> int:
        """Numbers that are predicted for a sample, of all tasks together."""
        return sum(part.num_outputs for part in self.parts.values())

    def answer_schema(self) -> Schema:
        """Return the JSON schema of an answer with the fields of each task in `tasks`."""
        parts = {name: part.answer_schema() for name, part in self.parts.items()}
        tasks = {"type": "object", "properties": parts, "required": [*parts]}
        return {
            "type": "object",
            "properties": {"task": {"const": self.config.kind}, "tasks": tasks},
            "required": ["task", "tasks"],
            "additionalProperties": False,
        }

    def answer_example(self) -> dict[str, Any]:
        """Return an example with those of all tasks."""
        parts = {name: part.answer_example() for name, part in self.parts.items()}
        return {"task": self.config.kind, "tasks": parts}

    def loss(self, outputs: Tensors, targets: Tensors) -> Float[Tensor, ""]:
        """Return the sum over tasks of their weighted losses, each the mean over the samples that have its target."""
        losses: list[Tensor] = []
        for name, part in self.parts.items():
            known, truth = _of_known(outputs[name], targets[name])
            # Without any target the loss is zero, and so is its gradient: all weights still take part in the step.
            loss = part.loss(known, truth) if truth.shape[0] else outputs[name].float().sum() * 0.0
            losses.append(loss * self.config.weights.get(name, 1.0))
        return sum(losses[1:], start=losses[0])

    def probabilities(self, outputs: Tensors) -> dict[str, Tensor]:
        """Return the readable outputs of each task."""
        return {name: part.probabilities(outputs[name]) for name, part in self.parts.items()}

    def combine(self, outputs: Tensors) -> dict[str, Tensor]:
        """Return the combined outputs of each task."""
        return {name: part.combine(outputs[name]) for name, part in self.parts.items()}

    def training_score(self, outputs: Tensors, targets: Tensors) -> Float[Tensor, ""]:
        """Return the mean score over the tasks whose score is a share, times the samples.

        If all tasks are regressions it is the loss, times the samples.
        """
        count = next(iter(targets.values())).shape[0]
        if not self._scored:
            return self.loss(outputs, targets) * count
        shares: list[Tensor] = []
        for name in self._scored:
            known, truth = _of_known(outputs[name], targets[name])
            if truth.shape[0]:
                shares.append(self.parts[name].training_score(known, truth) / truth.shape[0])
        if not shares:
            return outputs[self._scored[0]].new_zeros(())
        return sum(shares[1:], start=shares[0]) / len(shares) * count

    def meter(self) -> "MultiTaskMeter":
        """Return a new meter."""
        return MultiTaskMeter(self)

    def predictions(self, outputs: Tensors, request: PredictionRequest) -> Iterator[Prediction]:
        """Yield the prediction of the first task of each sample, with those of all tasks in `tasks`."""
        predicted = {
            name: part.predict(outputs[name], request) for name, part in self.parts.items()
        }
        for row in zip(*predicted.values(), strict=True):
            yield replace(row[0], tasks=dict(zip(predicted, row, strict=True)))

    def example_targets(self, batch_size: int, *, mixed: bool) -> Any:
        """Return synthetic targets of each task."""
        return {
            name: part.example_targets(batch_size, mixed=mixed) for name, part in self.parts.items()
        }

    def calibrated_config(self, calibrations: Mapping[str, Calibration]) -> MultiTaskConfig:
        """Return the configuration with the fitted temperature of each task."""
        parts = {
            name: part.calibrated_config({"": calibrations[name]} if name in calibrations else {})
            for name, part in self.parts.items()
        }
        return replace(self.config, parts=parts)


class MultiTaskMeter(Meter):
    """A meter for each task."""

    def __init__(self, task: MultiTask) -> None:
        self._task = task
        self._samples = 0
        self._parts = {name: part.meter() for name, part in task.parts.items()}

    @property
    def parts(self) -> Mapping[str, Meter]:
        """Meter of each task."""
        return self._parts

    def update(self, outputs: Tensors, targets: Tensors) -> None:
        """Add one batch."""
        self._samples += next(iter(targets.values())).shape[0]
        for name, meter in self.parts.items():
            known, truth = _of_known(outputs[name], targets[name])
            if truth.shape[0]:
                meter.update(known, truth)

    def state(self) -> dict[str, Any]:
        """Return the state of each meter."""
        parts = {name: meter.state() for name, meter in self.parts.items()}
        return {"samples": self._samples, "parts": parts}

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Replace the state of each meter by the sum of these."""
        self._samples = sum(state["samples"] for state in states)
        for name, meter in self.parts.items():
            meter.merge([state["parts"][name] for state in states])

    def compute(self) -> dict[str, float]:
        """Return the metrics.

        `score`: the mean over tasks of a metric that is 1 at best: accuracy of classes, mAP of labels, and R2 of
        numbers (at least 0); `loss`: the weighted sum, without smoothing; `samples`; and all metrics of each task
        prefixed by its name, `digit/accuracy`. A task without a sample that has a target is left out.
        """
        found: dict[str, float] = {}
        scores: list[float] = []
        loss = 0.0
        for name, meter in self.parts.items():
            metrics = meter.compute()
            if not metrics["samples"]:
                continue
            main = self._task.parts[name].main_metric
            # Predictions worse than the mean count as no prediction.
            scores.append(metrics[main] if main in SHARES else max(metrics["r2"], 0.0))
            loss += metrics["loss"] * self._task.config.weights.get(name, 1.0)
            found |= {f"{name}/{metric}": value for metric, value in metrics.items()}
        score = sum(scores) / max(len(scores), 1)
        return {"score": score, "loss": loss, "samples": float(self._samples), **found}

    def intervals(self) -> dict[str, Interval]:
        """Return the intervals of the metrics of each task, and of `score`.

        The ends of that of `score` are the means of the ends over tasks: it is not too narrow however the errors of the
        tasks are related.
        """
        found: dict[str, Interval] = {}
        ends: list[Interval | None] = []
        for name, meter in self.parts.items():
            each = meter.intervals()
            found |= {f"{name}/{metric}": one for metric, one in each.items()}
            if not meter.compute()["samples"]:
                continue
            main = self._task.parts[name].main_metric
            one = each.get(main if main in SHARES else "r2")
            ends.append(None if one is None else (max(one[0], 0.0), max(one[1], 0.0)))
        known = [one for one in ends if one is not None]
        if not known or len(known) < len(ends):
            return found
        low, high = (sum(one[end] for one in known) / len(known) for end in (0, 1))
        return {"score": (low, high), **found}


def is_known(targets: Tensor) -> Bool[Tensor, " B"]:
    """Return whether each sample has a target: classes that are not -1, shares, labels and numbers that are not NaN."""
    if targets.is_floating_point():
        return ~targets.isnan().flatten(1).any(dim=1)
    return targets >= 0


def _of_known(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the outputs and targets of the samples that have one."""
    known = is_known(targets).to(outputs.device)
    if bool(known.all()):
        return outputs, targets
    return outputs[known], targets[known.to(targets.device)]


def _build(
    config: MultiTaskConfig, class_counts: Mapping[str, Sequence[int]] | None = None
) -> MultiTask:
    counts = class_counts or {}
    parts = {name: build_task(part, counts.get(name)) for name, part in config.parts.items()}
    return MultiTask(config, parts)


register_task(MultiTaskConfig, _build)
