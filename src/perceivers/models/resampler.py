"""Perceiver Resampler: a fixed number of latents reads the features of images or videos, for a language model."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention, silu
from torch.nn.utils.rnn import pad_sequence

from perceivers.cross_attention.operator import attend_elements
from perceivers.inputs.elements import Elements
from perceivers.registry import configclass
from perceivers.typing import Bool, Float, Tensor

Norm = nn.LayerNorm | nn.RMSNorm


@configclass
class ResamplerConfig:
    """Configuration of a `Resampler`. The defaults are Flamingo's; `idefics2` has those of Idefics2.

    Attributes:
        channels: Width of latents and of the features they read.
        num_latents: Number of latents, which is the number of outputs.
        depth: Number of layers.
        num_heads: Heads of queries.
        head_channels: Width of a head.
        num_key_value_heads: Heads of keys and values, each shared by neighboring heads of queries. None: `num_heads`.
        widening_factor: Width of the MLP's hidden layer, as a multiple of `channels`.
        norm: LayerNorm, or RMSNorm, which has no offsets.
        norm_eps: Constant of the norms.
        mlp: Two linear layers around an exact GELU, or a gated layer: down(silu(gate(x)) * up(x)).
        latent_init: Initial latents: normal numbers of standard deviation 1, or ones.
        latents_in_keys: Latents attend to the features and to all latents in one softmax, else to the features only.
        num_frames: Frames of a video, at most, with a learned vector each. 0: none.
        num_media: Images or videos of a sample, at most, with a learned vector each. 0: none.
        attn_implementation: Implementation of attention to the features. `absorbed`: the keys' projection is applied to
            the queries, and nothing is stored that grows with the number of features; only after a LayerNorm.
            `projected`: keys and values of all features are computed. `auto`: the cheaper one.

    Raises:
        ValueError: If a number is out of range.
    """

    channels: int
    num_latents: int = 64
    depth: int = 6
    num_heads: int = 8
    head_channels: int = 64
    num_key_value_heads: int | None = None
    widening_factor: int = 4
    norm: Literal["layer", "rms"] = "layer"
    norm_eps: float = 1e-5
    mlp: Literal["gelu", "gated"] = "gelu"
    latent_init: Literal["normal", "ones"] = "normal"
    latents_in_keys: bool = True
    num_frames: int = 0
    num_media: int = 0
    attn_implementation: Literal["auto", "projected", "absorbed"] = "auto"

    def __post_init__(self) -> None:
        sizes = (self.channels, self.num_latents, self.depth, self.num_heads, self.head_channels)
        if min(*sizes, self.widening_factor, self.num_frames + 1, self.num_media + 1) < 1:
            raise ValueError(
                f"Expected sizes of at least 1, frames and media of at least 0: {self}."
            )
        if self.num_heads % self.key_value_heads:
            raise ValueError(
                f"Expected num_key_value_heads that divides num_heads={self.num_heads}, got "
                f"{self.num_key_value_heads}."
            )
        if self.attn_implementation == "absorbed" and self.norm != "layer":
            raise ValueError("attn_implementation='absorbed' needs norm='layer', got 'rms'.")

    @property
    def key_value_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_heads if self.num_key_value_heads is None else self.num_key_value_heads


def idefics2_resampler() -> ResamplerConfig:
    """Return the configuration of Idefics2's resampler, 651,468,800 parameters (arXiv:2405.02246)."""
    return ResamplerConfig(
        channels=4096,
        depth=3,
        num_heads=16,
        head_channels=96,
        num_key_value_heads=4,
        norm="rms",
        norm_eps=1e-6,
        mlp="gated",
        latent_init="ones",
    )


class GatedMLP(nn.Module):
    """Gated layers without biases: down(silu(gate(x)) * up(x)).

    Args:
        channels: Width of input and output.
        hidden: Width between.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.gate, self.up = _linear(channels, hidden), _linear(channels, hidden)
        self.down = _linear(hidden, channels)

    def forward(self, x: Float[Tensor, "... C"]) -> Float[Tensor, "... C"]:
        """Return the output, of the shape of the input."""
        return self.down(silu(self.gate(x)) * self.up(x))


class ResamplerLayer(nn.Module):
    """Cross-attention of latents to features and latents, followed by an MLP, both pre-norm.

    Args:
        config: Configuration.
    """

    def __init__(self, config: ResamplerConfig) -> None:
        super().__init__()
        self.config = config
        width, channels = config.num_heads * config.head_channels, config.channels
        shared = config.key_value_heads * config.head_channels
        hidden = config.widening_factor * channels
        self.context_norm, self.latent_norm = _norm(config), _norm(config)
        self.to_query, self.to_output = _linear(channels, width), _linear(width, channels)
        self.to_key, self.to_value = _linear(channels, shared), _linear(channels, shared)
        self.mlp_norm = _norm(config)
        self.mlp: nn.Module
        if config.mlp == "gelu":
            self.mlp = nn.Sequential(
                _linear(channels, hidden), nn.GELU(), _linear(hidden, channels)
            )
        else:
            self.mlp = GatedMLP(channels, hidden)

    def forward(
        self,
        latents: Float[Tensor, "B N C"],
        context: Float[Tensor, "B M C"],
        mask: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B N C"]:
        """Return the latents after the layer. `mask` is True where a feature is real."""
        normalized = self.latent_norm(latents)
        queries = self._heads(self.to_query(normalized), self.config.num_heads)
        attend = self._absorbed if self._is_absorbed(context) else self._projected
        read = attend(queries, normalized, context, mask)
        latents = latents + self.to_output(read.transpose(1, 2).flatten(2))
        return latents + self.mlp(self.mlp_norm(latents))

    def _projected(
        self,
        queries: Float[Tensor, "B H N F"],
        latents: Float[Tensor, "B N C"],
        context: Float[Tensor, "B M C"],
        mask: Bool[Tensor, "B M"] | None,
    ) -> Float[Tensor, "B H N F"]:
        """Return the attention output from keys and values of all features and latents."""
        source = self.context_norm(context)
        if self.config.latents_in_keys:
            source = torch.cat([source, latents], dim=1)
            if mask is not None:
                mask = torch.cat([mask, mask.new_ones(latents.shape[:2])], dim=1)
        keys, values = self._keys_values(source)
        if mask is None:
            return scaled_dot_product_attention(queries, keys, values, enable_gqa=self._is_grouped)
        some = mask.any(dim=1)[:, None, None, None]
        seen = mask[:, None, None, :] | ~some
        read = scaled_dot_product_attention(
            queries, keys, values, attn_mask=seen, enable_gqa=self._is_grouped
        )
        return read * some.to(read.dtype)

    def _absorbed(
        self,
        queries: Float[Tensor, "B H N F"],
        latents: Float[Tensor, "B N C"],
        context: Float[Tensor, "B M C"],
        mask: Bool[Tensor, "B M"] | None,
    ) -> Float[Tensor, "B H N F"]:
        """Return the attention output without keys and values of features: two softmaxes merged by their sums."""
        scaled = queries * self.config.head_channels**-0.5
        norm, heads = self.context_norm, self.config.num_heads
        assert isinstance(norm, nn.LayerNorm)  # as the configuration has checked
        to_key, to_value = (
            layer.weight.unflatten(0, (-1, self.config.head_channels)).repeat_interleave(
                heads // self.config.key_value_heads, dim=0
            )
            for layer in (self.to_key, self.to_value)
        )
        vectors = torch.einsum("bhnf,hfc->bchn", scaled, to_key)
        u, log_sum = attend_elements(
            (vectors * norm.weight[:, None, None]).flatten(2),
            [Elements(context, mask=mask)],
            eps=norm.eps,
            use_grid=False,
        )
        u = u.unflatten(2, (heads, -1))
        affine = (u * norm.weight[:, None, None] + norm.bias[:, None, None]).to(to_value.dtype)
        read = torch.einsum("bchn,hfc->bhnf", affine, to_value)
        if mask is not None:
            read = read * mask.any(dim=1)[:, None, None, None].to(read.dtype)
        if not self.config.latents_in_keys:
            return read
        # The offset of the norm adds the same to all scores of features, but not to those of latents.
        offset = torch.einsum("bchn,c->bhn", vectors, norm.bias)
        seen = log_sum.unflatten(1, (heads, -1)) + offset
        if mask is not None:
            seen = seen.masked_fill(~mask.any(dim=1)[:, None, None], float("-inf"))
        keys, values = self._keys_values(latents)
        groups = heads // self.config.key_value_heads
        keys, values = keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1)
        scores = (scaled @ keys.transpose(2, 3)).to(seen.dtype)
        own = scores.logsumexp(dim=3)
        share = torch.sigmoid(seen - own)[..., None].to(read.dtype)
        return share * read + (1 - share) * (scores.softmax(dim=3).to(values.dtype) @ values)

    def _keys_values(
        self, source: Float[Tensor, "B S C"]
    ) -> tuple[Float[Tensor, "B G S F"], Float[Tensor, "B G S F"]]:
        heads = self.config.key_value_heads
        return self._heads(self.to_key(source), heads), self._heads(self.to_value(source), heads)

    @property
    def _is_grouped(self) -> bool:
        return self.config.key_value_heads != self.config.num_heads

    def _is_absorbed(self, context: Float[Tensor, "B M C"]) -> bool:
        """Return whether keys are absorbed by the queries: as configured, else where that takes fewer products."""
        config = self.config
        if config.attn_implementation != "auto" or config.norm != "layer":
            return config.attn_implementation == "absorbed"
        rows = config.num_latents * config.num_heads
        absorbed = 2 * rows * config.channels
        width = config.head_channels
        projected = 2 * config.channels * config.key_value_heads * width + 2 * rows * width
        return absorbed * _ABSORBED_COST < projected and context.shape[1] > config.num_latents

    @staticmethod
    def _heads(x: Float[Tensor, "B L HF"], heads: int) -> Float[Tensor, "B H L F"]:
        return x.unflatten(2, (heads, -1)).transpose(1, 2)


# Time of a product of the streaming attention, relative to one of a projection.
_ABSORBED_COST = 2.0


class Resampler(nn.Module):
    """Perceiver Resampler: latents that read any number of features and give a fixed number of outputs.

    Args:
        config: Configuration.

    Shape:
        - Input: B x M x C features; or B x media x frames x M x C, whose frames of one image or video are read
          together; or a list of M_i x C features, one array for each sample.
        - Output: B x N x C; or B x media x N x C.

    Reference: Flamingo (arXiv:2204.14198), section 3.1.1; Idefics2 (arXiv:2405.02246). Widths, order and biases are
    those of OpenFlamingo and of Idefics2 in transformers.
    """

    def __init__(self, config: ResamplerConfig) -> None:
        super().__init__()
        self.config = config
        start = torch.ones if config.latent_init == "ones" else torch.randn
        self.latents = nn.Parameter(start(config.num_latents, config.channels))
        self.frame_embeddings = _table(config.num_frames, config.channels)
        self.media_embeddings = _table(config.num_media, config.channels)
        self.layers = nn.ModuleList(ResamplerLayer(config) for _ in range(config.depth))
        self.norm = _norm(config)

    def forward(
        self,
        x: Float[Tensor, "B M C"] | Float[Tensor, "B T F M C"] | Sequence[Float[Tensor, "_ C"]],
        mask: Bool[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "B N C"] | Float[Tensor, "B T N C"]:
        """Return the latents after all layers.

        Args:
            x: Features.
            mask: True where a feature is real, of the shape of `x` without channels. None: everywhere. Not for a list.

        Raises:
            ValueError: If the shape is another one, or if there are more frames or media than learned vectors.
        """
        if not isinstance(x, Tensor):
            x, mask = _padded(x, mask)
        if x.ndim not in (3, 5) or x.shape[-1] != self.config.channels:
            raise ValueError(
                f"Expected features of B x M x {self.config.channels} or B x media x frames x M x "
                f"{self.config.channels}, got {tuple(x.shape)}."
            )
        if mask is not None and mask.shape != x.shape[:-1]:
            raise ValueError(f"Expected a mask of {tuple(x.shape[:-1])}, got {tuple(mask.shape)}.")
        media = x.shape[1] if x.ndim == 5 else None
        context = self._with_embeddings(x)
        flat = context.flatten(0, 1).flatten(1, 2) if media else context
        if mask is not None and media:
            mask = mask.flatten(0, 1).flatten(1, 2)
        latents = self.latents.expand(flat.shape[0], -1, -1)
        for layer in self.layers:
            latents = layer(latents, flat, mask)
        latents = self.norm(latents)
        return latents.unflatten(0, (-1, media)) if media else latents

    def _with_embeddings(self, x: Tensor) -> Tensor:
        """Return the features plus the learned vectors of their frame and of their medium."""
        for name, table, axis in (
            ("frames", self.frame_embeddings, 2),
            ("media", self.media_embeddings, 1),
        ):
            if table is None:
                continue
            if x.ndim != 5 or x.shape[axis] > len(table):
                raise ValueError(
                    f"Expected B x media x frames x M x C with at most {len(table)} {name}, got {tuple(x.shape)}."
                )
            shape = [1] * x.ndim
            shape[axis], shape[-1] = x.shape[axis], x.shape[-1]
            x = x + table[: x.shape[axis]].view(shape)
        return x


def _padded(
    x: Sequence[Float[Tensor, "_ C"]], mask: object
) -> tuple[Float[Tensor, "B M C"], Bool[Tensor, "B M"]]:
    """Return arrays of features as one, with the mask of the real ones."""
    if mask is not None:
        raise ValueError("Expected no mask with a list of features: their lengths state the mask.")
    if not x or any(one.ndim != 2 for one in x):
        raise ValueError(
            f"Expected a list of arrays of M x C, got {[tuple(one.shape) for one in x]}."
        )
    lengths = torch.tensor([len(one) for one in x], device=x[0].device)
    padded = pad_sequence(list(x), batch_first=True)
    return padded, torch.arange(padded.shape[1], device=x[0].device) < lengths[:, None]


def _linear(channels: int, out: int) -> nn.Linear:
    return nn.Linear(channels, out, bias=False)


def _norm(config: ResamplerConfig) -> Norm:
    kind = nn.LayerNorm if config.norm == "layer" else nn.RMSNorm
    return kind(config.channels, eps=config.norm_eps)


def _table(count: int, channels: int) -> nn.Parameter | None:
    return nn.Parameter(torch.randn(count, channels)) if count else None
