"""Multi-label classification: any number of labels for each sample."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from perceivers.tasks.base import (
    Details,
    ExportOutput,
    Meter,
    PredictionRequest,
    SupervisedTask,
    to_float,
)
from perceivers.tasks.classification import LabelsConfig
from perceivers.tasks.prediction import Prediction, class_predictions
from perceivers.tasks.registry import register_task
from perceivers.typing import Bool, Float, Tensor


@dataclass(frozen=True, kw_only=True)
class MultiLabelConfig(LabelsConfig):
    """Loss, threshold and names of several labels.

    Attributes:
        threshold: Probability from which a label counts as predicted.
    """

    default_for: ClassVar[str | None] = "labels"

    kind: Literal["multilabel"] = "multilabel"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.threshold < 1.0:
            raise ValueError(f"threshold must lie between 0 and 1, got {self.threshold}.")

    @property
    def target_kind(self) -> str:
        """The label column holds lists of labels."""
        return "labels"


class MultiLabelTask(SupervisedTask):
    """Any number of labels for each sample, predicted independently with sigmoid cross-entropy."""

    config: MultiLabelConfig
    main_metric = "mAP"
    score_name = "hit1"
    explain_as = "multilabel"
    explains_outputs = True
    answer_fields = ("label", "probability", "labels", "top", "probabilities")
    optional_answer_fields = ()
    export_output = ExportOutput(
        "probabilities", "probability of each label (sigmoid of the logits); they do not sum to one"
    )

    def loss(
        self, outputs: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]
    ) -> Float[Tensor, ""]:
        """Return the binary cross-entropy in nats, the mean over samples and over labels.

        Targets are 1 where a sample has the label, 0 where not; shares in between (mixup).
        """
        logits = to_float(outputs)
        smoothing = self.config.label_smoothing
        smooth = targets.to(logits.dtype) * (1.0 - smoothing) + smoothing / 2
        return binary_cross_entropy_with_logits(logits, smooth)

    def probabilities(self, outputs: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """Return the probability of each label. They do not sum to one."""
        return outputs.float().sigmoid()

    def combine(self, outputs: Float[Tensor, "B S K"]) -> Float[Tensor, "B K"]:
        """Return the logits of the mean over clips of each label's probability.

        It is computed from the logarithms of both probabilities: near 0 and 1 probabilities round to the same number,
        and samples would lose their order.
        """
        precise = to_float(outputs)
        return logsigmoid(precise).logsumexp(dim=1) - logsigmoid(-precise).logsumexp(dim=1)

    def training_score(
        self, outputs: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]
    ) -> Float[Tensor, ""]:
        """Return the number of samples whose most probable label is correct."""
        return _hits(outputs, targets).sum().float()

    def meter(self) -> "MultiLabelMeter":
        """Return a new meter."""
        return MultiLabelMeter(self.num_outputs, threshold=self.config.threshold)

    def predictions(
        self, outputs: Float[Tensor, "B K"], request: PredictionRequest
    ) -> Iterator[Prediction]:
        """Yield the labels of each sample."""
        return class_predictions(
            request.names,
            self.names,
            self.probabilities(outputs).cpu(),
            threshold=self.config.threshold,
            top=request.top,
        )


class MultiLabelMeter(Meter):
    """Scores of all samples: average precision depends on their order."""

    def __init__(self, num_labels: int, *, threshold: float = 0.5) -> None:
        self.num_labels = num_labels
        self._least = math.log(threshold / (1 - threshold))  # the same as a logit
        self._outputs = [torch.zeros(0, num_labels)]
        self._targets = [torch.zeros(0, num_labels, dtype=torch.bool)]
        self.loss = 0.0

    def update(self, outputs: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]) -> None:
        """Add one batch: logits, and 1 where a sample has the label."""
        outputs, targets = outputs.detach().float().cpu(), targets.cpu().float()
        losses = binary_cross_entropy_with_logits(outputs, targets, reduction="none")
        self.loss += losses.double().mean(dim=1).sum().item()
        self._outputs.append(outputs)
        self._targets.append(targets >= 0.5)

    def state(self) -> dict[str, Any]:
        """Return scores, targets and the sum of losses."""
        return {
            "outputs": torch.cat(self._outputs),
            "targets": torch.cat(self._targets),
            "loss": self.loss,
        }

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Replace the samples by those of these meters."""
        self._outputs = [state["outputs"] for state in states]
        self._targets = [state["targets"] for state in states]
        self.loss = math.fsum(state["loss"] for state in states)

    def compute(self) -> dict[str, float]:
        """Return the metrics; shares lie in [0, 1].

        `mAP`: the mean over the labels that some sample has of the average precision over samples; `micro_mAP`:
        that of all pairs of sample and label at once; `auc`: the mean over labels of the area under the ROC
        curve; `hit1`: share of samples whose most probable label is correct; `exact`: share of samples whose
        predicted labels are exactly the true ones; `loss` (nats, mean over samples and labels, without smoothing).
        """
        outputs, targets = torch.cat(self._outputs), torch.cat(self._targets)
        count = outputs.shape[0]
        each = self.details()
        precision, _ = average_precision(outputs.flatten(), targets.flatten())
        right = (outputs >= self._least) == targets
        return {
            "mAP": _mean([label["AP"] for label in each]),
            "micro_mAP": precision or 0.0,
            "auc": _mean([label["auc"] for label in each]),
            "hit1": _hits(outputs, targets).sum().item() / max(count, 1),
            "exact": right.all(dim=1).sum().item() / max(count, 1),
            "loss": self.loss / max(count, 1),
            "samples": float(count),
        }

    def details(self) -> Details:
        """Return, for each label, its average precision, area under the ROC curve, and the samples that have it."""
        outputs, targets = torch.cat(self._outputs), torch.cat(self._targets)
        found: Details = []
        for label in range(self.num_labels):
            precision, area = average_precision(outputs[:, label], targets[:, label])
            found.append({"AP": precision, "auc": area, "n": float(targets[:, label].sum())})
        return found


def average_precision(
    scores: Float[Tensor, " n"], targets: Bool[Tensor, " n"]
) -> tuple[float | None, float | None]:
    """Return average precision and the area under the ROC curve of one label.

    Samples of equal score are one step: neither depends on the order of the samples.

    Returns:
        The sum over steps of recall gained times precision, and the share of pairs (with, without) in the right
        order. None where no sample has the label; the area also where all have it.
    """
    count, positives = scores.shape[0], int(targets.sum())
    if positives == 0:
        return None, None
    ordered, order = scores.sort(descending=True)
    ends = torch.ones(count, dtype=torch.bool)
    ends[:-1] = ordered[1:] != ordered[:-1]
    hits = targets[order].cumsum(0)[ends].double()
    taken = (torch.arange(count)[ends] + 1).double()
    gained = hits.diff(prepend=hits.new_zeros(1))
    precision = (gained * hits / taken).sum().item() / positives
    if positives == count:
        return precision, None
    wrong = (taken - hits).diff(prepend=hits.new_zeros(1))
    area = (wrong * (hits - gained / 2)).sum().item() / (positives * (count - positives))
    return precision, area


def _hits(outputs: Float[Tensor, "B K"], targets: Tensor) -> Bool[Tensor, " B"]:
    best = outputs.argmax(dim=-1, keepdim=True)
    return targets.gather(-1, best).squeeze(-1) >= 0.5


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else 0.0


register_task(MultiLabelConfig, MultiLabelTask)
