"""Keys and values of cross-attention from the elements of all modalities."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import layer_norm, linear

from perceivers.cross_attention.choice import (
    GPU_STREAMING_COST,
    IMPLEMENTATIONS,
    STREAMING_COST,
    Choice,
    choose,
    operations,
)
from perceivers.cross_attention.operator import attend_elements
from perceivers.inputs.elements import Elements, dense
from perceivers.nn.attention import Attention
from perceivers.typing import Bool, Float, Tensor

KeysValues = tuple[Tensor, Tensor, Tensor | None]


class ElementSource:
    """Elements as the source of keys and values, made once for an input and shared by all cross-attentions.

    Args:
        segments: The elements of each modality, all of width C. They share one softmax.
        implementation: `auto` chooses the one with the fewest operations; `structured`, `absorbed` and `projected`
            force one, see `choice.Choice`.
        dtype: Type of the array of the `projected` implementation. By default that of the elements.
        reads: Number of cross-attentions with the same weights, at most.
        keep: Whether the array of elements is kept for the next cross-attention, and keys and values for the next one
            with the same weights. It must be off where the forward pass is recomputed in the backward pass.
        layers: Norm and attention of all cross-attentions to these elements. If they project them and nothing is
            recomputed, all keys and values come from one matrix product: on a CPU core 32 instead of 54 ms, forward
            and backward, for two cross-attentions to 128 x 64 elements of 138 channels.

    Raises:
        ValueError: If the implementation is unknown, or if the modalities differ in width.
    """

    def __init__(
        self,
        segments: Sequence[Elements],
        *,
        implementation: str = "auto",
        dtype: torch.dtype | None = None,
        reads: int = 1,
        keep: bool = True,
        layers: Sequence[tuple[nn.LayerNorm, Attention]] = (),
    ) -> None:
        if implementation not in IMPLEMENTATIONS:
            known = ", ".join(IMPLEMENTATIONS)
            raise ValueError(
                f"Expected attn_implementation out of {known}; got {implementation!r}."
            )
        widths = [segment.num_channels for segment in segments]
        if len(set(widths)) != 1:
            raise ValueError(
                f"Expected modalities of one common width C to be read together, got {widths}."
            )
        self.segments, self.implementation, self.dtype = list(segments), implementation, dtype
        self.reads, self.keep = (reads if keep else 1), keep
        self.layers: Sequence[tuple[nn.LayerNorm, Attention]]
        self.layers = layers if keep and _can_project_together(layers) else ()
        self.array: tuple[Tensor, Tensor | None] | None = None
        self.projected: list[tuple[Attention, KeysValues]] = []

    def normalized(self, norm: nn.LayerNorm) -> "NormalizedElements":
        """Return the elements after a LayerNorm."""
        return NormalizedElements(self, norm)

    def dense(self) -> tuple[Float[Tensor, "B M C"], Bool[Tensor, "B M"] | None]:
        """Return the elements as one array, and where they are real."""
        if self.array is not None:
            return self.array
        array = dense(self.segments, self.dtype)
        if self.keep:
            self.array = array
        return array

    def project_together(self) -> None:
        """Compute keys and values of all cross-attentions at once, from elements normalized once.

        Scale and offset of each LayerNorm become part of the projections behind it.
        """
        array, mask = self.dense()
        layers = [
            (norm, layer) for norm, one in self.layers for layer in (one.to_key, one.to_value)
        ]
        normalized = layer_norm(array, array.shape[-1:], eps=self.layers[0][0].eps)
        weights = torch.cat([layer.weight * norm.weight for norm, layer in layers])
        biases = torch.cat([layer.bias + layer.weight @ norm.bias for norm, layer in layers])
        widths = [layer.out_features for _, layer in layers]
        parts = linear(normalized, weights, biases).split(widths, dim=-1)
        for (_, attention), keys, values in zip(self.layers, parts[::2], parts[1::2], strict=True):
            split = attention.split_heads(keys), attention.split_heads(values)
            self.projected.append((attention, (*split, mask)))

    def has_elements(self) -> Bool[Tensor, " B"] | None:
        """Return whether each sample has a real element. None: all have."""
        if any(segment.mask is None for segment in self.segments):
            return None
        masks = [segment.mask.any(dim=1) for segment in self.segments if segment.mask is not None]
        return torch.stack(masks).any(dim=0)


def _can_project_together(layers: Sequence[tuple[nn.LayerNorm, Attention]]) -> bool:
    """Return whether plain layers on a CPU project the elements of several cross-attentions.

    On a GPU the products are large enough alone, one cross-attention would gain little, and sharded weights are not
    complete before their own layer.
    """
    return (
        len(layers) > 1
        and len({norm.eps for norm, _ in layers}) == 1
        and all(
            type(layer) is nn.Linear
            and not hasattr(layer.weight, "device_mesh")
            and layer.weight.device.type == "cpu"
            for _, attention in layers
            for layer in (attention.to_key, attention.to_value)
        )
    )


class NormalizedElements:
    """Elements after a LayerNorm, which is applied where it costs least. See `nn.attention.KeyValueSource`.

    Args:
        source: The elements.
        norm: The LayerNorm over their C channels.
    """

    def __init__(self, source: ElementSource, norm: nn.LayerNorm) -> None:
        self.source, self.norm = source, norm

    def dense(self) -> tuple[Float[Tensor, "B M C"], Bool[Tensor, "B M"] | None]:
        """Return the elements as one array, and where they are real."""
        array, mask = self.source.dense()
        return self.norm(array), mask

    def read(
        self, queries: Float[Tensor, "P H N F"], attention: Attention
    ) -> Float[Tensor, "B N HFv"]:
        """Return the attention output of projected queries of each sample, or (P = 1) the same for all."""
        implementation = self.choice(queries.shape[2], attention).implementation
        if implementation == "projected":
            keys, values, mask = self._keys_values(attention)
            queries = queries.expand(keys.shape[0], -1, -1, -1)
            return attention.read(queries, keys, values, mask)
        keys = attention.to_key.weight.unflatten(0, (attention.num_heads, -1))
        vectors = torch.einsum("phnf,hfc->pchn", queries * attention.scale, keys)
        vectors = vectors * self.norm.weight[:, None, None]
        # The biases add a constant to all scores of a query, which softmax cancels. Their gradient is zero and must
        # exist: training on several devices waits for every gradient.
        vectors = vectors + 0.0 * attention.to_key.bias.sum()
        u, _ = attend_elements(
            vectors.flatten(2),
            self.source.segments,
            eps=self.norm.eps,
            use_grid=implementation == "structured",
        )
        u = u.unflatten(2, queries.shape[1:3])
        affine = u * self.norm.weight[:, None, None] + self.norm.bias[:, None, None]
        weight = attention.to_value.weight.unflatten(0, (attention.num_heads, -1))
        read = torch.einsum("bchn,hfc->bnhf", affine.to(weight.dtype), weight)
        read = read.flatten(2) + attention.to_value.bias
        some = self.source.has_elements()
        return read if some is None else read * some[:, None, None].to(read.dtype)

    def choice(self, num_queries: int, attention: Attention) -> Choice:
        """Return the implementation for `num_queries` queries of each head, and the cost of each."""
        if any(type(layer) is not nn.Linear for layer in (attention.to_key, attention.to_value)):
            return Choice("projected", {})  # other layers have no matrix to multiply queries with
        content = self.source.segments[0].content
        start = GPU_STREAMING_COST / content.shape[0] if content.is_cuda else STREAMING_COST
        found = operations(
            self.source.segments,
            num_queries=num_queries,
            num_heads=attention.num_heads,
            qk_channels=attention.to_key.out_features,
            v_channels=attention.to_value.out_features,
            reads=self.source.reads,
            start=start,
        )
        return choose(self.source.implementation, found)

    def _keys_values(self, attention: Attention) -> KeysValues:
        """Return keys, values and mask, shared by cross-attentions with the same weights."""
        source = self.source
        if any(owner is attention for _, owner in source.layers) and not source.projected:
            source.project_together()
        for owner, found in source.projected:
            if owner is attention:
                return found
        array, mask = self.dense()
        found = (*attention.keys_values(array), mask)
        if self.source.keep:
            self.source.projected.append((attention, found))
        return found
