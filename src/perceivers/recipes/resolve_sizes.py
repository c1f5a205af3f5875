"""Sizes and channels that modalities and input adapters share, filled in from the data or assumed."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from perceivers.data.modalities.base import CellSampler
from perceivers.data.registry import PREPROCESS
from perceivers.inputs.registry import preprocess_of
from perceivers.recipes.registry import Recipe
from perceivers.recipes.resolve_tasks import fill_label

_ASSUMED_CLASSES = 10


def preprocess_for(recipe: Recipe, name: str) -> Any:
    """Return the preprocessing of an input as the recipe states it; with the size that the adapter fixes.

    Args:
        recipe: The recipe. Where it states none, the fields are open.
        name: Name of the input.

    Raises:
        ValueError: If the input is not preprocessed, or its kind is not registered.
    """
    part: Any = recipe.inputs[name]
    kind = preprocess_of(part.kind)
    config = recipe.preprocess.get(name)
    if config is None:
        config = PREPROCESS.validate({"kind": kind})
    return config if config.kind != kind else config.from_input(part)


def assume(recipe: Recipe) -> tuple[Recipe, list[str]]:
    """Return a recipe with what it leaves to the data assumed, where there are none yet; and sentences about it."""
    inputs, preprocess, sentences = _assumed_inputs(recipe)
    for name in recipe.task.target_modalities:
        known = {"num_classes": _ASSUMED_CLASSES, "num_channels": 3}
        missing = {key: n for key, n in known.items() if getattr(preprocess[name], key, n) is None}
        preprocess[name] = replace(preprocess[name], **missing)
        sentences += [
            f"The data decide {key} of the target; assuming {missing[key]}." for key in missing
        ]
    task = recipe.task.fit_to_inputs(inputs, preprocess)
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
        preprocess=preprocess,
        output=output.fit_to(parts),
        task=task,
        augment=task.fit_augment(recipe.augment),
    )
    return filled, sentences


def _assumed_inputs(recipe: Recipe) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Return inputs and preprocessing with the sizes that a recipe leaves open assumed; and sentences about them."""
    sentences: list[str] = []
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
    preprocess |= {name: _sized(preprocess[name], inputs) for name in recipe.task.target_modalities}
    return inputs, preprocess, sentences


def _shown(value: Any) -> str:
    """Return a value as people write it: `64 x 64`, `x, y, z`."""
    if not isinstance(value, tuple):
        return str(value)
    parts = cast("tuple[Any, ...]", value)
    mark = " x " if all(isinstance(part, int) for part in parts) else ", "
    return mark.join(str(part) for part in parts)


def fill_input(part: Any, preprocess: Any) -> Any:
    """Return an `InputConfig` with the sizes and channels of its preprocessing.

    Args:
        part: The adapter in the recipe, its sizes open or not.
        preprocess: The preprocessing of the same modality, with nothing open.

    Raises:
        ValueError: If the two do not fit each other.
    """
    expected = preprocess_of(part.kind)
    if preprocess.kind != expected:
        raise ValueError(
            f"An input of kind '{part.kind}' expects preprocess of kind '{expected}', got '{preprocess.kind}'. Change "
            "one of the two in the recipe."
        )
    return replace(part, **preprocess.input_fields())


def fill_answer(config: Any, cells: CellSampler, *, inputs: Mapping[str, Any]) -> Any:
    """Return the `PreprocessConfig` of a target modality with its open fields filled in.

    Its size is that of the first input that has one, as both are cut in the same way. All else is measured.

    Args:
        config: The target modality in the recipe.
        cells: Samples its cells in the training data.
        inputs: The preprocessing of every input, with nothing open.

    Raises:
        ValueError: If none of the cells can be read.
    """
    return _sized(config, inputs).measure(cells)


def _sized(config: Any, inputs: Mapping[str, Any]) -> Any:
    """Return the `PreprocessConfig` of an answer with the size of an input, if it leaves that open."""
    sized = [part for part in inputs.values() if getattr(part, "size", None) is not None]
    if getattr(config, "size", ()) is not None or not sized:
        return config
    cut = {
        name: getattr(sized[0], name)
        for name in ("crop_fraction", "keep_aspect")
        if hasattr(config, name) and hasattr(sized[0], name)
    }
    return replace(config, size=sized[0].size, **cut)
