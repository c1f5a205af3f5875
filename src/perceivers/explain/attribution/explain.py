"""From a saved model and a sample to what the model says and where its reads looked."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from perceivers.data.base import nearest
from perceivers.explain.attribution.attribute import MAPS, look, summary_of
from perceivers.explain.attribution.cross_attention_maps import only
from perceivers.explain.attribution.explanation import Explanation
from perceivers.explain.attribution.faithfulness import CLASSES, class_index
from perceivers.explain.attribution.layout import SummaryMap, segments_of, views_of
from perceivers.explain.attribution.query_attribution import trace_query
from perceivers.explain.attribution.sample import read_sample
from perceivers.hub.checkpoint import Saved
from perceivers.tasks.autoencode import AutoencodeTask, by_name
from perceivers.tasks.dense import DenseConfig
from perceivers.tasks.flow import FlowConfig
from perceivers.tasks.masked import FIRST_BYTE, MASK, MaskedBytesConfig, byte_name, check_blanks
from perceivers.tasks.multitask import MultiTaskConfig
from perceivers.tasks.reconstruction import psnr
from perceivers.tasks.registry import TaskConfig, build_task, names_of
from perceivers.typing import Float, Tensor

__all__ = ["explain"]


# What the answer is drawn as, where it is not the task's own kind.
_TASKS = {
    "masked_bytes": "classification",
    "flow": "regression",
    "autoencode": "regression",
}


def explain(
    saved: Saved,
    file: Any,
    *,
    latents: int | Sequence[int] = 8,
    clip_position: float = 0.5,
    task: str | None = None,
    map: str | None = None,
    about: str | None = None,
    alone: tuple[int | None, int | None] = (None, None),
) -> Explanation:
    """Return what a model says about one sample, and where each of its reads looked.

    Args:
        saved: What `perceivers.hub.checkpoint.load` returned.
        file: As in `perceivers.explain.attribution.sample.read_sample`.
        latents: Whose scores to return: so many, spread evenly over the latent array, or these.
        clip_position: Where the clip lies in a longer recording: 0 at its beginning, 1 at its end.
        task: Which of several tasks the answer is of. By default the first. The reads are the same for all.
        map: What the one picture of the whole model shows, one of
            `perceivers.explain.attribution.attribute.MAPS`. By default
            `class` where the run learned classes, `rollup` elsewhere.
        about: The class, or number, that `class` is about. By default the most probable, or the first number.
        alone: A latent and a head whose attention alone the reads show. None: the mean of all.

    Raises:
        ValueError: If the model was saved without labels or preprocessing, a latent, head, task, map or class does
            not exist, or the file is missing or cannot be decoded, or a text has no blank where one is to be filled.
            The message names it.
    """
    config, learned = saved.config, _task_of_run(saved)
    sample = read_sample(saved, file, clip_position=clip_position)
    model = saved.model.eval()
    device = next(model.parameters()).device
    inputs = {name: x.to(device) for name, x in sample.inputs.items()}
    masks = {name: x.to(device) for name, x in sample.masks.items()}
    segments = segments_of(model, inputs, masks)
    readers = getattr(config.model.encoder, "num_latents", None) or segments[-1].end
    chosen = _chosen(latents, readers, alone[0])
    answered = _task_of(learned, task)
    blank = _first_blank(answered, inputs, sample.name)
    kind, index = _map_of(answered, map, about)
    which: dict[str, Any] = {"output": _output_of(learned, task), "query": blank}
    seen = look(model, inputs, masks or None, latents=chosen, **which)
    place = None if alone[0] is None else chosen.index(alone[0])
    seen = replace(seen, reads=[only(read, place, alone[1]) for read in seen.reads])
    summary = summary_of(seen, kind, model, inputs, masks or None, index=index, **which)
    outputs = seen.outputs if which["output"] is None else seen.outputs[which["output"]]
    names, answer = _answer(answered, inputs, masks, outputs, blank)
    asked = None if blank is None else trace_query(model, inputs, masks, query=blank)
    if kind == "class" and about is None:
        about = names[int(answer.argmax()) if answered.kind in CLASSES else 0]
    whole = SummaryMap(values=summary.numpy(), kind=kind, about=about)
    return Explanation(
        name=sample.name,
        task=_TASKS.get(answered.kind, answered.kind),
        label_names=names,
        probabilities=answer.float().cpu().numpy(),
        threshold=float(getattr(answered, "threshold", 0.5)),
        views=views_of(saved, sample, segments, seen, whole, asked),
        latents=chosen,
        missing=sample.missing,
        asked=None if asked is None else asked.latents.numpy(),
        map=kind,
        about=about if kind == "class" else None,
    )


def _task_of_run(saved: Saved) -> TaskConfig:
    """Return what a run learned.

    Raises:
        ValueError: If it cannot read files.
    """
    if saved.config.task is None or not saved.config.preprocess:
        msg = (
            f"The model in {saved.folder} was saved without its labels or its preprocessing, so it cannot read files: "
            "pv.save(predictor, folder) or `perceivers fit` save both."
        )
        raise ValueError(msg)
    return saved.config.task


def _output_of(config: TaskConfig, name: str | None) -> str | None:
    """Return which output of the model is meant. None: it has one for all."""
    if not isinstance(config, MultiTaskConfig):
        return None
    return name or next(iter(config.parts))


def _first_blank(config: TaskConfig, inputs: dict[str, Tensor], name: str) -> int | None:
    """Return where the first blank of a text is. None: the run fills none.

    Raises:
        ValueError: If it fills blanks, and there is none.
    """
    if not isinstance(config, MaskedBytesConfig):
        return None
    ids = inputs[config.modality][0]
    check_blanks(ids.tolist(), name)
    return int((ids == MASK).nonzero()[0])


def _answer(
    config: TaskConfig,
    inputs: dict[str, Tensor],
    masks: dict[str, Tensor],
    outputs: Any,
    blank: int | None,
) -> tuple[tuple[str, ...], Float[Tensor, " n"]]:
    """Return what the numbers of the answer are called, and the numbers."""
    learned = build_task(config)
    if isinstance(learned, AutoencodeTask):  # how near what is given back comes
        return _nearness(learned, inputs, masks, outputs)
    answer = learned.probabilities(outputs)[0]
    if blank is not None:
        return tuple(byte_name(byte) for byte in range(256)), answer[blank, FIRST_BYTE:]
    if isinstance(config, FlowConfig):
        return _motion(answer)
    return names_of(config), answer


def _map_of(task: TaskConfig, kind: str | None, about: str | None) -> tuple[str, int | None]:
    """Return which map shows the whole model and, of one about a class, which number of the answer.

    Raises:
        ValueError: If there is no such map or class, or the task has none.
    """
    if kind is not None and kind not in MAPS:
        msg = f"Expected a map out of {', '.join(MAPS)}; got '{kind}'.{nearest(kind, MAPS)}"
        raise ValueError(msg)
    has_classes = task.kind in (*CLASSES, "regression")
    if (about is not None or kind == "class") and not has_classes:
        msg = f"This run learned {task.kind.replace('_', ' ')} and no classes: there is none to explain."
        raise ValueError(msg)
    if about is not None and kind not in (None, "class"):
        msg = f"A map of {kind} is of no class: leave out the class, or the map."
        raise ValueError(msg)
    kind = kind or ("class" if about is not None or task.kind in CLASSES else "rollup")
    index = class_index(task, about)
    if index is None and task.kind == "regression":
        index = 0
    return kind, index


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


def _motion(answer: Float[Tensor, "O P 2"]) -> tuple[tuple[str, ...], Float[Tensor, " 4"]]:
    """Return what the numbers are called that tell how the pixels of a first frame move, and the numbers."""
    length, means = answer.norm(dim=-1), answer.mean(dim=(0, 1))
    told = torch.stack([length.mean(), length.max(), means[0], means[1]])
    return ("mean motion", "largest motion", "mean to the right", "mean down"), told


def _chosen(wanted: int | Sequence[int], count: int, also: int | None) -> tuple[int, ...]:
    """Return the latents that are wanted, or so many of `count`, and behind them `also`, if it is not among them."""
    chosen = _spread(wanted, count) if isinstance(wanted, int) else tuple(wanted)
    return chosen if also is None or also in chosen else (*chosen, also)


def _spread(count: int, num_latents: int) -> tuple[int, ...]:
    """Return `count` latents spread evenly, or all of them if there are fewer."""
    count = max(min(count, num_latents), 1)
    return tuple(round((i + 0.5) * num_latents / count - 0.5) for i in range(count))
