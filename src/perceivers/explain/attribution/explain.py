"""From a saved model and a sample to what the model says and where its reads looked."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from perceivers.data.base import nearest
from perceivers.explain.attribution.attribute import MAPS, look, summary_of
from perceivers.explain.attribution.cross_attention_maps import only
from perceivers.explain.attribution.explanation import Explanation
from perceivers.explain.attribution.faithfulness import class_index
from perceivers.explain.attribution.layout import SummaryMap, segments_of, views_of
from perceivers.explain.attribution.query_attribution import trace_query
from perceivers.explain.attribution.sample import read_sample
from perceivers.hub.checkpoint import Saved
from perceivers.tasks.base import Task
from perceivers.tasks.registry import build_task


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
    learned.check_explainable()
    sample = read_sample(saved, file, clip_position=clip_position)
    model = saved.model.eval()
    device = next(model.parameters()).device
    inputs = {name: x.to(device) for name, x in sample.inputs.items()}
    masks = {name: x.to(device) for name, x in sample.masks.items()}
    segments = segments_of(model, inputs, masks)
    readers = getattr(config.model.encoder, "num_latents", None) or segments[-1].end
    chosen = _chosen(latents, readers, alone[0])
    output, selected = learned.config.select_subtask(task)
    answered = learned if output is None else learned.parts[output]
    selected.check_sample({key: x[0] for key, x in inputs.items()}, sample.name)
    blank = answered.explained_query(inputs)
    kind, index = _map_of(answered, map, about)
    which: dict[str, Any] = {"output": output, "query": blank}
    seen = look(model, inputs, masks or None, latents=chosen, **which)
    place = None if alone[0] is None else chosen.index(alone[0])
    seen = replace(seen, reads=[only(read, place, alone[1]) for read in seen.reads])
    summary = summary_of(seen, kind, model, inputs, masks or None, index=index, **which)
    outputs = seen.outputs if output is None else seen.outputs[output]
    names, answer = answered.explained_output(inputs, masks, outputs, blank)
    asked = None if blank is None else trace_query(model, inputs, masks, query=blank)
    if kind == "class" and about is None:
        about = names[int(answer.argmax()) if answered.has_classes else 0]
    whole = SummaryMap(values=summary.numpy(), kind=kind, about=about)
    return Explanation(
        name=sample.name,
        task=answered.explain_as,
        label_names=names,
        probabilities=answer.float().cpu().numpy(),
        threshold=float(getattr(selected, "threshold", 0.5)),
        views=views_of(saved, sample, segments, seen, whole, asked),
        latents=chosen,
        missing=sample.missing,
        asked=None if asked is None else asked.latents.numpy(),
        map=kind,
        about=about if kind == "class" else None,
    )


def _task_of_run(saved: Saved) -> Task:
    """Return the task of a run.

    Raises:
        ValueError: If it cannot read files.
    """
    if saved.config.task is None or not saved.config.preprocess:
        raise ValueError(
            f"The model in {saved.folder} was saved without its labels or its preprocessing, so it cannot read files: "
            "pv.save(predictor, folder) or `perceivers fit` save both."
        )
    return build_task(saved.config.task)


def _map_of(task: Task, kind: str | None, about: str | None) -> tuple[str, int | None]:
    """Return which map shows the whole model and, of one about a class, which number of the answer.

    Raises:
        ValueError: If there is no such map or class, or the task has none.
    """
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
    if index is None and task.explains_outputs and not task.has_classes:
        index = 0
    return kind, index


def _chosen(wanted: int | Sequence[int], count: int, also: int | None) -> tuple[int, ...]:
    """Return the latents that are wanted, or so many of `count`, and behind them `also`, if it is not among them."""
    chosen = _spread(wanted, count) if isinstance(wanted, int) else tuple(wanted)
    return chosen if also is None or also in chosen else (*chosen, also)


def _spread(count: int, num_latents: int) -> tuple[int, ...]:
    """Return `count` latents spread evenly, or all of them if there are fewer."""
    count = max(min(count, num_latents), 1)
    return tuple(round((i + 0.5) * num_latents / count - 0.5) for i in range(count))
