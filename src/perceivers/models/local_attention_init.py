"""Initial weights with local attention: latents attend to nearby bytes, queries to nearby latents."""

import math
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from perceivers.models.decoder import PerceiverDecoder
from perceivers.models.encoder import PerceiverEncoder
from perceivers.nn.attention import Attention
from perceivers.outputs.queries import LearnedQueries
from perceivers.typing import Float, Tensor

_LATENT_SCALE = 1.5  # relative to the input of about 1, so that latents keep their positions
_QUERY_GAIN = 3.0  # puts two thirds of the attention on the bytes within two of a latent's position
_LAYER_GAIN = 0.2  # scale of the initial residuals, so that latents keep their positions


@runtime_checkable
class ReadsTokens(Protocol):
    """An input adapter that adds the embedding and the learned position of each token."""

    embedding: nn.Embedding

    @property
    def token_positions(self) -> nn.Parameter:
        """Learned vector of each position, L x C."""
        ...


@torch.no_grad()
def init_local_attention(
    places: nn.Parameter, embedding: nn.Embedding, encoder: PerceiverEncoder, output: nn.Module
) -> None:
    """Change initial weights so that attention is local from the first step on: nearby positions are similar.

    Positions, latents and the queries that follow the text become sines of one set of frequencies; query projections
    become equal to key projections, so that their product measures similarity; residuals of the layers are scaled
    down. None of it is fixed: everything is trained.

    Why: a model of masked bytes must first find out that the bytes next to a masked one matter, through two
    cross-attentions that are both random. With the published initialization it stays for long at the frequencies of
    single bytes (`docs/log.md`).

    Args:
        places: Learned vector of each position of the text, L x C.
        embedding: Embedding of the bytes, which sets the scale of the positions.
        encoder: Encoder of the text.
        output: Decoder of the text. Queries that follow no text, and heads without queries, are unchanged.

    Reference: ours. Equal projections of queries and keys are an idea of mimetic initialization (arXiv:2305.09828);
    sines as positions are those of the Transformer (arXiv:1706.03762), but spread evenly.
    """
    if places.is_meta:  # weights that will be loaded from a file
        return
    length, num_latents = places.shape[0], encoder.latents.shape[0]
    # Frequencies above the density of the latents cannot be resolved.
    highest = math.pi * min(num_latents / length, 1.0)
    size = embedding.weight.std()
    places.copy_(position_sines(length, places.shape[1], length=length, highest=highest) * size)
    width = min(places.shape[1], encoder.latents.shape[1])
    encoder.latents.zero_()
    sines = position_sines(num_latents, width, length=length, highest=highest)
    encoder.latents[:, :width] = sines * _LATENT_SCALE
    if isinstance(output, PerceiverDecoder):
        for queries in output.queries.values():
            if isinstance(queries, LearnedQueries) and queries.modality is not None:
                table = queries.table
                sines = position_sines(
                    table.shape[0], table.shape[1], length=length, highest=highest
                )
                table.copy_(sines * size)
    for module in (*encoder.modules(), *output.modules()):
        if isinstance(module, Attention):
            query, key = module.to_query.weight, module.to_key.weight
            shared = min(query.shape[1], key.shape[1])
            query[:, :shared] = key[:, :shared]
            query.mul_(_QUERY_GAIN)
    for name, weight in encoder.named_parameters():
        layer, last = name.startswith("blocks"), name.endswith("mlp.2.weight")
        if last or (layer and name.endswith("to_output.weight")):
            weight.mul_(_LAYER_GAIN)


def position_sines(
    count: int, channels: int, *, length: int, highest: float
) -> Float[Tensor, "count channels"]:
    """Return sines and cosines of positions, each channel with a mean square of 1.

    Args:
        count: Number of positions, spread evenly over the length.
        channels: Sine and cosine in turn, of frequencies spread evenly.
        length: Number of elements along which the positions lie.
        highest: Highest frequency in radians per element. The lowest is half a wave over the whole length.
    """
    positions = (torch.arange(count) + 0.5) * (length / count)
    frequencies = torch.linspace(math.pi / length, highest, -(-channels // 2))
    angles = positions[:, None] * frequencies
    waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
    return waves[:, :channels] * math.sqrt(2)
