"""Task and output of a recipe, resolved from the data."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from perceivers.data.sources.bundle import DatasetBundle
from perceivers.models.decoder import DecoderConfig
from perceivers.recipes.common import own_decoder
from perceivers.recipes.registry import Recipe
from perceivers.tasks.base import TargetInfo
from perceivers.tasks.multitask import multitask_config
from perceivers.tasks.registry import fit_to_target


def target_info(source: DatasetBundle) -> TargetInfo:
    """Return kind, names and statistics of the label columns of the data."""
    if source.target_kind != "several":
        return TargetInfo(
            kind=source.target_kind, names=source.label_names, moments=source.target_moments()
        )
    parts = {
        name: TargetInfo(kind=one.kind, names=tuple(one.names), moments=source.target_moments(name))
        for name, one in source.tasks.items()
    }
    return TargetInfo(kind="several", names=source.label_names, parts=parts)


def bind_targets(recipe: Recipe, source: DatasetBundle) -> Recipe:
    """Return a recipe with one task for each target column; unchanged if the data have a single target.

    Each task gets the configuration that the recipe has for a target of its kind. Mean pooling has one output only, so
    a decoder with one learned query per task replaces it; a decoder with a single query gets one per task.

    Args:
        recipe: Recipe of any task.
        source: The opened data.

    Raises:
        ValueError: If the tasks of the recipe are not the targets of the data, or its decoder has other outputs.
    """
    task = recipe.task
    if source.target_kind != "several":
        if task.target_kind == "auto":
            wanted = ",".join(task.subtasks) or "digit,color"
            raise ValueError(
                f"Recipe {recipe.name} learns several tasks, but the data have one label, '{source.target}'. Name a "
                f"column for each: --label {wanted}."
            )
        return recipe
    if not task.requires_labels:
        return recipe
    kinds = {name: one.kind for name, one in source.tasks.items()}
    task = multitask_config(task, kinds, recipe=recipe.name)
    output = recipe.output if isinstance(recipe.output, DecoderConfig) else own_decoder(task.parts)
    return replace(recipe, task=task, output=output.for_tasks(task.parts))


def bind_modalities(recipe: Recipe, kinds: Mapping[str, str]) -> Recipe:
    """Return a recipe whose modalities are named like the columns of the data, if its task renames them.

    Args:
        recipe: Recipe of any task.
        kinds: Kind of each modality of the data, by its name.

    Raises:
        ValueError: If the columns do not fit the task.
    """
    targets = [name for name in recipe.preprocess if name not in recipe.inputs]
    task, names = recipe.task.bind_modalities(
        kinds, inputs=recipe.inputs, targets=targets, recipe=recipe.name
    )

    def renamed(parts: Mapping[str, Any]) -> dict[str, Any]:
        return {names.get(name, name): part for name, part in parts.items()}

    return replace(
        recipe,
        inputs=renamed(recipe.inputs),
        preprocess=renamed(recipe.preprocess),
        augment=renamed(recipe.augment),
        task=task,
        output=recipe.output.rename_modalities(names),
    )


def fill_label(inputs: Mapping[str, Any], num_classes: int) -> dict[str, Any]:
    """Return the inputs with the number of classes of a label input, if there is one."""
    return {
        name: replace(part, num_classes=num_classes) if part.kind == "label" else part
        for name, part in inputs.items()
    }


def fill_task(recipe: Recipe, target: TargetInfo, preprocess: Mapping[str, Any]) -> Recipe:
    """Fill in the task, the output and the augmentation from the targets and the inputs.

    Args:
        recipe: Recipe with complete inputs.
        target: Label columns of the data.
        preprocess: Preprocessing of each modality, targets included, complete.

    Raises:
        ValueError: If the task or the output do not fit the data.
    """
    inputs = fill_label(recipe.inputs, len(target.names))
    task = fit_to_target(recipe.task, target).fit_to_inputs(inputs, preprocess)
    output = recipe.output.fit_to_inputs(inputs).fit_to(task.output_parts())
    augment = task.fit_augment(recipe.augment)
    return replace(recipe, inputs=inputs, task=task, output=output, augment=augment)
