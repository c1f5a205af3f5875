"""Queries for a grid, sums over it and gradients of it: what meets the features of its tiles."""

from collections.abc import Sequence

import torch
from torch.nn.functional import pad

from perceivers.cross_attention.features import VOID, Chunk, Sums, Tiles
from perceivers.cross_attention.grid import Grid
from perceivers.typing import Float, Tensor


class GridFeatures(Grid):
    """Elements of a grid as features of their tiles. See `features.Features`."""

    def queries(self, vectors: Float[Tensor, "B C R"]) -> "GridQueries":
        """Return queries for this grid. Their mean over the channels must be zero."""
        return GridQueries(self, vectors)

    def sums(self, rows: int) -> "GridSums":
        """Return empty sums for `rows` queries."""
        return GridSums(self, rows)

    def gradients(self, needed: Sequence[bool]) -> "GridGradients":
        """Return empty gradients for content, tables and modality embedding, as far as they are needed."""
        return GridGradients(self, needed)


class GridQueries:
    """Queries for a grid: their products with the tables, cut into tiles. See `features.Queries`."""

    def __init__(self, grid: Grid, vectors: Float[Tensor, "B C R"]) -> None:
        self.grid = grid
        self.content, tables, embedding = grid.parts(vectors)
        # The mean of an element is multiplied by them.
        self.positions = vectors[:, grid.content_channels :].sum(dim=1)
        self.axes: list[Float[Tensor, "B n t R"]] = []
        for axis, part in enumerate(tables):
            scores = grid.tables[axis] @ part  # B x cells x R
            if axis == 0 and embedding is not None and grid.modality_embedding is not None:
                scores = scores + (grid.modality_embedding @ embedding)[:, None]
            count, cells = grid.counts[axis], grid.tile[axis]
            scores = pad(scores, (0, 0, 0, count * cells - scores.shape[1]))
            self.axes.append(scores.unflatten(1, (count, cells)))

    def of(self, chunk: Chunk, one: Float[Tensor, "b R"] | None = None) -> Float[Tensor, "b t K R"]:
        """Return the queries' coefficients for the tiles of a chunk."""
        grid = self.grid
        counts = [len(tiles) for tiles in chunk.ranges]
        b, rows = chunk.num_samples, self.content.shape[2]
        queries = self.content.new_empty((b, *counts, grid.num_features, rows))
        fill = (b, *[1] * len(counts))
        queries[..., 0, :] = 0.0 if one is None else one.reshape(*fill, rows)
        last = 1 + grid.content_channels
        own = chunk.samples if self.content.shape[0] > 1 else slice(None)  # or one for all samples
        each = (-1, *[1] * len(counts))
        queries[..., 1:last, :] = self.content[own].reshape(*each, grid.content_channels, rows)
        if grid.centred:
            queries[..., last, :] = self.positions[own].reshape(*each, rows)
        for axis, (tiles, channels) in enumerate(zip(chunk.ranges, grid.axis_slices, strict=True)):
            shape = list(each)
            shape[1 + axis] = len(tiles)
            scores = self.axes[axis][own, tiles.start : tiles.stop]
            queries[..., channels, :] = scores.reshape(*shape, grid.tile[axis], rows)
        if grid.has_void:
            queries[..., -1, :] = VOID
        return queries.reshape(b, -1, grid.num_features, rows)


class GridSums:
    """Weighted sums over a grid: of content, and of the weights along each axis. See `features.Sums`."""

    def __init__(self, grid: Grid, rows: int) -> None:
        self.grid = grid
        new = grid.tables[0].new_zeros
        first = 1 + grid.content_channels + int(grid.centred)
        self.dense = new(grid.batch, first, rows)
        self.axes = [
            new(grid.batch, count, cells, rows)
            for count, cells in zip(grid.counts, grid.tile, strict=True)
        ]

    def add(self, chunk: Chunk, sums: Float[Tensor, "b t K R"]) -> None:
        """Add the sums over the elements of each tile."""
        grid = self.grid
        self.dense[chunk.samples] += sums[:, :, : self.dense.shape[1]].sum(dim=1)
        counts = [len(tiles) for tiles in chunk.ranges]
        sums = sums.unflatten(1, counts)
        for axis, (tiles, channels) in enumerate(zip(chunk.ranges, grid.axis_slices, strict=True)):
            part = sums[..., channels, :]
            others = [1 + other for other in range(len(counts)) if other != axis]
            part = part.sum(dim=others) if others else part
            self.axes[axis][chunk.samples, tiles.start : tiles.stop] += part

    def rescale(self, samples: slice, factor: Float[Tensor, "b R"]) -> None:
        """Multiply the sums of some samples."""
        self.dense[samples] *= factor[:, None]
        for axis in self.axes:
            axis[samples] *= factor[:, None, None]

    def total(self) -> Float[Tensor, "B R"]:
        """Return the sum of the weights."""
        return self.dense[:, 0]

    def along(self, axis: int) -> Float[Tensor, "B n R"]:
        """Return the weights times the scales, summed over all but one axis."""
        return self.axes[axis].flatten(1, 2)[:, : self.grid.sizes[axis]]

    def collected(self) -> Float[Tensor, "B C R"]:
        """Return the weighted sums of x^ over its C channels."""
        grid = self.grid
        last = 1 + grid.content_channels
        out = self.dense.new_zeros(grid.batch, grid.channels, self.dense.shape[2])
        out[:, : grid.content_channels] = self.dense[:, 1:last]
        for axis, (table, channels) in enumerate(zip(grid.tables, grid.axis_channels, strict=True)):
            place = torch.tensor(channels, device=out.device) + grid.content_channels
            out[:, place] = table.T @ self.along(axis)
        if grid.modality_embedding is not None:
            scales = self.along(0).sum(dim=1)
            out[:, -grid.modality_embedding.shape[0] :] = (
                grid.modality_embedding[:, None] * scales[:, None]
            )
        if grid.centred:
            out[:, grid.content_channels :] += self.dense[:, last, None]
            return out
        return out - out.mean(dim=1, keepdim=True)


class GridGradients:
    """Gradients of a grid's content, tables and modality embedding. See `features.Gradients`."""

    def __init__(self, grid: Grid, needed: Sequence[bool]) -> None:
        self.grid = grid
        axes = len(grid.tables)
        self.for_content, self.for_tables = needed[0], list(needed[1 : 1 + axes])
        self.for_embedding = grid.modality_embedding is not None and needed[1 + axes]
        self.content = grid.content.new_zeros(grid.content.shape) if needed[0] else None
        new = grid.tables[0].new_zeros
        # Sums over the elements at each place of an axis: of scale^2 r, and of it times the mean.
        self.squares = [new(n) for n in grid.sizes]
        self.means = [new(n) for n in grid.sizes]

    def add(self, chunk: Chunk, tiles: Tiles, gradient: Float[Tensor, "b t m K"]) -> None:
        """Add the gradient with respect to the features of a chunk."""
        grid = self.grid
        end = -1 if grid.has_void else None
        r = (gradient[..., 1:end] * tiles.features[..., 1:end]).sum(dim=-1)
        weight = r * tiles.scale / grid.channels
        if self.content is not None:
            content, _ = grid.cells(chunk)
            normal = (content.reshape(*tiles.mean.shape, -1) - tiles.mean[..., None]) * weight[
                ..., None
            ]
            own = gradient[..., 1 : 1 + grid.content_channels] - normal
            own = grid.uncut(own * tiles.scale[..., None], chunk)
            target = self.content[chunk.samples].unflatten(1, grid.sizes)
            for axis, (span, cells) in enumerate(zip(chunk.ranges, grid.tile, strict=True)):
                target = target.narrow(1 + axis, span.start * cells, own.shape[1 + axis])
            target.copy_(own)
        if not any(self.for_tables) and not self.for_embedding:
            return
        weight = weight * tiles.scale
        both = torch.stack([weight, weight * tiles.mean], dim=-1)
        both = grid.uncut(both, chunk).sum(dim=0)
        for axis, (span, cells) in enumerate(zip(chunk.ranges, grid.tile, strict=True)):
            others = [other for other in range(len(grid.sizes)) if other != axis]
            summed = both.sum(dim=others) if others else both
            here = slice(span.start * cells, span.start * cells + summed.shape[0])
            self.squares[axis][here] += summed[:, 0]
            self.means[axis][here] += summed[:, 1]

    def finish(self, pairs: Sequence[tuple[Sums, Float[Tensor, "B C R"]]]) -> list[Tensor | None]:
        """Return the gradients of content, tables and modality embedding, None where none is needed."""
        grid = self.grid
        gradients: list[Tensor | None] = [self.content]
        for axis, needed in enumerate(self.for_tables):
            if not needed:
                gradients.append(None)
                continue
            total = self.means[axis][:, None] - grid.tables[axis] * self.squares[axis][:, None]
            for sums, vectors in pairs:
                assert isinstance(sums, GridSums)
                part = grid.parts(vectors)[1][axis]
                total = total + torch.einsum("BnR,BpR->np", sums.along(axis), part)
            gradients.append(total)
        if grid.modality_embedding is None:
            return gradients
        if not self.for_embedding:
            return [*gradients, None]
        total = self.means[0].sum() - grid.modality_embedding * self.squares[0].sum()
        for sums, vectors in pairs:
            part = grid.parts(vectors)[2]
            assert isinstance(sums, GridSums)
            assert part is not None
            total = total + torch.einsum("BR,BgR->g", sums.along(0).sum(dim=1), part)
        return [*gradients, total]
