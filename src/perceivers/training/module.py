"""LightningModule of every run: a model, a task and an optimizer."""

from collections.abc import Mapping, Sequence
from typing import Self

import lightning.pytorch as lightning
import torch
from torch import nn
from torch.optim import Optimizer

from perceivers.recipes.registry import OptimConfig
from perceivers.tasks.base import Task, forward_task
from perceivers.training.batches import TrainBatch
from perceivers.training.distributed import shard_blocks
from perceivers.training.freezing import (
    FrozenPart,
    drop_gradients,
    freeze,
    learning_rate_scales,
    set_evaluation,
)
from perceivers.training.optim import WeightAverage, build_optimizer, clip_gradients, learning_rate
from perceivers.typing import Float, Tensor


class TrainingSums:
    """Sums over the batches since the last line of the log. They stay on the device until they are logged."""

    NAMES = ("loss", "score", "samples", "grad_norm", "steps", "overflows")

    def __init__(self, score_name: str = "accuracy") -> None:
        self.score_name = score_name
        self.values = torch.zeros(len(self.NAMES))

    def add_batch(
        self, loss: Float[Tensor, ""], score: Float[Tensor, ""], num_samples: int
    ) -> None:
        """Add one batch: its mean loss, and the sum of the scores of its samples."""
        count = torch.full_like(loss, num_samples)
        zero = torch.zeros_like(count)
        self._add(loss.detach() * num_samples, score, count, zero, zero, zero)

    def add_step(self, norm: Tensor) -> None:
        """Add the gradient norm of one optimizer step. One that is not finite is counted only."""
        zero, counts = torch.zeros_like(norm), torch.isfinite(norm)
        self._add(zero, zero, zero, torch.where(counts, norm, zero), counts, ~counts)

    def _add(self, *sums: Tensor) -> None:
        new = torch.stack([value.detach().float() for value in sums])
        self.values = self.values.to(new.device) + new

    def overflows(self, summed: Float[Tensor, " V"]) -> int:
        """Return the number of steps whose gradient norm was not finite, from `values` summed over all processes."""
        return int(summed[self.NAMES.index("overflows")].item())

    def means(self, summed: Float[Tensor, " V"]) -> dict[str, float]:
        """Return the means to log, from `values` summed over all processes."""
        sums = dict(zip(self.NAMES, summed.tolist(), strict=True))
        samples, steps = max(sums["samples"], 1.0), max(sums["steps"], 1.0)
        return {
            "loss": sums["loss"] / samples,
            self.score_name: sums["score"] / samples,
            "grad_norm": sums["grad_norm"] / steps,
        }


class PerceiverModule(lightning.LightningModule):
    """Training step, optimizer and learning rate.

    Args:
        model: Inputs and masks by modality -> outputs.
        ema: Decay of the moving average of the weights. None: off.
        shard: Shard the weights over the processes.
        frozen: Parts that keep their weights.
        lr_scale: Factor of the learning rate of a part, by its name.

    Raises:
        ValueError: If the model has no such part.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        optim: OptimConfig,
        *,
        ema: float | None = None,
        shard: bool = False,
        frozen: Sequence[FrozenPart] = (),
        lr_scale: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.optim = optim
        self.sums = TrainingSums(task.score_name)
        self.progress = 0.0  # fraction of the run that is done; set by the callback
        self.lr = 0.0
        self.epoch = -1  # of the last batch
        self._frozen = tuple(frozen)
        freeze(model, self._frozen)
        self._lr_scale = lr_scale or {}
        self._ema = ema
        self._shard = shard
        self._average: WeightAverage | None = None
        self._trained: list[Tensor] = []

    @property
    def average(self) -> WeightAverage | None:
        """The moving average of the weights, which starts from their initial values."""
        if self._average is None and self._ema is not None:
            self._average = WeightAverage(self.model, self._ema)
        return self._average

    def drop_average(self) -> None:
        """Forget the moving average: the weights of the model are those to evaluate."""
        self._average, self._ema = None, None

    def configure_model(self) -> None:
        """Shard the weights over the processes, if requested. Called once the processes are connected."""
        if self._shard:
            assert self.device_mesh is not None
            shard_blocks(self.model, self.device_mesh["data_parallel"])
            self._shard = False

    def training_step(self, train_batch: TrainBatch) -> Float[Tensor, ""]:
        """Return the loss of one batch, weighted so that a step is the mean over its samples."""
        batch = train_batch.batch
        if self._frozen and train_batch.epoch != self.epoch:
            self.epoch = train_batch.epoch
            self.train()
        prepared = self.task.prepare_batch(batch.inputs, batch.masks, batch.targets, training=True)
        outputs = forward_task(self.model, prepared)
        loss = self.task.loss(outputs, prepared.targets)
        with torch.no_grad():
            score = self.task.training_score(outputs, prepared.targets)
        self.sums.add_batch(loss, score, len(batch))
        return loss * train_batch.weight

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip the gradient and set the learning rate. Gradients are accumulated, reduced and unscaled here."""
        drop_gradients(self.model, self._frozen, epoch=self.epoch)
        if not self._trained:  # collected once: they stay the same objects from the first step on
            self._trained = list(self.parameters())
        self.sums.add_step(clip_gradients(self._trained, self.optim.clip_norm))
        self.lr = learning_rate(self.optim, progress=self.progress, step=self.global_step)
        for group in optimizer.param_groups:
            group["lr"] = self.lr * group.get("lr_scale", 1.0)

    def train(self, mode: bool = True) -> Self:
        """Set training mode; frozen modules stay in evaluation mode."""
        super().train(mode)
        if mode:
            set_evaluation(self.model, self._frozen, epoch=self.epoch)
        return self

    def configure_optimizers(self) -> Optimizer:
        """Return the optimizer of the recipe."""
        decay = self.optim.layer_decay
        scales = learning_rate_scales(self.model, self._lr_scale, layer_decay=decay)
        return build_optimizer(self.model, self.optim, scales)
