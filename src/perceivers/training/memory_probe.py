"""How much memory a training step needs, measured on a model of its own, of which nothing is left."""

import ctypes
import gc
import resource
import sys
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import cast

import torch

from perceivers.data.base import Batch
from perceivers.data.loading.mixup import mixing_of
from perceivers.data.modalities.registry import build_modalities
from perceivers.data.tables.memory import available_memory
from perceivers.inputs.elements import InputAdapter
from perceivers.recipes.registry import Recipe
from perceivers.tasks.base import Task, ask
from perceivers.tasks.multitask import MultiTaskConfig
from perceivers.tasks.registry import TaskConfig, answers_of, names_of
from perceivers.training.optim import build_optimizer, clip_gradients
from perceivers.training.prepare import ProcessInfo, build_model
from perceivers.training.seeding import get_rng_state, set_rng_state
from perceivers.typing import Tensor

__all__ = ["MemoryProbe", "open_memory_probe"]

# Of the memory that is free, so that fragments and what other programs take find room.
_SHARE_CUDA, _SHARE_CPU = 0.9, 0.8


class MemoryProbe:
    """Does training steps on made-up samples.

    What a run keeps beside its model counts: gradients, the optimizer's moments, the running mean of the
    weights, and the copy of the gradients that several processes exchange.

    Args:
        recipe: Of the run, filled in.
        task: Its loss.
        device: Where to compute.
        place: Which process this is, and how many share the machine.
    """

    def __init__(
        self,
        recipe: Recipe,
        task: Task,
        *,
        device: torch.device,
        place: ProcessInfo,
    ) -> None:
        self._task, self._device = task, device
        self._clip_norm = recipe.optim.clip_norm
        self._num_outputs = task.num_outputs
        self._is_mixed = mixing_of(recipe.augment) is not None
        self._answers = build_modalities(
            {name: recipe.preprocess[name] for name in answers_of(recipe.task)}
        )
        self._config = recipe.task
        self.budget = self._free(place)
        _forget_peak()
        self._before = _resident()
        self._model = build_model(recipe).to(device)
        training = recipe.training
        self._model.set_grad_checkpointing(
            training.grad_checkpointing, mlp=training.mlp_checkpointing
        )
        self._optimizer = build_optimizer(self._model, recipe.optim)
        copies = (recipe.training.ema is not None) + (place.world_size > 1)
        self._kept = [p.detach().clone() for _ in range(copies) for p in self._model.parameters()]

    @property
    def is_cuda(self) -> bool:
        """Whether too many samples are an error that one can catch, and not the end of the process."""
        return self._device.type == "cuda"

    def peak(self, size: int, precision: AbstractContextManager[object]) -> int | None:
        """Return the bytes that a step of `size` samples needs at its peak, or None if they are not there.

        Args:
            size: Samples.
            precision: In which the forward pass and the loss are computed.
        """
        if self.is_cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            _forget_peak()
        try:
            self._step(self._made_up(size), precision)
        except torch.OutOfMemoryError:
            self._optimizer.zero_grad()
            return None
        if self.is_cuda:
            return int(torch.cuda.max_memory_reserved(self._device))
        return max(_resident(at_peak=True) - self._before, 0)

    def _step(self, batch: Batch, precision: AbstractContextManager[object]) -> None:
        asked = self._task.pose(batch.inputs, batch.masks, batch.targets, training=True)
        with precision:
            outputs = ask(self._model, asked)
            loss = self._task.loss(outputs, asked.targets)
        loss.backward()
        clip_gradients(self._model.parameters(), self._clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def _made_up(self, size: int) -> Batch:
        """Return samples of the run's shapes. What they hold does not matter: it decides over no memory."""
        inputs: dict[str, Tensor] = {
            name: cast("InputAdapter", adapter).example(size).to(self._device)
            for name, adapter in self._model.inputs.items()
        }
        for name, modality in self._answers.items():
            inputs[name] = modality.collate([None] * size)[0].to(self._device)
        if not isinstance(self._config, MultiTaskConfig):
            return Batch(
                inputs=inputs, targets=self._targets(size, self._config, self._num_outputs)
            )
        targets = {
            name: self._targets(size, part, len(names_of(part)))
            for name, part in self._config.parts.items()
        }
        return Batch(inputs=inputs, targets=targets)

    def _targets(self, size: int, config: TaskConfig, width: int) -> Tensor:
        """Return made-up targets of one task: indices, or vectors."""
        if self._is_mixed or config.kind != "classification":
            return torch.full((size, width), 1 / width).to(self._device)
        return torch.zeros(size, dtype=torch.long, device=self._device)

    def _free(self, place: ProcessInfo) -> int | None:
        """Return the bytes that this process may use, or None where nobody tells."""
        if self.is_cuda:
            free, _ = torch.cuda.mem_get_info(self._device)
            return int(_SHARE_CUDA * (free + torch.cuda.memory_reserved(self._device)))
        free = available_memory()
        if free is None or self._device.type != "cpu" or not _resident():
            return None
        return int(_SHARE_CPU * free / place.local_processes)


@contextmanager
def open_memory_probe(
    recipe: Recipe,
    task: Task,
    *,
    device: torch.device,
    place: ProcessInfo,
) -> Generator[MemoryProbe]:
    """Yield a probe. After it, memory and every source of chance are as before. Arguments as for `MemoryProbe`."""
    before = get_rng_state()
    try:
        yield MemoryProbe(recipe, task, device=device, place=place)
    finally:
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        set_rng_state(before)


def _resident(*, at_peak: bool = False) -> int:
    """Return the memory of this process in bytes, now or at its peak; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    if status.exists():
        words = status.read_text(encoding="ascii").split()
        return int(words[words.index("VmHWM:" if at_peak else "VmRSS:") + 1]) * 1024
    if sys.platform == "darwin":  # only the highest peak: right as long as steps grow
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 0


def _forget_peak() -> None:
    """Let the peak of this process' memory begin anew, where the system can.

    What was freed before and is kept by the C library for later goes back first: a step that fits into it would
    seem to need nothing.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
    path = Path("/proc/self/clear_refs")
    if path.exists():
        path.write_text("5", encoding="ascii")
