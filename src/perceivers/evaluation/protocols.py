"""How good a trained model is on a whole split, by the protocol of its task."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from perceivers.data.base import DataConfig
from perceivers.data.loader import LoaderSettings, make_loader
from perceivers.data.sources import DataSource, open_data
from perceivers.data.split import with_validation
from perceivers.evaluation.device import pick_device
from perceivers.hub.checkpoint import Saved, load
from perceivers.tasks.classification import ClassificationTask

__all__ = ["Evaluation", "evaluate_run", "evaluate_source"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was measured, and on what.

    Attributes:
        split: Name of the split: `test`, `validation` or `train`.
        num_samples: How many samples were measured.
        metrics: Value of each measure by its name; shares in [0, 1].
        main_metric: Name of the measure by which runs are compared.
        label_names: Index -> label.
        confusion: Samples by true label (rows) and predicted label (columns).
        bad: Name and reason of every sample that could not be read. They are not measured.
        notes: What was seen in the data and chosen.
    """

    split: str
    num_samples: int
    metrics: dict[str, float]
    main_metric: str
    label_names: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    bad: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = field(default=())

    def recall(self) -> dict[str, float | None]:
        """Return, for each label, the share of its samples that were recognized; None without samples."""
        return {
            name: row[index] / sum(row) if sum(row) else None
            for index, (name, row) in enumerate(zip(self.label_names, self.confusion, strict=True))
        }


def evaluate_run(  # noqa: PLR0913  (each is a flag of the command)
    run: str | Path,
    data: Any = None,
    *,
    split: str | None = None,
    permute: int | None = None,
    device: str = "auto",
    batch_size: int = 128,
) -> Evaluation:
    """Measure a trained run on its own data's test split, or on other data.

    Args:
        run: A run folder, or a model on the Hugging Face hub.
        data: A path, a hub id, a Hugging Face dataset or a DataFrame. By default, what the run learned from.
        split: Which split. By default `test`, or else `validation`; of other data without these, all of it.
        permute: Seed of one fixed permutation of the elements of every input. By default, the run's own.
        device: `auto`, `cpu`, `cuda` or `mps`.
        batch_size: Samples that go through the model at once.

    Raises:
        ValueError: If the run does not know its data and none is given, if the split does not exist, or if
            the data hold a label that was not seen in training.
    """
    saved = load(run)
    source = open_for_run(saved, data)
    chosen = choose_split(source, split, own=data is None)
    if permute is not None:
        saved.model.set_permutation(permute)
    return evaluate_source(saved, source, chosen, device=device, batch_size=batch_size)


def open_for_run(saved: Saved, data: Any = None) -> DataSource:
    """Return the data of a run, or other data read as the run's were.

    Raises:
        ValueError: If the run does not know where its data are.
    """
    columns = dict(saved.config.columns)
    remembered = columns.get("config") or {}
    config = DataConfig(**remembered)
    where = columns.get("data") if data is None else data
    if where is None:
        msg = (
            f"The run '{saved.folder}' does not know which data it learned from (they were given as an "
            "object, not as a path). Give the data to evaluate on: perceivers evaluate RUN DATA."
        )
        raise ValueError(msg)
    source = open_source(where, config, label_names=saved.task.label_names)
    if data is None:  # the same hold-out as in training: fixed by the seed that the run remembers
        source = with_validation(source, config)
    return source


def choose_split(source: DataSource, split: str | None, *, own: bool) -> str:
    """Return the name of the split to measure.

    Args:
        source: The data.
        split: What was asked for, if anything.
        own: Whether the run learned from these data. Its training split is then never chosen unasked.

    Raises:
        ValueError: If there is no such split.
    """
    order = [split] if split else ["test", "validation", *([] if own else ["train"])]
    for name in order:
        if name in source.splits:
            return name
    msg = (
        f"Expected the split {' or '.join(map(repr, order))} in the data; "
        f"there are: {', '.join(source.splits)}."
    )
    raise ValueError(msg)


@torch.inference_mode()
def evaluate_source(
    saved: Saved, source: DataSource, split: str, *, device: str = "auto", batch_size: int = 128
) -> Evaluation:
    """Measure a loaded model on one split of opened data.

    Raises:
        ValueError: If the split has no labels, or too many of its rows cannot be read.
    """
    if source.target is None:
        msg = f"These data have no labels to measure against ({source.form}). Use predict instead."
        raise ValueError(msg)
    model = saved.model.to(pick_device(device)).eval()
    task = ClassificationTask(saved.task)
    loader = make_loader(
        source.splits[split],
        source.inputs,
        source.targets(split),
        preprocess=saved.preprocess,
        augment=None,
        settings=LoaderSettings(
            batch_size=batch_size, training=False, num_classes=len(saved.task.label_names)
        ),
    )
    meter = task.meter()
    for batch in loader:
        moved = batch.to(pick_device(device))
        outputs = model(moved.inputs, moved.masks or None)
        meter.update(outputs.float(), moved.targets)
    confusion = tuple(tuple(int(n) for n in row) for row in meter.confusion.tolist())
    return Evaluation(
        split=split,
        num_samples=sum(map(sum, confusion)),
        metrics={name: float(value) for name, value in meter.compute().items()},
        main_metric=task.main_metric,
        label_names=tuple(saved.task.label_names),
        confusion=confusion,
        bad=tuple(loader.bad),
        notes=source.notes,
    )


def as_dict(evaluation: Evaluation) -> dict[str, Any]:
    """Return the evaluation as plain data for JSON."""
    result: Mapping[str, Any] = {
        "split": evaluation.split,
        "num_samples": evaluation.num_samples,
        "metrics": evaluation.metrics,
        "recall": evaluation.recall(),
        "label_names": list(evaluation.label_names),
        "confusion": [list(row) for row in evaluation.confusion],
        "unreadable": [{"name": name, "reason": reason} for name, reason in evaluation.bad],
    }
    return dict(result)
