"""ROC and precision-recall curves of classes and labels, each against the rest."""

from collections.abc import Sequence

import torch

from perceivers.registry import configclass
from perceivers.typing import Bool, Float, Tensor

MAX_CURVES = 10
"""Largest number of classes or labels for which curves are given."""

_POINTS = 100  # of a curve at most
_AT_ONCE = 2_000_000  # drawn scores


@configclass
class Curve:
    """Curves of one class or label against the rest.

    Attributes:
        name: The class or label.
        positives: Number of samples of it.
        samples: Number of all samples.
        auc: Area under the ROC curve.
        average_precision: Average precision.
        roc: Points (false positive rate, true positive rate), by falling threshold.
        precision_recall: Points (recall, precision), by falling threshold.
    """

    name: str
    positives: int
    samples: int
    auc: float
    average_precision: float
    roc: tuple[tuple[float, float], ...] = ()
    precision_recall: tuple[tuple[float, float], ...] = ()


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
    hits, taken = _steps(scores, targets)
    gained = hits.diff(prepend=hits.new_zeros(1))
    precision = (gained * hits / taken).sum().item() / positives
    if positives == count:
        return precision, None
    wrong = (taken - hits).diff(prepend=hits.new_zeros(1))
    area = (wrong * (hits - gained / 2)).sum().item() / (positives * (count - positives))
    return precision, area


def weighted_average_precision(
    scores: Float[Tensor, " n"], targets: Bool[Tensor, " n"], weights: Float[Tensor, "R m"]
) -> tuple[Float[Tensor, " R"], Float[Tensor, " R"]]:
    """Return average precision and area under the ROC curve of resamples of the samples; NaN where undefined.

    Args:
        scores: Score of each sample.
        targets: Whether it has the label.
        weights: Number of times that each sample, which may have several scores, is drawn in each resample.
    """
    if len(weights) > 1 and len(weights) * len(scores) > _AT_ONCE:
        halves = weights.chunk(2)
        found = [weighted_average_precision(scores, targets, half) for half in halves]
        return torch.cat([one for one, _ in found]), torch.cat([two for _, two in found])
    if weights.shape[1] < len(scores):  # all scores of a sample are drawn together
        weights = weights.repeat_interleave(len(scores) // weights.shape[1], dim=1)
    ordered, order = scores.sort(descending=True)
    ends = _ends(ordered)
    drawn = weights[:, order]
    taken = drawn.cumsum(dim=1)[:, ends]
    hits = (drawn * targets[order]).cumsum(dim=1)[:, ends]
    gained = hits.diff(dim=1, prepend=hits.new_zeros(len(weights), 1))
    positives, count = hits[:, -1], taken[:, -1]
    precision = (gained * hits / taken.clamp_min(1)).sum(dim=1) / positives
    wrong = (taken - hits).diff(dim=1, prepend=hits.new_zeros(len(weights), 1))
    area = (wrong * (hits - gained / 2)).sum(dim=1) / (positives * (count - positives))
    return precision, area


def curves_of(
    names: Sequence[str], scores: Float[Tensor, "n K"], targets: Bool[Tensor, "n K"]
) -> tuple[Curve, ...]:
    """Return the curves of each class or label that some samples have and some have not.

    None are given of more than 10. Of two classes that exclude each other one has all the information: pass its column
    only.
    """
    if len(names) > MAX_CURVES or not len(scores):
        return ()
    found: list[Curve] = []
    for column, name in enumerate(names):
        one, wanted = scores[:, column], targets[:, column]
        precision, area = average_precision(one, wanted)
        if precision is None or area is None:
            continue
        hits, taken = _steps(one, wanted)
        positives, count = int(wanted.sum()), len(wanted)
        recall = hits / positives
        fall_out = (taken - hits) / (count - positives)
        found.append(
            Curve(
                name=name,
                positives=positives,
                samples=count,
                auc=area,
                average_precision=precision,
                roc=((0.0, 0.0), *_thinned(fall_out, recall)),
                precision_recall=_thinned(recall, hits / taken),
            )
        )
    return tuple(found)


def _ends(ordered: Float[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Return whether each of the sorted scores is the last of its value."""
    ends = torch.ones(len(ordered), dtype=torch.bool)
    ends[:-1] = ordered[1:] != ordered[:-1]
    return ends


def _steps(
    scores: Float[Tensor, " n"], targets: Bool[Tensor, " n"]
) -> tuple[Float[Tensor, " s"], Float[Tensor, " s"]]:
    """Return the true positives and all samples at or above each threshold, by falling threshold."""
    ordered, order = scores.sort(descending=True)
    ends = _ends(ordered)
    hits = targets[order].cumsum(0)[ends].double()
    return hits, (torch.arange(len(scores))[ends] + 1).double()


def _thinned(x: Float[Tensor, " s"], y: Float[Tensor, " s"]) -> tuple[tuple[float, float], ...]:
    """Return at most 100 points of a curve, the last one included."""
    chosen = torch.linspace(0, len(x) - 1, min(len(x), _POINTS)).round().long()
    points = torch.stack([x[chosen], y[chosen]], dim=1).tolist()
    return tuple((round(a, 5), round(b, 5)) for a, b in points)
