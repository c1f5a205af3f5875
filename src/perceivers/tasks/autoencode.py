"""Autoencoding: everything that the model was shown is asked for again, from the latents alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from pydantic import ConfigDict
from torch.nn.functional import cross_entropy, one_hot

from perceivers.tasks.base import Details, Question
from perceivers.tasks.reconstruction import ReconstructionConfig, cells_of, in_units, psnr
from perceivers.typing import Bool, Float, Tensor

__all__ = [
    "LABEL",
    "AutoencodeConfig",
    "AutoencodeMeter",
    "AutoencodeTargets",
    "AutoencodeTask",
    "by_name",
]

LABEL = "label"
"""Name of the input and of the output that hold the class of a sample."""


@dataclass(frozen=True, kw_only=True)
class AutoencodeConfig:
    """What is reconstructed, and how much each part counts.

    Attributes:
        parts: How each modality is reconstructed, by its name.
        label_weight: Of the cross-entropy of the class, which the model then reads as one more input in training,
            never in evaluation. None: labels of the data are not looked at.
        label_names: Name of each class. () until the data are known.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Literal["autoencode"] = "autoencode"
    parts: dict[str, ReconstructionConfig] = field(default_factory=dict[str, ReconstructionConfig])
    label_weight: float | None = None
    label_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a task of nothing, and a class that is weighed by less than nothing."""
        if not self.parts or LABEL in self.parts:
            msg = (
                "Expected at least one modality to reconstruct in parts={name: ReconstructionConfig(...)}, beside the "
                f"label, whose weight is label_weight; got {', '.join(self.parts) or 'none'}."
            )
            raise ValueError(msg)
        if self.label_weight is not None and self.label_weight < 0:
            msg = f"Expected a label_weight of at least 0, or None, got {self.label_weight}."
            raise ValueError(msg)


@dataclass(frozen=True, kw_only=True)
class AutoencodeTargets:
    """What the answers are held against.

    Attributes:
        values: Of each modality, B x O x V: for each query that is asked the values that it answers for.
        real: Of the modalities that were padded, are missing in some samples or hold gaps: where values are real.
        label: The share of each class, B x K. None: nothing is known.
    """

    values: dict[str, Float[Tensor, "B _ _"]]
    real: dict[str, Bool[Tensor, "B _ _"]] = field(default_factory=dict[str, Tensor])
    label: Float[Tensor, "B K"] | None = None


class AutoencodeTask:
    """Learns to give back what it has read; the latents are what is left of it in between.

    Args:
        config: What is reconstructed.

    Source: Perceiver IO (arXiv:2107.14795), section 4.3 and appendix I.
    """

    higher_is_better = True
    score_name = "psnr"

    def __init__(self, config: AutoencodeConfig) -> None:
        self.config = config
        self.main_part = max(config.parts, key=lambda name: _num_values(config.parts[name]))
        self.main_metric = f"{self.main_part}_psnr"

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each class. None where labels are not learned."""
        return self.config.label_names

    @property
    def num_outputs(self) -> int:
        """Classes."""
        return len(self.config.label_names)

    def pose(
        self,
        inputs: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        targets: Tensor | None,
        *,
        training: bool,
    ) -> Question:
        """Return the inputs, with the class as one of them in training, and all of it as what is asked.

        A sample's class is hidden in training as the model's fusion says (`modality_dropout`), otherwise always.
        In training some queries of each modality are drawn; otherwise all are asked.
        """
        shown = {name: x for name, x in inputs.items() if name != LABEL}
        values: dict[str, Tensor] = {}
        real: dict[str, Tensor] = {}
        index: dict[str, Tensor] = {}
        for name, part in self.config.parts.items():
            if name not in shown:
                continue
            cells, there = cells_of(part, shown[name], masks.get(name))
            count = cells.shape[1]
            if training and part.queries is not None and part.queries < count:
                drawn = torch.randperm(count, device=cells.device)[: part.queries]
                index[name] = drawn
                cells, there = cells[:, drawn], None if there is None else there[:, drawn]
            values[name] = cells
            if there is not None:
                real[name] = there
        label = self._shares(targets)
        if training and label is not None:
            shown[LABEL] = label
        masks = {name: mask for name, mask in masks.items() if name != LABEL}
        answers = AutoencodeTargets(values=values, real=real, label=label)
        return Question(inputs=shown, masks=masks, targets=answers, index=index)

    def loss(self, outputs: Any, targets: AutoencodeTargets) -> Float[Tensor, ""]:
        """Return the weighted sum of the mean errors of each modality and of the class."""
        answers = by_name(self.config, outputs)
        total = torch.zeros((), device=next(iter(answers.values())).device)
        for name, wanted in targets.values.items():
            part = self.config.parts[name]
            error = _float(answers[name]) - wanted
            error = error.abs() if part.loss == "l1" else error.square()
            total = total + part.weight * _mean(error, targets.real.get(name))
        if targets.label is not None and self.config.label_weight is not None:
            nats = cross_entropy(_float(answers[LABEL]), targets.label)
            total = total + self.config.label_weight * nats
        return total

    def probabilities(self, outputs: Any) -> dict[str, Tensor]:
        """Return each modality's reconstruction in the data's own units, B x O x V, and each class's probability."""
        return {
            name: _float(answer).softmax(dim=-1)
            if name == LABEL
            else in_units(self.config.parts[name], _float(answer))
            for name, answer in by_name(self.config, outputs).items()
        }

    def combine(self, outputs: Any) -> Any:
        """Refuse: what different clips look like has no mean.

        Raises:
            ValueError: Always.
        """
        del outputs
        msg = "A reconstruction is of one clip: expected --clips 1 of a run that autoencodes."
        raise ValueError(msg)

    def training_score(self, outputs: Any, targets: AutoencodeTargets) -> Float[Tensor, ""]:
        """Return the sum over samples of the PSNR of the modality with the most values, over the queries asked."""
        name = self.main_part
        if name not in targets.values:
            return torch.zeros(())
        errors, there = self.errors(name, by_name(self.config, outputs)[name], targets)
        return torch.where(there, psnr(errors, self.config.parts[name].peak), 0.0).sum()

    def errors(
        self, name: str, answers: Float[Tensor, "B O V"], targets: AutoencodeTargets
    ) -> tuple[Float[Tensor, " B"], Bool[Tensor, " B"]]:
        """Return the mean squared error of each sample in the data's own units, clipped; and where there is one."""
        part, real = self.config.parts[name], targets.real.get(name)
        wanted = in_units(part, targets.values[name])
        squares = (in_units(part, _float(answers)) - wanted).square()
        if real is None:
            return squares.mean(dim=(1, 2)), torch.ones_like(squares[:, 0, 0], dtype=torch.bool)
        count = real.sum(dim=(1, 2))
        return (squares * real).sum(dim=(1, 2)) / count.clamp_min(1), count > 0

    def meter(self) -> "AutoencodeMeter":
        """Return a fresh meter."""
        return AutoencodeMeter(self)

    def _shares(self, targets: Tensor | None) -> Float[Tensor, "B K"] | None:
        """Return classes as shares of each; None where they are not learned."""
        if targets is None or self.config.label_weight is None:
            return None
        if targets.ndim == 2:  # samples that were mixed
            return targets.float()
        return one_hot(targets.long(), self.num_outputs).float()


class AutoencodeMeter:
    """Means over samples: of each one's error and of its PSNR.

    Args:
        task: Whose answers are measured.
    """

    def __init__(self, task: AutoencodeTask) -> None:
        self.task = task
        self.sums = {name: torch.zeros(3, dtype=torch.float64) for name in task.config.parts}
        self.counts = torch.zeros(4, dtype=torch.float64)  # loss, right, of those asked, samples

    def update(self, outputs: Any, targets: AutoencodeTargets) -> None:
        """Take in one batch: the answers to all queries, and what they are held against."""
        answers = by_name(self.task.config, outputs)
        size = next(iter(answers.values())).shape[0]
        for name in targets.values:
            errors, there = self.task.errors(name, answers[name], targets)
            errors = errors[there]
            decibels = psnr(errors, self.task.config.parts[name].peak)
            row = (decibels.sum().item(), errors.sum().item(), float(len(errors)))
            self.sums[name] += torch.tensor(row, dtype=torch.float64)
        right = asked = 0.0
        if targets.label is not None and LABEL in answers:
            told = answers[LABEL].argmax(dim=-1) == targets.label.argmax(dim=-1)
            right, asked = told.sum().item(), float(size)
        loss = size * self.task.loss(outputs, targets).item()
        self.counts += torch.tensor([loss, right, asked, float(size)], dtype=torch.float64)

    def state(self) -> dict[str, Any]:
        """Return the sums."""
        return {"sums": self.sums, "counts": self.counts}

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Hold the samples of these meters."""
        self.sums = {
            name: torch.stack([state["sums"][name] for state in states]).sum(dim=0)
            for name in self.sums
        }
        self.counts = torch.stack([state["counts"] for state in states]).sum(dim=0)

    def compute(self) -> dict[str, float]:
        """Return the metrics.

        Of each modality `..._psnr`: the mean over samples of 10 log10(peak² / error), in dB, and `..._mse`: the mean
        of the errors; both in the data's own units, after clipping. `label_accuracy`: share of the classes that are
        told from the other modalities alone. `loss`: as in training. `samples`: how many.
        """
        loss, right, asked, samples = self.counts.tolist()
        found: dict[str, float] = {}
        for name, sums in self.sums.items():
            decibels, error, count = sums.tolist()
            found[f"{name}_psnr"] = decibels / max(count, 1.0)
            found[f"{name}_mse"] = error / max(count, 1.0)
        if asked:
            found["label_accuracy"] = right / asked
        return {**found, "loss": loss / max(samples, 1.0), "samples": samples}

    def details(self) -> Details:
        """Return nothing: the metrics tell each modality."""
        return []


def by_name(config: AutoencodeConfig, outputs: Any) -> dict[str, Tensor]:
    """Return the answers by name, also those of a model that gives a single one."""
    if isinstance(outputs, Mapping):
        return dict(outputs)
    return {next(iter(config.parts)): outputs}


def _float(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))  # float64 stays


def _mean(errors: Float[Tensor, "B O V"], real: Bool[Tensor, "B O V"] | None) -> Float[Tensor, ""]:
    if real is None:
        return errors.mean()
    return (errors * real).sum() / real.sum().clamp_min(1)


def _num_values(part: ReconstructionConfig) -> int:
    return math.prod(part.size or ()) * (part.num_channels or 1)
