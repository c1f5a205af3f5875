"""Puts what was seen of all elements back where it belongs: to its modality, on its axes, past its padding."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from perceivers.explain.attribution.attribute import Look
from perceivers.explain.attribution.explanation import View
from perceivers.explain.attribution.query_attribution import QueryAttribution
from perceivers.explain.attribution.sample import ReadSample
from perceivers.explain.attribution.views import content_of, step_of
from perceivers.hub.checkpoint import Saved
from perceivers.typing import Tensor


@dataclass(frozen=True, kw_only=True)
class Segment:
    """The elements of one modality among all.

    Attributes:
        name: Of the modality.
        begin: The first of them.
        end: Behind the last.
        real: Which are real.
        order: Where each stands on the axes, after `permute`. None: as it comes.
        axes: Elements along each axis.
    """

    name: str
    begin: int
    end: int
    real: npt.NDArray[np.bool_]
    order: npt.NDArray[np.int64] | None
    axes: tuple[int, ...]

    def placed(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return values of all elements, ... x M, on the axes of these; NaN where one is not real."""
        own = np.where(self.real, values[..., self.begin : self.end], np.nan).astype(np.float32)
        if self.order is not None:
            placed = np.empty_like(own)
            placed[..., self.order] = own
            own = placed
        return own.reshape(*own.shape[:-1], *self.axes)


@dataclass(frozen=True, kw_only=True)
class SummaryMap:
    """One map of the whole model.

    Attributes:
        values: One number for each element.
        kind: Which of `perceivers.explain.attribution.attribute.MAPS` it is.
        about: The class that it is about.
    """

    values: npt.NDArray[np.float32]
    kind: str
    about: str | None

    @property
    def title(self) -> str:
        """What to call it over a picture."""
        words = {"mean": "all reads", "last": "last read", "rollup": "all layers"}
        return words.get(self.kind, f"for {self.about}")


def segments_of(
    model: Any, inputs: dict[str, Tensor], masks: dict[str, Tensor]
) -> tuple[Segment, ...]:
    """Return which of the elements, that are read side by side, belong to which modality."""
    with torch.inference_mode():
        elements = model.elements(inputs, masks)
    found: list[Segment] = []
    begin = 0
    # Where a learned vector stands for what is missing, there are elements of every modality.
    names = sorted(inputs if len(elements) == len(inputs) else model.inputs)
    for name, part in zip(names, elements, strict=True):
        count = part.num_elements
        real = np.ones(count, dtype=bool)
        if part.mask is not None:
            real = np.broadcast_to(part.mask[0].cpu().numpy(), count)
        order = None
        if model.permutation is not None:
            order = model.element_order(name, count).cpu().numpy()
        axes = _axes(model.inputs[name], count)
        found.append(
            Segment(name=name, begin=begin, end=begin + count, real=real, order=order, axes=axes)
        )
        begin += count
    return tuple(found)


def _axes(adapter: Any, count: int) -> tuple[int, ...]:
    """Return the elements along each axis of an input, which may be shorter than the configured size."""
    axes: tuple[int, ...] = tuple(adapter.axes)
    rest = math.prod(axes[1:])
    return (count // rest, *axes[1:]) if count % rest == 0 else (count,)


def views_of(
    saved: Saved,
    sample: ReadSample,
    segments: Sequence[Segment],
    seen: Look,
    whole: "SummaryMap",
    asked: QueryAttribution | None,
) -> tuple[View, ...]:
    """Return the view of each modality that is there.

    Args:
        saved: The model.
        sample: What it was given.
        segments: Of `segments_of`.
        seen: The reads, and what the latents got through all of them.
        whole: The one map of the whole model.
        asked: What the answer's own query looked at, if it has one.
    """
    reads = seen.reads
    shares = np.stack([read.share.numpy() for read in reads])
    scores = np.stack([read.scores.numpy() for read in reads])
    heads = _stacked([read.heads.numpy() for read in reads])
    weights = np.stack([read.weights.mean(dim=0).numpy() for read in reads])
    by_head = _stacked([read.head_scores.numpy() for read in reads])
    rolled = seen.rolled.elements[1:].numpy()
    num_real = sum(int(segment.real.sum()) for segment in segments)
    views: list[View] = []
    for segment in segments:
        name, own = segment.name, int(segment.real.sum())
        if name not in sample.inputs:  # a learned vector stands there, and nothing can be drawn
            continue
        part = np.where(segment.real, shares[:, segment.begin : segment.end], 0).sum(axis=1)
        x = sample.inputs[name][0].cpu().numpy()
        real = np.ones(len(x), dtype=bool)
        if name in sample.masks:
            real = np.broadcast_to(sample.masks[name][0].cpu().numpy(), len(x))
        # A modality that got nothing at all was looked at nowhere: 0, and not 0 / 0.
        even = np.maximum(part, 1e-12)[:, None] / max(own, 1)
        content = content_of(
            saved.config.preprocess[name],
            sample.values[name],
            x,
            real,
            step_of(saved.model.inputs[name]),
        )
        views.append(
            View(
                name=name,
                content=content,
                attention=segment.placed((shares / even).astype(np.float32)),
                share=part.astype(np.float32),
                even=own / max(num_real, 1),
                scores=segment.placed(scores),
                summary=segment.placed(_evened(whole.values, segment)),
                summary_title=whole.title,
                latents=segment.placed(_evened(weights, segment)),
                rolled=segment.placed(_evened(rolled, segment)),
                heads=segment.placed(_evened(heads, segment)),
                head_scores=segment.placed(by_head),
                asked=None
                if asked is None
                else segment.placed(_evened(asked.elements.numpy(), segment)),
            )
        )
    return tuple(views)


def _evened(values: npt.NDArray[np.float32], segment: Segment) -> npt.NDArray[np.float32]:
    """Return values of all elements, ... x M, in multiples of an even share among the real ones of a modality."""
    own = np.where(segment.real, values[..., segment.begin : segment.end], 0)
    even = own.sum(axis=-1, keepdims=True) / max(int(segment.real.sum()), 1)
    return (values / np.maximum(even, 1e-30)).astype(np.float32)


def _stacked(maps: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Return maps of heads, H x ..., of all reads: T x H x ...; the mean over heads where their numbers differ."""
    if len({one.shape for one in maps}) > 1:
        maps = [one.mean(axis=0, keepdims=True) for one in maps]
    return np.stack(maps)
