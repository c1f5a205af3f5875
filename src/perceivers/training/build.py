"""Build the parts of a training run: trainer, model, task, data loaders and callback."""

import signal
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from perceivers.data.sources.bundle import DatasetBundle
from perceivers.models.perceiver import Perceiver, build
from perceivers.recipes.registry import Recipe, TrainingConfig
from perceivers.recipes.resolve import ResolvedRun
from perceivers.runs.folder import is_first_process, write_run_recipe
from perceivers.runs.metrics import MetricsLogger
from perceivers.runs.splits import fingerprint_of
from perceivers.tasks.base import Task
from perceivers.tasks.registry import build_task as build_configured_task
from perceivers.training.batch_size_finder import BatchSizeFinder, warn_of_batch_norm
from perceivers.training.batches import ResumableBatches
from perceivers.training.callback import TrainingCallback
from perceivers.training.checkpoint import CheckpointPosition, read_position
from perceivers.training.data_wait import StepTimer
from perceivers.training.dataloaders import (
    ProcessInfo,
    build_loaders,
    num_rows,
    step_parts,
    step_text,
)
from perceivers.training.distributed import whole_step
from perceivers.training.engine import build_loggers, build_trainer
from perceivers.training.freezing import frozen_parts
from perceivers.training.module import PerceiverModule
from perceivers.training.optim import warn_of_warmup
from perceivers.training.precision import warn_of_bf16
from perceivers.training.progress import ProgressDisplay
from perceivers.training.stopping import StoppingCriteria, StopSignals


@dataclass(frozen=True, kw_only=True)
class TrainingParts:
    """The objects that take part in a training run.

    Attributes:
        model: The model that is trained, inside of `module`.
        notes: Sentences for the report.
    """

    trainer: lightning.Trainer
    module: PerceiverModule
    model: Perceiver
    batches: ResumableBatches
    callback: TrainingCallback
    display: ProgressDisplay
    notes: list[str] = field(default_factory=list[str])

    @property
    def validation(self) -> Any:
        """Loader of the validation split."""
        return self.callback.validation

    def note(self, text: str) -> None:
        """Print a sentence and keep it for the report."""
        if text:
            self.notes.append(text)
            if self.trainer.is_global_zero:
                self.display.note(text)


def build_parts(
    run: ResolvedRun, *, folder: Path, limits: StoppingCriteria, last: Path | None
) -> TrainingParts:
    """Build the parts of a run for the processes and devices of this machine.

    Raises:
        ValueError: If the machine or the data do not fit the recipe.
    """
    recipe, source, config = run.recipe, run.data, run.recipe.training
    before = None if last is None else read_position(last)
    loggers = _loggers(config, folder, before)
    trainer = build_trainer(config, folder=folder, loggers=loggers)
    device = trainer.strategy.root_device
    process = process_of(trainer, device)
    rows = num_rows(source, "train")
    batch_size, accumulate, too_few = step_parts(config, process.world_size, rows)
    trainer.accumulate_grad_batches = accumulate
    train, validation = build_loaders(
        source, recipe, run.preprocess, batch_size=batch_size, process=process
    )
    module, model = _module(recipe, source, process)
    batches = ResumableBatches(
        train,
        accumulate=accumulate,
        agree=lambda whole, samples: whole_step(whole, samples, device),
        timer=StepTimer(device),
        data=fingerprint_of(source.identities),
    )
    display = ProgressDisplay(enabled=config.progress, main_metric=module.task.main_metric)
    callback = TrainingCallback(
        folder,
        batches=batches,
        validation=validation,
        limits=limits,
        metrics=MetricsLogger(folder, loggers),
        display=display,
        signals=StopSignals(_signals()),
        early_stopping=config.early_stopping,
    )
    trainer.callbacks.append(callback)  # pyright: ignore[reportAttributeAccessIssue]
    parts = TrainingParts(
        trainer=trainer,
        module=module,
        model=model,
        batches=batches,
        callback=callback,
        display=display,
    )
    slow = warn_of_bf16(config.precision, device.type, model)
    for sentence in (too_few, slow, warn_of_warmup(recipe.optim, model)):
        parts.note(sentence)
    if config.batch == "auto":
        finder = _batch_finder(parts, run, size=batch_size, process=process)
        trainer.callbacks.insert(0, finder)  # pyright: ignore[reportAttributeAccessIssue]
    else:
        per_step = accumulate * process.world_size
        parts.note(warn_of_batch_norm(model, batch=batch_size, parts=per_step))
    parts.note(_resume_note(before, process))
    return parts


def process_of(trainer: lightning.Trainer, device: torch.device) -> ProcessInfo:
    """Return the rank of this process and the number of processes."""
    return ProcessInfo(
        rank=trainer.global_rank,
        world_size=trainer.world_size,
        local_processes=trainer.num_devices,
        is_gpu=device.type == "cuda",
    )


def _loggers(config: TrainingConfig, folder: Path, before: CheckpointPosition | None) -> list[Any]:
    """Return the loggers of this process: none but of the first."""
    step = None if before is None else before.step
    return build_loggers(config.logger, folder, step=step) if is_first_process() else []


def _resume_note(before: CheckpointPosition | None, process: ProcessInfo) -> str:
    """Return a sentence on the step from which a run is resumed."""
    if before is None:
        return ""
    text = f"Resuming from step {before.step:,}."
    if before.world_size != process.world_size:
        text += (
            f" The run had {before.world_size} processes and now has {process.world_size}: its numbers will not "
            "be exactly those of an uninterrupted run."
        )
    return text


def _batch_finder(
    parts: TrainingParts, run: ResolvedRun, *, size: int, process: ProcessInfo
) -> BatchSizeFinder:
    """Return the batch size finder, which updates the parts that depend on the batch size."""
    recipe = run.recipe
    if recipe.training.strategy == "fsdp" and process.world_size > 1:
        raise ValueError(
            "--batch auto measures an unsharded model on each device, and --strategy fsdp shards it. "
            "Give a number (--batch 16), or --accumulate."
        )

    def use(batch: int, why: str) -> None:
        accumulate = size // batch
        if accumulate > 1:
            train, validation = build_loaders(
                run.data, recipe, run.preprocess, batch_size=batch, process=process
            )
            parts.batches.use(train, accumulate=accumulate)
            parts.callback.validation = validation
            parts.trainer.accumulate_grad_batches = accumulate
        found = replace(recipe.training, batch=batch, accumulate=1)
        if parts.trainer.is_global_zero:
            write_run_recipe(parts.callback.folder, replace(recipe, training=found))
        text = step_text(parts.batches.loader.settings, accumulate)
        parts.note(f"--batch auto: a step of {text} ({why}).")
        per_step = accumulate * process.world_size
        parts.note(warn_of_batch_norm(parts.model, batch=batch, parts=per_step))

    task = parts.module.task
    return BatchSizeFinder(recipe, task, size=size, process=process, use=use)


def _module(
    recipe: Recipe, source: DatasetBundle, process: ProcessInfo
) -> tuple[PerceiverModule, Perceiver]:
    """Return the Lightning module and the model inside of it."""
    config = recipe.training
    model = build(recipe.model_config())
    model.set_grad_checkpointing(config.grad_checkpointing, mlp=config.mlp_checkpointing)
    if config.compile:
        model.compile()  # in place: the weights keep their names
    shard = config.strategy == "fsdp" and process.world_size > 1
    module = PerceiverModule(
        model,
        build_task(recipe, source),
        recipe.optim,
        ema=config.ema,
        shard=shard,
        frozen=frozen_parts(config.freeze, model),
        lr_scale=config.lr_scale,
    )
    return module, model


def build_task(recipe: Recipe, source: DatasetBundle) -> Task:
    """Return the task of a recipe; balanced class weights are counted in the training split."""
    task = recipe.task
    if not task.needs_class_counts:
        return build_configured_task(task)
    if not task.subtasks:
        return build_configured_task(task, source.class_counts("train"))
    balanced = [name for name, part in task.subtasks.items() if part.needs_class_counts]
    counts = {name: source.class_counts("train", name) for name in balanced}
    return build_configured_task(task, counts)


def _signals() -> list[signal.Signals]:
    """Return the signals that stop a run.

    SLURM sends SIGUSR1 before the time limit of a job, and a terminal that is closed sends SIGHUP. Under `nohup`, which
    ignores SIGHUP, the run continues.
    """
    early = [signal.SIGUSR1] if SLURMEnvironment.detect() else []
    closed: list[signal.Signals] = []
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        closed = [signal.SIGHUP]
    return [signal.SIGTERM, signal.SIGINT, *closed, *early]
