"""Outputs of a model averaged over clips, views and members of an ensemble."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch

from perceivers.tasks.base import Task, TaskBatch
from perceivers.typing import Tensor, Tensors


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
