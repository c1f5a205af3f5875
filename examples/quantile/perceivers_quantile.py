"""Quantile regression for perceivers: the median of a number and an interval around it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

import perceivers as pv


@dataclass(frozen=True, kw_only=True)
class QuantileConfig(pv.BaseTaskConfig):
    """Quantiles of one number.

    Attributes:
        levels: Quantiles to predict, from 0 to 1.
        target_name: Name of the number. Taken from the data.
        mean: Mean of the number in the training split. Taken from the data.
        std: Standard deviation of the number in the training split. Taken from the data.
    """

    kind: Literal["quantile"] = "quantile"
    levels: tuple[float, ...] = (0.1, 0.5, 0.9)
    target_name: str = ""
    mean: float = 0.0
    std: float = 1.0

    @property
    def target_kind(self) -> str:
        """The label column contains numbers."""
        return "number"

    @property
    def output_names(self) -> tuple[str, ...]:
        """Name of each quantile."""
        return tuple(f"{self.target_name} {100 * level:g} %" for level in self.levels)

    @property
    def known_names(self) -> tuple[str, ...]:
        """Name of the label column's number."""
        return (self.target_name,)

    def fit_to(self, target: pv.TargetInfo) -> "QuantileConfig":
        """Return the configuration with name, mean and deviation of the number."""
        if len(target.names) != 1 or target.moments is None:
            raise ValueError(f"Expected one number with known moments, got {target.names}.")
        (mean,), (std,) = target.moments
        return replace(self, target_name=target.names[0], mean=mean, std=std)

    def output_parts(self) -> dict[str, pv.OutputPart]:
        """Return one output with all quantiles."""
        return {"label": pv.OutputPart(num_outputs=len(self.levels))}


class QuantileTask(pv.SupervisedTask):
    """Pinball loss of standardized numbers."""

    main_metric = "mae"
    higher_is_better = False
    score_name = "mae"
    explains_outputs = True

    def __init__(self, config: QuantileConfig) -> None:
        self.config = config

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean pinball loss over samples (B) and quantiles (Q)."""
        levels = torch.tensor(self.config.levels, device=outputs.device)
        standardized = (targets.float() - self.config.mean) / self.config.std  # B x 1
        errors = standardized - outputs.float()  # B x Q
        return torch.maximum(levels * errors, (levels - 1) * errors).mean()

    def probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the quantiles in the unit of the number."""
        return outputs.float() * self.config.std + self.config.mean

    def combine(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the mean over clips, B x S x Q -> B x Q."""
        return outputs.float().mean(dim=1)

    def training_score(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the sum over samples of the absolute error of the middle quantile."""
        middle = self.probabilities(outputs)[:, len(self.config.levels) // 2]
        return (middle - targets[:, 0].float()).abs().sum()

    def meter(self) -> "QuantileMeter":
        """Return a new meter."""
        return QuantileMeter(self)

    def predictions(
        self, outputs: torch.Tensor, request: pv.PredictionRequest
    ) -> Iterator[pv.Prediction]:
        """Yield the quantiles of each sample by name."""
        for name, row in zip(request.names, self.probabilities(outputs).tolist(), strict=True):
            yield pv.Prediction(name=name, values=dict(zip(self.names, row, strict=True)))


class QuantileMeter(pv.Meter):
    """Loss, absolute error of the middle quantile, and share of numbers between the outer quantiles."""

    def __init__(self, task: QuantileTask) -> None:
        self.task = task
        self.sums = torch.zeros(4, dtype=torch.float64)  # of samples: 1, loss, error, inside

    def update(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Add a batch."""
        quantiles = self.task.probabilities(outputs)
        inside = (targets >= quantiles[:, :1]) & (targets <= quantiles[:, -1:])
        loss = self.task.loss(outputs, targets) * len(targets)
        error = self.task.training_score(outputs, targets)
        self.sums += torch.tensor([len(targets), loss, error, inside.sum()])

    def state(self) -> dict[str, Any]:
        """Return the sums, to be merged with those of other processes."""
        return {"sums": self.sums}

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Replace the sums by those of all processes."""
        self.sums = torch.stack([state["sums"] for state in states]).sum(dim=0)

    def compute(self) -> dict[str, float]:
        """Return the metrics by name."""
        samples, *sums = self.sums.tolist()
        loss, mae, coverage = (total / max(samples, 1) for total in sums)
        return {"mae": mae, "coverage": coverage, "loss": loss, "samples": samples}


pv.register_task(QuantileConfig, QuantileTask)


@pv.recipe
def audio_quantiles() -> pv.Recipe:
    """Quantiles of a number from audio.

    Run:       perceivers fit DATA --recipe audio_quantiles
    Expected:  not measured.
    Reference: Koenker and Bassett, Regression Quantiles (Econometrica, 1978).
    """
    audio = pv.get_recipe("audio", size="tiny")
    return replace(audio, name="audio_quantiles", task=QuantileConfig())
