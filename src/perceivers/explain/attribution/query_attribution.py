"""What one output query looked at: the latents that it read, and through them the elements."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from perceivers.explain.attribution.attention import watch_attention
from perceivers.models.decoder import PerceiverDecoder
from perceivers.typing import Float, Tensor


@dataclass(frozen=True, kw_only=True)
class QueryAttribution:
    """What one query looked at, averaged over heads. Both sum to one.

    Attributes:
        latents: What part of its attention each latent got.
        elements: What each element got through the latents: the part that each latent got of the query times what it
            gave the element itself, the mean over reads. What latents tell one another in between is not followed.
    """

    latents: Float[Tensor, " N"]
    elements: Float[Tensor, " M"]


@torch.inference_mode()
def trace_query(
    model: Any, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None, *, query: int
) -> QueryAttribution:
    """Return what one query of a model with one output looked at.

    The maps of all latents and elements exist at once, so this is for texts rather than for films.

    Args:
        model: A `Perceiver` whose output is a `PerceiverDecoder`.
        inputs: One sample for each modality, with a batch axis of 1.
        masks: For modalities that were padded.
        query: Which one.

    Raises:
        TypeError: If the model has no output queries.
    """
    if not isinstance(model.output, PerceiverDecoder):
        raise TypeError(
            f"Expected a model with output queries, got {type(model.output).__name__} instead of a decoder."
        )
    with watch_attention(model) as maps:
        model(inputs, masks)
    reads = [weights[0].mean(dim=0) for name, weights in maps.calls if "cross_attends" in name]
    answers = [weights[0] for name, weights in maps.calls if name.startswith("output.")]
    # Queries are answered in chunks, one call for each.
    latents = torch.cat(answers, dim=1)[:, query].mean(dim=0).float()
    elements = torch.stack(reads).mean(dim=0).float().T @ latents
    return QueryAttribution(latents=latents.cpu(), elements=elements.cpu())
