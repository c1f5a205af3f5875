"""Several labels in the data: a task for each, and an output query of its own to answer it."""

from dataclasses import replace

from perceivers.data.sources.bundle import DatasetBundle
from perceivers.models.decoder import DecoderConfig
from perceivers.recipes.common import own_decoder
from perceivers.recipes.registry import Recipe
from perceivers.tasks.multitask import MultiTaskConfig
from perceivers.tasks.registry import TARGET_KINDS, fit_part, names_of, part_for

__all__ = ["fill_tasks", "for_targets"]


def for_targets(recipe: Recipe, source: DatasetBundle) -> Recipe:
    """Return the recipe as several labels need it; the same where there is one.

    Each task gets the configuration that the recipe has for such a target. The mean of the latents cannot answer
    several tasks, so a decoder with one learned query for each takes its place; one of a single query gets as many.

    Args:
        recipe: Of any task.
        source: What was recognized.

    Raises:
        ValueError: If the recipe learns other tasks than there are labels, or its decoder has other outputs.
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
    """Return a recipe of several tasks with what the data say filled in: names, moments, numbers of outputs."""
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
