"""What each read of the input attended to, in memory that does not grow with the number of latents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from einops import reduce
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
        share: What part of all attention each element got, averaged over latents and heads. Sums to one.
        scores: For the chosen latents, what the softmax was taken of, averaged over heads.
    """

    name: str
    share: Float[Tensor, " M"]
    scores: Float[Tensor, "L M"]


def read_inputs(
    model: nn.Module, inputs: Mapping[str, Tensor], *, latents: Sequence[int]
) -> tuple[Float[Tensor, "1 K"], list[Read]]:
    """Return the model's outputs and every read of its input, in the order in which they happened.

    The whole maps never exist: latents are taken a few at a time. For a model without cross-attends (the
    Transformer baseline), every layer reads the input and the elements stand in for the latents.

    Args:
        model: A `Perceiver`.
        inputs: One sample for each modality, with a batch axis of 1.
        latents: Which latents' scores are wanted.

    Raises:
        ValueError: If there is more than one sample, or a latent that the model does not have.
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
            reads.append(_summarize(name, attention, arrays, latents))

    with torch.inference_mode(), on_attention(model, record):
        outputs = model(inputs)
    return outputs, reads


def _summarize(
    name: str,
    attention: Attention,
    arrays: tuple[Tensor, Tensor, Tensor | None],
    latents: Sequence[int],
) -> Read:
    query, source, mask = arrays
    num_latents, num_elements = query.shape[1], source.shape[1]
    if not all(0 <= latent < num_latents for latent in latents):
        msg = f"Expected latents between 0 and {num_latents - 1}, got {list(latents)}."
        raise ValueError(msg)
    step = max(CHUNK // (num_elements * attention.num_heads), 1)
    total = torch.zeros(num_elements, device=query.device)
    for start in range(0, num_latents, step):
        weights = attention.weights(query[:, start : start + step], source, mask)
        total += reduce(weights.float(), "1 H Q M -> M", "sum")
    scores = attention.scores(query[:, list(latents)], source, mask)
    return Read(
        name=name,
        share=(total / (num_latents * attention.num_heads)).cpu(),
        scores=reduce(scores.float(), "1 H L M -> L M", "mean").cpu(),
    )
