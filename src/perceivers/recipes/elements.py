"""Elements of the modalities in a model, as tasks that hide single elements need them."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from perceivers.inputs.registry import build_input
from perceivers.tasks.masking_elements import ElementLayout


def with_layout(task: Any, inputs: Mapping[str, Any], encoder: Any, permute: int | None) -> Any:
    """Return a task with the elements of each modality and their groups in the encoder, if it needs them.

    Args:
        task: Configuration of the task.
        inputs: Input configuration of each modality, complete.
        encoder: Configuration of the encoder.
        permute: Seed of the permutation of the elements. None: none.

    Raises:
        ValueError: If the elements of a modality do not fit the task.
    """
    if not task.needs_layout:
        return task
    with torch.device("meta"):
        axes = {name: tuple(build_input(part).axes) for name, part in inputs.items()}
    group_rows = getattr(encoder, "group_rows", None)
    counts = {name: math.prod(sides) for name, sides in axes.items()}
    rows = {} if group_rows is None else group_rows(counts)
    return task.fit_to_layout(ElementLayout(axes=axes, rows=rows, permute=permute))
