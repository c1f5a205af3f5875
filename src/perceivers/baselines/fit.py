"""Fit a simple baseline to the training split of a run and score it on another split."""

import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from perceivers.baselines.candidates import Chosen, choose, list_candidates
from perceivers.baselines.problems import PROBLEMS, Problem
from perceivers.baselines.reading import ReadRows, RowReader
from perceivers.baselines.result import BaselineResult
from perceivers.baselines.views import Array, View, features_of, statistics_view
from perceivers.data.loading.loader import MapDataset
from perceivers.data.registry import find_modality
from perceivers.data.tables.table import Subset
from perceivers.optional import require
from perceivers.recipes.resolve import ResolvedRun
from perceivers.tasks.base import Task
from perceivers.tasks.meters import Meter
from perceivers.tasks.multitask import is_known
from perceivers.tasks.registry import build_task
from perceivers.typing import Tensor

SECONDS = 60.0
"""Time in which a simple baseline is read, chosen and fitted."""

_TRAIN_ROWS, _TEST_ROWS = 50_000, 20_000
_READ_TEST, _READ = 0.2, 0.5  # shares of the time at which reading ends
_VIEWS = 0.35  # share of the rest for features


def fit_baseline(
    run: ResolvedRun,
    *,
    train: Sequence[str] = ("train",),
    test: str = "validation",
    seconds: float = SECONDS,
    datasets: Mapping[str, MapDataset] | None = None,
    data: str = "",
    errors: dict[int, float] | None = None,
) -> BaselineResult | None:
    """Return the score of a cheap scikit-learn model, or None if the task has no simple baseline.

    It learns classes, labels and numbers from simple features of the arrays that the model reads, without augmentation,
    on one core and with fixed seeds. It learns from fewer rows where the time would not suffice for all. Not only
    training calls it: a benchmark scores it on a test split by `fit_baseline(run, train=("train", "validation"),
    test="test")`. The validation of data with folds is scored out of fold.

    Args:
        run: Recipe, preprocessing and data, as `resolve` returns them.
        train: Splits that it learns from.
        test: Split on which it is scored.
        seconds: Time for all of it. A step that has begun is finished.
        datasets: Data sets of these splits, whose caches of decoded values are used.
        data: Fingerprint of the rows, kept in the result.
        errors: Gets the error of each scored row (`Meter.errors`) by its number in its split; with folds, in the table
            of all rows.

    Raises:
        ImportError: If scikit-learn is not installed.
        ValueError: If no row can be read.
    """
    config = run.recipe.task
    tasks = config.subtasks or {"": config}
    if run.data.target is None or not all(one.default_for in PROBLEMS for one in tasks.values()):
        return None
    require("sklearn", "train")
    started = time.monotonic()
    deadline = started + seconds
    task = build_task(config)
    meter = task.meter()
    chosen: list[Chosen] = []
    with one_core():
        reader = RowReader(run, datasets or {})
        if run.data.folds and test == "validation":
            parts = _of_folds(reader, started, seconds)
        else:
            parts = [_of_splits(reader, train, test, started, seconds)]
        for number, part in enumerate(parts):
            begun = time.monotonic()
            end = begun + (deadline - begun) / (len(parts) - number)
            outputs, fitted = _outputs(task, part, end)
            meter.update(outputs, part.truth)
            chosen += fitted
    if errors is not None:
        errors |= _errors_by_row(meter, parts)
    main, models = task.main_metric, Counter(one.model for one in chosen)
    return BaselineResult(
        metric=main,
        value=float(meter.compute()[main]),
        higher_is_better=task.higher_is_better,
        model=" and ".join(models) if task.parts else models.most_common(1)[0][0],
        seconds=round(time.monotonic() - started, 1),
        train_rows=max(one.rows for one in chosen),
        of_train_rows=parts[0].of_train_rows,
        rows=sum(part.rows for part in parts),
        of_rows=parts[0].of_rows,
        data=data,
        candidates=max(one.candidates for one in chosen),
        interval=meter.intervals().get(main),
    )


def _errors_by_row(meter: Meter, parts: "Sequence[_Part]") -> dict[int, float]:
    """Return the error of each scored row by its number; nothing if the meter keeps no error of each."""
    each = meter.errors()
    numbers = [number for part in parts for number in part.numbers]
    if each is None or len(numbers) != len(each):
        return {}
    return dict(zip(numbers, each.tolist(), strict=True))


@contextmanager
def one_core() -> Generator[None]:
    """Use one thread in the context, also in scikit-learn's compiled code."""
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Features and targets of the training and of the scored rows of a split, or of a fold.

    Attributes:
        views: Features of both.
        targets: Targets of the training rows.
        groups: Group of each of them. None: there are no groups.
        truth: Targets of the scored rows.
        rows: Number of scored rows.
        numbers: Number of each of them. Empty: they are streamed.
        of_train_rows: Rows of the training split. None: unknown.
        of_rows: Rows to score, over all folds. None: unknown.
    """

    views: Sequence[View]
    targets: Any
    groups: Array | None
    truth: Any
    rows: int
    numbers: Sequence[int]
    of_train_rows: int | None
    of_rows: int | None


def _of_splits(
    reader: RowReader, train: Sequence[str], test: str, started: float, seconds: float
) -> _Part:
    """Return the features of the training splits and of the scored split."""
    scored = reader.read([test], most=_TEST_ROWS, deadline=started + _READ_TEST * seconds)
    learned = reader.read(train, most=_TRAIN_ROWS, deadline=started + _READ * seconds)
    left = started + seconds - time.monotonic()
    return _Part(
        views=_views(reader.run, learned, scored, _VIEWS * left),
        targets=learned.targets,
        groups=learned.groups,
        truth=scored.targets,
        rows=scored.count,
        numbers=scored.numbers,
        of_train_rows=reader.num_rows(train),
        of_rows=reader.num_rows([test]),
    )


def _of_folds(reader: RowReader, started: float, seconds: float) -> list[_Part]:
    """Return the features of each fold: of the rows that it keeps for training, and of those that it holds out."""
    source = reader.data
    assert source.divided is not None
    known = sorted(row for fold in source.folds for row in fold)
    whole = Subset(source.divided[0].base, known)
    alone = replace(source, splits={"train": whole}, folds=())
    reader = RowReader(replace(reader.run, data=alone), {})
    rows = reader.read(["train"], most=_TRAIN_ROWS, deadline=started + _READ * seconds)
    left = started + seconds - time.monotonic()
    views = _views(reader.run, rows, rows, _VIEWS * left)
    targets, groups = rows.targets, rows.groups
    numbers = whole.indices[np.array(rows.numbers)]
    parts: list[_Part] = []
    for fold in source.folds:
        held = np.isin(numbers, fold)
        if held.all() or not held.any():
            continue
        parts.append(
            _Part(
                views=[replace(one, train=one.train[~held], test=one.test[held]) for one in views],
                targets=_selected(targets, ~held),
                groups=None if groups is None else groups[~held],
                truth=_selected(targets, held),
                rows=int(held.sum()),
                numbers=numbers[held].tolist(),
                of_train_rows=len(whole) - len(fold),
                of_rows=len(whole),
            )
        )
    return parts


def _selected(targets: Any, kept: Array) -> Any:
    """Return the targets of some rows; of several tasks, those of each."""
    rows = torch.from_numpy(kept)
    if isinstance(targets, dict):
        return {name: values[rows] for name, values in targets.items()}
    return targets[rows]


def _views(run: ResolvedRun, learned: ReadRows, scored: ReadRows, seconds: float) -> list[View]:
    """Return the features of all modalities.

    Raises:
        ValueError: If there are none.
    """
    found: list[View] = []
    for name, train in learned.kept.items():
        features = features_of(find_modality(run.preprocess[name]).name)
        test = scored.kept[name]
        if features.views is None:
            found += statistics_view(features, train, test)
        else:
            found += features.views(train, test, seconds / len(learned.kept))
    if not found:
        raise ValueError("no row has an input that features can be made of.")
    return found


def _outputs(task: Task, part: _Part, deadline: float) -> tuple[Any, list[Chosen]]:
    """Return the outputs of the task for the scored rows, and the model of each of several tasks."""
    if not task.parts:
        chosen = _chosen(task, part, part.targets, deadline)
        return torch.from_numpy(chosen.outputs.astype(np.float32)), [chosen]
    each: dict[str, Chosen] = {}
    for number, (name, one) in enumerate(task.parts.items()):
        begun = time.monotonic()
        end = begun + (deadline - begun) / (len(task.parts) - number)
        each[name] = _chosen(one, part, part.targets[name], end)
    outputs = {name: torch.from_numpy(one.outputs.astype(np.float32)) for name, one in each.items()}
    return outputs, list(each.values())


def _chosen(task: Task, part: _Part, targets: Tensor, deadline: float) -> Chosen:
    """Return the predictions of the best candidate for one task, which learns from the rows whose target is known."""
    known = is_known(targets).numpy()
    views, groups = part.views, part.groups
    if not known.all():
        targets, groups = _selected(targets, known), None if groups is None else groups[known]
        views = [replace(one, train=one.train[known]) for one in views]
    if not len(targets):
        raise ValueError("no training row has a target.")
    problem: Problem = PROBLEMS[task.config.default_for](task)
    candidates = list_candidates(views, problem.num_outputs)
    return choose(candidates, problem, targets, deadline=deadline, groups=groups)
