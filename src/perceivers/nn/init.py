"""Weight initialization: the two rules of DeepMind's release.

| weights | rule |
|---|---|
| projections of attention, MLP | `lecun_normal_`: sd 1/sqrt(fan in) after truncation |
| other projections (content, learned positions, stem) | `truncated_linear`: 1/sqrt(fan in) before truncation |
| latents, learned positions | `truncated_normal_`: sd as given before truncation |
| the classifier of the 2021 model | zeros |
| biases | zeros |

Reference: papers' reference implementation (dm-haiku's `VarianceScaling` and `TruncatedNormal`).
"""

from torch import nn

from perceivers.typing import Float, Tensor

# Standard deviation of a unit normal after everything beyond 2 has been cut away.
_SD_OF_TRUNCATED = 0.87962566103423978


def truncated_normal_(weight: Float[Tensor, "..."], sd: float) -> Float[Tensor, "..."]:
    """Fill `weight` from a normal of mean 0, cut at two standard deviations.

    The cut is in units of `sd`, so with sd 0.02 all values lie within 0.04 and their standard deviation is 0.0176.

    Reference: Perceiver (arXiv:2103.03206), appendix C; the unit of the bounds is haiku's.
    """
    return nn.init.trunc_normal_(weight, std=sd, a=-2 * sd, b=2 * sd)


def lecun_normal_(weight: Float[Tensor, "..."], fan_in: int) -> Float[Tensor, "..."]:
    """Fill `weight` from a normal of mean 0, cut at two standard deviations, whose variance is then 1 / `fan_in`."""
    return truncated_normal_(weight, fan_in**-0.5 / _SD_OF_TRUNCATED)


def lecun_linear(in_channels: int, out_channels: int, *, bias: bool = True) -> nn.Linear:
    """Return a linear layer whose output keeps the variance of its input; its bias, if it has one, is zero."""
    linear = nn.Linear(in_channels, out_channels, bias=bias)
    lecun_normal_(linear.weight, in_channels)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear


def truncated_linear(in_channels: int, out_channels: int) -> nn.Linear:
    """Return a linear layer with haiku's default initialization, without the correction for truncation."""
    linear = nn.Linear(in_channels, out_channels)
    truncated_normal_(linear.weight, in_channels**-0.5)
    nn.init.zeros_(linear.bias)
    return linear
