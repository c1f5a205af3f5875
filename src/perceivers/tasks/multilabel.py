"""Multi-label classification: any number of labels for each sample."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from perceivers.tasks.base import ExportOutput, PredictionRequest, to_float
from perceivers.tasks.calibration import Calibration, label_calibration
from perceivers.tasks.classification import LabelsConfig, LabelsTask
from perceivers.tasks.curves import (
    Curve,
    average_precision,
    curves_of,
    weighted_average_precision,
)
from perceivers.tasks.intervals import (
    MIN_SAMPLES,
    Interval,
    bootstrap_weights,
    percentile_interval,
    wilson_interval,
)
from perceivers.tasks.meters import Details, Meter
from perceivers.tasks.prediction import Prediction, class_predictions
from perceivers.tasks.registry import register_task
from perceivers.typing import Bool, Float, Tensor

_RESAMPLES, _FEWEST_RESAMPLES = 1000, 100
_MOST_WORK = 10_000_000  # sorted scores of all resamples


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

    def with_temperature(self, temperature: float) -> Self:
        """Return the configuration with a temperature; the threshold moves with it, so that no label changes."""
        raw = logit(self.threshold) * self.temperature
        threshold = 1 / (1 + math.exp(-raw / temperature))
        return replace(super().with_temperature(temperature), threshold=threshold)


class MultiLabelTask(LabelsTask):
    """Any number of labels for each sample, predicted independently with sigmoid cross-entropy."""

    config: MultiLabelConfig
    main_metric = "mAP"
    score_name = "hit1"
    explain_as = "multilabel"
    explains_outputs = True
    answer_fields = ("label", "probability", "labels", "top", "probabilities")
    optional_answer_fields = ()
    export_output = ExportOutput(
        "probabilities",
        "probability of each label (sigmoid of the logits divided by `temperature`); they do not sum to one",
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
        return self.scaled(outputs.float()).sigmoid()

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
        return MultiLabelMeter(self)

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

    def mistake_sizes(
        self, outputs: Float[Tensor, "B K"], targets: Float[Tensor, "B K"]
    ) -> Float[Tensor, " B"]:
        """Return the largest probability that was given to a label that is wrong, or not given to one that is right."""
        shares = self.probabilities(outputs)
        wrong = (shares >= self.config.threshold) != (targets >= 0.5)
        return ((shares - targets).abs() * wrong).max(dim=-1).values

    def describe_mistake(self, outputs: Float[Tensor, "1 K"], targets: Float[Tensor, "1 K"]) -> str:
        """Return the labels that were predicted wrongly and those that were missed, with their probabilities."""
        shares = self.probabilities(outputs)[0].tolist()
        known = list(zip(self.names, shares, (targets[0] >= 0.5).tolist(), strict=True))
        least = self.config.threshold
        extra = [f"{name} ({100 * p:.1f} %)" for name, p, true in known if p >= least and not true]
        missed = [f"{name} ({100 * p:.1f} %)" for name, p, true in known if p < least and true]
        parts = [("predicted without reason", extra), ("missed", missed)]
        return "; ".join(f"{title}: {', '.join(names)}" for title, names in parts if names)


class MultiLabelMeter(Meter):
    """Scores of all samples: average precision depends on their order."""

    def __init__(self, task: MultiLabelTask) -> None:
        self.task = task
        self.num_labels = task.num_outputs
        self._least = logit(task.config.threshold) * task.config.temperature
        self._outputs = [torch.zeros(0, self.num_labels)]
        self._targets = [torch.zeros(0, self.num_labels, dtype=torch.bool)]
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

    def proportions(self) -> dict[str, Interval]:
        """Return the intervals of `hit1` and `exact`."""
        outputs, targets = torch.cat(self._outputs), torch.cat(self._targets)
        count = len(outputs)
        if not count:
            return {}
        exact = ((outputs >= self._least) == targets).all(dim=1).sum().item()
        return {
            "hit1": wilson_interval(_hits(outputs, targets).sum().item(), count),
            "exact": wilson_interval(exact, count),
        }

    def intervals(self) -> dict[str, Interval]:
        """Return those of proportions, and bootstrap intervals of the others."""
        outputs, targets = torch.cat(self._outputs), torch.cat(self._targets)
        found = self.proportions()
        precisions, areas = self._resampled()
        if not precisions:
            return found
        micro, _ = weighted_average_precision(outputs.flatten(), targets.flatten(), self._weights())
        resampled = {
            "mAP": torch.stack(precisions).nanmean(dim=0),
            "micro_mAP": micro,
            "auc": torch.stack(areas).nanmean(dim=0),
        }
        each = {name: percentile_interval(values) for name, values in resampled.items()}
        return found | {name: one for name, one in each.items() if one is not None}

    def detail_intervals(self) -> list[dict[str, Interval]]:
        """Return the bootstrap intervals of `AP` and `auc` of each label."""
        precisions, areas = self._resampled()
        found: list[dict[str, Interval]] = []
        for precision, area in zip(precisions, areas, strict=True):
            pair = {"AP": percentile_interval(precision), "auc": percentile_interval(area)}
            found.append({name: one for name, one in pair.items() if one is not None})
        return found

    def calibration(self, temperature: float | None = None) -> Calibration | None:
        """Return the calibration of the probabilities of all labels."""
        outputs, targets = self._finite()
        return label_calibration(outputs, targets, temperature) if len(outputs) else None

    def curves(self) -> tuple[Curve, ...]:
        """Return the curves of each label."""
        return curves_of(self.task.names, *self._finite())

    def _finite(self) -> tuple[Float[Tensor, "n K"], Bool[Tensor, "n K"]]:
        """Return logits and targets of the samples whose logits are finite."""
        outputs, targets = torch.cat(self._outputs), torch.cat(self._targets)
        finite = outputs.isfinite().all(dim=1)
        return outputs[finite], targets[finite]

    def _weights(self) -> Float[Tensor, "R n"]:
        """Return the weights of resamples, fewer of them the more samples and labels are to be sorted."""
        count = sum(len(part) for part in self._outputs)
        resamples = _MOST_WORK // max(count * self.num_labels, 1)
        return bootstrap_weights(count, min(max(resamples, _FEWEST_RESAMPLES), _RESAMPLES))

    def _resampled(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return average precision and area of each label over resamples; nothing of too few samples."""
        outputs, targets = torch.cat(self._outputs), torch.cat(self._targets)
        if len(outputs) < MIN_SAMPLES:
            return [], []
        weights = self._weights()
        pairs = [
            weighted_average_precision(outputs[:, label], targets[:, label], weights)
            for label in range(self.num_labels)
        ]
        return [precision for precision, _ in pairs], [area for _, area in pairs]


def logit(probability: float) -> float:
    """Return the logarithm of the odds of a probability."""
    return math.log(probability / (1 - probability))


def _hits(outputs: Float[Tensor, "B K"], targets: Tensor) -> Bool[Tensor, " B"]:
    best = outputs.argmax(dim=-1, keepdim=True)
    return targets.gather(-1, best).squeeze(-1) >= 0.5


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else 0.0


register_task(MultiLabelConfig, MultiLabelTask)
