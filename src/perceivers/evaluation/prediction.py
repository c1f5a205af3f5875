"""What a model says about one sample, for every task."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from perceivers.tasks.base import Task
from perceivers.tasks.multilabel import MultiLabelConfig
from perceivers.tasks.multitask import MultiTask, MultiTaskConfig
from perceivers.tasks.registry import TaskConfig
from perceivers.tasks.regression import RegressionConfig
from perceivers.typing import Float, Tensor

__all__ = ["Prediction", "Reconstruction", "columns_of", "predictions_of"]


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
        flow: Where every pixel of a first frame goes: Y x X x 2, to the right and down, in pixels. `values` then says
            how far.
        picture: Where every pixel is answered: a picture of Pillow's, of values, or of classes with a palette. `values`
            then says of what it consists.
        tasks: Of several tasks, what is said for each, by its name. The fields above are then those of the first.
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
    flow: npt.NDArray[np.float32] | None = None
    picture: Any = None
    tasks: dict[str, "Prediction"] = field(default_factory=dict[str, "Prediction"])
    reconstructions: dict[str, Reconstruction] = field(
        default_factory=dict[str, Reconstruction], repr=False, compare=False
    )


def predictions_of(
    task_config: TaskConfig,
    task: Task,
    names: Sequence[str],
    outputs: Any,
    top: int = 5,
) -> Iterator[Prediction]:
    """Yield what outputs of a model say.

    Args:
        task_config: Of the task, for its names and threshold.
        task: Which the model has learned.
        names: Of the samples.
        outputs: Of the model, one row for each sample, B x K; of several tasks, by name. Clips are combined already.
        top: How many of the best labels each prediction lists, at least one.
    """
    if isinstance(task_config, MultiTaskConfig):
        assert isinstance(task, MultiTask)
        yield from _several(task_config, task, names, outputs, top)
        return
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


def columns_of(prediction: Prediction) -> dict[str, Any]:
    """Return what a table says of a prediction, by column: those of several tasks behind their names, `digit/label`.

    Of classes `label`, `probability` and `p(...)` of each; of several labels also `labels`; of numbers only these, by
    their names; of reconstructions their PSNR, and the class where there is one; of filled blanks `text` and
    `probability`.
    """
    if prediction.tasks:
        found: dict[str, Any] = {}
        for task, one in prediction.tasks.items():
            # A number is called like its column, which is its task.
            own = columns_of(one)
            found |= own if one.values else {f"{task}/{name}": cell for name, cell in own.items()}
        return found
    if prediction.values:
        label = {"label": prediction.label, "probability": prediction.probability}
        return {**prediction.values, **(label if prediction.label else {})}
    if prediction.blanks:
        return {"text": prediction.text, "probability": prediction.probability}
    several = {} if prediction.labels is None else {"labels": list(prediction.labels)}
    return {
        "label": prediction.label,
        "probability": prediction.probability,
        **several,
        **{f"p({name})": value for name, value in prediction.probabilities.items()},
    }


def _several(
    config: MultiTaskConfig,
    task: MultiTask,
    names: Sequence[str],
    outputs: Mapping[str, Float[Tensor, "B _"]],
    top: int,
) -> Iterator[Prediction]:
    """Yield what each task says of each sample."""
    told = {
        part: predictions_of(config.parts[part], task.parts[part], names, outputs[part], top)
        for part in task.parts
    }
    for together in zip(*told.values(), strict=True):
        yield replace(together[0], tasks=dict(zip(told, together, strict=True)))
