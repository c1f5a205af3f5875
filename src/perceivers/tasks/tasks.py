"""Every task by its configuration, and which one fits what the data hold."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from perceivers.tasks.autoencode import AutoencodeConfig, AutoencodeTask
from perceivers.tasks.base import Task
from perceivers.tasks.classification import ClassificationConfig, ClassificationTask
from perceivers.tasks.masked import MaskedBytesConfig, MaskedBytesTask
from perceivers.tasks.multilabel import MultiLabelConfig, MultiLabelTask
from perceivers.tasks.regression import RegressionConfig, RegressionTask

__all__ = ["TARGET_KINDS", "TaskConfig", "build_task", "fit_task", "names_of", "target_of"]

TaskConfig = Annotated[
    ClassificationConfig
    | MultiLabelConfig
    | RegressionConfig
    | MaskedBytesConfig
    | AutoencodeConfig,
    Field(discriminator="kind"),
]

TARGET_KINDS = {
    "classification": "class",
    "multilabel": "labels",
    "regression": "number",
    "masked_bytes": "nothing",
    "autoencode": "nothing",
}
"""What the target of a task is in the data, by the kind of the task; `nothing`: the inputs are all it learns from."""


def target_of(config: TaskConfig) -> str:
    """Return what the target of a task is in the data. An autoencoder may reconstruct the class, too."""
    if isinstance(config, AutoencodeConfig) and config.label_weight is not None:
        return "class"
    return TARGET_KINDS[config.kind]


Moments = tuple[tuple[float, ...], tuple[float, ...]]


def build_task(config: TaskConfig, class_counts: Sequence[int] | None = None) -> Task:
    """Return the task of a configuration.

    Args:
        config: Of any task.
        class_counts: Samples of each class in train, for classification with balanced weights.

    Raises:
        ValueError: If counts or weights do not fit the number of classes.
    """
    if isinstance(config, ClassificationConfig):
        return ClassificationTask(config, class_counts)
    if isinstance(config, MultiLabelConfig):
        return MultiLabelTask(config)
    if isinstance(config, MaskedBytesConfig):
        return MaskedBytesTask(config)
    if isinstance(config, AutoencodeConfig):
        return AutoencodeTask(config)
    return RegressionTask(config)


def names_of(config: TaskConfig) -> tuple[str, ...]:
    """Return the name of each output: classes, labels, or what the numbers are; none of bytes."""
    if isinstance(config, MaskedBytesConfig):
        return ()
    return config.target_names if isinstance(config, RegressionConfig) else config.label_names


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
    if isinstance(config, MaskedBytesConfig):
        return config
    if isinstance(config, AutoencodeConfig):
        return config if config.label_weight is None else replace(config, label_names=tuple(names))
    if target_kind == "number":
        chosen = config if isinstance(config, RegressionConfig) else RegressionConfig()
        if chosen.mean and chosen.std:
            return replace(chosen, target_names=tuple(names))
        if moments is None:
            msg = (
                "The mean and deviation of the numbers to predict are not known before training, as the data are "
                "streamed. Give them in the recipe (task.mean and task.std), or leave --stream out."
            )
            raise ValueError(msg)
        return replace(chosen, target_names=tuple(names), mean=moments[0], std=moments[1])
    smoothing = 0.0 if isinstance(config, RegressionConfig) else config.label_smoothing
    if target_kind == "labels":
        several = (
            config
            if isinstance(config, MultiLabelConfig)
            else MultiLabelConfig(label_smoothing=smoothing)
        )
        return replace(several, label_names=tuple(names))
    one = (
        config
        if isinstance(config, ClassificationConfig)
        else ClassificationConfig(label_smoothing=smoothing)
    )
    return replace(one, label_names=tuple(names))
