"""Cross-attention to elements as one operator of PyTorch, opaque to compilers, exporters and autograd.

The arguments of an operator can only be tensors, numbers and strings. So the tensors of all segments are passed as one
list in a fixed order, with a string that describes them.

The backward pass recomputes the weights from the queries, the output and one number for each query. It cannot be
differentiated a second time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from perceivers.cross_attention.dense import DenseFeatures
from perceivers.cross_attention.features import Features
from perceivers.cross_attention.tiles import GridFeatures
from perceivers.cross_attention.triton.dispatch import attention_backward, attention_forward
from perceivers.inputs.elements import Elements, GridPositions, MaskedElements
from perceivers.typing import Float, Tensor


@dataclass(frozen=True)
class Layout:
    """Tensors that a segment has, in their order: content, positions, modality embedding, mask, masked, token.

    Attributes:
        grid: For each axis, the channels its table fills; None if the positions are no grid.
        positions: Whether there are dense positions.
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
    """Return the layouts of the tensors that `flatten` lists as a string, which `layouts` parses."""
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
    """Return the layouts that `describe` has written as a string."""
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


def attend_elements(
    vectors: Float[Tensor, "P C R"],
    segments: Sequence[Elements],
    *,
    eps: float,
    use_grid: bool,
) -> tuple[Float[Tensor, "B C R"], Float[Tensor, "B R"]]:
    """Return softmax(vectors . x^) x^, the attention of R queries over normalized elements, and its log-sum-exp.

    With the second, attention to these elements and to others is merged into one softmax. Both are differentiable.

    Nothing is stored that grows with the number of elements, neither for the backward pass.

    Args:
        vectors: The queries over the C channels, for each sample or (P = 1) the same for all.
        segments: The elements of each modality. They share one softmax.
        eps: The constant of the LayerNorm that makes x^.
        use_grid: Whether to use the structure of positions that are a grid.

    Returns:
        In float64 if an argument is, else in float32. Both are zero where all elements are masked.

    Reference: the identity of docs/how-it-works.md; the streaming softmax is that of arXiv:1805.02867.
    """
    tensors = flatten(segments)
    return torch.ops.perceivers.attend_elements(vectors, tensors, describe(segments), eps, use_grid)


def _features(
    tensors: Sequence[Tensor], description: str, eps: float, use_grid: bool, dtype: torch.dtype
) -> list[Features]:
    parts: list[Features] = []
    for segment in restore(tensors, description):
        structured = isinstance(segment.positions, GridPositions) and segment.masked is None
        kind = GridFeatures if use_grid and structured else DenseFeatures
        parts.append(kind(segment, eps, dtype))
    return parts


def count_attention(
    vectors: Sequence[int],
    tensors: Sequence[Sequence[int]],
    description: str,
    eps: float,
    use_grid: bool,
    **_: object,
) -> int:
    """Return the operations of the matrix products in one call of the operator, from the shapes of its arguments.

    A multiplication and an addition count as two.
    """
    empty = [torch.empty(tuple(shape), device="meta") for shape in tensors]
    count, rows = 0, vectors[2]
    for part in _features(empty, description, eps, use_grid, torch.float32):
        for chunk in part.chunks(part.tile_elements):
            elements = chunk.num_samples * chunk.num_tiles * part.tile_elements
            count += 4 * elements * part.num_features * rows
        if isinstance(part, GridFeatures):
            cells = sum(table.shape[0] * table.shape[1] for table in part.tables)
            count += 2 * rows * cells * (vectors[0] + part.batch)
    return count


def _forward(
    vectors: Tensor, tensors: Sequence[Tensor], description: str, eps: float, use_grid: bool
) -> tuple[Tensor, Tensor]:
    dtype = working_dtype(vectors, *tensors)
    with torch.autocast(vectors.device.type, enabled=False):
        parts = _features(tensors, description, eps, use_grid, dtype)
        u, log_sum = attention_forward(vectors.to(dtype), parts)
    return u.contiguous(), log_sum.contiguous()


def _forward_fake(
    vectors: Tensor, tensors: Sequence[Tensor], description: str, eps: float, use_grid: bool
) -> tuple[Tensor, Tensor]:
    dtype = working_dtype(vectors, *tensors)
    batch, (_, channels, rows) = tensors[0].shape[0], vectors.shape
    u = vectors.new_empty((batch, channels, rows), dtype=dtype)
    return u, vectors.new_empty((batch, rows), dtype=dtype)


def _backward(
    gradient: Tensor,
    gradient_log_sum: Tensor,
    vectors: Tensor,
    u: Tensor,
    log_sum: Tensor,
    tensors: Sequence[Tensor],
    description: str,
    eps: float,
    use_grid: bool,
    needed: Sequence[int],
) -> list[Tensor]:
    """Return the gradient of `vectors`, then those of the tensors whose numbers are in `needed`."""
    wanted: list[list[bool]] = []
    first = 0
    for layout in layouts(description):
        wanted.append([first + i in needed for i in range(layout.num_tensors)])
        first += layout.num_tensors
    with torch.autocast(u.device.type, enabled=False):
        parts = _features(tensors, description, eps, use_grid, u.dtype)
        gradient = gradient.to(u.dtype)
        centred = gradient - gradient.mean(dim=1, keepdim=True)  # as normalized elements are
        delta = (centred * u).sum(dim=1) - gradient_log_sum
        dp, found = attention_backward(gradient, delta, vectors.to(u.dtype), log_sum, parts, wanted)
    gradients = [dp.to(vectors.dtype).contiguous()]
    for number in needed:
        own = found[number]
        assert own is not None
        gradients.append(own.to(tensors[number].dtype).contiguous())
    return gradients


def _backward_fake(
    gradient: Tensor,
    gradient_log_sum: Tensor,
    vectors: Tensor,
    u: Tensor,
    log_sum: Tensor,
    tensors: Sequence[Tensor],
    description: str,
    eps: float,
    use_grid: bool,
    needed: Sequence[int],
) -> list[Tensor]:
    like = [vectors, *(tensors[number] for number in needed)]
    return [tensor.new_empty(tensor.shape) for tensor in like]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    vectors, tensors, ctx.description, ctx.eps, ctx.use_grid = inputs
    ctx.needed = [number for number, tensor in enumerate(tensors) if tensor.requires_grad]
    ctx.count = len(tensors)
    ctx.save_for_backward(vectors, *output, *tensors)


def _differentiate(
    ctx: Any, gradient: Tensor | None, gradient_log_sum: Tensor | None
) -> tuple[Any, ...]:
    vectors, u, log_sum, *tensors = ctx.saved_tensors
    first, *found = torch.ops.perceivers.attend_elements_gradients(
        torch.zeros_like(u) if gradient is None else gradient,
        torch.zeros_like(log_sum) if gradient_log_sum is None else gradient_log_sum,
        vectors,
        u,
        log_sum,
        tensors,
        ctx.description,
        ctx.eps,
        ctx.use_grid,
        ctx.needed,
    )
    gradients: list[Tensor | None] = [None] * ctx.count
    for number, own in zip(ctx.needed, found, strict=True):
        gradients[number] = own
    return first, gradients, None, None, None


def _register() -> None:
    """Register both operators with PyTorch.

    `torch.library.custom_op` takes fewer lines but imports PyTorch's compiler at its first call, which costs 1 s
    and 70 MiB in processes that compile nothing.
    """
    arguments = "Tensor[] tensors, str description, float eps, bool use_grid"
    torch.library.define(
        "perceivers::attend_elements", f"(Tensor vectors, {arguments}) -> (Tensor, Tensor)"
    )
    torch.library.impl("perceivers::attend_elements", "default", _forward)
    torch.library.register_fake("perceivers::attend_elements", _forward_fake)
    torch.library.register_autograd(
        "perceivers::attend_elements", _differentiate, setup_context=_keep
    )

    first = "Tensor gradient, Tensor gradient_log_sum, Tensor vectors, Tensor u, Tensor log_sum"
    schema = f"({first}, {arguments}, int[] needed) -> Tensor[]"
    torch.library.define("perceivers::attend_elements_gradients", schema)
    torch.library.impl("perceivers::attend_elements_gradients", "default", _backward)
    torch.library.register_fake("perceivers::attend_elements_gradients", _backward_fake)


_register()
