"""Layers of a Perceiver AR: causal cross-attention and self-attention with rotary positions and a cache."""

from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from perceivers.cross_attention.token_prefix import (
    KeysValues,
    KeyValueProjection,
    TokenPrefix,
    attend_prefix,
)
from perceivers.models.perceiver_ar_config import PerceiverARConfig
from perceivers.nn.blocks import LAYER_NORM_EPS, SquaredReLU
from perceivers.nn.init import lecun_linear
from perceivers.nn.rotary import RotaryConfig, rotate
from perceivers.typing import Bool, Float, Tensor


@dataclass
class KeyValueBuffer:
    """Keys and values of a layer, with room for later tokens."""

    keys: Tensor
    values: Tensor
    length: int = 0

    def append(self, keys: Tensor, values: Tensor) -> KeysValues:
        """Add keys and values, and return all so far."""
        stop = self.length + keys.shape[2]
        self.keys[:, :, self.length : stop] = keys
        self.values[:, :, self.length : stop] = values
        self.length = stop
        return self.keys[:, :, :stop], self.values[:, :, :stop]


@dataclass
class ARCache:
    """Keys and values of the tokens so far, by which one token costs one latent.

    Attributes:
        mask: True where a token of the context is real.
        is_padded: Whether tokens may be padding.
        num_latents: Positions that are latents.
        cross: Keys and values of all tokens, for each cross-attention.
        layers: Keys and values of the latents, for each self-attention.
    """

    mask: Bool[Tensor, "B L"]
    is_padded: bool = False
    num_latents: int = 0
    cross: list[KeyValueBuffer] = field(default_factory=list[KeyValueBuffer])
    layers: list[KeyValueBuffer] = field(default_factory=list[KeyValueBuffer])

    @property
    def length(self) -> int:
        """Number of tokens of the context."""
        return self.mask.shape[1]


@dataclass(frozen=True, kw_only=True)
class LatentPlaces:
    """Places of the latents: their rotations, and which of their tokens and of themselves they may attend to."""

    prefix: TokenPrefix
    content: Tensor
    positions: Tensor
    block_mask: Tensor
    self_mask: Tensor | None
    cache: ARCache | None


class CausalAttention(nn.Module):
    """Projections of multi-head attention, with rotary positions.

    Args:
        config: Architecture.
        rotary: Rotary positions of queries and keys, or None.
        output_bias: Whether the output layer has a bias.
    """

    def __init__(
        self, config: PerceiverARConfig, *, rotary: RotaryConfig | None, output_bias: bool
    ) -> None:
        super().__init__()
        self.num_heads, self.rotary, self.has_bias = config.num_heads, rotary, config.bias
        self.scale = (config.channels / config.num_heads) ** -0.5
        self.to_query, self.to_key, self.to_value = (
            linear_layer(config, config.channels, config.channels) for _ in range(3)
        )
        self.to_output = linear_layer(config, config.channels, config.channels, bias=output_bias)

    def queries(self, x: Float[Tensor, "B Q C"], positions: Tensor) -> Float[Tensor, "B H Q F"]:
        """Return the rotated queries of normalized latents."""
        return self._rotated(self._heads(self.to_query(x)), positions)

    def keys_values(self, x: Float[Tensor, "B S C"], positions: Tensor) -> KeysValues:
        """Return the rotated keys, and the values, of normalized elements."""
        keys = self._rotated(self._heads(self.to_key(x)), positions)
        return keys, self._heads(self.to_value(x))

    def output(self, read: Float[Tensor, "B H Q F"]) -> Float[Tensor, "B Q C"]:
        """Return the output layer of what the heads have read."""
        return self.to_output(read.transpose(1, 2).flatten(2))

    def projection(self) -> KeyValueProjection:
        """Return the projection to keys and values."""
        return KeyValueProjection(
            num_heads=self.num_heads,
            eps=LAYER_NORM_EPS,
            rotary=self.rotary,
        )

    def projection_weights(self, norm: nn.LayerNorm) -> list[Tensor]:
        """Return the weights of the projection to keys and values behind a norm."""
        found = [norm.weight, norm.bias, self.to_key.weight, self.to_value.weight]
        if self.has_bias:
            found += [self.to_key.bias, self.to_value.bias]
        return found

    def _rotated(self, x: Tensor, positions: Tensor) -> Tensor:
        if self.rotary is None:
            return x
        angles = self.rotary.angles(positions, x.shape[-1], x.dtype)
        return rotate(x, angles, self.rotary.head_share)

    def _heads(self, x: Float[Tensor, "B L HF"]) -> Float[Tensor, "B H L F"]:
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class _Residual(nn.Module):
    """Base of both layers: a residual MLP behind a residual attention, with dropout of both outputs."""

    def __init__(self, config: PerceiverARConfig, widening_factor: int) -> None:
        super().__init__()
        hidden = widening_factor * config.channels
        self.mlp_norm = nn.LayerNorm(config.channels, eps=LAYER_NORM_EPS)
        self.mlp = nn.Sequential(
            linear_layer(config, config.channels, hidden),
            nn.GELU() if config.activation == "gelu" else SquaredReLU(),
            linear_layer(config, hidden, config.channels),
        )
        self.dropout = nn.Dropout(config.residual_dropout)

    def with_residuals(self, z: Tensor, read: Tensor) -> Tensor:
        """Return the latents plus the attention output, and plus the MLP of the sum."""
        z = z + self.dropout(read)
        return z + self.dropout(self.mlp(self.mlp_norm(z)))


class CausalCrossAttend(_Residual):
    """Cross-attention of latents to the prefix and to their own tokens up to their position, and an MLP.

    Args:
        config: Architecture.
    """

    def __init__(self, config: PerceiverARConfig) -> None:
        super().__init__(config, config.cross_widening_factor)
        self.query_norm = nn.LayerNorm(config.channels, eps=LAYER_NORM_EPS)
        self.source_norm = nn.LayerNorm(config.channels, eps=LAYER_NORM_EPS)
        self.block_norm = "query_norm" if config.latent_norm_for_keys else "source_norm"
        self.attention = CausalAttention(
            config, rotary=config.rotary, output_bias=config.bias or config.cross_output_bias
        )

    def forward(self, z: Float[Tensor, "B Z C"], places: LatentPlaces, number: int) -> Tensor:
        """Return the latents after the layer, the `number`-th cross-attention."""
        attention, per_position = self.attention, z.shape[1] // places.positions.shape[1]
        positions = places.positions.repeat_interleave(per_position, dim=1)
        queries = attention.queries(self.query_norm(z), positions)
        norm = getattr(self, self.block_norm)
        block = attention.keys_values(norm(places.content), places.positions)
        prefix, cache = places.prefix, places.cache
        projection = attention.projection()
        weights = attention.projection_weights(self.source_norm)
        if cache is not None:
            if prefix.length:
                cache.cross[number].append(
                    *projection(prefix.embedded(), prefix.positions, weights)
                )
            keys, values = cache.cross[number].append(*block)
            mask = None
            if cache.is_padded or queries.shape[2] > 1:
                seen = cache.mask[:, None, None, : keys.shape[2] - block[0].shape[2]]
                parts = seen.expand(-1, 1, queries.shape[2], -1), places.block_mask
                mask = torch.cat([parts[0], parts[1].expand(len(seen), -1, -1, -1)], dim=3)
            read = scaled_dot_product_attention(
                queries, keys, values, attn_mask=mask, scale=attention.scale
            )
        elif prefix.length:
            read = attend_prefix(
                queries,
                prefix,
                block,
                block_mask=places.block_mask,
                projection=projection,
                weights=weights,
                scale=attention.scale,
            )
        else:
            read = scaled_dot_product_attention(
                queries, *block, attn_mask=places.block_mask, scale=attention.scale
            )
        return self.with_residuals(z, attention.output(read))


class CausalSelfAttend(_Residual):
    """Self-attention of latents to those at their position and before it, and an MLP.

    Args:
        config: Architecture.
        rotary: Rotary positions, or None.
    """

    def __init__(self, config: PerceiverARConfig, rotary: RotaryConfig | None) -> None:
        super().__init__(config, config.widening_factor)
        self.norm = nn.LayerNorm(config.channels, eps=LAYER_NORM_EPS)
        self.attention = CausalAttention(config, rotary=rotary, output_bias=config.bias)

    def forward(self, z: Float[Tensor, "B Z C"], places: LatentPlaces, number: int) -> Tensor:
        """Return the latents after the layer, the `number`-th self-attention."""
        attention, per_position = self.attention, z.shape[1] // places.positions.shape[1]
        positions = places.positions.repeat_interleave(per_position, dim=1)
        x = self.norm(z)
        queries = attention.queries(x, positions)
        keys, values = attention.keys_values(x, positions)
        if places.cache is not None:
            keys, values = places.cache.layers[number].append(keys, values)
        mask = places.self_mask
        read = scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, is_causal=mask is None, scale=attention.scale
        )
        return self.with_residuals(z, attention.output(read))


def linear_layer(
    config: PerceiverARConfig, channels: int, out: int, *, bias: bool | None = None
) -> nn.Linear:
    """Return a linear layer with the biases of the architecture, or as stated."""
    layer = lecun_linear(channels, out)
    if not (config.bias if bias is None else bias):
        layer.bias = None  # pyright: ignore
    return layer
