"""Configuration of tasks, and the labels and outputs that it is completed by."""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from perceivers.registry import configclass

Moments = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each number of a target."""


@dataclass(frozen=True, kw_only=True)
class TargetInfo:
    """Label columns of the data.

    Attributes:
        kind: `class`, `labels`, `number`, `several` or `nothing`.
        names: Name of each class, label or number.
        moments: Mean and standard deviation of each number. None: not measured.
        parts: Each of several label columns, by name.
    """

    kind: str
    names: tuple[str, ...] = ()
    moments: Moments | None = None
    parts: Mapping[str, "TargetInfo"] = field(default_factory=dict[str, "TargetInfo"])


@dataclass(frozen=True, kw_only=True)
class OutputPart:
    """Size of one output of a model.

    Attributes:
        num_outputs: Numbers for each query.
        grid: Queries along each axis. None: the output configuration determines their number.
    """

    num_outputs: int
    grid: tuple[int, ...] | None = None


@configclass
class BaseTaskConfig:
    """Base class of task configurations. A subclass sets `kind` and is registered with `pv.register_task`.

    The defaults are those of a task whose data need no labels and that has one output.

    Attributes:
        kind: Name of the task in files.
    """

    kind: str

    default_for: ClassVar[str | None] = None
    """Kind of label column for which this is the default task: `class`, `labels` or `number`."""

    reports_compression: ClassVar[bool] = False
    """Print how much smaller the latents are than the input."""

    pretrains: ClassVar[bool] = False
    """Learns from unlabeled data a model whose encoder is then fine-tuned on labels."""

    next_commands: ClassVar[tuple[str, ...]] = (
        "evaluate RUN",
        "predict RUN FILE...",
        "explain RUN FILE --out attention.png",
    )
    """Commands that `fit` names at its end."""

    supports_clips: ClassVar[bool] = True
    """Predictions of several clips of a sample can be averaged."""

    @property
    def target_kind(self) -> str:
        """Kind of the label column: `class`, `labels`, `number`, `auto` (one per task) or `nothing`."""
        return "nothing"

    @property
    def requires_labels(self) -> bool:
        """Whether each sample needs a label."""
        return self.target_kind != "nothing"

    @property
    def target_modalities(self) -> tuple[str, ...]:
        """Modalities that are targets and never inputs of the model."""
        return ()

    @property
    def chunked_modality(self) -> str | None:
        """Input whose samples are split into chunks of the model's length. None: they are used as they are."""
        return None

    @property
    def chunk_step(self) -> int | None:
        """Elements at the end of a chunk that are predicted. None: all, or a quarter of a window of a series."""
        return None

    @property
    def output_names(self) -> tuple[str, ...]:
        """Name of each output: classes, labels, numbers, or tasks. Empty for bytes, pixels and flow."""
        return ()

    @property
    def subtasks(self) -> Mapping[str, "BaseTaskConfig"]:
        """Configuration of each of several tasks, by name. Empty for a single task."""
        return {}

    @property
    def known_names(self) -> tuple[str, ...] | dict[str, tuple[str, ...]]:
        """Name of each output; for several tasks, those of each."""
        if self.subtasks:
            return {name: part.output_names for name, part in self.subtasks.items()}
        return self.output_names

    @property
    def needs_class_counts(self) -> bool:
        """Whether the task is built with the number of training samples of each class."""
        return False

    def select_subtask(self, name: str | None) -> tuple[str | None, "BaseTaskConfig"]:
        """Return the name of the model's output and the configuration of one of several tasks, by default the first.

        Raises:
            ValueError: If no task has this name.
        """
        parts = self.subtasks
        if name is None and not parts:
            return None, self
        name = next(iter(parts)) if name is None else name
        if name not in parts:
            learned = (
                f"the run learned {', '.join(parts)}" if parts else "the run learned one task alone"
            )
            near = difflib.get_close_matches(name, parts, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise ValueError(f"There is no task '{name}': {learned}.{hint}")
        return name, parts[name]

    def bind_modalities(
        self,
        kinds: Mapping[str, str],
        *,
        inputs: Collection[str],
        targets: Collection[str],
        recipe: str,
    ) -> tuple["BaseTaskConfig", dict[str, str]]:
        """Return the configuration for the data's columns, and new names of the recipe's modalities.

        Args:
            kinds: Kind of each column of the data, by name.
            inputs: Names of the recipe's inputs.
            targets: Names of the recipe's target modalities.
            recipe: Name of the recipe, for error messages.

        Raises:
            ValueError: If the columns do not fit the task.
        """
        return self, {}

    def fit_to(self, target: TargetInfo) -> "BaseTaskConfig":
        """Return the configuration with names and statistics of the target filled in.

        Raises:
            ValueError: If numbers are to be learned and their moments are unknown.
        """
        return self

    def fit_to_inputs(self, inputs: Mapping[str, Any], preprocess: Mapping[str, Any]) -> Self:
        """Return the configuration with sizes filled in from the modalities.

        Args:
            inputs: Input configuration of each modality, complete.
            preprocess: Preprocessing of each modality, targets included, complete.

        Raises:
            ValueError: If a modality does not fit the task.
        """
        return self

    @property
    def needs_layout(self) -> bool:
        """Whether `fit_to_layout` completes the configuration."""
        return False

    def fit_to_layout(self, layout: Any) -> Self:
        """Return the configuration for the `ElementLayout` of the model."""
        return self

    def fit_augment(self, augment: Mapping[str, Any]) -> dict[str, Any]:
        """Return the augmentation of each modality as the task needs it.

        Raises:
            ValueError: If an augmentation does not fit the task.
        """
        return dict(augment)

    def fit_encoder(self, encoder: Any) -> Any:
        """Return the configuration of the encoder with the sizes that the task determines."""
        return encoder

    def output_parts(self) -> dict[str, OutputPart]:
        """Return the size of each output of the model that follows from the task, by its name.

        Empty: the output configuration of the recipe is complete. A single part fits an output of any name.
        """
        return {}

    def check_sample(self, values: Mapping[str, Any], name: str) -> None:
        """Check that a sample with these arrays of its modalities can be predicted.

        Raises:
            ValueError: If not. The message has the name of the sample.
        """
