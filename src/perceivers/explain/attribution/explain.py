"""Explanation of one sample by a saved model: its output, and the attention to the elements of each modality."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from perceivers.data.base import nearest
from perceivers.explain.attribution.attribute import MAPS, Attribution, select_map
from perceivers.explain.attribution.explanation import Explanation
from perceivers.explain.attribution.faithfulness import class_index
from perceivers.explain.attribution.methods import attribution_methods
from perceivers.explain.attribution.rollup import QueryAttribution, trace_query
from perceivers.explain.attribution.sample import ReadSample, read_sample
from perceivers.explain.contents.base import Content, ModelInput, View, content_of
from perceivers.hub.checkpoint import Saved, load
from perceivers.models.ensemble import members_of
from perceivers.tasks.averaging import infer_views
from perceivers.tasks.base import Task, TaskBatch, forward_task
from perceivers.tasks.prediction import NonFiniteOutputError, finite_rows
from perceivers.tasks.registry import build_task
from perceivers.typing import Tensor

Map = npt.NDArray[np.float32]


def explain_sample(
    saved: Saved | str | Path,
    file: Any,
    *,
    latents: int | Sequence[int] = 8,
    clip_position: float = 0.5,
    task: str | None = None,
    map: str | None = None,
    about: str | None = None,
    alone: tuple[int | None, int | None] = (None, None),
) -> Explanation:
    """Return the output of a model for one sample, and the attention of each of its cross-attentions.

    Args:
        saved: A run folder, a model on the Hugging Face hub, or the result of `perceivers.hub.checkpoint.load`.
        file: Sample as in `perceivers.explain.attribution.sample.read_sample`.
        latents: Latents whose scores are returned: their number, spread evenly over the latent array, or their indices.
        clip_position: Position of the clip in a longer file: 0 is its beginning, 1 its end.
        task: Name of the task, of several. By default the first. Attention is the same for all.
        map: Map of the whole model, one of `perceivers.explain.attribution.attribute.MAPS`. By default `class` where
            the run learned classes, or else `rollup`.
        about: Class, or number, of the map `class`. By default the most probable one, or the first number.
        alone: Indices of a latent and a head whose attention replaces the mean. None: the mean over all.

    Raises:
        ValueError: If the model was saved without labels or preprocessing, a latent, head, task, map or class does
            not exist, the file is missing or cannot be decoded, or a text has no blank where one is to be filled.
    """
    saved = load(saved) if isinstance(saved, str | Path) else saved
    learned = _task_of_run(saved)
    output, config = learned.config.select_subtask(task)
    whole, learned = learned, learned if output is None else learned.parts[output]
    sample = read_sample(saved, file, clip_position=clip_position)
    model = saved.model.eval()
    inputs, masks = sample.to(next(model.parameters()).device)
    config.check_sample({name: x[0] for name, x in inputs.items()}, sample.name)
    segments = segments_of(members_of(model)[0], inputs, masks)
    methods = attribution_methods(learned)
    count = methods.count_latents(model, inputs, masks or None) or segments[-1].end
    chosen = _chosen_latents(latents, count, alone[0])
    blank = learned.explained_query(inputs)
    kind, index = _map_of(learned, map, about)
    which: dict[str, Any] = {"output": output, "query": blank}
    found = methods.attribute(model, inputs, masks or None, latents=chosen, **which)
    place = None if alone[0] is None else chosen.index(alone[0])
    found = replace(found, maps=[select_map(one, place, alone[1]) for one in found.maps])
    summary = None if kind == "class" else found.summary(kind)
    if summary is None:
        summary = methods.relevance(model, inputs, masks or None, index=index, **which)
    outputs = _averaged(saved, whole, inputs, masks) if saved.config.mirrored else found.outputs
    selected = outputs if output is None else outputs[output]
    names, values = learned.explained_output(inputs, masks, selected, blank)
    if not (finite_rows(found.outputs, 1)[0] and bool(values.isfinite().all())):
        raise NonFiniteOutputError(sample.name, in_weights=_has_non_finite_weights(model))
    query = None if blank is None else trace_query(model, inputs, masks, query=blank)
    if kind == "class" and about is None:
        about = names[0 if learned.explain_as == "regression" else int(values.argmax())]
    title = MAPS[kind].format(about=about)
    return Explanation(
        name=sample.name,
        task=learned.explain_as,
        label_names=names,
        probabilities=values.float().cpu().numpy(),
        threshold=float(getattr(config, "threshold", 0.5)),
        views=_views(saved, sample, segments, found, summary, title, query),
        latents=chosen,
        missing=sample.missing,
        query=None if query is None else query.latents.numpy(),
        map=kind,
        about=about if kind == "class" else None,
    )


def _has_non_finite_weights(model: nn.Module) -> bool:
    return any(not bool(weight.isfinite().all()) for weight in model.parameters())


def _averaged(saved: Saved, task: Task, inputs: dict[str, Tensor], masks: Any) -> Any:
    """Return outputs averaged over mirrored samples, as in prediction; maps are those of the sample itself."""
    batch = TaskBatch(inputs=inputs, masks=masks, targets=None)
    forward = partial(forward_task, saved.model.eval())
    with torch.inference_mode():
        return infer_views(task, forward, batch, saved.config.views())


def _task_of_run(saved: Saved) -> Task:
    """Return the task of a run that can decode files and be explained."""
    if saved.config.task is None or not saved.config.preprocess:
        raise ValueError(
            f"The model in {saved.folder} was saved without its labels or its preprocessing, so it cannot read files: "
            "pv.save(predictor, folder) or `perceivers fit` save both."
        )
    task = build_task(saved.config.task)
    task.check_explainable()
    return task


def _map_of(task: Task, kind: str | None, about: str | None) -> tuple[str, int | None]:
    """Return the map of the whole model and, of a map for a class, its index in the output."""
    if kind is not None and kind not in MAPS:
        raise ValueError(
            f"Expected a map out of {', '.join(MAPS)}; got '{kind}'.{nearest(kind, MAPS)}"
        )
    if (about is not None or kind == "class") and not task.explains_outputs:
        learned = task.config.kind.replace("_", " ")
        raise ValueError(f"This run learned {learned} and no classes: there is none to explain.")
    if about is not None and kind not in (None, "class"):
        raise ValueError(f"A map of {kind} is of no class: leave out the class, or the map.")
    kind = kind or ("class" if about is not None or task.has_classes else "rollup")
    index = class_index(task.config, about)
    if index is None and task.explains_outputs and task.explain_as == "regression":
        index = 0
    return kind, index


def _chosen_latents(wanted: int | Sequence[int], count: int, also: int | None) -> tuple[int, ...]:
    """Return the indices of latents: `wanted`, or that many spread evenly over all, and `also`."""
    if isinstance(wanted, int):
        wanted = max(min(wanted, count), 1)
        chosen = tuple(round((i + 0.5) * count / wanted - 0.5) for i in range(wanted))
    else:
        chosen = tuple(wanted)
    return chosen if also is None or also in chosen else (*chosen, also)


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Elements `begin` to `end` - 1 of one modality among all elements.

    Attributes:
        real: Mask of its elements: False at padding.
        order: Index of each element on the axes, after `permute`. None: they are in order.
        axes: Number of elements along each axis; with `shares`, of steps.
        shares: Share of each step of the input in each element, M x L, for elements that overlap: maps are then of
            steps. None: maps are of elements.
    """

    name: str
    begin: int
    end: int
    real: npt.NDArray[np.bool_]
    order: npt.NDArray[np.int64] | None
    axes: tuple[int, ...]
    shares: Map | None = None

    def place(self, values: Map, *, divided: bool = False) -> Map:
        """Return values of all elements, ... x M, on the axes of this modality; NaN at padding.

        Args:
            values: Values of all elements.
            divided: Divide the value of an element among its steps, in multiples of an even share. Otherwise the value
                of a step is the mean over elements, weighted by the share of the step in them.
        """
        found = np.where(self.real, values[..., self.begin : self.end], np.nan).astype(np.float32)
        if self.order is not None:
            ordered = np.empty_like(found)
            ordered[..., self.order] = found
            found = ordered
        if self.shares is not None:
            found = self._on_steps(found, divided=divided)
        return found.reshape(*found.shape[:-1], *self.axes)

    def _on_steps(self, values: Map, *, divided: bool) -> Map:
        """Return values of elements, ... x M, as values of steps; NaN at steps that are in no element."""
        assert self.shares is not None
        known = np.isfinite(values)
        total = known.astype(np.float32) @ self.shares
        sums = np.where(known, values, 0) @ self.shares
        if divided:
            steps = int((self.shares[self.real] > 0).any(axis=0).sum())
            even = max(int(self.real.sum()), 1) / max(steps, 1)
            return np.where(total > 0, sums / even, np.nan).astype(np.float32)
        return np.where(total > 0, sums / np.maximum(total, 1e-12), np.nan).astype(np.float32)

    def place_shares(self, values: Map) -> Map:
        """Return the same in multiples of an even share among the real elements of this modality."""
        found = np.where(self.real, values[..., self.begin : self.end], 0)
        even = found.sum(axis=-1, keepdims=True) / max(int(self.real.sum()), 1)
        return self.place((values / np.maximum(even, 1e-30)).astype(np.float32), divided=True)


def segments_of(
    model: Any, inputs: dict[str, Tensor], masks: dict[str, Tensor]
) -> tuple[Segment, ...]:
    """Return the segment of each modality among the elements of a sample."""
    with torch.inference_mode():
        elements = model.elements(inputs, masks)
    found: list[Segment] = []
    begin = 0
    # Where a learned vector replaces a missing modality, all modalities have elements.
    names = sorted(inputs if len(elements) == len(inputs) else model.inputs)
    for name, part in zip(names, elements, strict=True):
        count = part.num_elements
        real = np.ones(count, dtype=bool)
        if part.mask is not None:
            real = np.broadcast_to(part.mask[0].cpu().numpy(), count)
        order = None
        if model.permutation is not None:
            order = model.element_order(name, count).cpu().numpy()
        axes, shares = axes_of(model.inputs[name], count), None
        shares_of = getattr(model.inputs[name], "element_shares", None)
        if shares_of is not None and name in inputs:
            shares = shares_of(inputs[name], masks.get(name)).float().cpu().numpy()
            axes = (shares.shape[1],)
        end = begin + count
        found.append(
            Segment(
                name=name, begin=begin, end=end, real=real, order=order, axes=axes, shares=shares
            )
        )
        begin = end
    return tuple(found)


def axes_of(adapter: Any, count: int) -> tuple[int, ...]:
    """Return the number of elements along each axis of an input, which may be shorter than configured."""
    axes: tuple[int, ...] = tuple(adapter.axes)
    rest = math.prod(axes[1:])
    return (count // rest, *axes[1:]) if count % rest == 0 else (count,)


def _views(
    saved: Saved,
    sample: ReadSample,
    segments: Sequence[Segment],
    found: Attribution,
    summary: Tensor,
    title: str,
    query: QueryAttribution | None,
) -> tuple[View, ...]:
    """Return the view of each modality. A learned vector that replaces a missing modality has nothing to show."""
    maps = found.maps
    shares = np.stack([one.share.numpy() for one in maps])
    scores = np.stack([one.scores.numpy() for one in maps])
    weights = np.stack([one.weights.mean(dim=0).numpy() for one in maps])
    heads = _stacked_heads([one.heads.numpy() for one in maps])
    head_scores = _stacked_heads([one.head_scores.numpy() for one in maps])
    num_real = max(sum(int(segment.real.sum()) for segment in segments), 1)
    views: list[View] = []
    for segment in segments:
        if segment.name not in sample.inputs:
            continue
        received = np.where(segment.real, shares[:, segment.begin : segment.end], 0).sum(axis=1)
        count = int(segment.real.sum())
        # A modality without any attention has 0 everywhere, and not 0 / 0.
        even = np.maximum(received, 1e-12)[:, None] / max(count, 1)
        views.append(
            View(
                name=segment.name,
                content=content_of(_model_input(saved, sample, segment.name)),
                attention=segment.place((shares / even).astype(np.float32), divided=True),
                share=received.astype(np.float32),
                even=count / num_real,
                scores=segment.place(scores),
                summary=segment.place_shares(summary.numpy()),
                summary_title=title,
                latents=segment.place_shares(weights),
                rolled=segment.place_shares(found.rolled.elements[1:].numpy()),
                heads=segment.place_shares(heads),
                head_scores=segment.place(head_scores),
                query=None if query is None else segment.place_shares(query.elements.numpy()),
            )
        )
    return tuple(views)


def contents_of(saved: Saved, sample: ReadSample) -> dict[str, Content]:
    """Return the content of each present modality of a sample, by name."""
    return {name: content_of(_model_input(saved, sample, name)) for name in sample.inputs}


def _model_input(saved: Saved, sample: ReadSample, name: str) -> ModelInput:
    x = sample.inputs[name][0].cpu().numpy()
    real = np.ones(len(x), dtype=bool)
    if name in sample.masks:
        real = np.broadcast_to(sample.masks[name][0].cpu().numpy(), len(x))
    return ModelInput(
        config=saved.config.preprocess[name],
        value=sample.values[name],
        x=x,
        real=real,
        step=step_of(saved.model.inputs[name]),
    )


def _stacked_heads(maps: Sequence[Map]) -> Map:
    """Return maps of heads, H x ..., as T x H x ...; their mean where the numbers of heads differ."""
    if len({one.shape for one in maps}) > 1:
        maps = [one.mean(axis=0, keepdims=True) for one in maps]
    return np.stack(maps)


def step_of(adapter: Any) -> tuple[int, ...]:
    """Return the samples, bytes, steps, pixels ... of the input that one element covers along each axis."""
    known = getattr(adapter, "element_step", None)
    if known is not None:
        return tuple(known)
    config = getattr(adapter, "config", None)
    patch, stride = getattr(config, "patch", None), getattr(config, "stride", None)
    if patch is not None:
        return (patch,) if isinstance(patch, int) else tuple(patch)
    if stride is None:
        return (1,)
    layers = len(getattr(config, "stem_channels", (1,)))
    pool = getattr(config, "pool", 1)  # after the convolutions of a text
    step = tuple(pool * one**layers for one in ((stride,) if isinstance(stride, int) else stride))
    frames = getattr(adapter, "frame_step", None)
    return step if frames is None else (frames, *step, *step)
