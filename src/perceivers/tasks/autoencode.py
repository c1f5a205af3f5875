"""Autoencoding: every modality is reconstructed from the latents, by output queries."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch.nn.functional import cross_entropy, one_hot

from perceivers.tasks.base import PredictionRequest, Task, TaskBatch, to_float
from perceivers.tasks.classification import ClassificationTask
from perceivers.tasks.config import BaseTaskConfig, OutputPart, TargetInfo
from perceivers.tasks.intervals import BootstrapSums, Interval, wilson_interval
from perceivers.tasks.meters import Baseline, Meter
from perceivers.tasks.prediction import Prediction, Reconstruction, class_predictions
from perceivers.tasks.reconstruction import (
    ReconstructionConfig,
    psnr,
    reconstruction_cells,
    restored_samples,
    to_data_units,
)
from perceivers.tasks.registry import register_task
from perceivers.typing import Bool, Float, Tensor, Tensors

LABEL = "label"
"""Name of the input and of the output that hold the class of a sample."""


@dataclass(frozen=True, kw_only=True)
class AutoencodeConfig(BaseTaskConfig):
    """Modalities that are reconstructed, and their weights.

    Attributes:
        parts: Reconstruction of each modality, by its name.
        label_weight: Weight of the cross-entropy of the class, which is then one more input in training, never in
            evaluation. None: labels of the data are not used.
        label_names: Name of each class. () until the data are known.
    """

    reports_compression = True
    supports_clips = False

    kind: Literal["autoencode"] = "autoencode"
    parts: dict[str, ReconstructionConfig] = field(default_factory=dict[str, ReconstructionConfig])
    label_weight: float | None = None
    label_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.parts or LABEL in self.parts:
            raise ValueError(
                "Expected at least one modality to reconstruct in parts={name: ReconstructionConfig(...)}, beside the "
                f"label, whose weight is label_weight; got {', '.join(self.parts) or 'none'}."
            )
        if self.label_weight is not None and self.label_weight < 0:
            raise ValueError(
                f"Expected a label_weight of at least 0, or None, got {self.label_weight}."
            )

    @property
    def target_kind(self) -> str:
        """The label column holds classes if they are learned."""
        return "nothing" if self.label_weight is None else "class"

    @property
    def requires_labels(self) -> bool:
        """Samples without a label can be reconstructed."""
        return False

    @property
    def output_names(self) -> tuple[str, ...]:
        """Name of each class."""
        return self.label_names

    def fit_to(self, target: TargetInfo) -> "AutoencodeConfig":
        """Return the configuration with the names of the classes, if they are learned."""
        return self if self.label_weight is None else replace(self, label_names=target.names)

    def fit_to_inputs(
        self, inputs: Mapping[str, Any], preprocess: Mapping[str, Any]
    ) -> "AutoencodeConfig":
        """Return the configuration with the sizes and units of each modality."""
        units = {name: config.value_units() for name, config in preprocess.items()}
        parts = {
            name: replace(part, **_extent(name, inputs[name]), **units.get(name, {}))
            for name, part in self.parts.items()
        }
        return replace(self, parts=parts)

    def output_parts(self) -> dict[str, OutputPart]:
        """Return one output for each modality, with a query for each patch, and one for the class."""
        parts = {
            name: OutputPart(
                num_outputs=math.prod(part.patch) * (part.num_channels or 1), grid=part.grid
            )
            for name, part in self.parts.items()
        }
        if self.label_weight is not None:
            parts[LABEL] = OutputPart(num_outputs=len(self.label_names))
        return parts


@dataclass(frozen=True, kw_only=True)
class AutoencodeTargets:
    """Targets of the output queries.

    Attributes:
        values: Values of each query, B x O x V, for each modality.
        real: True where values are real, for the modalities that were padded, are missing in some samples or have gaps.
        label: Share of each class, B x K. None: unknown.
    """

    values: dict[str, Float[Tensor, "B _ _"]]
    real: dict[str, Bool[Tensor, "B _ _"]] = field(default_factory=dict[str, Tensor])
    label: Float[Tensor, "B K"] | None = None


class AutoencodeTask(Task):
    """Reconstruction of all modalities from the latents, and the class of a sample.

    Reference: Perceiver IO (arXiv:2107.14795), section 4.3 and appendix I.
    """

    config: AutoencodeConfig
    score_name = "psnr"
    has_baseline = True
    optional_answer_fields = ("values", "images")

    def __init__(self, config: AutoencodeConfig) -> None:
        super().__init__(config)
        if config.label_weight is not None:
            self.answer_fields = ClassificationTask.answer_fields
        self.main_part = max(config.parts, key=lambda name: config.parts[name].num_values)
        self.main_metric = f"{self.main_part}_psnr"

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
            count, drawn = cells.shape[1], part.num_train_queries
            if training and drawn is not None and drawn < count:
                chosen = torch.randperm(count, device=cells.device)[:drawn]
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
        wanted = AutoencodeTargets(values=values, real=real, label=label)
        return TaskBatch(inputs=inputs, masks=masks, targets=wanted, index=index)

    def prediction_batch(self, inputs: Tensors, masks: Tensors) -> TaskBatch:
        """Return the batch of a prediction, with the inputs as targets."""
        return self.prepare_batch(inputs, masks, None, training=False)

    def loss(self, outputs: Any, targets: AutoencodeTargets) -> Float[Tensor, ""]:
        """Return the weighted sum of the mean errors of each modality and of the class."""
        named = self.named_outputs(outputs)
        total = torch.zeros((), device=next(iter(named.values())).device)
        for name, values in targets.values.items():
            part = self.config.parts[name]
            error = to_float(named[name]) - values
            error = error.abs() if part.loss == "l1" else error.square()
            total = total + part.weight * _mean(error, targets.real.get(name))
        if targets.label is not None and self.config.label_weight is not None:
            nats = cross_entropy(to_float(named[LABEL]), targets.label)
            total = total + self.config.label_weight * nats
        return total

    def probabilities(self, outputs: Any) -> dict[str, Tensor]:
        """Return each modality's reconstruction in the data's units, B x O x V, and each class's probability."""
        return {
            name: to_float(output).softmax(dim=-1)
            if name == LABEL
            else to_data_units(self.config.parts[name], to_float(output))
            for name, output in self.named_outputs(outputs).items()
        }

    def combine(self, outputs: Any) -> Any:
        """Refuse: different clips have no meaningful mean."""
        raise ValueError(
            "A reconstruction is of one clip: expected --clips 1 of a run that autoencodes."
        )

    def average_members(self, outputs: Any) -> Any:
        """Return the mean of the reconstructions."""
        if isinstance(outputs, Mapping):
            return {name: part.float().mean(dim=1) for name, part in outputs.items()}
        return outputs.float().mean(dim=1)

    def training_score(self, outputs: Any, targets: AutoencodeTargets) -> Float[Tensor, ""]:
        """Return the sum over samples of the PSNR of the modality with the most values, over the drawn queries."""
        name = self.main_part
        if name not in targets.values:
            return torch.zeros(())
        errors, present = self.errors(name, self.named_outputs(outputs)[name], targets)
        return torch.where(present, psnr(errors, self.config.parts[name].peak), 0.0).sum()

    def errors(
        self, name: str, outputs: Float[Tensor, "B O V"], targets: AutoencodeTargets
    ) -> tuple[Float[Tensor, " B"], Bool[Tensor, " B"]]:
        """Return the mean squared error of each sample in the data's units, clipped; and whether it has values."""
        part, real = self.config.parts[name], targets.real.get(name)
        values = to_data_units(part, targets.values[name])
        squares = (to_data_units(part, to_float(outputs)) - values).square()
        if real is None:
            return squares.mean(dim=(1, 2)), torch.ones_like(squares[:, 0, 0], dtype=torch.bool)
        count = real.sum(dim=(1, 2))
        return (squares * real).sum(dim=(1, 2)) / count.clamp_min(1), count > 0

    def meter(self) -> "AutoencodeMeter":
        """Return a new meter."""
        return AutoencodeMeter(self)

    def predictions(self, outputs: Any, request: PredictionRequest) -> Iterator[Prediction]:
        """Yield the reconstructions of each sample, their PSNR, and the most probable class."""
        batch, names = request.batch, request.names
        targets, named = batch.targets, self.named_outputs(outputs)
        decibels: dict[str, list[float | None]] = {}
        pairs: dict[str, list[Reconstruction]] = {}
        for name, part in self.config.parts.items():
            if name not in targets.values:
                continue
            errors, present = self.errors(name, named[name], targets)
            found = psnr(errors, part.peak).tolist()
            decibels[name] = [d if is_in else None for d, is_in in zip(found, present, strict=True)]
            inputs, mask = batch.inputs[name], batch.masks.get(name)
            pairs[name] = restored_samples(
                part, request.preprocess[name], inputs, mask, named[name]
            )
        classes: Iterator[Prediction] = iter(Prediction(name=name) for name in names)
        if LABEL in named:
            probabilities = named[LABEL].float().softmax(dim=-1).cpu()
            classes = class_predictions(names, self.names, probabilities, top=request.top)
        for row, one in enumerate(classes):
            measured = {name: d[row] for name, d in decibels.items()}
            yield replace(
                one,
                values={f"{name}_psnr": d for name, d in measured.items() if d is not None},
                reconstructions={
                    name: pairs[name][row] for name, d in measured.items() if d is not None
                },
            )

    def example_targets(self, batch_size: int, *, mixed: bool) -> Tensor | None:
        """Return shares of classes, if classes are learned."""
        if self.config.label_weight is None:
            return None
        return torch.full((batch_size, self.num_outputs), 1 / self.num_outputs)

    def fit_baseline(self, batches: Iterable[TaskBatch]) -> "MeanBaseline":
        """Return the mean of every value over the training split."""
        return MeanBaseline(self, batches)

    def remarks(self, *, has_baseline: bool) -> list[str]:
        """Return the peaks and the baseline of PSNR."""
        peaks = ", ".join(f"{part.peak:g} of {name}" for name, part in self.config.parts.items())
        return [
            f"PSNR is relative to a peak of {peaks}: pixels are in [0, 1], samples in [-1, 1], others in deviations.",
            "..._mean_psnr is the PSNR of the mean of every value over the training split."
            if has_baseline
            else "The training data are not available, so that the PSNR of their mean is not measured.",
        ]

    def explained_output(
        self, inputs: Tensors, masks: Tensors, outputs: Any, query: int | None
    ) -> tuple[tuple[str, ...], Float[Tensor, " n"]]:
        """Return the PSNR of each modality in dB."""
        targets = self.prediction_batch(inputs, masks).targets
        named = self.named_outputs(outputs)
        found = {
            f"{name}_psnr": psnr(
                self.errors(name, named[name], targets)[0], self.config.parts[name].peak
            )
            for name in targets.values
        }
        return tuple(found), torch.cat(list(found.values()))

    def named_outputs(self, outputs: Any) -> dict[str, Tensor]:
        """Return the outputs by name, also those of a model with a single one."""
        if isinstance(outputs, Mapping):
            return dict(outputs)
        return {next(iter(self.config.parts)): outputs}


class AutoencodeMeter(Meter):
    """Means over samples of each modality's error and PSNR."""

    def __init__(self, task: AutoencodeTask) -> None:
        self.task = task
        self.sums = {name: torch.zeros(3, dtype=torch.float64) for name in task.config.parts}
        self.counts = torch.zeros(4, dtype=torch.float64)  # loss, correct, labeled, samples
        # Of each sample: PSNR, error and 1 of each modality, 0 where it is missing.
        self.samples = BootstrapSums(3 * len(task.config.parts))

    def update(self, outputs: Any, targets: AutoencodeTargets) -> None:
        """Add one batch: the outputs of all queries and their targets."""
        named = self.task.named_outputs(outputs)
        size = next(iter(named.values())).shape[0]
        each = {name: torch.zeros(size, 3, dtype=torch.float64) for name in self.sums}
        for name in targets.values:
            errors, present = self.task.errors(name, named[name], targets)
            errors = errors[present]
            decibels = psnr(errors, self.task.config.parts[name].peak)
            row = (decibels.sum().item(), errors.sum().item(), float(len(errors)))
            self.sums[name] += torch.tensor(row, dtype=torch.float64)
            values = torch.stack([decibels, errors, torch.ones_like(errors)], dim=1)
            each[name][present.cpu()] = values.detach().cpu().double()
        self.samples.add(torch.cat(list(each.values()), dim=1))
        correct = labeled = 0.0
        if targets.label is not None and LABEL in named:
            hits = named[LABEL].argmax(dim=-1) == targets.label.argmax(dim=-1)
            correct, labeled = hits.sum().item(), float(size)
        loss = size * self.task.loss(outputs, targets).item()
        self.counts += torch.tensor([loss, correct, labeled, float(size)], dtype=torch.float64)

    def state(self) -> dict[str, Any]:
        """Return the sums."""
        return {"sums": self.sums, "counts": self.counts, "samples": self.samples.state()}

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Replace the sums by those of these meters added up."""
        self.sums = {
            name: torch.stack([state["sums"][name] for state in states]).sum(dim=0)
            for name in self.sums
        }
        self.counts = torch.stack([state["counts"] for state in states]).sum(dim=0)
        self.samples.merge([state["samples"] for state in states])

    def compute(self) -> dict[str, float]:
        """Return the metrics.

        For each modality `..._psnr`: the mean over samples of 10 log10(peak² / error), in dB, and `..._mse`: the mean
        error; both in the data's units, after clipping. `label_accuracy`: share of the classes that are predicted from
        the other modalities alone. `loss`: as in training. `samples`: their number.
        """
        loss, correct, labeled, samples = self.counts.tolist()
        found: dict[str, float] = {}
        for name, sums in self.sums.items():
            decibels, error, count = sums.tolist()
            found[f"{name}_psnr"] = decibels / max(count, 1.0)
            found[f"{name}_mse"] = error / max(count, 1.0)
        if labeled:
            found["label_accuracy"] = correct / labeled
        return {**found, "loss": loss / max(samples, 1.0), "samples": samples}

    def proportions(self) -> dict[str, Interval]:
        """Return the interval of `label_accuracy`."""
        _, correct, labeled, _ = self.counts.tolist()
        return {"label_accuracy": wilson_interval(correct, labeled)} if labeled else {}

    def intervals(self) -> dict[str, Interval]:
        """Return that of `label_accuracy`, and bootstrap intervals of the others."""
        return self.samples.intervals(self._resampled) | self.proportions()

    def _resampled(self, rows: Float[Tensor, "R S"]) -> dict[str, Float[Tensor, " R"]]:
        found: dict[str, Tensor] = {}
        for name, part in zip(self.sums, rows.split(3, dim=1), strict=True):
            decibels, error, count = part.unbind(dim=1)
            found |= {f"{name}_psnr": decibels / count, f"{name}_mse": error / count}
        return found


class MeanBaseline(Baseline):
    """The mean of every value over the training split, measured as if it were the reconstruction of every sample."""

    def __init__(self, task: AutoencodeTask, batches: Iterable[TaskBatch]) -> None:
        self._task = task
        sums: dict[str, Tensor] = {}
        counts: dict[str, Tensor] = {}
        for batch in batches:
            for name, values in batch.targets.values.items():
                real = batch.targets.real.get(name, torch.ones_like(values, dtype=torch.bool))
                sums[name] = sums.get(name, 0.0) + (values * real).sum(dim=0, dtype=torch.float64)
                counts[name] = counts.get(name, 0) + real.sum(dim=0)
        self.means: dict[str, Float[Tensor, "O V"]] = {
            name: (sums[name] / counts[name].clamp_min(1)).float() for name in sums
        }
        self._sums = {name: torch.zeros(2, dtype=torch.float64) for name in self.means}

    def update(self, targets: AutoencodeTargets) -> None:
        """Add the targets of one batch."""
        for name, values in targets.values.items():
            if name not in self.means:
                continue
            outputs = self.means[name].to(values.device).expand_as(values)
            errors, present = self._task.errors(name, outputs, targets)
            decibels = psnr(errors[present], self._task.config.parts[name].peak)
            row = [decibels.sum().item(), float(len(decibels))]
            self._sums[name] += torch.tensor(row, dtype=torch.float64)

    def add_to(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return metrics with each modality's `..._mean_psnr` after its `..._psnr`."""
        found: dict[str, float] = {}
        for key, value in metrics.items():
            found[key] = value
            name = key.removesuffix("_psnr")
            if name != key and name in self._sums:
                decibels, count = self._sums[name].tolist()
                found[f"{name}_mean_psnr"] = decibels / max(count, 1.0)
        return found


def _extent(name: str, part: Any) -> dict[str, Any]:
    """Return size and channels of a modality, from its input configuration."""
    grid = getattr(part, "value_grid", None)
    if grid is None:
        has_coordinates = getattr(part, "num_coordinates", None)
        why = "its elements have coordinates" if has_coordinates else "it is no grid"
        raise ValueError(
            f"'{name}' ({part.kind}) cannot be reconstructed: {why}, so no query can address its values. Leave it "
            "out with --columns."
        )
    return grid


def _mean(errors: Float[Tensor, "B O V"], real: Bool[Tensor, "B O V"] | None) -> Float[Tensor, ""]:
    if real is None:
        return errors.mean()
    return (errors * real).sum() / real.sum().clamp_min(1)


register_task(AutoencodeConfig, AutoencodeTask)
