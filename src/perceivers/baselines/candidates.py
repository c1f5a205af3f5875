"""Candidate models of a simple baseline: features and an estimator, chosen on parts of the training rows."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from perceivers.baselines.problems import Problem
from perceivers.baselines.views import Array, Values, View
from perceivers.typing import Tensor

_INNER = 2000  # rows on which the choice is made
_FOLDED = 600  # rows up to which it is cross-validated; of more, a quarter is held out
_FOLDS, _PARTS = 5, 4
_COMPONENTS = 64  # of sparse features, for trees
_BOOSTED = 1500  # features x outputs up to which trees are boosted
_VECTORS = 6000  # rows up to which support-vector machines are fitted
_SPARE = 0.7  # share of the remaining time for which a fit is planned


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An estimator and the features that it learns from.

    Attributes:
        estimator: Name and strength of the estimator, see `Problem.estimator`.
        features: Name of the features.
        train: Features of the training rows.
        test: Features of the scored rows.
        power: Exponent of the number of rows in the time of a fit.
    """

    estimator: str
    features: str
    train: Any
    test: Any
    power: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Predictions of the best candidate.

    Attributes:
        outputs: Outputs of the task for the scored rows.
        model: Name of the model and its features.
        rows: Rows that it learned from.
        candidates: Number of candidates that were compared.
    """

    outputs: Array
    model: str
    rows: int
    candidates: int = 1


def list_candidates(views: Sequence[View], num_outputs: int) -> list[Candidate]:
    """Return the candidates for some views, the one that is chosen in doubt first.

    Raises:
        ValueError: If no feature distinguishes the rows.
    """
    kinds = {one.kind for one in views}
    rows = views[0].train.shape[0]
    name = _joined(
        one.name for one in views if kinds != {"kernels", "statistics"} or one.kind == "kernels"
    )
    train, test = _linear(views)
    if not train.shape[1]:
        raise ValueError("its features are the same in all training rows.")
    settings: list[tuple[str, float]] = [
        ("linear:1", 1.0),
        ("linear:0.1", 1.0),
        ("linear:0.01", 1.0),
    ]
    if "words" in kinds:
        settings = [("linear:10", 1.0), ("linear:1", 1.0)]
    elif "kernels" in kinds:
        settings = [("ridge", 1.5)]
    elif rows <= _VECTORS:
        settings.append(("vectors", 2.0))
    found = [
        Candidate(estimator=estimator, features=name, train=train, test=test, power=power)
        for estimator, power in settings
    ]
    if "statistics" in kinds:
        plain = [one for one in views if one.kind != "kernels"]
        name = _joined(one.name for one in plain)
        train, test = (
            np.concatenate(parts, axis=1) for parts in zip(*map(_dense, plain), strict=True)
        )
        names = ["trees"]
        if train.shape[1] * num_outputs <= _BOOSTED:
            names.append("boosting")
        found += [Candidate(estimator=one, features=name, train=train, test=test) for one in names]
    return found


def choose(
    candidates: Sequence[Candidate],
    problem: Problem,
    targets: Tensor,
    *,
    deadline: float,
    groups: Array | None = None,
) -> Chosen:
    """Return the predictions of the candidate that is best on held-out training rows, fitted to as many as time allows.

    Args:
        candidates: At least one.
        problem: Kind and task of the targets.
        targets: Targets of the training rows.
        deadline: Value of `time.monotonic` at which it should be done.
        groups: Group of each training row: none is on both sides of a split. None: each row is one.
    """
    rows = len(targets)
    learned = problem.targets(targets)
    best, seconds, inner, compared = candidates[0], 0.0, rows, 0
    if len(candidates) > 1 or rows > _INNER:
        started, highest = time.monotonic(), -np.inf
        folds = _folds(min(rows, _INNER), groups)
        inner = len(folds[0][0])
        for one in candidates:
            begun = time.monotonic()
            if begun - started > 0.4 * (deadline - started):
                break
            outputs = [
                problem.fit_predict(one.estimator, one.train[kept], learned[kept], one.train[held])
                for kept, held in folds
            ]
            held = np.concatenate([held for _, held in folds])
            compared += 1
            score = problem.score(np.concatenate(outputs), targets[held])
            score = score if problem.task.higher_is_better else -score
            if score > highest:
                best, highest = one, score
                seconds = (time.monotonic() - begun) / len(folds)
    left = max(_SPARE * (deadline - time.monotonic()), 0.0)
    most = inner * (left / seconds) ** (1 / best.power) if seconds else rows
    count = max(min(rows, int(most)), min(rows, inner))
    outputs = problem.fit_predict(best.estimator, best.train[:count], learned[:count], best.test)
    return Chosen(
        outputs=outputs,
        model=f"{problem.describe(best.estimator)} on {best.features}",
        rows=count,
        candidates=max(compared, 1),
    )


def _folds(rows: int, groups: Array | None) -> list[tuple[Array, Array]]:
    """Return the rows to learn from and the held-out ones of each fold of the first rows, which are in random order."""
    numbers = np.arange(rows)
    if groups is not None:
        _, numbers = np.unique(groups[:rows], return_inverse=True)
    parts = _FOLDS if rows <= _FOLDED else _PARTS
    parts = min(parts, int(numbers.max()) + 1)
    if parts < 2:  # nothing can be held out
        return [(np.arange(rows), np.arange(rows))]
    folds = range(parts if rows <= _FOLDED else 1)
    return [
        (np.flatnonzero(numbers % parts != n), np.flatnonzero(numbers % parts == n)) for n in folds
    ]


def _joined(names: Iterator[str]) -> str:
    """Return names as a list in a sentence."""
    *first, last = dict.fromkeys(names)
    return f"{', '.join(first)} and {last}" if first else last


def _linear(views: Sequence[View]) -> tuple[Any, Any]:
    """Return the views side by side, numbers standardized; each view weighs the same, whatever its width."""
    from scipy.sparse import csr_matrix, hstack

    is_sparse = any(one.kind == "words" for one in views)
    parts: list[tuple[Any, Any]] = []
    for one in views:
        if one.kind == "words":
            parts.append((one.train, one.test))
            continue
        pair = _standardized(one.train, one.test)
        if is_sparse:  # rows of weights have the norm 1
            scale = np.float32(max(pair[0].shape[1], 1) ** -0.5)
            pair = (csr_matrix(pair[0] * scale), csr_matrix(pair[1] * scale))
        parts.append(pair)
    first, second = zip(*parts, strict=True)
    if is_sparse:
        return hstack(first, "csr"), hstack(second, "csr")
    return np.concatenate(first, axis=1), np.concatenate(second, axis=1)


def _standardized(train: Values, test: Values) -> tuple[Values, Values]:
    """Return numbers of mean 0 and deviation 1 in train; a missing one is 0, and a column states which are missing."""
    missing, lacking = np.isnan(train), np.isnan(test)
    counts = np.maximum((~missing).sum(axis=0), 1)
    mean = np.where(missing, 0, train).sum(axis=0, dtype=np.float64) / counts
    std = np.sqrt(np.where(missing, 0, np.square(train - mean)).sum(axis=0) / counts)
    kept = std > 1e-6 * (np.abs(mean) + 1e-6)  # constant columns state nothing
    marked = np.unique(missing[:, missing.any(axis=0)], axis=1, return_index=True)[1]
    marked = np.flatnonzero(missing.any(axis=0))[marked]

    def scaled(values: Values, empty: Array) -> Values:
        found = (values[:, kept] - mean[kept]) / std[kept]
        found[empty[:, kept]] = 0
        # A value far outside of those of train would decide alone.
        return np.concatenate([found.clip(-10, 10), empty[:, marked]], axis=1).astype(np.float32)

    return scaled(train, missing), scaled(test, lacking)


def _dense(view: View) -> tuple[Values, Values]:
    """Return a view for trees: a few components of sparse features."""
    if view.kind != "words":
        return view.train, view.test
    from sklearn.decomposition import TruncatedSVD

    reduce = TruncatedSVD(min(_COMPONENTS, view.train.shape[1] - 1), random_state=0)
    train = reduce.fit_transform(view.train)
    return train.astype(np.float32), reduce.transform(view.test).astype(np.float32)
