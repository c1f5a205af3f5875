"""Masking of one modality for masked autoencoding: what is hidden from the model, and how its reconstruction counts.

Each kind of masking is a configuration with the methods that the task calls. Grids of values (images, spectrograms,
series, videos, arrays) hide blocks; point clouds hide blocks of space; tables hide fields; texts hide words.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch.nn.functional import pad

from perceivers.registry import ConfigRegistry, configclass
from perceivers.tasks.prediction import Reconstruction
from perceivers.tasks.reconstruction import (
    Measures,
    ReconstructionConfig,
    map_cells,
    reconstruction_cells,
    restored_samples,
)
from perceivers.typing import Bool, Float, Int, Tensor

MASKINGS = ConfigRegistry("masking")
"""Registered kinds of masking."""

MaskingConfig = Annotated[Any, MASKINGS]
"""Type of a field that holds the masking of a modality, of any registered kind."""


@dataclass(frozen=True)
class HiddenPart:
    """One modality of a batch with a part of it hidden.

    Attributes:
        x: Input of the model, in which nothing depends on hidden values.
        mask: Its mask. None: all is real.
        values: Targets of each query, B x O x V.
        hidden: True where a target counts: it is hidden, and real in the data.
    """

    x: Tensor
    mask: Bool[Tensor, "B _"] | None
    values: Float[Tensor, "B _ _"] | Int[Tensor, "B _ _"]
    hidden: Bool[Tensor, "B _ _"]


def draw_hidden(
    scores: Float[Tensor, "B n"], real: Bool[Tensor, "B n"], share: float
) -> Bool[Tensor, "B n"]:
    """Return a mask of the hidden units of each sample: those of the lowest scores among its real units.

    Their number is the share of the real units, rounded, at least one and never all; of a single real unit none.
    """
    count = real.sum(dim=1)
    wanted = (share * count).round().clamp_min(1).minimum(count - 1)
    order = scores.masked_fill(~real, torch.inf).argsort(dim=1)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(scores.shape[1], device=order.device).expand_as(order)
    )
    return (rank < wanted[:, None]) & real


def check_share(share: float) -> None:
    """Refuse a share of the units outside of (0, 1): nothing, or all, would be hidden.

    Raises:
        ValueError: If it is outside.
    """
    if not 0.0 < share < 1.0:
        raise ValueError(
            f"Expected a hidden share of the input in (0, 1), such as hidden=0.6, got {share}: with 0 nothing is left "
            "to predict, with 1 nothing to predict it from."
        )


@configclass
class ValuesMaskingConfig(ReconstructionConfig):
    """Base class of maskings that replace values by zeros, the mean of normalized values.

    A subclass states the units that are hidden: `num_units`, `real_units` and `places`.

    Attributes:
        hidden: Share of the units of each sample that are hidden.
        patch: Cells that one query reconstructs. (): taken from the data.
        num_train_queries: Queries of a training step. None: all.
        size: As in `ReconstructionConfig`; the other fields as well.

    Raises:
        ValueError: If the share is out of range.
    """

    keeps_elements: ClassVar[bool] = False
    """Whether a modality that is hidden as a whole keeps its elements, since queries are made of them."""

    loss: Literal["l1", "l2"] = "l2"
    hidden: float = 0.6
    patch: tuple[int, ...] = ()
    num_train_queries: int | None = None

    def __post_init__(self) -> None:
        check_share(self.hidden)
        if self.patch:
            ReconstructionConfig.__post_init__(self)

    def extent(self, config: Any) -> dict[str, Any]:
        """Return size and channels of a modality from its input configuration."""
        grid = getattr(config, "value_grid", None)
        if grid is None:  # rows with coordinates
            return {"size": (config.length,), "num_channels": config.num_channels}
        return grid

    @property
    def num_units(self) -> int:
        """Units of a sample."""
        raise NotImplementedError

    def real_units(self, x: Tensor, mask: Bool[Tensor, "B L"] | None) -> Bool[Tensor, "B n"]:
        """Return a mask of the units that hold a real value."""
        raise NotImplementedError

    def places(self, units: Bool[Tensor, "B n"]) -> Bool[Tensor, "B ..."]:
        """Return the map of hidden cells, B x the size of the grid."""
        raise NotImplementedError

    def draw(
        self, x: Tensor, mask: Bool[Tensor, "B L"] | None, scores: Float[Tensor, "B n"]
    ) -> Bool[Tensor, "B n"]:
        """Return a mask of the hidden units: those of the lowest scores."""
        return draw_hidden(scores, self.real_units(x, mask), self.hidden)

    def hide(
        self, x: Tensor, mask: Bool[Tensor, "B L"] | None, units: Bool[Tensor, "B n"]
    ) -> HiddenPart:
        """Return the modality with some units hidden."""
        values, real = reconstruction_cells(self, x, mask)
        places = self.places(units)
        hidden = map_cells(self, places)
        hidden = hidden.expand_as(values) if real is None else hidden & real
        return HiddenPart(self.filled(x, places), mask, values, hidden)

    def filled(self, x: Tensor, places: Bool[Tensor, "B ..."]) -> Tensor:
        """Return the input with zeros at hidden places. Coordinates and times behind the values stay."""
        axes = len(self.patch)
        if axes == 2 and x.ndim == 3:  # a spectrogram
            return x.masked_fill(places[:, : x.shape[1]], 0.0)
        if axes == 2:
            return x.masked_fill(places[:, None], 0.0)
        places = places[:, : x.shape[1]].unsqueeze(2)
        if axes == 3:
            return x.masked_fill(places, 0.0)
        behind = (self.num_channels or 1) * (2 if self.has_missing else 1)
        return torch.cat([x[..., :behind].masked_fill(places, 0.0), x[..., behind:]], dim=-1)

    def in_units(
        self, outputs: Tensor, values: Tensor, real: Bool[Tensor, "B O V"] | None
    ) -> Float[Tensor, "B O V"]:
        """Return outputs in the units of the model's input. `values` and `real` are those of the targets."""
        return outputs[..., : values.shape[2]]

    def restored(
        self,
        preprocess: Any,
        x: Tensor,
        mask: Bool[Tensor, "B L"] | None,
        target: HiddenPart,
        outputs: Float[Tensor, "B O K"],
    ) -> list[Reconstruction]:
        """Return each sample, and the same with hidden values replaced by predictions."""
        cells, _ = reconstruction_cells(self, x, None)
        found = self.in_units(outputs.float(), target.values, target.hidden)
        filled = torch.where(target.hidden, found, cells)
        return restored_samples(self, preprocess, x, mask, filled, target.hidden)


@configclass
class GridMaskingConfig(ValuesMaskingConfig):
    """Blocks of a grid of values are hidden: replaced by zeros, the mean of normalized values.

    Attributes:
        hidden: Share of the blocks of each sample that are hidden.
        block: Cells of a block along each axis. None: the grid has about `blocks` of them.
        blocks: Blocks along each axis if `block` is open.
        patch: Cells that one query reconstructs; `block` is a multiple of it. (): a block, or an equal part of it of at
            most `most` cells along each axis.
        most: Cells of an open `patch` along each axis at most.
        normalize: Whether the loss is that of values standardized within each patch by its own mean and deviation,
            over all channels (masked autoencoders, arXiv:2111.06377). Reconstructions then take both from the original.
        spectrum: Of grids of one axis, the weight of a second error beside that of the values: of the logarithms of the
            magnitudes of each patch's spectrum, which are predicted besides. They are independent of the phase, so that
            the model learns the strength of a movement even where its steps cannot be predicted. 0: none.
        num_train_queries: Queries of a training step. None: all.
        size: As in `ReconstructionConfig`; the other fields as well.

    Raises:
        ValueError: If a share or a block is out of range.
    """

    kind: Literal["grid"] = "grid"
    block: tuple[int, ...] | None = None
    blocks: tuple[int, ...] = (8, 8)
    most: tuple[int, ...] = (8, 8)
    normalize: bool = False
    spectrum: float = 0.0

    def __post_init__(self) -> None:
        check_share(self.hidden)
        axes = len(self.blocks)
        if self.spectrum < 0 or (self.spectrum and axes > 1):
            raise ValueError(
                f"Expected a spectrum of at least 0, and 0 for more than one axis, got {self.spectrum} for {axes}."
            )
        for name in ("block", "patch", "most"):
            sides = getattr(self, name)
            if sides and (len(sides) != axes or min(sides) < 1):
                raise ValueError(
                    f"Expected {name} of {axes} numbers of at least 1, one for each axis, got {sides}."
                )
        if self.patch:
            ReconstructionConfig.__post_init__(self)
        if (
            self.patch
            and self.block
            and any(b % p for b, p in zip(self.block, self.patch, strict=True))
        ):
            raise ValueError(
                f"Expected a block that is a multiple of patch={self.patch} along each axis, got block={self.block}: a "
                "query would be hidden in part. Change one of the two."
            )

    def fit_to_input(self, name: str, config: Any, preprocess: Any) -> "GridMaskingConfig":
        """Return the configuration with the size and units of a modality, and its blocks.

        Raises:
            ValueError: If a block is larger than the input, or a single block is all of it.
        """
        units = {} if preprocess is None else preprocess.value_units()
        return replace(self, **self.extent(config), **units).with_blocks(name)

    def with_blocks(self, name: str) -> "GridMaskingConfig":
        """Return the configuration with block and patch, for the size that is known."""
        size: Any = self.size
        block, patch = self.block, self.patch
        if block is None:
            parts = [-(-n // min(b, n)) for n, b in zip(size, self.blocks, strict=True)]
            block = tuple(parts)
            if patch:
                block = tuple(-(-n // p) * p for n, p in zip(block, patch, strict=True))
        if not patch:
            counts = [-(-n // m) for n, m in zip(block, self.most, strict=True)]
            if self.block is None:
                patch = tuple(-(-n // c) for n, c in zip(block, counts, strict=True))
                block = tuple(p * c for p, c in zip(patch, counts, strict=True))
            else:  # the largest divisor
                patch = tuple(
                    max(d for d in range(1, n + 1) if n % d == 0 and d <= m)
                    for n, m in zip(block, self.most, strict=True)
                )
        if self.block is not None and any(b > n for b, n in zip(block, size, strict=True)):
            raise ValueError(
                f"Expected a block of '{name}' that fits into its {times(size)} values, got {times(block)}. Give a "
                f"smaller one: --task.parts.{name}.block {' '.join(['2'] * len(size))}."
            )
        made = replace(self, block=block, patch=patch)
        if math.prod(made.block_grid) < 2:
            raise ValueError(
                f"'{name}' is a single block of {times(size)} values, so that nothing is left to predict it from. "
                f"Give smaller blocks with --task.parts.{name}.block, or leave '{name}' out with --columns."
            )
        return made

    @property
    def block_grid(self) -> tuple[int, ...]:
        """Blocks along each axis."""
        return tuple(-(-n // b) for n, b in zip(self.size or (), self.block or (), strict=True))

    @property
    def num_units(self) -> int:
        """Blocks of a sample."""
        return math.prod(self.block_grid)

    def real_units(self, x: Tensor, mask: Bool[Tensor, "B L"] | None) -> Bool[Tensor, "B n"]:
        """Return a mask of the blocks that hold a real value."""
        _, real = reconstruction_cells(replace(self, patch=self.block), x, mask)
        if real is None:
            return torch.ones(x.shape[0], self.num_units, dtype=torch.bool, device=x.device)
        return real.any(dim=2)

    def places(self, units: Bool[Tensor, "B n"]) -> Bool[Tensor, "B ..."]:
        """Return the map of hidden cells, B x the size of the grid."""
        places = units.unflatten(1, self.block_grid)
        for axis, (side, length) in enumerate(zip(self.block or (), self.size or (), strict=True)):
            places = places.repeat_interleave(side, dim=axis + 1).narrow(axis + 1, 0, length)
        return places

    @property
    def num_magnitudes(self) -> int:
        """Numbers of the spectrum that each query predicts."""
        return math.prod(self.patch) // 2 * (self.num_channels or 1) if self.spectrum else 0

    @property
    def num_outputs(self) -> int:
        """Numbers that each query predicts: its values, then their spectrum."""
        return super().num_outputs + self.num_magnitudes

    def readable(self, outputs: Float[Tensor, "B O K"]) -> Float[Tensor, "B O V"]:
        """Return the values in the units of the data."""
        return super().readable(outputs[..., : super().num_outputs])

    def mean_error(
        self,
        outputs: Float[Tensor, "B O K"],
        values: Float[Tensor, "B O V"],
        real: Bool[Tensor, "B O V"] | None,
    ) -> Float[Tensor, ""]:
        """Return the mean error of the hidden values, with that of their spectrum."""
        found, rest = outputs.split([values.shape[2], outputs.shape[2] - values.shape[2]], dim=2)
        whole = values
        if self.normalize:
            mean, std = _moments(values, real)
            values = (values - mean) / std
        error = super().mean_error(found, values, real)
        if not self.num_magnitudes:
            return error
        counts = None if real is None else self._by_step(real).all(dim=2)
        squares = (
            rest.unflatten(2, (-1, self.num_channels or 1)) - self.magnitudes(whole)
        ).square()
        each = squares.mean(dim=2)
        there = torch.ones_like(each) if counts is None else counts.to(each.dtype)
        return error + self.spectrum * (each * there).sum() / there.sum().clamp_min(1)

    def magnitudes(self, values: Float[Tensor, "B O V"]) -> Float[Tensor, "B O F C"]:
        """Return log(1 + magnitude) of each frequency above zero of each query's values, by channel."""
        found = torch.fft.rfft(self._by_step(values), dim=2, norm="ortho").abs()
        return found[:, :, 1:].log1p()

    def _by_step(self, values: Float[Tensor, "B O V"] | Bool[Tensor, "B O V"]) -> Tensor:
        """Return the values of each query as steps x channels."""
        return values.unflatten(2, (-1, self.num_channels or 1))

    def measures(
        self,
        outputs: Float[Tensor, "B O K"],
        values: Float[Tensor, "B O V"],
        real: Bool[Tensor, "B O V"] | None,
    ) -> Measures:
        """Return `psnr` in dB and `mse` of the hidden values of each sample, in the data's units."""
        return super().measures(self.in_units(outputs, values, real), values, real)

    def in_units(
        self, outputs: Tensor, values: Tensor, real: Bool[Tensor, "B O V"] | None
    ) -> Float[Tensor, "B O V"]:
        """Return outputs, without their spectrum, in the units of the model's input."""
        outputs = outputs[..., : values.shape[2]]
        if not self.normalize:
            return outputs
        mean, std = _moments(values, real)
        return outputs * std + mean


@configclass
class RowsMaskingConfig(GridMaskingConfig):
    """Rows of an array are hidden: their values are replaced by zeros, their coordinates stay, if there are any."""

    keeps_elements: ClassVar[bool] = True

    kind: Literal["rows"] = "rows"  # pyright: ignore[reportIncompatibleVariableOverride]
    hidden: float = 0.5
    blocks: tuple[int, ...] = (32,)
    most: tuple[int, ...] = (1,)
    patch: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        GridMaskingConfig.__post_init__(self)
        if self.patch != (1,):
            raise ValueError(
                f"Expected patch=(1,), since each row has its own query, got {self.patch}."
            )

    def hide(
        self, x: Tensor, mask: Bool[Tensor, "B L"] | None, units: Bool[Tensor, "B n"]
    ) -> HiddenPart:
        """Return the array with some rows hidden; there are targets of as many rows as the batch has."""
        found = GridMaskingConfig.hide(self, x, mask, units)
        rows = slice(x.shape[1])
        return replace(found, values=found.values[:, rows], hidden=found.hidden[:, rows])

    def restored(
        self,
        preprocess: Any,
        x: Tensor,
        mask: Bool[Tensor, "B L"] | None,
        target: HiddenPart,
        outputs: Float[Tensor, "B O K"],
    ) -> list[Reconstruction]:
        """Return each array, and the same with hidden rows replaced by predictions."""
        behind = (0, 0, 0, self.grid[0] - x.shape[1])
        whole = replace(
            target, values=pad(target.values, behind), hidden=pad(target.hidden, behind)
        )
        return GridMaskingConfig.restored(
            self, preprocess, x, rows_of(x, mask), whole, pad(outputs, behind)
        )


def rows_of(x: Tensor, mask: Bool[Tensor, "B L"] | None) -> Bool[Tensor, "B M"]:
    """Return a mask of the second axis of an input."""
    if mask is None:
        return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    return mask.expand(-1, x.shape[1])


def _moments(
    values: Float[Tensor, "B O V"], real: Bool[Tensor, "B O V"] | None
) -> tuple[Float[Tensor, "B O 1"], Float[Tensor, "B O 1"]]:
    """Return mean and deviation of the real values of each query."""
    weight = torch.ones_like(values) if real is None else real.to(values.dtype)
    count = weight.sum(dim=2, keepdim=True).clamp_min(1)
    mean = (values * weight).sum(dim=2, keepdim=True) / count
    variance = ((values - mean).square() * weight).sum(dim=2, keepdim=True) / count
    return mean, (variance + 1e-6).sqrt()


def times(sides: Iterable[int]) -> str:
    """Return side lengths as text, such as `4 x 4`."""
    return " x ".join(map(str, sides))


for _config in (GridMaskingConfig, RowsMaskingConfig):
    MASKINGS.register(_config, _config)
