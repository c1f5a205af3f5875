"""One number or several for each sample: squared, absolute or Huber loss; errors in the numbers' own units."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import ConfigDict
from torch.nn.functional import huber_loss, l1_loss, mse_loss

from perceivers.tasks.base import Details, Supervised
from perceivers.typing import Float, Tensor

__all__ = ["RegressionConfig", "RegressionMeter", "RegressionTask"]


@dataclass(frozen=True, kw_only=True)
class RegressionConfig:
    """How numbers are learned and named.

    Attributes:
        target_names: Name of each number, in the order of the outputs. Taken from the data when empty.
        mean: Mean of each number in train. The model predicts how many `std` a number lies above it. Empty: 0.
        std: Standard deviation of each number in train. Empty: 1.
        loss: Of the standardized numbers: squared error, absolute error, or Huber's, which is squared up to one
            `std` and absolute beyond, so that outliers count less.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Literal["regression"] = "regression"
    target_names: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    loss: Literal["mse", "l1", "huber"] = "mse"

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values and len(values) != len(self.target_names):
                msg = f"Expected a {name} for each of the {len(self.target_names)} numbers, got {len(values)}."
                raise ValueError(msg)
        if any(not value > 0 for value in self.std):
            msg = f"Each std must be larger than 0, got {self.std}."
            raise ValueError(msg)


class RegressionTask(Supervised):
    """Regression of one number or several.

    Args:
        config: Names, means, deviations and loss.
    """

    score_name = "mae"

    def __init__(self, config: RegressionConfig) -> None:
        self.config = config
        # Errors in different units have no meaningful mean: several numbers are judged by the share explained.
        self.main_metric = "rmse" if self.num_outputs == 1 else "r2"
        self.higher_is_better = self.main_metric == "r2"
        self.mean = torch.tensor(config.mean or (0.0,) * self.num_outputs, dtype=torch.float64)
        self.std = torch.tensor(config.std or (1.0,) * self.num_outputs, dtype=torch.float64)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each number."""
        return self.config.target_names

    @property
    def num_outputs(self) -> int:
        """How many numbers, K."""
        return len(self.config.target_names)

    def loss(
        self, outputs: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]
    ) -> Float[Tensor, ""]:
        """Return the mean loss over samples and numbers, in units of `std` (squared, for the squared error).

        Args:
            outputs: Standardized numbers.
            targets: Numbers in their own units.
        """
        losses = {"mse": mse_loss, "l1": l1_loss, "huber": huber_loss}
        precise = outputs.to(torch.promote_types(outputs.dtype, torch.float32))  # float64 stays
        return losses[self.config.loss](precise, self.standardized(targets).to(precise.dtype))

    def probabilities(self, outputs: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """Return the numbers in their own units."""
        return outputs.float() * self.std.to(outputs.device, torch.float32) + self.mean.to(
            outputs.device, torch.float32
        )

    def combine(self, outputs: Float[Tensor, "B S K"]) -> Float[Tensor, "B K"]:
        """Return the mean over clips."""
        return outputs.to(torch.promote_types(outputs.dtype, torch.float32)).mean(dim=1)

    def training_score(
        self, outputs: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]
    ) -> Float[Tensor, ""]:
        """Return the sum over samples of the absolute error in its own units, the mean over several numbers."""
        return (self.probabilities(outputs) - targets.float()).abs().mean(dim=1).sum()

    def meter(self) -> "RegressionMeter":
        """Return a fresh meter."""
        return RegressionMeter(self)

    def standardized(self, targets: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """Return how many `std` each number lies above the mean of train."""
        # A number far from zero loses its digits in float32, so it is float64 that is subtracted where it can be.
        wide = torch.float32 if targets.device.type == "mps" else torch.float64
        mean, std = self.mean.to(targets.device, wide), self.std.to(targets.device, wide)
        return (targets.to(wide) - mean) / std


class RegressionMeter:
    """Sums of errors, of their squares, and of the numbers themselves, all in units of `std`.

    Args:
        task: Which knows means and deviations.
    """

    def __init__(self, task: RegressionTask) -> None:
        self._task = task
        self._samples = 0
        self._loss = 0.0
        # Rows: |error|, error^2, number, number^2, output, output^2, number output. All metrics are made of them.
        self._sums: Float[Tensor, "S K"] = torch.zeros(7, task.num_outputs, dtype=torch.float64)

    def update(self, outputs: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]) -> None:
        """Take in one batch: standardized outputs, and the true numbers in their own units."""
        outputs, targets = outputs.detach().cpu().double(), targets.cpu()
        self._loss += self._task.loss(outputs, targets).item() * outputs.shape[0]
        self._samples += outputs.shape[0]
        numbers = self._task.standardized(targets).double()
        errors = outputs - numbers
        parts = [errors.abs(), errors.square(), numbers, numbers.square()]
        parts += [outputs, outputs.square(), numbers * outputs]
        self._sums += torch.stack([part.sum(dim=0) for part in parts])

    def state(self) -> dict[str, Any]:
        """Return all sums."""
        return {"samples": self._samples, "loss": self._loss, "sums": self._sums}

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Hold the sums of these meters added up."""
        self._samples = sum(state["samples"] for state in states)
        self._loss = sum(state["loss"] for state in states)
        self._sums = torch.stack([state["sums"] for state in states]).sum(dim=0)

    def compute(self) -> dict[str, float]:
        """Return the metrics; those of several numbers are means over them.

        `rmse` and `mae` (root of the mean squared error, mean absolute error, in the numbers' own units); `r2`: 1 is
        perfect, 0 is as good as the mean of these samples; `pearson`: how they go together, -1 to 1; `loss`, of the
        standardized numbers.
        """
        each = self.details()
        means = {
            name: sum(one[name] or 0.0 for one in each) / max(len(each), 1)
            for name in ("rmse", "mae", "r2", "pearson")
        }
        return {
            **means,
            "loss": self._loss / max(self._samples, 1),
            "samples": float(self._samples),
        }

    def details(self) -> Details:
        """Return `rmse`, `mae`, `r2` and `pearson` of each number."""
        count = max(self._samples, 1)
        std: list[float] = self._task.std.tolist()
        found: Details = []
        for (absolute, squared, first, second, *answers), unit in zip(
            self._sums.T.tolist(), std, strict=True
        ):
            spread = max(second - first**2 / count, 0.0)
            # Where all numbers are the same there is nothing to explain: 1 if they are met, else 0.
            r2 = 1 - squared / spread if spread > 1e-12 * count else float(squared == 0.0)
            rmse = unit * (squared / count) ** 0.5
            mae, pearson = unit * absolute / count, _pearson(count, first, second, *answers)
            found.append({"rmse": rmse, "mae": mae, "r2": r2, "pearson": pearson})
        return found


def _pearson(  # sums over samples of x, x^2, y, y^2, x y
    count: int, x: float, xx: float, y: float, yy: float, xy: float
) -> float:
    """Return the correlation of two rows of numbers: 0 where one of them is constant."""
    spread, other = xx - x * x / count, yy - y * y / count
    if min(spread, other) <= 1e-12 * count:
        return 0.0
    return max(-1.0, min((xy - x * y / count) / (spread * other) ** 0.5, 1.0))
