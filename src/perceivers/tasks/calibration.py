"""Calibration of probabilities: temperature scaling, expected calibration error and reliability curve."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from perceivers.registry import configclass
from perceivers.typing import Bool, Float, Int, Tensor

MIN_ROWS = 100
"""Number of validation rows below which no temperature is fitted."""

_BINS = 15
_LOWEST, _HIGHEST = 0.05, 20.0  # temperatures
_STEPS = 40  # of the golden-section search: the interval shrinks to 5e-9 of its length


@configclass
class ReliabilityBin:
    """Samples whose confidence lies between two multiples of 1/15.

    Attributes:
        confidence: Their mean predicted probability.
        accuracy: Share of them for which the prediction holds.
        n: Their number.
    """

    confidence: float
    accuracy: float
    n: int


@configclass
class Calibration:
    """Agreement of predicted probabilities and frequencies, without and with temperature scaling.

    Attributes:
        temperature: Divisor of the logits.
        samples: Number of samples that were measured.
        ece_before: Expected calibration error of the probabilities at temperature 1.
        ece: That of the probabilities at `temperature`.
        bins_before: Reliability curve at temperature 1.
        bins: Reliability curve at `temperature`.
    """

    temperature: float
    samples: int
    ece_before: float
    ece: float
    bins_before: tuple[ReliabilityBin, ...] = ()
    bins: tuple[ReliabilityBin, ...] = ()


def fit_temperature(cross_entropy: Callable[[float], float]) -> float:
    """Return the temperature with the lowest cross-entropy on held-out samples.

    The logarithm of the temperature has a normal prior of deviation 1, so that samples that are all predicted correctly
    do not make every probability 1. With some hundred samples the prior has no effect.

    Args:
        cross_entropy: Returns the sum over samples, in nats, at a temperature.

    Reference: C. Guo et al., On Calibration of Modern Neural Networks (arXiv:1706.04599), section 4.2.
    """

    def cost(log_temperature: float) -> float:
        return cross_entropy(math.exp(log_temperature)) + log_temperature**2 / 2

    low, high = math.log(_LOWEST), math.log(_HIGHEST)
    golden = (math.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    cost_left, cost_right = cost(left), cost(right)
    for _ in range(_STEPS):
        if cost_left <= cost_right:
            high, right, cost_right = right, left, cost_left
            left = high - golden * (high - low)
            cost_left = cost(left)
        else:
            low, left, cost_left = left, right, cost_right
            right = low + golden * (high - low)
            cost_right = cost(right)
    return round(math.exp((low + high) / 2), 6)


def reliability(
    confidence: Float[Tensor, " n"], is_right: Bool[Tensor, " n"]
) -> tuple[float, tuple[ReliabilityBin, ...]]:
    """Return the expected calibration error and the reliability curve, over 15 bins of equal width.

    The error is the mean over samples of the difference between confidence and accuracy of their bin.
    """
    number = (confidence * _BINS).long().clamp(0, _BINS - 1)
    counts = number.bincount(minlength=_BINS)
    sums = torch.zeros(_BINS, dtype=torch.float64).scatter_add_(0, number, confidence.double())
    hits = torch.zeros(_BINS, dtype=torch.float64).scatter_add_(0, number, is_right.double())
    bins = tuple(
        ReliabilityBin(confidence=total / n, accuracy=right / n, n=n)
        for total, right, n in zip(sums.tolist(), hits.tolist(), counts.tolist(), strict=True)
        if n
    )
    error = (sums - hits).abs().sum().item() / max(len(confidence), 1)
    return error, bins


def class_calibration(
    logits: Float[Tensor, "n K"], targets: Int[Tensor, " n"], temperature: float | None = None
) -> Calibration:
    """Return the calibration of the most probable class of each sample.

    Args:
        logits: Outputs of the model.
        targets: Index of the true class.
        temperature: Temperature of the run. None: it is fitted to these samples.
    """
    precise = logits.double()
    true = precise.gather(1, targets[:, None])[:, 0]

    def cross_entropy(one: float) -> float:
        return ((precise / one).logsumexp(dim=1) - true / one).sum().item()

    def measure(one: float) -> tuple[float, tuple[ReliabilityBin, ...]]:
        best = (precise / one).softmax(dim=1).max(dim=1)
        return reliability(best.values, best.indices == targets)

    return _calibration(len(targets), temperature, cross_entropy, measure)


def label_calibration(
    logits: Float[Tensor, "n K"], targets: Bool[Tensor, "n K"], temperature: float | None = None
) -> Calibration:
    """Return the calibration of the probability of every label of every sample. Arguments: see `class_calibration`."""
    precise = logits.double()
    sign = targets.double() * 2 - 1

    def cross_entropy(one: float) -> float:
        return -torch.nn.functional.logsigmoid(sign * precise / one).mean(dim=1).sum().item()

    def measure(one: float) -> tuple[float, tuple[ReliabilityBin, ...]]:
        return reliability((precise / one).sigmoid().flatten(), targets.flatten())

    return _calibration(len(targets), temperature, cross_entropy, measure)


def _calibration(
    samples: int,
    temperature: float | None,
    cross_entropy: Callable[[float], float],
    measure: Callable[[float], tuple[float, tuple[ReliabilityBin, ...]]],
) -> Calibration:
    if temperature is None:
        temperature = fit_temperature(cross_entropy) if samples >= MIN_ROWS else 1.0
    before, bins_before = measure(1.0)
    after, bins = (before, bins_before) if temperature == 1.0 else measure(temperature)
    return Calibration(
        temperature=temperature,
        samples=samples,
        ece_before=before,
        ece=after,
        bins_before=bins_before,
        bins=bins,
    )


@dataclass
class ScoreSample:
    """Logits and targets of evenly spaced samples, in bounded memory.

    All samples are kept as long as their logits are at most 2^23 numbers (32 MiB). Beyond that every second, fourth,
    ... sample is kept, whatever the order of the samples is.

    Args:
        width: Logits of a sample.
        limit: Largest number of logits.
    """

    width: int
    limit: int = 2**23

    def __post_init__(self) -> None:
        self._outputs = [torch.zeros(0, self.width)]
        self._targets: list[Tensor] = []
        self._stride = 1
        self._seen = self._kept = 0

    @property
    def outputs(self) -> Float[Tensor, "n K"]:
        """Logits of the kept samples."""
        return torch.cat(self._outputs)

    @property
    def targets(self) -> Int[Tensor, " n"]:
        """True class of the kept samples."""
        return torch.cat(self._targets) if self._targets else torch.zeros(0, dtype=torch.long)

    def is_right(self) -> Bool[Tensor, " n"]:
        """Return whether the largest logit of each kept sample is that of its class."""
        return self.outputs.argmax(dim=1) == self.targets

    def add(self, outputs: Float[Tensor, "B K"], targets: Int[Tensor, " B"]) -> None:
        """Add a batch. Samples whose logits are not finite are left out."""
        finite = outputs.isfinite().all(dim=1)
        if not bool(finite.all()):
            outputs, targets = outputs[finite], targets[finite]
        first = -self._seen % self._stride
        self._seen += len(outputs)
        self._append(outputs[first :: self._stride], targets[first :: self._stride])
        while self._kept * self.width > self.limit and self._kept > 1:
            self._thin(2)

    def state(self) -> dict[str, Tensor | int]:
        """Return the kept samples and their spacing."""
        return {"outputs": self.outputs, "targets": self.targets, "stride": self._stride}

    def merge(self, states: Sequence[dict[str, Tensor | int]]) -> None:
        """Replace the samples by those of these states, all at the widest spacing of any."""
        self.__post_init__()
        self._stride = max(int(state["stride"]) for state in states)
        for state in states:
            outputs, targets = state["outputs"], state["targets"]
            assert isinstance(outputs, Tensor)
            assert isinstance(targets, Tensor)
            step = self._stride // int(state["stride"])
            self._append(outputs[::step], targets[::step])
        while self._kept * self.width > self.limit and self._kept > 1:
            self._thin(2)

    def _append(self, outputs: Tensor, targets: Tensor) -> None:
        self._outputs.append(outputs)
        self._targets.append(targets)
        self._kept += len(outputs)

    def _thin(self, step: int) -> None:
        self._outputs, self._targets = (
            [self.outputs[::step].clone()],
            [self.targets[::step].clone()],
        )
        self._stride *= step
        self._kept = len(self._outputs[0])
