"""Recipe for fine-tuning: architecture and preprocessing of a trained model, with outputs for other data."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from perceivers.data.base import DataConfig
from perceivers.data.registry import find_defaults, find_modality
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.hub.checkpoint import Saved
from perceivers.inputs.registry import joins_columns, preprocess_of
from perceivers.models.hip_config import HiPConfig
from perceivers.recipes.common import SIZES, own_optim
from perceivers.recipes.hip import hip_for, size_of
from perceivers.recipes.own_data import default_recipe
from perceivers.recipes.registry import Recipe, TrainingConfig
from perceivers.recipes.rules.length import with_batch_size
from perceivers.tasks.classification import ClassificationConfig

NAME = "finetune"

# Peak learning rate times the width of the latents, and the highest rate: 5e-4 for 128 channels, 6e-5 for 1,024.
_RATE, _HIGHEST_RATE = 0.06, 5e-4

# Samples of a run, within fewest and most epochs.
_SAMPLES, _FEWEST, _MOST = 30_000, 3, 30

_BATCHES = {32: 1_024, 16: 0}  # batch sizes, with the fewest rows of each


def recipe_of(saved: Saved) -> Recipe:
    """Return the recipe of a trained model: its architecture, preprocessing and task, with settings for fine-tuning.

    The number of epochs is open; it follows from the number of training rows.

    Args:
        saved: The trained model.
    """
    model, preprocess = saved.config.model, saved.config.preprocess
    task = _task(saved) if saved.config.task is None else saved.config.task
    has_labels = task.requires_labels or any(p.kind == "label" for p in model.inputs.values())
    width = getattr(model.encoder, "latent_channels", 512)
    return Recipe(
        name=NAME,
        inputs=dict(model.inputs),
        encoder=model.encoder,
        output=model.output,
        task=task,
        preprocess=_open_sizes(saved),
        fusion=model.fusion,
        data=DataConfig() if has_labels else DataConfig(target="nothing"),
        augment=_augment({name: part for name, part in preprocess.items() if name in model.inputs}),
        optim=own_optim(min(float(f"{_RATE / width:.1g}"), _HIGHEST_RATE)),
        training=TrainingConfig(batch_size=max(_BATCHES), permute=model.permute),
    )


def finetuning_recipe(
    saved: Saved, source: DatasetBundle, *, num_rows: int | None
) -> tuple[Recipe, DatasetBundle]:
    """Return a recipe with the architecture of a trained model, and the data with modalities named as in that model.

    Adapters, encoder and preprocessing are those of the model. The output is its own too if it has one row of numbers
    for each sample, or if the data have no labels and its task needs none; else the decoder gets one learned query.

    Args:
        saved: The trained model.
        source: The data.
        num_rows: Training rows. None: unknown.

    Raises:
        ValueError: If the model reads none of the modalities of the data, or there is a modality it does not read.
    """
    config = saved.config
    reads = _text_of_columns(saved, source)
    if reads is None:
        names = _names(saved, source)
        source = replace(source, inputs={names[name]: part for name, part in source.inputs.items()})
    has_labels = bool(source.label_names)
    keeps_task = config.task is not None and not config.task.requires_labels and not has_labels
    task = config.task if keeps_task and config.task is not None else _task(saved)
    inputs = {
        name: part
        for name, part in config.model.inputs.items()
        if name in source.inputs or name == reads or part.kind == "label"
    }
    wanted = [*inputs, *task.target_modalities]
    base = recipe_of(saved)
    batch = next(size for size, fewest in _BATCHES.items() if (num_rows or 1_000_000) >= fewest)
    epochs = min(max(_SAMPLES // (num_rows or _SAMPLES), _FEWEST), _MOST)
    if has_labels and config.task is not None and config.task.pretrains:
        base = _after_pretraining(base, inputs)
        return replace(
            with_batch_size(base, num_rows),
            fusion=_fusion(saved, inputs),
            preprocess={name: part for name, part in base.preprocess.items() if name in wanted},
        ), source
    recipe = replace(
        base,
        inputs=inputs,
        output=base.output if keeps_task else base.output.for_labels(),
        task=task,
        preprocess={name: part for name, part in base.preprocess.items() if name in wanted},
        fusion=_fusion(saved, inputs),
        data=DataConfig() if has_labels else DataConfig(target="nothing"),
        augment={name: part for name, part in base.augment.items() if name in inputs},
        training=replace(base.training, batch_size=batch, max_epochs=epochs),
        preset="default",
    )
    return recipe, source


def with_architecture(recipe: Recipe, saved: Saved) -> Recipe:
    """Return a recipe with the inputs and the encoder of a model that was pretrained on modalities of these kinds.

    Raises:
        ValueError: If the model does not read one of the recipe's modalities.
    """
    theirs = saved.config.model.inputs
    by_kind = {preprocess_of(part.kind): name for name, part in theirs.items()}
    inputs, preprocess = dict(recipe.inputs), dict(recipe.preprocess)
    opened = _open_sizes(saved)
    for name, part in recipe.inputs.items():
        other = by_kind.get(preprocess_of(part.kind))
        if other is None:
            raise ValueError(
                f"The model of {saved.folder} reads {', '.join(theirs)}, but recipe {recipe.name} {name}. Leave "
                "--init-from out, or name a run that was pretrained on such data."
            )
        inputs[name], preprocess[name] = theirs[other], opened[other]
    return replace(recipe, inputs=inputs, preprocess=preprocess, encoder=saved.config.model.encoder)


def _after_pretraining(base: Recipe, inputs: Mapping[str, Any]) -> Recipe:
    """Return the default recipe of the modalities, with the inputs and the encoder of a model that learned no labels.

    Its head, augmentation and length are those of training from scratch: only the initial weights differ.
    """
    kinds = {name: find_modality(base.preprocess[name]).name for name in inputs}
    own = _WITH_ENCODER.get(base.encoder.kind, _default_with)(kinds, base.encoder)
    return replace(
        own,
        name=NAME,
        inputs=dict(inputs),
        preprocess=base.preprocess,
        augment={name: part for name, part in own.augment.items() if name in inputs},
        training=replace(own.training, permute=base.training.permute),
        data=DataConfig(),
    )


def _default_with(kinds: Mapping[str, str], encoder: Any) -> Recipe:
    """Return the default recipe of modalities with this encoder."""
    return replace(default_recipe(kinds, "tiny"), encoder=encoder)


def _hip_with(kinds: Mapping[str, str], encoder: HiPConfig) -> Recipe:
    """Return the recipe `hip` for modalities with this encoder, without the blocks that only reconstruction needs."""
    return replace(hip_for(kinds, size_of(encoder)), encoder=encoder.for_labels())


_WITH_ENCODER: dict[str, Callable[[Mapping[str, str], Any], Recipe]] = {HiPConfig.kind: _hip_with}
"""Recipes for labels after pretraining of an encoder of some kinds; of others, the default recipe."""


def _text_of_columns(saved: Saved, source: DatasetBundle) -> str | None:
    """Return the text input of a model that reads several text columns of the data as one, as of pairs of sentences."""
    model = saved.config.model.inputs
    texts = [name for name, part in model.items() if joins_columns(part.kind)]
    kinds = [part.kind for part in source.inputs.values()]
    is_joined = len(model) == len(texts) == 1 and len(kinds) > 1 and {*kinds} == {"text"}
    return texts[0] if is_joined else None


def _names(saved: Saved, source: DatasetBundle) -> dict[str, str]:
    """Return the name in the model of each modality of the data."""
    theirs = {
        name: column.kind
        for name, column in saved.config.input_columns(targets=True).items()
        if name in saved.config.preprocess
    }
    found: dict[str, str] = {}
    for name, part in source.inputs.items():
        free = [
            other
            for other, kind in theirs.items()
            if kind == part.kind and other not in found.values()
        ]
        if not free:
            raise ValueError(
                f"The model of {saved.folder} reads {_described(theirs)}, but the data hold "
                f"{_described({n: p.kind for n, p in source.inputs.items()})}. Expected data of modalities that the "
                "model reads; name their columns with --columns, or leave --init-from out."
            )
        found[name] = name if name in free else free[0]
    return found


def _described(kinds: Mapping[str, str]) -> str:
    return ", ".join(name if name == kind else f"{name} ({kind})" for name, kind in kinds.items())


def _task(saved: Saved) -> Any:
    """Return the task of the model if it learns labels, else classification; its kind follows the target later."""
    task = saved.config.task
    smoothing = getattr(task, "label_smoothing", 0.05)
    return ClassificationConfig(label_smoothing=smoothing)


def _fusion(saved: Saved, inputs: Mapping[str, Any]) -> Any:
    """Return the fusion of the model, with its width although modalities may be missing."""
    model = saved.config.model
    if len(inputs) == len(model.inputs):
        return model.fusion
    fused = saved.model.members[0].fusion
    kept = {name: p for name, p in model.fusion.modality_dropout.items() if name in inputs}
    channels = None if fused is None else fused.common_channels
    return replace(model.fusion, channels=channels, modality_dropout=kept)


def _open_sizes(saved: Saved) -> dict[str, Any]:
    """Return the preprocessing without sizes that follow from the adapters, so that one flag changes all of them."""
    inputs, known = saved.config.model.inputs, saved.config.preprocess
    sizes = [getattr(known[name], "size", None) for name in inputs if name in known]
    found: dict[str, Any] = {}
    for name, part in known.items():
        found[name] = part
        if getattr(part, "size", None) is None:
            continue
        opened: Any = replace(part, size=None)
        follows = name not in inputs and part.size in sizes  # a target, as large as its input
        if follows or (name in inputs and opened.from_input(inputs[name]) == part):
            found[name] = opened
    return found


def _augment(preprocess: Mapping[str, Any]) -> dict[str, Any]:
    """Return the default augmentation of each modality that has one."""
    found: dict[str, Any] = {}
    for name, part in preprocess.items():
        with suppress(ValueError):
            augment = find_defaults(str(part.kind))(SIZES["tiny"])[1]
            if augment is not None:
                found[name] = augment
    return found
