"""Classes without enough rows, and rows whose label is unlike that of similar rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from perceivers.checks.finding import Finding, RowName
from perceivers.checks.scan import ScannedRow
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.data.targets.encode import is_known
from perceivers.wording import counted

FEW = 10  # rows of a class in train below which it is hardly learned
_UNEVEN = 20  # times as many rows in the largest class as in the smallest
_NEIGHBORS = 10
_AGREEING = 8  # of them with one other class
_MOST_ROWS = 10_000  # compared with each other
_GOOD = 0.7  # accuracy of the neighbors from which their disagreement is evidence
_SHOWN = 8  # names in a message


def count_classes(source: DatasetBundle) -> dict[str, dict[str, int]]:
    """Return the number of rows of each class in each split; empty if the target is no class.

    With folds, train is all of their rows, and validation is left out.
    """
    if source.target is None or source.target_kind not in ("class", "labels") or source.streams:
        return {}
    found: dict[str, dict[str, int]] = {}
    for split in source.splits:
        targets = source.known_targets(split)
        if source.target_kind == "class":
            targets = targets[is_known(targets)]
            counts = np.bincount(targets, minlength=len(source.label_names)).tolist()
        else:
            counts = targets[is_known(targets)].sum(axis=0).astype(int).tolist()
        found[split] = dict(zip(source.label_names, counts, strict=True))
    if source.folds:  # splits are those of the first fold
        held = found.pop("validation")
        found["train"] = {name: count + held[name] for name, count in found["train"].items()}
    return found


def check_classes(counts: Mapping[str, Mapping[str, int]]) -> Iterator[Finding]:
    """Yield findings about classes that are too small to be learned or measured.

    Args:
        counts: Rows of each class by split, as `count_classes` returns them.
    """
    train = counts.get("train", {})
    if not train:
        return
    missing = [name for name, count in train.items() if count == 0]
    if missing:
        yield Finding(
            kind="class",
            severity="error",
            message=f"{counted(len(missing), 'class', 'classes')} without a row in train cannot be learned: "
            f"{_listed(missing)}. Add rows, or remove the class from the other splits.",
        )
    few = [f"{name} ({count})" for name, count in train.items() if 0 < count < FEW]
    if few:
        yield Finding(
            kind="class",
            severity="warning",
            message=f"{counted(len(few), 'class', 'classes')} with fewer than {FEW} rows in train: {_listed(few)}. "
            "More rows of them, or one class of several of them, would help most.",
        )
    present = {name: count for name, count in train.items() if count}
    for split, of_split in counts.items():
        absent = [name for name in present if of_split[name] == 0]
        if split != "train" and absent:
            yield Finding(
                kind="class",
                severity="warning",
                message=f"{counted(len(absent), 'class', 'classes')} without a row in {split} "
                f"{'is' if len(absent) == 1 else 'are'} not measured there: {_listed(absent)}.",
            )
    largest, smallest = max(present.values(), default=0), min(present.values(), default=0)
    if smallest and largest >= _UNEVEN * smallest and len(present) > 1:
        yield Finding(
            kind="class",
            severity="info",
            message=f"The largest class has {largest:,} rows in train, the smallest {smallest:,}. "
            "--task.class-weights balanced gives each class the same weight.",
        )


def check_labels(rows: Sequence[ScannedRow], names: Sequence[str]) -> Iterator[Finding]:
    """Yield a finding about rows whose nearest neighbors nearly all have one other class.

    It is made only if neighbors predict the labels of the data well: otherwise they state nothing about a single row.

    Args:
        rows: Rows of all splits.
        names: Names of the classes.
    """
    labelled = [row for row in rows if row.target is not None and not row.error and row.inputs]
    step = -(-len(labelled) // _MOST_ROWS) if labelled else 1
    labelled = labelled[::step]
    features = _features(labelled)
    if features is None or len(labelled) <= 2 * _NEIGHBORS:
        return
    targets = np.array([row.target for row in labelled])
    votes = np.zeros((len(targets), len(names)), dtype=np.int64)
    for begin in range(0, len(features), 1024):
        likeness = features[begin : begin + 1024] @ features.T
        here = np.arange(len(likeness))
        likeness[here, here + begin] = -np.inf
        nearest = np.argpartition(-likeness, _NEIGHBORS, axis=1)[:, :_NEIGHBORS]
        for neighbor in nearest.T:
            np.add.at(votes, (here + begin, targets[neighbor]), 1)
    accuracy = (votes.argmax(axis=1) == targets).mean()
    largest = np.bincount(targets).max() / len(targets)
    if accuracy < max(_GOOD, (1 + largest) / 2):
        return
    own = votes[np.arange(len(targets)), targets]
    suspect = np.flatnonzero((own == 0) & (votes.max(axis=1) >= _AGREEING))
    if not suspect.size:
        return
    order = suspect[np.argsort(-votes[suspect].max(axis=1), kind="stable")]
    found = [_suggested(labelled[i].name, names[int(votes[i].argmax())]) for i in order]
    count = len(found)
    yield Finding(
        kind="label",
        severity="warning",
        message=f"{counted(count, 'row')} {'looks' if count == 1 else 'look'} like another class than "
        f"{'its' if count == 1 else 'their'} label: at least {_AGREEING} of the {_NEIGHBORS} most similar rows have "
        f"one other class (which is right for {accuracy:.0%} of all rows).",
        groups=[[name] for name in found],
    )


def _suggested(name: RowName, label: str) -> RowName:
    return replace(name, note=f"looks like {label}")


def _features(rows: Sequence[ScannedRow]) -> npt.NDArray[np.float32] | None:
    """Return unit vectors of the rows, all modalities side by side; None if there is nothing to compare."""
    parts: list[npt.NDArray[np.float32]] = []
    for modality in dict.fromkeys(name for row in rows for name in row.inputs):
        described = [row.inputs.get(modality) for row in rows]
        sizes = {len(one.features) for one in described if one is not None}
        if len(sizes) != 1:
            continue
        nothing = np.zeros(sizes.pop(), dtype=np.float32)
        part = np.stack([nothing if one is None else one.features for one in described])
        part -= part.mean(axis=0)
        if any(one is not None and one.is_standardized for one in described):
            part /= np.maximum(part.std(axis=0), 1e-6)
        part /= np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-6)
        parts.append(part)
    if not parts:
        return None
    return np.concatenate(parts, axis=1) / np.float32(len(parts) ** 0.5)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
