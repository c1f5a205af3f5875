"""What a model says about one sample, for every task."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from perceivers.tasks.base import Task
from perceivers.tasks.multilabel import MultiLabelConfig
from perceivers.tasks.regression import RegressionConfig
from perceivers.tasks.tasks import TaskConfig
from perceivers.typing import Float, Tensor

__all__ = ["Prediction", "Reconstruction", "predictions_of"]


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """One modality of a sample and what an autoencoder gives back of it, in the units of the data, channels last.

    Attributes:
        kind: How it was prepared: `image`, `video`, `wave`, ...
        original: As the model has read it: bytes of pictures and films, samples in [-1, 1], other values.
        restored: Likewise, from the latents.
        rate: Frames or samples a second, where it has any.
    """

    kind: str
    original: npt.NDArray[Any]
    restored: npt.NDArray[Any]
    rate: float | None = None


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the model says about one sample.

    Attributes:
        name: The file, or the sample's place in what was given.
        label: The most probable label. "" where numbers are predicted.
        probability: Its probability, in [0, 1]. 0 where numbers are predicted.
        top: The most probable labels and their probabilities, best first.
        probabilities: The probability of every label. Those of several labels do not sum to one.
        labels: Where a sample has several labels: those that are predicted, best first; there may be none. None where
            it has one.
        values: Where numbers are predicted: each by its name, in its own units. Where inputs are given back, how near
            each is: `video_psnr` in dB.
        text: Where blanks of a text are filled: all of it. `probability` is then the mean of its blanks.
        blanks: The most probable bytes of each blank and their probabilities, best first.
        reconstructions: Where inputs are given back: each modality's.
    """

    name: str
    label: str = ""
    probability: float = 0.0
    top: tuple[tuple[str, float], ...] = ()
    probabilities: dict[str, float] = field(default_factory=dict[str, float])
    labels: tuple[str, ...] | None = None
    values: dict[str, float] = field(default_factory=dict[str, float])
    text: str = ""
    blanks: tuple[tuple[tuple[str, float], ...], ...] = ()
    reconstructions: dict[str, Reconstruction] = field(
        default_factory=dict[str, Reconstruction], repr=False, compare=False
    )


def predictions_of(
    task_config: TaskConfig,
    task: Task,
    names: Sequence[str],
    outputs: Float[Tensor, "B K"],
    top: int = 5,
) -> Iterator[Prediction]:
    """Yield what outputs of a model say.

    Args:
        task_config: Of the task, for its names and threshold.
        task: Which the model has learned.
        names: Of the samples.
        outputs: Of the model, one row for each sample: clips are combined already.
        top: How many of the best labels each prediction lists, at least one.
    """
    readable = task.probabilities(outputs).float().cpu()
    rows: list[list[float]] = readable.tolist()
    if isinstance(task_config, RegressionConfig):
        for name, row in zip(names, rows, strict=True):
            yield Prediction(name=name, values=dict(zip(task.names, row, strict=True)))
        return
    labels = task.names
    least = task_config.threshold if isinstance(task_config, MultiLabelConfig) else None
    orders: list[list[int]] = readable.argsort(dim=-1, descending=True, stable=True).tolist()
    for name, row, order in zip(names, rows, orders, strict=True):
        several = None
        if least is not None:
            several = tuple(labels[index] for index in order if row[index] >= least)
        yield Prediction(
            name=name,
            label=labels[order[0]],
            probability=row[order[0]],
            top=tuple((labels[index], row[index]) for index in order[: max(top, 1)]),
            probabilities=dict(zip(labels, row, strict=True)),
            labels=several,
        )
