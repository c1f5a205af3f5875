"""The running mean of the weights, which is often better than the last of them."""

# The foreach kernels are what torch.optim itself is made of; they are "private" by their underscore only.
# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import nn

from perceivers.training.optim import local
from perceivers.typing import Tensor


class WeightAverage:
    """Keeps an exponential moving average of a model's parameters.

    The decay begins low and rises to `decay`, so that a short run does not average its random beginning:
    after step t it is `min(decay, (1 + t) / (10 + t))`, as in TensorFlow's
    `ExponentialMovingAverage`. Buffers are not averaged: a batch norm's are averages already.

    Args:
        model: Its parameters now are where the average begins.
        decay: Of the average, in (0, 1).

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
        """Take in the weights that the optimizer's step number `step`, from 1, has left."""
        decay = min(self.decay, (1 + step) / (10 + step))
        weights = dict(model.named_parameters())
        averages = [local(average) for average in self.averages.values()]
        torch._foreach_lerp_(averages, [local(weights[name]) for name in self.averages], 1 - decay)

    @contextmanager
    def applied(self, model: nn.Module) -> Generator[None]:
        """Let the model have the averaged weights inside of the `with`, and its own after it."""
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
        """Return the averages by the name of the parameter. Shared by reference."""
        return self.averages

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over averages that were saved, whole or sharded as these are."""
        for name, average in self.averages.items():
            saved = state[name]
            if hasattr(average, "to_local") and not hasattr(saved, "to_local"):
                saved = _shard(saved, average)
            local(average).copy_(local(saved))


def _shard(whole: Tensor, like: Tensor) -> Tensor:
    """Return `whole` spread over the processes as `like` is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements)
