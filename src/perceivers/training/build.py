"""The parts of a run, put together for the processes and the device at hand."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from perceivers.data.sources.bundle import DatasetBundle
from perceivers.models.perceiver import Perceiver
from perceivers.recipes.registry import Recipe
from perceivers.training.batch_size_finder import BatchSizeFinder, warn_of_batch_norm
from perceivers.training.batches import ResumableBatches
from perceivers.training.callback import TrainingCallback
from perceivers.training.data_wait import StepTimer
from perceivers.training.distributed import is_first_process, whole_step
from perceivers.training.engine import build_trainer
from perceivers.training.metrics_log import MetricsLogger, build_loggers
from perceivers.training.module import PerceiverModule
from perceivers.training.optim import warn_of_warmup
from perceivers.training.prepare import (
    ProcessInfo,
    build_loaders,
    build_model,
    build_task,
    keep_recipe,
    num_rows,
    step_parts,
    step_text,
)
from perceivers.training.progress import ProgressDisplay
from perceivers.training.resume import Before, read_place
from perceivers.training.stopping import StoppingCriteria, StopSignals

__all__ = ["TrainerParts", "build_trainer_parts"]


@dataclass(frozen=True, kw_only=True)
class TrainerParts:
    """Everything that takes part in a run.

    Attributes:
        trainer: Does the steps.
        module: What a step is.
        model: That learns; inside of `module`.
        feed: Batches of train.
        conductor: Everything between the steps.
        display: What the user sees.
        notes: Sentences for the report.
    """

    trainer: lightning.Trainer
    module: PerceiverModule
    model: Perceiver
    feed: ResumableBatches
    conductor: TrainingCallback
    display: ProgressDisplay
    notes: list[str] = field(default_factory=list[str])

    @property
    def validation(self) -> Any:
        """Loader of the validation split."""
        return self.conductor.validation

    def note(self, text: str) -> None:
        """Say a sentence and keep it for the report."""
        if text:
            self.notes.append(text)
            if self.trainer.is_global_zero:
                self.display.note(text)


def build_trainer_parts(
    source: DatasetBundle,
    recipe: Recipe,
    preprocess: Mapping[str, Any],
    *,
    folder: Path,
    limits: StoppingCriteria,
    last: Path | None,
) -> TrainerParts:
    """Return the parts of a run.

    Args:
        source: With train and validation.
        recipe: Of the run.
        preprocess: For each input, its size and statistics.
        folder: The run's.
        limits: Where it ends.
        last: Checkpoint with which it goes on, if it does.

    Raises:
        ValueError: If the machine or the data do not fit the recipe.
    """
    config = recipe.training
    before = None if last is None else read_place(last)
    step = None if before is None else before.step
    loggers = build_loggers(config.logger, folder, step=step) if is_first_process() else []
    trainer = build_trainer(config, folder=folder, loggers=loggers)
    place = _place(trainer)
    rows = num_rows(source, "train")
    batch_size, accumulate, too_few = step_parts(config, place.world_size, rows)
    trainer.accumulate_grad_batches = accumulate
    train, validation = build_loaders(
        source, recipe, preprocess, batch_size=batch_size, place=place
    )
    module, model = _module(recipe, source, place)
    device = trainer.strategy.root_device
    feed = _feed(train, accumulate=accumulate, device=device)
    display = ProgressDisplay(enabled=config.progress, main_metric=module.task.main_metric)
    conductor = TrainingCallback(
        folder,
        feed=feed,
        validation=validation,
        limits=limits,
        journal=MetricsLogger(folder, loggers),
        display=display,
        signals=StopSignals(_signals()),
        early_stopping=config.early_stopping,
    )
    trainer.callbacks.append(conductor)  # pyright: ignore[reportAttributeAccessIssue]
    assembly = TrainerParts(
        trainer=trainer,
        module=module,
        model=model,
        feed=feed,
        conductor=conductor,
        display=display,
    )
    assembly.note(too_few)
    assembly.note(warn_of_warmup(recipe.optim, model))
    if config.batch == "auto":
        finder = _finder(assembly, source, recipe, preprocess, size=batch_size, place=place)
        trainer.callbacks.insert(0, finder)  # pyright: ignore[reportAttributeAccessIssue]
    else:
        parts = accumulate * place.world_size
        assembly.note(warn_of_batch_norm(model, batch=batch_size, parts=parts))
    if before is not None:
        assembly.note(_going_on(before, place.world_size))
    return assembly


def _place(trainer: lightning.Trainer) -> ProcessInfo:
    """Return which process this is."""
    return ProcessInfo(
        rank=trainer.global_rank,
        world_size=trainer.world_size,
        local_processes=trainer.num_devices,
        is_gpu=trainer.strategy.root_device.type == "cuda",
    )


def _feed(train: Any, *, accumulate: int, device: torch.device) -> ResumableBatches:
    """Return the batches of train as a run takes them."""
    return ResumableBatches(
        train,
        accumulate=accumulate,
        agree=lambda whole, samples: whole_step(whole, samples, device),
        watch=StepTimer(device),
    )


def _finder(
    assembly: TrainerParts,
    source: DatasetBundle,
    recipe: Recipe,
    preprocess: Mapping[str, Any],
    *,
    size: int,
    place: ProcessInfo,
) -> BatchSizeFinder:
    """Return what finds the batch, and changes the parts that depend on it.

    Raises:
        ValueError: If the weights are sharded: what fits then depends on all processes.
    """
    if recipe.training.strategy == "fsdp" and place.world_size > 1:
        msg = (
            "--batch auto measures a model that is whole on each device, and --strategy fsdp spreads it. "
            "Give a number (--batch 16), or --accumulate."
        )
        raise ValueError(msg)

    def use(batch: int, why: str) -> None:
        accumulate = size // batch
        if accumulate > 1:
            train, validation = build_loaders(
                source, recipe, preprocess, batch_size=batch, place=place
            )
            assembly.feed.use(train, accumulate=accumulate)
            assembly.conductor.validation = validation
            assembly.trainer.accumulate_grad_batches = accumulate
        found = replace(recipe.training, batch=batch, accumulate=1)
        if assembly.trainer.is_global_zero:
            keep_recipe(assembly.conductor.folder, replace(recipe, training=found))
        text = step_text(assembly.feed.loader.settings, accumulate)
        assembly.note(f"--batch auto: a step of {text} ({why}).")
        parts = accumulate * place.world_size
        assembly.note(warn_of_batch_norm(assembly.model, batch=batch, parts=parts))

    task = assembly.module.task
    return BatchSizeFinder(recipe, task, size=size, place=place, use=use)


def _module(
    recipe: Recipe, source: DatasetBundle, place: ProcessInfo
) -> tuple[PerceiverModule, Perceiver]:
    """Return what a step is, and the model in it."""
    config = recipe.training
    model = build_model(recipe)
    model.set_grad_checkpointing(config.grad_checkpointing, mlp=config.mlp_checkpointing)
    if config.compile:
        model.compile()  # in place, so that the names of the weights stay
    shard = config.strategy == "fsdp" and place.world_size > 1
    task = build_task(recipe, source)
    return PerceiverModule(model, task, recipe.optim, ema=config.ema, shard=shard), model


def _going_on(before: Before, world_size: int) -> str:
    text = f"Going on from step {before.step:,}."
    if before.world_size != world_size:
        text += (
            f" The run had {before.world_size} processes and now has {world_size}: its numbers will not be "
            "exactly those of a run that was never interrupted."
        )
    return text


def _signals() -> list[signal.Signals]:
    """Return what asks a run to stop. SLURM warns by SIGUSR1 before a job's time is over."""
    early = [signal.SIGUSR1] if SLURMEnvironment.detect() else []
    return [signal.SIGTERM, signal.SIGINT, *early]
