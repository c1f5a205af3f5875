"""Everything that one look at a sample gives: the answer, the reads, and what the answer got of each element."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from perceivers.explain.attribution.cross_attention_maps import (
    CrossAttentionMap,
    check_single,
    input_reads,
    summarize,
)
from perceivers.explain.attribution.recorder import Call, record_calls
from perceivers.explain.attribution.rollup import (
    RolledUp,
    answer_queries,
    check_whole,
    relevance,
    roll_up_calls,
)
from perceivers.models.decoder import PerceiverDecoder
from perceivers.typing import Float, Tensor

MAPS = ("mean", "last", "rollup", "class")
"""What one picture of a whole model may show: the mean of all reads, the last read, the roll-up, or the roll-up
weighted by the gradient of a class."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What was seen.

    Attributes:
        outputs: Of the model, by name where there are several.
        reads: Every read of the input.
        rolled: What the answer got of each element, then what some latents got.
        relevance: How much each element speaks for the class. None: not asked for.
    """

    outputs: Any
    reads: list[CrossAttentionMap]
    rolled: RolledUp
    relevance: Float[Tensor, " M"] | None = None


def look(
    model: Any,
    inputs: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None = None,
    *,
    latents: Sequence[int] = (),
    output: str | None = None,
    query: int | None = None,
) -> Look:
    """Return what a model answers for one sample, and what it looked at.

    Args:
        model: A `Perceiver`.
        inputs: One sample for each modality, with a batch axis of 1.
        masks: 1 x M for modalities that were padded, True where an element is real.
        latents: Which latents to show on their own.
        output: Of several outputs, which is rolled up. By default the first.
        query: Which query of a decoder. By default all of them together.

    Raises:
        ValueError: If there is more than one sample, no such latent, or a read of a part of the elements.
    """
    check_single(inputs)
    decodes = isinstance(model.output, PerceiverDecoder)
    asked: list[Call] = []
    with torch.inference_mode():
        with record_calls(model) as calls:
            elements = model.elements(inputs, masks)
            states = model.encoder(elements)
        check_whole(calls, sum(part.num_elements for part in elements))
        outputs = model.decode(states, inputs, masks) if decodes else model.output(states)
        if decodes:
            name = output or model.output.names[0]
            which = None if query is None else [query]
            index = answer_queries(model, states, name, inputs, masks, which)
            with record_calls(model) as asked:
                model.decode(states, inputs, masks, outputs=[name], index={name: index})
        reads = [summarize(call, latents) for call in input_reads(calls)]
        rolled = roll_up_calls(calls, asked, latents)
    return Look(outputs=outputs, reads=reads, rolled=rolled)


def summary_of(
    seen: Look,
    kind: str,
    model: Any,
    inputs: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None = None,
    *,
    index: int | None = None,
    output: str | None = None,
    query: int | None = None,
) -> Float[Tensor, " M"]:
    """Return one number for each element, larger where it matters more.

    Args:
        seen: What `look` returned of the same sample.
        kind: One of `MAPS`.
        model: As for `look`, and so are the others.
        inputs: As above.
        masks: As above.
        index: Of `class`, which number of the answer. By default the largest.
        output: As above.
        query: As above.
    """
    if kind == "mean":
        return torch.stack([read.share for read in seen.reads]).mean(dim=0)
    if kind == "last":
        return seen.reads[-1].share
    if kind == "rollup":
        return seen.rolled.elements[0]
    return relevance(model, inputs, masks, index=index, output=output, query=query)
