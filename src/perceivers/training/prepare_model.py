"""Preparation of a built model before its first step: initial weights, low-rank updates, cached latents."""

import time
from contextlib import nullcontext

import torch

from perceivers.console import CountProgress
from perceivers.data.loading.loader import MapDataset
from perceivers.models.perceiver import build
from perceivers.recipes.registry import Recipe
from perceivers.recipes.resolve import ResolvedRun
from perceivers.training.build import TrainingParts, process_of
from perceivers.training.finetune import WarmStart, known_start, plan_warm_start
from perceivers.training.freezing import frozen_parts, learning_rate_scales
from perceivers.training.latent_cache import cached_loaders, check_cacheable
from perceivers.training.linear_start import start_linear
from perceivers.training.low_rank import add_low_rank
from perceivers.training.stopping import RunClock, StoppingCriteria


def prepare_model(
    run: ResolvedRun, parts: TrainingParts, start: WarmStart | None, *, restored: bool
) -> None:
    """Load initial weights, add low-rank updates and cache latents, as the recipe states.

    Args:
        run: Recipe, preprocessing and data.
        parts: Parts of the run.
        start: Weights of another run from which the model starts.
        restored: Whether a checkpoint will be loaded.

    Raises:
        ValueError: If settings of the recipe do not fit each other or the data.
    """
    training = run.recipe.training
    if start is not None:
        _load(start, parts)
    elif not restored and training.linear_start:
        _start_linear(run, parts)
    if training.lora is not None:
        _add_low_rank(run.recipe, parts)
    if training.cache_latents is not None:
        _cache_latents(run, parts, restored=restored)


def check_preparation(run: ResolvedRun, *, has_start: bool) -> None:
    """Check that parts are frozen, updated and cached as the recipe states, before anything is written.

    Args:
        run: Recipe, preprocessing and data.
        has_start: Whether the model starts from other weights.

    Raises:
        ValueError: If settings of the recipe do not fit each other, the model or the data.
    """
    training = run.recipe.training
    with torch.device("meta"):
        model = build(run.recipe.model_config())
    frozen_parts(training.freeze, model)
    learning_rate_scales(model, training.lr_scale)
    if training.lora is not None:
        _check_low_rank(run.recipe, has_start=has_start)
    if training.cache_latents is not None:
        processes = training.devices * training.nodes
        check_cacheable(run.recipe, model, processes=processes, is_stream=bool(run.data.streams))


def _load(start: WarmStart, parts: TrainingParts) -> None:
    """Load the weights that are taken over, and note which."""
    start.apply(parts.model)
    for sentence in start.sentences():
        parts.note(sentence)
    if parts.trainer.is_global_zero:
        start.write(parts.callback.folder)


def _start_linear(run: ResolvedRun, parts: TrainingParts) -> None:
    """Start the model from a linear model of the training rows, within the time of the run."""
    started = time.monotonic()
    dataset = parts.batches.loader.dataset
    datasets = {"train": dataset} if isinstance(dataset, MapDataset) else {}
    parts.note(start_linear(run, parts.model, parts.module.task, datasets))
    seconds, limit = time.monotonic() - started, StoppingCriteria.of(run.recipe.training).seconds
    # Half of the time is left for training, however short it is.
    parts.callback.clock = RunClock(seconds if limit is None else min(seconds, limit / 2))


def _check_low_rank(recipe: Recipe, *, has_start: bool) -> None:
    """Check that low-rank updates can be added.

    Raises:
        ValueError: If the model starts from random weights, or other settings freeze or shard them.
    """
    training = recipe.training
    if not has_start:
        raise ValueError(
            f"--lora {training.lora} changes trained weights by a little: expected --init-from and a run or published "
            "model to start from."
        )
    if training.freeze or training.cache_latents or training.strategy == "fsdp":
        raise ValueError(
            f"--lora {training.lora} decides which weights are trained: expected no --freeze, --cache-latents or "
            "--strategy fsdp beside it."
        )


def _add_low_rank(recipe: Recipe, parts: TrainingParts) -> None:
    """Add low-rank updates to the attention of a model that starts from other weights."""
    training = recipe.training
    trained = add_low_rank(parts.model, training.lora or 1)
    total = sum(p.numel() for p in parts.model.parameters())
    parts.note(
        f"Low-rank updates (LoRA) of rank {training.lora}: {trained:,} of {total:,} weights are trained."
    )


def _cache_latents(run: ResolvedRun, parts: TrainingParts, *, restored: bool) -> None:
    """Compute the latents of the frozen encoder once, and let training and validation read them."""
    folder, recipe, device = parts.callback.folder, run.recipe, parts.trainer.strategy.root_device
    process = process_of(parts.trainer, device)
    is_stream = bool(run.data.streams)
    check_cacheable(recipe, parts.model, processes=process.world_size, is_stream=is_stream)
    source = known_start(folder)
    if restored and source is not None:  # the checkpoint is loaded later
        config = recipe.model_config()
        plan_warm_start(config, source, preprocess=run.preprocess, task=recipe.task).apply(
            parts.model
        )
    parts.model.to(device)
    settings = parts.batches.loader.settings
    for loader in (parts.batches.loader, parts.validation):
        loader.close()
    shown = CountProgress("fit", "sample") if run.recipe.training.progress else nullcontext()
    with shown:
        train, validation, sentence = cached_loaders(
            run, parts.model, folder=folder, batch_size=settings.batch_size, process=process
        )
    parts.batches.use(train, accumulate=parts.batches.accumulate)
    parts.callback.validation = validation
    parts.note(sentence)
