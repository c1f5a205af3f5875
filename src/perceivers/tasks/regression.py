"""Regression: one number or several for each sample; errors in the numbers' own units."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch.nn.functional import huber_loss, l1_loss, mse_loss

from perceivers.tasks.base import ExportOutput, PredictionRequest, SupervisedTask, to_float
from perceivers.tasks.config import BaseTaskConfig, OutputPart, TargetInfo
from perceivers.tasks.intervals import Interval
from perceivers.tasks.meters import Details, SummedMeter
from perceivers.tasks.prediction import Prediction
from perceivers.tasks.registry import register_task
from perceivers.typing import Float, Tensor


@dataclass(frozen=True, kw_only=True)
class RegressionConfig(BaseTaskConfig):
    """Loss, statistics and names of the numbers to predict.

    Attributes:
        target_names: Name of each number, in the order of the outputs. Taken from the data when empty.
        mean: Mean of each number in train. The model predicts how many `std` a number lies above it. Empty: 0.
        std: Standard deviation of each number in train. Empty: 1.
        loss: Loss of the standardized numbers: squared error, absolute error, or Huber's, which is squared up to one
            `std` and absolute beyond, so that outliers count less.
    """

    default_for: ClassVar[str | None] = "number"

    kind: Literal["regression"] = "regression"
    target_names: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    loss: Literal["mse", "l1", "huber"] = "mse"

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values and len(values) != len(self.target_names):
                raise ValueError(
                    f"Expected a {name} for each of the {len(self.target_names)} numbers, got {len(values)}."
                )
        if any(not value > 0 for value in self.std):
            raise ValueError(f"Each std must be larger than 0, got {self.std}.")

    @property
    def target_kind(self) -> str:
        """The label column holds numbers."""
        return "number"

    @property
    def output_names(self) -> tuple[str, ...]:
        """Name of each number."""
        return self.target_names

    def fit_to(self, target: TargetInfo) -> "RegressionConfig":
        """Return the configuration with the names of the numbers, and their mean and deviation unless it has them."""
        if self.mean and self.std:
            return replace(self, target_names=target.names)
        if target.moments is None:
            raise ValueError(
                "The mean and deviation of the numbers to predict are not known before training, as the data are "
                "streamed. Give them in the recipe (task.mean and task.std), or leave --stream out."
            )
        return replace(
            self, target_names=target.names, mean=target.moments[0], std=target.moments[1]
        )

    def output_parts(self) -> dict[str, OutputPart]:
        """Return one output with all numbers."""
        return {"label": OutputPart(num_outputs=len(self.target_names))}


class RegressionTask(SupervisedTask):
    """Regression of one number or several."""

    config: RegressionConfig
    score_name = "mae"
    explains_outputs = True
    answer_fields = ("values",)
    optional_answer_fields = ()
    export_output = ExportOutput(
        "values", "numbers in their own units (the logits times their deviation, plus their mean)"
    )

    def __init__(self, config: RegressionConfig) -> None:
        super().__init__(config)
        # Errors in different units have no meaningful mean: several numbers are compared by r2.
        self.main_metric = "rmse" if self.num_outputs == 1 else "r2"
        self.higher_is_better = self.main_metric == "r2"
        self.mean = torch.tensor(config.mean or (0.0,) * self.num_outputs, dtype=torch.float64)
        self.std = torch.tensor(config.std or (1.0,) * self.num_outputs, dtype=torch.float64)

    def loss(
        self, outputs: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]
    ) -> Float[Tensor, ""]:
        """Return the mean loss over samples and numbers, in units of `std` (squared, for the squared error).

        Outputs are standardized, targets in their own units.
        """
        losses = {"mse": mse_loss, "l1": l1_loss, "huber": huber_loss}
        precise = to_float(outputs)
        return losses[self.config.loss](precise, self.standardized(targets).to(precise.dtype))

    def probabilities(self, outputs: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """Return the numbers in their own units."""
        return outputs.float() * self.std.to(outputs.device, torch.float32) + self.mean.to(
            outputs.device, torch.float32
        )

    def combine(self, outputs: Float[Tensor, "B S K"]) -> Float[Tensor, "B K"]:
        """Return the mean over clips."""
        return to_float(outputs).mean(dim=1)

    def training_score(
        self, outputs: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]
    ) -> Float[Tensor, ""]:
        """Return the sum over samples of the absolute error in its own units, the mean over several numbers."""
        return (self.probabilities(outputs) - targets.float()).abs().mean(dim=1).sum()

    def meter(self) -> "RegressionMeter":
        """Return a new meter."""
        return RegressionMeter(self)

    def predictions(
        self, outputs: Float[Tensor, "B K"], request: PredictionRequest
    ) -> Iterator[Prediction]:
        """Yield the numbers of each sample by name."""
        rows: list[list[float]] = self.probabilities(outputs).cpu().tolist()
        for name, row in zip(request.names, rows, strict=True):
            yield Prediction(name=name, values=dict(zip(self.names, row, strict=True)))

    def mistake_sizes(
        self, outputs: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]
    ) -> Float[Tensor, " B"]:
        """Return the largest error of a number of each sample, in units of `std`."""
        return (outputs - self.standardized(targets)).abs().max(dim=-1).values.float()

    def describe_mistake(self, outputs: Float[Tensor, "1 K"], targets: Float[Tensor, "1 K"]) -> str:
        """Return each number and its true value."""
        values, true = self.probabilities(outputs)[0].tolist(), targets[0].tolist()
        each = zip(self.names, values, true, strict=True)
        return "; ".join(f"{name}: predicted {a:.4g}, in truth {b:.4g}" for name, a, b in each)

    def standardized(self, targets: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """Return each number as its distance from the mean of train, in units of `std`."""
        # Numbers far from zero lose digits in float32, so float64 is subtracted where the device has it.
        wide = torch.float32 if targets.device.type == "mps" else torch.float64
        mean, std = self.mean.to(targets.device, wide), self.std.to(targets.device, wide)
        return (targets.to(wide) - mean) / std


class RegressionMeter(SummedMeter):
    """Sums over samples for each number, in units of `std`.

    Rows: |error|, error^2, number, number^2, output, output^2, number output; loss and samples, the same for each.
    """

    def __init__(self, task: RegressionTask) -> None:
        super().__init__(9, task.num_outputs, per_sample=9 * task.num_outputs)
        self._task = task

    def update(self, outputs: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]) -> None:
        """Add one batch: standardized outputs, and the true numbers in their own units."""
        outputs, targets = outputs.detach().cpu().double(), targets.cpu()
        numbers = self._task.standardized(targets).double()
        errors = outputs - numbers
        parts = [errors.abs(), errors.square(), numbers, numbers.square()]
        parts += [outputs, outputs.square(), numbers * outputs]
        parts += [self._task.loss(outputs, targets).expand_as(outputs), torch.ones_like(outputs)]
        self.sums += torch.stack([part.sum(dim=0) for part in parts])
        self.samples.add(torch.stack(parts, dim=1).flatten(1))

    def compute(self) -> dict[str, float]:
        """Return the metrics; those of several numbers are means over them.

        `rmse` and `mae` (root of the mean squared error, mean absolute error, in the numbers' own units); `r2`: 1 is
        perfect, 0 is as good as the mean of these samples; `pearson`: correlation, -1 to 1; `loss`: that of the
        standardized numbers.
        """
        each = self._measured(self.sums[None])
        loss, samples = self.sums[7:, 0].tolist()
        means = {name: values.mean().item() for name, values in each.items()}
        return {**means, "loss": loss / max(samples, 1.0), "samples": samples}

    def errors(self) -> Float[Tensor, " n"] | None:
        """Return the squared error of each sample; None for several numbers, or if not all samples are kept."""
        if self._task.num_outputs > 1 or self.samples.count != len(self.samples.rows):
            return None
        return self.samples.rows[:, 1]

    def details(self) -> Details:
        """Return `rmse`, `mae`, `r2` and `pearson` of each number."""
        each = self._measured(self.sums[None])
        return [
            {name: values[0, number].item() for name, values in each.items()}
            for number in range(self._task.num_outputs)
        ]

    def resampled(self, rows: Float[Tensor, "R S"]) -> dict[str, Float[Tensor, " R"]]:
        """Return the metrics of resamples, means over the numbers."""
        return {name: one.mean(dim=1) for name, one in self._of_rows(rows).items()}

    def detail_intervals(self) -> list[dict[str, Interval]]:
        """Return the bootstrap intervals of the metrics of each number."""
        return [
            self.samples.intervals(
                lambda rows, number=number: {
                    name: one[:, number] for name, one in self._of_rows(rows).items()
                }
            )
            for number in range(self._task.num_outputs)
        ]

    def _of_rows(self, rows: Float[Tensor, "R S"]) -> dict[str, Float[Tensor, "R K"]]:
        return self._measured(rows.unflatten(1, (9, self._task.num_outputs)))

    def _measured(self, sums: Float[Tensor, "R 9 K"]) -> dict[str, Float[Tensor, "R K"]]:
        """Return the metrics of each number, from several sets of sums."""
        absolute, squared, first, second, *products = sums[:, :7].unbind(dim=1)
        count = sums[:, 8].clamp_min(1)
        unit = self._task.std.to(sums)
        spread = (second - first.square() / count).clamp_min(0.0)
        # Without variance: 1 if all numbers are predicted exactly, else 0.
        exact = (squared == 0.0).to(sums)
        r2 = torch.where(spread > 1e-12 * count, 1 - squared / spread, exact)
        return {
            "rmse": unit * (squared / count).sqrt(),
            "mae": unit * absolute / count,
            "r2": r2,
            "pearson": _pearson(count, first, second, *products),
        }


def _pearson(  # sums over samples of x, x^2, y, y^2, x y
    count: Tensor, x: Tensor, xx: Tensor, y: Tensor, yy: Tensor, xy: Tensor
) -> Tensor:
    """Return the correlation of two variables: 0 where one of them is constant."""
    spread, other = xx - x * x / count, yy - y * y / count
    varies = torch.minimum(spread, other) > 1e-12 * count
    scale = (spread * other).clamp_min(1e-300).sqrt()
    return torch.where(varies, ((xy - x * y / count) / scale).clamp(-1.0, 1.0), 0.0)


register_task(RegressionConfig, RegressionTask)
