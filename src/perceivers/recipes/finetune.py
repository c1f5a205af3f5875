"""Recipe for fine-tuning: architecture and preprocessing of a trained model, with outputs for other data."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from perceivers.data.base import DataConfig
from perceivers.data.registry import find_defaults
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.hub.checkpoint import Saved
from perceivers.recipes.common import SIZES, own_optim
from perceivers.recipes.registry import Recipe, TrainingConfig
from perceivers.tasks.classification import ClassificationConfig

NAME = "finetune"

# Peak learning rate times the width of the latents, and the highest rate: 5e-4 for 128 channels, 6e-5 for 1,024.
_RATE, _HIGHEST_RATE = 0.06, 5e-4

# Samples of a run, within fewest and most epochs.
_SAMPLES, _FEWEST, _MOST = 30_000, 3, 30

_BATCHES = {32: 1_024, 16: 0}  # batch sizes, with the fewest rows of each


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
    names = _names(saved, source)
    source = replace(source, inputs={names[name]: part for name, part in source.inputs.items()})
    has_labels = bool(source.label_names)
    keeps_task = config.task is not None and not config.task.requires_labels and not has_labels
    task = config.task if keeps_task and config.task is not None else _task(saved)
    inputs = {
        name: part
        for name, part in config.model.inputs.items()
        if name in source.inputs or part.kind == "label"
    }
    wanted = [*inputs, *task.target_modalities]
    preprocess = {name: part for name, part in config.preprocess.items() if name in wanted}
    batch = next(size for size, fewest in _BATCHES.items() if (num_rows or 1_000_000) >= fewest)
    width = getattr(config.model.encoder, "latent_channels", 512)
    recipe = Recipe(
        name=NAME,
        inputs=inputs,
        encoder=config.model.encoder,
        output=config.model.output if keeps_task else config.model.output.for_labels(),
        task=task,
        preprocess={name: _open_size(part, inputs.get(name)) for name, part in preprocess.items()},
        fusion=_fusion(saved, inputs),
        data=DataConfig() if has_labels else DataConfig(target="nothing"),
        augment=_augment({name: part for name, part in preprocess.items() if name in inputs}),
        optim=own_optim(min(float(f"{_RATE / width:.1g}"), _HIGHEST_RATE)),
        training=TrainingConfig(
            batch_size=batch,
            max_epochs=min(max(_SAMPLES // (num_rows or _SAMPLES), _FEWEST), _MOST),
            permute=config.model.permute,
        ),
        preset="default",
    )
    return recipe, source


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
    fused: Any = saved.model.members[0].fusion
    kept = {name: p for name, p in model.fusion.modality_dropout.items() if name in inputs}
    return replace(model.fusion, channels=fused.channels, modality_dropout=kept)


def _open_size(preprocess: Any, part: Any) -> Any:
    """Return the preprocessing without its size where the adapter states that, so that one flag changes both."""
    if part is None or not hasattr(preprocess, "size"):
        return preprocess
    opened = replace(preprocess, size=None)
    return opened if opened.from_input(part) == preprocess else preprocess


def _augment(preprocess: Mapping[str, Any]) -> dict[str, Any]:
    """Return the default augmentation of each modality that has one."""
    found: dict[str, Any] = {}
    for name, part in preprocess.items():
        with suppress(ValueError):
            augment = find_defaults(str(part.kind))(SIZES["tiny"])[1]
            if augment is not None:
                found[name] = augment
    return found
