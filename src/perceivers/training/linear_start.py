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
from perceivers.baselines.problems import PROBLEMS
from perceivers.baselines.reading import RowReader
from perceivers.data.base import Batch
from perceivers.data.loading.loader import MapDataset
from perceivers.models.perceiver import Perceiver
from perceivers.outputs.heads import MeanPool
from perceivers.recipes.resolve import ResolvedRun
from perceivers.tasks.base import Task
from perceivers.tasks.multitask import is_known
from perceivers.typing import Bool, Float, Int, Tensor
from perceivers.wording import counted

_ROWS = 50_000  # from which a linear model learns, at most
_COST = 1e7  # weights of units in all texts, times outputs, at most: half a minute of a core
_SMALLEST_SHARE = 0.25  # of the training rows; a linear model of fewer is left out
_WEIGHTS = 1e8  # of a linear model, at most
_FEW = 500  # rows up to which units of a single row are kept
_STRENGTH = 10.0  # inverse of the regularization


@runtime_checkable
class LinearContent(Protocol):
    """An input adapter whose mean content is linear in learned vectors of units, such as the words of a text."""

    def unit_weights(
        self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"] | None
    ) -> Float[Tensor, "B R"]:
        """Return the weight of each unit's vector in the mean of a sample's elements, a sparse tensor."""
        ...

    def write_vectors(
        self, weights: Float[Tensor, "R K"]
    ) -> tuple[Float[Tensor, "K C"], Float[Tensor, " K"]]:
        """Write vectors that hold the weights of a linear model of units.

        Returns:
            The projection of the mean content that gives the linear model's outputs, and a constant to subtract.
        """
        ...


@dataclass(frozen=True)
class _LinearModel:
    """Weights of all units, R x K, and biases of a linear model, and the number of rows it has learned from."""

    weights: npt.NDArray[np.float32]
    biases: npt.NDArray[np.float32]
    rows: int


def start_linear(
    run: ResolvedRun, model: Perceiver, task: Task, datasets: Mapping[str, MapDataset] | None = None
) -> str:
    """Start the pooled elements of a head from logistic or ridge regression; return a sentence, "" if it cannot.

    Units are weighted by their rarity (inverse document frequency). The first outputs of the model are those of the
    linear model, since the latents' weights in the head begin at zero.

    Args:
        run: Recipe, preprocessing and data.
        model: The new model on the CPU. It stays unchanged if it has several inputs, other pools than the mean, or an
            adapter without `unit_weights`; if the task is none of one class, labels or numbers; if the data are a
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
        f"The path from the elements to the outputs starts from a {kind} regression on the units of "
        f"{counted(found.rows, 'row')} ({time.monotonic() - started:.0f} s)."
    )


def _fit(reader: RowReader, name: str, adapter: LinearContent, task: Task) -> _LinearModel | None:
    """Return a linear model of the units of training rows, or None if they are too costly."""
    from scipy.sparse import vstack

    outputs = max(task.num_outputs - 1, 1)
    rows, cost = 0, 0.0
    parts: list[Any] = []
    targets: list[Tensor] = []
    for batch, _ in reader.batches(["train"]):
        found = cast("Tensor", batch.targets)
        known = is_known(found)
        part = _sparse(adapter, batch, name)[known.numpy()]
        parts.append(part)
        targets.append(found[known])
        rows, cost = rows + part.shape[0], cost + part.nnz * outputs
        if rows >= _ROWS or cost >= _COST:
            break
    if not rows:
        return None
    size = parts[0].shape[1]
    wanted = min(_SMALLEST_SHARE * (reader.num_rows(["train"]) or 0), _ROWS)
    if rows < wanted or size * task.num_outputs > _WEIGHTS:
        return None
    problem = PROBLEMS[task.config.default_for](task)
    learned = problem.targets(torch.cat(targets))
    units: Any = vstack(parts, "csr")
    # A unit of a single text is noise; of few texts, most are of a single one.
    texts = np.bincount(units.indices, minlength=units.shape[1])
    columns = np.flatnonzero(texts >= (2 if rows > _FEW else 1))
    if not len(columns) or len(np.unique(learned, axis=0)) < 2:
        return None
    units = units[:, columns]
    rarity = np.log((1 + rows) / (1 + texts[columns])) + 1
    weighted = units.multiply(rarity).tocsr()
    norm = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1))).mean()
    scaled, biases = problem.linear(weighted / norm, learned, _STRENGTH)
    weights = np.zeros((size, task.num_outputs), np.float32)
    weights[columns] = scaled * (rarity / norm)[:, None]
    return _LinearModel(weights, biases.astype(np.float32), rows)


def _sparse(adapter: LinearContent, batch: Batch, name: str) -> Any:
    """Return the weights of the units of a batch as a SciPy matrix."""
    from scipy.sparse import csr_matrix

    found = adapter.unit_weights(batch.inputs[name], batch.masks.get(name)).coalesce()
    return csr_matrix((found.values().numpy(), found.indices().numpy()), shape=tuple(found.shape))
