"""Interface of tasks: configuration, loss, metrics, predictions, and what export and explanations need."""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self, cast

import torch

from perceivers.registry import configclass
from perceivers.tasks.calibration import Calibration
from perceivers.tasks.curves import Curve
from perceivers.tasks.intervals import BootstrapSums, Interval
from perceivers.tasks.prediction import ANSWER_FIELDS, Prediction, Schema, answer_example
from perceivers.typing import Float, Int, Tensor, Tensors

# Metrics that are shares in [0, 1] and are printed as percentages.
SHARES = frozenset(
    {
        *("score", "mIoU", "within_1px", "within_3px", "within_5px", "fl"),
        *("accuracy", "label_accuracy", "top5", "mean_recall"),
        *("mAP", "micro_mAP", "hit1", "exact", "AP", "recall"),
    }
)

Details = list[dict[str, float | None]]
"""Metrics of each output of the model, by name; None where one is undefined."""

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
        """Text that is split into chunks of the model's length. None: samples are used as they are."""
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

    def fit_augment(self, augment: Mapping[str, Any]) -> dict[str, Any]:
        """Return the augmentation of each modality as the task needs it.

        Raises:
            ValueError: If an augmentation does not fit the task.
        """
        return dict(augment)

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


@dataclass(frozen=True, kw_only=True)
class TaskBatch:
    """Inputs of the model and the targets of its outputs.

    Attributes:
        inputs: A tensor for each modality.
        masks: For the modalities that were padded or are missing in some samples.
        targets: Targets of the loss and the metrics.
        index: For some outputs, the indices of the queries that are computed. Otherwise all are.
    """

    inputs: Tensors
    masks: Tensors
    targets: Any
    index: Tensors = field(default_factory=dict[str, Tensor])


@dataclass(frozen=True, kw_only=True)
class PredictionRequest:
    """Samples whose predictions are requested.

    Attributes:
        names: Names of the samples.
        batch: As `prediction_batch` returned it.
        preprocess: Preprocessing of each modality, targets included: units, class colors.
        top: Number of best labels that each prediction lists, at least one.
    """

    names: Sequence[str]
    batch: TaskBatch
    preprocess: Mapping[str, Any] = field(default_factory=dict[str, Any])
    top: int = 5


class Meter(ABC):
    """Accumulates metrics batch by batch; meters of several devices are merged by their states."""

    @property
    def confusion(self) -> Tensor | None:
        """Samples by true class (rows) and predicted class (columns). None: the task has no confusion matrix."""
        return None

    @property
    def parts(self) -> Mapping[str, "Meter"]:
        """Meter of each of several tasks, by name. Empty for a single task."""
        return {}

    @abstractmethod
    def update(self, outputs: Any, targets: Any) -> None:
        """Add one batch."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return the accumulated state: CPU tensors and numbers, which can be sent to another process."""

    @abstractmethod
    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Replace the state by the sum of these states."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Return the metrics by name."""

    def details(self) -> Details:
        """Return the metrics of each output. Empty where there is a confusion matrix, or outputs have no names."""
        return []

    def proportions(self) -> dict[str, Interval]:
        """Return the 95 % confidence intervals of the metrics that are proportions of samples: they cost nothing."""
        return {}

    def intervals(self) -> dict[str, Interval]:
        """Return the 95 % confidence interval of each metric that has one, by name."""
        return self.proportions()

    def detail_intervals(self) -> list[dict[str, Interval]]:
        """Return the 95 % confidence intervals of the metrics in `details`, or nothing."""
        return []

    def errors(self) -> Tensor | None:
        """Return an error of each sample, in order, by which two models can be compared on the same samples.

        Its mean is the lower, the better the main metric is. None: it is not kept, or the metric is no mean.
        """
        return None

    def calibration(self, temperature: float | None = None) -> Calibration | None:
        """Return the calibration of the predicted probabilities. None: there are no probabilities, or no samples.

        Args:
            temperature: Temperature of the run. None: it is fitted to these samples.
        """
        return None

    def curves(self) -> tuple[Curve, ...]:
        """Return ROC and precision-recall curves of the classes or labels."""
        return ()


class SummedMeter(Meter):
    """A meter whose state is an array of sums of this shape.

    Args:
        shape: Shape of the sums.
        per_sample: Number of sums of each sample from which `resampled` computes metrics.
    """

    def __init__(self, *shape: int, per_sample: int = 0) -> None:
        self.sums: Tensor = torch.zeros(shape, dtype=torch.float64)
        self.samples = BootstrapSums(per_sample)

    def state(self) -> dict[str, Any]:
        """Return the sums."""
        return {"sums": self.sums, "samples": self.samples.state()}

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Replace the sums by those of these meters added up."""
        self.sums = torch.stack([state["sums"] for state in states]).sum(dim=0)
        self.samples.merge([state["samples"] for state in states])

    def resampled(self, rows: Float[Tensor, "R S"]) -> dict[str, Float[Tensor, " R"]]:
        """Return the metrics of resamples of the samples, from the sums of each."""
        return {}

    def intervals(self) -> dict[str, Interval]:
        """Return the bootstrap intervals of the metrics that `resampled` returns."""
        return self.samples.intervals(self.resampled)


class ConfusionMeter(SummedMeter):
    """A meter with the counts of a confusion matrix of K classes, and `count` sums."""

    def __init__(self, num_classes: int, count: int, *, per_sample: int = 0) -> None:
        super().__init__(count, per_sample=per_sample)
        self._confusion: Int[Tensor, "K K"] = torch.zeros(
            num_classes, num_classes, dtype=torch.long
        )

    @property
    def confusion(self) -> Int[Tensor, "K K"]:
        """Counts by true class (rows) and predicted class (columns)."""
        return self._confusion

    def count(self, targets: Int[Tensor, " n"], predicted: Int[Tensor, " n"]) -> None:
        """Add pairs of a true and a predicted class."""
        size = self._confusion.shape[0]
        cells = (targets * size + predicted).cpu()
        self._confusion += cells.bincount(minlength=size**2).view(size, size)

    def state(self) -> dict[str, Any]:
        """Return the counts and sums."""
        return {"confusion": self._confusion, **super().state()}

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Replace counts and sums by those of these meters added up."""
        super().merge(states)
        self._confusion = torch.stack([state["confusion"] for state in states]).sum(dim=0)


class Baseline(ABC):
    """A constant prediction, measured beside the model's."""

    @abstractmethod
    def update(self, targets: Any) -> None:
        """Add the targets of one batch."""

    @abstractmethod
    def add_to(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return the metrics of a model with those of the baseline beside them."""


@dataclass(frozen=True)
class ExportOutput:
    """A readable output that an exported graph has beside the logits.

    Attributes:
        name: `probabilities` or `values`.
        meaning: Description for the manifest.
    """

    name: str
    meaning: str


class Task(ABC):
    """A loss, the metrics and the predictions of a model.

    Attributes:
        config: Configuration of the task, a `BaseTaskConfig`.
        main_metric: The metric by which runs are compared.
        higher_is_better: Whether a larger value of it is better. Default: True.
        score_name: Name of the value that `training_score` returns.
    """

    config: Any
    main_metric: str
    higher_is_better: bool = True
    score_name: str

    has_baseline: ClassVar[bool] = False
    """Whether `fit_baseline` returns one, for which evaluation reads the training split."""

    export_output: ClassVar[ExportOutput | None] = None
    """Readable output of an exported graph: `probabilities` of the outputs. None: the graph has logits alone."""

    explain_as: ClassVar[str] = "regression"
    """Form of the output in an explanation: `classification`, `multilabel` or `regression`."""

    explains_outputs: ClassVar[bool] = False
    """Whether each output can be explained by itself: a class, label or number."""

    answer_fields: tuple[str, ...] = ()
    """Fields that every answer has beside `task`, of `ANSWER_FIELDS`."""

    optional_answer_fields: tuple[str, ...] = tuple(ANSWER_FIELDS)
    """Fields that an answer may have besides."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def parts(self) -> Mapping[str, "Task"]:
        """Each of several tasks, by name. Empty for a single task."""
        return {}

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each output: classes, labels or numbers."""
        return self.config.output_names

    @property
    def num_outputs(self) -> int:
        """Numbers that the model predicts for a sample, or for each query."""
        return len(self.names)

    @property
    def has_classes(self) -> bool:
        """Whether the outputs are probabilities of classes or labels."""
        return self.explains_outputs and self.explain_as != "regression"

    @abstractmethod
    def prepare_batch(
        self, inputs: Tensors, masks: Tensors, targets: Any, *, training: bool
    ) -> TaskBatch:
        """Return the inputs of the model and the targets of its outputs.

        Args:
            inputs: A tensor for each modality.
            masks: For the modalities that were padded or are missing in some samples.
            targets: Labels of the data, by name for several tasks. None: there are none.
            training: Whether masking and the choice of queries may be random.

        Raises:
            ValueError: If the task needs targets and there are none.
        """

    def prediction_batch(self, inputs: Tensors, masks: Tensors) -> TaskBatch:
        """Return the batch of a prediction, without targets."""
        return TaskBatch(inputs=inputs, masks=masks, targets=None)

    def infer(self, model: Any, batch: TaskBatch) -> Any:
        """Return the outputs of a trained model, in float32. Overridden where a model is applied in tiles."""
        outputs = forward_task(model, batch)
        if isinstance(outputs, Mapping):
            named = cast("Tensors", outputs)
            return {name: part.float() for name, part in named.items()}
        return outputs.float()

    @abstractmethod
    def loss(self, outputs: Any, targets: Any) -> Float[Tensor, ""]:
        """Return the mean loss of a batch.

        Args:
            outputs: B x K, B x O x K for O queries, or a dict of these.
            targets: As in the `TaskBatch`.
        """

    @abstractmethod
    def probabilities(self, outputs: Any) -> Any:
        """Return the outputs in readable units: probabilities, or numbers in their own units."""

    def combine(self, outputs: Any) -> Any:
        """Return the outputs whose readable values are the mean over S clips, B x S x ... -> B x ...

        By default the mean of the outputs.
        """
        return outputs.float().mean(dim=1)

    def average_members(self, outputs: Any) -> Any:
        """Return the average of the outputs of M members of an ensemble, B x M x ... -> B x ..., as `combine` does."""
        return self.combine(outputs)

    @abstractmethod
    def training_score(self, outputs: Any, targets: Any) -> Float[Tensor, ""]:
        """Return the sum over samples of the value that the training log shows beside the loss, on the device."""

    @abstractmethod
    def meter(self) -> Meter:
        """Return a new meter."""

    @abstractmethod
    def predictions(self, outputs: Any, request: PredictionRequest) -> Iterator[Prediction]:
        """Yield the prediction for each sample of a batch, from its outputs with the clips combined."""

    def predict(self, outputs: Any, request: PredictionRequest) -> Iterator[Prediction]:
        """Yield the prediction for each sample of a batch, with the kind of the task."""
        for one in self.predictions(outputs, request):
            yield replace(one, task=self.config.kind)

    def answer_schema(self) -> Schema:
        """Return the JSON schema of the fields of an answer that `Prediction.answer` returns beside `name`."""
        fields = dict.fromkeys((*self.answer_fields, *self.optional_answer_fields))
        properties = {field: ANSWER_FIELDS[field] for field in fields}
        return {
            "type": "object",
            "properties": {"task": {"const": self.config.kind}, **properties},
            "required": ["task", *self.answer_fields],
            "additionalProperties": False,
        }

    def answer_example(self) -> dict[str, Any]:
        """Return an example of these fields, with the names of the outputs."""
        return {"task": self.config.kind, **answer_example(self.answer_fields, self.names)}

    def example_targets(self, batch_size: int, *, mixed: bool) -> Any:
        """Return synthetic targets of the labels' shape and type, to measure memory. None: the task uses no labels.

        The classes of mixed samples (mixup, CutMix) are shares.
        """
        return None

    def fit_baseline(self, batches: Iterable[TaskBatch]) -> Baseline | None:
        """Return a constant prediction made of the training split. None: the task has none."""
        return None

    def mistake_sizes(self, outputs: Any, targets: Any) -> Float[Tensor, " B"] | None:
        """Return the size of the error of each sample, by which the worst are found; 0 where it is right.

        None: samples of this task have no error of their own.
        """
        return None

    def describe_mistake(self, outputs: Any, targets: Any) -> str:
        """Return the prediction and the truth of one sample, with a batch axis of 1, as text."""
        return ""

    def target_image(self, targets: Any, preprocess: Mapping[str, Any]) -> Any:
        """Return the targets of one sample, with a batch axis of 1, as a PIL image. None: they are no image."""
        return None

    def calibrated_config(self, calibrations: Mapping[str, Calibration]) -> Any:
        """Return the configuration with fitted temperatures: that of each of several tasks by name, of one by ""."""
        return self.config

    def remarks(self, *, has_baseline: bool) -> list[str]:
        """Return sentences that are needed to read the metrics."""
        return []

    def check_explainable(self) -> None:  # noqa: B027 - most tasks are
        """Check that attention can explain the outputs.

        Raises:
            ValueError: If not.
        """

    def explained_query(self, inputs: Tensors) -> int | None:
        """Return the index of the output query that an explanation of one sample is about. None: all of them."""
        return None

    def explained_output(
        self, inputs: Tensors, masks: Tensors, outputs: Any, query: int | None
    ) -> tuple[tuple[str, ...], Float[Tensor, " n"]]:
        """Return name and value of each number that an explanation of one sample shows.

        All have a batch axis of 1; `query` is the index that `explained_query` returned.
        """
        return self.names, self.probabilities(outputs)[0]


class SupervisedTask(Task):
    """A task whose targets are the labels of the data: inputs are used as they are."""

    def prepare_batch(
        self, inputs: Tensors, masks: Tensors, targets: Any, *, training: bool
    ) -> TaskBatch:
        """Return the inputs and their labels."""
        if targets is None:
            raise ValueError("Learning and measuring need labels, and this batch has none.")
        return TaskBatch(inputs=inputs, masks=masks, targets=targets)

    def example_targets(self, batch_size: int, *, mixed: bool) -> Any:
        """Return a row of equal numbers for each sample."""
        return torch.full((batch_size, self.num_outputs), 1 / self.num_outputs)


def split_target(
    name: str, inputs: Tensors, masks: Tensors
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Return the modality that is the target, and the inputs and masks without it.

    Rows that lack the target are bad rows, so that it has no mask.

    Raises:
        ValueError: If the batch lacks it.
    """
    if name not in inputs:
        raise ValueError(
            f"Learning and measuring need the target '{name}' beside the inputs; this batch has only "
            f"{', '.join(inputs)}."
        )
    rest = {key: values for key, values in inputs.items() if key != name}
    return inputs[name], rest, {key: mask for key, mask in masks.items() if key != name}


def forward_task(model: Callable[..., Any], batch: TaskBatch) -> Any:
    """Return the outputs of a model for a batch."""
    if batch.index:
        return model(batch.inputs, batch.masks, batch.index)
    return model(batch.inputs, batch.masks)


def combine_clips(task: Task, outputs: Any, num_clips: int) -> Any:
    """Return one row of outputs for each sample, B x K, from those of its clips; for several tasks, by name."""
    if num_clips == 1:
        return outputs
    if isinstance(outputs, Mapping):
        parts = cast("Tensors", outputs)
        return task.combine({k: part.unflatten(0, (-1, num_clips)) for k, part in parts.items()})
    return task.combine(outputs.unflatten(0, (-1, num_clips)))


Views = Mapping[str, Callable[[Tensor], Tensor]]
"""Function from the tensor of a modality to another view of it, such as a mirrored image, by name."""


def infer_views(
    task: Task, infer: Callable[[TaskBatch], Any], batch: TaskBatch, views: Views
) -> Any:
    """Return the outputs for a batch, averaged with those for the other view of it (test-time augmentation).

    Args:
        task: The task, which states how outputs are averaged.
        infer: Function from a batch to the outputs of the model.
        batch: The batch.
        views: Other view of some modalities. Those that the batch lacks are left out; without any, nothing is averaged.
    """
    other = {name: view(batch.inputs[name]) for name, view in views.items() if name in batch.inputs}
    outputs = infer(batch)
    if not other:
        return outputs
    second = infer(replace(batch, inputs={**batch.inputs, **other}))
    return task.average_members(stack_outputs([outputs, second]))


def stack_outputs(outputs: Sequence[Any]) -> Any:
    """Return outputs of several models or views as one, B x M x ..., by name where there are several."""
    if isinstance(outputs[0], Mapping):
        named = cast("Sequence[Tensors]", outputs)
        return {name: torch.stack([one[name] for one in named], dim=1) for name in named[0]}
    return torch.stack(list(outputs), dim=1)


def to_float(x: Tensor) -> Tensor:
    """Return a tensor in float32; float64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def is_share(name: str) -> bool:
    """Return whether a metric is a share in [0, 1], which is printed as a percentage, as is `digit/accuracy`."""
    return name.rpartition("/")[2] in SHARES


def metric_text(
    name: str, value: float, interval: Interval | None = None, *, digits: int = 1
) -> str:
    """Return a metric as text: `98.6 % (97.4 to 99.2)` with its 95 % confidence interval, `98.6 %` without.

    Args:
        name: Name of the metric, from which its unit follows.
        value: Its value.
        interval: Its lower and upper end. None: it has none.
        digits: Digits behind the point of a percentage.
    """
    number, unit = _number_and_unit(name, value, digits)
    text = f"{number} {unit}" if unit else number
    if interval is None:
        return text
    low, high = (_number_and_unit(name, end, digits)[0] for end in interval)
    return f"{text} ({low} to {high})"


def _number_and_unit(name: str, value: float, digits: int) -> tuple[str, str]:
    if is_share(name):
        return f"{100 * value:.{digits}f}", "%"
    kind = name.rpartition("/")[2]
    if kind.endswith("psnr"):
        return f"{value:.2f}", "dB"
    if kind in {"samples", "n"} or abs(value) >= 10_000:
        return f"{value:,.0f}", ""
    return (f"{value:.4f}" if kind == "loss" else f"{value:.4g}"), ""
