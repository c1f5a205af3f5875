"""Reading of every row of a data set once: its fingerprint, its description for comparisons, and errors."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from perceivers.checks.finding import RowName
from perceivers.console import tracked
from perceivers.data.fingerprint import value_fingerprint
from perceivers.data.loading.sampler import LoaderSettings
from perceivers.data.loading.transform import BadRowError, SampleTransform
from perceivers.data.modalities.base import Comparable, TooLongError
from perceivers.data.modalities.image.decode import quiet_pillow
from perceivers.data.registry import find_modality
from perceivers.recipes.resolve import ResolvedRun
from perceivers.tasks.registry import TaskConfig

_AHEAD = 64  # rows that are decoded at a time
_BINS = 32  # cells that a longer axis of a general array is averaged to
_MOST_FEATURES = 1024


@dataclass(frozen=True, kw_only=True)
class ScannedRow:
    """A row that was read once.

    Attributes:
        name: The row and its label.
        target: Index of its class; None if the target is no single class.
        fingerprint: Hash of the contents of all inputs.
        inputs: Description of each modality for comparisons, by its name.
        error: Why it cannot be read, else "".
    """

    name: RowName
    target: int | None
    fingerprint: str
    inputs: Mapping[str, Comparable]
    error: str = ""


def scan_rows(run: ResolvedRun, *, threads: int = 1) -> list[ScannedRow]:
    """Return every row of all splits, decoded once.

    Args:
        run: Recipe, preprocessing and data, as `resolve` returns them.
        threads: Threads that decode.

    Raises:
        ValueError: If the data are streamed, whose rows cannot be read by index.
    """
    if run.data.streams:
        raise ValueError(
            "Expected data that are read by index, got a stream. Check the files themselves, before they are written "
            "as shards, or shards on this disk without --stream."
        )
    task: TaskConfig = run.recipe.task
    settings = LoaderSettings(target_modalities=task.target_modalities)
    transform = SampleTransform(run.data.inputs, run.preprocess, None, settings)
    places = [(split, row) for split, part in run.data.splits.items() for row in range(len(part))]
    targets = {split: _targets(run, split) for split in run.data.splits}

    def scan(place: tuple[str, int]) -> ScannedRow:
        split, row = place
        return _scan(run, transform, split, row, targets[split])

    found: list[ScannedRow] = []
    remaining = iter(places)
    chunks = iter(lambda: list(islice(remaining, _AHEAD * max(1, threads))), [])
    with quiet_pillow, ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        for chunk in tracked(chunks, len(places), "row", size=len):
            found += pool.map(scan, chunk)
    return found


def _targets(run: ResolvedRun, split: str) -> list[Any] | None:
    """Return the class index of every row, or None if the target is no single class."""
    if run.data.target is None or run.data.target_kind != "class":
        return None
    with suppress(ValueError, KeyError):  # a split without labels
        return run.data.targets(split)
    return None


def _scan(
    run: ResolvedRun, transform: SampleTransform, split: str, row: int, targets: list[Any] | None
) -> ScannedRow:
    target = None if targets is None or targets[row] < 0 else int(targets[row])
    label = None if target is None else run.data.label_names[target]

    part: Any = run.data.splits[split]
    in_columns = all(column.columns for column in run.data.inputs.values())
    where = part.where(row) if hasattr(part, "where") else f"{split} row {row}"

    def named(name: str) -> RowName:
        name = where if in_columns or not name else name
        return RowName(split=split, row=row, name=name, label=label)

    cells: Mapping[str, Any] = {}
    try:
        raw = part.row(row)
        cells = {key: cell for key, cell in raw.items() if key != run.data.target}
        values, name, _ = transform.decode(raw)
        described = dict(_describe(transform, run.preprocess, values))
        found = value_fingerprint(cells)
    except (BadRowError, TooLongError, OSError, ValueError, KeyError) as error:
        name, reason = (
            (error.name, error.reason) if isinstance(error, BadRowError) else (where, str(error))
        )
        if isinstance(error, TooLongError):  # readable clip by clip
            fingerprint = value_fingerprint(cells)
            return ScannedRow(name=named(name), target=target, fingerprint=fingerprint, inputs={})
        return ScannedRow(name=named(name), target=target, fingerprint="", inputs={}, error=reason)
    return ScannedRow(name=named(name), target=target, fingerprint=found, inputs=described)


def _describe(
    transform: SampleTransform, preprocess: Mapping[str, Any], values: Mapping[str, Any]
) -> Iterator[tuple[str, Comparable]]:
    """Yield a description of each input that is not missing."""
    for name, value in values.items():
        if value is None or name in transform.settings.target_modalities:
            continue
        describe = find_modality(preprocess[name]).describe
        if describe is not None:
            yield name, describe(value)
            continue
        features = _pooled(transform.modalities[name].transform(value))
        if features is not None:
            yield name, Comparable(features=features)


def _pooled(value: Any) -> npt.NDArray[np.float32] | None:
    """Return an array as a vector of at most 1,024 numbers, its first axis averaged to 32 cells if it is longer."""
    if not isinstance(value, np.ndarray) or value.size == 0 or value.dtype.kind not in "fiu":
        return None
    array = np.nan_to_num(value.astype(np.float32).reshape(len(value), -1))
    if value.ndim > 1 and len(array) > 1:
        parts = np.array_split(array, min(_BINS, len(array)))
        parts += [np.zeros((1, array.shape[1]), np.float32)] * (_BINS - len(parts))
        array = np.stack([part.mean(axis=0) for part in parts])
    vector = array.reshape(-1)
    if len(vector) > _MOST_FEATURES:
        vector = np.array([part.mean() for part in np.array_split(vector, _MOST_FEATURES)])
    return vector.astype(np.float32)
