"""Attribution of one sample: outputs, the attention of each cross-attention, and maps of the whole model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from perceivers.explain.attribution.attention import (
    Call,
    GroupedCall,
    check_single,
    input_calls,
    record_calls,
)
from perceivers.explain.attribution.rollup import (
    RolledUp,
    check_whole,
    output_queries,
    pass_through,
    query_latents,
    roll_up_calls,
)
from perceivers.models.decoder import PerceiverDecoder
from perceivers.models.ensemble import average_outputs, members_of
from perceivers.models.hip_encoder import ElementDecoder
from perceivers.typing import Float, Tensor

MAPS = {
    "mean": "all cross-attentions",
    "last": "last cross-attention",
    "rollup": "all layers",
    "class": "for {about}",
}
"""Titles of the maps of a whole model: the mean of all cross-attentions, the last one, the rollup, and the rollup
weighted by the gradient of a class."""


@dataclass(frozen=True, kw_only=True)
class CrossAttentionMap:
    """Attention of one cross-attention, of a single sample, in memory that does not grow with the number of latents.

    Attributes:
        name: Name of the module.
        share: Fraction of the attention that each element received, averaged over latents and heads. Sums to one, or to
            zero if no element is real. Zero at padding.
        heads: The same for each head.
        weights: For each head and chosen latent, its attention to each element.
        head_scores: The same before the softmax. Minus infinity at padding; NaN at elements that a latent may not
            attend to.
    """

    name: str
    share: Float[Tensor, " M"]
    heads: Float[Tensor, "H M"]
    weights: Float[Tensor, "H L M"]
    head_scores: Float[Tensor, "H L M"]

    @property
    def scores(self) -> Float[Tensor, "L M"]:
        """Scores before the softmax, averaged over heads."""
        return self.head_scores.mean(dim=0)


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """Outputs of a model for one sample, and its attention.

    Attributes:
        outputs: Outputs of the model, by name if it has several.
        maps: Map of each cross-attention.
        rolled: Attention rolled up to the elements: of the output, then of the chosen latents.
    """

    outputs: Any
    maps: list[CrossAttentionMap]
    rolled: RolledUp

    def summary(self, kind: str) -> Float[Tensor, " M"]:
        """Return the map `mean`, `last` or `rollup` of the whole model. `class` is that of `relevance`."""
        if kind == "mean":
            return torch.stack([one.share for one in self.maps]).mean(dim=0)
        return self.maps[-1].share if kind == "last" else self.rolled.elements[0]


def attribute(
    model: Any,
    inputs: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None = None,
    *,
    latents: Sequence[int] = (),
    output: str | None = None,
    query: int | None = None,
) -> Attribution:
    """Return the outputs of a model for one sample, and its attention; of an ensemble, the average of its members.

    Single latents and heads have no counterpart in another member: theirs are those of the first one.

    Args:
        model: A `Perceiver` or an `Ensemble`.
        inputs: One sample for each modality, with a batch axis of 1.
        masks: 1 x M for padded modalities, True where an element is real.
        latents: Indices of latents that are kept one by one.
        output: Name of the output that is rolled up, of several. By default the first.
        query: Index of the query of a decoder. By default all of them together.

    Raises:
        ValueError: If there is more than one sample, no such latent, or a cross-attention to a part of the elements.
    """
    which: dict[str, Any] = {"latents": latents, "output": output, "query": query}
    found = [_attribute_member(one, inputs, masks, **which) for one in members_of(model)]
    if len(found) == 1:
        return found[0]
    first = found[0].rolled
    rolled = RolledUp(
        elements=torch.cat([_mean([one.rolled.elements[:1] for one in found]), first.elements[1:]]),
        kept=torch.cat([_mean([one.rolled.kept[:1] for one in found]), first.kept[1:]]),
    )
    maps = [
        replace(same[0], share=_mean([one.share for one in same]))
        for same in zip(*(one.maps for one in found), strict=True)
    ]
    outputs = average_outputs(model, [one.outputs for one in found])
    return Attribution(outputs=outputs, maps=maps, rolled=rolled)


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(tensors)).mean(dim=0)


def _attribute_member(
    model: Any,
    inputs: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None = None,
    *,
    latents: Sequence[int],
    output: str | None,
    query: int | None,
) -> Attribution:
    """Return the outputs of a single model for one sample, and its attention. Arguments as for `attribute`."""
    check_single(inputs)
    decoded: list[Call] = []
    with torch.inference_mode():
        with record_calls(model) as calls:
            elements = model.elements(inputs, masks)
            states = model.encoder(elements)
        check_whole(calls, sum(part.num_elements for part in elements))
        outputs = model.decode(states, inputs, masks, elements=elements)
        if isinstance(model.output, PerceiverDecoder):
            name = output or model.output.names[0]
            which = None if query is None else [query]
            index = output_queries(model, states, name, inputs, masks, which)
            with record_calls(model) as decoded:
                model.decode(states, inputs, masks, outputs=[name], index={name: index})
        start = None
        if isinstance(model.output, ElementDecoder) and query is not None:
            with record_calls(model) as decoded:
                model.decode(states, inputs, masks)
            start = query_latents(model, decoded, query, elements)
        maps = summarize_calls(calls, latents)
        rolled = roll_up_calls(calls, decoded, latents, start=start)
    return Attribution(outputs=outputs, maps=maps, rolled=rolled)


@torch.inference_mode()
def summarize_calls(calls: Sequence[Call], latents: Sequence[int]) -> list[CrossAttentionMap]:
    """Return the map of each cross-attention to the input; of a hierarchy of blocks, one map through all of them."""
    grouped = [call for call in calls if isinstance(call, GroupedCall) and call.route is not None]
    if not grouped:
        return [summarize_call(call, latents) for call in input_calls(calls)]
    count = calls[-1].query.shape[1]
    _check_latents(latents, count)
    one = torch.eye(count, device=calls[-1].query.device)
    rows = torch.cat([one.mean(dim=0, keepdim=True), one[list(latents)]])
    for call in reversed(grouped):
        rows = pass_through(rows, call)
    share, weights = rows[:1].cpu(), rows[None, 1:].cpu()
    return [
        CrossAttentionMap(
            name=grouped[-1].name,
            share=share[0],
            heads=share,
            weights=weights,
            head_scores=weights.log(),
        )
    ]


def _check_latents(latents: Sequence[int], count: int) -> None:
    if not all(0 <= latent < count for latent in latents):
        raise ValueError(f"Expected latents between 0 and {count - 1}, got {list(latents)}.")


@torch.inference_mode()
def summarize_call(call: Call, latents: Sequence[int]) -> CrossAttentionMap:
    """Return the map of a cross-attention, reduced to means over latents and to some latents."""
    num_latents = call.query.shape[1]
    _check_latents(latents, num_latents)
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


def select_map(found: CrossAttentionMap, latent: int | None, head: int | None) -> CrossAttentionMap:
    """Return a map whose `share` is that of a single latent, of a single head, or of one latent in one head."""
    if head is not None and not 0 <= head < len(found.heads):
        raise ValueError(f"Expected a head between 0 and {len(found.heads) - 1}, got {head}.")
    if latent is None and head is None:
        return found
    weights = found.heads if latent is None else found.weights[:, latent]
    return replace(found, share=weights.mean(dim=0) if head is None else weights[head])
