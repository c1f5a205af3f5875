"""What each read of the input attended to, in memory that does not grow with the number of latents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange, reduce
from torch import nn

from perceivers.explain.attention import on_attention
from perceivers.nn.attention import Attention
from perceivers.typing import Float, Tensor

__all__ = ["Read", "read_inputs"]

CHUNK = 2**24  # scores in memory at once: 64 MB


@dataclass(frozen=True, kw_only=True)
class Read:
    """One read of the input, of the first sample of a batch.

    Attributes:
        name: The module that read.
        share: What part of all attention each element got, averaged over latents and heads, or those of one. Sums to
            one, or to zero if no element is real. Zero where an element is padding.
        scores: For the chosen latents, what the softmax was taken of, averaged over heads. Minus infinity where
            an element is padding.
    """

    name: str
    share: Float[Tensor, " M"]
    scores: Float[Tensor, "L M"]


def read_inputs(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    *,
    latents: Sequence[int],
    masks: Mapping[str, Tensor] | None = None,
    latent: int | None = None,
    head: int | None = None,
) -> tuple[Any, list[Read]]:
    """Return the model's outputs, by name where there are several, and every read of its input, in their order.

    The whole maps never exist: latents are taken a few at a time. For a model without cross-attends (the
    Transformer baseline), every layer reads the input and the elements stand in for the latents.

    Args:
        model: A `Perceiver`.
        inputs: One sample for each modality, with a batch axis of 1. Their elements are read side by side, in
            the sorted order of names.
        latents: Which latents' scores are wanted.
        masks: 1 x M for modalities that were padded, True where an element is real.
        latent: Whose attention a `share` is. None: the mean of all latents.
        head: Likewise, of the heads.

    Raises:
        ValueError: If there is more than one sample, or a latent or head that the model does not have.
    """
    samples = {name: x.shape[0] for name, x in inputs.items()}
    if set(samples.values()) != {1}:
        msg = f"Expected one sample (a batch axis of 1) of each modality, got {samples}."
        raise ValueError(msg)
    reads: list[Read] = []
    crossing = any("cross_attends" in name for name, _ in model.named_modules())

    def record(
        name: str, attention: Attention, arrays: tuple[Tensor, Tensor, Tensor | None]
    ) -> None:
        if not crossing or "cross_attends" in name:
            reads.append(_summarize(name, attention, arrays, latents, (latent, head)))

    with torch.inference_mode(), on_attention(model, record):
        outputs = model(inputs, masks) if masks else model(inputs)
    return outputs, reads


def _summarize(
    name: str,
    attention: Attention,
    arrays: tuple[Tensor, Tensor, Tensor | None],
    latents: Sequence[int],
    only: tuple[int | None, int | None],
) -> Read:
    query, source, mask = arrays
    num_latents, num_elements = query.shape[1], source.shape[1]
    heads, (latent, head) = attention.num_heads, only
    asked = [*latents, *([] if latent is None else [latent])]
    if not all(0 <= latent < num_latents for latent in asked):
        msg = f"Expected latents between 0 and {num_latents - 1}, got {asked}."
        raise ValueError(msg)
    if head is not None and not 0 <= head < heads:
        msg = f"Expected a head between 0 and {heads - 1}, got {head}."
        raise ValueError(msg)
    # Projected once for all chunks of latents: a film of single pixels has a million elements.
    queries = attention.queries(query) * attention.scale
    keys = rearrange(attention.to_key(source), "1 M (H C) -> 1 H C M", H=heads)
    step = max(CHUNK // (num_elements * heads), 1)
    total = torch.zeros(num_elements, device=query.device)
    seen = queries if latent is None else queries[:, :, latent : latent + 1]
    kept = slice(None) if head is None else slice(head, head + 1)
    for start in range(0, seen.shape[2], step):
        weights = _masked(seen[:, kept, start : start + step] @ keys[:, kept], mask)
        total += reduce(weights.softmax(dim=-1).float(), "1 H Q M -> M", "sum")
    if mask is not None and not bool(mask.any()):  # a softmax over nothing is undefined
        total = torch.zeros_like(total)
    scores = _masked(queries[:, :, list(latents)] @ keys, mask)
    return Read(
        name=name,
        share=(total / (seen.shape[2] * (heads if head is None else 1))).cpu(),
        scores=reduce(scores.float(), "1 H L M -> L M", "mean").cpu(),
    )


def _masked(scores: Float[Tensor, "1 H Q M"], mask: Tensor | None) -> Float[Tensor, "1 H Q M"]:
    if mask is None:
        return scores
    return scores.masked_fill(~mask[:, None, None, :], float("-inf"))
