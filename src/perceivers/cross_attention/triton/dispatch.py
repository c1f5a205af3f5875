"""Dispatch of cross-attention to the kernels of a GPU or to the streaming implementation.

The kernels read in float32 (with content in float32, bfloat16 or float16) where all modalities are grids. Everything
else is streamed: float64, dense positions, hidden elements, wide content, other devices. Both give the same
numbers up to rounding.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from types import ModuleType
from typing import TypeVar

import torch

from perceivers.cross_attention import streaming
from perceivers.cross_attention.features import Features
from perceivers.cross_attention.tiles import GridFeatures
from perceivers.typing import Float, Tensor

SWITCH = "PERCEIVERS_KERNELS"
"""Environment variable: 0 turns the kernels off."""

CAPABILITY = (7, 5)
"""The oldest GPUs for which the kernels are meant (Turing)."""

CONTENT_TYPES = (torch.float32, torch.bfloat16, torch.float16)

MOST_CHANNELS = 64
"""Content channels. More do not fit into the registers, and the large products of streaming are fast for them."""

LEAST_CELLS = 8
"""Cells along the last axis: the kernels work on 16 at once."""

FAILED: set[torch.device] = set()
"""Devices on which the kernels have failed."""

Result = TypeVar("Result")


def available(tensor: Tensor) -> bool:
    """Return whether there are kernels for a tensor's device: CUDA, Triton installed, and not switched off."""
    if not tensor.is_cuda or os.environ.get(SWITCH) == "0" or tensor.device in FAILED:
        return False
    return _capable(tensor.device)


@lru_cache(maxsize=16)
def _capable(device: torch.device) -> bool:
    if torch.version.cuda is None or find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= CAPABILITY


def suits(part: Features, rows: int) -> bool:
    """Return whether the kernels can read a segment with so many rows."""
    if not isinstance(part, GridFeatures) or part.dtype != torch.float32:
        return False
    content, last = part.content, part.sizes[-1]
    if content.dtype not in CONTENT_TYPES or content.shape[2] > MOST_CHANNELS or last < LEAST_CELLS:
        return False
    # Places within one sample are 32-bit numbers in the kernels.
    most = (content.shape[1] - 1) * content.stride(1) + (content.shape[2] - 1) * content.stride(2)
    lines, channels = content.shape[1] // last, max(part.channels, content.shape[2] * last // 8)
    return max(most, lines * rows, last * rows, channels * rows) < 2**31


def attention_forward(
    vectors: Float[Tensor, "P C R"], parts: Sequence[Features]
) -> tuple[Float[Tensor, "B C R"], Float[Tensor, "B R"]]:
    """Return the attention output of each query, and its log-sum-exp. See `streaming.attention_forward`."""
    grids = _grids(vectors, parts)
    if grids:
        found = _attempt(vectors.device, lambda module: module.attention_forward(vectors, grids))
        if found is not None:
            return found
    return streaming.attention_forward(vectors, parts)


def attention_backward(
    gradient: Float[Tensor, "B C R"],
    delta: Float[Tensor, "B R"],
    vectors: Float[Tensor, "P C R"],
    log_sum: Float[Tensor, "B R"],
    parts: Sequence[Features],
    needed: Sequence[Sequence[bool]],
) -> tuple[Float[Tensor, "P C R"], list[Tensor | None]]:
    """Return the gradients of the queries and of each tensor that needs one. See `streaming.attention_backward`."""
    grids = _grids(vectors, parts)
    if grids:
        found = _attempt(
            vectors.device,
            lambda module: module.attention_backward(
                gradient, delta, vectors, log_sum, grids, needed
            ),
        )
        if found is not None:
            return found
    return streaming.attention_backward(gradient, delta, vectors, log_sum, parts, needed)


def _grids(vectors: Float[Tensor, "P C R"], parts: Sequence[Features]) -> list[GridFeatures]:
    """Return the segments if the kernels can read all of them: they share one softmax. Else none."""
    if not available(vectors):
        return []
    grids = [part for part in parts if isinstance(part, GridFeatures)]
    all_suit = all(suits(part, vectors.shape[2]) for part in parts)
    return grids if all_suit else []


def _attempt(device: torch.device, call: Callable[[ModuleType], Result]) -> Result | None:
    """Return the result of the kernels; None, with one warning, if they cannot be compiled or started."""
    try:
        from perceivers.cross_attention.triton import cross_attention as triton_read

        with torch.cuda.device(device if device.type == "cuda" else -1):
            return call(triton_read)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        FAILED.add(device)
        warnings.warn(
            f"The Triton kernels do not run on {device}, so reading takes the slower way of plain PyTorch there,"
            f" with the same numbers. The reason: {type(error).__name__}: {error}. Set {SWITCH}=0 to not try them.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
