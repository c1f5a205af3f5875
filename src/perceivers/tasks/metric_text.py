"""Metrics as text, with their unit and interval."""

from perceivers.tasks.intervals import Interval

# Metrics that are shares in [0, 1] and are printed as percentages.
SHARES = frozenset(
    {
        *("score", "mIoU", "within_1px", "within_3px", "within_5px", "fl"),
        *("accuracy", "label_accuracy", "top5", "mean_recall"),
        *("mAP", "micro_mAP", "hit1", "exact", "AP", "recall"),
    }
)


def is_share(name: str) -> bool:
    """Return whether a metric is a share in [0, 1], which is printed as a percentage, as is `digit/accuracy`."""
    return name.rpartition("/")[2] in SHARES


def metric_text(name: str, value: float, interval: Interval | None = None) -> str:
    """Return a metric as text: `98.6 % (97.4 to 99.2)` with its 95 % confidence interval, `98.6 %` without.

    Args:
        name: Name of the metric, from which its unit follows.
        value: Its value.
        interval: Its lower and upper end. None: it has none.
    """
    number, unit = _number_and_unit(name, value)
    text = f"{number} {unit}" if unit else number
    if interval is None:
        return text
    low, high = (_number_and_unit(name, end)[0] for end in interval)
    return f"{text} ({low} to {high})"


def _number_and_unit(name: str, value: float) -> tuple[str, str]:
    if is_share(name):
        return f"{100 * value:.1f}", "%"
    kind = name.rpartition("/")[2]
    if kind.endswith("psnr"):
        return f"{value:.2f}", "dB"
    if kind in {"samples", "n"} or abs(value) >= 10_000:
        return f"{value:,.0f}", ""
    return (f"{value:.4f}" if kind == "loss" else f"{value:.4g}"), ""
