"""Multi-head attention between two arrays.

Three uses: cross-attention of latents to inputs, self-attention of latents, and cross-attention of output queries to
latents. Everything else in a Perceiver acts on each element separately.
"""

from typing import Protocol, runtime_checkable

from einops import rearrange
from torch import nn
from torch.nn.functional import pad, scaled_dot_product_attention

from perceivers.nn.fused import can_fuse, fused_linear
from perceivers.nn.init import lecun_linear
from perceivers.typing import Bool, Float, Tensor


@runtime_checkable
class KeyValueSource(Protocol):
    """Normalized elements that provide attention without being put together into one array."""

    def read(
        self, queries: Float[Tensor, "#B H Q C"], attention: "Attention"
    ) -> Float[Tensor, "B Q HCv"]:
        """Return the attention output of queries over the elements, heads side by side.

        Args:
            queries: Projected queries.
            attention: Attention with the projections to keys and values.
        """
        ...

    def dense(self) -> tuple[Float[Tensor, "B S Cs"], Bool[Tensor, "B S"] | None]:
        """Return the elements as one array, and where they are real."""
        ...


class Attention(nn.Module):
    """Multi-head attention of a query array over a source array.

    The two arrays may differ in length and in width. Cost grows as `Q * S`, so a fixed number of latents
    keeps it linear in the length of the inputs.

    Args:
        query_channels: Width of the queries.
        source_channels: Width of the source.
        num_heads: Number of heads. Must divide `qk_channels` and `v_channels`.
        qk_channels: Total width of queries and keys. By default, `query_channels`.
        v_channels: Total width of the values. By default, `qk_channels`.

    Raises:
        ValueError: If `num_heads` does not divide one of the two widths.

    Reference: Perceiver IO (arXiv:2107.14795), appendix E.
    """

    def __init__(
        self,
        query_channels: int,
        source_channels: int,
        *,
        num_heads: int = 1,
        qk_channels: int | None = None,
        v_channels: int | None = None,
    ) -> None:
        super().__init__()
        qk_channels = query_channels if qk_channels is None else qk_channels
        v_channels = qk_channels if v_channels is None else v_channels
        for name, width in (("qk_channels", qk_channels), ("v_channels", v_channels)):
            if width < 1 or num_heads < 1 or width % num_heads:
                raise ValueError(f"num_heads={num_heads} does not divide {name}={width}.")

        self.num_heads = num_heads
        self.scale = (qk_channels / num_heads) ** -0.5
        self.to_query = lecun_linear(query_channels, qk_channels)
        self.to_key = lecun_linear(source_channels, qk_channels)
        self.to_value = lecun_linear(source_channels, v_channels)
        self.to_output = lecun_linear(v_channels, query_channels)

    def forward(
        self,
        query: Float[Tensor, "#B Q Cq"],
        source: "Float[Tensor, 'B S Cs'] | KeyValueSource",
        source_mask: Bool[Tensor, "B S"] | Bool[Tensor, "B Q S"] | None = None,
        query_mask: Bool[Tensor, "B Q"] | None = None,
    ) -> Float[Tensor, "B Q Cq"]:
        """Return the attention output of each query.

        Args:
            query: The queries.
            source: The source: an array, or elements with an implementation of attention and a mask. Then the query
                may have a batch of 1 that serves all samples.
            source_mask: True where a source element is real, False where it is padding; for all queries of a sample,
                or for each. The attention of a query to padding only is zero.
            query_mask: True where a query is real. The output of the others is zero. Only for an array.
        """
        if not isinstance(source, Tensor):
            return self.to_output(source.read(self.queries(query), self))
        layers = (self.to_query, self.to_key, self.to_value)
        if query is source and can_fuse(layers, query):
            queries, keys, values = map(self.split_heads, fused_linear(query, layers))
        else:
            queries, (keys, values) = self.queries(query), self.keys_values(source)
        read = self.read(queries, keys, values, source_mask)
        if query_mask is not None:
            read = read * query_mask[..., None].to(read.dtype)
        return self.to_output(read)

    def queries(self, query: Float[Tensor, "#B Q Cq"]) -> Float[Tensor, "B H Q C"]:
        """Return the queries of each head, not scaled."""
        return self.split_heads(self.to_query(query))

    def keys_values(
        self, source: Float[Tensor, "B S Cs"]
    ) -> tuple[Float[Tensor, "B H S C"], Float[Tensor, "B H S Cv"]]:
        """Return keys and values of each head."""
        return self.split_heads(self.to_key(source)), self.split_heads(self.to_value(source))

    def read(
        self,
        queries: Float[Tensor, "B H Q C"],
        keys: Float[Tensor, "B H S C"],
        values: Float[Tensor, "B H S Cv"],
        source_mask: Bool[Tensor, "B S"] | Bool[Tensor, "B Q S"] | None = None,
    ) -> Float[Tensor, "B Q HCv"]:
        """Return the values of each head, averaged by attention and side by side."""
        q, k, v = queries, keys, values
        # The fused kernels need equal widths: zeros change neither products nor the values that are kept.
        qk_width, v_width = q.shape[-1], v.shape[-1]
        if qk_width < v_width:
            q, k = (pad(x, (0, v_width - qk_width)) for x in (q, k))
        elif v_width < qk_width:
            v = pad(v, (0, qk_width - v_width))

        if source_mask is None:
            read = scaled_dot_product_attention(q, k, v, scale=self.scale)
        else:
            # A softmax over nothing is undefined, so a query of padding attends to all of it, times zero.
            source_mask = _for_queries(source_mask)
            some = source_mask.any(dim=-1, keepdim=True)
            mask = source_mask | ~some
            read = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale)
            read = read * some.to(read.dtype)
        return rearrange(read[..., :v_width], "B H Q C -> B Q (H C)")

    def scores(
        self,
        query: Float[Tensor, "B Q Cq"],
        source: Float[Tensor, "B S Cs"],
        source_mask: Bool[Tensor, "B S"] | Bool[Tensor, "B Q S"] | None = None,
    ) -> Float[Tensor, "B H Q S"]:
        """Return the scaled products before the softmax, as drawn in the 2021 paper.

        Minus infinity where the source is padding. It costs `Q * S` memory, so it is for visualization, not for
        training.
        """
        q = self.split_heads(self.to_query(query))
        k = self.split_heads(self.to_key(source))
        scores = (q * self.scale) @ k.transpose(-2, -1)
        if source_mask is not None:
            scores = scores.masked_fill(~_for_queries(source_mask), float("-inf"))
        return scores

    def weights(
        self,
        query: Float[Tensor, "B Q Cq"],
        source: Float[Tensor, "B S Cs"],
        source_mask: Bool[Tensor, "B S"] | Bool[Tensor, "B Q S"] | None = None,
    ) -> Float[Tensor, "B H Q S"]:
        """Return the attention map, which `forward` never materializes.

        Each row sums to one, or to zero where the source is padding only.
        """
        weights = self.scores(query, source, source_mask).softmax(dim=-1)
        if source_mask is not None:  # a row of -inf gives nan, not zero
            some = _for_queries(source_mask).any(dim=-1, keepdim=True)
            weights = weights.masked_fill(~some, 0.0)
        return weights

    def split_heads(self, x: Float[Tensor, "B L HC"]) -> Float[Tensor, "B H L C"]:
        """Return the channels of each head."""
        return rearrange(x, "B L (H C) -> B H L C", H=self.num_heads)


def _for_queries(source_mask: Bool[Tensor, "B *Q S"]) -> Bool[Tensor, "B 1 _ S"]:
    """Return a mask of the source, for all queries or for each, that broadcasts over heads and queries."""
    return source_mask[:, None] if source_mask.ndim == 3 else source_mask[:, None, None]
