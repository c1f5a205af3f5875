"""Start of a head's pooled elements from a linear model of the training rows, which scikit-learn finds in seconds."""

import importlib.util
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from perceivers.baselines.fit import one_core
from perceivers.baselines.problems import PROBLEMS, Problem
from perceivers.baselines.reading import RowReader
from perceivers.baselines.views import Array
from perceivers.data.base import Batch
from perceivers.data.loading.loader import MapDataset
from perceivers.models.perceiver import Perceiver
from perceivers.outputs.heads import MeanPool
from perceivers.recipes.resolve import ResolvedRun
from perceivers.tasks.base import Task
from perceivers.tasks.multitask import is_known
from perceivers.typing import Bool, Float, Tensor
from perceivers.wording import counted

_ROWS = 50_000  # from which a linear model learns, at most
_COST = 1e7  # weights of units in all texts, times outputs, at most: half a minute of a core
_SMALLEST_SHARE = 0.25  # of the training rows; a linear model of fewer is left out
_WEIGHTS = 1e8  # of a linear model, at most
_FEW = 500  # rows up to which units of a single row are kept
_STRENGTH = 10.0  # inverse of the regularization of weights of units
# Among these that of weights of other features is chosen, on folds of some rows.
_STRENGTHS = (0.01, 0.1, 1.0, 10.0)
_FOLDS, _TRIED_ROWS = 5, 2_000


@runtime_checkable
class LinearContent(Protocol):
    """An input adapter whose mean content is linear in learned vectors: of words of a text, or fields of a row."""

    def linear_features(self, x: Tensor, mask: Bool[Tensor, "B L"] | None) -> Float[Tensor, "B R"]:
        """Return the weight of each vector in the mean of a sample's elements.

        A sparse tensor states units, of which a sample has few of many. Other features are dense.
        """
        ...

    def write_vectors(
        self, weights: Float[Tensor, "R K"]
    ) -> tuple[Float[Tensor, "K C"], Float[Tensor, " K"]]:
        """Write vectors that hold the weights of a linear model of the features.

        Returns:
            The projection of the mean content that gives the linear model's outputs, and a constant to subtract.
        """
        ...


@dataclass(frozen=True)
class _LinearModel:
    """Weights of all features, R x K, and biases of a linear model, and the number of rows it has learned from."""

    weights: npt.NDArray[np.float32]
    biases: npt.NDArray[np.float32]
    rows: int
    features: str


def start_linear(
    run: ResolvedRun, model: Perceiver, task: Task, datasets: Mapping[str, MapDataset] | None = None
) -> str:
    """Start the pooled elements of a head from logistic or ridge regression; return a sentence, "" if it cannot.

    Units are weighted by their rarity (inverse document frequency). For other features the regularization is chosen on
    folds. The first outputs of the model are those of the
    linear model, since the latents' weights in the head begin at zero.

    Args:
        run: Recipe, preprocessing and data.
        model: The new model on the CPU. It stays unchanged if it has several inputs, other pools than the mean, or an
            adapter without `linear_features`; if the task is none of one class, labels or numbers; if the data are a
            stream; and if more than `_COST` would be needed for a quarter of the rows.
        task: The task.
        datasets: Data sets of the splits, whose caches of decoded values are used.
    """
    name, adapter = next(iter(model.inputs.items()))
    head = model.output
    if len(model.inputs) > 1 or not isinstance(adapter, LinearContent):
        return ""
    if not isinstance(head, MeanPool) or not head.is_linear(name):
        return ""
    if importlib.util.find_spec("sklearn") is None or run.data.target is None:
        return ""
    if task.parts or task.config.default_for not in PROBLEMS or run.data.streams:
        return ""
    started = time.monotonic()
    with one_core():
        found = _fit(RowReader(run, datasets or {}), name, adapter, task)
    if found is None:
        return ""
    with torch.no_grad():
        projection, constant = adapter.write_vectors(torch.from_numpy(found.weights))
        head.write_linear(name, projection, torch.from_numpy(found.biases) - constant)
    kind = "ridge" if task.config.default_for == "number" else "logistic"
    return (
        f"The path from the elements to the outputs starts from a {kind} regression on {found.features} of "
        f"{counted(found.rows, 'row')} ({time.monotonic() - started:.0f} s)."
    )


def _fit(reader: RowReader, name: str, adapter: LinearContent, task: Task) -> _LinearModel | None:
    """Return a linear model of the features of training rows, or None if they are too costly."""
    outputs = max(task.num_outputs - 1, 1)
    rows, cost = 0, 0.0
    parts: list[Any] = []
    found: list[Tensor] = []
    for batch, _ in reader.batches(["train"]):
        targets = cast("Tensor", batch.targets)
        known = is_known(targets)
        part = _features(adapter, batch, name)[known.numpy()]
        parts.append(part)
        found.append(targets[known])
        count = part.size if isinstance(part, np.ndarray) else part.nnz
        rows, cost = rows + part.shape[0], cost + count * outputs
        if rows >= _ROWS or cost >= _COST:
            break
    if not rows:
        return None
    wanted = min(_SMALLEST_SHARE * (reader.num_rows(["train"]) or 0), _ROWS)
    if rows < wanted or parts[0].shape[1] * task.num_outputs > _WEIGHTS:
        return None
    problem = PROBLEMS[task.config.default_for](task)
    targets = torch.cat(found)
    if len(np.unique(problem.targets(targets), axis=0)) < 2:
        return None
    if isinstance(parts[0], np.ndarray):
        return _of_fields(problem, np.concatenate(parts), targets)
    return _of_units(problem, parts, problem.targets(targets))


def _of_units(problem: Problem, parts: list[Any], targets: Array) -> _LinearModel | None:
    """Return a linear model of units, weighted by their rarity, or None without a unit of several rows."""
    from scipy.sparse import vstack

    units: Any = vstack(parts, "csr")
    rows, size = units.shape
    # A unit of a single text is noise; of few texts, most are of a single one.
    texts = np.bincount(units.indices, minlength=size)
    columns = np.flatnonzero(texts >= (2 if rows > _FEW else 1))
    if not len(columns):
        return None
    units = units[:, columns]
    rarity = np.log((1 + rows) / (1 + texts[columns])) + 1
    weighted = units.multiply(rarity).tocsr()
    norm = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1))).mean()
    scaled, biases = problem.linear(weighted / norm, targets, _STRENGTH)
    weights = np.zeros((size, problem.num_outputs), np.float32)
    weights[columns] = scaled * (rarity / norm)[:, None]
    return _LinearModel(weights, biases.astype(np.float32), rows, "the units")


def _of_fields(problem: Problem, features: Array, targets: Tensor) -> _LinearModel:
    """Return a linear model of dense features, whose regularization is chosen on folds."""
    scale = 1 / max(float(np.abs(features).max(axis=1).mean()), 1e-9)
    features = features * scale
    learned = problem.targets(targets)
    strength = _best_strength(problem, features[:_TRIED_ROWS], targets[:_TRIED_ROWS])
    weights, biases = problem.linear(features, learned, strength)
    weights = (weights * scale).astype(np.float32)
    return _LinearModel(weights, biases.astype(np.float32), len(features), "the fields")


def _best_strength(problem: Problem, features: Array, targets: Tensor) -> float:
    """Return the inverse of the regularization with the least error on held-out rows."""
    fold = np.arange(len(features)) % _FOLDS  # rows are in random order
    errors: dict[float, float] = {}
    for strength in _STRENGTHS:
        total = 0.0
        for held in range(_FOLDS):
            train = fold != held
            known = problem.targets(targets[torch.from_numpy(train)])
            if train.all() or len(np.unique(known, axis=0)) < 2:
                continue
            found = problem.fit_predict(
                f"linear:{strength}", features[train], known, features[~train]
            )
            total += problem.loss(found, targets[torch.from_numpy(~train)]) * (~train).sum()
        errors[strength] = total
    return min(errors, key=lambda one: errors[one])


def _features(adapter: LinearContent, batch: Batch, name: str) -> Any:
    """Return the features of a batch: a SciPy matrix of units, or an array."""
    from scipy.sparse import csr_matrix

    found = adapter.linear_features(batch.inputs[name], batch.masks.get(name))
    if not found.is_sparse:
        return found.numpy()
    found = found.coalesce()
    return csr_matrix((found.values().numpy(), found.indices().numpy()), shape=tuple(found.shape))
