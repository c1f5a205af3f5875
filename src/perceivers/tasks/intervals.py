"""95 % confidence intervals of metrics: Wilson's for proportions, the bootstrap over samples for other metrics."""

import math
from collections.abc import Callable, Mapping

import torch

from perceivers.typing import Float, Tensor

Interval = tuple[float, float]
"""Lower and upper end of a 95 % confidence interval."""

Z_95 = 1.959963984540054
"""Quantile of the normal distribution between whose negative and positive value 95 % of it lie."""

MIN_SAMPLES = 10
"""Number of samples below which no bootstrap interval is given: with fewer it is much too narrow."""

_RESAMPLES = 1000
_GROUPS = 2000  # sums that are kept at most for the bootstrap
_SEED = 0


def wilson_interval(successes: float, total: float) -> Interval:
    """Return the 95 % confidence interval of a proportion. Without any sample it is (0, 1).

    Unlike the normal approximation it lies in [0, 1] and is wide where few samples are all correct: 4 of 4 gives
    0.51 to 1.

    Reference: E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference (1927).
    """
    if total <= 0:
        return 0.0, 1.0
    share, z = min(max(successes / total, 0.0), 1.0), Z_95
    middle = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    # Rounding must not exclude the proportion itself: of 0 and of all samples it is an end of the interval.
    return (
        min(max((middle - spread) / scale, 0.0), share),
        max(min((middle + spread) / scale, 1.0), share),
    )


def bootstrap_weights(count: int, resamples: int = _RESAMPLES) -> Float[Tensor, "R n"]:
    """Return the number of times that each sample is drawn in each resample with replacement, always the same."""
    generator = torch.Generator().manual_seed(_SEED)
    weights = torch.zeros(resamples, count, dtype=torch.float64)
    drawn = torch.randint(count, (resamples, count), generator=generator)
    return weights.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))


def percentile_interval(values: Float[Tensor, " R"]) -> Interval | None:
    """Return the interval between the percentiles 2.5 and 97.5 of a metric over resamples.

    None if it is not finite, or if the resamples do not differ (if all samples are right): they then state nothing
    about the uncertainty.
    """
    finite = values[values.isfinite()].double()
    if len(finite) < len(values) / 2:
        return None
    low, high = finite.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return None if low == high else (low, high)


def is_clearly_larger(
    value: float, interval: Interval | None, other: float, other_interval: Interval | None
) -> bool:
    """Return whether a metric is significantly larger than another, at the level of 5 %.

    Both are taken as independent. Metrics of two models on the same samples mostly rise and fall together, so that
    their difference is more certain than this. A missing interval has no width; without both, the result is False.

    Args:
        value: The larger metric.
        interval: Its 95 % confidence interval.
        other: The smaller metric.
        other_interval: Its 95 % confidence interval.

    Reference: R. G. Newcombe, Interval Estimation for the Difference Between Independent Proportions (1998), method 10.
    """
    if interval is None and other_interval is None:
        return False
    low = value if interval is None else interval[0]
    high = other if other_interval is None else other_interval[1]
    return value - other > math.hypot(value - low, high - other)


class BootstrapSums:
    """Sums for each sample from which metrics can be computed for resamples of the samples.

    Up to 2,000 samples have sums of their own. Of more samples, every so many share one, and these groups are
    resampled, so that memory does not grow with the number of samples.

    Args:
        width: Number of sums of a sample.
    """

    def __init__(self, width: int) -> None:
        self.rows: Float[Tensor, "G S"] = torch.zeros(0, width, dtype=torch.float64)
        self.count = 0

    def add(self, sums: Float[Tensor, "B S"]) -> None:
        """Add the sums of a batch of samples."""
        new = sums.detach().cpu().double()
        self.count += new.shape[0]
        self.rows = _folded(torch.cat([self.rows, new]))

    def state(self) -> dict[str, Tensor | int]:
        """Return the sums and the number of samples."""
        return {"rows": self.rows, "count": self.count}

    def merge(self, states: "list[dict[str, Tensor | int]]") -> None:
        """Replace the sums by those of these states."""
        rows = [state["rows"] for state in states]
        self.rows = _folded(torch.cat([row for row in rows if isinstance(row, Tensor)]))
        self.count = sum(int(state["count"]) for state in states)

    def intervals(
        self, metrics: Callable[[Float[Tensor, "R S"]], Mapping[str, Float[Tensor, " R"]]]
    ) -> dict[str, Interval]:
        """Return the interval of each metric; none with fewer than `MIN_SAMPLES` samples.

        Args:
            metrics: Computes metrics by name from the sums of all samples of each resample.
        """
        if self.count < MIN_SAMPLES:
            return {}
        found = metrics(bootstrap_weights(self.rows.shape[0]) @ self.rows)
        each = {name: percentile_interval(values) for name, values in found.items()}
        return {name: one for name, one in each.items() if one is not None}


def _folded(rows: Float[Tensor, "n S"]) -> Float[Tensor, "G S"]:
    """Return at most `_GROUPS` rows, by adding rows that are half of them apart until there are few enough."""
    while rows.shape[0] > _GROUPS:
        half = -(-rows.shape[0] // 2)
        folded = rows[:half].clone()
        folded[: rows.shape[0] - half] += rows[half:]
        rows = folded
    return rows
