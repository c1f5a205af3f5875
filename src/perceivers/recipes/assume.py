"""Recipes without data: assume the sizes and classes that the data decide."""

from dataclasses import replace
from typing import Any, cast

from perceivers.inputs.registry import preprocess_of
from perceivers.recipes.elements import with_layout
from perceivers.recipes.registry import Recipe
from perceivers.recipes.resolve import fill_input, fill_label, preprocess_for, with_input_size

_ASSUMED_CLASSES = 10


def assume(recipe: Recipe) -> tuple[Recipe, list[str]]:
    """Return a recipe with the sizes and classes that it leaves to the data assumed, and a sentence on each."""
    inputs, preprocess, sentences = _assumed_inputs(recipe)
    for name in recipe.task.target_modalities:
        known = {"num_classes": _ASSUMED_CLASSES, "num_channels": 3}
        missing = {key: n for key, n in known.items() if getattr(preprocess[name], key, n) is None}
        preprocess[name] = replace(preprocess[name], **missing)
        sentences += [
            f"The data decide {key} of the target; assuming {missing[key]}." for key in missing
        ]
    read = {name: part for name, part in inputs.items() if preprocess_of(part.kind) is not None}
    assumed = replace(recipe, preprocess=preprocess)
    complete = preprocess | {name: preprocess_for(assumed, name) for name in read}
    task = recipe.task.fit_to_inputs(inputs, complete)
    task = with_layout(task, inputs, recipe.encoder, recipe.training.permute)
    output, parts = recipe.output.fit_to_inputs(inputs), task.output_parts()
    unknown = [name for name, part in parts.items() if not part.num_outputs]
    if unknown and output.num_outputs is not None:
        unknown, parts = [], {}
    if unknown:
        sizes = {part.num_classes for part in inputs.values() if part.kind == "label"}
        count = next(iter(sizes - {None}), None)
        if count is None:
            count = _ASSUMED_CLASSES
            inputs = fill_label(inputs, count)
            sentences.append(f"The data decide the classes; assuming {count}.")
        parts |= {name: replace(parts[name], num_outputs=count) for name in unknown}
    filled = replace(
        recipe,
        inputs=inputs,
        encoder=task.fit_encoder(recipe.encoder),
        preprocess=preprocess,
        output=output.fit_to(parts),
        task=task,
        augment=task.fit_augment(recipe.augment),
    )
    return filled, sentences


def _assumed_inputs(recipe: Recipe) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Return inputs and preprocessing with assumed sizes, and sentences on them."""
    sentences = list[str]()
    inputs, preprocess = dict[str, Any](recipe.inputs), dict[str, Any](recipe.preprocess)
    for name, part in recipe.inputs.items():
        if preprocess_of(part.kind) is None:
            continue
        config = preprocess_for(recipe, name)
        known: dict[str, Any] = config.assumed()
        missing = {
            key: value for key, value in known.items() if getattr(config, key) in (None, (), {})
        }
        if missing:
            preprocess[name] = config = replace(config, **missing)
            words = ", ".join(f"{key} {_shown(value)}" for key, value in missing.items())
            sentences.append(f"The data decide the size of '{name}'; assuming {words}.")
        inputs[name] = fill_input(part, config)
    preprocess |= {
        name: with_input_size(preprocess[name], inputs) for name in recipe.task.target_modalities
    }
    return inputs, preprocess, sentences


def _shown(value: Any) -> str:
    """Return a value as text: `64 x 64`, `x, y, z`."""
    if not isinstance(value, tuple):
        return str(value)
    parts = cast("tuple[Any, ...]", value)
    mark = " x " if all(isinstance(part, int) for part in parts) else ", "
    return mark.join(str(part) for part in parts)
