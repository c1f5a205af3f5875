"""Which way to read costs the fewest operations."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from perceivers.cross_attention.grid import TILE_COST, choose_tile
from perceivers.inputs.elements import Elements, GridPositions

AttnImplementation = Literal["auto", "grid", "absorbed", "projected"]
PATHS: tuple[str, ...] = get_args(AttnImplementation)

STREAMING_COST = 5e7
"""Operations that a machine could do while a streaming read is set in motion (half a millisecond of a CPU)."""

GPU_STREAMING_COST = 7e10
"""The same of a GPU, for a whole batch: 3 ms of an H100 in float32, in which it waits for some hundred launches."""


@dataclass(frozen=True)
class Choice:
    """How elements are read, and why.

    Attributes:
        path: `projected`: every element becomes a key and a value, as in the papers. `absorbed`: the projections
            act on queries and on what was read. `grid`: the same, and positions are read as tables.
        operations: Of the reads by each path that is possible, for one sample; a multiplication and an
            addition counted as two.
    """

    path: str
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
    """Return the operations of one read by each path, for one sample.

    Args:
        segments: The elements of each modality.
        num_queries: Elements that read, N.
        num_heads: Heads, h.
        qk_channels: Total width of the comparison.
        v_channels: Total width of the values.
        reads: How many reads use the same keys and values.
        start: What setting a streaming read in motion costs each sample.
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
    structured = [
        isinstance(segment.positions, GridPositions) and segment.replaced is None
        for segment in segments
    ]
    if any(structured):
        total = absorbing
        for segment in segments:
            grid = segment.positions
            if isinstance(grid, GridPositions) and segment.replaced is None:
                widths = tuple([table.shape[1] for table in grid.tables])
                total += _grid_operations(grid.sizes, widths, segment.content.shape[2], rows)
            else:
                total += absorbed * segment.num_elements
        found["grid"] = total
    return found


def choose(path: str, found: Mapping[str, float]) -> Choice:
    """Return the path asked for; for `auto` the one of the fewest operations.

    A path that is not possible for these elements gives way to the next plainer one: there is no `grid`
    without a grid.
    """
    if path == "auto":
        path = min(found, key=found.__getitem__)
    return Choice(path if path in found else "absorbed", found)


def _grid_operations(
    sizes: tuple[int, ...], widths: tuple[int, ...], content_channels: int, rows: int
) -> float:
    tile = choose_tile(sizes, content_channels)
    covered = math.prod(-(-n // t) * t for n, t in zip(sizes, tile, strict=True))
    features = 2 + content_channels + sum(tile)
    attending = 4.0 * rows * covered * features * (1 + TILE_COST / math.prod(tile))
    return attending + 4.0 * rows * sum(n * w for n, w in zip(sizes, widths, strict=True))


# To a compiler this is a constant, not a search to be traced. torch.compiler.assume_constant_result says the same, but
# it imports the compiler: a second, before the first prediction of a process that compiles nothing.
setattr(_grid_operations, "_dynamo_marked_constant", True)  # noqa: B010
