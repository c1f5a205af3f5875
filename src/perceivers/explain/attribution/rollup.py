"""Attention rollup: attention of the output, or of a latent, to each element through all layers.

Both ways go backwards from the output with one row over the latents for each thing that is explained, so that memory
is rows x elements, never latents x elements.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from perceivers.explain.attribution.attention import (
    Call,
    GroupedCall,
    check_single,
    input_calls,
    record_calls,
)
from perceivers.inputs.elements import Elements
from perceivers.models.decoder import PerceiverDecoder
from perceivers.models.ensemble import members_of
from perceivers.models.hip_encoder import ElementDecoder
from perceivers.typing import Float, Tensor

QUERIES = 256  # of an output with more queries, as many stand for all


@dataclass(frozen=True, kw_only=True)
class RolledUp:
    """Attention of some rows to each element through all layers: of the output first, then of latents.

    Attributes:
        elements: Fraction of each element in a row.
        kept: Fraction of each row that stays with the learned latents. With `elements` it sums to one.
    """

    elements: Float[Tensor, "K M"]
    kept: Float[Tensor, " K"]


@dataclass(frozen=True, kw_only=True)
class QueryAttribution:
    """Attention of one output query, averaged over heads. Both sum to one.

    Attributes:
        latents: Attention of the query to each latent.
        elements: Attention of the query through the latents: the sum over latents of the query's attention to a latent
            times the latent's attention to the element, averaged over cross-attentions. Self-attention is not followed.
    """

    latents: Float[Tensor, " N"]
    elements: Float[Tensor, " M"]


@torch.inference_mode()
def trace_query(
    model: Any, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None, *, query: int
) -> QueryAttribution:
    """Return the attention of one query of a model with one output; of an ensemble, the mean over its members.

    The maps of all latents and elements exist at once, so this is for texts rather than for videos.

    Raises:
        TypeError: If the model has no output queries.
    """
    found = [_trace_member(member, inputs, masks, query) for member in members_of(model)]
    return QueryAttribution(
        latents=torch.stack([one.latents for one in found]).mean(dim=0),
        elements=torch.stack([one.elements for one in found]).mean(dim=0),
    )


def _trace_member(
    model: Any, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None, query: int
) -> QueryAttribution:
    """Return the attention of one query of a single model. Arguments and errors as for `trace_query`."""
    if not isinstance(model.output, PerceiverDecoder | ElementDecoder):
        raise TypeError(
            f"Expected a model with output queries, got {type(model.output).__name__} instead of a decoder."
        )
    elements = model.elements(inputs, masks)
    with record_calls(model) as calls:
        model(inputs, masks)
    encoder = [call for call in calls if not call.name.startswith("output.")]
    decoder = [call for call in calls if call.name.startswith("output.")]
    latents = query_latents(model, decoder, query, elements)
    grouped = [call for call in encoder if isinstance(call, GroupedCall) and call.route is not None]
    if grouped:  # a hierarchy of blocks, each of which attends to the one before it
        rows = latents
        for call in reversed(grouped):
            rows = pass_through(rows, call)
    else:
        maps = [pass_through(latents, call) for call in input_calls(encoder)]
        rows = torch.stack(maps).mean(dim=0)
    return QueryAttribution(latents=latents[0].cpu(), elements=rows[0].cpu())


def query_latents(
    model: Any, decoder: Sequence[Call], query: int, elements: Sequence[Elements]
) -> Float[Tensor, "1 N"]:
    """Return the attention of one query of a model's only output to each latent, averaged over heads.

    Args:
        model: Model with output queries.
        decoder: Calls of its decoder for all queries, which are decoded in chunks.
        query: Index of the query.
        elements: Elements of the sample, in sorted order of their modalities.
    """
    if isinstance(model.output, ElementDecoder):
        name = model.output.names[0]
        modality = model.output.config.outputs[name].modality
        if model.permutation is not None:
            count = elements[sorted(model.inputs).index(modality)].num_elements
            query = int(model.element_order(modality, count).argsort()[query])
        query = model.output.query_place(name, query)
    for call in decoder:
        count = call.query.shape[1]
        if query < count:
            one = torch.zeros(1, count, device=call.query.device)
            one[0, query] = 1.0
            return pass_through(one, call)
        query -= count
    raise AssertionError("Every query is decoded.")


def output_queries(
    model: Any,
    states: Tensor,
    name: str,
    inputs: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None,
    which: Sequence[int] | None,
) -> Tensor:
    """Return the indices of the queries that stand for an output: `which`, or all, or `QUERIES` of more."""
    if which is None:
        count = 1
        if model.output.queries_of(name).num_queries != 1:
            outputs = model.decode(states, inputs, masks, outputs=[name])
            outputs = outputs[name] if isinstance(outputs, dict) else outputs
            count = outputs.shape[1]
        spread = torch.linspace(0, count - 1, min(count, QUERIES)).tolist()
        which = sorted({round(i) for i in spread})
    return torch.tensor(which, device=states.device)


@torch.inference_mode()
def roll_up_calls(
    encoder: Sequence[Call],
    decoder: Sequence[Call],
    latents: Sequence[int] = (),
    *,
    start: Float[Tensor, "1 N"] | None = None,
) -> RolledUp:
    """Return the attention of the output of one sample, and of some of the last latents, through all layers.

    Attention rollout. A layer with a residual passes on the mean of the identity and its attention, averaged over
    heads: (I + A) / 2; a cross-attention without one passes on A alone. The row of the output is the attention of its
    query to the latents or, where a head averages over latents, uniform. It is multiplied by layer after layer, from
    the last to the first. At each cross-attention, half of it goes to the elements by its attention, and the other half
    to the latents before it. MLPs are not followed. In a Hierarchical Perceiver, half of the row of a block goes to the
    latents of the block before it, and the other half to the output that its queries contain, or to learned latents.

    Args:
        encoder: Calls of an encoder, all of whose cross-attentions saw all elements.
        decoder: Calls of a decoder, if the model has one, for the queries that stand for the output.
        latents: Indices of latents that are rolled up one by one.
        start: Attention of the output to each latent. None: that of `decoder`, or uniform without one.

    Reference: Abnar and Zuidema, "Quantifying Attention Flow in Transformers" (arXiv:2005.00928), section 3; here for
    latents that attend to elements.
    """
    num_latents, device = encoder[-1].query.shape[1], encoder[-1].query.device
    row = torch.full((1, num_latents), 1 / num_latents, device=device)
    if start is not None:
        row = start
    elif decoder:
        count = sum(call.query.shape[1] for call in decoder)
        uniform = [
            torch.full((1, call.query.shape[1]), 1 / count, device=device) for call in decoder
        ]
        parts = [pass_through(part, call) for part, call in zip(uniform, decoder, strict=True)]
        row = sum(parts, torch.zeros_like(row))
    one = torch.eye(num_latents, device=device)[list(latents)]
    rows = torch.cat([row, one])
    total = torch.zeros(len(rows), input_calls(encoder)[0].num_elements, device=device)
    has_cross_attends = any(call.is_cross_attend for call in encoder)
    skips = _Skips()
    for call in reversed(encoder):
        passed = pass_through(rows, call)
        part = 0.5 if call.residual else 1.0
        if call.is_cross_attend:
            total += part * passed
            rows = (1 - part) * rows
        elif isinstance(call, GroupedCall) and call.reads_latents:
            rows = skips.before(call, part * passed, (1 - part) * rows)
        else:
            rows = (1 - part) * rows + part * passed
    if not has_cross_attends:  # the elements are their own latents
        total, rows = rows, torch.zeros_like(rows)
    kept = rows.sum(dim=-1) + sum(one.sum(dim=-1) for one in skips.kept)
    return RolledUp(elements=total.cpu(), kept=kept.cpu())


class _Skips:
    """Rows of queries that are outputs of earlier blocks, from the last block to the first."""

    def __init__(self) -> None:
        self.waiting: list[Tensor] = []
        self.kept: list[Tensor] = []
        """Rows of learned latents, which are the queries of the other blocks."""

    def before(
        self, call: GroupedCall, passed: Float[Tensor, "K M"], own: Float[Tensor, "K N"]
    ) -> Float[Tensor, "K M"]:
        """Return the rows of the latents that a call attended to.

        Args:
            call: Attention to the latents of the block before.
            passed: Rows that it passes to them.
            own: Rows that stay with its queries.
        """
        if call.has_skip:
            self.waiting.append(own)
            return passed
        self.kept.append(own)
        return passed + self.waiting.pop() if self.waiting else passed


def relevance(
    model: Any,
    inputs: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None = None,
    *,
    index: int | None = None,
    output: str | None = None,
    query: int | None = None,
) -> Float[Tensor, " M"]:
    """Return the relevance of each element for one number of the output: rollup weighted by its gradient.

    With y the number before any softmax, a layer counts as max(dy/dA * A, 0), averaged over heads: attention that would
    raise y if it were stronger. Its residual counts as one: the row of the output is multiplied by I + that, layer
    after layer from the last to the first, and the parts that cross-attentions pass to the elements are summed. The row
    begins with the same measure of the output query's attention to the latents or, where a head averages over latents,
    uniform. It does not sum to one: only elements of one sample can be compared. dy/dA is computed from the gradient of
    the attention's output and the values, a block at a time.

    If the head pools elements, the result is a weighted mean of this map and that of `_pooled_evidence`, both
    normalized to a sum of one; the weights are proportional to the two terms of y. For an ensemble, the maps of its
    members are averaged.

    Args:
        model: A `Perceiver` or an `Ensemble`.
        inputs: One sample for each modality, with a batch axis of 1.
        masks: 1 x M for padded modalities, True where an element is real.
        index: Index of the number, a class for example. By default the largest.
        output: Name of the output, of several. By default the first.
        query: Index of the query of a decoder. By default the first.

    Raises:
        ValueError: If there is more than one sample, or cross-attentions saw only a part of the elements.

    Reference: Chefer, Gur and Wolf, "Generic Attention-model Explainability for Interpreting Bi-Modal and
    Encoder-Decoder Transformers" (arXiv:2103.15679), equations 5, 6 and 10, without layers among the elements. Their
    normalization of equation 8 is left out: rows begin with a sum of one.
    """
    members = members_of(model)
    if index is None and len(members) > 1:  # the same number in all of them
        with torch.inference_mode():
            outputs = model(inputs, masks)
        named = outputs[output or next(iter(outputs))] if isinstance(outputs, dict) else outputs
        index = int((named[0] if named.ndim == 2 else named[0, query or 0]).argmax())
    which: dict[str, Any] = {"index": index, "output": output, "query": query}
    maps = [_relevance_of_member(member, inputs, masks, **which) for member in members]
    return torch.stack(maps).mean(dim=0)


def _relevance_of_member(
    model: Any,
    inputs: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None,
    *,
    index: int | None,
    output: str | None,
    query: int | None,
) -> Float[Tensor, " M"]:
    """Return the relevance of each element for one number of the output of a single model, as `relevance` does."""
    check_single(inputs)
    with torch.enable_grad(), record_calls(model, gradients=True) as calls:
        elements = model.elements(inputs, masks)
        states = model.encoder(elements)
        check_whole(calls, sum(part.num_elements for part in elements))
        count = len(calls)
        if isinstance(model.output, PerceiverDecoder):
            name = output or model.output.names[0]
            which = torch.tensor([query or 0], device=states.device)
            found = model.decode(states, inputs, masks, outputs=[name], index={name: which})
            found = found[name] if isinstance(found, dict) else found
        else:
            found = model.decode(states, inputs, masks, elements=elements)
        numbers = found.flatten()
        wanted = numbers.argmax() if index is None else index
        outputs = [call.output for call in calls if call.output is not None]
        gradients = torch.autograd.grad(numbers[wanted], outputs, allow_unused=True)
    with torch.inference_mode():
        attended = _weighted(calls, gradients, count)
    if not model.pools_elements:
        return attended
    pooled, pools = _pooled_evidence(model, sorted(inputs), elements, int(wanted))
    latents = _centered(found[0].detach() - pools)[int(wanted)].abs()
    part = _centered(pools)[int(wanted)].abs()
    share = float(part / (part + latents).clamp_min(1e-30))
    return (1 - share) * attended / attended.sum().clamp_min(1e-30) + share * pooled


def _pooled_evidence(
    model: Any, names: Sequence[str], elements: Sequence[Elements], index: int
) -> tuple[Float[Tensor, " M"], Float[Tensor, " K"]]:
    """Return the evidence of each element through the pools of the model's head, and the part of the outputs from them.

    The evidence is gradient times content, less its mean over the elements, where that is positive. It sums to one.
    """
    contents = [part.content.detach().clone().requires_grad_() for part in elements]
    with torch.enable_grad():
        found = torch.stack(
            [
                model.output.element_pools[name](content, part.real)[0]
                for name, content, part in zip(names, contents, elements, strict=True)
            ]
        ).sum(dim=0)
        gradients = torch.autograd.grad(_centered(found)[index], contents)
    parts: list[Tensor] = []
    for content, gradient, part in zip(contents, gradients, elements, strict=True):
        evidence = (content * gradient).sum(dim=-1)[0].detach()
        real = torch.ones_like(evidence) if part.real is None else part.real[0].to(evidence.dtype)
        mean = (evidence * real).sum() / real.sum().clamp_min(1)
        parts.append((evidence - mean).clamp_min(0) * real)
    total = torch.cat(parts).cpu()
    return total / total.sum().clamp_min(1e-30), found.detach()


def _centered(numbers: Float[Tensor, " K"]) -> Float[Tensor, " K"]:
    """Return numbers less their mean, which a softmax ignores; a single one as it is."""
    return numbers - numbers.mean() if numbers.shape[0] > 1 else numbers


def _weighted(
    calls: Sequence[Call], gradients: Sequence[Tensor | None], count: int
) -> Float[Tensor, " M"]:
    """Return the relevance of each element, from calls and the gradients of their outputs."""
    encoder = calls[:count]
    num_latents, device = encoder[-1].query.shape[1], encoder[-1].query.device
    row = torch.full((1, num_latents), 1 / num_latents, device=device)
    for call, gradient in zip(calls[count:], gradients[count:], strict=True):
        row = pass_through(torch.ones(1, call.query.shape[1], device=device), call, gradient)
        row = row / row.sum().clamp_min(1e-30)
    total = torch.zeros(1, input_calls(encoder)[0].num_elements, device=device)
    has_cross_attends, skips = any(call.is_cross_attend for call in encoder), _Skips()
    for call, gradient in zip(reversed(encoder), reversed(gradients[:count]), strict=True):
        passed = torch.zeros(1, call.num_elements, device=device)
        if gradient is not None:
            passed = pass_through(row, call, gradient)
        if call.is_cross_attend:
            total = total + passed
            row = row if call.residual else torch.zeros_like(row)
        elif isinstance(call, GroupedCall) and call.reads_latents:
            row = skips.before(call, passed, row)
        else:
            row = row + passed
    return (total if has_cross_attends else row)[0].cpu()


def pass_through(
    rows: Float[Tensor, "K Q"], call: Call, gradient: Float[Tensor, "G _ Cq"] | None = None
) -> Float[Tensor, "K S"]:
    """Return rows times the map of a call, averaged over heads; with a gradient, that of max(dy/dA * A, 0)."""
    found = torch.zeros(len(rows), call.num_elements, device=rows.device)
    mixed = None
    if gradient is not None:  # by the output of each head, before the output projection
        heads = call.attention.num_heads
        mixed = (gradient.flatten(0, 1) @ call.attention.to_output.weight).unflatten(
            -1, (heads, -1)
        )
    for block in call.blocks():
        weights = block.weights
        if mixed is not None:
            slope = mixed[block.queries].transpose(0, 1) @ call.values(block.source).mT
            weights = (slope * weights).clamp_min(0)
        found[:, block.elements] += rows[:, block.queries] @ weights.mean(dim=0)
    return found


def check_whole(calls: Sequence[Call], num_elements: int) -> None:
    """Raise ValueError if a cross-attention saw only a part of the elements."""
    counts = sorted({call.num_elements for call in input_calls(calls)})
    if counts != [num_elements]:
        raise ValueError(
            f"Expected every cross-attention to see all {num_elements:,} elements, got attention to {counts}: "
            "attention of an encoder that receives the input in parts cannot be explained."
        )
