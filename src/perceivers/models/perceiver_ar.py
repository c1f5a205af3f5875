"""Perceiver AR: an autoregressive model whose latents are the last tokens and attend to all tokens before them."""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.functional import linear, pad, scaled_dot_product_attention

from perceivers.cross_attention.token_prefix import (
    KeysValues,
    KeyValueProjection,
    TokenPrefix,
    attend_prefix,
)
from perceivers.nn.blocks import LAYER_NORM_EPS
from perceivers.nn.init import lecun_linear, truncated_normal_
from perceivers.nn.rotary import RotaryConfig, rotate
from perceivers.registry import configclass
from perceivers.typing import Bool, Float, Int, Tensor


@configclass
class PerceiverARConfig:
    """Architecture of a `PerceiverAR`.

    The defaults are those of DeepMind's release. krasserm's models differ in the fields from `latent_projection` on:
    `krasserm_perceiver_ar`.

    Attributes:
        vocab_size: Number of different tokens.
        max_length: Tokens of a context, prefix and latents together.
        num_latents: Last tokens of a context that are latents, each of which predicts the token after it.
        channels: Width of embeddings and latents.
        num_heads: Heads of every attention.
        num_layers: Layers of causal self-attention.
        widening_factor: Width of the hidden layer of the self-attention's MLP, as a multiple of `channels`.
        cross_widening_factor: The same of the cross-attention's MLP.
        positions: Vectors added to embeddings: `sinusoidal`, `learned` (summed over the axes) or `none`.
        axes: Rows of each table of learned positions. Empty: one table of `max_length` rows.
        first_position: Position of the first token of a context.
        rotary: Rotation of queries and keys in every cross-attention and in the first `rotary_layers`
            self-attentions. None: no rotation.
        rotary_layers: Self-attention layers that rotate. None: all.
        latents_per_position: Latents of each position. Their outputs are averaged.
        cross_attends_after: Numbers of the self-attention layers after which latents cross-attend again.
        latent_projection: Latents are a linear layer of the embeddings, instead of the embeddings themselves.
        latent_norm_for_keys: The latents' tokens are normalized as queries are, also as keys, instead of as the prefix.
        bias: Linear layers have biases.
        cross_output_bias: The output layer of a cross-attention has a bias in any case.
        activation: Squared ReLU, or GELU in its exact form.
        output_norm: LayerNorm before the output layer.
        tied_output: The output layer has the weights of the token embedding.
        output_bias: The output layer has a bias.
        residual_dropout: Dropout of the output of each attention and MLP.
        prefix_dropout: Share of the prefix left out of each training sample.
        init: `lecun`: linear layers keep the variance of their input, vectors have a standard deviation of 1, the
            output layer is zero. `normal`: all weights have a standard deviation of `init_scale`.
        init_scale: See `init`.

    Raises:
        ValueError: If a number is out of range, or fields contradict each other.
    """

    kind: Literal["perceiver_ar"] = "perceiver_ar"
    vocab_size: int
    max_length: int = 1024
    num_latents: int = 512
    channels: int = 512
    num_heads: int = 8
    num_layers: int = 8
    widening_factor: int = 4
    cross_widening_factor: int = 4
    positions: Literal["sinusoidal", "learned", "none"] = "none"
    axes: tuple[int, ...] = ()
    first_position: int = 1
    rotary: RotaryConfig | None = field(
        default_factory=lambda: RotaryConfig(includes_end=True, max_wavelength=1024.0)
    )
    rotary_layers: int | None = None
    latents_per_position: int = 1
    cross_attends_after: tuple[int, ...] = ()
    latent_projection: bool = True
    latent_norm_for_keys: bool = False
    bias: bool = True
    cross_output_bias: bool = True
    activation: Literal["squared_relu", "gelu"] = "squared_relu"
    output_norm: bool = True
    tied_output: bool = False
    output_bias: bool = True
    residual_dropout: float = 0.0
    prefix_dropout: float = 0.0
    init: Literal["lecun", "normal"] = "lecun"
    init_scale: float = 0.02

    def __post_init__(self) -> None:
        sizes = (self.vocab_size, self.channels, self.num_heads, self.num_latents)
        if min(*sizes, self.latents_per_position, self.num_layers + 1) < 1:
            raise ValueError(f"Expected sizes of at least 1: {self}.")
        if self.channels % self.num_heads:
            raise ValueError(
                f"Expected num_heads that divides channels={self.channels}, got {self.num_heads}."
            )
        if self.max_length < self.num_latents:
            raise ValueError(
                f"Expected a max_length of at least num_latents={self.num_latents}, got {self.max_length}."
            )
        if self.axes and self.positions != "learned":
            raise ValueError(f"axes={self.axes} needs positions='learned', got {self.positions}.")
        if self.latent_norm_for_keys and self.latents_per_position > 1:
            raise ValueError("latent_norm_for_keys needs latents_per_position=1.")
        for name in ("residual_dropout", "prefix_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"Expected a {name} from 0 to below 1, got {getattr(self, name)}.")

    @property
    def reading_heads(self) -> tuple[int, ...]:
        """Heads of each attention to the input."""
        return (self.num_heads,) * (1 + len(self.cross_attends_after))

    @property
    def table_rows(self) -> tuple[int, ...]:
        """Rows of each table of learned positions."""
        if self.positions != "learned":
            return ()
        return self.axes or (self.max_length + self.first_position,)


def krasserm_perceiver_ar(*, absolute: bool, **changes: Any) -> PerceiverARConfig:
    """Return an architecture as that of krasserm's `perceiver-io` library, version 0.11.

    Args:
        absolute: Learned positions beside the rotary ones, which then take half of the channels.
        changes: Fields of the configuration: sizes, and others than that library's defaults.
    """
    fields: dict[str, Any] = {
        "positions": "learned" if absolute else "none",
        "first_position": 0,
        "rotary": RotaryConfig(channel_share=0.5 if absolute else 1.0),
        "rotary_layers": 1,
        "latent_projection": False,
        "latent_norm_for_keys": True,
        "bias": False,
        "activation": "gelu",
        "output_norm": False,
        "tied_output": True,
        "init": "normal",
    }
    return PerceiverARConfig(**fields | changes)


@dataclass
class _Buffer:
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
    cross: list[_Buffer] = field(default_factory=list[_Buffer])
    layers: list[_Buffer] = field(default_factory=list[_Buffer])

    @property
    def length(self) -> int:
        """Number of tokens of the context."""
        return self.mask.shape[1]


@dataclass(frozen=True, kw_only=True)
class _Latents:
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
            _linear(config, config.channels, config.channels) for _ in range(3)
        )
        self.to_output = _linear(config, config.channels, config.channels, bias=output_bias)

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
            _linear(config, config.channels, hidden),
            nn.GELU() if config.activation == "gelu" else SquaredReLU(),
            _linear(config, hidden, config.channels),
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

    def forward(self, z: Float[Tensor, "B Z C"], places: _Latents, number: int) -> Tensor:
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

    def forward(self, z: Float[Tensor, "B Z C"], places: _Latents, number: int) -> Tensor:
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


class SquaredReLU(nn.Module):
    """Square of the positive part (arXiv:2109.08668)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation."""
        return torch.relu(x).square()


class PerceiverAR(nn.Module):
    """Autoregressive model of sequences of tokens, whose latents are the last tokens.

    Each latent predicts the token after its own. It attends to all tokens up to its position: to those before the
    latents by a cross-attention that never holds a map of latents and tokens, and to other latents by self-attention.

    Args:
        config: Architecture.

    Shape:
        - Input: B x L tokens, padded on the left; at most `max_length`.
        - Output: B x n x V logits, of the last n = min(num_latents, L) positions.

    Reference: Perceiver AR (arXiv:2202.07765).
    """

    def __init__(self, config: PerceiverARConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        self.tokens = nn.Embedding(config.vocab_size, channels)
        self.position_tables = nn.ModuleList(
            nn.Embedding(rows, channels) for rows in config.table_rows
        )
        self.to_latents = _linear(config, channels, channels) if config.latent_projection else None
        self.latent_vectors = None
        if config.latents_per_position > 1:
            self.latent_vectors = nn.Parameter(torch.empty(config.latents_per_position, channels))
        self.cross_attends = nn.ModuleList(
            CausalCrossAttend(config) for _ in range(1 + len(config.cross_attends_after))
        )
        rotating = config.num_layers if config.rotary_layers is None else config.rotary_layers
        self.layers = nn.ModuleList(
            CausalSelfAttend(config, config.rotary if number < rotating else None)
            for number in range(config.num_layers)
        )
        self.output_norm = (
            nn.LayerNorm(channels, eps=LAYER_NORM_EPS) if config.output_norm else nn.Identity()
        )
        self.to_logits = (
            None
            if config.tied_output
            else _linear(config, channels, config.vocab_size, bias=config.output_bias)
        )
        self.output_bias = None
        if config.tied_output and config.output_bias:
            self.output_bias = nn.Parameter(torch.zeros(config.vocab_size))
        self._initialize()

    def forward(
        self,
        tokens: Int[Tensor, "B L"],
        mask: Bool[Tensor, "B L"] | None = None,
        *,
        num_latents: int | None = None,
        indices: Int[Tensor, "B L A"] | None = None,
        cache: ARCache | None = None,
    ) -> Float[Tensor, "B n V"]:
        """Return the logits of the tokens that follow the last `num_latents` tokens.

        Args:
            tokens: Tokens. With a filled cache: the ones that follow those of the cache.
            mask: True where a token is real; rows are padded on the left. None: everywhere.
            num_latents: Number of latents. None: that of the configuration, at most all tokens.
            indices: Rows of the position tables of each token, for positions of several axes. None: counted from the
                first real token.
            cache: Keys and values of the tokens before, which gets those of these tokens, from `make_cache`.

        Raises:
            ValueError: If there are no tokens, or too many.
        """
        return self.logits(
            self.hidden(tokens, mask, num_latents=num_latents, indices=indices, cache=cache)
        )

    def hidden(
        self,
        tokens: Int[Tensor, "B L"],
        mask: Bool[Tensor, "B L"] | None = None,
        *,
        num_latents: int | None = None,
        indices: Int[Tensor, "B L A"] | None = None,
        cache: ARCache | None = None,
    ) -> Float[Tensor, "B n C"]:
        """Return the latents before the output layer. Arguments as for `forward`."""
        places = self._places(tokens, mask, num_latents, indices, cache)
        z = places.content if self.to_latents is None else self.to_latents(places.content)
        if self.latent_vectors is not None:
            z = (z[:, :, None] + self.latent_vectors).flatten(1, 2)
        z = self.cross_attends[0](z, places, 0)
        after = self.config.cross_attends_after
        for number, layer in enumerate(self.layers):
            z = layer(z, places, number)
            if number in after:
                again = 1 + after.index(number)
                z = self.cross_attends[again](z, places, again)
        z = self.output_norm(z)
        if self.latent_vectors is not None:
            z = z.unflatten(1, (-1, len(self.latent_vectors))).mean(dim=2)
        return z

    def logits(self, z: Float[Tensor, "B n C"]) -> Float[Tensor, "B n V"]:
        """Return the logits of the token that follows each latent."""
        if self.to_logits is not None:
            return self.to_logits(z)
        return linear(z, self.tokens.weight, self.output_bias)

    def make_cache(self, batch_size: int) -> ARCache:
        """Return an empty cache for contexts of at most `max_length` tokens with `num_latents` latents."""
        config, weight = self.config, self.tokens.weight
        width = config.channels // config.num_heads

        def buffer(length: int) -> _Buffer:
            shape = (batch_size, config.num_heads, length, width)
            return _Buffer(weight.new_zeros(shape), weight.new_zeros(shape))

        latents = config.num_latents * config.latents_per_position
        return ARCache(
            mask=torch.zeros(batch_size, 0, dtype=torch.bool, device=weight.device),
            cross=[buffer(config.max_length) for _ in self.cross_attends],
            layers=[buffer(latents) for _ in self.layers],
        )

    def _places(
        self,
        tokens: Tensor,
        mask: Tensor | None,
        num_latents: int | None,
        indices: Tensor | None,
        cache: ARCache | None,
    ) -> _Latents:
        """Return the prefix, the latents' tokens and their masks."""
        config, length = self.config, tokens.shape[1]
        cached = 0 if cache is None else cache.length
        count = min(config.num_latents if num_latents is None else num_latents, length)
        if length < 1 or length + cached > config.max_length or count < 1:
            raise ValueError(
                f"Expected 1 to {config.max_length} tokens and at least one latent, got {length + cached} tokens and "
                f"{count} latents."
            )
        if cached and (
            count < length or (cache and cache.num_latents + count > config.num_latents)
        ):
            raise ValueError(
                f"Expected tokens that are latents, {config.num_latents} with those of the cache, got {length} tokens."
            )
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        before = real if cache is None else torch.cat([cache.mask, real], dim=1)
        positions = (before.long().cumsum(dim=1) - 1).clamp(min=0)[:, cached:]
        positions = positions + config.first_position
        if indices is None:
            indices = positions[..., None]
        if indices.shape[2] < len(self.position_tables):
            raise ValueError(
                f"Expected positions of {len(self.position_tables)} axes (indices), got {indices.shape[2]}."
            )
        sinusoidal = config.positions == "sinusoidal"
        context = TokenPrefix(
            tokens=tokens,
            positions=positions,
            indices=indices[..., : max(len(self.position_tables), 1)],
            mask=mask,
            tables=(self.tokens.weight, *(one.weight for one in self.position_tables)),  # pyright: ignore
            fixed=self._sinusoids if sinusoidal else None,
        )
        cut = length - count
        own = context.chunk(cut, length)
        block_mask, self_mask = self._masks(own, cache, count)
        if cache is not None:
            cache.mask = before
            cache.is_padded |= mask is not None
            cache.num_latents += count
        return _Latents(
            prefix=self._thinned(context.chunk(0, cut)),
            content=own.embedded(),
            positions=own.positions,
            block_mask=block_mask,
            self_mask=self_mask,
            cache=cache,
        )

    def _masks(
        self, own: TokenPrefix, cache: ARCache | None, count: int
    ) -> tuple[Tensor, Tensor | None]:
        """Return masks: the tokens of the latents, and the latents, that each latent attends to."""
        per_position, device = self.config.latents_per_position, own.tokens.device
        cached = 0 if cache is None else cache.num_latents
        causal = torch.ones(count, count, dtype=torch.bool, device=device).tril()
        own_mask = causal[None, None]
        self_mask = None if per_position == 1 and not cached else own_mask
        if own.mask is not None:
            # A padded token attends to itself, since a softmax needs one.
            diagonal = torch.eye(count, dtype=torch.bool, device=device)
            own_mask = (own_mask & own.mask[:, None, None]) | diagonal
            self_mask = own_mask
        if cached and cache is not None and self_mask is not None:
            before = cache.mask[:, None, None, cache.length - cached :].expand(-1, 1, count, -1)
            rows = self_mask.expand(len(before), -1, -1, -1)
            self_mask = torch.cat([before, rows], dim=3)
        block = own_mask.repeat_interleave(per_position, dim=2)
        if self_mask is not None:
            self_mask = self_mask.repeat_interleave(per_position, dim=2)
            self_mask = self_mask.repeat_interleave(per_position, dim=3)
        return block, self_mask

    def _thinned(self, prefix: TokenPrefix) -> TokenPrefix:
        """Return the prefix without a random share of each sample, in training."""
        share, length = self.config.prefix_dropout, prefix.length
        if not self.training or not share or not length:
            return prefix
        kept = length - int(length * share)
        chosen = torch.rand(prefix.tokens.shape, device=prefix.tokens.device).topk(kept, dim=1)
        order = chosen.indices.sort(dim=1).values
        return TokenPrefix(
            tokens=prefix.tokens.gather(1, order),
            positions=prefix.positions.gather(1, order),
            indices=torch.take_along_dim(prefix.indices, order[..., None], dim=1),
            mask=None if prefix.mask is None else prefix.mask.gather(1, order),
            tables=prefix.tables,
            fixed=prefix.fixed,
        )

    def _sinusoids(self, positions: Int[Tensor, "B L"]) -> Float[Tensor, "B L C"]:
        """Return sines, then cosines, of frequencies from 1 down to 1 / 10,000."""
        half = self.config.channels // 2
        dtype = torch.promote_types(self.tokens.weight.dtype, torch.float32)
        steps = torch.arange(half, dtype=dtype, device=positions.device) / max(half - 1, 1)
        angles = positions[..., None] * 10_000.0**-steps
        found = torch.cat([angles.sin(), angles.cos()], dim=-1)
        return pad(found, (0, self.config.channels - found.shape[-1]))

    @torch.no_grad()
    def _initialize(self) -> None:
        config = self.config
        vectors = [self.tokens.weight, *(one.weight for one in self.position_tables)]
        if config.init == "normal":
            weights = [one.weight for one in self.modules() if isinstance(one, nn.Linear)]
            for one in (*vectors, *weights):
                nn.init.normal_(one, std=config.init_scale)  # pyright: ignore
        else:
            for one in vectors:
                truncated_normal_(one, 1.0)  # pyright: ignore
            if self.to_logits is not None:
                nn.init.zeros_(self.to_logits.weight)
        if self.latent_vectors is not None:
            truncated_normal_(self.latent_vectors, 0.02)


def _linear(
    config: PerceiverARConfig, channels: int, out: int, *, bias: bool | None = None
) -> nn.Linear:
    layer = lecun_linear(channels, out)
    if not (config.bias if bias is None else bias):
        layer.bias = None  # pyright: ignore
    return layer
