"""Reconstruction of one modality: the values of each output query, their error and their units."""

import math
from typing import Any, Literal

import torch
from torch.nn.functional import pad

from perceivers.nn.patches import depth_to_space, space_to_depth
from perceivers.registry import configclass
from perceivers.tasks.prediction import Reconstruction
from perceivers.typing import Bool, Float, Tensor

_LEAST_ERROR = 1e-10  # of an exact reconstruction, which has no finite PSNR: 100 dB of a peak of 1


@configclass
class ReconstructionConfig:
    """Loss, patches and units of one modality's reconstruction.

    Attributes:
        weight: Weight of its mean error in the loss.
        loss: The mean absolute (`l1`) or squared (`l2`) error, of values in the units of the model's input.
        patch: Cells that one query reconstructs: frames, rows and columns of a video; rows and columns of an image;
            frames and bands of a spectrogram; samples or steps of audio, series and arrays.
        num_train_queries: Queries that are drawn for a step of training, the same for all samples of a batch. None:
            all.
        size: Cells along each of these axes. None: taken from the data before the model is built.
        num_channels: Values of a cell that are reconstructed. None: taken from the data.
        has_missing: Whether the values are followed by a flag for each, 1 where it is present: only these count.
        mean: Mean of each channel, added before errors are measured, so that errors are in the data's units. (): 0.
        std: Factor of each channel, applied before the mean is added. (): 1.
        low: Lower limit to which reconstructions are clipped before errors are measured. None: no limit.
        high: Upper limit, likewise.
        peak: Largest value, to which PSNR is relative, in the same units.

    Raises:
        ValueError: If a number is out of range.
    """

    weight: float = 1.0
    loss: Literal["l1", "l2"] = "l1"
    patch: tuple[int, ...] = (1,)
    num_train_queries: int | None = 512
    size: tuple[int, ...] | None = None
    num_channels: int | None = None
    has_missing: bool = False
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    low: float | None = None
    high: float | None = None
    peak: float = 1.0

    def __post_init__(self) -> None:
        if self.weight < 0 or self.peak <= 0 or min(self.patch, default=0) < 1:
            raise ValueError(
                "Expected a weight of at least 0, a peak above 0 and a patch of at least 1 along each axis, got "
                f"weight={self.weight}, peak={self.peak} and patch={self.patch}."
            )
        if self.num_train_queries is not None and self.num_train_queries < 1:
            raise ValueError(
                f"Expected num_train_queries of at least 1, or None for all, got {self.num_train_queries}."
            )
        if self.size is not None and len(self.size) != len(self.patch):
            raise ValueError(
                f"Expected one size for each axis of patch={self.patch}, got {self.size}."
            )

    @property
    def num_values(self) -> int:
        """Values of all cells."""
        return math.prod(self.size or ()) * (self.num_channels or 1)

    @property
    def grid(self) -> tuple[int, ...]:
        """Queries along each axis.

        Raises:
            ValueError: If the size is still unknown.
        """
        if self.size is None:
            raise ValueError(
                "Expected the size of the modality that is reconstructed, got None: it is taken from the data."
            )
        return tuple(-(-n // p) for n, p in zip(self.size, self.patch, strict=True))


def psnr(errors: Float[Tensor, " B"], peak: float) -> Float[Tensor, " B"]:
    """Return the peak signal-to-noise ratio in dB, of mean squared errors in the units of the peak."""
    return -10 * torch.log10(errors.clamp_min(_LEAST_ERROR) / peak**2)


def to_data_units(
    part: ReconstructionConfig, values: Float[Tensor, "B O V"]
) -> Float[Tensor, "B O V"]:
    """Return values in the units of the model's input as values in the data's units, clipped to their range."""
    if part.std:
        std = values.new_tensor(part.std)
        values = values * std.repeat(values.shape[-1] // std.shape[0])
    if part.mean:
        mean = values.new_tensor(part.mean)
        values = values + mean.repeat(values.shape[-1] // mean.shape[0])
    if part.low is None and part.high is None:
        return values
    return values.clamp(part.low, part.high)


def reconstruction_cells(
    part: ReconstructionConfig, x: Tensor, mask: Bool[Tensor, "B L"] | None
) -> tuple[Float[Tensor, "B O V"], Bool[Tensor, "B O V"] | None]:
    """Return the values of each query, and where they are real; None if all are.

    `x` is B x T x C x Y x X, B x C x Y x X, B x frames x bands or B x L x C; the mask is of its second axis, or (L = 1)
    of whole samples.
    """
    axes = len(part.patch)
    is_image = axes == 2 and x.ndim == 4
    if axes == 2 and not is_image:
        x = x[:, None]
    elif not is_image:
        x = x.transpose(1, 2)
    channels = x.shape[1] if part.num_channels is None else part.num_channels
    real: Tensor | None = None
    if mask is not None:
        real = mask.reshape(mask.shape[0], 1, -1, *[1] * (axes - 1))
    if part.has_missing:
        flags = x[:, channels : 2 * channels] > 0
        real = flags if real is None else flags & real
    x = x[:, :channels]
    sizes = x.shape[2:] if part.size is None else part.size
    missing = [
        -(-n // p) * p - have for n, p, have in zip(sizes, part.patch, x.shape[2:], strict=True)
    ]
    widths = [width for count in reversed(missing) for width in (0, count)]
    if real is None and any(missing):
        real = torch.ones_like(x[:, :1], dtype=torch.bool)
    values = space_to_depth(pad(x, widths), part.patch).flatten(1, axes)
    if real is None:
        return values, None
    flags = pad(real.expand_as(x).to(x.dtype), widths)
    real = space_to_depth(flags, part.patch).flatten(1, axes) > 0
    return values.masked_fill(~real, 0.0), None if real.all() else real


def restored_samples(
    part: ReconstructionConfig,
    preprocess: Any,
    inputs: Tensor,
    mask: Bool[Tensor, "B L"] | None,
    outputs: Float[Tensor, "B O V"],
) -> list[Reconstruction]:
    """Return each sample of a modality and its reconstruction, in the units of the data, channels last."""
    cells, _ = reconstruction_cells(part, inputs, None)
    both: list[Tensor] = []
    for queries in (cells, outputs):  # the inverse of `reconstruction_cells`
        grid = to_data_units(part, queries.float().cpu()).unflatten(1, part.grid)
        x = depth_to_space(grid, part.patch).movedim(1, -1)
        both.append(x[(slice(None), *(slice(n) for n in part.size or ()))])
    found: list[Reconstruction] = []
    for row in range(outputs.shape[0]):
        original, restored = (preprocess.restore(x[row].numpy()) for x in both)
        if mask is not None and mask.shape[1] > 1:  # drop the padding
            end = int(mask[row].nonzero()[-1]) + 1 if mask[row].any() else 0
            original, restored = original[:end], restored[:end]
        rate = getattr(preprocess, "frame_rate", None) or getattr(preprocess, "sample_rate", None)
        kind = preprocess.kind
        found.append(Reconstruction(kind=kind, original=original, restored=restored, rate=rate))
    return found
