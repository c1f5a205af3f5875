"""Result of a simple baseline, kept beside the results of a run."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from perceivers.registry import configclass
from perceivers.tasks.intervals import MIN_SAMPLES, Interval, is_clearly_larger
from perceivers.wording import counted, readable_duration

_NEARLY_ALL = 0.99  # share of the rows: a few that cannot be read are not worth a mention


@configclass
class BaselineResult:
    """Score of a simple baseline.

    Attributes:
        metric: Name of the metric: the main one of the task.
        value: Its value on the scored rows.
        higher_is_better: Whether larger values of the metric are better.
        model: The model and its features: `logistic regression on word and character n-grams`.
        seconds: Duration of reading, choosing among all candidates, and fitting.
        train_rows: Rows that it learned from.
        of_train_rows: Rows of the training split. None: unknown, the data are streamed.
        rows: Rows that it was scored on.
        of_rows: Rows of the scored split. None: unknown.
        data: Fingerprint of the rows of the splits. "": unknown.
        candidates: Number of models that were compared on held-out training rows. 1: none was.
        interval: 95 % confidence interval of the metric. None: it has none.
    """

    metric: str
    value: float
    higher_is_better: bool
    model: str
    seconds: float
    train_rows: int
    of_train_rows: int | None
    rows: int
    of_rows: int | None
    data: str = ""
    candidates: int = 1
    interval: Interval | None = None

    def describe(self) -> str:
        """Return the model, its duration and, if it did not see all of them, its rows."""
        duration = readable_duration(max(self.seconds, 1.0))
        of = f" for {self.candidates} candidates" if self.candidates > 1 else ""
        parts = [f"{self.model}; {duration}{of}"]
        if self.of_train_rows is None or self.train_rows < _NEARLY_ALL * self.of_train_rows:
            of = "" if self.of_train_rows is None else f" of {self.of_train_rows:,}"
            parts.append(f"learned from {self.train_rows:,}{of} rows")
        if self.of_rows is None or self.rows < self.of_rows:
            parts.append(f"scored on {counted(self.rows, 'row')}")
        return ", ".join(parts)

    def wins_over(self, value: float) -> bool:
        """Return whether the baseline is better than a run with this value of the metric."""
        return self.value > value if self.higher_is_better else self.value < value

    def is_close_to(self, value: float, interval: Interval | None) -> bool:
        """Return whether the difference from a run with this value and interval of the metric is insignificant.

        Without any interval, as of very few rows, it is.
        """
        pairs = (self.value, self.interval), (value, interval)
        larger, smaller = pairs if self.value > value else pairs[::-1]
        return not is_clearly_larger(*larger, *smaller)


def paired_p_value(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return the two-sided p-value of the difference of the mean errors of two models on the same samples.

    Errors of 0 and 1 are compared by McNemar's exact test, others by the t-test of their differences. None: fewer
    than 10 samples differ in errors of other values.

    Reference: T. G. Dietterich, Approximate Statistical Tests for Comparing Supervised Classification Learning
    Algorithms (1998).
    """
    from scipy.stats import binomtest, ttest_1samp

    differences = np.asarray(first, float) - np.asarray(second, float)
    other = differences[differences != 0]
    if not len(other):
        return 1.0
    if np.isin(other, (-1.0, 1.0)).all():
        return float(binomtest(int((other > 0).sum()), len(other)).pvalue)
    if len(other) < MIN_SAMPLES:
        return None
    result: Any = ttest_1samp(differences, 0.0)
    return float(result.pvalue)
