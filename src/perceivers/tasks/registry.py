"""Registry of tasks by the kind of their configuration."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any

from perceivers.registry import ConfigRegistry
from perceivers.tasks.base import Task
from perceivers.tasks.config import BaseTaskConfig, TargetInfo

TASKS = ConfigRegistry("task")
"""Registered tasks. The built-in ones are registered when `perceivers.tasks` is imported."""

TaskConfig = Annotated[BaseTaskConfig, TASKS]
"""Type of a field that holds the configuration of any registered task."""


def register_task(config_class: type[BaseTaskConfig], build: Callable[..., Task]) -> None:
    """Register a task, so that recipes, files and commands can name it by the `kind` of its configuration.

    Args:
        config_class: A frozen dataclass, subclass of `BaseTaskConfig`, with `kind: Literal["..."] = "..."`.
        build: Called with a configuration, and with `class_counts` if it `needs_class_counts` and trains.

    Raises:
        ValueError: If another class is registered under this kind.
    """
    TASKS.register(config_class, build)


def build_task(
    config: TaskConfig, class_counts: Sequence[int] | Mapping[str, Sequence[int]] | None = None
) -> Task:
    """Return the task of a configuration.

    Classification with balanced weights needs the samples of each class in train; several tasks, those by name.

    Raises:
        ValueError: If the kind is not registered, or counts or weights do not fit the number of classes.
    """
    counts: tuple[Any, ...] = () if class_counts is None else (class_counts,)
    return TASKS.build(config, *(counts if config.needs_class_counts else ()))


def config_for_target(config: TaskConfig, kind: str) -> TaskConfig:
    """Return the configuration if it learns a label column of this kind, else the default for `class`, `labels`, ...

    Label smoothing stays.

    Raises:
        ValueError: If no task learns such a column.
    """
    if not config.requires_labels or config.target_kind == kind:
        return config
    for default in TASKS:
        if default.default_for == kind:
            known = {one.name for one in fields(default)}
            smoothing = getattr(config, "label_smoothing", None)
            has_smoothing = smoothing is not None and "label_smoothing" in known
            return default(label_smoothing=smoothing) if has_smoothing else default()
    raise ValueError(f"No registered task learns a label column of kind '{kind}'.")


def fit_to_target(config: TaskConfig, target: TargetInfo) -> TaskConfig:
    """Return the configuration with names and statistics of the target filled in.

    A configuration of another task than the target needs is replaced by the default task for it.

    Raises:
        ValueError: If numbers are to be learned and their moments are unknown.
    """
    if target.kind in {"class", "labels", "number"}:
        config = config_for_target(config, target.kind)
    return config.fit_to(target)
