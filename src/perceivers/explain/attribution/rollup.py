"""What an answer, or a latent, got of each element through all layers: attention rolled up over heads, latents, depth.

Both ways go from the answer backwards and carry one row over the latents for each thing that is asked about, so that
what is kept is rows x elements, never latents x elements.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from perceivers.explain.attribution.cross_attention_maps import check_single, input_reads
from perceivers.explain.attribution.recorder import Call, record_calls
from perceivers.models.decoder import PerceiverDecoder
from perceivers.typing import Float, Tensor

QUERIES = 256  # of an output with more, as many stand for all


@dataclass(frozen=True, kw_only=True)
class RolledUp:
    """What each element is to some rows: the answer first, then the latents that were asked for.

    Attributes:
        elements: The part that each element has in a row.
        kept: The part of each row that is left with the learned latents, which every sample begins with. With
            `elements` it sums to one.
    """

    elements: Float[Tensor, "K M"]
    kept: Float[Tensor, " K"]


def answer_queries(
    model: Any,
    states: Tensor,
    name: str,
    inputs: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None,
    which: Sequence[int] | None,
) -> Tensor:
    """Return which queries of an output stand for it: those given, or all, or as many as `QUERIES` of more."""
    if which is None:
        count = 1
        if model.output.queries_of(name).num_queries != 1:
            answers = model.decode(states, inputs, masks, outputs=[name])
            answers = answers[name] if isinstance(answers, dict) else answers
            count = answers.shape[1]
        which = sorted(
            {round(i) for i in torch.linspace(0, count - 1, min(count, QUERIES)).tolist()}
        )
    return torch.tensor(which, device=states.device)


@torch.inference_mode()
def roll_up_calls(
    encoder: Sequence[Call], decoder: Sequence[Call], latents: Sequence[int] = ()
) -> RolledUp:
    """Return the part that each element has in the answer of one sample, and in some of the last latents.

    Attention rollout. A layer with a residual passes on the mean of the identity and of its attention, the latter
    averaged over heads: (I + A) / 2; a read without one passes on A alone. The row of the answer is what its query
    gave each latent or, where a head averages over latents, the same for all. It is multiplied by layer after layer,
    from the last to the first. At each read, half of it goes to the elements, shared as the read's attention says, and
    the other half on to the latents as they were before. What the MLPs do is not followed.

    Args:
        encoder: The calls of an encoder, all of whose reads saw all elements.
        decoder: Those of a decoder, if there is one, for the queries that stand for the answer.
        latents: Which latents to roll up on their own.

    Source: Abnar and Zuidema, "Quantifying Attention Flow in Transformers" (arXiv:2005.00928), section 3; here for
    latents that read elements.
    """
    num_latents, device = encoder[-1].query.shape[1], encoder[-1].query.device
    row = torch.full((1, num_latents), 1 / num_latents, device=device)
    if decoder:
        count = sum(call.query.shape[1] for call in decoder)
        row = sum((_through(_spread(call, count), call) for call in decoder), torch.zeros_like(row))
    one = torch.eye(num_latents, device=device)[list(latents)]
    rows = torch.cat([row, one])
    total = torch.zeros(len(rows), input_reads(encoder)[0].num_elements, device=device)
    crossing = any(call.reads_input for call in encoder)
    for call in reversed(encoder):
        passed = _through(rows, call)
        part = 0.5 if call.residual else 1.0
        if call.reads_input:
            total += part * passed
            rows = (1 - part) * rows
        else:
            rows = (1 - part) * rows + part * passed
    if not crossing:  # the elements are their own latents
        total, rows = rows, torch.zeros_like(rows)
    return RolledUp(elements=total.cpu(), kept=rows.sum(dim=-1).cpu())


def relevance(
    model: Any,
    inputs: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None = None,
    *,
    index: int | None = None,
    output: str | None = None,
    query: int | None = None,
) -> Float[Tensor, " M"]:
    """Return how much each element speaks for one number of the answer: attention weighted by its gradient.

    With y the number before any softmax, a layer counts as max(dy/dA * A, 0), averaged over heads: attention of which
    more would raise y. Its residual counts as one: the row of the answer is multiplied by I + that, layer after layer
    from the last to the first, and what reads give the elements is added up. The row begins with what the answer's
    query gave each latent in the same measure or, where a head averages over latents, the same for all. It does not sum
    to one: only elements of one sample can be compared. dy/dA is made of the gradient of what the attention returned
    and of the values, a block at a time.

    Args:
        model: A `Perceiver`.
        inputs: One sample for each modality, with a batch axis of 1.
        masks: 1 x M for modalities that were padded, True where an element is real.
        index: Which number of the answer, a class for example. By default the largest.
        output: Of several outputs, which. By default the first.
        query: Which query of a decoder. By default the first.

    Raises:
        ValueError: If there is more than one sample, or reads saw only a part of the elements.

    Source: Chefer, Gur and Wolf, "Generic Attention-model Explainability for Interpreting Bi-Modal and
    Encoder-Decoder Transformers" (arXiv:2103.15679), equations 5, 6 and 10, whose elements have no layers of their own
    here. Their normalization of equation 8 is left out: rows begin with a sum of one.
    """
    check_single(inputs)
    with torch.enable_grad(), record_calls(model, gradients=True) as calls:
        elements = model.elements(inputs, masks)
        states = model.encoder(elements)
        check_whole(calls, sum(part.num_elements for part in elements))
        count = len(calls)
        if isinstance(model.output, PerceiverDecoder):
            name = output or model.output.names[0]
            which = torch.tensor([query or 0], device=states.device)
            answer = model.decode(states, inputs, masks, outputs=[name], index={name: which})
            answer = answer[name] if isinstance(answer, dict) else answer
        else:
            answer = model.output(states)
        numbers = answer.flatten()
        wanted = numbers.argmax() if index is None else index
        outputs = [call.output for call in calls if call.output is not None]
        gradients = torch.autograd.grad(numbers[wanted], outputs, allow_unused=True)
    with torch.inference_mode():
        return _weighted(calls, gradients, count)


def _weighted(
    calls: Sequence[Call], gradients: Sequence[Tensor | None], count: int
) -> Float[Tensor, " M"]:
    """Return the relevance of each element, from calls and the gradients of what they returned."""
    encoder = calls[:count]
    num_latents, device = encoder[-1].query.shape[1], encoder[-1].query.device
    row = torch.full((1, num_latents), 1 / num_latents, device=device)
    for call, gradient in zip(calls[count:], gradients[count:], strict=True):
        row = _through(torch.ones(1, call.query.shape[1], device=device), call, gradient)
        row = row / row.sum().clamp_min(1e-30)
    total = torch.zeros(1, input_reads(encoder)[0].num_elements, device=device)
    crossing = any(call.reads_input for call in encoder)
    for call, gradient in zip(reversed(encoder), reversed(gradients[:count]), strict=True):
        passed = torch.zeros(()) if gradient is None else _through(row, call, gradient)
        if call.reads_input:
            total = total + passed
            row = row if call.residual else torch.zeros_like(row)
        else:
            row = row + passed
    return (total if crossing else row)[0].cpu()


def _through(
    rows: Float[Tensor, "K Q"], call: Call, gradient: Float[Tensor, "1 Q Cq"] | None = None
) -> Float[Tensor, "K S"]:
    """Return rows times the map of a call, averaged over heads; with a gradient, that of max(dy/dA * A, 0)."""
    found = torch.zeros(len(rows), call.num_elements, device=rows.device)
    read = None
    if gradient is not None:  # of what was read, before the heads were mixed
        heads = call.attention.num_heads
        read = (gradient[0] @ call.attention.to_output.weight).unflatten(-1, (heads, -1))
    for block in call.blocks():
        weights = block.weights
        if read is not None:
            slope = read[block.queries].transpose(0, 1) @ call.values(block.source).mT
            weights = (slope * weights).clamp_min(0)
        found[:, block.elements] += rows[:, block.queries] @ weights.mean(dim=0)
    return found


def _spread(call: Call, count: int) -> Float[Tensor, "1 Q"]:
    return torch.full((1, call.query.shape[1]), 1 / count, device=call.query.device)


def check_whole(calls: Sequence[Call], num_elements: int) -> None:
    """Refuse reads of a part of the elements.

    Raises:
        ValueError: If there is such a read.
    """
    counts = sorted({call.num_elements for call in input_reads(calls)})
    if counts != [num_elements]:
        raise ValueError(
            f"Expected every read to see all {num_elements:,} elements, got reads of {counts}: attention of an encoder "
            "that reads a part of the input at a time cannot be drawn."
        )
