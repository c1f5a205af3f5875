"""Features of elements for the streaming read: a few channels in which the normalized ones are cheap.

A cross-attend reads x^, the elements after LayerNorm without its affine part. Its scores are products of
queries with x^, what it collects are sums of x^. Both are linear, so x^ may stand in any basis, as
features of K channels with queries that fit them. For elements of no structure the basis is that of the C
channels. For a grid, a tile needs its content and one channel for each of its rows and columns: 31
instead of 261.

The features of a tile are laid out as `[one | channels that represent x^ | void]`. The channel `one` is 1,
so that sums over it count the weights and a query's coefficient there shifts its scores. Elements that do
not exist (padding, cells past the border of the grid) are zero everywhere, so that nothing is collected
from them, but for `void`, where the query's coefficient makes their scores vanish. It is there only if it
is needed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from perceivers.typing import Float, Tensor

VOID = -1e30
"""Score of elements that do not exist: below every real one, and exp(VOID - VOID) is still a number."""


@dataclass(frozen=True)
class Chunk:
    """Tiles that are read at once: those of `ranges`, along each axis, of some samples of the batch."""

    samples: slice
    ranges: tuple[range, ...]

    @property
    def num_samples(self) -> int:
        """Samples in the chunk, b."""
        return self.samples.stop - self.samples.start

    @property
    def num_tiles(self) -> int:
        """Tiles of each sample in the chunk, t."""
        count = 1
        for tiles in self.ranges:
            count *= len(tiles)
        return count


@dataclass(frozen=True)
class Tiles:
    """The elements of a chunk: their features, and LayerNorm's mean and one over the standard deviation.

    The `scale` is 0 where an element does not exist.
    """

    features: Float[Tensor, "b t m K"]
    mean: Float[Tensor, "b t m"]
    scale: Float[Tensor, "b t m"]


@runtime_checkable
class Queries(Protocol):
    """R query vectors over the C channels, ready to be put into the basis of any tile."""

    def of(self, chunk: Chunk, one: Float[Tensor, "b R"] | None = None) -> Float[Tensor, "b t K R"]:
        """Return the queries' coefficients for the tiles of a chunk, with `one` added to each query's scores."""
        ...


@runtime_checkable
class Sums(Protocol):
    """Weighted sums of the elements, one for each of R queries, collected chunk by chunk."""

    def add(self, chunk: Chunk, sums: Float[Tensor, "b t K R"]) -> None:
        """Add the sums over the elements of each tile."""
        ...

    def rescale(self, samples: slice, factor: Float[Tensor, "b R"]) -> None:
        """Multiply the sums of some samples."""
        ...

    def total(self) -> Float[Tensor, "B R"]:
        """Return the sum of the weights."""
        ...

    def collected(self) -> Float[Tensor, "B C R"]:
        """Return the weighted sums of x^ over its C channels."""
        ...


@runtime_checkable
class Gradients(Protocol):
    """Gradients of a segment's tensors, collected chunk by chunk.

    With dF the gradient with respect to the features of an element, r = dF . F over the channels that
    represent x^, and dx^ that with respect to x^ itself, LayerNorm's backward is (dx^ - x^ r / C) * scale.
    """

    def add(self, chunk: Chunk, tiles: Tiles, gradient: Float[Tensor, "b t m K"]) -> None:
        """Add the gradient with respect to the features of a chunk."""
        ...

    def finish(self, pairs: Sequence[tuple[Sums, Float[Tensor, "B C R"]]]) -> list[Tensor | None]:
        """Return the gradient of each tensor of the segment, in their order.

        Args:
            pairs: Sums over the elements (of attention, of its gradient) and the vectors that they weigh,
                so that their products, added up, are dx^ summed over elements.
        """
        ...


@runtime_checkable
class Features(Protocol):
    """The elements of one segment as tiles of features."""

    batch: int
    """Number of samples, B."""

    channels: int
    """Width of an element, C."""

    tile_elements: int
    """Elements of a tile, m."""

    num_features: int
    """Channels of a tile's features, K."""

    def chunks(self, limit: int) -> Iterator[Chunk]:
        """Yield chunks that together are all elements, each of about `limit` of them."""
        ...

    def tiles(self, chunk: Chunk) -> Tiles:
        """Return the elements of a chunk."""
        ...

    def queries(self, vectors: Float[Tensor, "B C R"]) -> Queries:
        """Return queries for this segment. Their mean over the channels must be zero."""
        ...

    def sums(self, rows: int) -> Sums:
        """Return empty sums for `rows` queries."""
        ...

    def gradients(self, needed: Sequence[bool]) -> Gradients:
        """Return empty gradients for those of the segment's tensors that need one."""
        ...


def chunk_samples(batch: int, elements: int, limit: int) -> Iterator[slice]:
    """Yield as many samples of `elements` elements at a time as stay below `limit`, but at least one."""
    step = max(1, limit // max(1, elements))
    for start in range(0, batch, step):
        yield slice(start, min(start + step, batch))


def normal_scale(
    variance: Float[Tensor, "*m"], eps: float, exists: Float[Tensor, "*m"] | None
) -> Float[Tensor, "*m"]:
    """Return one over the standard deviation, 0 where an element does not exist."""
    scale = (variance + eps).rsqrt()
    return scale if exists is None else scale * exists
