"""Elements: the record that everything above the input adapters shares.

An adapter does not return one dense array: it keeps apart what is apart, because on a 224 x 224 image
258 of 261 channels are positions, and these are made of two tables of 224 rows. `dense()` puts the parts
together into the papers' array and is the reference for everything that reads them faster.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch

from perceivers.typing import Bool, Float, Int, Tensor


@dataclass(frozen=True)
class GridPositions:
    """Positions of the cells of a grid, as one table for each axis.

    Attributes:
        tables: For each axis, n_axis x P_axis: what that coordinate adds to a cell's encoding.
        channels: For each axis, which channels of the encoding its table fills. The papers put all sines
            before all cosines, so an axis fills no consecutive range.
    """

    tables: tuple[Float[Tensor, "_ _"], ...]
    channels: tuple[tuple[int, ...], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Cells of the grid along each axis."""
        return tuple(table.shape[0] for table in self.tables)

    @property
    def num_channels(self) -> int:
        """Width of the encoding."""
        return sum(len(channels) for channels in self.channels)

    def dense(self) -> Float[Tensor, "M P"]:
        """Return the encoding of every cell, in reading order (the last axis runs fastest)."""
        sizes = self.sizes
        columns: list[Tensor] = []
        for axis, table in enumerate(self.tables):
            shape = [1] * len(sizes) + [table.shape[1]]
            shape[axis] = sizes[axis]
            columns.append(table.reshape(shape).expand(*sizes, -1).reshape(math.prod(sizes), -1))
        filled = [channel for channels in self.channels for channel in channels]
        place = torch.tensor(sorted(range(len(filled)), key=filled.__getitem__))
        return torch.cat(columns, dim=-1)[:, place.to(columns[0].device)]


@dataclass(frozen=True)
class MaskedElements:
    """Elements replaced by a learned vector (autoencoding, masked modeling).

    Attributes:
        where: True where an element is masked.
        token: Vector of masked elements, over all C channels.
    """

    where: Bool[Tensor, "B M"]
    token: Float[Tensor, " C"]


@dataclass(frozen=True)
class Elements:
    """M elements of C channels, kept in parts: `[content | positions | modality embedding]`.

    Attributes:
        content: Values without positions: RGB, the values of a patch, a mel bin, a byte's embedding.
        positions: The encoding of where: of a grid, one for all samples, or one for each sample.
        modality_embedding: The modality's learned vector, the same for all its elements.
        mask: True where an element is real. The content elsewhere is taken as zero.
        masked: Elements replaced by a learned vector.
    """

    content: Float[Tensor, "B M Cc"]
    positions: GridPositions | Float[Tensor, "M P"] | Float[Tensor, "B M P"] | None = None
    modality_embedding: Float[Tensor, " G"] | None = None
    mask: Bool[Tensor, "B M"] | None = None
    masked: MaskedElements | None = None

    @property
    def num_elements(self) -> int:
        """Number of elements, M."""
        return self.content.shape[1]

    @property
    def num_channels(self) -> int:
        """Width of an element with its position and modality embedding, C."""
        positions, embedding = self.positions, self.modality_embedding
        width = self.content.shape[2] + (0 if embedding is None else embedding.shape[0])
        if isinstance(positions, GridPositions):
            return width + positions.num_channels
        return width if positions is None else width + positions.shape[-1]

    @property
    def first_axis(self) -> int:
        """Cells along the first axis: of the grid, or all elements where there is none."""
        positions = self.positions
        return positions.sizes[0] if isinstance(positions, GridPositions) else self.num_elements

    @property
    def real(self) -> Bool[Tensor, "B M"] | None:
        """True where an element is real and not replaced by a learned vector. None: all are."""
        if self.masked is None:
            return self.mask
        return ~self.masked.where if self.mask is None else self.mask & ~self.masked.where

    def dense(self, dtype: torch.dtype | None = None) -> Float[Tensor, "B M C"]:
        """Return the papers' array, by default in the parts' common data type: float32 with positions."""
        content = self.content
        if self.mask is not None:  # 0 x nan is nan, so padding is replaced and not multiplied
            content = content.masked_fill(~self.mask[..., None], 0.0)
        parts: list[Tensor] = [content]
        if self.positions is not None:
            positions = self.positions
            if isinstance(positions, GridPositions):
                positions = positions.dense()
            parts.append(positions.expand(content.shape[0], -1, -1))
        if self.modality_embedding is not None:
            parts.append(self.modality_embedding.expand(*content.shape[:2], -1))
        array = torch.cat(parts, dim=-1)
        if self.masked is not None:
            token = self.masked.token.to(array.dtype)
            array = torch.where(self.masked.where[..., None], token, array)
        return array if dtype is None else array.to(dtype)

    def permuted(self, order: Int[Tensor, " M"]) -> "Elements":
        """Return the same elements in another order, each with its own position.

        The order of a grid is lost by it, so its positions become dense.
        """
        positions = self.positions
        if isinstance(positions, GridPositions):
            positions = positions.dense()
        if positions is not None:
            positions = positions[..., order, :]
        return self._selected(order, positions)

    def time_part(self, part: int, parts: int) -> "Elements":
        """Return one of several equal parts along the first axis: time, of what has time.

        A grid is cut between cells of its first axis and stays a grid; other elements are cut as they follow one
        another. Where the number does not divide, parts differ by one cell.

        Args:
            part: Which one, from 0.
            parts: Into how many, not more than the first axis has cells.
        """
        length = self.first_axis
        cells = self.num_elements // length
        first, end = part * length // parts, (part + 1) * length // parts
        kept = slice(first * cells, end * cells)
        positions = self.positions
        if isinstance(positions, GridPositions):
            tables = (positions.tables[0][first:end], *positions.tables[1:])
            positions = replace(positions, tables=tables)
        elif positions is not None:
            positions = positions[..., kept, :]
        return self._selected(kept, positions)

    def _selected(
        self, kept: slice | Int[Tensor, " m"], positions: GridPositions | Tensor | None
    ) -> "Elements":
        """Return some of the elements; `positions` are theirs."""
        masked = self.masked
        return replace(
            self,
            content=self.content[:, kept],
            positions=positions,
            mask=None if self.mask is None else self.mask[:, kept],
            masked=None if masked is None else replace(masked, where=masked.where[:, kept]),
        )


def dense(
    segments: Sequence[Elements], dtype: torch.dtype | None = None
) -> tuple[Float[Tensor, "B M C"], Bool[Tensor, "B M"] | None]:
    """Return the elements of all modalities as one array, and one mask if any has one.

    Raises:
        ValueError: If the modalities differ in width.
    """
    widths = [segment.num_channels for segment in segments]
    if len(set(widths)) != 1:
        raise ValueError(
            f"Expected modalities of one common width C to be read together, got {widths}."
        )
    array = torch.cat([segment.dense(dtype) for segment in segments], dim=1)
    if all(segment.mask is None for segment in segments):
        return array, None
    masks: list[Tensor] = []
    for segment in segments:
        real = torch.ones(segment.content.shape[:2], dtype=torch.bool, device=array.device)
        masks.append(real if segment.mask is None else segment.mask)
    return array, torch.cat(masks, dim=1)


@runtime_checkable
class InputAdapter(Protocol):
    """Preprocessing of the tensor of one modality into elements. A module, with parameters or without."""

    channels: int
    """Width of its elements with their positions, C: the encoder takes it from here."""

    num_elements: int
    """Elements of an input of the configured size, M."""

    axes: tuple[int, ...]
    """The same along each axis of their grid; one number for elements that lie in a row or in none."""

    def __call__(self, x: Tensor, mask: Bool[Tensor, "B L"] | None = None) -> Elements:
        """Return the elements of a batch.

        Args:
            x: The modality's tensor, its first axis the batch.
            mask: Where its second axis is real; where L is 1, whether a sample has this modality at all.
        """
        ...

    def example(self, batch_size: int) -> Tensor:
        """Return a made-up input of the configured size, of which nothing matters but the shape."""
        ...
