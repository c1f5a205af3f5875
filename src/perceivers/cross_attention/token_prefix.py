"""Attention of latents to a long prefix of tokens and to a short block, without a map of their size.

The prefix is projected to keys and values in chunks, which are forgotten after use and computed again in the backward
pass. Memory grows with the number of latents and the length of a chunk, not with the length of the prefix. Both parts
are merged by the logarithms of their sums: that is exact.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.nn.functional import layer_norm, linear

from perceivers.nn.rotary import RotaryConfig, rotate
from perceivers.typing import Bool, Float, Int, Tensor

CHUNK = 2048
"""Tokens whose keys and values are computed at a time."""

# Fused attention that also returns the logarithm of the sum of weights, by which parts are merged.
_FLASH = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
_FLASH_BACKWARD = getattr(
    torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward", None
)

KeysValues = tuple[Tensor, Tensor]
Embed = Callable[[Tensor, Sequence[Tensor]], Tensor]


@dataclass(frozen=True, kw_only=True)
class KeyValueProjection:
    """Projection of embedded tokens to keys and values: LayerNorm, two linear layers, rotation of the keys.

    Attributes:
        num_heads: Number of heads.
        eps: Constant of the norm.
        rotary: Rotary positions of the keys, or None.
    """

    num_heads: int
    eps: float
    rotary: RotaryConfig | None

    def __call__(
        self,
        x: Float[Tensor, "B S C"],
        positions: Int[Tensor, "B S"] | None,
        weights: Sequence[Tensor],
    ) -> KeysValues:
        """Return keys and values, both B x H x S x F.

        Args:
            x: Embedded tokens.
            positions: Positions for the rotation of the keys. None: they are not rotated.
            weights: Scale and offset of the norm, weights of keys and values, and their biases if there are any.
        """
        scale, offset, to_key, to_value, *biases = weights
        key_bias, value_bias = biases or (None, None)
        x = layer_norm(x, x.shape[-1:], scale, offset, self.eps)
        keys = self._heads(linear(x, to_key, key_bias))
        values = self._heads(linear(x, to_value, value_bias))
        if self.rotary is not None and positions is not None:
            angles = self.rotary.angles(positions, keys.shape[-1], keys.dtype)
            keys = rotate(keys, angles, self.rotary.head_share)
        return keys, values

    def _heads(self, x: Float[Tensor, "B S HF"]) -> Float[Tensor, "B H S F"]:
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


@dataclass(frozen=True, kw_only=True)
class TokenPrefix:
    """Tokens before the block, whose embeddings are computed in chunks.

    Attributes:
        tokens: Ids.
        positions: Positions of the rotation.
        indices: Rows of the position tables, one for each table.
        mask: True where a token is real. None: everywhere.
        tables: Vectors of the tokens, then of the positions; an embedding is their sum.
        fixed: Positions that are computed instead of learned: a function of `indices[..., 0]`. Or None.
    """

    tokens: Int[Tensor, "B M"]
    positions: Int[Tensor, "B M"]
    indices: Int[Tensor, "B M A"]
    mask: Bool[Tensor, "B M"] | None
    tables: tuple[Tensor, ...]
    fixed: Callable[[Tensor], Tensor] | None = None

    @property
    def length(self) -> int:
        """Number of tokens."""
        return self.tokens.shape[1]

    def chunk(self, start: int, stop: int) -> "TokenPrefix":
        """Return the tokens from `start` to `stop`."""
        return TokenPrefix(
            tokens=self.tokens[:, start:stop],
            positions=self.positions[:, start:stop],
            indices=self.indices[:, start:stop],
            mask=None if self.mask is None else self.mask[:, start:stop],
            tables=self.tables,
            fixed=self.fixed,
        )

    def embedded(self) -> Float[Tensor, "B M C"]:
        """Return the sum of the vectors of each token and its positions."""
        x = self.tables[0][self.tokens]
        for axis, table in enumerate(self.tables[1:]):
            x = x + table[self.indices[..., axis]]
        return x if self.fixed is None else x + self.fixed(self.indices[..., 0]).to(x.dtype)

    def add_gradient(self, gradient: Float[Tensor, "B M C"], totals: Sequence[Tensor]) -> None:
        """Add the gradient of `embedded` to that of each table."""
        rows = [self.tokens, *(self.indices[..., axis] for axis in range(len(self.tables) - 1))]
        flat = gradient.flatten(0, 1)
        for total, row in zip(totals, rows, strict=True):
            total.index_add_(0, row.flatten(), flat.to(total.dtype))


def attend_prefix(
    queries: Float[Tensor, "B H Q F"],
    prefix: TokenPrefix,
    block: KeysValues,
    *,
    block_mask: Bool[Tensor, "#B 1 Q S"],
    projection: KeyValueProjection,
    weights: Sequence[Tensor],
    scale: float,
) -> Float[Tensor, "B H Q F"]:
    """Return the attention output of queries over the whole prefix and over a masked block, in one softmax.

    Args:
        queries: Rotated queries.
        prefix: Tokens that all queries attend to.
        block: Rotated keys and values of the block.
        block_mask: True where a query may attend to a place of the block; every query to at least one.
        projection: Projection of the prefix to keys and values.
        weights: Weights of the projection.
        scale: Factor of the products of queries and keys.
    """
    found = _AttendPrefix.apply(
        prefix, projection, block_mask, scale, queries, *block, *prefix.tables, *weights
    )
    return cast("Tensor", found)


class _AttendPrefix(torch.autograd.Function):
    """Streaming attention whose backward pass computes keys and values again."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        prefix, projection, block_mask, scale, queries, keys, values, *tensors = arguments
        count = len(prefix.tables)
        weights = tensors[count:]
        out, log_sum = attend_part(queries, keys, values, block_mask, scale)
        for start in range(0, prefix.length, CHUNK):
            part = prefix.chunk(start, start + CHUNK)
            part_keys, part_values = projection(part.embedded(), part.positions, weights)
            mask = _prefix_mask(part)
            found, found_sum = attend_part(queries, part_keys, part_values, mask, scale)
            total = torch.logaddexp(log_sum, found_sum)
            out = out * (log_sum - total).exp().to(out.dtype)[..., None]
            out = out + found * (found_sum - total).exp().to(out.dtype)[..., None]
            log_sum = total
        ctx.save_for_backward(queries, keys, values, block_mask, out, log_sum, *weights)
        ctx.prefix, ctx.projection, ctx.scale = prefix, projection, scale
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        queries, keys, values, mask, out, log_sum, *weights = ctx.saved_tensors
        prefix, projection, scale = ctx.prefix, ctx.projection, ctx.scale
        gradient = gradients[0]
        state = (gradient, out, log_sum)
        d_queries, d_keys, d_values = part_backward(queries, keys, values, mask, scale, state)
        d_tables = [torch.zeros_like(table) for table in prefix.tables]
        d_weights = [torch.zeros_like(weight) for weight in weights]
        for start in range(0, prefix.length, CHUNK):
            part = prefix.chunk(start, start + CHUNK)
            leaves = [part.embedded(), *weights]
            leaves = [leaf.detach().requires_grad_() for leaf in leaves]
            with torch.enable_grad():
                made = projection(leaves[0], part.positions, leaves[1:])
            keys, values = (one.detach() for one in made)
            mask = _prefix_mask(part)
            found = part_backward(queries, keys, values, mask, scale, state)
            d_queries = d_queries + found[0]
            d_x, *d_parts = torch.autograd.grad(made, leaves, found[1:])
            part.add_gradient(d_x, d_tables)
            d_weights = [total + one for total, one in zip(d_weights, d_parts, strict=True)]
        return (None, None, None, None, d_queries, d_keys, d_values, *d_tables, *d_weights)


def attend_part(
    queries: Float[Tensor, "B H Q F"],
    keys: Float[Tensor, "B H S F"],
    values: Float[Tensor, "B H S F"],
    mask: Bool[Tensor, "#B 1 #Q S"] | None,
    scale: float,
) -> tuple[Float[Tensor, "B H Q F"], Float[Tensor, "B H Q"]]:
    """Return the attention output over a part of the keys and the logarithm of its sum of weights.

    A query without any key gets zeros and minus infinity. On a CPU, PyTorch's fused kernel is used. Gradients are those
    of `part_backward`.
    """
    if queries.device.type == "cpu" and _FLASH is not None:
        arguments = (queries, keys, values, 0.0, False)
        out, log_sum = _FLASH(*arguments, attn_mask=_added(mask, queries.dtype), scale=scale)
        if mask is not None:
            log_sum = log_sum.masked_fill(~mask.any(dim=-1), float("-inf"))
        return out, log_sum
    scores = (queries * scale) @ keys.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    log_sum = scores.to(torch.promote_types(scores.dtype, torch.float32)).logsumexp(dim=-1)
    shift = log_sum.masked_fill(log_sum == float("-inf"), 0.0)
    return (scores - shift[..., None]).exp().to(values.dtype) @ values, log_sum


def part_backward(
    queries: Float[Tensor, "B H Q F"],
    keys: Float[Tensor, "B H S F"],
    values: Float[Tensor, "B H S F"],
    mask: Bool[Tensor, "#B 1 #Q S"] | None,
    scale: float,
    state: tuple[Tensor, Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of queries, keys and values of a part.

    Args:
        queries: Queries.
        keys: Keys of the part.
        values: Values of the part.
        mask: True where a query attends to a key.
        scale: Factor of the products.
        state: Gradient of the output, the output, and the logarithm of the sum of weights, over all parts.
    """
    gradient, out, log_sum = state
    if queries.device.type == "cpu" and _FLASH_BACKWARD is not None:
        arguments = (gradient, queries, keys, values, out, log_sum, 0.0, False)
        return _FLASH_BACKWARD(*arguments, attn_mask=_added(mask, queries.dtype), scale=scale)
    dot = (gradient * out).sum(dim=-1)
    scores = (queries * scale) @ keys.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = (scores - log_sum[..., None]).exp().to(values.dtype)
    d_values = weights.transpose(-2, -1) @ gradient
    d_scores = weights * (gradient @ values.transpose(-2, -1) - dot[..., None])
    d_queries = (d_scores @ keys) * scale
    return d_queries, d_scores.transpose(-2, -1) @ (queries * scale), d_values


def _added(
    mask: Bool[Tensor, "#B 1 #Q S"] | None, dtype: torch.dtype
) -> Float[Tensor, "#B 1 #Q S"] | None:
    """Return the mask as a summand of the scores: minus infinity where a query must not attend."""
    if mask is None:
        return None
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, float("-inf"))


def _prefix_mask(part: TokenPrefix) -> Bool[Tensor, "B 1 1 S"] | None:
    return None if part.mask is None else part.mask[:, None, None, :]
