"""Masking of single elements for a Hierarchical Perceiver, with one random mask for all of its groups."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import torch

from perceivers.nn.permutation import fixed_permutation
from perceivers.registry import configclass
from perceivers.tasks.masking import (
    MASKINGS,
    HiddenPart,
    ValuesMaskingConfig,
    rows_of,
    times,
)
from perceivers.tasks.prediction import Reconstruction
from perceivers.tasks.reconstruction import reconstruction_cells
from perceivers.typing import Bool, Float, Int, Tensor

_FEWEST = 4  # elements of a group that one mask hides in part


@dataclass(frozen=True, kw_only=True)
class ElementLayout:
    """Elements of the modalities in a model.

    Attributes:
        axes: Elements along each axis, by modality.
        rows: Elements of each group of the encoder, by modality. Empty: it has no groups.
        permute: Seed of the fixed permutation of the elements. None: they are in order.
    """

    axes: Mapping[str, tuple[int, ...]]
    rows: Mapping[str, int]
    permute: int | None = None


@configclass
class ElementsMaskingConfig(ValuesMaskingConfig):
    """Single elements are hidden: their values are replaced by zeros, the mean of normalized values.

    Each element has one query, its learned position. One random mask of the places of a group hides the same places of
    all groups of a sample, each time other ones. Groups of fewer than 4 elements, and encoders without groups, have a
    random mask of all elements.

    Attributes:
        hidden: Share of the elements of each sample that are hidden. The default is ours: published images of masked
            samples show about 80 to 85 %.
        groupwise: Whether all groups of the encoder have the same mask.
        block: Cells of the blocks in which elements are hidden, along each axis. None: single elements.
        patch: Cells of an element along each axis. (): taken from the input.
        axes: Elements along each axis. None: taken from the input.
        rows: Elements of a group. None: taken from the encoder.
        permute: Seed of the permutation of elements. None: taken from the run.

    Raises:
        ValueError: If the share is out of range.

    Reference: Hierarchical Perceiver (arXiv:2202.10890), group-wise masking.
    """

    kind: Literal["elements"] = "elements"
    hidden: float = 0.8
    groupwise: bool = True
    block: tuple[int, ...] | None = None
    axes: tuple[int, ...] | None = None
    rows: int | None = None
    permute: int | None = None

    def __post_init__(self) -> None:
        ValuesMaskingConfig.__post_init__(self)
        if self.block is not None and min(self.block, default=0) < 1:
            raise ValueError(
                f"Expected a block of at least 1 cell along each axis, got {self.block}."
            )

    def fit_to_input(self, name: str, config: Any, preprocess: Any) -> "ElementsMaskingConfig":
        """Return the configuration with the size and units of a modality. `fit_to_layout` completes it."""
        units = {} if preprocess is None else preprocess.value_units()
        return replace(self, **self.extent(config), **units)

    def fit_to_layout(self, name: str, layout: ElementLayout) -> "ElementsMaskingConfig":
        """Return the configuration with the elements of a modality in the model.

        Raises:
            ValueError: If elements are not equal parts of the values, there is one only, or blocks do not fit.
        """
        size, axes = self.size or (), layout.axes[name]
        patch = tuple(-(-n // max(count, 1)) for n, count in zip(size, axes, strict=False))
        if len(axes) != len(size) or axes != tuple(
            -(-n // p) for n, p in zip(size, patch, strict=True)
        ):
            raise ValueError(
                f"Expected elements of '{name}' that are equal parts of its {times(size)} values, got {times(axes)} "
                "elements: each is predicted by one query. Use an input without a stem, or --recipe mae."
            )
        if self.patch not in ((), patch):
            raise ValueError(
                f"Expected patch={patch}, the cells of an element of '{name}', got {self.patch}. Leave it out."
            )
        if math.prod(axes) < 2:
            raise ValueError(
                f"'{name}' has a single element, so that nothing is left to predict it from. Leave it out with "
                "--columns."
            )
        made = replace(
            self, patch=patch, axes=axes, rows=layout.rows.get(name), permute=layout.permute
        )
        made.check_blocks(name)
        return made

    def check_blocks(self, name: str) -> None:
        """Check that blocks consist of whole elements and lie in one group.

        Raises:
            ValueError: If not.
        """
        block, rows = self.block, self.group_rows
        if block is None:
            return
        flag = f"--task.parts.{name}"
        within = self.axes or ()
        if rows is not None:
            across = math.prod(within[1:])
            if rows % across or self.permute is not None:
                raise ValueError(
                    f"Expected no block with one mask for all groups of '{name}', since a group of {rows} elements is "
                    f"no whole number of rows of the grid. Leave {flag}.block out, or set {flag}.no-groupwise."
                )
            within = (rows // across, *within[1:])
        if len(block) != len(self.patch) or any(
            b % p or b > n * p for b, p, n in zip(block, self.patch, within, strict=True)
        ):
            raise ValueError(
                f"Expected a block of '{name}' that is a multiple of {times(self.patch)}, the cells of an element, "
                f"and at most {times(n * p for n, p in zip(within, self.patch, strict=True))}, got {times(block)}. "
                f"Change {flag}.block."
            )
        if self.num_units < 2:
            raise ValueError(
                f"Expected at least two blocks of '{name}', so that one can be predicted from the other, got one of "
                f"{times(block)} values. Give a smaller {flag}.block."
            )

    @property
    def group_rows(self) -> int | None:
        """Elements of a group, of which all groups have the same mask. None: all elements have one mask."""
        rows, count = self.rows, math.prod(self.axes or ())
        return rows if self.groupwise and rows is not None and _FEWEST <= rows < count else None

    @property
    def unit_of_elements(self) -> Int[Tensor, " M"]:
        """Number of the hidden unit to which each element belongs."""
        steps = tuple(b // p for b, p in zip(self.block or self.patch, self.patch, strict=True))
        return _units(self.axes or (), steps, self.group_rows, self.permute)

    @property
    def num_units(self) -> int:
        """Units that are hidden or not: places or blocks of a group, or all of them."""
        return int(self.unit_of_elements.max()) + 1

    def real_units(self, x: Tensor, mask: Bool[Tensor, "B L"] | None) -> Bool[Tensor, "B n"]:
        """Return a mask of the units that hold a real value."""
        units = self.unit_of_elements.to(x.device)
        count = int(units.max()) + 1
        _, real = reconstruction_cells(self, x, mask)
        if real is None:
            return torch.ones(x.shape[0], count, dtype=torch.bool, device=x.device)
        there = real.any(dim=2).float()
        return there.new_zeros(x.shape[0], count).index_add_(1, units, there) > 0

    def hidden_elements(self, units: Bool[Tensor, "B n"]) -> Bool[Tensor, "B M"]:
        """Return a mask of the hidden elements."""
        return units[:, self.unit_of_elements.to(units.device)]

    def places(self, units: Bool[Tensor, "B n"]) -> Bool[Tensor, "B ..."]:
        """Return the map of hidden cells, B x the size of the grid."""
        places = self.hidden_elements(units).unflatten(1, self.axes or ())
        for axis, (side, length) in enumerate(zip(self.patch, self.size or (), strict=True), 1):
            places = places.repeat_interleave(side, dim=axis).narrow(axis, 0, length)
        return places

    def restored(
        self,
        preprocess: Any,
        x: Tensor,
        mask: Bool[Tensor, "B L"] | None,
        target: HiddenPart,
        outputs: Float[Tensor, "B O K"],
    ) -> list[Reconstruction]:
        """Return each sample, and the same with hidden values replaced by predictions."""
        is_short = len(self.patch) == 1 and x.shape[1] != (self.size or (0,))[0]
        known = rows_of(x, mask) if is_short else mask
        return ValuesMaskingConfig.restored(self, preprocess, x, known, target, outputs)


@configclass
class PointElementsMaskingConfig(ElementsMaskingConfig):
    """Points are hidden at the same places of all groups; their coordinates and further channels are predicted.

    The model does not attend to hidden points. A point is addressed by its place in the file, so that point clouds in
    an order with a meaning are learned; of points in random order, predictions are the mean.
    """

    kind: Literal["point_elements"] = "point_elements"  # pyright: ignore[reportIncompatibleVariableOverride]

    def extent(self, config: Any) -> dict[str, Any]:
        """Return number of points and of their coordinates and further channels."""
        return {"size": (config.num_points,), "num_channels": 3 + config.num_channels}

    def hide(
        self, x: Tensor, mask: Bool[Tensor, "B L"] | None, units: Bool[Tensor, "B n"]
    ) -> HiddenPart:
        """Return the points that are not hidden; targets are all of them."""
        found = ElementsMaskingConfig.hide(self, x, mask, units)
        visible = rows_of(x, mask) & ~self.hidden_elements(units)[:, : x.shape[1]]
        return replace(found, x=x.masked_fill(~visible[..., None], 0.0), mask=visible)

    def restored(
        self,
        preprocess: Any,
        x: Tensor,
        mask: Bool[Tensor, "B L"] | None,
        target: HiddenPart,
        outputs: Float[Tensor, "B O V"],
    ) -> list[Reconstruction]:
        """Return each point cloud, and the same with hidden points replaced by predictions."""
        count = x.shape[1]
        found = torch.where(target.hidden, outputs.float(), target.values)[:, :count, :3]
        hidden = target.hidden[:, :count].any(dim=2)
        real = rows_of(x, mask)
        return [
            Reconstruction(
                kind="points",
                original=x[row, real[row], :3].cpu().numpy(),
                restored=found[row, real[row]].cpu().numpy(),
                hidden=hidden[row, real[row]].cpu().numpy(),
            )
            for row in range(x.shape[0])
        ]


@lru_cache(maxsize=64)
def _units(
    axes: tuple[int, ...], steps: tuple[int, ...], rows: int | None, permute: int | None
) -> Int[Tensor, " M"]:
    """Return the unit of each element: its block of a grid, or its place or block in its group of `rows` elements."""
    count = math.prod(axes)
    within = axes if rows is None else (rows // math.prod(axes[1:]), *axes[1:])
    is_single = max(steps, default=1) == 1
    if is_single:
        places = torch.arange(count)
        if rows is not None:
            places = places % rows
    else:
        blocks = tuple(-(-n // s) for n, s in zip(within, steps, strict=True))
        sides = [torch.arange(n) // s for n, s in zip(within, steps, strict=True)]
        numbers = torch.zeros((), dtype=torch.long)
        for side, number in zip(sides, blocks, strict=True):
            numbers = numbers[..., None] * number + side
        places = numbers.flatten()[torch.arange(count) % math.prod(within)]
    if rows is None or permute is None:
        return places
    found = torch.empty_like(places)
    found[fixed_permutation(count, permute)] = places  # places of the model, of permuted elements
    return found


for _config in (ElementsMaskingConfig, PointElementsMaskingConfig):
    MASKINGS.register(_config, _config)
