"""Linear probe: a linear model on the vectors of a frozen model, as a measure of what these hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perceivers.baselines.problems import PROBLEMS
from perceivers.baselines.views import Array
from perceivers.console import tracked
from perceivers.data.base import Batch
from perceivers.data.loading.loader import make_loader
from perceivers.data.loading.sampler import LoaderSettings
from perceivers.hub.convert import load_any
from perceivers.hub.device import pick_device
from perceivers.recipes.resolve import ResolvedRun, resolve
from perceivers.tasks.base import Task
from perceivers.tasks.intervals import Interval
from perceivers.tasks.registry import build_task
from perceivers.typing import Tensor

_STRENGTHS = ("0.01", "0.1", "1", "10", "100")


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """Metrics of a linear model on vectors.

    Attributes:
        main_metric: Name of the metric by which the regularization is chosen.
        metrics: Metrics of each split, `validation` and, if there is one, `test`.
        intervals: Their 95 % confidence intervals.
        model: Name of the linear model, with its regularization.
        width: Numbers of a vector.
        rows: Rows of each split.
        bad: Name and reason of each row that could not be read.
    """

    main_metric: str
    metrics: Mapping[str, Mapping[str, float]]
    intervals: Mapping[str, Mapping[str, Interval]]
    model: str
    width: int
    rows: Mapping[str, int]
    bad: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])


def probe(
    source: str | Path,
    data: Any,
    *,
    device: str = "auto",
    batch_size: int = 64,
    **overrides: Any,
) -> ProbeResult:
    """Fit logistic or ridge regression to the vectors of a frozen model (`Perceiver.embed`), and measure it.

    Vectors are standardized. The strength of the regularization is chosen by the validation split.

    Args:
        source: A run folder, a folder of `save_pretrained` of Hugging Face's Perceivers, or a hub id of either.
        data: Data with labels, of modalities that the model reads.
        device: Device of the model.
        batch_size: Samples in one forward pass.
        overrides: Fields of the data: `label="species"`, `group="subject"`.

    Raises:
        ValueError: If the model does not read the data, or there is nothing that a linear model can learn.
        OSError: If the model or the data cannot be read.
    """
    saved = load_any(source)
    run = resolve(data, pretrained=saved, overrides={**overrides, "max_steps": 1, "folds": 1})
    config = run.recipe.task
    if run.data.target_kind == "several" or config.default_for not in PROBLEMS or run.data.streams:
        raise ValueError(
            "A linear probe learns one class, labels or numbers of rows that are read by index, got "
            f"{'a stream' if run.data.streams else config.kind}. Name one label column: --label COLUMN."
        )
    task = build_task(config, run.data.class_counts("train") if config.needs_class_counts else None)
    model = saved.model.to(pick_device(device)).eval()
    splits = [name for name in ("train", "validation", "test") if name in run.data.splits]
    read = {name: _vectors(run, model, name, batch_size) for name in splits}
    return _fitted(task, read)


def _vectors(
    run: ResolvedRun, model: Any, split: str, batch_size: int
) -> tuple[Array, Tensor, list[tuple[str, str]]]:
    """Return vectors and targets of a split, and its bad rows."""
    settings = LoaderSettings(
        batch_size=batch_size,
        num_classes=run.recipe.output.num_outputs,
        max_bad=run.recipe.data.max_bad,
        num_rows=sum(len(rows) for rows in run.data.splits.values()),
    )
    loader = make_loader(
        run.data.splits[split],
        run.data.inputs,
        run.data.targets(split),
        preprocess=run.preprocess,
        augment=None,
        settings=settings,
    )
    vectors: list[Tensor] = []
    targets: list[Tensor] = []
    for batch in tracked(loader, len(loader)):
        vectors.append(_embedded(model, batch))
        assert isinstance(batch.targets, Tensor)
        targets.append(batch.targets)
    loader.close()
    if not vectors:
        raise ValueError(f"Expected rows of {split} that can be read, got none.")
    return torch.cat(vectors).numpy(), torch.cat(targets), list(loader.bad)


@torch.inference_mode()
def _embedded(model: Any, batch: Batch) -> Tensor:
    moved = batch.to(next(model.parameters()).device)
    parts = [member.embed(moved.inputs, moved.masks) for member in model.members]
    return torch.cat(parts, dim=1).float().cpu()


def _fitted(
    task: Task, read: Mapping[str, tuple[Array, Tensor, list[tuple[str, str]]]]
) -> ProbeResult:
    """Return the metrics of the linear model that is best on the validation split."""
    problem = PROBLEMS[task.config.default_for](task)
    train, targets, _ = read["train"]
    mean, spread = train.mean(axis=0), train.std(axis=0)
    scaled = {
        name: (vectors - mean) / np.where(spread > 1e-6 * (np.abs(mean) + 1e-6), spread, 1.0)
        for name, (vectors, _, _) in read.items()
    }
    learned, sign = problem.targets(targets), 1 if task.higher_is_better else -1
    held = {name: found[1] for name, found in read.items() if name != "train"}

    def outputs(strength: str, split: str) -> Array:
        return problem.fit_predict(f"linear:{strength}", scaled["train"], learned, scaled[split])

    def score(strength: str) -> float:
        return sign * problem.score(outputs(strength, "validation"), held["validation"])

    best = max(_STRENGTHS, key=score)
    metrics: dict[str, Mapping[str, float]] = {}
    intervals: dict[str, Mapping[str, Interval]] = {}
    for name, known in held.items():
        meter = task.meter()
        meter.update(torch.from_numpy(outputs(best, name).astype(np.float32)), known)
        metrics[name], intervals[name] = meter.compute(), meter.intervals()
    return ProbeResult(
        main_metric=task.main_metric,
        metrics=metrics,
        intervals=intervals,
        model=f"{problem.describe('linear')} (strength {best})",
        width=train.shape[1],
        rows={name: len(found[1]) for name, found in read.items()},
        bad=[one for found in read.values() for one in found[2]],
    )
