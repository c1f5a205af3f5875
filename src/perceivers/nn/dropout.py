"""Dropout whose random numbers cost little on a CPU."""

import torch
from torch.nn import functional

from perceivers.typing import Float, Tensor

_VALUES = 2**16  # of the 16 random bits for each number


def dropout(x: Float[Tensor, "*n"], share: float) -> Float[Tensor, "*n"]:
    """Return `x` with a random share of zeros, scaled so that its mean stays.

    PyTorch's dropout draws one 32-bit or longer random number for each value: 1.2 ms for 100,000 values on one CPU
    core. Here four values share a draw of 64 bits: 0.13 ms. The share is rounded to a multiple of 1 / 65,536.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return functional.dropout(x, share)
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device).random_(
        -(2**63), None
    )
    bits = draws.view(torch.int16)[: x.numel()].reshape(x.shape)
    kept = bits.to(torch.float32).ge_(round(share * _VALUES) - _VALUES // 2)
    return x * kept.mul_(1 / (1 - share)).to(x.dtype)
