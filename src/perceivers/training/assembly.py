"""The parts of a run, put together for the processes and the device at hand."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from perceivers.data.base import ImagePreprocessConfig
from perceivers.data.sources import DataSource
from perceivers.models.perceiver import Perceiver
from perceivers.recipes.base import Recipe
from perceivers.training.clock import Limits, StopSignals
from perceivers.training.conductor import Conductor
from perceivers.training.display import Display
from perceivers.training.distributed import all_true, is_first_process
from perceivers.training.engine import build_trainer
from perceivers.training.feed import Feed
from perceivers.training.journal import Journal, build_loggers
from perceivers.training.module import PerceiverModule
from perceivers.training.optim import warn_of_warmup
from perceivers.training.prepare import (
    Place,
    build_loaders,
    build_model,
    build_task,
    num_rows,
    step_size,
)
from perceivers.training.resume import Before, read_place

__all__ = ["Assembly", "assemble"]


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """Everything that takes part in a run.

    Attributes:
        trainer: Does the steps.
        module: What a step is.
        model: That learns; inside of `module`.
        feed: Batches of train.
        validation: Loader of the validation split.
        conductor: Everything between the steps.
        display: What the user sees.
        notes: Sentences for the report.
    """

    trainer: lightning.Trainer
    module: PerceiverModule
    model: Perceiver
    feed: Feed
    validation: Any
    conductor: Conductor
    display: Display
    notes: list[str] = field(default_factory=list[str])

    def note(self, text: str) -> None:
        """Say a sentence and keep it for the report."""
        if text:
            self.notes.append(text)
            if self.trainer.is_global_zero:
                self.display.note(text)


def assemble(
    source: DataSource,
    recipe: Recipe,
    preprocess: Mapping[str, ImagePreprocessConfig],
    *,
    folder: Path,
    limits: Limits,
    last: Path | None,
) -> Assembly:
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
    place = Place(
        rank=trainer.global_rank,
        world_size=trainer.world_size,
        local_processes=trainer.num_devices,
        is_gpu=trainer.strategy.root_device.type == "cuda",
    )
    rows = num_rows(source, "train")
    batch_size, too_few = step_size(config.batch_size, config.accumulate, place.world_size, rows)
    train, validation = build_loaders(
        source, recipe, preprocess, batch_size=batch_size, place=place
    )
    module, model = _module(recipe, source, place)
    device = trainer.strategy.root_device
    feed = Feed(train, accumulate=config.accumulate, agree=lambda value: all_true(value, device))
    display = Display(enabled=config.progress, main_metric=module.task.main_metric)
    conductor = Conductor(
        folder,
        feed=feed,
        validation=validation,
        limits=limits,
        journal=Journal(folder, loggers),
        display=display,
        signals=StopSignals(_signals()),
        early_stopping=config.early_stopping,
    )
    trainer.callbacks.append(conductor)  # pyright: ignore[reportAttributeAccessIssue]
    assembly = Assembly(
        trainer=trainer,
        module=module,
        model=model,
        feed=feed,
        validation=validation,
        conductor=conductor,
        display=display,
    )
    assembly.note(too_few)
    assembly.note(warn_of_warmup(recipe.optim, model))
    if before is not None:
        assembly.note(_going_on(before, place.world_size))
    return assembly


def _module(recipe: Recipe, source: DataSource, place: Place) -> tuple[PerceiverModule, Perceiver]:
    """Return what a step is, and the model in it."""
    config = recipe.training
    model = build_model(recipe)
    model.set_grad_checkpointing(config.grad_checkpointing)
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
