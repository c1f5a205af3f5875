"""The samples of a split whose predictions are worst."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from perceivers.tasks.base import Task
from perceivers.tasks.multitask import is_known

KEPT = 12
"""Number of mistakes that are kept for each task."""


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One wrong prediction.

    Attributes:
        name: Name of the sample: its file, or its row.
        row: Index of the sample in the split. None: the split is a stream.
        text: Prediction and truth.
        size: Size of the error: the probability of a wrong class or label, the largest error of a number in standard
            deviations, the share of wrong pixels, or an error in the units of the outputs.
    """

    name: str
    row: int | None
    text: str
    size: float


class WorstMistakes:
    """Collects the worst mistakes of a task, and of each of several tasks.

    Attributes:
        found: Worst mistakes first, at most `KEPT`.
        parts: Those of each of several tasks, by name.
    """

    def __init__(self, task: Task) -> None:
        self.found: list[Mistake] = []
        self.parts = {name: WorstMistakes(part) for name, part in task.parts.items()}
        self._task = task

    def add(
        self, outputs: Any, targets: Any, names: Sequence[str], rows: Sequence[int] = ()
    ) -> None:
        """Add a batch: outputs with the clips combined, targets, and the names and rows of its samples."""
        if self.parts:
            for task, part in self.parts.items():
                known = is_known(targets[task])
                each: list[int] = known.nonzero()[:, 0].tolist()
                if each:
                    part.add(
                        outputs[task][known.to(outputs[task].device)],
                        targets[task][known],
                        [names[one] for one in each],
                        [rows[one] for one in each] if rows else (),
                    )
            return
        sizes = self._task.mistake_sizes(outputs, targets)
        if sizes is None:
            return
        best = sizes.float().cpu().nan_to_num().topk(min(KEPT, len(sizes)))
        sizes_and_rows: list[tuple[float, int]] = list(
            zip(best.values.tolist(), best.indices.tolist(), strict=True)
        )
        for size, one in sizes_and_rows:
            is_full = len(self.found) == KEPT
            if size <= 0 or (is_full and size <= self.found[-1].size):
                break
            text = self._task.describe_mistake(_row(outputs, one), _row(targets, one))
            row = rows[one] if rows else None
            self.found.append(Mistake(name=names[one], row=row, text=text, size=size))
            self.found.sort(key=lambda mistake: -mistake.size)
            del self.found[KEPT:]


def _row(values: Any, index: int) -> Any:
    """Return one row of a tensor, or of each tensor of a mapping, with a batch axis of 1."""
    if isinstance(values, torch.Tensor):
        return values[index : index + 1]
    if isinstance(values, Mapping):
        named = cast("Mapping[str, Any]", values)
        return {name: part[index : index + 1] for name, part in named.items()}
    return values
