"""Segments as what crosses the border of a custom operator: a flat list of tensors and a description.

PyTorch's compiler and exporter see through an operator only if its arguments are tensors, numbers and
strings. So each segment's tensors are listed in one fixed order, and a string says what they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from perceivers.inputs.elements import Elements, GridPositions, MaskedElements
from perceivers.typing import Tensor


@dataclass(frozen=True)
class Layout:
    """Which tensors a segment has, in their order: content, positions, modality embedding, mask, masked, token.

    Attributes:
        grid: For each axis, the channels its table fills; None if the positions are no grid.
        positions: Whether there are dense positions.
        modality_embedding: Whether it has a modality embedding.
        mask: Whether it has a mask.
        masked: Whether some elements are replaced by a token.
    """

    grid: tuple[tuple[int, ...], ...] | None
    positions: bool
    modality_embedding: bool
    mask: bool
    masked: bool

    @property
    def num_tensors(self) -> int:
        """Length of the segment's part of the list."""
        positions = len(self.grid) if self.grid is not None else int(self.positions)
        return 1 + positions + int(self.modality_embedding) + int(self.mask) + 2 * int(self.masked)


def flatten(segments: Sequence[Elements]) -> list[Tensor]:
    """Return the tensors of all segments, one segment after the other."""
    tensors: list[Tensor] = []
    for segment in segments:
        tensors.append(segment.content)
        if isinstance(segment.positions, GridPositions):
            tensors.extend(segment.positions.tables)
        elif segment.positions is not None:
            tensors.append(segment.positions)
        if segment.modality_embedding is not None:
            tensors.append(segment.modality_embedding)
        if segment.mask is not None:
            tensors.append(segment.mask)
        if segment.masked is not None:
            tensors.extend((segment.masked.where, segment.masked.token))
    return tensors


def describe(segments: Sequence[Elements]) -> str:
    """Return what `flatten` lists, as a string from which `layouts` reads it."""
    return "|".join([_describe(segment) for segment in segments])


def _describe(segment: Elements) -> str:
    positions = "none"
    if isinstance(segment.positions, GridPositions):
        # Written by hand: compilers follow plain strings, but no library's.
        axes = [",".join([str(c) for c in channels]) for channels in segment.positions.channels]
        positions = "/".join(axes)
    elif segment.positions is not None:
        positions = "dense"
    embedding = "embedding" if segment.modality_embedding is not None else ""
    mask = "mask" if segment.mask is not None else ""
    masked = "masked" if segment.masked is not None else ""
    return f"{positions};{embedding};{mask};{masked}"


@lru_cache(maxsize=64)
def layouts(description: str) -> tuple[Layout, ...]:
    """Return what `describe` has written down."""
    found: list[Layout] = []
    for segment in description.split("|"):
        positions, embedding, mask, masked = segment.split(";")
        grid = None
        if positions not in ("none", "dense"):
            grid = tuple(
                tuple(int(channel) for channel in axis.split(",")) for axis in positions.split("/")
            )
        found.append(Layout(grid, positions == "dense", bool(embedding), bool(mask), bool(masked)))
    return tuple(found)


def restore(tensors: Sequence[Tensor], description: str) -> list[Elements]:
    """Return the segments that were flattened."""
    segments: list[Elements] = []
    rest = iter(tensors)
    for layout in layouts(description):
        content = next(rest)
        positions: GridPositions | Tensor | None = None
        if layout.grid is not None:
            positions = GridPositions(tuple(next(rest) for _ in layout.grid), layout.grid)
        elif layout.positions:
            positions = next(rest)
        embedding = next(rest) if layout.modality_embedding else None
        mask = next(rest) if layout.mask else None
        masked = MaskedElements(where=next(rest), token=next(rest)) if layout.masked else None
        segments.append(Elements(content, positions, embedding, mask, masked))
    return segments


def working_dtype(*tensors: Tensor) -> torch.dtype:
    """Return float64 if one of the tensors is, else float32: statistics and positions need no less."""
    double = any(tensor.dtype == torch.float64 for tensor in tensors)
    return torch.float64 if double else torch.float32
