"""What every task offers to training and evaluation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast, runtime_checkable

import torch

from perceivers.typing import Float, Tensor

__all__ = [
    "SHARES",
    "Details",
    "Meter",
    "Question",
    "SummedMeter",
    "Supervised",
    "Task",
    "ask",
    "combine_clips",
    "is_share",
    "metric_text",
    "take_answer",
]

# Measures that are shares in [0, 1] and read better as percentages.
SHARES = frozenset(
    {
        *("score", "mIoU", "within_1px", "within_3px", "within_5px", "fl"),
        *("accuracy", "label_accuracy", "top5", "mean_recall"),
        *("mAP", "micro_mAP", "hit1", "exact", "AP", "recall"),
    }
)

Details = list[dict[str, float | None]]
"""For each output of the model, its measures by name; None where one cannot be told."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What the model is shown and asked, and what it should answer.

    Attributes:
        inputs: A tensor for each modality.
        masks: For the modalities that were padded or are missing in some samples.
        targets: What the answers are held against.
        index: For some outputs, which of their queries are asked. Otherwise all are.
    """

    inputs: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    targets: Any
    index: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])


class Supervised:
    """A task whose answers come with the data: the question is the input as it is."""

    def pose(
        self,
        inputs: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        targets: Any,
        *,
        training: bool,  # noqa: ARG002
    ) -> Question:
        """Return the inputs and their targets.

        Raises:
            ValueError: If there are no targets.
        """
        if targets is None:
            msg = "Learning and measuring need labels, and this batch has none."
            raise ValueError(msg)
        return Question(inputs=inputs, masks=masks, targets=targets)


def take_answer(
    name: str, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Return the modality that is the answer, and the inputs and masks without it.

    For the `pose` of a task whose configuration has a field `answer`: a modality that is read as any other and
    that the model never sees. Rows that lack it are bad rows, so that it has no mask.

    Args:
        name: Of the modality.
        inputs: A tensor for each modality, the answer among them.
        masks: As in `Question`.

    Raises:
        ValueError: If it is not there.
    """
    if name not in inputs:
        msg = (
            f"Learning and measuring need '{name}', which is the answer, beside what the model reads; this batch has "
            f"only {', '.join(inputs)}."
        )
        raise ValueError(msg)
    shown = {key: values for key, values in inputs.items() if key != name}
    return inputs[name], shown, {key: mask for key, mask in masks.items() if key != name}


@runtime_checkable
class Meter(Protocol):
    """Collects predictions batch by batch. Those of several devices are put together by their states."""

    def update(self, outputs: Any, targets: Any) -> None:
        """Take in one batch."""
        ...

    def state(self) -> dict[str, Any]:
        """Return what was collected: tensors on the CPU and numbers, which another process can take."""
        ...

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Hold what these meters have collected together, instead of what it held before."""
        ...

    def compute(self) -> dict[str, float]:
        """Return the metrics by name."""
        ...

    def details(self) -> Details:
        """Return the measures of each output by itself. Empty where a confusion matrix tells more."""
        ...


class SummedMeter:
    """A meter that keeps nothing but sums, of outputs that have no names.

    Args:
        count: How many sums.
    """

    sums: Float[Tensor, " S"]

    def __init__(self, count: int) -> None:
        self.sums = torch.zeros(count, dtype=torch.float64)

    def state(self) -> dict[str, Any]:
        """Return the sums."""
        return {"sums": self.sums}

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Hold the sums of these meters added up."""
        self.sums = torch.stack([state["sums"] for state in states]).sum(dim=0)

    def details(self) -> Details:
        """Return nothing: there is nothing to say of each output."""
        return []


@runtime_checkable
class Task(Protocol):
    """A loss, and the metrics that say how good the predictions are.

    Attributes:
        main_metric: The metric by which runs are compared.
        higher_is_better: Whether it is to be large.
        score_name: What `training_score` measures.
    """

    main_metric: str
    higher_is_better: bool
    score_name: str

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each output: classes, labels, or what the numbers are."""
        ...

    @property
    def num_outputs(self) -> int:
        """Numbers that the model must predict for a sample."""
        ...

    def pose(
        self,
        inputs: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        targets: Any,
        *,
        training: bool,
    ) -> Question:
        """Return what the model is shown and asked, and what it should answer.

        Args:
            inputs: A tensor for each modality.
            masks: For the modalities that were padded or are missing in some samples.
            targets: What the data hold, by name of several tasks. None: nothing.
            training: Whether something may be random.

        Raises:
            ValueError: If the task needs targets and there are none.
        """
        ...

    def loss(self, outputs: Any, targets: Any) -> Float[Tensor, ""]:
        """Return the mean loss of a batch. Outputs are B x K, or what the queries of the task's models give."""
        ...

    def probabilities(self, outputs: Any) -> Any:
        """Return outputs on a scale that people read: probabilities, or numbers in their own units."""
        ...

    def combine(self, outputs: Any) -> Any:
        """Return the outputs that stand for the mean over S clips of what people read."""
        ...

    def training_score(self, outputs: Any, targets: Any) -> Float[Tensor, ""]:
        """Return the sum over samples of what the training log shows beside the loss. It stays on the device."""
        ...

    def meter(self) -> Meter:
        """Return a fresh meter."""
        ...


def ask(model: Callable[..., Any], question: Question) -> Any:
    """Return the answers of a model."""
    if question.index:
        return model(question.inputs, question.masks, question.index)
    return model(question.inputs, question.masks)


def combine_clips(task: Task, outputs: Any, num_clips: int) -> Any:
    """Return one row of outputs for each sample, B x K; of several tasks, by name.

    Args:
        task: Which knows how clips are averaged.
        outputs: Of the clips, those of one sample side by side.
        num_clips: Clips of each sample.
    """
    if num_clips == 1:
        return outputs
    if isinstance(outputs, Mapping):
        parts = cast("Mapping[str, Tensor]", outputs)
        return task.combine({k: part.unflatten(0, (-1, num_clips)) for k, part in parts.items()})
    return task.combine(outputs.unflatten(0, (-1, num_clips)))


def is_share(name: str) -> bool:
    """Tell whether a measure is a share in [0, 1], which reads better as a percentage. `digit/accuracy` is one."""
    return name.rpartition("/")[2] in SHARES


def metric_text(name: str, value: float, *, digits: int = 1) -> str:
    """Return a measure as people read it.

    Args:
        name: Of the measure.
        value: Its value.
        digits: Behind the point, of a percentage.
    """
    if is_share(name):
        return f"{100 * value:.{digits}f} %"
    kind = name.rpartition("/")[2]
    if kind.endswith("psnr"):
        return f"{value:.2f} dB"
    if kind in {"samples", "n"} or abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.4f}" if kind == "loss" else f"{value:.4g}"
