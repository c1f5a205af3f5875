"""Activations that are computed again in the backward pass instead of being kept."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from perceivers.nn.heap import return_freed_memory
from perceivers.typing import Tensor


def recompute(function: Callable[..., Tensor], *args: Any) -> Tensor:
    """Return `function(*args)`, keeping nothing but the arguments for the backward pass."""
    out: Tensor = checkpoint(function, *args, use_reentrant=False)  # pyright: ignore
    if out.device.type == "cpu" and not torch.compiler.is_compiling():
        return_freed_memory()
        if out.requires_grad:
            out.register_hook(_after)
    return out


def _after(gradient: Tensor) -> None:
    """Follow the backward pass of what came after."""
    del gradient
    return_freed_memory()
