"""Tolerances of all comparisons, and the functions that compare.

| name | used where |
|---|---|
| `close` | the same mathematics in another order: another path, another layout, padding or not |
| `parity` | our numbers against another implementation, norm-wise |
| `int8` | int8 weights against the float32 layers that they were made of, norm-wise |
| `EXACT`, `READ_TIMES` | ways to read the input against the papers' formulas |
| `golden` | losses of training steps against those on file, on another processor |
"""

import torch
from torch import Tensor

__all__ = [
    "EXACT",
    "GOLDEN",
    "INT8",
    "PARITY",
    "READ_FLOOR",
    "READ_TIMES",
    "assert_close",
    "relative_error",
]

# Norm-wise, float32: what the parity of outputs and gradients with other implementations must keep.
PARITY = 1e-5

# Relative, float32 losses of 20 training steps. Processors differ in the order of their sums, and
# training magnifies that difference: noise of 3e-7 in the weights came out as up to 1.2e-3 after 20 steps.
GOLDEN = 5e-3

# Norm-wise, float32: one layer, or a small model, in int8. Rounding to 127 steps a row costs 0.9 %.
INT8 = 2e-2

# Norm-wise, float64: every way to read the input against the papers' formulas, forward and gradients.
EXACT = 1e-10

# In float32 a way to read may have this many times the error of the formulas themselves. Over a few numbers these can
# be right by luck, so some roundings of the result are always allowed, and of the scores where these are large.
READ_TIMES, READ_FLOOR = 4.0, 1e-6

# By dtype and device: (rtol, atol) of one forward or backward pass that is mathematically the same.
_CLOSE = {
    (torch.float64, "cpu"): (1e-9, 1e-11),
    (torch.float32, "cpu"): (1e-4, 1e-5),
    (torch.bfloat16, "cpu"): (2e-2, 2e-2),
    (torch.float64, "cuda"): (1e-9, 1e-11),
    (torch.float32, "cuda"): (1e-4, 1e-4),
    (torch.float16, "cuda"): (5e-3, 5e-3),
    (torch.bfloat16, "cuda"): (2e-2, 2e-2),
}


def assert_close(actual: Tensor, expected: Tensor) -> None:
    """Assert that two tensors hold the same numbers, as exactly as their dtype and device allow."""
    rtol, atol = _CLOSE.get((actual.dtype, actual.device.type), (0.0, 0.0))
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference over the norm of what was expected."""
    actual, expected = actual.detach().double(), expected.detach().double()
    return float((actual - expected).norm() / expected.norm().clamp_min(1e-30))
