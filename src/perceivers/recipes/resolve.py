"""From data, a recipe and overrides to a run with nothing left open: `resolve` lists the steps."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from perceivers.data.base import DataConfig
from perceivers.data.loading.transform import encoded_item_of, sample_cells
from perceivers.data.registry import PREPROCESS, get_modality
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.data.sources.chunking import ChunkRequest, chunk_all
from perceivers.data.sources.identity import SavedSplits
from perceivers.data.sources.open import open_data
from perceivers.data.sources.split import with_validation
from perceivers.data.tables.columns import InputColumn
from perceivers.hub.checkpoint import Saved
from perceivers.inputs.registry import joins_columns, preprocess_of
from perceivers.models.decoder import DecoderConfig
from perceivers.recipes.autoencode import autoencoder_for
from perceivers.recipes.common import own_decoder
from perceivers.recipes.elements import with_layout
from perceivers.recipes.finetune import finetuning_recipe
from perceivers.recipes.hip import hip_for
from perceivers.recipes.hip_mae import hip_masked_autoencoder_for
from perceivers.recipes.mae import masked_autoencoder_for
from perceivers.recipes.overrides import FieldValueError, override, override_data
from perceivers.recipes.own_data import recipe_for
from perceivers.recipes.registry import Recipe, get_recipe, sizes_of
from perceivers.recipes.rules.base import Kept, apply_rules, num_rows, training_rows
from perceivers.recipes.rules.folds import with_folds, with_views
from perceivers.recipes.rules.length import with_batch_size, with_length
from perceivers.tasks.config import TargetInfo
from perceivers.tasks.multitask import multitask_config
from perceivers.tasks.reconstruction_task import LABEL
from perceivers.tasks.registry import TaskConfig, fit_to_target

# Names of channels in a sentence; rows in which a field is compared with the label, and their number for each class.
_SHOWN, _LEAK_ROWS, _FEWEST_LEAKS = 20, 64, 3

# Recipes for any modalities, and the functions that return them for those of the data.
_FOR_MODALITIES = {"multimodal": recipe_for, "hip": hip_for}
_PRETRAINING = {"mae": masked_autoencoder_for, "hip_mae": hip_masked_autoencoder_for}


@dataclass(frozen=True, kw_only=True)
class ResolvedRun:
    """A recipe with nothing left open, and the data that it is trained on.

    Attributes:
        recipe: Inputs, output, task and length of training are filled in.
        preprocess: Preprocessing of each modality, inputs and targets, with sizes and statistics of the data.
        data: With a training and a validation split.
        reason: Sentence on how the recipe was chosen. None: it was named.
        choices: Sentences on the choices of the rules, one for each topic.
    """

    recipe: Recipe
    preprocess: Mapping[str, Any]
    data: DatasetBundle
    reason: str | None = None
    choices: tuple[str, ...] = ()


def resolve(
    data: Any,
    recipe: Recipe | None = None,
    *,
    size: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    splits: SavedSplits | None = None,
    pretrained: Saved | None = None,
) -> ResolvedRun:
    """Resolve what the recipe leaves open from the data.

    Args:
        data: A path, a hub id, a dataset, a DataFrame, or opened data.
        recipe: The recipe to use. By default one that fits the data.
        size: Size of the chosen recipe. By default one that fits the machine.
        overrides: Fields of the recipe by dotted name, see `override`.
        splits: The splits of a resumed run, which are kept.
        pretrained: A trained model whose architecture and preprocessing are used. Not with a recipe.

    Raises:
        OverrideError: If an override is no field of the recipe, or does not fit it.
        ValueError: If the data cannot be opened, or recipe and data do not fit each other.
        OSError: If the data cannot be read.
    """
    recipe, source, reason = _bind(
        data, recipe, size=size, overrides=overrides, splits=splits, pretrained=pretrained
    )
    recipe, choices = apply_rules(recipe, source, overrides or {}, keep=_kept(pretrained))
    if source.folds:  # fewer than requested if there are few rows
        recipe = replace(recipe, training=replace(recipe.training, folds=len(source.folds)))
    chosen = recipe.inputs
    recipe, preprocess = _measure(recipe, source)
    _check_input_sizes(chosen, recipe.inputs, preprocess, overrides or {})
    source = replace(source, notes=(*source.notes, *_notes_on_fields(source, preprocess)))
    recipe = fill_task(recipe, _target_info(source), preprocess)
    return ResolvedRun(
        recipe=recipe, preprocess=preprocess, data=source, reason=reason, choices=tuple(choices)
    )


def resolve_recipe(
    data: Any,
    recipe: Recipe | None = None,
    *,
    size: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> tuple[Recipe, DatasetBundle, str | None]:
    """Return the recipe for some data, the data with a validation split, and a sentence on the choice.

    No file is decoded: neither are rules applied, nor open fields measured. Arguments and errors as for `resolve`.
    """
    recipe, source, reason = _bind(
        data, recipe, size=size, overrides=overrides, splits=None, pretrained=None
    )
    return with_length(recipe, num_rows(source)), source, reason


def _kept(pretrained: Saved | None) -> Kept:
    """Return the part of a trained model's recipe that the rules keep."""
    if pretrained is None:
        return "nothing"
    task = pretrained.config.task
    return "architecture" if task is not None and task.pretrains else "all"


def _bind(
    data: Any,
    recipe: Recipe | None,
    *,
    size: str | None,
    overrides: Mapping[str, Any] | None,
    splits: SavedSplits | None,
    pretrained: Saved | None,
) -> tuple[Recipe, DatasetBundle, str | None]:
    """Return the recipe for some data with overrides, bound to its columns; the data; a sentence on the choice."""
    overrides = overrides or {}
    config = override_data(DataConfig() if recipe is None else recipe.data, overrides)
    source = open_data(data, config)
    if pretrained is not None:
        recipe, source = finetuning_recipe(pretrained, source, num_rows=num_rows(source))
        reason = f"Recipe {recipe.name}: architecture and preprocessing of {pretrained.folder}."
    else:
        recipe, reason = choose_recipe(source, recipe, data=data, size=size)
    recipe = bind_targets(recipe, source)
    if recipe.preset is None and overrides.get("preset"):
        raise FieldValueError(
            "preset",
            f"recipe {recipe.name} states every value, so no rules apply to it. Leave --preset away, or use a recipe "
            "for your own data, such as images.",
        )
    recipe = override(recipe, overrides)
    recipe = bind_modalities(recipe, _kinds(source))
    source = _bind_columns(source, recipe)
    recipe, why_folds = with_views(recipe, overrides), ""
    if _kept(pretrained) != "all":
        recipe, why_folds = with_folds(recipe, source, overrides)
    if why_folds:
        source = replace(source, notes=(*source.notes, why_folds))
    source = split_for_task(
        source,
        recipe.task,
        recipe.preprocess,
        recipe.data,
        splits,
        num_folds=_num_folds(recipe),
    )
    return recipe, source, reason


def _num_folds(recipe: Recipe) -> int | None:
    """Return the number of folds of a recipe, if there are several.

    Raises:
        ValueError: If there are none, or they do not fit the other settings.
    """
    num, training = recipe.training.folds, recipe.training
    if num is None or num == 1:
        return None
    if recipe.data.validation_fraction != DataConfig().validation_fraction:
        raise ValueError(
            f"With --folds {num}, each fold holds out its own part of the rows, so --validation-fraction "
            f"{recipe.data.validation_fraction:g} has no meaning. Give one of the two."
        )
    if recipe.task.chunked_modality is not None:
        raise ValueError(
            f"Samples that are cut into chunks are not divided into folds: leave --folds {num} out to learn from "
            f"{recipe.task.chunked_modality}."
        )
    if training.devices * training.nodes > 1:
        raise ValueError(
            f"The members of an ensemble are trained one after the other on one device: expected --devices 1 and "
            f"--nodes 1 with --folds {num}, got {training.devices} and {training.nodes}."
        )
    return num


# -- choose recipe ---------------------------------------------------------------------------------------------------


def choose_recipe(
    source: DatasetBundle,
    recipe: Recipe | None = None,
    *,
    data: Any = None,
    size: str | None = None,
) -> tuple[Recipe, str | None]:
    """Return the recipe for some data, and a sentence on the choice. Arguments as for `resolve`.

    A given recipe is returned as it is, but for `autoencode`, `hip`, `hip_mae`, `mae` and `multimodal`, which are
    rebuilt for the modalities of the data. By default the recipe is that of the data's modality; built-in `data` have a
    custom one.

    Raises:
        ValueError: If the recipe does not come in this size, or cannot be built for the modalities of the data.
    """
    if recipe is not None:
        return _rebuild_for_data(recipe, source, size=size), None
    if size is None and isinstance(data, str) and data == "builtin:digits":
        return get_recipe("digits"), "Recipe digits, made for these."
    kinds = _kinds(source)
    name = "multimodal"
    if len(kinds) == 1:
        name = get_modality(next(iter(kinds.values()))).recipe
    elif kinds == {"audio": "audio", "video": "video"}:
        name = "audio_video"
    elif kinds == {"frame_pair": "frame_pair", "flow": "flow"}:
        name = "flow"
    if size is not None:
        why = "as requested"
    elif torch.cuda.is_available():
        many = (num_rows(source) or 0) >= 50_000
        size, why = ("base", "for a GPU and many samples") if many else ("small", "for a GPU")
    else:
        size, why = "tiny", "for a machine without a GPU"
    others = ", ".join(s for s in sizes_of(name) if s != size)
    sentence = f"Recipe {name} in size {size}, {why} (--size {others})."
    chosen = recipe_for(kinds, size) if name == "multimodal" else get_recipe(name, size=size)
    return with_batch_size(chosen, num_rows(source)), sentence


def _rebuild_for_data(recipe: Recipe, source: DatasetBundle, *, size: str | None) -> Recipe:
    """Return a recipe for any modalities, such as `mae`, for those of the data; others unchanged."""
    kinds = _kinds(source)
    has_label = source.target_kind == "class" and len(source.label_names) > 1
    has_inputs = set(_input_names(recipe)) == set(kinds)
    if recipe.name in _FOR_MODALITIES and not has_inputs:
        made = _FOR_MODALITIES[recipe.name](kinds, size or sizes_of(recipe.name)[0])
        return replace(recipe, inputs=made.inputs, preprocess=made.preprocess, augment=made.augment)
    if recipe.name in _PRETRAINING and not has_inputs:
        made = _PRETRAINING[recipe.name](kinds, size or sizes_of(recipe.name)[0])
        return replace(made, data=recipe.data)
    if recipe.name == "autoencode" and not (has_inputs and has_label == (LABEL in recipe.inputs)):
        made = autoencoder_for(kinds, size or sizes_of("autoencode")[0], has_label=has_label)
        return replace(made, data=replace(recipe.data, target=made.data.target))
    return recipe


def _kinds(source: DatasetBundle) -> dict[str, str]:
    """Return the kind of each modality of the data, by its name."""
    return {name: part.kind for name, part in source.inputs.items()}


def _input_names(recipe: Recipe) -> list[str]:
    """Return the inputs that are read from columns, in the order of the recipe: all but a label."""
    return [name for name, part in recipe.inputs.items() if part.kind != "label"]


# -- bind targets and columns ----------------------------------------------------------------------------------------


def bind_targets(recipe: Recipe, source: DatasetBundle) -> Recipe:
    """Return a recipe with one task for each target column; unchanged if the data have a single target.

    Each task gets the configuration that the recipe has for a target of its kind. Mean pooling has one output only, so
    a decoder with one learned query per task replaces it; a decoder with a single query gets one per task.

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


def _bind_columns(source: DatasetBundle, recipe: Recipe) -> DatasetBundle:
    """Return the data with the modalities of the recipe; several text columns are joined for a single text input."""
    kinds, inputs = _kinds(source), [part.kind for part in recipe.inputs.values()]
    if (
        len(kinds) > 1
        and {*kinds.values()} == {"text"}
        and len(inputs) == 1
        and joins_columns(inputs[0])
    ):
        columns = tuple(c for part in source.inputs.values() for c in part.all_columns)
        if recipe.task.chunked_modality is not None:
            raise ValueError(
                f"The task learns from one column of texts, and these were named: {', '.join(columns)}. Name "
                f"one of them: --columns {columns[0]}:text."
            )
        joined = InputColumn(columns[0], "text", columns, ("text",) * len(columns))
        note = f"Read as one text with a mark between them: {', '.join(columns)}."
        return replace(
            source, inputs={next(iter(recipe.inputs)): joined}, notes=(*source.notes, note)
        )
    if {*_input_names(recipe), *recipe.task.target_modalities} == set(kinds):
        return source
    seen = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
    column = next(iter(source.inputs.values())).column
    targets = "".join(f" and learns {name}" for name in recipe.task.target_modalities)
    raise ValueError(
        f"Recipe {recipe.name} reads {', '.join(sorted(recipe.inputs))}{targets}, but the data holds {seen}. Name the "
        f"columns with --columns {column}:{next(iter(recipe.inputs))}, or leave --recipe out to get one that fits."
    )


# -- split -----------------------------------------------------------------------------------------------------------


def split_for_task(
    source: DatasetBundle,
    task: TaskConfig,
    preprocess: Mapping[str, Any],
    data: DataConfig | None,
    saved: SavedSplits | None = None,
    *,
    num_folds: int | None = None,
) -> DatasetBundle:
    """Return the data with a validation split, and samples cut into chunks if the task learns from chunks.

    The length of a chunk is that of the sample's preprocessing. Without `data`, no validation split is held out.
    The `saved` splits of a run are kept. With `num_folds`, train is divided into folds.

    Raises:
        ValueError: If targets are missing, or the input that is cut into chunks; if there are too few rows to hold some
            out.
    """
    hold_out = None
    if data is not None:
        hold_out = partial(with_validation, config=data, saved=saved, num_folds=num_folds)

    for name in task.target_modalities:
        if name not in source.inputs:
            raise ValueError(
                f"There is no '{name}' in these data, the target of training and evaluation: they hold "
                f"{', '.join(source.inputs)}. Name its column with --columns, or use predict, which needs none."
            )
    if task.target_kind != "nothing" and not source.label_names:
        raise ValueError(
            "The data has no labels, so there is nothing to learn. Expected a folder for each class, or "
            "a column of labels (--label COLUMN)."
        )
    name = task.chunked_modality
    if name is None:
        return source if hold_out is None else hold_out(source)
    if name not in source.inputs:
        raise ValueError(
            f"The task '{task.kind}' learns from '{name}', but the data holds {', '.join(source.inputs)}."
        )
    request = ChunkRequest(
        modality=name,
        preprocess=preprocess.get(name),
        step=task.chunk_step,
        fraction=0.0 if data is None else data.validation_fraction,
        hold_out=hold_out,
    )
    return chunk_all(source, request)


# -- measure ---------------------------------------------------------------------------------------------------------


def _measure(recipe: Recipe, source: DatasetBundle) -> tuple[Recipe, dict[str, Any]]:
    """Return the recipe with inputs of the measured sizes, and the preprocessing of each modality."""
    train = training_rows(source)
    inputs, preprocess = dict(recipe.inputs), dict[str, Any]()
    # Videos first: the audio track of a video takes over the length of its clips.
    names = sorted(_input_names(recipe), key=lambda name: source.inputs[name].kind != "video")
    for name in names:
        column = source.inputs[name]
        config = _with_clip_length(preprocess_for(recipe, name), column, source, preprocess)
        declared = dict(zip(column.columns, column.kinds, strict=True)) if column.kinds else {}
        config = config.from_columns(declared)
        preprocess[name] = config.measure(partial(sample_cells, train, column))
        inputs[name] = fill_input(recipe.inputs[name], preprocess[name])
    targets = {
        name: with_input_size(recipe.preprocess[name], preprocess).measure(
            partial(sample_cells, train, source.inputs[name])
        )
        for name in recipe.task.target_modalities
    }
    recipe = replace(recipe, inputs=inputs, preprocess={**recipe.preprocess, **targets})
    return recipe, preprocess | targets


def _check_input_sizes(
    chosen: Mapping[str, Any],
    measured: Mapping[str, Any],
    preprocess: Mapping[str, Any],
    overrides: Mapping[str, Any],
) -> None:
    """Check that no size of an adapter that was set is replaced by the one that follows from the preprocessing.

    Raises:
        FieldValueError: If one is.
    """
    for key in overrides:
        section, _, rest = key.replace("-", "_").partition(".")
        name, _, field = rest.partition(".")
        if section != "inputs" or name not in preprocess or name not in chosen:
            continue
        if field not in preprocess[name].input_fields():
            continue
        wanted, found = getattr(chosen[name], field), getattr(measured[name], field)
        if wanted not in (None, found):
            raise FieldValueError(
                key,
                f"expected the size that follows from the preprocessing, {found}, got {wanted}. Change the fields of "
                f"preprocess.{name} instead.",
            )


def _notes_on_fields(source: DatasetBundle, preprocess: Mapping[str, Any]) -> Iterator[str]:
    """Yield sentences on channels, and on fields that have a value of their own for each class."""
    for name, config in preprocess.items():
        channels = config.channel_names()
        if channels:
            shown = ", ".join(channels[:_SHOWN]) + (", ..." if len(channels) > _SHOWN else "")
            yield f"Channels of {name}: {shown}."
        for field in _equal_to_label(source, source.inputs[name], config):
            yield (
                f"Warning: '{field}' of {name} has one value for each class in the rows that were examined, so it may "
                "give the answer away. Leave it out if it is not known where the model is used."
            )


def _equal_to_label(source: DatasetBundle, column: InputColumn, config: Any) -> list[str]:
    """Return the fields and channels of a modality whose value in a row determines its class, and the reverse."""
    if "train" not in source.splits or source.target_kind != "class" or source.target is None:
        return []
    train, targets = source.splits["train"], source.targets("train")
    values: dict[str, dict[Any, set[int]]] = {}
    counts: Counter[str] = Counter()
    rows = np.unique(np.linspace(0, len(train) - 1, _LEAK_ROWS).round().astype(int)).tolist()
    num_read = 0
    for row in rows:
        try:
            found = config.constants(encoded_item_of(train.row(row), column))
        except (ValueError, OSError, KeyError):  # counted in training
            continue
        num_read += 1
        for field, value in found.items():
            if value is not None:
                values.setdefault(field, {}).setdefault(value, set()).add(targets[row])
                counts[field] += 1
        if not found:
            return []
    return [
        field
        for field, classes in values.items()
        if counts[field] == num_read >= _FEWEST_LEAKS * len(classes)
        and all(len(of_value) == 1 for of_value in classes.values())
        and len(classes) == len(set().union(*classes.values())) > 1
    ]


def preprocess_for(recipe: Recipe, name: str) -> Any:
    """Return the preprocessing of an input: that of the recipe or the default, with the size that the adapter fixes."""
    part: Any = recipe.inputs[name]
    kind = preprocess_of(part.kind)
    config = recipe.preprocess.get(name)
    if config is None:
        config = PREPROCESS.validate({"kind": kind})
    return config if config.kind != kind else config.from_input(part)


def _with_clip_length(
    config: Any, column: InputColumn, source: DatasetBundle, preprocess: Mapping[str, Any]
) -> Any:
    """Return the preprocessing of an audio track with clips as long as those of its video."""
    if column.kind != "audio" or config.seconds is not None:
        return config
    for name, known in preprocess.items():
        if known.kind == "video" and source.inputs[name].column == column.column:
            return replace(config, seconds=round(known.num_frames / known.frame_rate, 6))
    return config


def fill_input(part: Any, preprocess: Any) -> Any:
    """Return an `InputConfig` with the sizes and channels of its complete preprocessing.

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


def with_input_size(config: Any, inputs: Mapping[str, Any]) -> Any:
    """Return the preprocessing of a target modality with the size and crop of the first input, if its size is open."""
    sized = [part for part in inputs.values() if getattr(part, "size", None) is not None]
    if getattr(config, "size", ()) is not None or not sized:
        return config
    crop = {
        name: getattr(sized[0], name)
        for name in ("crop_fraction", "keep_aspect")
        if hasattr(config, name) and hasattr(sized[0], name)
    }
    return replace(config, size=sized[0].size, **crop)


# -- fill in ---------------------------------------------------------------------------------------------------------


def _target_info(source: DatasetBundle) -> TargetInfo:
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


def fill_task(recipe: Recipe, target: TargetInfo, preprocess: Mapping[str, Any]) -> Recipe:
    """Fill in the task, the output and the augmentation from the targets and the inputs.

    Raises:
        ValueError: If the task or the output do not fit the data.
    """
    inputs = recipe.inputs
    if not recipe.task.requires_labels:  # else a label is the target, and no input
        inputs = fill_label(inputs, len(target.names))
    task = fit_to_target(recipe.task, target).fit_to_inputs(inputs, preprocess)
    task = with_layout(task, inputs, recipe.encoder, recipe.training.permute)
    output = recipe.output.fit_to_inputs(inputs).fit_to(task.output_parts())
    augment = task.fit_augment(recipe.augment)
    encoder = task.fit_encoder(recipe.encoder)
    return replace(
        recipe, inputs=inputs, encoder=encoder, task=task, output=output, augment=augment
    )


def fill_label(inputs: Mapping[str, Any], num_classes: int) -> dict[str, Any]:
    """Return the inputs with the number of classes of a label input, if there is one."""
    return {
        name: replace(part, num_classes=num_classes) if part.kind == "label" else part
        for name, part in inputs.items()
    }
