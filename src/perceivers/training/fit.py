"""`fit_source`: from data and a recipe to a run folder."""

import importlib.util
import os
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from perceivers.data.modalities.image.decode import quiet_pillow
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.data.sources.split import with_validation
from perceivers.hub import checkpoint as hub
from perceivers.recipes.registry import Recipe
from perceivers.runs.report import write_report
from perceivers.runs.summary import RunSummary, TaskSummary, command_line, versions
from perceivers.tasks.multitask import MultiTaskConfig
from perceivers.tasks.registry import names_of
from perceivers.training.data_wait import advice
from perceivers.training.distributed import is_first_process
from perceivers.training.files import read_payload
from perceivers.training.finetune import WarmStart, plan_warm_start
from perceivers.training.prepare import (
    BEST,
    LAST,
    ProcessInfo,
    as_begun,
    build_model,
    open_folder,
    step_text,
)
from perceivers.training.seeding import seed_everything
from perceivers.training.stopping import StoppingCriteria

if TYPE_CHECKING:
    from perceivers.training.build import TrainerParts

__all__ = ["Run", "fit_source"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run that has ended.

    Attributes:
        folder: Where everything of it is.
        metrics: Of the validation split, by the weights that were saved.
    """

    folder: Path
    metrics: Mapping[str, float]


def fit_source(
    source: DatasetBundle,
    recipe: Recipe,
    preprocess: Mapping[str, Any],
    *,
    out: str | Path,
    resume: bool = False,
    init_from: str | Path | None = None,
    data: str | None = None,
) -> Run:
    """Train a model and leave a run folder.

    The folder gets `recipe.yaml` at the start; `metrics.jsonl`, TensorBoard events and
    `checkpoints/` on the way; `model.safetensors`, `config.json` and `report.md` at the end.

    Several processes (`training.devices`, torchrun, SLURM) all call this; the first of them writes.

    Args:
        source: Data, with labels.
        recipe: Everything about the run, with nothing left open (`specialize` fills it in).
        preprocess: For each input, what turns a cell into the model's array.
        out: The run folder, new unless `resume`.
        resume: Go on with the run in `out`, exactly where it was interrupted.
        init_from: A run folder or hub id, from which the model takes over what fits (`warm_start`). What became of
            each weight stands in `init.json`.
        data: Path of the data, for the record: `evaluate` finds them there.

    Raises:
        ValueError: If recipe, data, machine and folder do not fit each other, or the loss diverges.
        OSError: If something cannot be read or written. The last good checkpoint is then unharmed.
        ImportError: If Lightning, or what a logger needs, is not installed.
        SystemExit: With status 143 after SIGTERM and 130 after Ctrl-C, once the run is saved.
    """
    if not importlib.util.find_spec("lightning"):
        msg = 'Training needs Lightning: pip install "perceivers[train]"'
        raise ImportError(msg)
    from perceivers.training.build import build_trainer_parts
    from perceivers.training.engine import quiet

    folder = Path(out)
    limits = StoppingCriteria.of(recipe.training)
    source = with_validation(source, recipe.data)
    last = folder / LAST
    resume = resume or _is_requeued(last)
    recipe = as_begun(recipe, folder) if resume else recipe
    start = None  # is planned before the folder is made: what does not fit leaves nothing behind
    if init_from is not None and not (resume and last.exists()):
        start = plan_warm_start(recipe.model_config(), init_from)
    if is_first_process():
        restored = open_folder(folder, recipe, resume=resume, last=last)
    else:
        restored = last if resume and last.exists() else None
    with quiet(), quiet_pillow, _threads(recipe):
        seed_everything(recipe.training.seed)
        assembly = build_trainer_parts(
            source, recipe, preprocess, folder=folder, limits=limits, last=restored
        )
        if start is not None:
            _begin(assembly, start)
        trainer = assembly.trainer
        try:
            trainer.fit(assembly.module, assembly.feed, ckpt_path=restored, weights_only=True)
            if trainer.is_global_zero:
                _finish(assembly, source, recipe, preprocess, data)
        finally:
            for loader in (assembly.feed.loader, assembly.validation):
                loader.close()  # its workers end here, not when the garbage is collected
    return Run(folder=folder, metrics=dict(assembly.conductor.standing.metrics))


def _begin(assembly: "TrainerParts", start: WarmStart) -> None:
    """Give the model the weights that it takes over, and say which."""
    start.apply(assembly.model)
    for sentence in start.sentences():
        assembly.note(sentence)
    if assembly.trainer.is_global_zero:
        start.write(assembly.conductor.folder)


def _is_requeued(last: Path) -> bool:
    """Return whether SLURM has started this job again, and there is something to go on with."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0 and last.exists()


@contextmanager
def _threads(recipe: Recipe) -> Generator[None]:
    """Use this process' share of the cores inside of the `with`, unless OMP_NUM_THREADS says otherwise."""
    before = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        local = int(os.environ.get("LOCAL_WORLD_SIZE", recipe.training.devices))
        place = ProcessInfo(local_processes=local)
        torch.set_num_threads(place.threads_and_workers(recipe.data.workers)[0])
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _finish(
    assembly: "TrainerParts",
    source: DatasetBundle,
    recipe: Recipe,
    preprocess: Mapping[str, Any],
    data: str | None,
) -> None:
    """Save the best weights and write the report."""
    conductor, trainer = assembly.conductor, assembly.trainer
    best = read_payload(conductor.folder / BEST)
    model = build_model(recipe)  # the one that was trained may be spread over devices
    model.load_state_dict(best["model"])
    columns = {
        "data": data,
        "form": source.form,
        "inputs": {name: asdict(column) for name, column in source.inputs.items()},
        "target": source.target,
        "config": asdict(recipe.data),
    }
    hub.save(conductor.folder, model, preprocess=preprocess, task=recipe.task, columns=columns)
    workers = assembly.feed.loader.settings.num_workers
    waiting, what_to_do = advice(
        conductor.waited,
        workers=workers,
        threads=torch.get_num_threads(),
        processes=trainer.world_size,
    )
    if what_to_do:
        assembly.note(what_to_do)
    elif waiting:
        assembly.display.note(f"Waiting for data: {waiting}.")
    facts = RunSummary(
        name=recipe.name,
        command=command_line(),
        metrics=best["metrics"],
        main_metric=assembly.module.task.main_metric,
        num_parameters=sum(p.numel() for p in model.parameters()),
        steps=trainer.global_step,
        best_step=best["step"],
        epochs=assembly.feed.epochs_done,
        seconds=conductor.clock.elapsed,
        device=f"{trainer.world_size} x {assembly.module.device.type}, {recipe.training.precision}",
        batch=step_text(assembly.feed.loader.settings, assembly.feed.accumulate),
        waiting=waiting,
        notes=[*source.notes, *assembly.notes, *_decoding(assembly)],
        bad=[*assembly.feed.loader.bad, *assembly.validation.bad],
        versions=versions(),
        label_names=names_of(recipe.task),
        confusion=best["confusion"],
        details=best.get("details", []),
        tasks={
            name: TaskSummary(label_names=names_of(recipe.task.parts[name]), **told)
            for name, told in best.get("tasks", {}).items()
            if isinstance(recipe.task, MultiTaskConfig)
        },
    )
    write_report(conductor.folder, facts)


def _decoding(assembly: "TrainerParts") -> list[str]:
    """Return how often something had to be decided on decoding, as a sentence of the report."""
    notes = Counter(assembly.feed.loader.notes) + Counter(assembly.validation.notes)
    told = ", ".join(f"{note} ({count:,})" for note, count in sorted(notes.items()))
    return [f"On decoding: {told}."] if told else []
