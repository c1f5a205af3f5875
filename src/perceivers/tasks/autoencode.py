"""Autoencoding: every modality is reconstructed from the latents, by output queries."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch.nn.functional import one_hot

from perceivers.tasks.base import TaskBatch
from perceivers.tasks.classification import ClassificationTask
from perceivers.tasks.config import OutputPart, TargetInfo
from perceivers.tasks.reconstruction import ReconstructionConfig, reconstruction_cells
from perceivers.tasks.reconstruction_task import (
    LABEL,
    ReconstructionTargets,
    ReconstructionTask,
    ReconstructionTaskConfig,
)
from perceivers.tasks.registry import register_task
from perceivers.typing import Tensor, Tensors


@dataclass(frozen=True, kw_only=True)
class AutoencodeConfig(ReconstructionTaskConfig):
    """Modalities that are reconstructed, and their weights.

    Attributes:
        parts: Reconstruction of each modality, by its name.
        label_weight: Weight of the cross-entropy of the class, which is then one more input in training, never in
            evaluation. None: labels of the data are not used.
        label_names: Name of each class. () until the data are known.
    """

    kind: Literal["autoencode"] = "autoencode"
    parts: dict[str, ReconstructionConfig] = field(default_factory=dict[str, ReconstructionConfig])
    label_weight: float | None = None
    label_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ReconstructionTaskConfig.__post_init__(self)
        if self.label_weight is not None and self.label_weight < 0:
            raise ValueError(
                f"Expected a label_weight of at least 0, or None, got {self.label_weight}."
            )

    @property
    def target_kind(self) -> str:
        """The label column holds classes if they are learned."""
        return "nothing" if self.label_weight is None else "class"

    @property
    def output_names(self) -> tuple[str, ...]:
        """Name of each class."""
        return self.label_names

    def fit_to(self, target: TargetInfo) -> "AutoencodeConfig":
        """Return the configuration with the names of the classes, if they are learned."""
        return self if self.label_weight is None else replace(self, label_names=target.names)

    def output_parts(self) -> dict[str, OutputPart]:
        """Return one output for each modality, with a query for each patch, and one for the class."""
        parts = super().output_parts()
        if self.label_weight is not None:
            parts[LABEL] = OutputPart(num_outputs=len(self.label_names))
        return parts


class AutoencodeTask(ReconstructionTask):
    """Reconstruction of all modalities from the latents, and the class of a sample.

    Reference: Perceiver IO (arXiv:2107.14795), section 4.3 and appendix I.
    """

    config: AutoencodeConfig

    def __init__(self, config: AutoencodeConfig) -> None:
        super().__init__(config)
        self.label_weight = config.label_weight
        if config.label_weight is not None:
            self.answer_fields = ClassificationTask.answer_fields

    def prepare_batch(
        self, inputs: Tensors, masks: Tensors, targets: Any, *, training: bool
    ) -> TaskBatch:
        """Return the inputs, with the class as one of them in training, and the targets of the output queries.

        In training the class is dropped at the rate of the model's fusion (`modality_dropout`), otherwise always.
        In training some queries of each modality are drawn; otherwise all are used.
        """
        inputs = {name: x for name, x in inputs.items() if name != LABEL}
        values: dict[str, Tensor] = {}
        real: dict[str, Tensor] = {}
        index: dict[str, Tensor] = {}
        for name, part in self.config.parts.items():
            if name not in inputs:
                continue
            cells, present = reconstruction_cells(part, inputs[name], masks.get(name))
            most = part.num_train_queries if training else None
            chosen = self.drawn(cells.shape[1], most, cells.device)
            if chosen is not None:
                index[name] = chosen
                cells, present = cells[:, chosen], None if present is None else present[:, chosen]
            values[name] = cells
            if present is not None:
                real[name] = present
        label = None
        if (
            targets is not None and self.config.label_weight is not None
        ):  # else classes are not learned
            label = (
                targets.float()
                if targets.ndim == 2
                else one_hot(targets.long(), self.num_outputs).float()
            )
        if training and label is not None:
            inputs[LABEL] = label
        masks = {name: mask for name, mask in masks.items() if name != LABEL}
        wanted = ReconstructionTargets(values=values, real=real, label=label)
        return TaskBatch(inputs=inputs, masks=masks, targets=wanted, index=index)

    def example_targets(self, batch_size: int, *, mixed: bool) -> Tensor | None:
        """Return shares of classes, if classes are learned."""
        if self.config.label_weight is None:
            return None
        return torch.full((batch_size, self.num_outputs), 1 / self.num_outputs)


register_task(AutoencodeConfig, AutoencodeTask)
