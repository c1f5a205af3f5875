"""LAMB as DeepMind's release chains it: Adam, weight decay, then one trust ratio for each tensor."""

# The foreach kernels are what torch.optim itself is made of; they are "private" by their underscore only.
# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer

from perceivers.training.norms import local, tensor_norms
from perceivers.typing import Tensor

__all__ = ["Lamb"]


class Lamb(Optimizer):
    """Adam whose step, with the weight decay in it, is made as long as the weights it changes.

    With `m^`, `v^` the bias-corrected moments:

        u = m^ / (sqrt(v^) + eps) + weight_decay * p
        p = p - lr * (|p| / |u|) * u

    The quotient of norms, the trust ratio, is taken for each tensor alone, is 1 where one of the norms is
    0, and holds also where nothing decays: timm's LAMB leaves those tensors to Adam, DeepMind's does
    not. Gradients are clipped before, by `clip_gradients`.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate.
        betas: Decay of the first and second moment.
        eps: Added to the root of the second moment.
        weight_decay: Added to the step before the trust ratio, not to the gradient.

    Raises:
        ValueError: If a number is outside of where it means something.

    Source: LAMB (arXiv:1904.00962), algorithm 2; the order is that of the Perceiver IO release.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
            if not value >= 0:
                msg = f"Expected {name} to be 0 or more, got {value}."
                raise ValueError(msg)
        if not all(0 <= beta < 1 for beta in betas):
            msg = f"Expected betas in [0, 1), got {betas}."
            raise ValueError(msg)
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change every parameter that has a gradient. Return what `closure` returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._step_group(group, params)
        return loss

    def _step_group(self, group: dict[str, Any], params: list[Tensor]) -> None:
        states = [self._state_of(p) for p in params]
        weights = [local(p) for p in params]
        firsts = [local(s["exp_avg"]) for s in states]
        seconds = [local(s["exp_avg_sq"]) for s in states]
        gradients = [local(p.grad) for p in params if p.grad is not None]
        steps = [s["step"] for s in states]
        beta1, beta2 = group["betas"]

        torch._foreach_add_(steps, 1)
        torch._foreach_lerp_(firsts, gradients, 1 - beta1)
        torch._foreach_mul_(seconds, beta2)
        torch._foreach_addcmul_(seconds, gradients, gradients, 1 - beta2)

        counts = [step.item() for step in steps]
        scale = torch._foreach_div(seconds, [1 - beta2**count for count in counts])
        torch._foreach_sqrt_(scale)
        torch._foreach_add_(scale, group["eps"])
        updates = torch._foreach_div(firsts, [1 - beta1**count for count in counts])
        torch._foreach_div_(updates, scale)
        if group["weight_decay"]:
            torch._foreach_add_(updates, weights, alpha=group["weight_decay"])

        norms = tensor_norms([*weights, *updates], like=[*params, *params])
        of_weights, of_updates = norms.chunk(2)
        has_both = (of_weights > 0) & (of_updates > 0)
        ratios = torch.where(has_both, of_weights / of_updates, 1.0)
        torch._foreach_mul_(updates, list((ratios * -group["lr"]).unbind()))
        torch._foreach_add_(weights, updates)

    def _state_of(self, parameter: Tensor) -> dict[str, Any]:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(
                0.0
            )  # on the CPU: read each step, without waiting for a GPU
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state
