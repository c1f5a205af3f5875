"""Weights that begin as a map: a latent reads the bytes around its place, a query the latents around its own."""

import math

import torch
from torch import nn

from perceivers.models.decoder import PerceiverDecoder
from perceivers.models.encoder import PerceiverEncoder
from perceivers.nn.attention import Attention
from perceivers.outputs.queries import LearnedQueries
from perceivers.typing import Float, Tensor

__all__ = ["init_local_attention", "place_sines"]

_LATENT_SCALE = 1.5  # next to what is read, which is about 1, latents keep saying where they are
_QUERY_GAIN = 3.0  # makes two thirds of a read fall on the bytes within two of a latent's place
_LAYER_GAIN = (
    0.2  # of what layers add at first, so that the decoder finds the latents where they began
)


@torch.no_grad()
def init_local_attention(
    places: nn.Parameter, embedding: nn.Embedding, encoder: PerceiverEncoder, output: nn.Module
) -> None:
    """Change fresh weights so that attention is local from the first step on: near positions are alike.

    Places, latents and the queries that follow the text become sines of one set of frequencies; projections of
    queries become those of keys, so that a product of the two tells likeness; layers begin by adding little. None of
    it is fixed: everything is learned on.

    Why: a model of masked bytes must first find out that the bytes next to a hidden one matter, through two reads
    that both know nothing. Begun as published it long stays at the frequencies of letters (`docs/log.md`).

    Args:
        places: Learned vector of each place of the text, L x C.
        embedding: Vectors of the bytes, which the places become as large as.
        encoder: That reads the text.
        output: Its decoder. Queries that follow no text, and heads without queries, stay as they are.

    Source: ours. Projections of queries and keys that begin alike are an idea of mimetic initialization
    (arXiv:2305.09828); sines as places are those of the Transformer (arXiv:1706.03762), but spread evenly.
    """
    if places.is_meta:  # weights that will be read from a file
        return
    length, num_latents = places.shape[0], encoder.latents.shape[0]
    highest = math.pi * min(
        num_latents / length, 1.0
    )  # finer than latents lie, nothing can be told
    size = embedding.weight.std()
    places.copy_(place_sines(length, places.shape[1], length=length, highest=highest) * size)
    width = min(places.shape[1], encoder.latents.shape[1])
    encoder.latents.zero_()
    sines = place_sines(num_latents, width, length=length, highest=highest)
    encoder.latents[:, :width] = sines * _LATENT_SCALE
    if isinstance(output, PerceiverDecoder):
        for queries in output.queries.values():
            if isinstance(queries, LearnedQueries) and queries.modality is not None:
                table = queries.table
                sines = place_sines(table.shape[0], table.shape[1], length=length, highest=highest)
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


def place_sines(
    count: int, channels: int, *, length: int, highest: float
) -> Float[Tensor, "count channels"]:
    """Return sines and cosines of places, each channel with a mean square of 1.

    Args:
        count: Places, spread evenly over the length.
        channels: Of each: sine and cosine in turn, of frequencies spread evenly.
        length: Elements that the places lie along.
        highest: Highest frequency in radians per element. The lowest is half a wave over the whole length.
    """
    places = (torch.arange(count) + 0.5) * (length / count)
    frequencies = torch.linspace(math.pi / length, highest, -(-channels // 2))
    angles = places[:, None] * frequencies
    waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
    return waves[:, :channels] * math.sqrt(2)
