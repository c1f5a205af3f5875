"""Sentences on the reliability of the results of a run: number of rows, calibration, curves, overfitting."""

from collections.abc import Mapping, Sequence
from typing import Any

from perceivers.baselines.result import BaselineResult
from perceivers.tasks.calibration import MIN_ROWS, Calibration
from perceivers.tasks.curves import Curve
from perceivers.tasks.intervals import Interval, wilson_interval
from perceivers.tasks.metric_text import is_share, metric_text
from perceivers.wording import counted

FEW_ROWS = 100
"""Number of rows below which metrics are called uncertain."""

_LEVEL = 0.05  # p-value above which a difference is insignificant
_LEARNED = 0.99  # share of correct training samples from which the training data count as memorized
_LOSS_SHARE = 0.25  # of the validation loss, below which a training loss counts likewise where there is no share
_LOSS_RISE = 1.1  # of the validation loss over its lowest value
_FALL = 0.02  # of a share below its highest value in validation
_GAP, _WIDE_GAP = (
    0.05,
    0.15,
)  # between the shares of training and validation; the second below `_LEARNED`
_FAR_GAP = (
    0.1  # between the shares of memorized training data and validation, however its loss went
)
_LAST_STEPS = 50
_ADVICE = (
    "More data, --preset best, stronger augmentation (--augment...), a larger --optim.weight-decay or a smaller "
    "--size may help."
)


def few_rows_sentence(split: str, rows: float, *, members: int = 1) -> str:
    """Return a warning if a split has few rows, else nothing.

    Args:
        split: Name of the split.
        rows: Number of its rows that were measured.
        members: Number of members of an ensemble, whose validation is out of fold and thus on all rows.
    """
    if rows >= FEW_ROWS:
        return ""
    is_all = split == "validation" and members > 1
    what = "The data have" if is_all else f"The {split} split has"
    return (
        f"{what} only {counted(int(rows), 'row')}: {'the' if is_all else 'its'} metrics are uncertain, see their "
        f"intervals. At least {FEW_ROWS} are better."
    )


def baseline_sentence(
    baseline: BaselineResult,
    value: float,
    interval: Interval | None = None,
    p_value: float | None = None,
) -> str:
    """Return a sentence on the main metric of a run beside that of a simple baseline, and advice if it is better.

    It is called better only if the difference is significant.

    Args:
        baseline: The baseline.
        value: Main metric of the run.
        interval: Its 95 % confidence interval. None: it has none.
        p_value: That of the difference of both on the same rows. None: their intervals are compared.
    """
    name = baseline.metric
    text = (
        f"Validation {name} {metric_text(name, value)} (simple baseline: {metric_text(name, baseline.value)}, "
        f"{baseline.describe()})."
    )
    is_close = baseline.is_close_to(value, interval) if p_value is None else p_value > _LEVEL
    if baseline.value != value and is_close:
        return f"{text} Both are about as good: on {counted(baseline.rows, 'row')} the difference may be random."
    if baseline.wins_over(value):
        text += (
            " The simple baseline is better here: use it, or try a longer run (--max-time), --preset best, or more "
            "data."
        )
    return text


def calibration_sentence(calibration: Calibration, task: str = "") -> str:
    """Return a sentence on the temperature that was fitted at the end of training, or on why there is none."""
    what = f"Probabilities of {task}" if task else "Probabilities"
    if calibration.samples < MIN_ROWS:
        return (
            f"{what} are not calibrated: validation has {counted(calibration.samples, 'row')}, and a temperature is "
            f"fitted to at least {MIN_ROWS}."
        )
    return (
        f"{what} are calibrated with temperature {calibration.temperature:.3g}, fitted to "
        f"{counted(calibration.samples, 'row')} of validation: expected calibration error "
        f"{100 * calibration.ece_before:.1f} % before, {100 * calibration.ece:.1f} % after."
    )


def measured_calibration(calibration: Calibration) -> str:
    """Return a sentence on the calibration of a run on the rows that were measured."""
    error = f"Expected calibration error: {100 * calibration.ece:.1f} %"
    if calibration.temperature == 1.0:
        return f"{error} (temperature 1: the probabilities are not calibrated)."
    before = f"{100 * calibration.ece_before:.1f} %"
    return f"{error} with temperature {calibration.temperature:.3g}, {before} without."


def curves_sentence(curves: Sequence[Curve]) -> str:
    """Return a sentence on the areas under the ROC and the precision-recall curve."""
    if len(curves) == 1:
        one = curves[0]
        return (
            f"Of {one.name}: area under the ROC curve {one.auc:.4g}, average precision "
            f"{one.average_precision:.4g}."
        )
    worst = min(curves, key=lambda one: one.auc)
    area = sum(one.auc for one in curves) / len(curves)
    precision = sum(one.average_precision for one in curves) / len(curves)
    return (
        f"Each class against the rest: mean area under the ROC curve {area:.4g} (lowest: {worst.auc:.4g} of "
        f"{worst.name}), mean average precision {precision:.4g}."
    )


def overfitting_sentence(rows: Sequence[Mapping[str, Any]], score: str) -> str:
    """Return a sentence on overfitting and what to do, or nothing.

    A run has memorized its training data if it is right in nearly all of them and clearly worse in validation; it
    overfits if it fits training much better than validation, which became worse.

    Args:
        rows: Lines of `metrics.jsonl`.
        score: Name of the value that the training log has beside the loss.
    """
    measured = [row for row in rows if "validation/loss" in row]
    if found := _memorized(rows, measured, score):
        return f"{found} {_ADVICE}"
    if len(measured) < 3 or not any("train/loss" in row for row in rows):
        return ""
    lowest = min(measured, key=lambda row: row["validation/loss"])
    last, loss = measured[-1], _last_mean(rows, "train/loss")
    rises = last["validation/loss"] > _LOSS_RISE * lowest["validation/loss"] > 0
    what = "has memorized its training data"
    key = f"validation/{score}"
    became = (
        f"the validation loss went from {lowest['validation/loss']:.3g} at step {lowest['step']:,} to "
        f"{last['validation/loss']:.3g}"
    )
    if is_share(score) and key in last:
        highest = max(row[key] for row in measured if key in row)
        right = _last_mean(rows, f"train/{score}")
        gap = right - last[key]
        learned = gap >= (_GAP if right >= _LEARNED else _WIDE_GAP)
        if right < _LEARNED:
            what = "fits its training data much better than validation"
        if not rises and last[key] < highest - _FALL:
            rises, became = True, f"the highest in validation was {metric_text(score, highest)}"
        found = f"{score} {metric_text(score, right)} in training, {metric_text(score, last[key])} in validation"
    else:
        learned = loss < _LOSS_SHARE * last["validation/loss"]
        found = f"loss {loss:.3g} in training"
    if not (learned and rises):
        return ""
    return f"The model {what} (overfitting): at the end {found}; {became}. {_ADVICE}"


def _memorized(
    rows: Sequence[Mapping[str, Any]], measured: Sequence[Mapping[str, Any]], score: str
) -> str:
    """Return a sentence if nearly all training samples are right and validation is clearly worse, else ""."""
    last = measured[-1] if measured else {}
    key, count = f"validation/{score}", last.get("validation/samples", 0)
    if not is_share(score) or key not in last or not count or f"train/{score}" not in last:
        return ""
    right, highest = (
        _last_mean(rows, f"train/{score}"),
        wilson_interval(last[key] * count, count)[1],
    )
    if right < _LEARNED or right - last[key] < _FAR_GAP or highest >= right - _GAP:
        return ""
    return (
        f"The model has memorized its training data (overfitting): at the end {score} {metric_text(score, right)} in "
        f"training, {metric_text(score, last[key])} in validation."
    )


def _last_mean(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    """Return the mean of a value of training over the last 50 steps or more: a line may average a single step."""
    known = [row for row in rows if key in row]
    before = 0
    counts: list[int] = []
    for row in known:
        counts.append(max(row["step"] - before, 1))
        before = row["step"]
    total = steps = 0.0
    for row, count in zip(reversed(known), reversed(counts), strict=True):
        total, steps = total + count * row[key], steps + count
        if steps >= _LAST_STEPS:
            break
    return total / max(steps, 1.0)
