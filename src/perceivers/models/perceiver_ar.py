"""Perceiver AR: an autoregressive model whose latents are the last tokens and attend to all tokens before them."""

import torch
from torch import nn
from torch.nn.functional import linear, pad

from perceivers.cross_attention.token_prefix import TokenPrefix
from perceivers.models.causal_layers import (
    ARCache,
    CausalCrossAttend,
    CausalSelfAttend,
    KeyValueBuffer,
    LatentPlaces,
    linear_layer,
)
from perceivers.models.perceiver_ar_config import PerceiverARConfig
from perceivers.nn.blocks import LAYER_NORM_EPS
from perceivers.nn.init import truncated_normal_
from perceivers.typing import Bool, Float, Int, Tensor


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
        self.to_latents = (
            linear_layer(config, channels, channels) if config.latent_projection else None
        )
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
            else linear_layer(config, channels, config.vocab_size, bias=config.output_bias)
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

        def buffer(length: int) -> KeyValueBuffer:
            shape = (batch_size, config.num_heads, length, width)
            return KeyValueBuffer(weight.new_zeros(shape), weight.new_zeros(shape))

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
    ) -> LatentPlaces:
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
        return LatentPlaces(
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
