"""The softmax over elements that stream by, and its backward pass. Written once, for any features.

Elements come in chunks of tiles. Unless all are small, scores are taken relative to their tile's maximum; what
tiles have collected is then brought to a common scale (as "online" or "flash" attention does), so that the memory
does not depend on the number of elements, and neither weights nor normalized elements are ever stored.

With x^ a normalized element, p the queries, s = p . x^, a = softmax(s) and u = sum a x^, and G the gradient of
u, the backward pass is made of the same two operations, scores and sums:

    ds = a (G . x^ - G . u),    dp = sum ds x^,    dx^ = sum over queries of (a G + ds p).
"""

import math
from collections.abc import Iterator, Sequence
from functools import reduce

import torch

from perceivers.cross_attention.features import Features, Tiles
from perceivers.typing import Float, Tensor

CHUNK_NUMBERS = 5_000_000
"""Numbers in the queries of a chunk: 20 MB, which a large cache still holds when they are used."""

GROUP_NUMBERS = 800_000
"""Scores that are computed at once, for the same reason."""

LOWEST = -80.0
"""Scores this far below the maximum of their tile count as this far: exp would return denormal numbers, which make
products on a CPU several times slower, and exp(-80) times any number of elements still is nothing."""

SLACK = 30.0
"""Scores may exceed the scale of the sums by this much before these are rescaled."""

SMALL = 40.0
"""Scores up to this size are exponentiated as they are: exp(40) times any number of elements is a number still."""


def attention_forward(
    vectors: Float[Tensor, "P C R"], parts: Sequence[Features]
) -> tuple[Float[Tensor, "B C R"], Float[Tensor, "B R"]]:
    """Return the attention output of each query, and the logarithm of the sum of its exponentiated scores.

    Args:
        vectors: R queries over the C channels, for each of B samples or (P = 1) the same for all. Their
            products with normalized elements are the scores.
        parts: The elements of each modality. They share one softmax.

    A query that finds no element (padding only) reads zero, and its logarithm is zero.
    """
    batch, rows = parts[0].batch, vectors.shape[2]
    vectors = vectors - vectors.mean(dim=1, keepdim=True)
    # No score exceeds the length of its query times that of x^, which is at most the square root of C.
    small = bool(vectors.norm(dim=1).max() * math.sqrt(vectors.shape[1]) <= SMALL)
    top = vectors.new_full((batch, rows), 0.0 if small else torch.finfo(vectors.dtype).min)
    sums = [part.sums(rows) for part in parts]
    for part, own in zip(parts, sums, strict=True):
        queries = part.queries(vectors)
        for chunk in part.chunks(_chunk_elements(part, rows)):
            tiles = part.tiles(chunk)
            if small:
                own.add(chunk, _collect_small(tiles, queries.of(chunk)))
                continue
            collected, highest = _collect(tiles, queries.of(chunk))
            # Sums far above 1 do no harm, so the scale follows the maximum with some slack.
            before = top[chunk.samples]
            peak = highest.amax(dim=1)
            after = torch.where(peak > before + SLACK, peak, before)
            if not torch.equal(after, before):
                for other in sums:
                    other.rescale(chunk.samples, (before - after).exp())
                top[chunk.samples] = after
            own.add(chunk, collected.mul_((highest - after[:, None]).exp()[:, :, None]))
    total = reduce(torch.add, [own.total() for own in sums])
    found = total > 0
    safe = torch.where(found, total, 1.0)
    u = reduce(torch.add, [own.collected() for own in sums]) / safe[:, None]
    return u, torch.where(found, top + safe.log(), 0.0)


def attention_backward(
    gradient: Float[Tensor, "B C R"],
    delta: Float[Tensor, "B R"],
    vectors: Float[Tensor, "P C R"],
    log_sum: Float[Tensor, "B R"],
    parts: Sequence[Features],
    needed: Sequence[Sequence[bool]],
) -> tuple[Float[Tensor, "P C R"], list[Tensor | None]]:
    """Return the gradients of the queries and of each tensor of each part that needs one.

    Args:
        gradient: Gradient of the output of the forward pass.
        delta: Product of each query's output and its gradient, summed over channels, less the gradient of `log_sum`.
        vectors: The queries.
        log_sum: The logarithms that the forward pass has returned.
        parts: The elements of each modality.
        needed: For each part, whether each of its tensors needs a gradient.
    """
    rows = vectors.shape[2]
    shared = vectors.shape[0] == 1 and gradient.shape[0] > 1
    vectors = vectors - vectors.mean(dim=1, keepdim=True)
    gradient = gradient - gradient.mean(dim=1, keepdim=True)
    dp = torch.zeros_like(gradient)
    found: list[Tensor | None] = []
    for part, wanted in zip(parts, needed, strict=True):
        queries, questions = part.queries(vectors), part.queries(gradient)
        sums, attention = part.sums(rows), part.sums(rows)
        gradients = part.gradients(wanted) if any(wanted) else None
        for chunk in part.chunks(_chunk_elements(part, rows)):
            tiles = part.tiles(chunk)
            p = queries.of(chunk, -log_sum[chunk.samples])
            g = questions.of(chunk, -delta[chunk.samples])
            if gradients is None:
                sums.add(chunk, _collect_gradient(tiles, p, g))
                continue
            collected, weighed, spread = _spread_gradient(tiles, p, g)
            sums.add(chunk, collected)
            attention.add(chunk, weighed)
            gradients.add(chunk, tiles, spread)
        dp += sums.collected()
        own: list[Tensor | None] = []
        if gradients is not None:
            both = vectors.expand(gradient.shape[0], -1, -1)
            own = gradients.finish([(attention, gradient), (sums, both)])
        found += own + [None] * (len(wanted) - len(own))  # a mask comes last and has none
    # The queries were centred, so their gradient is, too; sums of x^ are already up to rounding.
    return (dp.sum(dim=0, keepdim=True) if shared else dp), found


def _collect(
    tiles: Tiles, queries: Float[Tensor, "b t K R"]
) -> tuple[Float[Tensor, "b t K R"], Float[Tensor, "b t R"]]:
    """Return each tile's sums, weighted relative to its highest score, and that score."""
    features, p = _stacked(tiles.features), _stacked(queries)
    sums = torch.empty_like(p, memory_format=torch.contiguous_format)
    highest = p.new_empty(p.shape[0], 1, p.shape[2])
    for group in _groups(features, p.shape[2]):
        f = features[group]
        scores = torch.bmm(f, p[group])
        torch.amax(scores, dim=1, keepdim=True, out=highest[group])
        scores.sub_(highest[group]).clamp_(min=LOWEST).exp_()
        torch.bmm(f.transpose(1, 2), scores, out=sums[group])
    b, t = tiles.features.shape[:2]
    return sums.unflatten(0, (b, t)), highest[:, 0].unflatten(0, (b, t))


def _collect_small(tiles: Tiles, queries: Float[Tensor, "b t K R"]) -> Float[Tensor, "b t K R"]:
    """Return each tile's sums where no score is large: three passes over the scores fewer."""
    features, p = _stacked(tiles.features), _stacked(queries)
    sums = torch.empty_like(p, memory_format=torch.contiguous_format)
    for group in _groups(features, p.shape[2]):
        f = features[group]
        torch.bmm(f.transpose(1, 2), torch.bmm(f, p[group]).exp_(), out=sums[group])
    return sums.unflatten(0, tiles.features.shape[:2])


def _collect_gradient(
    tiles: Tiles, queries: Float[Tensor, "b t K R"], questions: Float[Tensor, "b t K R"]
) -> Float[Tensor, "b t K R"]:
    """Return each tile's part of dp, summed over elements."""
    features, p, g = _stacked(tiles.features), _stacked(queries), _stacked(questions)
    sums = torch.empty_like(p, memory_format=torch.contiguous_format)
    for group in _groups(features, p.shape[2]):
        f = features[group]
        attention = torch.bmm(f, p[group]).clamp_(min=LOWEST).exp_()
        change = torch.bmm(f, g[group]).mul_(attention)
        torch.bmm(f.transpose(1, 2), change, out=sums[group])
    return sums.unflatten(0, tiles.features.shape[:2])


def _spread_gradient(
    tiles: Tiles, queries: Float[Tensor, "b t K R"], questions: Float[Tensor, "b t K R"]
) -> tuple[Float[Tensor, "b t K R"], Float[Tensor, "b t K R"], Float[Tensor, "b t m K"]]:
    """Return each tile's part of dp, its sums under the attention, and the gradient of its features."""
    features, p, g = _stacked(tiles.features), _stacked(queries), _stacked(questions)
    sums = torch.empty_like(p, memory_format=torch.contiguous_format)
    weighed = torch.empty_like(sums)
    spread = torch.empty_like(features)
    for group in _groups(features, p.shape[2]):
        f = features[group]
        attention = torch.bmm(f, p[group]).clamp_(min=LOWEST).exp_()
        change = torch.bmm(f, g[group]).mul_(attention)
        torch.bmm(f.transpose(1, 2), change, out=sums[group])
        torch.bmm(f.transpose(1, 2), attention, out=weighed[group])
        torch.bmm(attention, g[group].transpose(1, 2), out=spread[group])
        spread[group].baddbmm_(change, p[group].transpose(1, 2))
    shape = tiles.features.shape[:2]
    return sums.unflatten(0, shape), weighed.unflatten(0, shape), spread.unflatten(0, shape)


def _stacked(array: Float[Tensor, "b t X Y"]) -> Float[Tensor, "bt X Y"]:
    return array.flatten(0, 1)


def _groups(features: Float[Tensor, "bt m K"], rows: int) -> Iterator[slice]:
    """Yield the tiles to handle at once."""
    step = max(1, GROUP_NUMBERS // (features.shape[1] * rows))
    step = max(1, step - step % torch.get_num_threads())  # cores share the tiles evenly
    for start in range(0, features.shape[0], step):
        yield slice(start, min(start + step, features.shape[0]))


def _chunk_elements(part: Features, rows: int) -> int:
    """Return the number of elements to put together at once: as many as their queries fill a few MB."""
    tiles = max(1, CHUNK_NUMBERS // (part.num_features * rows))
    return tiles * part.tile_elements
