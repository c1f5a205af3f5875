"""Several tasks at once: each has its own answer, loss and metrics, and all share what was read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from perceivers.tasks.base import SHARES, Details, Meter, Supervised, Task
from perceivers.tasks.classification import ClassificationConfig
from perceivers.tasks.multilabel import MultiLabelConfig
from perceivers.tasks.regression import RegressionConfig
from perceivers.typing import Bool, Float, Tensor

__all__ = ["MultiTask", "MultiTaskConfig", "MultiTaskMeter", "PartConfig", "is_known"]

PartConfig = Annotated[
    ClassificationConfig | MultiLabelConfig | RegressionConfig, Field(discriminator="kind")
]


@dataclass(frozen=True, kw_only=True)
class MultiTaskConfig:
    """What is learned together.

    Attributes:
        parts: Each task by its name: the column of its target, and the name of its answer in the model.
        weights: What the loss of a task is multiplied by; 1 where nothing is said.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Literal["multitask"] = "multitask"
    parts: dict[str, PartConfig] = field(default_factory=dict[str, PartConfig])
    weights: dict[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        for name, weight in self.weights.items():
            if self.parts and name not in self.parts:
                msg = f"weights names '{name}', which is none of the tasks {', '.join(self.parts)}."
                raise ValueError(msg)
            if not weight >= 0:
                msg = f"The weight of a task must be at least 0, got {weight} for '{name}'."
                raise ValueError(msg)


class MultiTask(Supervised):
    """Several tasks on the same latents. Outputs and targets are dicts by the name of the task.

    A sample may lack the target of some tasks (-1 for a class, NaN for labels and numbers): the loss and the metrics of
    a task are those of the samples that have it.

    Args:
        config: Weights of the tasks.
        parts: The tasks themselves, by name.

    Source: Perceiver IO (arXiv:2107.14795), section 3.2 and table 2: one learned query for each task.
    """

    main_metric = "score"
    higher_is_better = True

    def __init__(self, config: MultiTaskConfig, parts: Mapping[str, Task]) -> None:
        self.config = config
        self.parts = dict(parts)
        # Errors in the units of different numbers cannot be added up; right answers can.
        self._scored = [name for name, part in parts.items() if part.score_name in SHARES]
        self.score_name = "score" if self._scored else "loss"

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each task."""
        return tuple(self.parts)

    @property
    def num_outputs(self) -> int:
        """Numbers that are predicted for a sample, of all tasks."""
        return sum(part.num_outputs for part in self.parts.values())

    def loss(
        self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]
    ) -> Float[Tensor, ""]:
        """Return the sum over tasks of their weighted losses, each the mean over the samples that have its target."""
        losses: list[Tensor] = []
        for name, part in self.parts.items():
            own, truth = _of_known(outputs[name], targets[name])
            # Without any target the loss is zero, and so is its gradient: all weights still take part in the step.
            loss = part.loss(own, truth) if truth.shape[0] else outputs[name].float().sum() * 0.0
            losses.append(loss * self.config.weights.get(name, 1.0))
        return sum(losses[1:], start=losses[0])

    def probabilities(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what each task says on a scale that people read."""
        return {name: part.probabilities(outputs[name]) for name, part in self.parts.items()}

    def combine(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return for each task the outputs that stand for the mean over clips."""
        return {name: part.combine(outputs[name]) for name, part in self.parts.items()}

    def training_score(
        self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]
    ) -> Float[Tensor, ""]:
        """Return the mean over the tasks that count right answers of their share, times the samples.

        Where all tasks are numbers it is the loss, times the samples.
        """
        count = next(iter(targets.values())).shape[0]
        if not self._scored:
            return self.loss(outputs, targets) * count
        shares: list[Tensor] = []
        for name in self._scored:
            own, truth = _of_known(outputs[name], targets[name])
            if truth.shape[0]:
                shares.append(self.parts[name].training_score(own, truth) / truth.shape[0])
        if not shares:
            return outputs[self._scored[0]].new_zeros(())
        return sum(shares[1:], start=shares[0]) / len(shares) * count

    def meter(self) -> "MultiTaskMeter":
        """Return a fresh meter."""
        return MultiTaskMeter(self)


class MultiTaskMeter:
    """A meter for each task.

    Args:
        task: Which knows its parts and their weights.
    """

    def __init__(self, task: MultiTask) -> None:
        self._task = task
        self._samples = 0
        self.parts: dict[str, Meter] = {name: part.meter() for name, part in task.parts.items()}

    def update(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
        """Take in one batch."""
        self._samples += next(iter(targets.values())).shape[0]
        for name, meter in self.parts.items():
            own, truth = _of_known(outputs[name], targets[name])
            if truth.shape[0]:
                meter.update(own, truth)

    def state(self) -> dict[str, Any]:
        """Return the state of each meter."""
        parts = {name: meter.state() for name, meter in self.parts.items()}
        return {"samples": self._samples, "parts": parts}

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Hold what these meters have collected together."""
        self._samples = sum(state["samples"] for state in states)
        for name, meter in self.parts.items():
            meter.merge([state["parts"][name] for state in states])

    def compute(self) -> dict[str, float]:
        """Return the metrics.

        `score`: the mean over tasks of what each is judged by, all of which are 1 at best: accuracy of classes, mAP of
        labels, and the share explained (R2, 0 where it is below) of numbers; `loss`: the sum that is learned, without
        smoothing; `samples`; and all metrics of each task behind its name, `digit/accuracy`. A task of which no sample
        has a target is left out.
        """
        found: dict[str, float] = {}
        scores: list[float] = []
        loss = 0.0
        for name, meter in self.parts.items():
            own = meter.compute()
            if not own["samples"]:
                continue
            main = self._task.parts[name].main_metric
            # Numbers that are told worse than by their mean are as bad as not told at all.
            scores.append(own[main] if main in SHARES else max(own["r2"], 0.0))
            loss += own["loss"] * self._task.config.weights.get(name, 1.0)
            found |= {f"{name}/{metric}": value for metric, value in own.items()}
        score = sum(scores) / max(len(scores), 1)
        return {"score": score, "loss": loss, "samples": float(self._samples), **found}

    def details(self) -> Details:
        """Return nothing: each task tells its own."""
        return []


def is_known(targets: Tensor) -> Bool[Tensor, " B"]:
    """Tell which samples have a target: classes that are not -1, shares, labels and numbers that are not NaN."""
    if targets.is_floating_point():
        return ~targets.isnan().flatten(1).any(dim=1)
    return targets >= 0


def _of_known(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the outputs and targets of the samples that have one."""
    known = is_known(targets).to(outputs.device)
    if bool(known.all()):
        return outputs, targets
    return outputs[known], targets[known.to(targets.device)]
