"""Meters: metrics accumulated batch by batch, and the baseline beside them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from perceivers.tasks.calibration import Calibration
from perceivers.tasks.curves import Curve
from perceivers.tasks.intervals import BootstrapSums, Interval
from perceivers.typing import Float, Int, Tensor

Details = list[dict[str, float | None]]
"""Metrics of each output of the model, by name; None where one is undefined."""


class Meter(ABC):
    """Accumulates metrics batch by batch; meters of several devices are merged by their states."""

    @property
    def confusion(self) -> Tensor | None:
        """Samples by true class (rows) and predicted class (columns). None: the task has no confusion matrix."""
        return None

    @property
    def parts(self) -> Mapping[str, "Meter"]:
        """Meter of each of several tasks, by name. Empty for a single task."""
        return {}

    @abstractmethod
    def update(self, outputs: Any, targets: Any) -> None:
        """Add one batch."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return the accumulated state: CPU tensors and numbers, which can be sent to another process."""

    @abstractmethod
    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Replace the state by the sum of these states."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Return the metrics by name."""

    def details(self) -> Details:
        """Return the metrics of each output. Empty where there is a confusion matrix, or outputs have no names."""
        return []

    def proportions(self) -> dict[str, Interval]:
        """Return the 95 % confidence intervals of the metrics that are proportions of samples: they cost nothing."""
        return {}

    def intervals(self) -> dict[str, Interval]:
        """Return the 95 % confidence interval of each metric that has one, by name."""
        return self.proportions()

    def detail_intervals(self) -> list[dict[str, Interval]]:
        """Return the 95 % confidence intervals of the metrics in `details`, or nothing."""
        return []

    def errors(self) -> Tensor | None:
        """Return an error of each sample, in order, by which two models can be compared on the same samples.

        Its mean is the lower, the better the main metric is. None: it is not kept, or the metric is no mean.
        """
        return None

    def calibration(self, temperature: float | None = None) -> Calibration | None:
        """Return the calibration of the predicted probabilities. None: there are no probabilities, or no samples.

        Args:
            temperature: Temperature of the run. None: it is fitted to these samples.
        """
        return None

    def curves(self) -> tuple[Curve, ...]:
        """Return ROC and precision-recall curves of the classes or labels."""
        return ()


class SummedMeter(Meter):
    """A meter whose state is an array of sums of this shape.

    Args:
        shape: Shape of the sums.
        per_sample: Number of sums of each sample from which `resampled` computes metrics.
    """

    def __init__(self, *shape: int, per_sample: int = 0) -> None:
        self.sums: Tensor = torch.zeros(shape, dtype=torch.float64)
        self.samples = BootstrapSums(per_sample)

    def state(self) -> dict[str, Any]:
        """Return the sums."""
        return {"sums": self.sums, "samples": self.samples.state()}

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Replace the sums by those of these meters added up."""
        self.sums = torch.stack([state["sums"] for state in states]).sum(dim=0)
        self.samples.merge([state["samples"] for state in states])

    def resampled(self, rows: Float[Tensor, "R S"]) -> dict[str, Float[Tensor, " R"]]:
        """Return the metrics of resamples of the samples, from the sums of each."""
        return {}

    def intervals(self) -> dict[str, Interval]:
        """Return the bootstrap intervals of the metrics that `resampled` returns."""
        return self.samples.intervals(self.resampled)


class ConfusionMeter(SummedMeter):
    """A meter with the counts of a confusion matrix of K classes, and `count` sums."""

    def __init__(self, num_classes: int, count: int, *, per_sample: int = 0) -> None:
        super().__init__(count, per_sample=per_sample)
        self._confusion: Int[Tensor, "K K"] = torch.zeros(
            num_classes, num_classes, dtype=torch.long
        )

    @property
    def confusion(self) -> Int[Tensor, "K K"]:
        """Counts by true class (rows) and predicted class (columns)."""
        return self._confusion

    def count(self, targets: Int[Tensor, " n"], predicted: Int[Tensor, " n"]) -> None:
        """Add pairs of a true and a predicted class."""
        size = self._confusion.shape[0]
        cells = (targets * size + predicted).cpu()
        self._confusion += cells.bincount(minlength=size**2).view(size, size)

    def state(self) -> dict[str, Any]:
        """Return the counts and sums."""
        return {"confusion": self._confusion, **super().state()}

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Replace counts and sums by those of these meters added up."""
        super().merge(states)
        self._confusion = torch.stack([state["confusion"] for state in states]).sum(dim=0)


class Baseline(ABC):
    """A constant prediction, measured beside the model's."""

    @abstractmethod
    def update(self, targets: Any) -> None:
        """Add the targets of one batch."""

    @abstractmethod
    def add_to(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return the metrics of a model with those of the baseline beside them."""
