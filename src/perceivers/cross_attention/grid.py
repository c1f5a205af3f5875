"""A grid of elements as features: the content of a cell, and one channel for each row and column of its tile.

An element of a grid is `[content | positions | modality embedding]`, where the positions are a sum structure with one
table for each axis: p . x = p_content . content + A[row] + B[column] + constant, with A and B tiny. Divided into tiles
of t_1 x t_2 x ... cells, an element is its content and a one in the channel of its row and of its column within the
tile, all divided by its standard deviation; the query's coefficients for these are A and B at the tile.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import product

import torch
from torch.nn.functional import pad

from perceivers.cross_attention.features import Chunk, Tiles, chunk_samples, normal_scale
from perceivers.inputs.elements import Elements, GridPositions
from perceivers.typing import Float, Tensor

TILE_COST = 100.0
"""Elements of a tile whose products cost as much as handling the tile's queries and sums once."""


@lru_cache(maxsize=256)
def choose_tile(sizes: tuple[int, ...], content_channels: int) -> tuple[int, ...]:
    """Return the cells of a tile along each axis for which reading the grid costs least.

    A larger tile needs more channels, a smaller one more copies of the queries.
    """
    best: tuple[float, tuple[int, ...]] | None = None
    for wanted in product((1, 2, 4, 8, 12, 14, 16, 20, 24, 32, 48, 64), repeat=len(sizes)):
        counts = [-(-n // min(t, n)) for n, t in zip(sizes, wanted, strict=True)]
        tile = tuple(-(-n // c) for n, c in zip(sizes, counts, strict=True))
        cells = math.prod(tile)
        if cells > 1024:
            continue
        covered = math.prod(t * c for t, c in zip(tile, counts, strict=True))
        channels = content_channels + 2 + sum(tile)
        cost = channels * (1 + TILE_COST / cells) * covered / math.prod(sizes)
        best = min(best or (math.inf, tile), (cost, tile))
    assert best is not None
    return best[1]


class Grid:
    """Elements with `GridPositions` and without hidden ones, cut into tiles and computed in `dtype`."""

    def __init__(self, elements: Elements, eps: float, dtype: torch.dtype) -> None:
        grid = elements.positions
        assert isinstance(grid, GridPositions)
        assert elements.masked is None
        self.content, self.mask = elements.content, elements.mask
        self.tables = [table.to(dtype) for table in grid.tables]
        self.axis_channels = grid.channels
        self.modality_embedding = (
            None if elements.modality_embedding is None else elements.modality_embedding.to(dtype)
        )
        self.eps, self.dtype, self.sizes = eps, dtype, grid.sizes
        self.batch, self.content_channels = elements.content.shape[0], elements.content.shape[2]
        self.channels = elements.num_channels

        self.tile = choose_tile(self.sizes, self.content_channels)
        self.counts = tuple(-(-n // t) for n, t in zip(self.sizes, self.tile, strict=True))
        self.tile_elements = math.prod(self.tile)
        padded = any(c * t != n for n, c, t in zip(self.sizes, self.counts, self.tile, strict=True))
        self.has_void = self.mask is not None or padded

        # Where content is much of an element, a large offset of it must go before it is multiplied.
        self.centred = 4 * self.content_channels > self.channels
        first = 1 + self.content_channels + int(self.centred)
        self.axis_slices: list[slice] = []
        for cells in self.tile:
            self.axis_slices.append(slice(first, first + cells))
            first += cells
        self.num_features = first + int(self.has_void)
        # For LayerNorm's mean and variance.
        self.axis_sums = [table.sum(dim=1) for table in self.tables]
        self.axis_means = [table.mean(dim=1) for table in self.tables]
        self.axis_spreads = [
            (table - mean[:, None]).square().sum(dim=1)
            for table, mean in zip(self.tables, self.axis_means, strict=True)
        ]

    def chunks(self, limit: int) -> Iterator[Chunk]:
        """Yield chunks of about `limit` elements: samples, or slabs of one, cut along two axes if need be."""
        whole = math.prod(self.counts) * self.tile_elements
        if whole <= limit:
            full = tuple(range(count) for count in self.counts)
            for samples in chunk_samples(self.batch, whole, limit):
                yield Chunk(samples, full)
            return
        slab = whole // self.counts[0]
        rest = self.counts[1:]
        for sample in range(self.batch):
            samples = slice(sample, sample + 1)
            for first in _ranges(self.counts[0], max(1, limit // slab)):
                if not rest or slab <= 2 * limit:
                    yield Chunk(samples, (first, *(range(count) for count in rest)))
                    continue
                for second in _ranges(rest[0], max(1, limit * rest[0] // slab)):
                    yield Chunk(samples, (first, second, *(range(count) for count in rest[1:])))

    def tiles(self, chunk: Chunk) -> Tiles:
        """Return the elements of a chunk."""
        content, exists = self.cells(chunk)
        mean, scale = self._statistics(chunk, content, exists)
        last = self.content_channels + 1
        features = content.new_zeros((*content.shape[:-1], self.num_features))
        features[..., 0] = 1.0 if exists is None else exists
        if self.centred:
            features[..., 1:last] = (content - mean[..., None]) * scale[..., None]
            features[..., last] = -mean * scale
        else:
            features[..., 1:last] = content * scale[..., None]
        axes = len(self.sizes)
        for axis, channels in enumerate(self.axis_slices):
            # The diagonal of (cell along the axis, channel of the axis): each cell's own channel.
            cell = 1 + axes + axis
            own = features[..., channels].diagonal(dim1=cell, dim2=2 * axes + 1)
            own.copy_(scale.movedim(cell, -1))
        if exists is not None:
            features[..., -1] = 1.0 - exists
        shape = (chunk.num_samples, chunk.num_tiles, self.tile_elements)
        return Tiles(features.reshape(*shape, -1), mean.reshape(shape), scale.reshape(shape))

    def cells(
        self, chunk: Chunk
    ) -> tuple[Float[Tensor, "b ... Cc"], Float[Tensor, "b ..."] | None]:
        """Return content in the order of tiles, b x n_1 x .. x n_d x t_1 x .. x t_d, and 1.0 where it exists."""
        content = self.content[chunk.samples].unflatten(1, self.sizes)
        content = self._cut(content, chunk).to(self.dtype)
        if not self.has_void:
            return content, None
        exists = self.mask
        if exists is None:
            exists = content.new_ones((), dtype=torch.bool)
            exists = exists.expand(self.batch, math.prod(self.sizes))
        exists = self._cut(exists[chunk.samples].unflatten(1, self.sizes)[..., None], chunk)[..., 0]
        return content.masked_fill(~exists[..., None], 0.0), exists.to(self.dtype)

    def _cut(self, array: Tensor, chunk: Chunk) -> Tensor:
        """Return the chunk's part of b x sizes x channels, padded to whole tiles, in the order of tiles."""
        missing: list[int] = []
        for axis, (tiles, cells) in enumerate(zip(chunk.ranges, self.tile, strict=True)):
            start, stop = tiles.start * cells, tiles.stop * cells
            held = min(stop, self.sizes[axis]) - start
            array = array.narrow(1 + axis, start, held)
            missing = [0, stop - start - held, *missing]
        if any(missing):
            array = pad(array, (0, 0, *missing))
        for axis, cells in enumerate(self.tile):
            array = array.unflatten(1 + 2 * axis, (-1, cells))
        axes = len(self.tile)
        order = (0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2), 2 * axes + 1)
        return array.permute(order).contiguous()

    def uncut(self, array: Tensor, chunk: Chunk) -> Tensor:
        """Return `array`, b x t x m x channels, on the grid again, without the cells past its border."""
        counts = [len(tiles) for tiles in chunk.ranges]
        array = array.reshape(chunk.num_samples, *counts, *self.tile, -1)
        axes = len(counts)
        order = [0]
        for axis in range(axes):
            order += [1 + axis, 1 + axes + axis]
        array = array.permute(*order, 2 * axes + 1)
        for axis, (tiles, cells) in enumerate(zip(chunk.ranges, self.tile, strict=True)):
            held = min(tiles.stop * cells, self.sizes[axis]) - tiles.start * cells
            array = array.flatten(1 + axis, 2 + axis).narrow(1 + axis, 0, held)
        return array

    def along(self, axis: int, values: Float[Tensor, " n"], chunk: Chunk) -> Tensor:
        """Return one value for each cell of an axis so that it broadcasts over the cells of a chunk."""
        tiles, cells = chunk.ranges[axis], self.tile[axis]
        values = values[tiles.start * cells : tiles.stop * cells]
        values = pad(values, (0, len(tiles) * cells - values.shape[0]))
        shape = [1] * (1 + 2 * len(self.sizes))
        shape[1 + axis], shape[1 + len(self.sizes) + axis] = len(tiles), cells
        return values.reshape(shape)

    def _statistics(
        self,
        chunk: Chunk,
        content: Float[Tensor, "b ... Cc"],
        exists: Float[Tensor, "b ..."] | None,
    ) -> tuple[Float[Tensor, "b ..."], Float[Tensor, "b ..."]]:
        """Return mean and one over the standard deviation of each element.

        Every term of the variance is a square around the mean, so nothing cancels whatever the offset.
        """
        total = content.sum(dim=-1)
        for axis, sums in enumerate(self.axis_sums):
            total = total + self.along(axis, sums, chunk)
        if self.modality_embedding is not None:
            total = total + self.modality_embedding.sum()
        mean = total / self.channels
        spread = (content - mean[..., None]).square().sum(dim=-1)
        for axis, (spreads, means) in enumerate(
            zip(self.axis_spreads, self.axis_means, strict=True)
        ):
            offset = self.along(axis, means, chunk) - mean
            width = self.tables[axis].shape[1]
            spread = spread + self.along(axis, spreads, chunk) + width * offset.square()
        if self.modality_embedding is not None:
            offset = self.modality_embedding.mean() - mean
            spread = (
                spread + (self.modality_embedding - self.modality_embedding.mean()).square().sum()
            )
            spread = spread + self.modality_embedding.shape[0] * offset.square()
        return mean, normal_scale(spread / self.channels, self.eps, exists)

    def parts(self, vectors: Float[Tensor, "B C R"]) -> tuple[Tensor, list[Tensor], Tensor | None]:
        """Return the channels of content, of each table, and of the modality embedding."""
        first = self.content_channels
        content = vectors[:, :first]
        tables = [
            vectors[:, torch.tensor(channels, device=vectors.device) + first]
            for channels in self.axis_channels
        ]
        if self.modality_embedding is None:
            return content, tables, None
        return content, tables, vectors[:, -self.modality_embedding.shape[0] :]


def _ranges(count: int, step: int) -> Iterator[range]:
    """Yield the numbers below `count`, `step` at a time."""
    for start in range(0, count, step):
        yield range(start, min(start + step, count))
