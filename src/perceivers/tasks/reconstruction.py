"""How one modality is reconstructed: what each query answers for, in which units errors are, and how they are told."""

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import ConfigDict
from torch.nn.functional import pad

from perceivers.typing import Bool, Float, Tensor

__all__ = ["ReconstructionConfig", "cells_of", "in_units", "psnr"]

_LEAST_ERROR = (
    1e-10  # of a reconstruction that is exact, which has no finite PSNR: 100 dB of a peak of 1
)


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig:
    """How one modality is reconstructed.

    Attributes:
        weight: Of its mean error in the loss.
        loss: The mean absolute (`l1`) or squared (`l2`) error, of values as the model reads them.
        patch: Cells that one query answers for: frames, rows and columns of a film; rows and columns of a picture;
            frames and bands of a spectrogram; samples or steps of what is a row.
        queries: Queries drawn in each step of training, the same for all samples of a batch. None: all are asked.
        size: Cells along each of these axes. None: taken from the data before the model is built.
        num_channels: Values of a cell that are reconstructed. None: taken from the data.
        has_missing: Whether a flag for each value follows them, 1 where one is there: only these are asked for.
        mean: Of each channel, added before errors are measured; so errors are in the data's own units. (): 0.
        std: Of each channel, multiplied by before that. (): 1, so errors are in what the model reads.
        low: What reconstructions are clipped to before errors are measured. None: nothing is below.
        high: The same from above.
        peak: The largest value that PSNR is relative to, in the same units.

    Raises:
        ValueError: If a number is out of range.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    weight: float = 1.0
    loss: Literal["l1", "l2"] = "l1"
    patch: tuple[int, ...] = (1,)
    queries: int | None = 512
    size: tuple[int, ...] | None = None
    num_channels: int | None = None
    has_missing: bool = False
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    low: float | None = None
    high: float | None = None
    peak: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        if self.weight < 0 or self.peak <= 0 or min(self.patch, default=0) < 1:
            msg = (
                "Expected a weight of at least 0, a peak above 0 and a patch of at least 1 along each axis, got "
                f"weight={self.weight}, peak={self.peak} and patch={self.patch}."
            )
            raise ValueError(msg)
        if self.queries is not None and self.queries < 1:
            msg = f"Expected queries of at least 1, or None for all, got {self.queries}."
            raise ValueError(msg)
        if self.size is not None and len(self.size) != len(self.patch):
            msg = f"Expected one size for each axis of patch={self.patch}, got {self.size}."
            raise ValueError(msg)

    @property
    def grid(self) -> tuple[int, ...]:
        """Queries along each axis.

        Raises:
            ValueError: If the size is still unknown.
        """
        if self.size is None:
            msg = "Expected the size of what is reconstructed, got None: it is taken from the data."
            raise ValueError(msg)
        return tuple(-(-n // p) for n, p in zip(self.size, self.patch, strict=True))


def psnr(errors: Float[Tensor, " B"], peak: float) -> Float[Tensor, " B"]:
    """Return the peak signal-to-noise ratio in dB, of mean squared errors in the units of the peak."""
    return -10 * torch.log10(errors.clamp_min(_LEAST_ERROR) / peak**2)


def in_units(part: ReconstructionConfig, values: Float[Tensor, "B O V"]) -> Float[Tensor, "B O V"]:
    """Return what the model reads or answers in the data's own units, clipped to what is possible there."""
    if part.std:
        std = values.new_tensor(part.std)
        values = values * std.repeat(values.shape[-1] // std.shape[0])
    if part.mean:
        mean = values.new_tensor(part.mean)
        values = values + mean.repeat(values.shape[-1] // mean.shape[0])
    if part.low is None and part.high is None:
        return values
    return values.clamp(part.low, part.high)


def cells_of(
    part: ReconstructionConfig, x: Tensor, mask: Bool[Tensor, "B L"] | None
) -> tuple[Float[Tensor, "B O V"], Bool[Tensor, "B O V"] | None]:
    """Return what each query answers for, and where it is real; None if all is.

    Args:
        part: Patch, size and channels.
        x: As the model reads it: B x T x C x Y x X, B x C x Y x X, B x frames x bands or B x L x C.
        mask: Where the second axis is real, or (L = 1) whether a sample has the modality at all.
    """
    axes = len(part.patch)
    is_picture = axes == 2 and x.ndim == 4
    if axes == 2 and not is_picture:
        x = x[:, None]
    elif not is_picture:
        x = x.transpose(1, 2)
    channels = x.shape[1] if part.num_channels is None else part.num_channels
    there: Tensor | None = None
    if mask is not None:
        there = mask.reshape(mask.shape[0], 1, -1, *[1] * (axes - 1))
    if part.has_missing:
        flags = x[:, channels : 2 * channels] > 0
        there = flags if there is None else flags & there
    x = x[:, :channels]
    sizes = x.shape[2:] if part.size is None else part.size
    missing = [
        -(-n // p) * p - have for n, p, have in zip(sizes, part.patch, x.shape[2:], strict=True)
    ]
    widths = [width for count in reversed(missing) for width in (0, count)]
    if there is None and any(missing):
        there = torch.ones_like(x[:, :1], dtype=torch.bool)
    values = _patches(pad(x, widths), part.patch)
    if there is None:
        return values, None
    there = _patches(pad(there.expand_as(x).to(x.dtype), widths), part.patch) > 0
    return values.masked_fill(~there, 0.0), None if there.all() else there


def _patches(x: Float[Tensor, "B C *sizes"], patch: tuple[int, ...]) -> Float[Tensor, "B O V"]:
    """Return the values of each patch side by side, its channels last, as the adapters of films and pictures do."""
    for axis, step in enumerate(patch):
        x = x.unfold(2 + axis, step, step)  # the cells of a patch become a new last axis
    axes = len(patch)
    return x.permute(0, *range(2, 2 + 2 * axes), 1).flatten(1, axes).flatten(2)
