"""What every task offers to training and evaluation."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from perceivers.typing import Float, Tensor

__all__ = ["SHARES", "Details", "Meter", "Task", "combine_clips", "metric_text"]

# Measures that are shares in [0, 1] and read better as percentages.
SHARES = frozenset(
    {"accuracy", "top5", "mean_recall", "mAP", "micro_mAP", "hit1", "exact", "AP", "recall"}
)

Details = list[dict[str, float | None]]
"""For each output of the model, its measures by name; None where one cannot be told."""


@runtime_checkable
class Meter(Protocol):
    """Collects predictions batch by batch. Those of several devices are put together by their states."""

    def update(self, outputs: Float[Tensor, "B K"], targets: Tensor) -> None:
        """Take in one batch."""
        ...

    def state(self) -> dict[str, Any]:
        """Return what was collected: tensors on the CPU and numbers, which another process can take."""
        ...

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Hold what these meters have collected together, instead of what it held before."""
        ...

    def compute(self) -> dict[str, float]:
        """Return the metrics by name."""
        ...

    def details(self) -> Details:
        """Return the measures of each output by itself. Empty where a confusion matrix tells more."""
        ...


@runtime_checkable
class Task(Protocol):
    """A loss, and the metrics that say how good the predictions are.

    Attributes:
        main_metric: The metric by which runs are compared.
        higher_is_better: Whether it is to be large.
        score_name: What `training_score` measures.
    """

    main_metric: str
    higher_is_better: bool
    score_name: str

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each output: classes, labels, or what the numbers are."""
        ...

    @property
    def num_outputs(self) -> int:
        """Numbers that the model must predict for a sample."""
        ...

    def loss(self, outputs: Float[Tensor, "B K"], targets: Tensor) -> Float[Tensor, ""]:
        """Return the mean loss of a batch."""
        ...

    def probabilities(self, outputs: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """Return outputs on a scale that people read: probabilities, or numbers in their own units."""
        ...

    def combine(self, outputs: Float[Tensor, "B S K"]) -> Float[Tensor, "B K"]:
        """Return the outputs that stand for the mean over S clips of what people read."""
        ...

    def training_score(self, outputs: Float[Tensor, "B K"], targets: Tensor) -> Float[Tensor, ""]:
        """Return the sum over samples of what the training log shows beside the loss. It stays on the device."""
        ...

    def meter(self) -> Meter:
        """Return a fresh meter."""
        ...


def combine_clips(
    task: Task, outputs: Float[Tensor, "Bc K"], num_clips: int
) -> Float[Tensor, "B K"]:
    """Return one row of outputs for each sample.

    Args:
        task: Which knows how clips are averaged.
        outputs: Of the clips, those of one sample side by side.
        num_clips: Clips of each sample.
    """
    return outputs if num_clips == 1 else task.combine(outputs.unflatten(0, (-1, num_clips)))


def metric_text(name: str, value: float, *, digits: int = 1) -> str:
    """Return a measure as people read it.

    Args:
        name: Of the measure.
        value: Its value.
        digits: Behind the point, of a percentage.
    """
    if name in SHARES:
        return f"{100 * value:.{digits}f} %"
    if name in {"samples", "n"} or abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.4f}" if name == "loss" else f"{value:.4g}"
