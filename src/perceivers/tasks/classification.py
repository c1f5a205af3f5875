"""One label for each sample: softmax cross-entropy, accuracy, confusion."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import ConfigDict
from torch.nn.functional import cross_entropy, one_hot

from perceivers.tasks.base import Details, Supervised
from perceivers.typing import Float, Int, Tensor

__all__ = ["ClassificationConfig", "ClassificationMeter", "ClassificationTask"]


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig:
    """How one label is learned and named.

    Attributes:
        label_names: Name of each class, in the order of the outputs. Taken from the data when empty.
        label_smoothing: Share of each target that is spread over all classes.
        class_weights: Weight of each class in the loss. `balanced` weighs a class by the inverse of its
            share of train, so that rare classes count as much as common ones.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Literal["classification"] = "classification"
    label_names: tuple[str, ...] = ()
    label_smoothing: float = 0.0
    class_weights: Literal["balanced"] | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        if not 0.0 <= self.label_smoothing < 1.0:
            msg = f"label_smoothing must lie in [0, 1), got {self.label_smoothing}."
            raise ValueError(msg)


class ClassificationTask(Supervised):
    """Single-label classification.

    Args:
        config: Names, smoothing and weights of the classes.
        class_counts: Samples of each class in train, which `balanced` weights are made of. None where
            nothing is trained: predictions and metrics know no weights.

    Raises:
        ValueError: If counts or weights do not fit the number of classes.
    """

    main_metric = "accuracy"
    higher_is_better = True
    score_name = "accuracy"

    def __init__(
        self, config: ClassificationConfig, class_counts: Sequence[int] | None = None
    ) -> None:
        self.config = config
        self.class_weights: Tensor | None = None
        if isinstance(config.class_weights, tuple):
            self.class_weights = torch.tensor(config.class_weights)
            if len(config.class_weights) != self.num_outputs:
                msg = (
                    f"Expected one of class_weights for each of the {self.num_outputs} classes, got "
                    f"{len(config.class_weights)}."
                )
                raise ValueError(msg)
        elif config.class_weights == "balanced" and class_counts is not None:
            counts = torch.tensor(class_counts)
            if counts.shape[0] != self.num_outputs or counts.min() < 1:
                msg = (
                    "class_weights='balanced' needs at least one training sample of each of the "
                    f"{self.num_outputs} classes; got the counts {list(class_counts)}."
                )
                raise ValueError(msg)
            self.class_weights = counts.sum() / (self.num_outputs * counts)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each class."""
        return self.config.label_names

    @property
    def num_outputs(self) -> int:
        """Number of classes, K."""
        return len(self.config.label_names)

    def loss(
        self, outputs: Float[Tensor, "B K"], targets: Int[Tensor, " B"] | Float[Tensor, "B K"]
    ) -> Float[Tensor, ""]:
        """Return the mean cross-entropy of a batch, in nats.

        With class weights it is the mean over samples, each times the weight of its class (of its mixture
        of classes): the size of a step does not depend on which classes a batch happens to hold.

        Args:
            outputs: Logits.
            targets: Class indices, or shares of each class that sum to one (mixup, CutMix).

        Raises:
            ValueError: If balanced weights are wanted and nobody has counted the classes.
        """
        if self.class_weights is None and self.config.class_weights is not None:
            msg = (
                "class_weights='balanced' needs the number of training samples of each class to learn: "
                "ClassificationTask(config, class_counts); got None."
            )
            raise ValueError(msg)
        logits = outputs.to(torch.promote_types(outputs.dtype, torch.float32))  # float64 stays
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
        """Return the logarithm of the mean over clips of each class' probability, itself good as logits."""
        precise = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        return precise.log_softmax(dim=-1).logsumexp(dim=1) - math.log(outputs.shape[1])

    def training_score(
        self, outputs: Float[Tensor, "B K"], targets: Int[Tensor, " B"] | Float[Tensor, "B K"]
    ) -> Float[Tensor, ""]:
        """Return how many samples are right. With mixed targets, right is the class of the larger share."""
        truth = targets.argmax(dim=-1) if targets.is_floating_point() else targets
        return (outputs.argmax(dim=-1) == truth).sum().float()

    def meter(self) -> "ClassificationMeter":
        """Return a fresh meter."""
        return ClassificationMeter(self.num_outputs)


class ClassificationMeter:
    """Counts of a confusion matrix, hits among the first five, and the sum of losses.

    Args:
        num_classes: Number of classes, K.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.confusion: Int[Tensor, "K K"] = torch.zeros(num_classes, num_classes, dtype=torch.long)
        self.top5 = 0
        self.loss = 0.0

    def update(self, outputs: Float[Tensor, "B K"], targets: Int[Tensor, " B"]) -> None:
        """Take in one batch: logits and the true class indices."""
        outputs, targets = outputs.detach().float().cpu(), targets.cpu()
        self.loss += cross_entropy(outputs, targets, reduction="sum").item()
        # Rows are the truth, columns the prediction.
        cells = targets * self.num_classes + outputs.argmax(dim=-1)
        counts = cells.bincount(minlength=self.num_classes**2)
        self.confusion += counts.view(self.num_classes, self.num_classes)
        best = outputs.topk(min(5, self.num_classes), dim=-1).indices
        self.top5 += int((best == targets[:, None]).any(dim=-1).sum())

    def state(self) -> dict[str, Any]:
        """Return all sums."""
        return {"confusion": self.confusion, "top5": self.top5, "loss": self.loss}

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Hold the sums of these meters added up."""
        self.confusion = torch.stack([state["confusion"] for state in states]).sum(dim=0)
        self.top5 = sum(state["top5"] for state in states)
        self.loss = math.fsum(state["loss"] for state in states)

    def compute(self) -> dict[str, float]:
        """Return the metrics; shares lie in [0, 1].

        `accuracy` (top-1), `top5`, `loss` (nats, without smoothing or weights), and `mean_recall`: the
        mean over the classes that occur of the share found, which rare classes move as much as common ones.
        `matthews` is the correlation of answers and labels, -1 to 1 (0: chance), for any number of classes.
        """
        count = int(self.confusion.sum())
        if count == 0:
            names = ("accuracy", "top5", "mean_recall", "matthews", "loss", "samples")
            return dict.fromkeys(names, 0.0)
        hits, rows = self.confusion.diagonal(), self.confusion.sum(dim=1)
        present = rows > 0
        recall = (hits[present] / rows[present]).mean().item()
        return {
            "accuracy": int(hits.sum()) / count,
            "top5": self.top5 / count,
            "mean_recall": recall,
            "matthews": _matthews(self.confusion.double()),
            "loss": self.loss / count,
            "samples": float(count),
        }

    def details(self) -> Details:
        """Return nothing: the confusion matrix tells all about each class."""
        return []


def _matthews(confusion: Float[Tensor, "K K"]) -> float:
    """Return the correlation of two labelings: 0 where one of them knows a single class only.

    Source: Gorodkin (2004), "Comparing two K-category assignments by a K-category correlation coefficient".
    """
    count, labels, answers = confusion.sum(), confusion.sum(dim=1), confusion.sum(dim=0)
    spreads = (count.square() - labels.square().sum()) * (count.square() - answers.square().sum())
    together = confusion.trace() * count - (labels * answers).sum()
    return (together / spreads.sqrt()).item() if spreads > 0 else 0.0
