"""Elements of any structure as features: x^ itself, put together for one chunk at a time.

It serves positions that are no grid (point clouds, learned vectors, a permuted image) and elements hidden behind a
token. Keys and values are still not projected; only the structure of the positions is not used.
"""

from collections.abc import Iterator, Sequence

import torch
from torch.nn.functional import pad

from perceivers.cross_attention.features import VOID, Chunk, Tiles, chunk_samples
from perceivers.cross_attention.features import Sums as SumsProtocol
from perceivers.inputs.elements import Elements, GridPositions
from perceivers.typing import Float, Int, Tensor

TILE = 512
"""Elements of a tile. The basis is the same in all, so it only has to fit the cache."""


class DenseFeatures:
    """Elements of any kind as features of C channels, computed in `dtype`. See `features.Features`."""

    def __init__(self, elements: Elements, eps: float, dtype: torch.dtype) -> None:
        self.elements, self.eps, self.dtype = elements, eps, dtype
        self.batch, self.num_elements = elements.content.shape[:2]
        self.channels = elements.num_channels
        self.tile_elements = min(TILE, self.num_elements)
        self.count = -(-self.num_elements // self.tile_elements)
        padded = self.count * self.tile_elements != self.num_elements
        self.has_void = elements.mask is not None or padded
        self.num_features = 1 + self.channels + int(self.has_void)

    def chunks(self, limit: int) -> Iterator[Chunk]:
        """Yield chunks of about `limit` elements."""
        whole = self.count * self.tile_elements
        if whole <= limit:
            for samples in chunk_samples(self.batch, whole, limit):
                yield Chunk(samples, (range(self.count),))
            return
        step = max(1, limit // self.tile_elements)
        for sample in range(self.batch):
            for start in range(0, self.count, step):
                tiles = range(start, min(start + step, self.count))
                yield Chunk(slice(sample, sample + 1), (tiles,))

    def span(self, chunk: Chunk) -> slice:
        """Return the elements of a chunk as a slice of their numbers."""
        (tiles,) = chunk.ranges
        stop = min(tiles.stop * self.tile_elements, self.num_elements)
        return slice(tiles.start * self.tile_elements, stop)

    def tiles(self, chunk: Chunk) -> Tiles:
        """Return the elements of a chunk."""
        x = self.array(chunk)
        b, held = x.shape[:2]
        exists = None
        if self.has_void:
            exists = x.new_ones(b, held)
            if self.elements.mask is not None:
                exists *= self.elements.mask[chunk.samples, self.span(chunk)]
            missing = chunk.num_tiles * self.tile_elements - held
            exists, x = pad(exists, (0, missing)), pad(x, (0, 0, 0, missing))
        normal, mean, scale = torch.native_layer_norm(x, (self.channels,), None, None, self.eps)
        features = x.new_empty((*x.shape[:2], self.num_features))
        features[..., 0] = 1.0 if exists is None else exists
        features[..., 1 : 1 + self.channels] = normal
        if exists is not None:
            features[..., 1 : 1 + self.channels] *= exists[..., None]
            features[..., -1] = 1.0 - exists
            scale = scale * exists[..., None]
        shape = (b, chunk.num_tiles, self.tile_elements)
        return Tiles(features.reshape(*shape, -1), mean.reshape(shape), scale.reshape(shape))

    def places(self, span: slice) -> list[Int[Tensor, " m"]]:
        """Return, for each axis of a grid, the row of its table that each of the elements uses."""
        grid = self.elements.positions
        assert isinstance(grid, GridPositions)
        numbers = torch.arange(span.start, span.stop, device=self.elements.content.device)
        places: list[Tensor] = []
        for size in reversed(grid.sizes):
            places.append(numbers % size)
            numbers = numbers // size
        return places[::-1]

    def hidden(self, chunk: Chunk) -> Tensor:
        """Return whether a token replaces the element, b x m x 1."""
        assert self.elements.masked is not None
        return self.elements.masked.where[chunk.samples, self.span(chunk)][..., None]

    def array(self, chunk: Chunk) -> Float[Tensor, "b m C"]:
        """Return the papers' array for the elements of a chunk that there are."""
        elements, span = self.elements, self.span(chunk)
        content = elements.content[chunk.samples, span].to(self.dtype)
        if elements.mask is not None:
            content = content.masked_fill(~elements.mask[chunk.samples, span, None], 0.0)
        b, held, first = content.shape
        x = content.new_empty(b, held, self.channels)
        x[..., :first] = content
        positions = elements.positions
        if isinstance(positions, GridPositions):
            for place, table, channels in zip(
                self.places(span), positions.tables, positions.channels, strict=True
            ):
                where = torch.tensor(channels, device=x.device) + first
                x[..., where] = table.to(self.dtype)[place]
        elif positions is not None:
            own = positions[span] if positions.ndim == 2 else positions[chunk.samples, span]
            x[..., first : first + positions.shape[-1]] = own.to(self.dtype)
        if elements.modality_embedding is not None:
            x[..., -elements.modality_embedding.shape[0] :] = elements.modality_embedding.to(
                self.dtype
            )
        if elements.masked is not None:
            x = torch.where(self.hidden(chunk), elements.masked.token.to(self.dtype), x)
        return x

    def queries(self, vectors: Float[Tensor, "B C R"]) -> "DenseQueries":
        """Return queries for this segment."""
        return DenseQueries(self, vectors)

    def sums(self, rows: int) -> "DenseSums":
        """Return empty sums for `rows` queries."""
        return DenseSums(self, rows)

    def gradients(self, needed: Sequence[bool]) -> "DenseGradients":
        """Return empty gradients for content, positions, modality embedding and token, as far as they are needed."""
        return DenseGradients(self, needed)


class DenseQueries:
    """Queries over the C channels as they are. See `features.Queries`."""

    def __init__(self, source: DenseFeatures, vectors: Float[Tensor, "B C R"]) -> None:
        self.source = source
        batch, channels, rows = vectors.shape
        self.vectors = vectors.new_empty(batch, source.num_features, rows)
        self.vectors[:, 0] = 0.0
        self.vectors[:, 1 : 1 + channels] = vectors
        if source.has_void:
            self.vectors[:, -1] = VOID

    def of(self, chunk: Chunk, one: Float[Tensor, "b R"] | None = None) -> Float[Tensor, "b t K R"]:
        """Return the queries' coefficients for the tiles of a chunk."""
        own = self.vectors[chunk.samples] if self.vectors.shape[0] > 1 else self.vectors
        own = own.expand(chunk.num_samples, -1, -1)
        if one is not None:
            own = own.clone()
            own[:, 0] = one
        return own[:, None].expand(-1, chunk.num_tiles, -1, -1)


class DenseSums:
    """Weighted sums of x^. See `features.Sums`."""

    def __init__(self, source: DenseFeatures, rows: int) -> None:
        self.source = source
        content = source.elements.content
        self.dense = content.new_zeros(
            (source.batch, 1 + source.channels, rows), dtype=source.dtype
        )

    def add(self, chunk: Chunk, sums: Float[Tensor, "b t K R"]) -> None:
        """Add the sums over the elements of each tile."""
        self.dense[chunk.samples] += sums[:, :, : self.dense.shape[1]].sum(dim=1)

    def rescale(self, samples: slice, factor: Float[Tensor, "b R"]) -> None:
        """Multiply the sums of some samples."""
        self.dense[samples] *= factor[:, None]

    def total(self) -> Float[Tensor, "B R"]:
        """Return the sum of the weights."""
        return self.dense[:, 0]

    def collected(self) -> Float[Tensor, "B C R"]:
        """Return the weighted sums of x^ over its C channels."""
        return self.dense[:, 1:]


class DenseGradients:
    """Gradients of content, positions, modality embedding and token. See `features.Gradients`."""

    def __init__(self, source: DenseFeatures, needed: Sequence[bool]) -> None:
        self.source = source
        elements = source.elements
        positions = elements.positions
        tables = list(positions.tables) if isinstance(positions, GridPositions) else [positions]
        tensors = [elements.content, *(x for x in tables if x is not None)]
        self.num_positions = len(tensors) - 1
        tensors += [x for x in (elements.modality_embedding,) if x is not None]
        tensors += [] if elements.mask is None else [elements.mask]
        if elements.masked is not None:
            tensors += [elements.masked.where, elements.masked.token]
        self.gradients: list[Tensor | None] = [
            torch.zeros_like(tensor, dtype=source.dtype) if need else None
            for tensor, need in zip(tensors, needed, strict=True)
        ]

    def add(self, chunk: Chunk, tiles: Tiles, gradient: Float[Tensor, "b t m K"]) -> None:
        """Add the gradient with respect to the features of a chunk."""
        source, span = self.source, self.source.span(chunk)
        normal = tiles.features[..., 1 : 1 + source.channels]
        own = gradient[..., 1 : 1 + source.channels]
        r = (own * normal).sum(dim=-1, keepdim=True) / source.channels
        dx = ((own - normal * r) * tiles.scale[..., None]).flatten(1, 2)
        dx = dx[:, : span.stop - span.start]
        elements = source.elements
        if elements.masked is not None:
            hidden = source.hidden(chunk)
            token = self.gradients[-1]
            if token is not None:
                token += dx.masked_fill(~hidden, 0.0).sum(dim=(0, 1))
            dx = dx.masked_fill(hidden, 0.0)
        first = elements.content.shape[2]
        content = self.gradients[0]
        if content is not None:
            content[chunk.samples, span] = dx[..., :first]
        self._add_positions(chunk, dx[..., first:])
        if elements.modality_embedding is not None:
            embedding = self.gradients[1 + self.num_positions]
            if embedding is not None:
                embedding += dx[..., -elements.modality_embedding.shape[0] :].sum(dim=(0, 1))

    def _add_positions(self, chunk: Chunk, dx: Float[Tensor, "b m P"]) -> None:
        positions, span = self.source.elements.positions, self.source.span(chunk)
        if isinstance(positions, GridPositions):
            summed = dx.sum(dim=0)
            for axis, (place, channels) in enumerate(
                zip(self.source.places(span), positions.channels, strict=True)
            ):
                table = self.gradients[1 + axis]
                if table is not None:
                    table.index_add_(0, place, summed[:, list(channels)])
        elif positions is not None and self.gradients[1] is not None:
            part = dx[..., : positions.shape[-1]]
            if positions.ndim == 2:
                self.gradients[1][span] += part.sum(dim=0)
            else:
                self.gradients[1][chunk.samples, span] = part

    def finish(
        self, pairs: Sequence[tuple[SumsProtocol, Float[Tensor, "B C R"]]]
    ) -> list[Tensor | None]:
        """Return the gradient of each tensor, None where none is needed."""
        del pairs  # they are what a basis without the channels needs
        return self.gradients
