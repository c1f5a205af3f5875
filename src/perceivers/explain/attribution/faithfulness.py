"""Deletion and insertion curves of files, or of rows of data, by a saved model."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import torch

from perceivers.data.base import nearest
from perceivers.explain.attribution.deletion import Curves, curves_of, maps_of
from perceivers.explain.attribution.sample import read_sample
from perceivers.hub.checkpoint import Saved
from perceivers.tasks.registry import TaskConfig, build_task
from perceivers.typing import Float, Tensor


def class_index(task: TaskConfig, name: str | None) -> int | None:
    """Return which number of the answer a class is. None: no class was named.

    Args:
        task: Of one answer.
        name: Of a class or, in a regression, of a number.

    Raises:
        ValueError: If there is no such class.
    """
    if name is None:
        return None
    names = task.output_names
    if name not in names:
        told = f"{len(names)} classes" if len(names) > 12 else ", ".join(names) or "none"
        raise ValueError(
            f"There is no class '{name}' to ask about; the run learned {told}.{nearest(name, names)}"
        )
    return names.index(name)


def sure_of(
    task: TaskConfig, index: int, output: str | None
) -> Callable[[Any], Float[Tensor, " B"]]:
    """Return what turns a batch of a model's outputs into the probability of one class.

    Args:
        task: Of one answer.
        index: Of the class.
        output: Of several outputs, which.

    Raises:
        ValueError: If the task has no classes.
    """
    learned = build_task(task)
    if not learned.has_classes:
        raise ValueError(
            "Deletion and insertion curves show the probability of a class, and this run learned "
            f"{task.kind.replace('_', ' ')}: expected a task of classes or labels."
        )

    def answer(outputs: Any) -> Float[Tensor, " B"]:
        own = (
            cast("Mapping[str, Tensor]", outputs)[output or ""]
            if isinstance(outputs, Mapping)
            else outputs
        )
        return learned.probabilities(own)[:, index]

    return answer


def curves_of_files(
    saved: Saved, files: Iterable[Any], *, about: str | None = None, task: str | None = None
) -> Iterator[Curves]:
    """Yield the curves of each sample, for all maps that there are and those that they are held against.

    Args:
        saved: What `perceivers.hub.checkpoint.load` returned.
        files: Samples as in `perceivers.explain.attribution.sample.read_sample`.
        about: The class whose probability is drawn. By default what the model says of the whole sample.
        task: Which of several tasks. By default the first.

    Raises:
        ValueError: If the run learned no classes, there is no such class or task, or a sample cannot be decoded.
    """
    config = saved.config.task
    if config is None:
        raise ValueError(
            f"The model in {saved.folder} was saved without its labels, so there is no class to ask about."
        )
    output, config = config.select_subtask(task)
    wanted, model = class_index(config, about), saved.model.eval()
    device = next(model.parameters()).device
    sure_of(config, 0, output)
    for place, file in enumerate(files):
        sample = read_sample(saved, file)
        inputs = {name: x.to(device) for name, x in sample.inputs.items()}
        masks = {name: x.to(device) for name, x in sample.masks.items()} or None
        index = wanted
        if index is None:
            with torch.inference_mode():
                outputs: Any = model(inputs, masks)
            index = int((outputs[output] if output else outputs)[0].argmax())
        answer = sure_of(config, index, output)
        maps = maps_of(model, inputs, masks, answer=answer, index=index, output=output, seed=place)
        yield curves_of(model, inputs, masks, answer=answer, maps=maps)
