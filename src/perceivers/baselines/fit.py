"""Fit a simple baseline to the training split of a run and score it on another split."""

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from perceivers.baselines.candidates import Chosen, choose, list_candidates
from perceivers.baselines.problems import PROBLEMS, Problem
from perceivers.baselines.result import BaselineResult
from perceivers.baselines.views import Array, View, features_of, statistics_view
from perceivers.data.base import Batch, require
from perceivers.data.loading.loader import MapDataset
from perceivers.data.loading.sampler import BatchPlan, LoaderSettings
from perceivers.data.loading.stream_loader import make_stream_loader
from perceivers.data.loading.transform import SampleTransform
from perceivers.data.registry import find_modality
from perceivers.recipes.resolve import ResolvedRun
from perceivers.tasks.base import Task
from perceivers.tasks.multitask import is_known
from perceivers.tasks.registry import build_task
from perceivers.typing import Tensor

SECONDS = 60.0
"""Time in which a simple baseline is read, chosen and fitted."""

_BATCH = 32
_TRAIN_ROWS, _TEST_ROWS = 50_000, 20_000
_BYTES = 600 * 2**20  # of the kept values of a split
_READ_TEST, _READ, _VIEWS = (
    0.2,
    0.5,
    0.35,
)  # shares of the time: until reading ends; of the rest, for features


def fit_baseline(
    run: ResolvedRun,
    *,
    train: Sequence[str] = ("train",),
    test: str = "validation",
    seconds: float = SECONDS,
    datasets: Mapping[str, MapDataset] | None = None,
    data: str = "",
) -> BaselineResult | None:
    """Return the score of a cheap scikit-learn model, or None if the task has no simple baseline.

    It learns classes, labels and numbers from simple features of the arrays that the model reads, without augmentation,
    on one core and with fixed seeds. It learns from fewer rows where the time would not suffice for all. Not only
    training calls it: a benchmark scores it on a test split by `fit_baseline(run, train=("train", "validation"),
    test="test")`.

    Args:
        run: Recipe, preprocessing and data, as `resolve` returns them.
        train: Splits that it learns from.
        test: Split on which it is scored.
        seconds: Time for all of it. A step that has begun is finished.
        datasets: Data sets of these splits, whose caches of decoded values are used.
        data: Fingerprint of the rows, kept in the result.

    Raises:
        ImportError: If scikit-learn is not installed.
        ValueError: If no row can be read.
    """
    config = run.recipe.task
    parts = config.subtasks or {"": config}
    if run.data.target is None or not all(one.default_for in PROBLEMS for one in parts.values()):
        return None
    require("sklearn", "train")
    started = time.monotonic()
    with _one_core():
        reader = _Reader(run, datasets or {})
        scored = reader.read([test], most=_TEST_ROWS, deadline=started + _READ_TEST * seconds)
        learned = reader.read(train, most=_TRAIN_ROWS, deadline=started + _READ * seconds)
        deadline = started + seconds
        views = _views(run, learned, scored, _VIEWS * (deadline - time.monotonic()))
        task = build_task(config)
        outputs, chosen = _outputs(task, views, learned, deadline)
        meter = task.meter()
        meter.update(outputs, scored.stacked_targets())
    main = task.main_metric
    return BaselineResult(
        metric=main,
        value=float(meter.compute()[main]),
        higher_is_better=task.higher_is_better,
        model=" and ".join(dict.fromkeys(one.model for one in chosen)),
        seconds=round(time.monotonic() - started, 1),
        train_rows=max(one.rows for one in chosen),
        of_train_rows=reader.num_rows(train),
        rows=scored.count,
        of_rows=reader.num_rows([test]),
        data=data,
    )


@contextmanager
def _one_core() -> Generator[None]:
    """Use one thread in the context, also in scikit-learn's compiled code."""
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


@dataclass
class _Rows:
    """What was kept of some rows.

    Attributes:
        kept: Values of each modality, see `Features.collect`.
        targets: Targets of each batch.
        groups: Group of each row, empty without groups.
        count: Number of rows.
        size: Bytes of `kept`.
    """

    kept: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])
    targets: list[Any] = field(default_factory=list[Any])
    groups: list[Any] = field(default_factory=list[Any])
    count: int = 0
    size: int = 0

    def stacked_targets(self) -> Any:
        """Return the targets of all rows; of several tasks, those of each."""
        if isinstance(self.targets[0], dict):
            return {
                name: torch.cat([one[name] for one in self.targets]) for name in self.targets[0]
            }
        return torch.cat(self.targets)


class _Reader:
    """Reads rows of the splits of a run as the model sees them, and keeps what features are made of."""

    def __init__(self, run: ResolvedRun, datasets: Mapping[str, MapDataset]) -> None:
        self.run = run
        self.data = run.data
        self.datasets = datasets
        self.settings = LoaderSettings(
            batch_size=_BATCH, max_bad=1.0, num_classes=run.recipe.output.num_outputs
        )

    def num_rows(self, splits: Sequence[str]) -> int | None:
        """Return the number of rows of splits; None if they are streamed."""
        return None if self.data.streams else sum(len(self.data.splits[one]) for one in splits)

    def read(self, splits: Sequence[str], *, most: int, deadline: float) -> _Rows:
        """Return rows of splits in a fixed random order, until there are enough or the time is over.

        Raises:
            ValueError: If no row can be read.
        """
        rows = _Rows()
        batches = self._streamed(splits) if self.data.streams else self._batches(splits)
        for batch, groups in batches:
            self._keep(rows, batch)
            rows.groups += groups
            if rows.count >= most or rows.size > _BYTES or time.monotonic() > deadline:
                break
        if not rows.count:
            raise ValueError(f"no row of {' and '.join(splits)} can be read.")
        return rows

    def _keep(self, rows: _Rows, batch: Batch) -> None:
        for name, values in batch.inputs.items():
            config = self.run.preprocess[name]
            mask = batch.masks.get(name)
            features = features_of(find_modality(config).name)
            kept = features.collect(values.numpy(), None if mask is None else mask.numpy(), config)
            rows.kept.setdefault(name, []).extend(kept)
            rows.size += sum(getattr(one, "nbytes", None) or len(one or ()) for one in kept)
        rows.targets.append(batch.targets)
        rows.count += len(batch)

    def _batches(self, splits: Sequence[str]) -> Iterator[tuple[Batch, list[Any]]]:
        transform = SampleTransform(self.data.inputs, self.run.preprocess, None, self.settings)
        parts: list[MapDataset] = []
        for name in splits:
            known = self.datasets.get(name)
            caches = (None, None) if known is None else (known.images, known.samples)
            targets = self.data.targets(name)
            parts.append(MapDataset(self.data.splits[name], targets, transform, *caches))
        ends = np.cumsum([len(one) for one in parts])
        order = np.random.default_rng(0).permutation(ends[-1])
        column = self.run.recipe.data.group
        groups = [] if column is None else [part.split.column(column) for part in parts]
        for first in range(0, len(order), _BATCH):
            chunk = order[first : first + _BATCH]
            of = np.searchsorted(ends, chunk, side="right")
            for number in np.unique(of):
                indices = chunk[of == number] - (ends[number] - len(parts[number]))
                batch = parts[number][BatchPlan(1, 0, indices)].batch
                if batch is not None:
                    yield batch, [str(groups[number][row]) for row in batch.rows] if groups else []

    def _streamed(self, splits: Sequence[str]) -> Iterator[tuple[Batch, list[Any]]]:
        recipe = self.run.recipe
        for name in splits:
            stream = self.data.streams[name].shuffled(recipe.data.shuffle_buffer, 0)
            loader = make_stream_loader(
                stream,
                self.data.inputs,
                self.data.target,
                preprocess=self.run.preprocess,
                augment=None,
                settings=self.settings,
            )
            for batch in loader:
                yield batch, []


def _views(run: ResolvedRun, learned: _Rows, scored: _Rows, seconds: float) -> list[View]:
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


def _outputs(
    task: Task, views: Sequence[View], learned: _Rows, deadline: float
) -> tuple[Any, list[Chosen]]:
    """Return the outputs of the task for the scored rows, and the model of each of several tasks."""
    groups = np.array(learned.groups) if learned.groups else None
    targets = learned.stacked_targets()
    if not task.parts:
        chosen = _chosen(task, views, targets, deadline, groups)
        return torch.from_numpy(chosen.outputs.astype(np.float32)), [chosen]
    each: dict[str, Chosen] = {}
    for number, (name, part) in enumerate(task.parts.items()):
        begun = time.monotonic()
        end = begun + (deadline - begun) / (len(task.parts) - number)
        each[name] = _chosen(part, views, targets[name], end, groups)
    outputs = {name: torch.from_numpy(one.outputs.astype(np.float32)) for name, one in each.items()}
    return outputs, list(each.values())


def _chosen(
    task: Task, views: Sequence[View], targets: Tensor, deadline: float, groups: Array | None
) -> Chosen:
    """Return the predictions of the best candidate for one task, which learns from the rows whose target is known."""
    known = is_known(targets).numpy()
    if not known.all():
        targets, groups = (
            targets[torch.from_numpy(known)],
            None if groups is None else groups[known],
        )
        views = [View(**{**vars(one), "train": one.train[known]}) for one in views]
    if not len(targets):
        raise ValueError("no training row has a target.")
    problem: Problem = PROBLEMS[task.config.default_for](task)
    candidates = list_candidates(views, problem.num_outputs)
    return choose(candidates, problem, targets, deadline=deadline, groups=groups)
