"""The read of grids by the kernels of a GPU: `streaming.read_forward` and `read_backward` once more.

The forward pass goes over the elements twice: for the log-sum-exp of all grids together, then, with the final weights,
for what is collected. So nothing has to be rescaled. The backward pass goes over them once for the queries, and once
more if content, tables or modality embedding need a gradient.
"""

from collections.abc import Sequence

import torch

from perceivers.cross_attention.tiles import GridFeatures, GridGradients
from perceivers.cross_attention.triton.launch import NOTHING, GridReader
from perceivers.typing import Float, Tensor


def read_forward(
    vectors: Float[Tensor, "P C R"], parts: Sequence[GridFeatures]
) -> tuple[Float[Tensor, "B C R"], Float[Tensor, "B R"]]:
    """Return what each query reads from grids, and its log-sum-exp. See `streaming.read_forward`."""
    batch, num_rows = parts[0].batch, vectors.shape[2]
    vectors = vectors - vectors.mean(dim=1, keepdim=True)
    top = vectors.new_full((batch, num_rows), NOTHING)
    total = torch.zeros_like(top)
    readers = [GridReader(part, num_rows) for part in parts]
    rows = [reader.scores(vectors) for reader in readers]
    for reader, own in zip(readers, rows, strict=True):
        reader.log_sums(own, top, total)
    u = vectors.new_zeros(batch, vectors.shape[1], num_rows)
    for reader, own in zip(readers, rows, strict=True):
        u += reader.combine(own, top)[0].collected()
    found = total > 0
    safe = torch.where(found, total, 1.0)
    return u / safe[:, None], torch.where(found, top + safe.log(), 0.0)


def read_backward(
    gradient: Float[Tensor, "B C R"],
    vectors: Float[Tensor, "P C R"],
    u: Float[Tensor, "B C R"],
    log_sum: Float[Tensor, "B R"],
    parts: Sequence[GridFeatures],
    needed: Sequence[Sequence[bool]],
) -> tuple[Float[Tensor, "P C R"], list[Tensor | None]]:
    """Return the gradients of the queries and of the grids' tensors. See `streaming.read_backward`."""
    shared = vectors.shape[0] == 1 and u.shape[0] > 1
    vectors = vectors - vectors.mean(dim=1, keepdim=True)
    gradient = gradient - gradient.mean(dim=1, keepdim=True)
    delta = (gradient * u).sum(dim=1)
    log_sum = log_sum.contiguous()
    dp = torch.zeros_like(u)
    found: list[Tensor | None] = []
    for part, wanted in zip(parts, needed, strict=True):
        reader = GridReader(part, vectors.shape[2])
        rows, others = reader.scores(vectors), reader.scores(gradient)
        gradients = GridGradients(part, wanted)
        weigh = any(gradients.for_tables) or gradients.for_embedding
        sums, attention = reader.combine(rows, log_sum, others, delta, weigh=weigh)
        dp += sums.collected()
        own: list[Tensor | None] = []
        if any(wanted):
            reader.spread(gradients, rows, log_sum, others, delta)
            both = vectors.expand(u.shape[0], -1, -1)
            own = gradients.finish([(attention, gradient), (sums, both)])
        found += [*own, *[None] * (len(wanted) - len(own))]
    return (dp.sum(dim=0, keepdim=True) if shared else dp), found
