"""Classification: one label for each sample."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from torch.nn.functional import cross_entropy, one_hot

from perceivers.tasks.base import (
    BaseTaskConfig,
    ConfusionMeter,
    ExportOutput,
    OutputPart,
    PredictionRequest,
    SupervisedTask,
    TargetInfo,
    to_float,
)
from perceivers.tasks.prediction import Prediction, class_predictions
from perceivers.tasks.registry import register_task
from perceivers.typing import Float, Int, Tensor


@dataclass(frozen=True, kw_only=True)
class LabelsConfig(BaseTaskConfig):
    """Names and smoothing of classes or labels.

    Attributes:
        label_names: Name of each class or label, in the order of the outputs. Taken from the data when empty.
        label_smoothing: Share of each target that is spread over all classes, or over yes and no of a label.
    """

    label_names: tuple[str, ...] = ()
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
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


class ClassificationTask(SupervisedTask):
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
        "probabilities", "probability of each class (softmax of the logits); they sum to one"
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
        return outputs.float().softmax(dim=-1)

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
        return ClassificationMeter(self.num_outputs)

    def predictions(
        self, outputs: Float[Tensor, "B K"], request: PredictionRequest
    ) -> Iterator[Prediction]:
        """Yield the most probable classes of each sample."""
        return class_predictions(
            request.names, self.names, self.probabilities(outputs).cpu(), top=request.top
        )

    def example_targets(self, batch_size: int, *, mixed: bool) -> Tensor:
        """Return class indices, or shares of classes where samples are mixed."""
        if mixed:
            return super().example_targets(batch_size, mixed=mixed)
        return torch.zeros(batch_size, dtype=torch.long)


class ClassificationMeter(ConfusionMeter):
    """Confusion matrix, hits among the first five, and sum of losses."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, 2)  # hits among the first five, nats

    def update(self, outputs: Float[Tensor, "B K"], targets: Int[Tensor, " B"]) -> None:
        """Add one batch: logits and the true class indices."""
        outputs, targets = outputs.detach().float().cpu(), targets.cpu()
        nats = cross_entropy(outputs, targets, reduction="sum").item()
        self.count(targets, outputs.argmax(dim=-1))
        best = outputs.topk(min(5, outputs.shape[1]), dim=-1).indices
        hits = (best == targets[:, None]).any(dim=-1).sum().item()
        self.sums += torch.tensor([hits, nats], dtype=torch.float64)

    def compute(self) -> dict[str, float]:
        """Return the metrics; shares lie in [0, 1].

        `accuracy` (top-1), `top5`, `loss` (nats, without smoothing or weights), and `mean_recall`: the mean recall
        over the classes that occur, in which rare classes count as much as common ones. `matthews` is the correlation
        of predictions and labels, -1 to 1 (0: random), for any number of classes.
        """
        top5, nats = self.sums.tolist()
        count = int(self.confusion.sum())
        if count == 0:
            names = ("accuracy", "top5", "mean_recall", "matthews", "loss", "samples")
            return dict.fromkeys(names, 0.0)
        hits, rows = self.confusion.diagonal(), self.confusion.sum(dim=1)
        present = rows > 0
        recall = (hits[present] / rows[present]).mean().item()
        return {
            "accuracy": int(hits.sum()) / count,
            "top5": top5 / count,
            "mean_recall": recall,
            "matthews": _matthews(self.confusion.double()),
            "loss": nats / count,
            "samples": float(count),
        }


def _matthews(confusion: Float[Tensor, "K K"]) -> float:
    """Return the correlation of two labelings: 0 if one of them has a single class only.

    Reference: Gorodkin (2004), "Comparing two K-category assignments by a K-category correlation coefficient".
    """
    count, labels, predicted = confusion.sum(), confusion.sum(dim=1), confusion.sum(dim=0)
    spreads = (count.square() - labels.square().sum()) * (count.square() - predicted.square().sum())
    together = confusion.trace() * count - (labels * predicted).sum()
    return (together / spreads.sqrt()).item() if spreads > 0 else 0.0


register_task(ClassificationConfig, ClassificationTask)
