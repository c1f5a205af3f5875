"""Every task by its configuration, and which one fits what the data hold."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, cast

from pydantic import Field

from perceivers.tasks.autoencode import AutoencodeConfig, AutoencodeTask
from perceivers.tasks.base import Task
from perceivers.tasks.classification import ClassificationConfig, ClassificationTask
from perceivers.tasks.dense import (
    DenseConfig,
    ImageToImageConfig,
    ImageToImageTask,
    SegmentationConfig,
    SegmentationTask,
)
from perceivers.tasks.flow import FlowConfig, FlowTask
from perceivers.tasks.masked import MaskedBytesConfig, MaskedBytesTask
from perceivers.tasks.multilabel import MultiLabelConfig, MultiLabelTask
from perceivers.tasks.multitask import MultiTask, MultiTaskConfig, PartConfig
from perceivers.tasks.regression import RegressionConfig, RegressionTask

__all__ = [
    "TARGET_KINDS",
    "TaskConfig",
    "answers_of",
    "build_task",
    "fit_part",
    "fit_task",
    "known_names",
    "names_of",
    "part_for",
    "target_of",
]

TaskConfig = Annotated[
    ClassificationConfig
    | MultiLabelConfig
    | RegressionConfig
    | MaskedBytesConfig
    | FlowConfig
    | MultiTaskConfig
    | SegmentationConfig
    | ImageToImageConfig
    | AutoencodeConfig,
    Field(discriminator="kind"),
]

TARGET_KINDS = {
    "classification": "class",
    "multilabel": "labels",
    "regression": "number",
    "masked_bytes": "nothing",
    "flow": "nothing",
    "multitask": "auto",
    "segmentation": "nothing",
    "image_to_image": "nothing",
    "autoencode": "nothing",
}
"""What the target of a task is in the data, by the kind of the task.

`auto`: each of several has its own. `nothing`: no column of labels. The inputs are all it learns from, or what
`answers_of` says, which is read as they are.
"""


def target_of(config: TaskConfig) -> str:
    """Return what the target of a task is in the data. An autoencoder may reconstruct the class, too."""
    if isinstance(config, AutoencodeConfig) and config.label_weight is not None:
        return "class"
    return TARGET_KINDS[config.kind]


# What needs nothing but its configuration.
_TASKS: dict[str, Any] = {
    "multilabel": MultiLabelTask,
    "regression": RegressionTask,
    "masked_bytes": MaskedBytesTask,
    "flow": FlowTask,
    "segmentation": SegmentationTask,
    "image_to_image": ImageToImageTask,
    "autoencode": AutoencodeTask,
}

Moments = tuple[tuple[float, ...], tuple[float, ...]]


def build_task(
    config: TaskConfig, class_counts: Sequence[int] | Mapping[str, Sequence[int]] | None = None
) -> Task:
    """Return the task of a configuration.

    Args:
        config: Of any task.
        class_counts: Samples of each class in train, for classification with balanced weights; of several tasks, of
            those that need them.

    Raises:
        ValueError: If counts or weights do not fit the number of classes.
    """
    if isinstance(config, MultiTaskConfig):
        counts = class_counts if isinstance(class_counts, Mapping) else {}
        parts = {name: build_task(part, counts.get(name)) for name, part in config.parts.items()}
        return MultiTask(config, parts)
    if isinstance(config, ClassificationConfig):
        return ClassificationTask(config, cast("Sequence[int] | None", class_counts))
    return _TASKS[config.kind](config)


def answers_of(config: TaskConfig | None) -> tuple[str, ...]:
    """Return the modalities that are read only to be learned from and measured against: never an input of the model.

    A task has one if its configuration has a field `answer`, which names it: a field of flow, a map of classes, a
    second picture. Its `preprocess` stands in the recipe beside that of the inputs.

    Args:
        config: Of a task. None: of a model that was saved without one.
    """
    answer: str | None = getattr(config, "answer", None)
    return () if answer is None else (answer,)


def names_of(config: TaskConfig) -> tuple[str, ...]:
    """Return the name of each output: classes, labels, numbers, several tasks; none of bytes, pixels and flow."""
    if isinstance(config, MaskedBytesConfig | FlowConfig | ImageToImageConfig):
        return ()
    if isinstance(config, MultiTaskConfig):
        return tuple(config.parts)
    return config.target_names if isinstance(config, RegressionConfig) else config.label_names


def known_names(config: TaskConfig) -> tuple[str, ...] | dict[str, tuple[str, ...]]:
    """Return what a trained model knows: the name of each output; of several tasks, those of each."""
    if isinstance(config, MultiTaskConfig):
        return {name: names_of(part) for name, part in config.parts.items()}
    return names_of(config)


def fit_task(
    config: TaskConfig, target_kind: str, names: Sequence[str], moments: Moments | None = None
) -> TaskConfig:
    """Return the configuration with what the data say filled in.

    A configuration of another task than the target needs is replaced by that task's own; label smoothing stays.

    Args:
        config: Of a recipe, which does not know the data.
        target_kind: What the target is: `class`, `labels` or `number`.
        names: Name of each class, label or number.
        moments: Mean and standard deviation of each number, of a target of numbers.

    Raises:
        ValueError: If numbers are to be learned and their moments are not known.
    """
    if isinstance(config, MaskedBytesConfig | FlowConfig | MultiTaskConfig | DenseConfig):
        return config
    if isinstance(config, AutoencodeConfig):
        return config if config.label_weight is None else replace(config, label_names=tuple(names))
    return fit_part(part_for(config, target_kind), names, moments)


def part_for(config: TaskConfig, target_kind: str) -> PartConfig:
    """Return the configuration if it learns such a target, else that of a task that does; label smoothing stays.

    Args:
        config: Of a recipe, which does not know the data.
        target_kind: What the target is: `class`, `labels` or `number`.
    """
    smoothing = getattr(config, "label_smoothing", 0.0)
    if target_kind == "number":
        return config if isinstance(config, RegressionConfig) else RegressionConfig()
    if target_kind == "labels":
        if isinstance(config, MultiLabelConfig):
            return config
        return MultiLabelConfig(label_smoothing=smoothing)
    if isinstance(config, ClassificationConfig):
        return config
    return ClassificationConfig(label_smoothing=smoothing)


def fit_part(
    chosen: PartConfig, names: Sequence[str], moments: Moments | None = None
) -> PartConfig:
    """Return the configuration of a task of one target with what the data say filled in.

    Args:
        chosen: Of a task that learns such a target.
        names: Name of each class, label or number.
        moments: Mean and standard deviation of each number, of a target of numbers.

    Raises:
        ValueError: If numbers are to be learned and their moments are not known.
    """
    if isinstance(chosen, RegressionConfig):
        if chosen.mean and chosen.std:
            return replace(chosen, target_names=tuple(names))
        if moments is None:
            msg = (
                "The mean and deviation of the numbers to predict are not known before training, as the data are "
                "streamed. Give them in the recipe (task.mean and task.std), or leave --stream out."
            )
            raise ValueError(msg)
        return replace(chosen, target_names=tuple(names), mean=moments[0], std=moments[1])
    return replace(chosen, label_names=tuple(names))
