"""`--batch auto`: how many samples of a step a device computes at once, and what is accumulated."""

# ruff: noqa: ARG002  (the hooks have the arguments that Lightning gives them)

from collections.abc import Callable
from contextlib import AbstractContextManager

import lightning.pytorch as lightning
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from perceivers.recipes.registry import Recipe
from perceivers.tasks.base import Task
from perceivers.training.distributed import largest
from perceivers.training.memory_probe import MemoryProbe, open_memory_probe
from perceivers.training.prepare import ProcessInfo

__all__ = ["BatchSizeFinder", "largest_batch", "warn_of_batch_norm"]

# A line through two measured steps is trusted up to so many times the samples of the larger.
_FAR, _GROWTH = 8, 4

Precision = Callable[[], AbstractContextManager[object]]


class BatchSizeFinder(lightning.Callback):
    """Finds the batch once all processes have met and before anything is on the device.

    The samples of an optimizer step stay those of the recipe, and so does the rate that suits them.

    Args:
        recipe: Of the run.
        task: Its loss.
        size: Samples of an optimizer step in each process.
        place: Which process this is.
        use: Called with the samples of a batch, and a sentence that says why so many.
    """

    def __init__(
        self,
        recipe: Recipe,
        task: Task,
        *,
        size: int,
        place: ProcessInfo,
        use: Callable[[int, str], object],
    ) -> None:
        self._recipe, self._task = recipe, task
        self._size, self._place, self._use = size, place, use

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Measure, and let all processes take what fits in each of them.

        Raises:
            ValueError: If not even one sample fits.
        """
        device = trainer.strategy.root_device
        with open_memory_probe(self._recipe, self._task, device=device, place=self._place) as probe:
            found, why = largest_batch(self._size, probe, trainer.precision_plugin.forward_context)
        # Divisors of one number: the smallest of them. A process in which nothing fits stops all.
        accumulate = int(largest(torch.tensor([self._size / found if found else 0.0]), device))
        lacking = bool(largest(torch.tensor([float(not found)]), device))
        if lacking:
            msg = "Another process has too little memory for a single sample; it says how much it needs."
            raise ValueError(msg if found else why)
        if accumulate > self._size // found:
            why = "as many as fit in every process"
        self._use(self._size // accumulate, why)


def largest_batch(size: int, probe: MemoryProbe, precision: Precision) -> tuple[int, str]:
    """Return the largest divisor of `size` whose step fits in the memory, and a sentence about it.

    A GPU is tried with more samples than it holds until they are few enough. On a CPU that would bring the
    machine down, so small steps are measured, larger ones where these leave room, and the rest is a straight
    line: of a step's memory, everything but the weights and their like grows with the samples.

    Returns:
        The samples, 0 if not even one fits; and why.
    """
    if probe.budget is None:
        return size, "how much memory a step needs cannot be measured here"
    measure = _tried if probe.is_cuda else _foretold
    found, needed = measure(size, probe, probe.budget, precision)
    room = f"{_readable(needed)} of the {_readable(probe.budget)} that may be used"
    if found:
        return found, f"{room} for it"
    return 0, (
        f"Not even one sample fits in the memory: a step needs {room}. Expected a smaller --size or "
        "input, or --grad-checkpointing, which recomputes instead of keeping."
    )


def _readable(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _divisors(size: int) -> list[int]:
    """Return the divisors of a number, the largest first: only such batches are all of one size."""
    return [n for n in range(size, 0, -1) if size % n == 0]


def _tried(size: int, probe: MemoryProbe, budget: int, precision: Precision) -> tuple[int, int]:
    needed = 0
    for candidate in _divisors(size):
        peak = probe.peak(candidate, precision())
        if peak is not None and peak <= budget:
            return candidate, peak
        needed = peak or budget
    return 0, needed


def _foretold(size: int, probe: MemoryProbe, budget: int, precision: Precision) -> tuple[int, int]:
    def measured(samples: int) -> int:
        return probe.peak(samples, precision()) or 0

    measured(1)  # the moments of the optimizer come with the first step
    less, more = 1, min(2, size)
    low, high = measured(less), measured(more)

    def foretold(samples: int) -> int:
        slope = max(high - low, 0) / max(more - less, 1)
        return round(high + slope * (samples - more))

    while more * _FAR < size and foretold(more * _GROWTH) <= budget:
        less, low, more = more, high, more * _GROWTH
        high = measured(more)
    for candidate in _divisors(size):
        if foretold(candidate) <= budget:
            return candidate, foretold(candidate)
    return 0, foretold(1)


def warn_of_batch_norm(model: nn.Module, *, batch: int, parts: int) -> str:
    """Return a sentence if a model's normalization sees less than the whole step.

    Args:
        model: That learns.
        batch: Samples of one batch.
        parts: Batches of a step, over all processes.
    """
    if parts == 1 or not any(isinstance(m, _BatchNorm) for m in model.modules()):
        return ""
    return (
        f"The batch norm takes its statistics from each batch of {batch} samples, not from the whole step of "
        f"{batch * parts}. Everything else is the mean over the whole step."
    )
