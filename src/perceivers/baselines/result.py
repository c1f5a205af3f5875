"""Result of a simple baseline, kept beside the results of a run."""

from perceivers.registry import configclass
from perceivers.wording import counted, readable_duration


@configclass
class BaselineResult:
    """Score of a simple baseline.

    Attributes:
        metric: Name of the metric: the main one of the task.
        value: Its value on the scored rows.
        higher_is_better: Whether larger values of the metric are better.
        model: The model and its features: `logistic regression on word and character n-grams`.
        seconds: Duration of reading, choosing and fitting.
        train_rows: Rows that it learned from.
        of_train_rows: Rows of the training split. None: unknown, the data are streamed.
        rows: Rows that it was scored on.
        of_rows: Rows of the scored split. None: unknown.
        data: Fingerprint of the rows of the splits. "": unknown.
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

    def describe(self) -> str:
        """Return the model, its duration and, if it did not see all of them, its rows."""
        duration = readable_duration(max(self.seconds, 1.0))
        article = "an" if duration.startswith(("8", "11 ", "18 ")) else "a"
        parts = [f"{article} {duration} {self.model}"]
        if self.of_train_rows is None or self.train_rows < self.of_train_rows:
            of = "" if self.of_train_rows is None else f" of {self.of_train_rows:,}"
            parts.append(f"learned from {self.train_rows:,}{of} rows")
        if self.of_rows is None or self.rows < self.of_rows:
            parts.append(f"scored on {counted(self.rows, 'row')}")
        return ", ".join(parts)

    def wins_over(self, value: float) -> bool:
        """Return whether the baseline is better than a run with this value of the metric."""
        return self.value > value if self.higher_is_better else self.value < value
