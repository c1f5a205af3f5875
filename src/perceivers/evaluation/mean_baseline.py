"""The yardstick of reconstructions: how near the mean of the training split comes, whatever the sample."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from perceivers.data.base import Batch
from perceivers.tasks.autoencode import AutoencodeTargets, AutoencodeTask
from perceivers.tasks.reconstruction import psnr
from perceivers.typing import Float, Tensor

__all__ = ["MeanAnswers", "mean_answers"]


def mean_answers(
    task: AutoencodeTask, batches: Iterable[Batch], device: torch.device
) -> dict[str, Float[Tensor, "O V"]]:
    """Return the mean of every value over a split: the film, picture or sound that is right on average.

    Args:
        task: Which knows what is asked for.
        batches: Of the training split, as evaluation reads it.
        device: Where to compute.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    for batch in batches:
        moved = batch.to(device)
        wanted = task.pose(moved.inputs, moved.masks, None, training=False).targets
        for name, values in wanted.values.items():
            real = wanted.real.get(name, torch.ones_like(values, dtype=torch.bool))
            sums[name] = sums.get(name, 0.0) + (values * real).sum(dim=0, dtype=torch.float64)
            counts[name] = counts.get(name, 0) + real.sum(dim=0)
    return {name: (sums[name] / counts[name].clamp_min(1)).float() for name in sums}


@dataclass
class MeanAnswers:
    """Measures the mean of the training split as if it were the answer to every sample.

    Args:
        task: Which knows how errors are measured.
        means: What `mean_answers` returned.
    """

    task: AutoencodeTask
    means: Mapping[str, Float[Tensor, "O V"]]

    def __post_init__(self) -> None:
        """Begin with nothing measured."""
        self.sums = {name: torch.zeros(2, dtype=torch.float64) for name in self.means}

    def update(self, targets: AutoencodeTargets) -> None:
        """Take in what is right for one batch."""
        for name, values in targets.values.items():
            if name not in self.means:
                continue
            answers = self.means[name].to(values.device).expand_as(values)
            errors, there = self.task.errors(name, answers, targets)
            decibels = psnr(errors[there], self.task.config.parts[name].peak)
            found = [decibels.sum().item(), float(len(decibels))]
            self.sums[name] += torch.tensor(found, dtype=torch.float64)

    def beside(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return metrics with each modality's `..._mean_psnr` behind its `..._psnr`."""
        told: dict[str, float] = {}
        for key, value in metrics.items():
            told[key] = value
            name = key.removesuffix("_psnr")
            if name != key and name in self.sums:
                decibels, count = self.sums[name].tolist()
                told[f"{name}_mean_psnr"] = decibels / max(count, 1.0)
        return told
