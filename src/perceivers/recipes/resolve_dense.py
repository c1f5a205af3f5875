"""A picture and what is to be said of its pixels: which column is which, and what follows for task and output."""

from dataclasses import replace
from typing import Any

from perceivers.data.sources.bundle import DatasetBundle
from perceivers.inputs.image import PatchInputConfig, PixelInputConfig
from perceivers.models.decoder import DecoderConfig
from perceivers.outputs.heads import LinearHeadConfig
from perceivers.outputs.queries import InputQueriesConfig
from perceivers.recipes.registry import Recipe
from perceivers.tasks.dense import (
    PIXELS,
    DenseConfig,
    ImageToImageConfig,
    ImageToImageTask,
    SegmentationConfig,
    SegmentationTask,
)

__all__ = ["fill_dense", "for_pairs"]

_TARGETS = (
    *("target", "targets", "mask", "masks", "label", "labels", "annotation", "annotations"),
    *("segmentation", "classes", "output", "outputs", "truth", "gt"),
)


def for_pairs(recipe: Recipe, source: DatasetBundle) -> Recipe:
    """Return a recipe of dense answers whose modalities are called as in the data; any other recipe as it is.

    Of two columns of pictures the target is the one that the task's `answer` names, or that is called like one.

    Args:
        recipe: Of any task.
        source: What was recognized.

    Raises:
        ValueError: If there are not two columns of pictures, or it cannot be told which is the target.
    """
    task = recipe.task
    if not isinstance(task, DenseConfig):
        return recipe
    seen = ", ".join(f"{name} ({part.kind})" for name, part in source.inputs.items())
    pictures = [name for name, part in source.inputs.items() if part.kind == "image"]
    if len(source.inputs) != 2 or len(pictures) != 2:
        msg = (
            f"Recipe {recipe.name} needs two columns of pictures, what is read and what is learned, but the data holds "
            f"{seen}. Name them with --columns A:image,B:image, or keep the pictures in folders images/ and masks/ (or "
            "targets/) under the same names."
        )
        raise ValueError(msg)
    named = [name for name in pictures if name.lower() in _TARGETS]
    if task.answer in pictures:
        named = [task.answer]
    if len(named) != 1:
        msg = (
            f"Which of the columns {' and '.join(pictures)} is to be learned cannot be told. Say so with --task.answer "
            f"{pictures[1]}."
        )
        raise ValueError(msg)
    answer = named[0]
    shown = next(name for name in pictures if name != answer)
    # As the recipe calls them: a flag may have named the answer anew.
    names = {name: answer for name in recipe.preprocess if name not in recipe.inputs}
    names |= dict.fromkeys(recipe.inputs, shown)

    def renamed(parts: dict[str, Any]) -> dict[str, Any]:
        return {names.get(name, name): part for name, part in parts.items()}

    output = recipe.output
    if isinstance(output, DecoderConfig):
        answers = dict(output.answers)
        for name, one in answers.items():
            if isinstance(one.queries, InputQueriesConfig):
                answers[name] = replace(one, queries=InputQueriesConfig(modality=shown))
        output = replace(output, answers=answers)
    return replace(
        recipe,
        inputs=renamed(recipe.inputs),
        preprocess=renamed(recipe.preprocess),
        augment=renamed(recipe.augment),
        task=replace(task, answer=answer, modality=shown),
        output=output,
    )


def fill_dense(recipe: Recipe) -> Recipe:
    """Return a recipe of dense answers with what its inputs and its target say filled in.

    Args:
        recipe: With nothing open in its inputs and in the preprocessing of its target.

    Raises:
        ValueError: If an element of the input is no pixel and no patch, pictures are mixed or their colors changed at
            random, the names are not as many as the classes, or the output has no such query.
    """
    task: Any = recipe.task
    part, target = recipe.inputs[task.modality], recipe.preprocess[task.answer]
    if not isinstance(part, PixelInputConfig | PatchInputConfig):
        msg = (
            "A query answers for the pixels of its element: expected an input of kind pixels or patches, got "
            f"{part.kind}."
        )
        raise ValueError(msg)
    patch = part.patch if isinstance(part, PatchInputConfig) else (1, 1)
    task = replace(task, size=getattr(target, "size", None), patch=patch)
    if isinstance(task, SegmentationConfig):
        count = getattr(target, "num_classes", 0)
        task = replace(task, label_names=task.label_names or tuple(map(str, range(count))))
        if len(task.label_names) != count:
            msg = f"Expected a name for each of the {count} classes of pixels, got {len(task.label_names)}."
            raise ValueError(msg)
        outputs = SegmentationTask(task).num_outputs
    else:
        assert isinstance(task, ImageToImageConfig)
        task = replace(task, num_channels=getattr(target, "num_channels", 3))
        outputs = ImageToImageTask(task).num_outputs
    return replace(
        recipe, task=task, output=_answering(recipe, outputs), augment=_cut_alike(recipe)
    )


def _answering(recipe: Recipe, outputs: int) -> DecoderConfig:
    output = recipe.output
    answer = output.answers.get(PIXELS) if isinstance(output, DecoderConfig) else None
    if not isinstance(output, DecoderConfig) or answer is None:
        msg = f"Recipe {recipe.name} asks for pixels: expected a decoder with an output '{PIXELS}'."
        raise ValueError(msg)
    if not isinstance(answer.head, LinearHeadConfig):
        msg = f"Pixels are answered by a linear head, got one of kind {answer.head.kind}."
        raise ValueError(msg)
    filled = replace(answer, head=replace(answer.head, num_outputs=outputs))
    return replace(output, answers={**output.answers, PIXELS: filled})


def _cut_alike(recipe: Recipe) -> dict[str, Any]:
    """Return what is random, with the target cut and flipped as the picture is."""
    task: Any = recipe.task
    augment = dict(recipe.augment)
    changes: Any = augment.get(task.modality)
    if changes is None:
        return augment
    if changes.randaugment is not None or changes.mixup or changes.cutmix:
        msg = (
            "A picture and what is said of its pixels are cropped and flipped alike, and nothing else: expected no "
            f"randaugment, mixup and cutmix in augment of '{task.modality}'."
        )
        raise ValueError(msg)
    return {**augment, task.answer: changes}
