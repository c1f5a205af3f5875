"""Rotary positions: queries and keys are rotated by angles that grow with their position."""

import torch

from perceivers.registry import configclass
from perceivers.typing import Float, Int, Tensor


@configclass
class RotaryConfig:
    """Angles of rotary positions.

    Attributes:
        channel_share: Share of each head's channels that is rotated, the first ones.
        head_share: Share of the heads that are rotated, the first ones.
        max_wavelength: Base of the geometric sequence of frequencies.
        includes_end: The slowest pair of channels turns by 1 / `max_wavelength` radians for each position, as in
            DeepMind's Perceiver AR. Otherwise the sequence ends one step before that, as in RoFormer.
        counts_backward: Positions decrease from the first to the last token.

    Raises:
        ValueError: If a number is out of range.
    """

    channel_share: float = 0.5
    head_share: float = 1.0
    max_wavelength: float = 10_000.0
    includes_end: bool = False
    counts_backward: bool = False

    def __post_init__(self) -> None:
        if not (0 < self.channel_share <= 1 and 0 < self.head_share <= 1):
            raise ValueError(
                "Expected shares of channels and heads above 0 and up to 1, got "
                f"{self.channel_share} and {self.head_share}."
            )
        if self.max_wavelength <= 1:
            raise ValueError(f"Expected a max_wavelength above 1, got {self.max_wavelength}.")

    def pairs(self, head_channels: int) -> int:
        """Return the number of rotated pairs of channels of a head."""
        return int(head_channels * self.channel_share) // 2

    def angles(
        self, positions: Int[Tensor, "B L"], head_channels: int, dtype: torch.dtype
    ) -> Float[Tensor, "B L R"]:
        """Return the angle of each pair of channels at each position, in radians, in at least float32."""
        dtype = torch.promote_types(dtype, torch.float32)
        frequencies = self.frequencies(head_channels).to(positions.device, dtype)
        sign = -1 if self.counts_backward else 1
        return sign * positions[..., None].to(dtype) * frequencies

    def frequencies(self, head_channels: int) -> Float[Tensor, " R"]:
        """Return the angle by which each pair of channels turns from one position to the next, in float64."""
        count = self.pairs(head_channels)
        steps = torch.arange(count, dtype=torch.float64)
        steps = steps / max(count - 1, 1) if self.includes_end else steps / count
        return self.max_wavelength**-steps


def rotate(
    x: Float[Tensor, "B H L F"], angles: Float[Tensor, "B L R"] | None, head_share: float = 1.0
) -> Float[Tensor, "B H L F"]:
    """Return queries or keys whose neighboring pairs of channels are rotated: (a, b) -> (a cos - b sin, b cos + a sin).

    Args:
        x: Queries or keys of each head.
        angles: Angles of the first R pairs of channels. None: nothing is rotated.
        head_share: Share of the heads that are rotated.

    Reference: RoFormer (arXiv:2104.09864).
    """
    if angles is None or not angles.shape[-1]:
        return x
    heads = int(head_share * x.shape[1])
    if heads < x.shape[1]:
        return torch.cat([rotate(x[:, :heads], angles), x[:, heads:]], dim=1)
    count = 2 * angles.shape[-1]
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    pairs = x[..., :count].to(cos.dtype).unflatten(-1, (-1, 2))
    a, b = pairs.unbind(dim=-1)
    turned = torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2).to(x.dtype)
    return turned if count == x.shape[-1] else torch.cat([turned, x[..., count:]], dim=-1)
