"""Exponential moving average of the weights."""

# torch.optim itself uses the foreach kernels, private by their underscore only.
# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import nn

from perceivers.training.optim import local
from perceivers.typing import Tensor


class WeightAverage:
    """Exponential moving average of a model's parameters.

    The decay rises to `decay`, so that a short run does not average its random initial weights: after step t it is
    `min(decay, (1 + t) / (10 + t))`, as in TensorFlow's `ExponentialMovingAverage`. Buffers are not averaged: those of
    a batch norm are averages already. `torch.optim.swa_utils.AveragedModel` copies the module, which FSDP refuses.

    Args:
        model: Its current parameters are the initial average.
        decay: Decay in (0, 1).

    Raises:
        ValueError: If `decay` is not in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(
                f"Expected training.ema to be a decay in (0, 1), such as 0.9999, got {decay}."
            )
        self.decay = decay
        self.averages = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, *, step: int) -> None:
        """Update the average with the weights after optimizer step `step`, counted from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        weights = dict(model.named_parameters())
        averages = [local(average) for average in self.averages.values()]
        torch._foreach_lerp_(averages, [local(weights[name]) for name in self.averages], 1 - decay)

    @contextmanager
    def applied(self, model: nn.Module) -> Generator[None]:
        """Swap the averaged weights into the model in the context."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    @torch.no_grad()
    def _swap(self, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            mine, theirs = local(self.averages[name]), local(parameter)
            kept = theirs.clone()
            theirs.copy_(mine)
            mine.copy_(kept)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages by parameter name, without copying."""
        return self.averages

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load saved averages, full tensors or sharded as these are."""
        for name, average in self.averages.items():
            saved = state[name]
            if hasattr(average, "to_local") and not hasattr(saved, "to_local"):
                saved = _shard(saved, average)
            local(average).copy_(local(saved))


def _shard(whole: Tensor, like: Tensor) -> Tensor:
    """Return `whole` sharded over the processes as `like` is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements)
