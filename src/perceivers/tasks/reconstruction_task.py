"""Reconstruction of modalities by output queries: what autoencoding and masked autoencoding share."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch.nn.functional import cross_entropy

from perceivers.tasks.base import PredictionRequest, Task, TaskBatch, to_float
from perceivers.tasks.config import BaseTaskConfig, OutputPart
from perceivers.tasks.intervals import BootstrapSums, Interval, wilson_interval
from perceivers.tasks.meters import Baseline, Meter
from perceivers.tasks.prediction import Prediction, Reconstruction, class_predictions
from perceivers.tasks.reconstruction import Measures, restored_samples
from perceivers.typing import Bool, Float, Int, Tensor, Tensors

LABEL = "label"
"""Name of the input and of the output that hold the class of a sample."""


@dataclass(frozen=True, kw_only=True)
class ReconstructionTaskConfig(BaseTaskConfig):
    """Base class of configurations of tasks that reconstruct modalities.

    Attributes:
        parts: Reconstruction of each modality, by its name.
    """

    reports_compression = True
    supports_clips = False

    parts: dict[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        if not self.parts or LABEL in self.parts:
            raise ValueError(
                "Expected at least one modality to reconstruct in parts={name: ReconstructionConfig(...)}, beside the "
                f"label, whose weight is label_weight; got {', '.join(self.parts) or 'none'}."
            )

    @property
    def requires_labels(self) -> bool:
        """Samples without a label can be reconstructed."""
        return False

    def fit_to_inputs(self, inputs: Mapping[str, Any], preprocess: Mapping[str, Any]) -> Self:
        """Return the configuration with the sizes and units of each modality."""
        parts = {
            name: part.fit_to_input(name, inputs[name], preprocess.get(name))
            for name, part in self.parts.items()
        }
        return replace(self, parts=parts)

    def output_parts(self) -> dict[str, OutputPart]:
        """Return one output for each modality, with a query for each patch."""
        return {
            name: OutputPart(num_outputs=part.num_outputs, grid=part.grid)
            for name, part in self.parts.items()
        }


@dataclass(frozen=True, kw_only=True)
class ReconstructionTargets:
    """Targets of the output queries.

    Attributes:
        values: Values of each query, B x O x V, for each modality.
        real: True where values are real, for the modalities that were padded, are missing in some samples or have gaps.
        label: Share of each class, B x K. None: unknown.
    """

    values: dict[str, Float[Tensor, "B _ _"] | Int[Tensor, "B _ _"]]
    real: dict[str, Bool[Tensor, "B _ _"]] = field(default_factory=dict[str, Tensor])
    label: Float[Tensor, "B K"] | None = None


class ReconstructionTask(Task):
    """Base class of tasks that reconstruct modalities from the latents."""

    config: Any
    has_baseline = True
    reconstructs = True
    optional_answer_fields = ("values", "images")

    label_weight: float | None = None
    """Weight of the cross-entropy of the class. None: it is not learned."""

    def __init__(self, config: ReconstructionTaskConfig) -> None:
        super().__init__(config)
        self.main_part = max(config.parts, key=lambda name: config.parts[name].num_values)
        self.score_name = config.parts[self.main_part].measure_names[0]
        self.main_metric = f"{self.main_part}_{self.score_name}"
        self.higher_is_better = self.score_name not in ("mse", "nats")

    def prediction_batch(self, inputs: Tensors, masks: Tensors) -> TaskBatch:
        """Return the batch of a prediction, with the inputs as targets."""
        return self.prepare_batch(inputs, masks, None, training=False)

    def loss(self, outputs: Any, targets: ReconstructionTargets) -> Float[Tensor, ""]:
        """Return the weighted sum of the mean errors of each modality and of the class."""
        named = self.named_outputs(outputs)
        total = torch.zeros((), device=next(iter(named.values())).device)
        for name, values in targets.values.items():
            part = self.config.parts[name]
            error = part.mean_error(to_float(named[name]), values, targets.real.get(name))
            total = total + part.weight * error
        if targets.label is not None and self.label_weight is not None:
            nats = cross_entropy(to_float(named[LABEL]), targets.label)
            total = total + self.label_weight * nats
        return total

    def probabilities(self, outputs: Any) -> dict[str, Tensor]:
        """Return each modality's reconstruction in the data's units, B x O x V, and each class's probability."""
        return {
            name: to_float(output).softmax(dim=-1)
            if name == LABEL
            else self.config.parts[name].readable(to_float(output))
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

    def training_score(self, outputs: Any, targets: ReconstructionTargets) -> Float[Tensor, ""]:
        """Return the sum over samples of the first measure of the modality with the most values."""
        if self.main_part not in targets.values:
            return torch.zeros(())
        found, present = next(iter(self.measures(self.main_part, outputs, targets).values()))
        return torch.where(present, found, 0.0).sum()

    def measures(self, name: str, outputs: Any, targets: ReconstructionTargets) -> Measures:
        """Return the measures of a modality's reconstruction in each sample, and which samples have values of it."""
        found = to_float(self.named_outputs(outputs)[name])
        return self.config.parts[name].measures(found, targets.values[name], targets.real.get(name))

    def meter(self) -> "ReconstructionMeter":
        """Return a new meter."""
        return ReconstructionMeter(self)

    def predictions(self, outputs: Any, request: PredictionRequest) -> Iterator[Prediction]:
        """Yield the reconstructions of each sample, their first measures, and the most probable class."""
        batch, names = request.batch, request.names
        named = self.named_outputs(outputs)
        found: list[dict[str, float]] = [{} for _ in names]
        pairs: list[dict[str, Reconstruction]] = [{} for _ in names]
        for name in self.config.parts:
            if name not in batch.targets.values:
                continue
            measure, (values, present) = next(
                iter(self.measures(name, outputs, batch.targets).items())
            )
            made = self.reconstructions(name, named[name], request)
            for row, (value, is_in) in enumerate(zip(values.tolist(), present, strict=True)):
                if is_in:
                    found[row][f"{name}_{measure}"] = value
                    pairs[row][name] = made[row]
        classes: Iterator[Prediction] = iter(Prediction(name=name) for name in names)
        if LABEL in named:
            probabilities = named[LABEL].float().softmax(dim=-1).cpu()
            classes = class_predictions(names, self.names, probabilities, top=request.top)
        for one, values, made in zip(classes, found, pairs, strict=True):
            yield replace(one, values=values, reconstructions=made)

    def reconstructions(
        self, name: str, outputs: Tensor, request: PredictionRequest
    ) -> list[Reconstruction]:
        """Return one modality of each sample of a prediction, and its reconstruction."""
        batch = request.batch
        return restored_samples(
            self.config.parts[name],
            request.preprocess[name],
            batch.inputs[name],
            batch.masks.get(name),
            outputs,
        )

    def drawn(self, count: int, most: int | None, device: torch.device) -> Int[Tensor, " O"] | None:
        """Return the queries of a training step, drawn at random out of `count`. None: all."""
        if most is None or most >= count:
            return None
        return torch.randperm(count, device=device)[:most]

    def fit_baseline(self, batches: Iterable[TaskBatch]) -> "MeanBaseline":
        """Return the mean of every value over the training split."""
        return MeanBaseline(self, batches)

    def remarks(self, *, has_baseline: bool) -> list[str]:
        """Return the peaks and the baseline of PSNR."""
        peaks = ", ".join(
            f"{part.peak:g} of {name}" for name, part in self.config.parts.items() if part.has_mean
        )
        if not peaks:
            return []
        return [
            f"PSNR is relative to a peak of {peaks}: pixels are in [0, 1], samples in [-1, 1], others in deviations.",
            "..._mean_psnr is the PSNR of the mean of every value over the training split."
            if has_baseline
            else "The training data are not available, so that the PSNR of their mean is not measured.",
        ]

    def explained_output(
        self, inputs: Tensors, masks: Tensors, outputs: Any, query: int | None
    ) -> tuple[tuple[str, ...], Float[Tensor, " n"]]:
        """Return the first measure of each modality: PSNR in dB, or the share of bytes that are right."""
        targets = self.prediction_batch(inputs, masks).targets
        found: dict[str, Tensor] = {}
        for name in targets.values:
            measure, (values, _) = next(iter(self.measures(name, outputs, targets).items()))
            found[f"{name}_{measure}"] = values
        return tuple(found), torch.cat(list(found.values()))

    def named_outputs(self, outputs: Any) -> dict[str, Tensor]:
        """Return the outputs by name, also those of a model with a single one."""
        if isinstance(outputs, Mapping):
            return dict(outputs)
        return {next(iter(self.config.parts)): outputs}


class ReconstructionMeter(Meter):
    """Means over samples of the measures of each modality."""

    def __init__(self, task: ReconstructionTask) -> None:
        self.task = task
        names = [
            f"{name}_{measure}"
            for name, part in task.config.parts.items()
            for measure in part.measure_names
        ]
        self.sums = {name: torch.zeros(2, dtype=torch.float64) for name in names}  # sum, samples
        self.counts = torch.zeros(4, dtype=torch.float64)  # loss, correct, labeled, samples
        # Of each sample: value and 1 of each measure, 0 where it is missing.
        self.samples = BootstrapSums(2 * len(names))

    def update(self, outputs: Any, targets: ReconstructionTargets) -> None:
        """Add one batch: the outputs of all queries and their targets."""
        named = self.task.named_outputs(outputs)
        size = next(iter(named.values())).shape[0]
        each = {name: torch.zeros(size, 2, dtype=torch.float64) for name in self.sums}
        for name in targets.values:
            for measure, (values, present) in self.task.measures(name, outputs, targets).items():
                rows = torch.stack([torch.where(present, values, 0.0), present.float()], dim=1)
                each[f"{name}_{measure}"] = rows.detach().cpu().double()
        for name, rows in each.items():
            self.sums[name] += rows.sum(dim=0)
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

        For each modality the means over samples of its measures: `..._psnr`, 10 log10(peak² / error) in dB, and
        `..._mse`, the mean error, both in the data's units after clipping, or those of its kind. `label_accuracy`:
        share of the classes that are predicted from the other modalities alone. `loss`: as in training. `samples`:
        their number.
        """
        loss, correct, labeled, samples = self.counts.tolist()
        found = {name: (sums[0] / sums[1].clamp_min(1)).item() for name, sums in self.sums.items()}
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
        parts = zip(self.sums, rows.split(2, dim=1), strict=True)
        return {name: part[:, 0] / part[:, 1] for name, part in parts}


class MeanBaseline(Baseline):
    """The mean of every value over the training split, measured as if it were the reconstruction of every sample."""

    def __init__(self, task: ReconstructionTask, batches: Iterable[TaskBatch]) -> None:
        self._task = task
        sums: dict[str, Tensor] = {}
        counts: dict[str, Tensor] = {}
        for batch in batches:
            for name, values in batch.targets.values.items():
                if not task.config.parts[name].has_mean:
                    continue
                real = batch.targets.real.get(name, torch.ones_like(values, dtype=torch.bool))
                sums[name] = sums.get(name, 0.0) + (values * real).sum(dim=0, dtype=torch.float64)
                counts[name] = counts.get(name, 0) + real.sum(dim=0)
        self.means: dict[str, Float[Tensor, "O V"]] = {
            name: (sums[name] / counts[name].clamp_min(1)).float() for name in sums
        }
        self._sums = {name: torch.zeros(2, dtype=torch.float64) for name in self.means}

    def update(self, targets: ReconstructionTargets) -> None:
        """Add the targets of one batch."""
        for name, values in targets.values.items():
            if name not in self.means:
                continue
            outputs = self.means[name].to(values.device).expand_as(values)
            decibels, present = self._task.measures(name, {name: outputs}, targets)["psnr"]
            row = [decibels[present].sum().item(), float(present.sum())]
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
