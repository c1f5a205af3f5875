"""Choice of the cross-attention implementation with the fewest operations."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from perceivers.cross_attention.grid import TILE_COST, choose_tile
from perceivers.inputs.elements import Elements, GridPositions

AttnImplementation = Literal["auto", "structured", "absorbed", "projected"]
IMPLEMENTATIONS: tuple[str, ...] = get_args(AttnImplementation)

STREAMING_COST = 5e7
"""Overhead of a streaming cross-attention, in operations: half a millisecond of a CPU."""

GPU_STREAMING_COST = 7e10
"""Overhead on a GPU, for a whole batch: 3 ms of an H100 in float32, for some hundred kernel launches."""


@dataclass(frozen=True)
class Choice:
    """Chosen implementation and its cost.

    Attributes:
        implementation: `projected`: every element becomes a key and a value, as in the papers. `absorbed`: the
            projections act on queries and on the attention output. `structured`: the same, and positions of grids stay
            tables.
        operations: Operations of each possible implementation, for one sample; a multiplication and an addition count
            as two.
    """

    implementation: str
    operations: Mapping[str, float]


def operations(
    segments: Sequence[Elements],
    *,
    num_queries: int,
    num_heads: int,
    qk_channels: int,
    v_channels: int,
    reads: int = 1,
    start: float = STREAMING_COST,
) -> dict[str, float]:
    """Return the operations of one cross-attention by each implementation, for one sample.

    Args:
        segments: The elements of each modality.
        num_queries: Number of queries, N.
        num_heads: Number of heads, h.
        qk_channels: Total width of queries and keys.
        v_channels: Total width of the values.
        reads: Number of cross-attentions with the same keys and values.
        start: Overhead of a streaming cross-attention for each sample.
    """
    rows = num_heads * num_queries
    channels = segments[0].num_channels
    elements = sum(segment.num_elements for segment in segments)
    widths = qk_channels + v_channels
    absorbing = start + 2.0 * num_queries * channels * widths
    absorbed = 4.0 * rows * channels
    found = {
        "projected": 2.0 * elements * widths * (channels / reads + num_queries),
        "absorbed": absorbing + absorbed * elements,
    }
    is_structured = [
        isinstance(segment.positions, GridPositions) and segment.masked is None
        for segment in segments
    ]
    if any(is_structured):
        total = absorbing
        for segment in segments:
            grid = segment.positions
            if isinstance(grid, GridPositions) and segment.masked is None:
                widths = tuple([table.shape[1] for table in grid.tables])
                total += _grid_operations(grid.sizes, widths, segment.content.shape[2], rows)
            else:
                total += absorbed * segment.num_elements
        found["structured"] = total
    return found


def choose(implementation: str, found: Mapping[str, float]) -> Choice:
    """Return the requested one of the possible implementations; for `auto` the one with the fewest operations.

    `structured` falls back to `absorbed` for elements without a grid.
    """
    if implementation == "auto":
        implementation = min(found, key=found.__getitem__)
    return Choice(implementation if implementation in found else "absorbed", found)


def _grid_operations(
    sizes: tuple[int, ...], widths: tuple[int, ...], content_channels: int, rows: int
) -> float:
    tile = choose_tile(sizes, content_channels)
    covered = math.prod(-(-n // t) * t for n, t in zip(sizes, tile, strict=True))
    features = 2 + content_channels + sum(tile)
    attending = 4.0 * rows * covered * features * (1 + TILE_COST / math.prod(tile))
    return attending + 4.0 * rows * sum(n * w for n, w in zip(sizes, widths, strict=True))


# A constant for the compiler, not a search to be traced. torch.compiler.assume_constant_result does the same, but it
# imports the compiler: a second, before the first prediction of a process that compiles nothing.
setattr(_grid_operations, "_dynamo_marked_constant", True)  # noqa: B010
