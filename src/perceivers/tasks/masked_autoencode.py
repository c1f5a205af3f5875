"""Masked autoencoding: a share of each sample is hidden from the model, which predicts it from the rest."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

import torch

from perceivers.tasks.base import PredictionRequest, TaskBatch
from perceivers.tasks.masking import HiddenPart, MaskingConfig
from perceivers.tasks.masking_elements import ElementLayout
from perceivers.tasks.prediction import Reconstruction
from perceivers.tasks.reconstruction_task import (
    ReconstructionTargets,
    ReconstructionTask,
    ReconstructionTaskConfig,
)
from perceivers.tasks.registry import register_task
from perceivers.typing import Bool, Float, Tensor, Tensors

# Augmentation that mixes samples, or hides parts that are targets here.
_UNUSED_AUGMENT = {
    "mixup": 0.0,
    "cutmix": False,
    "cutout": 0.0,
    "time_masks": 0,
    "frequency_masks": 0,
    "time_mask": 0.0,
    "drop_channels": 0.0,
    "mask": 0.0,
    "word_dropout": 0.0,
    "drop": 0.0,
}


@dataclass(frozen=True, kw_only=True)
class MaskedAutoencodeConfig(ReconstructionTaskConfig):
    """Modalities of which parts are hidden and predicted.

    Attributes:
        parts: Masking of each modality, by its name.
        modality_dropout: Of several modalities, share of the samples of which one is hidden as a whole.
    """

    pretrains: ClassVar[bool] = True
    next_commands: ClassVar[tuple[str, ...]] = (
        "fit DATA --init-from RUN",
        "probe RUN DATA",
        "predict RUN FILE... --save FOLDER",
        "report RUN",
    )

    kind: Literal["masked_autoencode"] = "masked_autoencode"
    parts: dict[str, MaskingConfig] = field(default_factory=dict[str, Any])
    modality_dropout: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.modality_dropout < 1.0:
            raise ValueError(f"Expected a modality_dropout in [0, 1), got {self.modality_dropout}.")

    @property
    def needs_layout(self) -> bool:
        """Whether single elements of a modality are hidden."""
        return any(hasattr(part, "fit_to_layout") for part in self.parts.values())

    def fit_to_layout(self, layout: ElementLayout) -> Self:
        """Return the configuration with the elements and groups of each modality that is hidden by elements."""
        parts = {
            name: part.fit_to_layout(name, layout) if hasattr(part, "fit_to_layout") else part
            for name, part in self.parts.items()
        }
        return replace(self, parts=parts)

    def fit_augment(self, augment: Mapping[str, Any]) -> dict[str, Any]:
        """Return the augmentation without what mixes samples or hides parts of them."""
        return {
            name: part.__class__(
                **{
                    key: _UNUSED_AUGMENT.get(key, getattr(part, key))
                    for key in part.__dataclass_fields__
                }
            )
            for name, part in augment.items()
        }


@dataclass(frozen=True, kw_only=True)
class MaskedAutoencodeTargets(ReconstructionTargets):
    """Targets of the output queries, and the samples as they were.

    Attributes:
        given: Each modality before its parts were hidden.
        masks: Masks of these.
        parts: Each modality with its parts hidden, and all of its targets.
    """

    given: Tensors = field(default_factory=dict[str, Tensor])
    masks: Tensors = field(default_factory=dict[str, Tensor])
    parts: Mapping[str, HiddenPart] = field(default_factory=dict[str, HiddenPart])


class MaskedAutoencodeTask(ReconstructionTask):
    """Prediction of the hidden part of each sample from the rest. The loss counts hidden values only.

    In training other parts are hidden each time. Otherwise they follow from the values of a sample, so that losses of
    different epochs and runs are comparable.

    Reference: masked autoencoders (arXiv:2111.06377) in the form of Perceiver IO (arXiv:2107.14795), section 4.1, whose
    encoder receives elements of hidden values, too.
    """

    config: MaskedAutoencodeConfig

    def prepare_batch(
        self,
        inputs: Tensors,
        masks: Tensors,
        targets: Any,
        *,
        training: bool,
    ) -> TaskBatch:
        """Return the inputs with parts of them hidden, and the targets of the output queries. Labels are ignored."""
        shown, seen = dict(inputs), dict(masks)
        values: dict[str, Tensor] = {}
        real: dict[str, Tensor] = {}
        index: dict[str, Tensor] = {}
        hidden: dict[str, HiddenPart] = {}
        known = {name: part for name, part in self.config.parts.items() if name in inputs}
        seeds = None if training else _sample_generators(inputs, masks)
        dropped = self._dropped(inputs, masks, tuple(known), seeds)
        for name, part in known.items():
            x, mask = inputs[name], masks.get(name)
            scores = _draws(x.shape[0], part.num_units, seeds).to(x.device)
            units = part.draw(x, mask, scores)
            whole = dropped.get(name)
            if whole is not None:
                units = units | whole[:, None]
            one = part.hide(x, mask, units)
            shown[name] = one.x
            if one.mask is not None:
                seen[name] = one.mask
            if whole is not None and not part.keeps_elements:
                there = torch.ones_like(whole)[:, None] if one.mask is None else one.mask
                seen[name] = there & ~whole[:, None]
            hidden[name], values[name], real[name] = one, one.values, one.hidden
            most = part.num_train_queries if training else None
            chosen = self.drawn(one.values.shape[1], most, x.device)
            if chosen is not None:
                index[name] = chosen
                values[name], real[name] = one.values[:, chosen], one.hidden[:, chosen]
        wanted = MaskedAutoencodeTargets(
            values=values, real=real, given=inputs, masks=masks, parts=hidden
        )
        return TaskBatch(inputs=shown, masks=seen, targets=wanted, index=index)

    def _dropped(
        self,
        inputs: Tensors,
        masks: Tensors,
        names: tuple[str, ...],
        seeds: list[torch.Generator] | None,
    ) -> dict[str, Bool[Tensor, " B"]]:
        """Return the samples in which a modality is hidden as a whole, by its name; one of several that are there."""
        if len(inputs) < 2 or not self.config.modality_dropout:
            return {}
        x = next(iter(inputs.values()))
        draws = _draws(x.shape[0], 1 + len(names), seeds).to(x.device)
        there = torch.stack(
            [
                masks[name].any(dim=1) if name in masks else torch.ones_like(draws[:, 0]) > 0
                for name in names
            ],
            dim=1,
        )
        picked = draws[:, 1:].masked_fill(~there, -1.0).argmax(dim=1)
        drops = (draws[:, 0] < self.config.modality_dropout) & (there.sum(dim=1) > 1)
        return {name: drops & (picked == place) for place, name in enumerate(names)}

    def reconstructions(
        self, name: str, outputs: Tensor, request: PredictionRequest
    ) -> list[Reconstruction]:
        """Return one modality of each sample of a prediction, and the same with hidden parts filled."""
        targets: MaskedAutoencodeTargets = request.batch.targets
        return self.config.parts[name].restored(
            request.preprocess[name],
            targets.given[name],
            targets.masks.get(name),
            targets.parts[name],
            outputs,
        )


def _draws(batch: int, count: int, seeds: list[torch.Generator] | None) -> Float[Tensor, "B n"]:
    """Return numbers in [0, 1): of each sample's own generator, or of the global one."""
    if seeds is None:
        return torch.rand(batch, count)
    return torch.stack([torch.rand(count, generator=seed) for seed in seeds])


def _sample_generators(inputs: Tensors, masks: Tensors) -> list[torch.Generator]:
    """Return a generator for each sample that follows from its real values, independent of its batch and padding."""
    seeds = [0] * next(iter(inputs.values())).shape[0]
    for name in sorted(inputs):
        x = inputs[name].detach().cpu()
        mask = masks[name].cpu() if name in masks else None
        for row, seed in enumerate(seeds):
            values = x[row]
            if mask is not None:
                values = (
                    values[mask[row].expand(values.shape[0])] if mask[row].any() else values[:0]
                )
            seeds[row] = zlib.crc32(values.contiguous().numpy().tobytes(), seed)
    return [torch.Generator().manual_seed(seed) for seed in seeds]


register_task(MaskedAutoencodeConfig, MaskedAutoencodeTask)
