"""Sizes and channels that modalities and input adapters share, filled in from the data or assumed."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from perceivers.data.modalities.base import CellSampler
from perceivers.data.registry import PREPROCESS
from perceivers.inputs.registry import preprocess_of
from perceivers.models.decoder import DecoderConfig
from perceivers.models.perceiver import ReadoutConfig
from perceivers.outputs.queries import LearnedQueriesConfig
from perceivers.recipes.registry import Recipe
from perceivers.recipes.resolve_tasks import fill_autoencoder, fill_dense, fill_label
from perceivers.tasks.autoencode import AutoencodeConfig
from perceivers.tasks.dense import DenseConfig
from perceivers.tasks.multitask import MultiTaskConfig
from perceivers.tasks.registry import answers_of, names_of, target_of

__all__ = ["assume", "fill_answer", "fill_input", "fill_output", "preprocess_for"]

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
    if isinstance(recipe.task, DenseConfig):
        target: Any = preprocess[recipe.task.answer]
        known = {"num_classes": _ASSUMED_CLASSES, "num_channels": 3}
        missing = {key: n for key, n in known.items() if getattr(target, key, n) is None}
        preprocess[recipe.task.answer] = replace(target, **missing)
        sentences += [
            f"The data decide {key} of the target; assuming {missing[key]}." for key in missing
        ]
        return fill_dense(replace(recipe, inputs=inputs, preprocess=preprocess)), sentences
    task, output = recipe.task, fill_output(recipe.output, inputs)
    knows_classes = output.num_outputs is not None or target_of(task) == "nothing"
    if isinstance(task, MultiTaskConfig) and isinstance(output, DecoderConfig):
        counts = {name: len(names_of(part)) for name, part in task.parts.items()}
        knows_classes = all(counts.values())
        output = output.for_tasks({name: n or _ASSUMED_CLASSES for name, n in counts.items()})
    elif isinstance(task, AutoencodeConfig):
        labels = [part.num_classes for part in inputs.values() if part.kind == "label"]
        knows_classes = None not in labels
        inputs = inputs if knows_classes else fill_label(inputs, _ASSUMED_CLASSES)
        task, output = fill_autoencoder(task, output, inputs, {})
    elif not knows_classes:
        output = output.with_num_outputs(_ASSUMED_CLASSES)
    if not knows_classes:
        sentences.append(f"The data decide the classes; assuming {_ASSUMED_CLASSES}.")
    filled = replace(recipe, inputs=inputs, preprocess=preprocess, output=output, task=task)
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
    preprocess |= {name: _sized(preprocess[name], inputs) for name in answers_of(recipe.task)}
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
        msg = (
            f"An input of kind '{part.kind}' expects preprocess of kind '{expected}', got '{preprocess.kind}'. Change "
            "one of the two in the recipe."
        )
        raise ValueError(msg)
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


def fill_output(output: ReadoutConfig, inputs: Mapping[str, Any]) -> ReadoutConfig:
    """Return an `ReadoutConfig` with as many queries as the text that they follow has bytes.

    Args:
        output: Of the recipe.
        inputs: Of each modality, with nothing open.
    """
    if not isinstance(output, DecoderConfig):
        return output
    answers = dict(output.answers)
    for name, answer in answers.items():
        queries = answer.queries
        if not isinstance(queries, LearnedQueriesConfig) or queries.follows is None:
            continue
        length = getattr(inputs[queries.follows], "max_length", None)
        if length is not None:
            answers[name] = replace(answer, queries=replace(queries, num_queries=length))
    return replace(output, answers=answers)
