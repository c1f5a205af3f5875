"""Choice of the weights of a run that are kept: those of its end, unless earlier ones are clearly better."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from perceivers.tasks.base import Task
from perceivers.typing import Tensor

MIN_PARTS = 8
"""Number of parts of the validation split below which no uncertainty is estimated, and the end of the run is kept."""

STANDARD_ERRORS = 2.5
"""Difference of two validation losses, in standard errors, from which the larger one is clearly worse."""

_PARTS = 8  # of each batch

FIRST_VALIDATIONS = 5
"""Validations at the start of a run, one after each epoch whatever it costs."""

SAMPLES_PER_ROW = 11
"""Training samples for each row of a validation: a forward pass is a third of a training step, which makes 3 %."""

MIN_STEPS = 16
"""Optimizer steps between two validations, whose fixed cost is that of half a step of a tiny model."""

MIN_SHARE = 0.05
"""Steps between two validations as a share of all steps so far."""


@dataclass
class BestResult:
    """Weights that are kept so far, and the validations since. Part of every checkpoint.

    While a run lasts, its candidate is the validation with the lowest smoothed loss: the mean of its loss and of that
    before it, so that a single lucky validation does not win. At the end of the schedule, the last weights are kept
    unless they are clearly worse than the candidate.

    Attributes:
        metrics: Metrics of the weights that are kept.
        step: Their optimizer step.
        losses: Their loss on each part of the validation split.
        smoothed: Their smoothed loss.
        last_loss: Loss of the last validation. None: it is the first.
        since: Number of validations since then.
        is_due: Whether an epoch has ended whose validation is not complete.
        measured_step: Optimizer step of the last validation.
        count: Number of validations.
        rows: Rows that the last validation passed through the model, on all devices.
        reason: Why these weights are kept, at the end of the run.
    """

    metrics: dict[str, float] = field(default_factory=dict[str, float])
    step: int = 0
    losses: list[float] = field(default_factory=list[float])
    smoothed: float = math.inf
    last_loss: float | None = None
    since: int = 0
    is_due: bool = False
    measured_step: int = 0
    count: int = 0
    rows: int = 0
    reason: str = ""

    def needs_validation(self, *, step: int, batch_size: int) -> bool:
        """Return whether to validate at the end of an epoch: its cost is to stay below 3 % of that of training.

        The rule counts samples and steps, not seconds, so that the same run validates at the same steps everywhere.

        Args:
            step: Optimizer step.
            batch_size: Samples of an optimizer step, on all devices.
        """
        pause = max(MIN_STEPS, MIN_SHARE * step, SAMPLES_PER_ROW * self.rows / batch_size)
        return self.count < FIRST_VALIDATIONS or step - self.measured_step >= pause

    def update(
        self,
        metrics: Mapping[str, float],
        losses: Sequence[float],
        *,
        step: int,
        task: Task,
        is_end: bool,
    ) -> bool:
        """Take a validation into account; return whether its weights are to be kept.

        Args:
            metrics: Metrics of the validation.
            losses: Loss on each part of the split, in the same order every time.
            step: Optimizer step.
            task: The task, whose main metric is compared at the end, too.
            is_end: Whether the learning-rate schedule has ended.
        """
        loss = metrics["loss"] if "loss" in metrics else statistics.fmean(losses)
        smoothed = loss if self.last_loss is None else (loss + self.last_loss) / 2
        takes, self.reason = smoothed < self.smoothed or not self.metrics, ""
        if is_end:
            worse = self.metrics and is_clearly_worse(losses, self.losses)
            takes = not (worse and not _is_better(metrics, self.metrics, task))
            self.reason = self._end_reason(loss, step, takes=takes)
        self.is_due, self.measured_step, self.last_loss = False, step, loss
        self.count += 1
        if takes:
            self.metrics, self.step, self.losses = dict(metrics), step, list(losses)
            self.smoothed, self.since = smoothed, 0
        else:
            self.since += 1
        return takes

    def _end_reason(self, loss: float, step: int, *, takes: bool) -> str:
        """Return the reason of the choice between the candidate and the end of the run."""
        if not takes:
            return (
                f"the validation loss at the end of the run, {loss:.4g} at step {step:,}, was clearly worse than "
                f"{self.metrics.get('loss', math.nan):.4g}"
            )
        before = self.metrics.get("loss", math.inf)
        if before < loss:
            return (
                f"the end of the run; the loss of {before:.4g} at step {self.step:,} was not clearly better than its "
                f"{loss:.4g}"
            )
        return "the end of the run"


def is_clearly_worse(losses: Sequence[float], others: Sequence[float]) -> bool:
    """Return whether losses are larger than others by more than the uncertainty of the validation split.

    The parts of the split are compared in pairs: the mean difference exceeds `STANDARD_ERRORS` of its standard errors.
    False if there are fewer than `MIN_PARTS` parts.
    """
    if len(losses) != len(others):
        return False
    pairs = [a - b for a, b in zip(losses, others, strict=True) if math.isfinite(a - b)]
    if len(pairs) < MIN_PARTS:
        return False
    error = statistics.stdev(pairs) / math.sqrt(len(pairs))
    return statistics.fmean(pairs) > STANDARD_ERRORS * error


def _is_better(new: Mapping[str, float], old: Mapping[str, float], task: Task) -> bool:
    """Return whether the main metric of a validation is better than that of another."""
    mine, other = new.get(task.main_metric), old.get(task.main_metric)
    if mine is None or other is None:
        return False
    return mine > other if task.higher_is_better else mine < other


def losses_of_parts(task: Task, outputs: Any, targets: Any) -> list[float]:
    """Return the mean loss of each of a few parts of a batch; of outputs that cannot be divided, that of the batch."""
    try:
        count = _num_rows(targets)
        size = max(1, -(-count // _PARTS))
        parts = [slice(first, first + size) for first in range(0, count, size)]
        return [task.loss(_rows(outputs, part), _rows(targets, part)).item() for part in parts]
    except TypeError:
        return [task.loss(outputs, targets).item()]


def _num_rows(values: Any) -> int:
    if isinstance(values, Tensor):
        return values.shape[0]
    if isinstance(values, Mapping):
        return _num_rows(next(iter(cast("Mapping[str, Any]", values).values())))
    raise TypeError(f"Expected tensors, got {type(values).__name__}.")


def _rows(values: Any, part: slice) -> Any:
    if isinstance(values, Tensor):
        return values[part]
    if isinstance(values, Mapping):
        return {name: _rows(one, part) for name, one in cast("Mapping[str, Any]", values).items()}
    raise TypeError(f"Expected tensors, got {type(values).__name__}.")
