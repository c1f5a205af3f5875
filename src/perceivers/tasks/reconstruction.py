"""Reconstruction of one modality: the values of each output query, their error and their units."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch.nn.functional import pad

from perceivers.nn.patches import depth_to_space, space_to_depth
from perceivers.registry import configclass
from perceivers.tasks.prediction import Reconstruction
from perceivers.typing import Bool, Float, Tensor

Measures = dict[str, tuple[Float[Tensor, " B"], Bool[Tensor, " B"]]]
"""Measures of a modality's reconstruction by name: values of each sample, and which samples have one."""

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

    measure_names: ClassVar[tuple[str, ...]] = ("psnr", "mse")
    has_mean: ClassVar[bool] = True
    """Whether the mean of the training data is a reconstruction to compare with."""

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

    @property
    def num_outputs(self) -> int:
        """Numbers that each query predicts."""
        return math.prod(self.patch) * (self.num_channels or 1)

    def fit_to_input(self, name: str, config: Any, preprocess: Any) -> "ReconstructionConfig":
        """Return the configuration with the size and units of a modality.

        Args:
            name: Name of the modality.
            config: Its input configuration, complete.
            preprocess: Its preprocessing, complete. None: unknown.

        Raises:
            ValueError: If its values have no grid.
        """
        units = {} if preprocess is None else preprocess.value_units()
        return replace(self, **_extent(name, config), **units)

    def readable(self, outputs: Float[Tensor, "B O V"]) -> Float[Tensor, "B O V"]:
        """Return outputs in the units of the data."""
        return to_data_units(self, outputs)

    def mean_error(
        self,
        outputs: Float[Tensor, "B O V"],
        values: Float[Tensor, "B O V"],
        real: Bool[Tensor, "B O V"] | None,
    ) -> Float[Tensor, ""]:
        """Return the mean error of the real values, in the units of the model's input."""
        error = outputs - values
        error = error.abs() if self.loss == "l1" else error.square()
        if real is None:
            return error.mean()
        return (error * real).sum() / real.sum().clamp_min(1)

    def measures(
        self,
        outputs: Float[Tensor, "B O V"],
        values: Float[Tensor, "B O V"],
        real: Bool[Tensor, "B O V"] | None,
    ) -> Measures:
        """Return `psnr` in dB and `mse` in squared data units of each sample, after clipping."""
        values, outputs = to_data_units(self, values), to_data_units(self, outputs)
        squares = (outputs - values).square()
        if real is None:
            errors = squares.mean(dim=(1, 2))
            there = torch.ones_like(errors, dtype=torch.bool)
        else:
            count = real.sum(dim=(1, 2))
            errors, there = (squares * real).sum(dim=(1, 2)) / count.clamp_min(1), count > 0
        return {"psnr": (psnr(errors, self.peak), there), "mse": (errors, there)}


def _extent(name: str, part: Any) -> dict[str, Any]:
    """Return size and channels of a modality, from its input configuration."""
    grid = getattr(part, "value_grid", None)
    if grid is None:
        has_coordinates = getattr(part, "num_coordinates", None)
        why = "its elements have coordinates" if has_coordinates else "it is no grid"
        raise ValueError(
            f"'{name}' ({part.kind}) cannot be reconstructed: {why}, so no query can address its values. Leave it "
            "out with --columns."
        )
    return grid


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
    whole = tuple(-(-n // p) * p for n, p in zip(sizes, part.patch, strict=True))
    if real is None and whole != tuple(x.shape[2:]):
        real = torch.ones_like(x[:, :1], dtype=torch.bool)
    values = _patches(part, x, whole)
    if real is None:
        return values, None
    real = _patches(part, real.expand_as(x).to(x.dtype), whole) > 0
    return values.masked_fill(~real, 0.0), None if real.all() else real


def map_cells(part: ReconstructionConfig, places: Bool[Tensor, "B ..."]) -> Bool[Tensor, "B O V"]:
    """Return a map of the cells of the grid as flags of the values of each query; False beyond the grid."""
    whole = tuple(n * p for n, p in zip(part.grid, part.patch, strict=True))
    x = places[:, None].expand(-1, part.num_channels or 1, *places.shape[1:])
    return _patches(part, x.float(), whole) > 0


def _patches(
    part: ReconstructionConfig, x: Float[Tensor, "B C *sizes"], whole: Sequence[int]
) -> Float[Tensor, "B O V"]:
    """Return the values of each query of a grid that is padded to whole patches."""
    missing = [n - have for n, have in zip(whole, x.shape[2:], strict=True)]
    widths = [width for count in reversed(missing) for width in (0, count)]
    return space_to_depth(pad(x, widths), part.patch).flatten(1, len(part.patch))


def restored_samples(
    part: ReconstructionConfig,
    preprocess: Any,
    inputs: Tensor,
    mask: Bool[Tensor, "B L"] | None,
    outputs: Float[Tensor, "B O V"],
    hidden: Bool[Tensor, "B O V"] | None = None,
) -> list[Reconstruction]:
    """Return each sample of a modality and its reconstruction, in the units of the data, channels last.

    Args:
        part: Reconstruction of the modality.
        preprocess: Its preprocessing.
        inputs: Its tensor.
        mask: Its mask. None: all is real.
        outputs: Reconstructed values of each query, in the units of the input.
        hidden: True where a value was hidden from the model. None: nothing was.
    """
    cells, _ = reconstruction_cells(part, inputs, None)
    both = [to_grid(part, to_data_units(part, one.float().cpu())) for one in (cells, outputs)]
    places = None if hidden is None else (to_grid(part, hidden.float().cpu()) > 0).any(dim=-1)
    found: list[Reconstruction] = []
    for row in range(outputs.shape[0]):
        original, restored = (preprocess.restore(x[row].numpy()) for x in both)
        where = None if places is None else places[row].numpy()
        if mask is not None and mask.shape[1] > 1:  # drop the padding
            end = int(mask[row].nonzero()[-1]) + 1 if mask[row].any() else 0
            original, restored = original[:end], restored[:end]
            where = None if where is None else where[:end]
        rate = getattr(preprocess, "frame_rate", None) or getattr(preprocess, "sample_rate", None)
        kind = preprocess.kind
        found.append(
            Reconstruction(kind=kind, original=original, restored=restored, rate=rate, hidden=where)
        )
    return found


def to_grid(part: ReconstructionConfig, values: Float[Tensor, "B O V"]) -> Float[Tensor, "B ... C"]:
    """Return the values of queries on their grid, channels last: the inverse of `reconstruction_cells`."""
    x = depth_to_space(values.unflatten(1, part.grid), part.patch).movedim(1, -1)
    return x[(slice(None), *(slice(n) for n in part.size or ()))]
