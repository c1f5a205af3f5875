"""The exported graph: raw arrays by name in, outputs of the model and their readable form out."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from perceivers.data.modalities.registry import build_modality
from perceivers.exporting.preprocessing import (
    GraphPreprocessor,
    ModelInput,
    Signature,
    build_preprocessor,
    mask_name,
)
from perceivers.hub.checkpoint import Saved
from perceivers.inputs.elements import InputAdapter
from perceivers.models.ensemble import Ensemble
from perceivers.models.perceiver import Perceiver
from perceivers.tasks.averaging import Views, infer_views
from perceivers.tasks.base import Task, TaskBatch
from perceivers.tasks.registry import build_task
from perceivers.typing import Tensor, Tensors


class ExportGraph(nn.Module):
    """A model with its preprocessing and the readable form of its outputs.

    The model is in evaluation mode; its cross-attention is `projected`, which consists of plain operations.
    """

    def __init__(
        self,
        model: Perceiver | Ensemble,
        preprocessors: Mapping[str, GraphPreprocessor],
        task: Task,
        views: Views,
    ) -> None:
        super().__init__()
        self.model = model
        self.preprocessors = nn.ModuleDict(preprocessors)
        self.task = task
        self.views = views

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs by name, of inputs as in `signatures`."""
        tensors: dict[str, Tensor] = {}
        masks: dict[str, Tensor] = {}
        for name, preprocessor in self.preprocessors.items():
            values, mask = preprocessor(inputs[name], inputs.get(mask_name(name)))
            tensors[name] = values
            if mask is not None:
                masks[name] = mask
        return self.named_outputs(self.outputs(tensors, masks))

    def outputs(self, inputs: Tensors, masks: Tensors) -> Any:
        """Return the outputs of the model for preprocessed tensors, averaged over their views."""
        batch = TaskBatch(inputs=inputs, masks=masks, targets=None)

        def infer(one: TaskBatch) -> Any:
            return self.model(one.inputs, one.masks or None)

        return infer_views(self.task, infer, batch, self.views)

    def named_outputs(self, outputs: Any) -> dict[str, Tensor]:
        """Return the model's outputs as `logits` or `NAME_logits`, and their readable form, such as `probabilities`."""
        if isinstance(outputs, Tensor):
            found = {"logits": outputs}
        else:
            found = {f"{name}_logits": part for name, part in outputs.items()}
        readable = list(self.readable_outputs())
        if readable:
            values: Any = self.task.probabilities(outputs)
            for name, task, _ in readable:
                found[name] = values[task] if task else values
        return dict(sorted(found.items()))

    def readable_outputs(self) -> Iterator[tuple[str, str, Task]]:
        """Yield the name, the name of the task ("" of a single one) and the task of each readable output."""
        for task, part in (self.task.parts or {"": self.task}).items():
            if (output := part.export_output) is not None:
                yield f"{task}_{output.name}" if task else output.name, task, part

    def signatures(self) -> dict[str, Signature]:
        """Return the inputs by name, in the graph's order."""
        found: dict[str, Signature] = {}
        for preprocessor in self._preprocessors():
            found |= preprocessor.signatures()
        return dict(sorted(found.items()))

    def arrays(self, values: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the inputs of one sample, with a batch axis of 1, from decoded values by modality (None: missing)."""
        found: dict[str, Tensor] = {}
        for preprocessor in self._preprocessors():
            arrays = preprocessor.arrays(values.get(preprocessor.name))
            found |= {key: torch.from_numpy(array)[None] for key, array in arrays.items()}
        return dict(sorted(found.items()))

    def made(self, count: int = 3, seed: int = 0) -> dict[str, Tensor]:
        """Return random inputs of some samples."""
        rng = np.random.default_rng(seed)
        found: dict[str, Tensor] = {}
        for preprocessor in self._preprocessors():
            made = preprocessor.made(count, rng)
            found |= {key: torch.from_numpy(array) for key, array in made.items()}
        return dict(sorted(found.items()))

    def _preprocessors(self) -> list[GraphPreprocessor]:
        return cast("list[GraphPreprocessor]", list(self.preprocessors.values()))


def build_graph(saved: Saved) -> ExportGraph:
    """Return the graph to export of a saved model, whose cross-attention is `projected` from now on."""
    config = saved.config
    if config.task is None or not config.preprocess:
        raise ValueError(
            f"The model in {saved.folder} was saved without its labels or its preprocessing, so that its inputs "
            "are unknown: pv.save(predictor, folder) and `perceivers fit` save both. Or call torch.export on the model."
        )
    task = build_task(config.task)
    task.check_exportable()
    saved.model.set_attn_implementation("projected")
    names = sorted(set(config.preprocess).difference(config.task.target_modalities))
    preprocessors: dict[str, GraphPreprocessor] = {}
    for name in names:
        preprocess = one_window(config.preprocess[name])
        source = ModelInput(
            name=name,
            preprocess=preprocess,
            modality=build_modality(preprocess),
            example=cast("InputAdapter", saved.model.inputs[name]).example(1),
            is_optional=len(names) > 1,
        )
        preprocessors[name] = build_preprocessor(source)
    return ExportGraph(saved.model, preprocessors, task, config.views()).eval()


def one_window(preprocess: Any) -> Any:
    """Return the preprocessing of a single window of the model's size, also where prediction puts several together."""
    return replace(preprocess, whole=False) if getattr(preprocess, "whole", False) else preprocess
