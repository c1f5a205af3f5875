"""Activations that are computed again in the backward pass instead of being kept."""

import ctypes
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

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


def return_freed_memory() -> None:
    """Return freed memory to the system, on Linux.

    The C library keeps freed memory between what is still held, in holes that the next tensors do not fit: with
    little kept and much in between, half of a process is holes.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@lru_cache(maxsize=1)
def _trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
