"""`DatasetBundle`: the splits of a data set with its inputs and targets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from perceivers.data.base import MapStyleSplit
from perceivers.data.sources.identity import RowIdentity, fold_name
from perceivers.data.streaming.stream import Stream
from perceivers.data.tables.columns import InputColumn
from perceivers.data.tables.table import Subset
from perceivers.data.targets.encode import is_known
from perceivers.data.targets.infer import Moments, TargetEncoder, TargetKind, moments


@dataclass(frozen=True)
class DatasetBundle:
    """Splits of a data set, its inputs and its targets.

    Attributes:
        form: Description of the recognized form.
        splits: `train`, `validation`, `test`, as far as the data have them. An undivided table or folder is `train`.
        inputs: Input columns by modality name.
        target: Target column. None: no labels. Of several tasks, the name under which a row holds all targets by task.
        label_names: Names of the classes by index, or of the labels or numbers; of several tasks, names of the tasks.
        ignored: Unused columns.
        notes: Sentences about the data and the choices made.
        streams: Splits of streamed data; `splits` is then empty.
        target_kind: One class, several labels, or numbers; or `several` targets.
        stream_moments: Mean and standard deviation of each target number, if streams know them.
        tasks: Encoder of each of several targets, by column.
        divided: Train and validation as they were divided, where validation was held out of train; `splits` may hold
            parts of their rows. None: the data are divided.
        folds: Rows of the undivided train that each fold of cross-validation holds out; the splits are then those of
            the first fold. Empty: a single split.
        identities: Identity of each row of train and validation, as far as it was computed.
        new_rows: Number of rows that are new since the training of a run and are left out of its splits.
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
    divided: tuple[Subset, Subset] | None = None
    folds: tuple[tuple[int, ...], ...] = ()
    identities: Sequence[RowIdentity] = ()
    new_rows: int = 0

    def fold(self, index: int) -> "DatasetBundle":
        """Return the data as a fold divides them: the rows that it holds out are `validation`, all others `train`."""
        assert self.divided is not None
        rows, held = self.divided[0].base, self.folds[index]
        out = set(held)
        known = sorted(row for part in self.divided for row in part.indices.tolist())
        stay = [row for row in known if row not in out]
        divided = Subset(rows, stay), Subset(rows, held)
        splits = {**self.splits, "train": divided[0], "validation": divided[1]}
        identities = [
            replace(one, split="validation" if one.split == fold_name(index) else "train")
            for one in self.identities
        ]
        return replace(self, splits=splits, divided=divided, folds=(), identities=identities)

    def targets(self, split: str) -> list[Any]:
        """Return the target of every row: a class index, or K labels (0 or 1) or numbers as float32.

        Of several tasks, a dict of these, with -1 and NaN for unknown targets.

        Raises:
            ValueError: If there is no such split, or there are no labels.
        """
        if split not in self.splits:
            others = ", ".join(self.splits) or "none that is read by index"
            raise ValueError(f"There is no split '{split}' in {self.form}; there is {others}.")
        if self.target is None:
            raise ValueError(
                f"There are no labels in {self.form}, so there is nothing to compare with."
            )
        column = self.splits[split].column(self.target)
        return [int(index) for index in column] if self.target_kind == "class" else list(column)

    def known_targets(self, split: str, task: str | None = None) -> npt.NDArray[Any]:
        """Return the known targets of a split as one array, of `task` if there are several.

        Raises:
            ValueError: If there is no such split, or there are no labels.
        """
        found = self.targets(split)
        if task is None:
            return np.asarray(found)
        values = np.asarray([one[task] for one in found])
        return values[is_known(values)]

    def class_counts(self, split: str, task: str | None = None) -> list[int]:
        """Return the number of rows of each class or label in a split, of `task` if there are several.

        Raises:
            ValueError: If there is no such split, there are no labels, or the targets are numbers.
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
        """Return mean and standard deviation of each target number in train, of `task` if there are several.

        None for classes and labels, and for streams that do not know them.
        """
        kind = self.target_kind if task is None else self.tasks[task].kind
        if kind != "number" or self.streams:
            return self.stream_moments
        return moments(self.known_targets("train", task).astype(np.float32))
