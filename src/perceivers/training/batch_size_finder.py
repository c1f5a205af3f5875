"""`--batch auto`: the largest batch that fits in memory, measured with training steps on synthetic samples."""

# ruff: noqa: ARG002  (the hooks have the arguments that Lightning passes)

import gc
import resource
import sys
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import cast

import lightning.pytorch as lightning
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from perceivers.data.base import Batch
from perceivers.data.loading.mixup import mixing_of
from perceivers.data.modalities.registry import build_modalities
from perceivers.data.tables.memory import available_memory
from perceivers.inputs.elements import InputAdapter
from perceivers.models.perceiver import build
from perceivers.nn.heap import return_freed_memory
from perceivers.recipes.registry import Recipe
from perceivers.tasks.base import Task, forward_task
from perceivers.training.dataloaders import ProcessInfo
from perceivers.training.distributed import largest
from perceivers.training.optim import build_optimizer, clip_gradients
from perceivers.training.seeding import get_rng_state, set_rng_state
from perceivers.typing import Tensor
from perceivers.wording import counted

# A line through two measured steps is extrapolated to at most that many times the samples of the larger.
_FAR, _GROWTH = 8, 4

Precision = Callable[[], AbstractContextManager[object]]

# Shares of the free memory, leaving some to fragmentation and other programs.
_SHARE_CUDA, _SHARE_CPU = 0.9, 0.8


class MemoryProbe:
    """Measure the peak memory of training steps on synthetic samples.

    It includes gradients, the optimizer's moments, the moving average of the weights, and the copy of the gradients
    that several processes exchange.
    """

    def __init__(
        self, recipe: Recipe, task: Task, *, device: torch.device, process: ProcessInfo
    ) -> None:
        self._task, self._device = task, device
        self._clip_norm = recipe.optim.clip_norm
        self._is_mixed = mixing_of(recipe.augment) is not None
        self._target_modalities = build_modalities(
            {name: recipe.preprocess[name] for name in recipe.task.target_modalities}
        )
        self.budget = self._free(process)
        _reset_peak()
        self._before = _resident()
        self._model = build(recipe.model_config()).to(device)
        config = recipe.training
        self._model.set_grad_checkpointing(config.grad_checkpointing, mlp=config.mlp_checkpointing)
        self._optimizer = build_optimizer(self._model, recipe.optim)
        copies = (config.ema is not None) + (process.world_size > 1)
        self._kept = [p.detach().clone() for _ in range(copies) for p in self._model.parameters()]

    @property
    def is_cuda(self) -> bool:
        """Whether too little memory raises an error that can be caught, instead of ending the process."""
        return self._device.type == "cuda"

    def peak(self, size: int, precision: AbstractContextManager[object]) -> int | None:
        """Return the peak memory of a step of `size` samples in bytes, or None if there is too little."""
        if self.is_cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            _reset_peak()
        try:
            self._step(self._synthetic_batch(size), precision)
        except torch.OutOfMemoryError:
            self._optimizer.zero_grad()
            return None
        if self.is_cuda:
            return int(torch.cuda.max_memory_reserved(self._device))
        return max(_resident(at_peak=True) - self._before, 0)

    def _step(self, batch: Batch, precision: AbstractContextManager[object]) -> None:
        prepared = self._task.prepare_batch(batch.inputs, batch.masks, batch.targets, training=True)
        with precision:
            outputs = forward_task(self._model, prepared)
            loss = self._task.loss(outputs, prepared.targets)
        loss.backward()
        clip_gradients(self._model.parameters(), self._clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def _synthetic_batch(self, size: int) -> Batch:
        """Return samples of the shapes of the run. Their values do not affect memory."""
        inputs: dict[str, Tensor] = {
            name: cast("InputAdapter", adapter).example(size).to(self._device)
            for name, adapter in self._model.inputs.items()
        }
        for name, modality in self._target_modalities.items():
            inputs[name] = modality.collate([None] * size)[0].to(self._device)
        targets = self._task.example_targets(size, mixed=self._is_mixed)
        return Batch(inputs=inputs, targets=targets).to(self._device)

    def _free(self, process: ProcessInfo) -> int | None:
        """Return the bytes that this process may use, or None if unknown."""
        if self.is_cuda:
            free, _ = torch.cuda.mem_get_info(self._device)
            return int(_SHARE_CUDA * (free + torch.cuda.memory_reserved(self._device)))
        free = available_memory()
        if free is None or self._device.type != "cpu" or not _resident():
            return None
        return int(_SHARE_CPU * free / process.local_processes)


@contextmanager
def open_memory_probe(
    recipe: Recipe, task: Task, *, device: torch.device, process: ProcessInfo
) -> Generator[MemoryProbe]:
    """Yield a probe; afterwards memory and random number generators are as before. Arguments as for `MemoryProbe`."""
    before = get_rng_state()
    try:
        yield MemoryProbe(recipe, task, device=device, process=process)
    finally:
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        set_rng_state(before)


def _resident(*, at_peak: bool = False) -> int:
    """Return the resident memory of this process in bytes, now or at its peak; 0 if unknown."""
    status = Path("/proc/self/status")
    if status.exists():
        words = status.read_text(encoding="ascii").split()
        return int(words[words.index("VmHWM:" if at_peak else "VmRSS:") + 1]) * 1024
    if sys.platform == "darwin":  # only the highest peak: right as long as steps grow
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 0


def _reset_peak() -> None:
    """Reset the peak memory of this process, where the system can.

    Freed memory is returned to the system first: a step that fits into it would seem to need none.
    """
    return_freed_memory()
    path = Path("/proc/self/clear_refs")
    if path.exists():
        path.write_text("5", encoding="ascii")


class BatchSizeFinder(lightning.Callback):
    """Find the largest batch, once the processes are connected and before the model is on the device.

    The samples of an optimizer step stay those of the recipe, so its learning rate still fits.

    Args:
        size: Samples of an optimizer step in each process.
        use: Called with the samples of a batch, and a sentence on the choice.
    """

    def __init__(
        self,
        recipe: Recipe,
        task: Task,
        *,
        size: int,
        process: ProcessInfo,
        use: Callable[[int, str], object],
    ) -> None:
        self._recipe, self._task = recipe, task
        self._size, self._process, self._use = size, process, use

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Measure, and use the largest batch that fits in every process.

        Raises:
            ValueError: If not even one sample fits.
        """
        device = trainer.strategy.root_device
        with open_memory_probe(
            self._recipe, self._task, device=device, process=self._process
        ) as probe:
            found, why = largest_batch(self._size, probe, trainer.precision_plugin.forward_context)
        # The smallest of all processes, all of them divisors of one number. One in which nothing fits stops all.
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

    On a GPU, batches are tried from the largest down until one fits. On a CPU a batch that is too large would bring the
    machine down, so small steps are measured and extrapolated linearly: of a step's memory, everything but weights,
    gradients and moments grows with the samples.

    Returns:
        The number of samples, 0 if not even one fits; and the reason.
    """
    if probe.budget is None:
        return size, "how much memory a step needs cannot be measured here"
    measure = _first_fit if probe.is_cuda else _extrapolated
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
    """Return the divisors of a number, the largest first: with these all batches of a step have one size."""
    return [n for n in range(size, 0, -1) if size % n == 0]


def _first_fit(size: int, probe: MemoryProbe, budget: int, precision: Precision) -> tuple[int, int]:
    needed = 0
    for candidate in _divisors(size):
        peak = probe.peak(candidate, precision())
        if peak is not None and peak <= budget:
            return candidate, peak
        needed = peak or budget
    return 0, needed


def _extrapolated(
    size: int, probe: MemoryProbe, budget: int, precision: Precision
) -> tuple[int, int]:
    def measured(samples: int) -> int:
        return probe.peak(samples, precision()) or 0

    measured(1)  # the moments of the optimizer come with the first step
    less, more = 1, min(2, size)
    low, high = measured(less), measured(more)

    def extrapolated(samples: int) -> int:
        slope = max(high - low, 0) / max(more - less, 1)
        return round(high + slope * (samples - more))

    while more * _FAR < size and extrapolated(more * _GROWTH) <= budget:
        less, low, more = more, high, more * _GROWTH
        high = measured(more)
    for candidate in _divisors(size):
        if extrapolated(candidate) <= budget:
            return candidate, extrapolated(candidate)
    return 0, extrapolated(1)


def warn_of_batch_norm(model: nn.Module, *, batch: int, parts: int) -> str:
    """Return a warning if batch norms see only a part of a step."""
    if parts == 1 or not any(isinstance(m, _BatchNorm) for m in model.modules()):
        return ""
    return (
        f"The batch norm takes its statistics from each batch of {counted(batch, 'sample')}, not from the whole step "
        f"of {batch * parts}. Everything else is the mean over the whole step."
    )
