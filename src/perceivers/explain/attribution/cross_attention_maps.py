"""What each read of the input attended to, in memory that does not grow with the number of latents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from perceivers.explain.attribution.recorder import Call
from perceivers.typing import Float, Tensor


@dataclass(frozen=True, kw_only=True)
class CrossAttentionMap:
    """One read of the input, of the first sample of a batch.

    Attributes:
        name: The module that read.
        share: What part of all attention each element got, averaged over latents and heads. Sums to one, or to
            zero if no element is real. Zero where an element is padding.
        heads: The same of each head alone.
        weights: For the chosen latents, by head, what part of a latent's attention each element got.
        head_scores: For the same, what the softmax was taken of. Minus infinity where an element is padding.
    """

    name: str
    share: Float[Tensor, " M"]
    heads: Float[Tensor, "H M"]
    weights: Float[Tensor, "H L M"]
    head_scores: Float[Tensor, "H L M"]

    @property
    def scores(self) -> Float[Tensor, "L M"]:
        """What the softmax was taken of, averaged over heads."""
        return self.head_scores.mean(dim=0)


def check_single(inputs: Mapping[str, Tensor]) -> None:
    """Refuse more than one sample.

    Raises:
        ValueError: If an input has another batch axis than 1.
    """
    samples = {name: x.shape[0] for name, x in inputs.items()}
    if set(samples.values()) != {1}:
        raise ValueError(
            f"Expected one sample (a batch axis of 1) of each modality, got {samples}."
        )


def input_reads(calls: Sequence[Call]) -> list[Call]:
    """Return the calls that read the input: all cross-attends of the encoder, or all of one that has none."""
    encoder = [call for call in calls if not call.name.startswith("output.")]
    return [call for call in encoder if call.reads_input] or encoder


@torch.inference_mode()
def summarize(call: Call, latents: Sequence[int]) -> CrossAttentionMap:
    """Return what is kept of a read.

    Raises:
        ValueError: If there is no such latent.
    """
    num_latents = call.query.shape[1]
    if not all(0 <= latent < num_latents for latent in latents):
        raise ValueError(f"Expected latents between 0 and {num_latents - 1}, got {list(latents)}.")
    heads = torch.zeros(call.attention.num_heads, call.num_elements, device=call.query.device)
    for block in call.blocks():
        heads[:, block.elements] += block.weights.sum(dim=1)
    heads /= num_latents
    scores = call.scores(latents)
    return CrossAttentionMap(
        name=call.name,
        share=heads.mean(dim=0).cpu(),
        heads=heads.cpu(),
        weights=scores.softmax(dim=-1).nan_to_num(nan=0.0).cpu(),
        head_scores=scores.cpu(),
    )


def only(read: CrossAttentionMap, place: int | None, head: int | None) -> CrossAttentionMap:
    """Return a read whose share is that of a single latent, of a single head, or of one latent in one head.

    Args:
        read: Of `summarize`.
        place: Which of the chosen latents. None: the mean of all latents.
        head: Which head. None: the mean of all heads.

    Raises:
        ValueError: If there is no such head.
    """
    if head is not None and not 0 <= head < len(read.heads):
        raise ValueError(f"Expected a head between 0 and {len(read.heads) - 1}, got {head}.")
    if place is None and head is None:
        return read
    own = read.heads if place is None else read.weights[:, place]
    return replace(read, share=own.mean(dim=0) if head is None else own[head])
