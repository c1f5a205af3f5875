"""Attention of latents to a long prefix of tokens and to a short block, without a map of their size.

The prefix is projected to keys and values in chunks. Those of a long prefix are forgotten after use and computed again
in the backward pass. Without added positions, keys and values depend on the token alone until keys are rotated: those
of the whole vocabulary are computed once and looked up. Memory grows with the number of latents and the length of a
chunk, not with the length of the prefix. Both parts are merged by the logarithms of their sums: that is exact.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch.nn.functional import embedding, layer_norm, linear

from perceivers.nn.rotary import RotaryConfig, rotate
from perceivers.typing import Bool, Float, Int, Tensor

CHUNK = 2048
"""Tokens whose keys and values are computed at a time."""

KEPT = 16_384
"""Most tokens of a batch whose keys and values are kept for the backward pass; those of more are computed twice."""

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
        return self.heads(*self.rows(x, weights), positions)

    def rows(
        self, x: Float[Tensor, "*rows C"], weights: Sequence[Tensor]
    ) -> tuple[Float[Tensor, "*rows HF"], Float[Tensor, "*rows HF"]]:
        """Return keys before the rotation, and values, of all heads side by side."""
        scale, offset, to_key, to_value, *biases = weights
        key_bias, value_bias = biases or (None, None)
        x = layer_norm(x, x.shape[-1:], scale, offset, self.eps)
        return linear(x, to_key, key_bias), linear(x, to_value, value_bias)

    def heads(
        self,
        keys: Float[Tensor, "B S HF"],
        values: Float[Tensor, "B S HF"],
        positions: Int[Tensor, "B S"] | None,
    ) -> KeysValues:
        """Return the rotated keys and the values of each head."""
        keys, values = self._split(keys), self._split(values)
        if self.rotary is not None and positions is not None:
            angles = self.rotary.angles(positions, keys.shape[-1], keys.dtype)
            keys = rotate(keys, angles, self.rotary.head_share)
        return keys, values

    def _split(self, x: Float[Tensor, "B S HF"]) -> Float[Tensor, "B H S F"]:
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

    @property
    def is_longer_than_table(self) -> bool:
        """Whether the keys of all tokens are fewer than those of the prefix, and do not depend on added positions."""
        is_table = len(self.tables) == 1 and self.fixed is None
        return is_table and self.tokens.numel() > self.tables[0].shape[0]

    def chunks(self) -> Iterator["TokenPrefix"]:
        """Yield the tokens in parts of at most `CHUNK`."""
        for start in range(0, self.length, CHUNK):
            yield self.chunk(start, start + CHUNK)

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
    source: _Source
    if prefix.is_longer_than_table:
        source, tensors = (
            _TableSource(prefix, projection),
            projection.rows(prefix.tables[0], weights),
        )
    else:
        source, tensors = _EmbeddedSource(prefix, projection), (*prefix.tables, *weights)
    found = _AttendPrefix.apply(source, block_mask, scale, queries, *block, *tensors)
    return cast("Tensor", found)


class _Source(Protocol):
    """Keys and values of parts of a prefix, as a function of some tensors."""

    prefix: TokenPrefix

    def project(
        self, part: TokenPrefix, tensors: Sequence[Tensor]
    ) -> tuple[list[Tensor], KeysValues]:
        """Return leaves of a graph, and the keys and values of a part that it computes from them."""
        ...

    def add_gradients(
        self, part: TokenPrefix, gradients: Sequence[Tensor], totals: Sequence[Tensor]
    ) -> None:
        """Add the gradients of the leaves to those of the tensors."""
        ...


@dataclass
class _EmbeddedSource:
    """Projection of each embedded token; the tensors are the tables and the weights of the projection."""

    prefix: TokenPrefix
    projection: KeyValueProjection

    def project(
        self, part: TokenPrefix, tensors: Sequence[Tensor]
    ) -> tuple[list[Tensor], KeysValues]:
        weights = tensors[len(part.tables) :]
        leaves = _leaves(part.embedded(), *weights)
        with torch.enable_grad():
            return leaves, self.projection(leaves[0], part.positions, leaves[1:])

    def add_gradients(
        self, part: TokenPrefix, gradients: Sequence[Tensor], totals: Sequence[Tensor]
    ) -> None:
        count = len(part.tables)
        part.add_gradient(gradients[0], totals[:count])
        for total, gradient in zip(totals[count:], gradients[1:], strict=True):
            total.add_(gradient)


@dataclass
class _TableSource:
    """Keys and values of a table of all tokens, looked up and rotated; the tensors are the two tables."""

    prefix: TokenPrefix
    projection: KeyValueProjection

    def project(
        self, part: TokenPrefix, tensors: Sequence[Tensor]
    ) -> tuple[list[Tensor], KeysValues]:
        leaves = _leaves(*tensors)
        with torch.enable_grad():
            keys, values = (embedding(part.tokens, leaf) for leaf in leaves)
            return leaves, self.projection.heads(keys, values, part.positions)

    def add_gradients(
        self,
        part: TokenPrefix,  # noqa: ARG002
        gradients: Sequence[Tensor],
        totals: Sequence[Tensor],
    ) -> None:
        for total, gradient in zip(totals, gradients, strict=True):
            total.add_(gradient)


def _leaves(*tensors: Tensor) -> list[Tensor]:
    return [one.detach().requires_grad_() for one in tensors]


class _AttendPrefix(torch.autograd.Function):
    """Streaming attention whose backward pass computes keys and values again."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        source, block_mask, scale, queries, keys, values, *tensors = arguments
        prefix = source.prefix
        keeps = prefix.tokens.numel() <= KEPT and any(ctx.needs_input_grad)
        ctx.kept = []
        out, log_sum = attend_part(queries, keys, values, block_mask, scale)
        for part in prefix.chunks():
            leaves, made = source.project(part, tensors)
            if keeps:
                ctx.kept.append((leaves, made))
            part_keys, part_values = (one.detach() for one in made)
            mask = _prefix_mask(part)
            found, found_sum = attend_part(queries, part_keys, part_values, mask, scale)
            total = torch.logaddexp(log_sum, found_sum)
            out = out * (log_sum - total).exp().to(out.dtype)[..., None]
            out = out + found * (found_sum - total).exp().to(out.dtype)[..., None]
            log_sum = total
        ctx.save_for_backward(queries, keys, values, block_mask, out, log_sum, *tensors)
        ctx.source, ctx.scale = source, scale
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        queries, keys, values, mask, out, log_sum, *tensors = ctx.saved_tensors
        source, scale = ctx.source, ctx.scale
        state = (gradients[0], out, log_sum)
        d_queries, d_keys, d_values = part_backward(queries, keys, values, mask, scale, state)
        totals = [torch.zeros_like(one) for one in tensors]
        for place, part in enumerate(source.prefix.chunks()):
            leaves, made = ctx.kept[place] if ctx.kept else source.project(part, tensors)
            keys, values = (one.detach() for one in made)
            found = part_backward(queries, keys, values, _prefix_mask(part), scale, state)
            d_queries = d_queries + found[0]
            d_leaves = torch.autograd.grad(made, leaves, found[1:], retain_graph=bool(ctx.kept))
            source.add_gradients(part, d_leaves, totals)
        return (None, None, None, d_queries, d_keys, d_values, *totals)


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
