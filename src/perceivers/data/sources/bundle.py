"""`DatasetBundle`: recognized data, ready to be loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from perceivers.data.base import MapStyleSplit
from perceivers.data.streaming.stream import Stream
from perceivers.data.tables.columns import InputColumn
from perceivers.data.targets.encode import is_known
from perceivers.data.targets.infer import Moments, TargetEncoder, TargetKind, moments


@dataclass(frozen=True)
class DatasetBundle:
    """Data that were recognized, and how they are used.

    Attributes:
        form: What was recognized, in words.
        splits: `train`, `validation`, `test`: those that the data have. A table or folder alone is `train`.
        inputs: Input columns by the name of their modality.
        target: Column of the target. None: files without labels. Of several tasks, the name under which a row holds the
            targets of all of them, by task.
        label_names: Names of the classes in the order of their indices, of the labels, or of the numbers to predict; of
            several tasks, their names. Empty without a target.
        ignored: Columns that are not used.
        notes: Sentences on what was seen and chosen.
        streams: The splits where rows are streamed; then `splits` is empty.
        target_kind: What the target of a row is: one class, several labels, or numbers; or `several` targets.
        stream_moments: Mean and deviation of each number to predict, where streams know them.
        tasks: Of several targets, what each is and holds, by the name of its column.
    """

    form: str
    splits: Mapping[str, MapStyleSplit]
    inputs: Mapping[str, InputColumn]
    target: str | None
    label_names: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    streams: Mapping[str, Stream] = field(default_factory=dict[str, Stream])
    target_kind: TargetKind | Literal["several"] = "class"
    stream_moments: Moments | None = None
    tasks: Mapping[str, TargetEncoder] = field(default_factory=dict[str, TargetEncoder])

    def targets(self, split: str) -> list[Any]:
        """Return, for every row of a split, the index of its class; or K labels (0 or 1) or numbers, as float32.

        Of several tasks, a dict of these, with -1 and NaN where the target of a task is not known.

        Raises:
            ValueError: If there is no such split, or there are no labels.
        """
        if split not in self.splits:
            there = ", ".join(self.splits) or "none that is read by index"
            raise ValueError(f"There is no split '{split}' in {self.form}; there is {there}.")
        if self.target is None:
            raise ValueError(
                f"There are no labels in {self.form}, so there is nothing to compare with."
            )
        column = self.splits[split].column(self.target)
        return [int(index) for index in column] if self.target_kind == "class" else list(column)

    def known_targets(self, split: str, task: str | None = None) -> npt.NDArray[Any]:
        """Return the targets of the rows of a split that have one, as one array.

        Args:
            split: Which split.
            task: Which of several tasks. None: there is only one.

        Raises:
            ValueError: If there is no such split, or there are no labels.
        """
        found = self.targets(split)
        if task is None:
            return np.asarray(found)
        values = np.asarray([one[task] for one in found])
        return values[is_known(values)]

    def class_counts(self, split: str, task: str | None = None) -> list[int]:
        """Return how many rows of a split each class has, or each label.

        Args:
            split: Which split.
            task: Which of several tasks. None: there is only one.

        Raises:
            ValueError: If there is no such split, or there are no labels, or the targets are numbers.
        """
        targets = self.known_targets(split, task)
        kind = self.target_kind if task is None else self.tasks[task].kind
        names = self.label_names if task is None else self.tasks[task].names
        if kind == "number":
            raise ValueError(
                f"The target '{task or self.target}' is a number, so there are no classes to count."
            )
        if kind == "labels":
            return targets.sum(axis=0).astype(int).tolist()
        return np.bincount(targets, minlength=len(names)).tolist()

    def target_moments(self, task: str | None = None) -> Moments | None:
        """Return mean and standard deviation of each number in train; None for classes and labels.

        Streams may not know them either.

        Args:
            task: Which of several tasks. None: there is only one.
        """
        kind = self.target_kind if task is None else self.tasks[task].kind
        if kind != "number" or self.streams:
            return self.stream_moments
        return moments(self.known_targets("train", task).astype(np.float32))
