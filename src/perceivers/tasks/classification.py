"""Classification: one label for each sample."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch.nn.functional import cross_entropy, one_hot

from perceivers.tasks.base import ExportOutput, PredictionRequest, SupervisedTask, to_float
from perceivers.tasks.calibration import Calibration, ScoreSample, class_calibration
from perceivers.tasks.config import BaseTaskConfig, OutputPart, TargetInfo
from perceivers.tasks.curves import MAX_CURVES, Curve, curves_of
from perceivers.tasks.intervals import (
    MIN_SAMPLES,
    Interval,
    percentile_interval,
    wilson_interval,
)
from perceivers.tasks.meters import ConfusionMeter
from perceivers.tasks.prediction import Prediction, class_predictions
from perceivers.tasks.registry import register_task
from perceivers.typing import Float, Int, Tensor

_FIRST = 5  # classes among which the true one is a hit of `top5`
_MOST_DRAWS = 5_000_000  # cells of the confusion matrices of all resamples


@dataclass(frozen=True, kw_only=True)
class LabelsConfig(BaseTaskConfig):
    """Names and smoothing of classes or labels.

    Attributes:
        label_names: Name of each class or label, in the order of the outputs. Taken from the data when empty.
        label_smoothing: Share of each target that is spread over all classes, or over yes and no of a label.
        temperature: Divisor of the logits in probabilities. Training fits it to the validation split at its end.
    """

    label_names: tuple[str, ...] = ()
    label_smoothing: float = 0.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be a number larger than 0, got {self.temperature}.")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {self.label_smoothing}.")

    @property
    def output_names(self) -> tuple[str, ...]:
        """Name of each class or label."""
        return self.label_names

    def fit_to(self, target: TargetInfo) -> Self:
        """Return the configuration with the names of the classes or labels."""
        return replace(self, label_names=target.names)

    def output_parts(self) -> dict[str, OutputPart]:
        """Return one output with a logit for each class or label."""
        return {"label": OutputPart(num_outputs=len(self.label_names))}

    def with_temperature(self, temperature: float) -> Self:
        """Return the configuration with a temperature. The predicted labels are the same with any."""
        return replace(self, temperature=temperature)


class LabelsTask(SupervisedTask):
    """Base of classification and multi-label classification: logits that a temperature divides."""

    config: Any

    def scaled(self, outputs: Float[Tensor, "... K"]) -> Float[Tensor, "... K"]:
        """Return the logits divided by the temperature."""
        temperature = self.config.temperature
        return outputs if temperature == 1.0 else outputs / temperature

    def calibrated_config(self, calibrations: Mapping[str, Calibration]) -> Any:
        """Return the configuration with the fitted temperature."""
        found = calibrations.get("")
        return self.config if found is None else self.config.with_temperature(found.temperature)


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig(LabelsConfig):
    """Loss and class names of a classification.

    Attributes:
        class_weights: Weight of each class in the loss. `balanced` weighs a class by the inverse of its
            share of train, so that rare classes count as much as common ones.
    """

    default_for: ClassVar[str | None] = "class"

    kind: Literal["classification"] = "classification"
    class_weights: Literal["balanced"] | tuple[float, ...] | None = None

    @property
    def target_kind(self) -> str:
        """The label column holds classes."""
        return "class"

    @property
    def needs_class_counts(self) -> bool:
        """Balanced weights follow from the class counts."""
        return self.class_weights == "balanced"


class ClassificationTask(LabelsTask):
    """Single-label classification with softmax cross-entropy.

    Args:
        config: Names, smoothing and weights of the classes.
        class_counts: Samples of each class in train, for `balanced` weights. None where nothing is trained:
            predictions and metrics use no weights.

    Raises:
        ValueError: If counts or weights do not fit the number of classes.
    """

    config: ClassificationConfig
    main_metric = "accuracy"
    score_name = "accuracy"
    explain_as = "classification"
    explains_outputs = True
    answer_fields = ("label", "probability", "top", "probabilities")
    optional_answer_fields = ()
    export_output = ExportOutput(
        "probabilities",
        "probability of each class (softmax of the logits divided by `temperature`); they sum to one",
    )

    def __init__(
        self, config: ClassificationConfig, class_counts: Sequence[int] | None = None
    ) -> None:
        super().__init__(config)
        self.class_weights: Tensor | None = None
        if isinstance(config.class_weights, tuple):
            self.class_weights = torch.tensor(config.class_weights)
            if len(config.class_weights) != self.num_outputs:
                raise ValueError(
                    f"Expected one of class_weights for each of the {self.num_outputs} classes, got "
                    f"{len(config.class_weights)}."
                )
        elif config.class_weights == "balanced" and class_counts is not None:
            counts = torch.tensor(class_counts)
            if counts.shape[0] != self.num_outputs or counts.min() < 1:
                raise ValueError(
                    "class_weights='balanced' needs at least one training sample of each of the "
                    f"{self.num_outputs} classes; got the counts {list(class_counts)}."
                )
            self.class_weights = counts.sum() / (self.num_outputs * counts)

    def loss(
        self, outputs: Float[Tensor, "B K"], targets: Int[Tensor, " B"] | Float[Tensor, "B K"]
    ) -> Float[Tensor, ""]:
        """Return the mean cross-entropy of a batch, in nats.

        With class weights it is the mean over samples, each times the weight of its class (of its mixture
        of classes): the size of a step does not depend on which classes a batch happens to hold.
        Targets are class indices, or shares of each class that sum to one (mixup, CutMix).
        """
        if self.class_weights is None and self.config.class_weights is not None:
            raise ValueError(
                "class_weights='balanced' needs the number of training samples of each class to learn: "
                "ClassificationTask(config, class_counts); got None."
            )
        logits = to_float(outputs)
        shares = targets
        if not targets.is_floating_point():
            shares = one_hot(targets, outputs.shape[1]).to(logits.dtype)
        smoothing = self.config.label_smoothing
        smooth = shares * (1.0 - smoothing) + smoothing / outputs.shape[1]
        losses = cross_entropy(logits, smooth, reduction="none")
        if self.class_weights is not None:
            losses = losses * (shares @ self.class_weights.to(shares))
        return losses.mean()

    def probabilities(self, outputs: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """Return the probability of each class."""
        return self.scaled(outputs.float()).softmax(dim=-1)

    def combine(self, outputs: Float[Tensor, "B S K"]) -> Float[Tensor, "B K"]:
        """Return the logarithm of each class' mean probability over clips, which serves as logits."""
        return to_float(outputs).log_softmax(dim=-1).logsumexp(dim=1) - math.log(outputs.shape[1])

    def training_score(
        self, outputs: Float[Tensor, "B K"], targets: Int[Tensor, " B"] | Float[Tensor, "B K"]
    ) -> Float[Tensor, ""]:
        """Return the number of correct samples. The class of a mixed target is that of the larger share."""
        truth = targets.argmax(dim=-1) if targets.is_floating_point() else targets
        return (outputs.argmax(dim=-1) == truth).sum().float()

    def meter(self) -> "ClassificationMeter":
        """Return a new meter."""
        return ClassificationMeter(self.names)

    def predictions(
        self, outputs: Float[Tensor, "B K"], request: PredictionRequest
    ) -> Iterator[Prediction]:
        """Yield the most probable classes of each sample."""
        return class_predictions(
            request.names, self.names, self.probabilities(outputs).cpu(), top=request.top
        )

    def mistake_sizes(
        self, outputs: Float[Tensor, "B K"], targets: Int[Tensor, " B"]
    ) -> Float[Tensor, " B"]:
        """Return the probability of the predicted class where it is wrong."""
        best = self.probabilities(outputs).max(dim=-1)
        return best.values * (best.indices != targets)

    def describe_mistake(self, outputs: Float[Tensor, "1 K"], targets: Int[Tensor, " 1"]) -> str:
        """Return the predicted class with its probability, and the true one with its own."""
        shares = self.probabilities(outputs)[0]
        best, true = int(shares.argmax()), int(targets[0])
        return (
            f"predicted {self.names[best]} ({100 * shares[best].item():.1f} %), in truth {self.names[true]} "
            f"({100 * shares[true].item():.1f} %)"
        )

    def example_targets(self, batch_size: int, *, mixed: bool) -> Tensor:
        """Return class indices, or shares of classes where samples are mixed."""
        if mixed:
            return super().example_targets(batch_size, mixed=mixed)
        return torch.zeros(batch_size, dtype=torch.long)


class ClassificationMeter(ConfusionMeter):
    """Confusion matrix, hits among the first five, sum of losses, and the logits that calibration needs."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(len(names), 2)  # hits among the first five, nats
        self._names = tuple(names)
        self._scores = ScoreSample(len(names))

    def update(self, outputs: Float[Tensor, "B K"], targets: Int[Tensor, " B"]) -> None:
        """Add one batch: logits and the true class indices."""
        outputs, targets = outputs.detach().float().cpu(), targets.cpu()
        nats = cross_entropy(outputs, targets, reduction="sum").item()
        self.count(targets, outputs.argmax(dim=-1))
        best = outputs.topk(min(_FIRST, outputs.shape[1]), dim=-1).indices
        hits = (best == targets[:, None]).any(dim=-1).sum().item()
        self.sums += torch.tensor([hits, nats], dtype=torch.float64)
        self._scores.add(outputs, targets)

    def state(self) -> dict[str, Any]:
        """Return counts, sums and logits."""
        return {**super().state(), "scores": self._scores.state()}

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Replace the state by the sum of these."""
        super().merge(states)
        self._scores.merge([state["scores"] for state in states])

    def compute(self) -> dict[str, float]:
        """Return the metrics; shares lie in [0, 1].

        `accuracy` (top-1), `top5` of more than five classes, `loss` (nats, without smoothing, weights or temperature),
        and `mean_recall`: the mean recall over the classes that occur, in which rare classes count as much as common
        ones. `matthews` is the correlation of predictions and labels, -1 to 1 (0: random), for any number of classes.
        """
        top5, nats = self.sums.tolist()
        count = int(self.confusion.sum())
        hits = int(self.confusion.diagonal().sum())
        metrics = {name: one.item() for name, one in _of_confusions(self.confusion[None]).items()}
        return {
            "accuracy": hits / max(count, 1),
            **({"top5": top5 / max(count, 1)} if len(self._names) > _FIRST else {}),
            "mean_recall": metrics["mean_recall"],
            "matthews": metrics["matthews"],
            "loss": nats / max(count, 1),
            "samples": float(count),
        }

    def proportions(self) -> dict[str, Interval]:
        """Return the intervals of `accuracy` and `top5`."""
        count = int(self.confusion.sum())
        if count == 0:
            return {}
        found = {"accuracy": wilson_interval(int(self.confusion.diagonal().sum()), count)}
        if len(self._names) > _FIRST:
            found["top5"] = wilson_interval(self.sums[0].item(), count)
        return found

    def intervals(self) -> dict[str, Interval]:
        """Return those of proportions, and bootstrap intervals of the others."""
        found = self.proportions()
        if int(self.confusion.sum()) < MIN_SAMPLES:
            return found
        each = {name: percentile_interval(one) for name, one in _resampled(self.confusion).items()}
        return found | {name: one for name, one in each.items() if one is not None}

    def errors(self) -> Float[Tensor, " n"] | None:
        """Return 1 for each wrong sample; None if not all samples are kept."""
        wrong = (~self._scores.is_right()).double()
        return wrong if len(wrong) == int(self.confusion.sum()) else None

    def calibration(self, temperature: float | None = None) -> Calibration | None:
        """Return the calibration of the most probable class."""
        targets = self._scores.targets
        if not len(targets):
            return None
        return class_calibration(self._scores.outputs, targets, temperature)

    def curves(self) -> tuple[Curve, ...]:
        """Return the curve of each class against the rest; of two classes, that of the second."""
        names = self._names
        if not 2 <= len(names) <= MAX_CURVES:
            return ()
        first = 1 if len(names) == 2 else 0
        shares = self._scores.outputs.double().log_softmax(dim=1)
        if len(names) == 2:  # the difference orders samples also where the probability rounds to 1
            shares = shares - shares.flip(1)
        truth = one_hot(self._scores.targets, len(names)).bool()
        return curves_of(names[first:], shares[:, first:], truth[:, first:])


def _resampled(confusion: Int[Tensor, "K K"]) -> dict[str, Float[Tensor, " R"]]:
    """Return metrics of resamples of the samples, which a confusion matrix determines: its cells are multinomial."""
    cells = confusion.flatten().double()
    present = cells.nonzero()[:, 0]
    count = int(cells.sum())
    resamples = min(max(_MOST_DRAWS // len(present), 100), 1000)
    rng = np.random.default_rng(0)
    drawn = torch.from_numpy(rng.multinomial(count, (cells[present] / count).numpy(), resamples))
    size = confusion.shape[0]
    parts: list[dict[str, Tensor]] = []
    for some in drawn.split(max(_MOST_DRAWS // size**2, 1)):
        whole = torch.zeros(len(some), size**2, dtype=torch.long)
        whole[:, present] = some
        parts.append(_of_confusions(whole.view(-1, size, size)))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _of_confusions(confusions: Int[Tensor, "R K K"]) -> dict[str, Float[Tensor, " R"]]:
    """Return mean recall over the classes that occur, and the correlation of labels and predictions.

    The correlation is 0 if the labels or the predictions are of a single class.

    Reference: Gorodkin (2004), "Comparing two K-category assignments by a K-category correlation coefficient".
    """
    counts = confusions.double()
    hits, labels, predicted = (
        counts.diagonal(dim1=1, dim2=2),
        counts.sum(dim=2),
        counts.sum(dim=1),
    )
    total = labels.sum(dim=1)
    recall = (hits / labels.clamp_min(1)).sum(dim=1) / (labels > 0).sum(dim=1).clamp_min(1)
    spreads = (total.square() - labels.square().sum(dim=1)) * (
        total.square() - predicted.square().sum(dim=1)
    )
    together = hits.sum(dim=1) * total - (labels * predicted).sum(dim=1)
    matthews = torch.where(spreads > 0, together / spreads.clamp_min(1e-12).sqrt(), 0.0)
    return {"mean_recall": recall, "matthews": matthews}


register_task(ClassificationConfig, ClassificationTask)
