"""The papers' formulas in plain PyTorch, knowing nothing of this library: what a good port would do.

Elements are one dense array, every read normalizes it and projects it to keys and values, and attention is
PyTorch's fused one. Names of weights are this file's own; `OUR_NAMES` maps them to the library's.

Source: Perceiver (arXiv:2103.03206), section 3 and appendices C and D.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["OUR_NAMES", "PlainPerceiver", "PlainRead", "fourier_positions", "renamed"]

# Parts of names here -> parts of names in the library.
OUR_NAMES = (
    ("reads.", "encoder.cross_attends."),
    ("layers.", "encoder.blocks.0."),
    ("latents", "encoder.latents"),
    ("classify", "output.to_logits"),
    ("read.norm", "source_norm"),
    ("read.key", "attention.to_key"),
    ("read.value", "attention.to_value"),
    ("query_norm", "query_norm"),
    ("query.", "attention.to_query."),
    ("attention_norm", "norm"),
    ("key.", "attention.to_key."),
    ("value.", "attention.to_value."),
    ("out.", "attention.to_output."),
    ("mlp.norm", "mlp_norm"),
    ("mlp.up", "mlp.0"),
    ("mlp.down", "mlp.2"),
)


def renamed(name: str) -> str:
    """Return the library's name of a weight of `PlainPerceiver`."""
    for here, there in OUR_NAMES[:4]:  # where
        if name.startswith(here):
            name = there + name.removeprefix(here)
            break
    for here, there in OUR_NAMES[4:]:  # what
        head, found, tail = name.partition("." + here)
        if found:
            return f"{head}.{there}{tail}"
    return name


def fourier_positions(sizes: tuple[int, ...], num_bands: int) -> Tensor:
    """Return the position encoding of a grid, M x d(2K + 1): raw, all sines, all cosines."""
    axes = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in sizes), indexing="ij")
    raw = torch.stack([axis.flatten() for axis in axes], dim=-1)
    angles = [
        math.pi * raw[:, d : d + 1] * torch.linspace(1, n / 2, num_bands)
        for d, n in enumerate(sizes)
    ]
    angle = torch.cat(angles, dim=-1)
    return torch.cat([raw, angle.sin(), angle.cos()], dim=-1)


def heads(x: Tensor, num_heads: int) -> Tensor:
    """Split the channels: B x L x (H F) -> B x H x L x F."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


class PlainRead(nn.Module):
    """From queries and elements to what was read: LayerNorm, keys, values, softmax.

    Args:
        channels: Width of an element, C; keys and values have it, too.
        pad: Fill keys and values with zeros to a multiple of 8, which CUDA's fused attention asks for.
    """

    def __init__(self, channels: int, *, pad: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.pad = pad

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values, B x 1 x M x C each."""
        x = self.norm(x)
        return heads(self.key(x), 1), heads(self.value(x), 1)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return the attended values, B x N x C."""
        width = value.shape[-1]
        scale = width**-0.5
        if self.pad:
            query, key, value = (F.pad(t, (0, -width % 8)) for t in (query, key, value))
        query = query.to(key.dtype)
        read = F.scaled_dot_product_attention(query, key, value, scale=scale)
        return read[..., :width].transpose(1, 2).flatten(2)

    def forward(self, query: Tensor, x: Tensor) -> Tensor:
        """Return the attended values, B x N x C.

        Args:
            query: B x 1 x N x C, projected.
            x: B x M x C, elements with their positions.
        """
        return self.attend(query, *self.project(x))


class MLP(nn.Module):
    """Pre-norm MLP that neither widens nor narrows, with its residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.up = nn.Linear(channels, channels)
        self.down = nn.Linear(channels, channels)

    def forward(self, z: Tensor) -> Tensor:
        """Return z after the MLP."""
        return z + self.down(F.gelu(self.up(self.norm(z)), approximate="tanh"))


class CrossAttend(nn.Module):
    """Latents read the elements, then an MLP."""

    def __init__(self, latent_channels: int, channels: int, *, pad: bool) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(latent_channels)
        self.query = nn.Linear(latent_channels, channels)
        self.read = PlainRead(channels, pad=pad)
        self.out = nn.Linear(channels, latent_channels)
        self.mlp = MLP(latent_channels)

    def forward(self, z: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return the latents after reading."""
        query = heads(self.query(self.query_norm(z)), 1)
        return self.mlp(z + self.out(self.read.attend(query, key, value)))


class SelfAttend(nn.Module):
    """One layer of the latent transformer."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)
        self.mlp = MLP(channels)

    def forward(self, z: Tensor) -> Tensor:
        """Return the latents after one layer."""
        y = self.attention_norm(z)
        query, key, value = (
            heads(f(y), self.num_heads) for f in (self.query, self.key, self.value)
        )
        read = F.scaled_dot_product_attention(query, key, value)
        return self.mlp(z + self.out(read.transpose(1, 2).flatten(2)))


class PlainPerceiver(nn.Module):
    """The 2021 model: T reads, each followed by a block of the latent transformer, then mean and linear.

    The first read has its own weights, the others share theirs; so do all blocks.

    Args:
        side: Rows and columns of the image.
        num_bands: Frequencies for each axis.
        num_latents: N.
        latent_channels: D.
        num_reads: T.
        num_layers: Self-attends in a block.
        num_heads: Heads of each self-attention layer.
        num_classes: Outputs.
    """

    positions: Tensor

    def __init__(
        self,
        *,
        side: int,
        num_bands: int,
        num_latents: int,
        latent_channels: int,
        num_reads: int,
        num_layers: int,
        num_heads: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.register_buffer("positions", fourier_positions((side, side), num_bands))
        self.num_reads = num_reads
        self.keep = False
        channels = 3 + self.positions.shape[-1]
        self.latents = nn.Parameter(torch.empty(num_latents, latent_channels))
        self.reads = nn.ModuleList(
            CrossAttend(latent_channels, channels, pad=False) for _ in range(min(num_reads, 2))
        )
        self.layers = nn.ModuleList(
            SelfAttend(latent_channels, num_heads) for _ in range(num_layers)
        )
        self.classify = nn.Linear(latent_channels, num_classes)

    def set_keeping(self, keep: bool) -> None:
        """Project the elements once for all reads that share weights, or (no port does) for each."""
        self.keep = keep

    def set_padding(self, pad: bool) -> None:
        """Fill keys and values with zeros to a multiple of 8, or do not."""
        for read in self.reads:
            read.read.pad = pad

    def forward(self, image: Tensor) -> Tensor:
        """Return B x K logits of B x 3 x Y x X images."""
        pixels = image.flatten(2).transpose(1, 2)
        x = torch.cat([pixels, self.positions.expand(pixels.shape[0], -1, -1)], dim=-1)
        z = self.latents.expand(image.shape[0], -1, -1)
        kept: dict[int, tuple[Tensor, Tensor]] = {}
        for t in range(self.num_reads):
            which = min(t, len(self.reads) - 1)
            read = self.reads[which]
            projected = kept.get(which) or read.read.project(x)
            if self.keep:
                kept[which] = projected
            z = read(z, *projected)
            del projected
            for layer in self.layers:
                z = layer(z)
        return self.classify(z.mean(dim=1))

    def load_ours(self, weights: dict[str, Tensor]) -> None:
        """Take over the library's weights.

        Args:
            weights: State of the library's model with the same sizes.
        """
        mine = {name: weights[renamed(name)] for name, _ in self.named_parameters()}
        if len(set(map(renamed, mine))) != len(weights):
            missing = sorted(set(weights) - set(map(renamed, mine)))
            msg = f"Expected a place for every weight, got none for {missing}."
            raise ValueError(msg)
        self.load_state_dict(mine | {"positions": self.positions})
