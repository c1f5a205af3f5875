"""Interface of tasks: batches, loss, predictions, and what export and explanations need."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, cast

import torch

from perceivers.tasks.calibration import Calibration
from perceivers.tasks.meters import Baseline, Meter
from perceivers.tasks.prediction import ANSWER_FIELDS, Prediction, Schema, answer_example
from perceivers.typing import Float, Tensor, Tensors


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

    reconstructs: ClassVar[bool] = False
    """Whether predictions have reconstructions of the inputs, to be shown beside them."""

    export_output: ClassVar[ExportOutput | None] = None
    """Readable output of an exported graph: `probabilities` of the outputs. None: the graph has logits alone."""

    explain_as: ClassVar[str] = "regression"
    """Form of the output in an explanation: `classification`, `multilabel` or `regression`."""

    explains_outputs: ClassVar[bool] = False
    """Whether each output can be explained by itself: a class, label or number."""

    generates_text: bool = False
    """Whether the model continues texts: `perceivers generate`, and `/generate` of a server."""

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

    def check_exportable(self) -> None:  # noqa: B027 - most tasks are
        """Check that the model can be exported as a graph.

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


def to_float(x: Tensor) -> Tensor:
    """Return a tensor in float32; float64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
