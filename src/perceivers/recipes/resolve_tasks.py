"""Task and output of a recipe, resolved from the data: several targets, dense outputs, autoencoders."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from perceivers.data.sources.bundle import DatasetBundle
from perceivers.inputs.image import PatchInputConfig, PixelInputConfig
from perceivers.models.decoder import DecoderConfig, OutputConfig
from perceivers.models.perceiver import ReadoutConfig
from perceivers.outputs.heads import LinearHeadConfig
from perceivers.outputs.queries import (
    FourierQueriesConfig,
    InputQueriesConfig,
    LearnedQueriesConfig,
)
from perceivers.recipes.common import own_decoder
from perceivers.recipes.registry import Recipe
from perceivers.tasks.autoencode import LABEL, AutoencodeConfig
from perceivers.tasks.dense import (
    PIXELS,
    DenseConfig,
    ImageToImageConfig,
    ImageToImageTask,
    SegmentationConfig,
    SegmentationTask,
)
from perceivers.tasks.multitask import MultiTaskConfig
from perceivers.tasks.reconstruction import ReconstructionConfig
from perceivers.tasks.registry import TARGET_KINDS, fit_part, names_of, part_for

__all__ = [
    "bind_image_pair",
    "bind_targets",
    "fill_autoencoder",
    "fill_dense",
    "fill_label",
    "fill_tasks",
]


def bind_targets(recipe: Recipe, source: DatasetBundle) -> Recipe:
    """Return a recipe with one task for each target column; unchanged if the data has a single target.

    Each task gets the configuration that the recipe has for a target of its kind. Mean pooling has one output only, so
    a decoder with one learned query per task replaces it; a decoder with a single query gets one per task.

    Args:
        recipe: Of any task.
        source: The opened data.

    Raises:
        ValueError: If the tasks of the recipe are not the targets of the data, or its decoder has other outputs.
    """
    task = recipe.task
    if source.target_kind != "several":
        if isinstance(task, MultiTaskConfig):
            wanted = ",".join(task.parts) or "digit,color"
            msg = (
                f"Recipe {recipe.name} learns several tasks, but the data have one label, '{source.target}'. Name a "
                f"column for each: --label {wanted}."
            )
            raise ValueError(msg)
        return recipe
    if TARGET_KINDS[task.kind] == "nothing":
        return recipe
    known = task if isinstance(task, MultiTaskConfig) else MultiTaskConfig()
    odd = [name for name in known.parts if name not in source.tasks]
    if odd:
        msg = f"Recipe {recipe.name} learns '{odd[0]}', which is none of the labels {', '.join(source.tasks)}."
        raise ValueError(msg)
    parts = {
        name: part_for(known.parts.get(name, task), one.kind) for name, one in source.tasks.items()
    }
    output = recipe.output if isinstance(recipe.output, DecoderConfig) else own_decoder(parts)
    output = output.for_tasks(dict.fromkeys(parts))
    return replace(recipe, task=replace(known, parts=parts), output=output)


def fill_tasks(recipe: Recipe, source: DatasetBundle) -> Recipe:
    """Fill in the names, moments and numbers of outputs of several tasks."""
    assert isinstance(recipe.task, MultiTaskConfig)
    assert isinstance(recipe.output, DecoderConfig)
    parts = {
        name: fit_part(part, source.tasks[name].names, source.target_moments(name))
        for name, part in recipe.task.parts.items()
    }
    counts = {name: len(names_of(part)) for name, part in parts.items()}
    return replace(
        recipe,
        task=replace(recipe.task, parts=parts),
        output=recipe.output.for_tasks(counts),
    )


# Names of columns and folders that hold the target of a dense task.
_TARGET_NAMES = (
    *("target", "targets", "mask", "masks", "label", "labels", "annotation", "annotations"),
    *("segmentation", "classes", "output", "outputs", "truth", "gt"),
)


def bind_image_pair(recipe: Recipe, source: DatasetBundle) -> Recipe:
    """Return a recipe of a dense task whose modalities are named as the image columns of the data.

    Of two image columns the target is the one that the task's `answer` names, or else the one with a name such as
    `mask` or `target`.

    Args:
        recipe: Of a dense task.
        source: The opened data.

    Raises:
        ValueError: If there are not two image columns, or the target cannot be determined.
    """
    task = recipe.task
    assert isinstance(task, DenseConfig)
    seen = ", ".join(f"{name} ({part.kind})" for name, part in source.inputs.items())
    images = [name for name, part in source.inputs.items() if part.kind == "image"]
    if len(source.inputs) != 2 or len(images) != 2:
        msg = (
            f"Recipe {recipe.name} needs two columns of images, the input and the target, but the data holds {seen}. "
            "Name them with --columns A:image,B:image, or keep the images in folders images/ and masks/ (or targets/) "
            "under the same names."
        )
        raise ValueError(msg)
    named = [name for name in images if name.lower() in _TARGET_NAMES]
    if task.answer in images:
        named = [task.answer]
    if len(named) != 1:
        msg = (
            f"Which of the columns {' and '.join(images)} is the target cannot be determined from their names. Name it "
            f"with --task.answer {images[1]}."
        )
        raise ValueError(msg)
    target = named[0]
    image = next(name for name in images if name != target)
    # As the recipe names them: a flag may have renamed the target.
    names = {name: target for name in recipe.preprocess if name not in recipe.inputs}
    names |= dict.fromkeys(recipe.inputs, image)

    def renamed(parts: dict[str, Any]) -> dict[str, Any]:
        return {names.get(name, name): part for name, part in parts.items()}

    output = recipe.output
    if isinstance(output, DecoderConfig):
        answers = dict(output.answers)
        for name, one in answers.items():
            if isinstance(one.queries, InputQueriesConfig):
                answers[name] = replace(one, queries=InputQueriesConfig(modality=image))
        output = replace(output, answers=answers)
    return replace(
        recipe,
        inputs=renamed(recipe.inputs),
        preprocess=renamed(recipe.preprocess),
        augment=renamed(recipe.augment),
        task=replace(task, answer=target, modality=image),
        output=output,
    )


def fill_dense(recipe: Recipe) -> Recipe:
    """Fill in what a dense task, its output and its augmentation take over from inputs and target.

    Args:
        recipe: With nothing open in its inputs and in the preprocessing of its target.

    Raises:
        ValueError: If an element of the input is neither a pixel nor a patch, if the augmentation mixes images or
            changes their colors, if the names are not as many as the classes, or if the output has no such query.
    """
    task: Any = recipe.task
    part, target = recipe.inputs[task.modality], recipe.preprocess[task.answer]
    if not isinstance(part, PixelInputConfig | PatchInputConfig):
        msg = (
            "An output query predicts the pixels of its input element: expected an input of kind pixels or patches, "
            f"got {part.kind}."
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
        recipe,
        task=task,
        output=_with_pixel_outputs(recipe, outputs),
        augment=_with_target_crops(recipe),
    )


def _with_pixel_outputs(recipe: Recipe, num_outputs: int) -> DecoderConfig:
    output = recipe.output
    answer = output.answers.get(PIXELS) if isinstance(output, DecoderConfig) else None
    if not isinstance(output, DecoderConfig) or answer is None:
        msg = f"Recipe {recipe.name} predicts pixels: expected a decoder with an output '{PIXELS}'."
        raise ValueError(msg)
    if not isinstance(answer.head, LinearHeadConfig):
        msg = f"Pixels are predicted by a linear head, got one of kind {answer.head.kind}."
        raise ValueError(msg)
    filled = replace(answer, head=replace(answer.head, num_outputs=num_outputs))
    return replace(output, answers={**output.answers, PIXELS: filled})


def _with_target_crops(recipe: Recipe) -> dict[str, Any]:
    """Return the augmentation with the target cropped and flipped as the image is."""
    task: Any = recipe.task
    augment = dict(recipe.augment)
    changes: Any = augment.get(task.modality)
    if changes is None:
        return augment
    if changes.randaugment is not None or changes.mixup or changes.cutmix:
        msg = (
            "An image and its pixel targets are cropped and flipped together, and nothing else: expected no "
            f"randaugment, mixup and cutmix in augment of '{task.modality}'."
        )
        raise ValueError(msg)
    return {**augment, task.answer: changes}


@dataclass(frozen=True)
class _Grid:
    """The grid of values to reconstruct: cells along each axis, channels, and whether missing values are flagged."""

    size: tuple[int, ...]
    num_channels: int
    has_missing: bool = False


def fill_label(inputs: Mapping[str, Any], num_classes: int) -> dict[str, Any]:
    """Fill in the number of classes of a label input, if there is one."""
    return {
        name: replace(part, num_classes=num_classes) if part.kind == "label" else part
        for name, part in inputs.items()
    }


def fill_autoencoder(
    task: AutoencodeConfig,
    output: ReadoutConfig,
    inputs: Mapping[str, Any],
    preprocess: Mapping[str, Any],
) -> tuple[AutoencodeConfig, ReadoutConfig]:
    """Fill in what an autoencoder's task and output queries take over from its inputs.

    Args:
        task: Of the recipe.
        output: Of the recipe, with one output for each modality that the task reconstructs.
        inputs: Input configuration of each modality, with nothing open.
        preprocess: Preprocessing of each modality, with nothing open: the units of its values. Without one, values
            stay normalized.

    Raises:
        ValueError: If an output is missing, or a modality cannot be reconstructed.
    """
    names = {*task.parts, *([LABEL] if task.label_weight is not None else [])}
    if not isinstance(output, DecoderConfig) or set(output.answers) != names:
        got = ", ".join(output.answers) if isinstance(output, DecoderConfig) else output.kind
        msg = f"Expected output queries for {', '.join(sorted(names))}, which are to be reconstructed; got {got}."
        raise ValueError(msg)
    parts: dict[str, ReconstructionConfig] = {}
    answers = dict(output.answers)
    for name, part in task.parts.items():
        grid = _grid_of(name, inputs[name])
        parts[name] = replace(
            part,
            size=grid.size,
            num_channels=grid.num_channels,
            has_missing=grid.has_missing,
            **_units(preprocess.get(name)),
        )
        answers[name] = _with_grid_queries(answers[name], parts[name])
    if LABEL in answers:
        head = replace(_linear(LABEL, answers[LABEL]), num_outputs=inputs[LABEL].num_classes)
        answers[LABEL] = replace(answers[LABEL], head=head)
    return replace(task, parts=parts), replace(output, answers=answers)


def _with_grid_queries(answer: OutputConfig, part: ReconstructionConfig) -> OutputConfig:
    queries, grid = answer.queries, part.grid
    count, values = 1, part.num_channels or 1
    for cells, patch in zip(grid, part.patch, strict=True):
        count, values = count * cells, values * patch
    if isinstance(queries, FourierQueriesConfig):
        queries = replace(queries, size=grid)
    elif isinstance(queries, LearnedQueriesConfig):
        queries = replace(queries, num_queries=count)
    return replace(answer, queries=queries, head=replace(_linear("", answer), num_outputs=values))


def _linear(name: str, answer: OutputConfig) -> LinearHeadConfig:
    if not isinstance(answer.head, LinearHeadConfig):
        msg = f"Expected a linear head for what is reconstructed{f', {name}' if name else ''}; got {answer.head.kind}."
        raise ValueError(msg)
    return answer.head


def _grid_of(name: str, part: Any) -> _Grid:
    """Return the grid of an input's values.

    Raises:
        ValueError: If its elements are not on a grid, so that no query can address them.
    """
    if part.kind in ("pixels", "patches", "convolved"):
        return _Grid(part.size, part.num_channels)
    if part.kind in ("video", "video_convolved"):
        return _Grid((part.num_frames, *part.size), part.num_channels)
    if part.kind in ("wave", "wave_convolved"):
        return _Grid((part.num_samples,), part.num_channels)
    if part.kind in ("spectrogram", "spectrogram_convolved"):
        return _Grid(part.size, 1)
    if part.kind in ("series", "series_convolved"):
        return _Grid((part.length,), part.num_channels, part.has_missing)
    if part.kind == "array" and not part.num_coordinates:
        return _Grid((part.length,), part.num_channels)
    why = "its elements have coordinates" if part.kind == "array" else "it is no grid"
    msg = (
        f"'{name}' ({part.kind}) cannot be reconstructed: {why}, so no query can address one of its values. Leave it "
        "out with --columns."
    )
    raise ValueError(msg)


def _units(preprocess: Any) -> dict[str, Any]:
    """Return how normalized values become those of the data again: pixels in [0, 1], samples in [-1, 1].

    Other values stay normalized: in standard deviations of the training data, which are then also the peak.
    """
    if preprocess is None:
        return {}
    if preprocess.kind in ("image", "video"):
        return {"mean": preprocess.mean, "std": preprocess.std, "low": 0.0, "high": 1.0}
    if preprocess.kind == "wave":
        return {"std": (preprocess.scale,), "low": -1.0, "high": 1.0}
    return {}
