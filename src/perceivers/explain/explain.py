"""From a saved model and a sample to what the model says and where its reads looked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from perceivers.data.base import nearest
from perceivers.explain.asked import Asked, trace_query
from perceivers.explain.explanation import Explanation, View
from perceivers.explain.reads import Read, read_inputs
from perceivers.explain.sample import ReadSample, read_sample
from perceivers.explain.views import content_of, step_of
from perceivers.hub.checkpoint import Saved
from perceivers.tasks.autoencode import AutoencodeTask, by_name
from perceivers.tasks.dense import DenseConfig
from perceivers.tasks.flow import FlowConfig
from perceivers.tasks.masked import FIRST_BYTE, MASK, MaskedBytesConfig, byte_name, check_blanks
from perceivers.tasks.multitask import MultiTaskConfig
from perceivers.tasks.reconstruction import psnr
from perceivers.tasks.tasks import TaskConfig, build_task, names_of
from perceivers.typing import Float, Int, Tensor

__all__ = ["explain"]


# What the answer is drawn as, where it is not the task's own kind.
_TASKS = {
    "masked_bytes": "classification",
    "flow": "regression",
    "autoencode": "regression",
}


@dataclass(frozen=True, kw_only=True)
class _Segment:
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


def explain(
    saved: Saved,
    file: Any,
    *,
    latents: int | Sequence[int] = 8,
    moment: float = 0.5,
    task: str | None = None,
    latent: int | None = None,
    head: int | None = None,
) -> Explanation:
    """Return what a model says about one sample, and where each of its reads looked.

    Args:
        saved: What `perceivers.hub.checkpoint.load` returned.
        file: As in `perceivers.explain.sample.read_sample`.
        latents: Whose scores to return: so many, spread evenly over the latent array, or these.
        moment: Where the clip lies in a longer recording: 0 at its beginning, 1 at its end.
        task: Which of several tasks the answer is of. By default the first. All of them look at the same.
        latent: Whose attention is returned. By default the mean of all latents.
        head: Likewise, of the heads.

    Raises:
        ValueError: If the model was saved without labels or preprocessing, a latent, head or task does not exist, or
            the file is missing or cannot be decoded, or a text has no blank where one is to be filled. The message
            names it.
    """
    config = saved.config
    if config.task is None or not config.preprocess:
        msg = (
            f"The model in {saved.folder} was saved without its labels or its preprocessing, so it cannot read files: "
            "pv.save(predictor, folder) or `perceivers fit` save both."
        )
        raise ValueError(msg)
    sample = read_sample(saved, file, moment=moment)
    model = saved.model.eval()
    device = next(model.parameters()).device
    inputs = {name: x.to(device) for name, x in sample.inputs.items()}
    masks = {name: x.to(device) for name, x in sample.masks.items()}
    segments = _segments(model, inputs, masks)
    readers = getattr(config.model.encoder, "num_latents", None) or segments[-1].end
    chosen = _spread(latents, readers) if isinstance(latents, int) else tuple(latents)
    outputs, reads = read_inputs(
        model, inputs, latents=chosen, masks=masks or None, latent=latent, head=head
    )
    chosen_task = _task_of(config.task, task)
    if isinstance(config.task, MultiTaskConfig):
        outputs = outputs[task or next(iter(config.task.parts))]
    learned, names, asked = build_task(chosen_task), names_of(chosen_task), None
    if isinstance(learned, AutoencodeTask):  # numbers: how near what is given back comes
        names, answer = _nearness(learned, inputs, masks, outputs)
    else:
        answer = learned.probabilities(outputs)[0]
    if isinstance(chosen_task, MaskedBytesConfig):
        ids = inputs[chosen_task.modality][0]
        answer, names = _first_blank(ids, answer, sample.name)
        asked = trace_query(model, inputs, masks, query=int((ids == MASK).nonzero()[0]))
    if isinstance(chosen_task, FlowConfig):
        answer, names = _motion(answer)
    return Explanation(
        name=sample.name,
        task=_TASKS.get(chosen_task.kind, chosen_task.kind),
        label_names=names,
        probabilities=answer.float().cpu().numpy(),
        threshold=float(getattr(chosen_task, "threshold", 0.5)),
        views=_views(saved, sample, segments, reads, asked),
        latents=chosen,
        missing=sample.missing,
        asked=None if asked is None else asked.latents.numpy(),
    )


def _task_of(config: TaskConfig, name: str | None) -> TaskConfig:
    """Return the configuration of the task that is explained.

    Raises:
        ValueError: If there is no such task.
    """
    if isinstance(config, DenseConfig):
        msg = (
            "This run answers for every pixel, and what a picture of attention says of one label it cannot say of all "
            "of them. Draw what it predicts instead: perceivers predict RUN FILE --save FOLDER."
        )
        raise ValueError(msg)
    parts = config.parts if isinstance(config, MultiTaskConfig) else {}
    if name is None:
        return next(iter(parts.values()), config)
    if name not in parts:
        told = f"the run learned {', '.join(parts)}" if parts else "the run learned one task alone"
        msg = f"There is no task '{name}': {told}.{nearest(name, parts)}"
        raise ValueError(msg)
    return parts[name]


def _nearness(
    task: AutoencodeTask, inputs: dict[str, Tensor], masks: dict[str, Tensor], outputs: Any
) -> tuple[tuple[str, ...], Float[Tensor, " n"]]:
    """Return the names of what an autoencoder gives back, and the PSNR of each in dB."""
    wanted = task.pose(inputs, masks, None, training=False).targets
    answers = by_name(task.config, outputs)
    found = {
        f"{name}_psnr": psnr(
            task.errors(name, answers[name], wanted)[0], task.config.parts[name].peak
        )
        for name in wanted.values
    }
    return tuple(found), torch.cat(list(found.values()))


def _first_blank(
    ids: Int[Tensor, " L"], answer: Float[Tensor, "L K"], name: str
) -> tuple[Float[Tensor, " 256"], tuple[str, ...]]:
    """Return how probable each byte is in the first blank of a text, and what the bytes are called.

    Raises:
        ValueError: If there is no blank.
    """
    check_blanks(ids.tolist(), name)
    blank = int((ids == MASK).nonzero()[0])
    return answer[blank, FIRST_BYTE:], tuple(byte_name(byte) for byte in range(256))


def _evened(asked: Asked, segment: _Segment) -> npt.NDArray[np.float32]:
    """Return what a query looked at, in multiples of an even share among the real elements of a modality."""
    elements = asked.elements.numpy()
    own = np.where(segment.real, elements[segment.begin : segment.end], 0)
    even = max(float(own.sum()), 1e-12) / max(int(segment.real.sum()), 1)
    return (elements / even).astype(np.float32)


def _motion(answer: Float[Tensor, "O P 2"]) -> tuple[Float[Tensor, " 4"], tuple[str, ...]]:
    """Return how the pixels of a first frame move, and what these numbers are called."""
    length, means = answer.norm(dim=-1), answer.mean(dim=(0, 1))
    told = torch.stack([length.mean(), length.max(), means[0], means[1]])
    return told, ("mean motion", "largest motion", "mean to the right", "mean down")


def _segments(
    model: Any, inputs: dict[str, Tensor], masks: dict[str, Tensor]
) -> tuple[_Segment, ...]:
    """Return which of the elements, that are read side by side, belong to which modality."""
    with torch.inference_mode():
        elements = model.elements(inputs, masks)
    found: list[_Segment] = []
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
            order = model._order(name, count).cpu().numpy()
        axes = _axes(model.inputs[name], count)
        found.append(
            _Segment(name=name, begin=begin, end=begin + count, real=real, order=order, axes=axes)
        )
        begin += count
    return tuple(found)


def _axes(adapter: Any, count: int) -> tuple[int, ...]:
    """Return the elements along each axis of an input, which may be shorter than the configured size."""
    axes: tuple[int, ...] = tuple(adapter.axes)
    rest = math.prod(axes[1:])
    return (count // rest, *axes[1:]) if count % rest == 0 else (count,)


def _spread(count: int, num_latents: int) -> tuple[int, ...]:
    """Return `count` latents spread evenly, or all of them if there are fewer."""
    count = max(min(count, num_latents), 1)
    return tuple(round((i + 0.5) * num_latents / count - 0.5) for i in range(count))


def _views(
    saved: Saved,
    sample: ReadSample,
    segments: Sequence[_Segment],
    reads: Sequence[Read],
    asked: Asked | None,
) -> tuple[View, ...]:
    """Return the view of each modality.

    Raises:
        ValueError: If a read saw only some of the elements.
    """
    counts = sorted({read.share.shape[0] for read in reads})
    if counts != [segments[-1].end]:
        msg = (
            f"Expected every read to see all {segments[-1].end:,} elements, got reads of {counts}: attention of an "
            "encoder that reads a part of the input at a time cannot be drawn."
        )
        raise ValueError(msg)
    shares = np.stack([read.share.numpy() for read in reads])
    scores = np.stack([read.scores.numpy() for read in reads])
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
                asked=None if asked is None else segment.placed(_evened(asked, segment)),
            )
        )
    return tuple(views)
