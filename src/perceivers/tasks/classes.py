"""Recall and precision of each class, from a confusion matrix."""

from collections.abc import Sequence
from dataclasses import dataclass

from perceivers.tasks.intervals import Interval, wilson_interval


@dataclass(frozen=True, kw_only=True)
class ClassResult:
    """Results of one class.

    Attributes:
        name: Name of the class.
        n: Number of its samples.
        right: Number of them that were predicted as it.
        predicted: Number of samples that were predicted as it.
        taken_for: The class that its samples were most often predicted as wrongly, and their number. None: no sample
            was predicted wrongly.
    """

    name: str
    n: int
    right: int
    predicted: int
    taken_for: tuple[str, int] | None = None

    @property
    def recall(self) -> float | None:
        """Share of its samples that were predicted as it. None: it has no sample."""
        return self.right / self.n if self.n else None

    @property
    def precision(self) -> float | None:
        """Share of the samples predicted as it that are of it. None: nothing was predicted as it."""
        return self.right / self.predicted if self.predicted else None

    @property
    def recall_interval(self) -> Interval | None:
        """95 % confidence interval of the recall."""
        return wilson_interval(self.right, self.n) if self.n else None

    @property
    def precision_interval(self) -> Interval | None:
        """95 % confidence interval of the precision."""
        return wilson_interval(self.right, self.predicted) if self.predicted else None


def class_results(names: Sequence[str], confusion: Sequence[Sequence[int]]) -> list[ClassResult]:
    """Return the results of each class, from samples by true class (rows) and predicted class (columns)."""
    predicted = [sum(column) for column in zip(*confusion, strict=True)]
    found: list[ClassResult] = []
    for index, row in enumerate(confusion):
        others = [0 if place == index else count for place, count in enumerate(row)]
        worst = max(range(len(row)), key=others.__getitem__)
        found.append(
            ClassResult(
                name=names[index],
                n=sum(row),
                right=row[index],
                predicted=predicted[index],
                taken_for=(names[worst], others[worst]) if others[worst] else None,
            )
        )
    return found
