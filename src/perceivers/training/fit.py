"""Train a model: `fit` from any data, `train` from a resolved run."""

import importlib.util
import os
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from perceivers.checks.check import quick_check
from perceivers.console import print_message
from perceivers.data.modalities.image.decode import quiet_pillow
from perceivers.data.sources.identity import SavedSplits, fold_name
from perceivers.data.sources.split import identify_rows
from perceivers.hub import checkpoint as hub
from perceivers.hub.checkpoint import Saved
from perceivers.hub.convert import load_any
from perceivers.models.compression import compression
from perceivers.models.perceiver import build
from perceivers.nn.heap import keep_freed_memory
from perceivers.recipes.files import RECIPE_FILE, find_recipe, read_run_recipe
from perceivers.recipes.finetune import with_architecture
from perceivers.recipes.overrides import override
from perceivers.recipes.registry import Recipe
from perceivers.recipes.resolve import ResolvedRun, resolve
from perceivers.recipes.rules.length import LIMITS
from perceivers.runs.folder import (
    BEST,
    LAST,
    check_folder,
    data_path,
    has_begun,
    is_first_process,
    is_resumed,
    limits_of,
    open_folder,
    run_folder,
    with_found_batch,
)
from perceivers.runs.lock import lock_folder
from perceivers.runs.metrics import METRICS_FILE, read_metrics
from perceivers.runs.report import write_report
from perceivers.runs.sentences import (
    calibration_sentence,
    overfitting_sentence,
)
from perceivers.runs.splits import compare_rows, read_splits, with_removed, write_splits
from perceivers.runs.summary import (
    RunSummary,
    TaskSummary,
    command_line,
    meter_results,
    versions,
)
from perceivers.tasks.base import Task
from perceivers.tasks.config import BaseTaskConfig
from perceivers.tasks.intervals import Interval
from perceivers.tasks.meters import Meter
from perceivers.tasks.metric_text import metric_text
from perceivers.training.baseline import measured_baseline
from perceivers.training.checkpoint import read_payload
from perceivers.training.data_wait import advice
from perceivers.training.dataloaders import ProcessInfo, step_text
from perceivers.training.finetune import WarmStart, known_start, leak_sentence, plan_warm_start
from perceivers.training.seeding import seed_everything
from perceivers.training.stopping import StoppingCriteria
from perceivers.training.views import choose_views, measure_views

if TYPE_CHECKING:
    from perceivers.training.build import TrainingParts
    from perceivers.training.selection import BestResult

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run.

    Attributes:
        folder: The run folder.
        metrics: Metrics of the validation split, with the saved weights; of folds, those of all rows out of fold.
        intervals: 95 % confidence interval of each metric that has one, by name.
        num_members: Number of models whose outputs the saved one averages: that of the folds.
        next_commands: Commands for such a run, in which RUN stands for its folder.
    """

    folder: Path
    metrics: Mapping[str, float]
    intervals: Mapping[str, Interval] = field(default_factory=dict[str, Interval])
    num_members: int = 1
    next_commands: tuple[str, ...] = BaseTaskConfig.next_commands


def fit(
    data: Any,
    recipe: str | Path | Recipe | None = None,
    *,
    size: str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    resume_with_other_data: bool = False,
    init_from: str | Path | None = None,
    on_message: Callable[[str], object] = print_message,
    **overrides: Any,
) -> Run:
    """Train on data and return the run: its folder and its metrics.

    Args:
        data: A path, a hub id, a Hugging Face dataset, a DataFrame, a list of dicts or a dict of lists.
        recipe: A recipe's name, a YAML file, `module:function`, or a `Recipe`. By default one that fits the data.
        size: `tiny`, `small` or `base`. By default one that fits the machine.
        out: The run folder. By default a new one in `runs/`, named like the data.
        resume: Resume the run from its last checkpoint.
        resume_with_other_data: Resume it although rows were added, removed or changed since it began.
        init_from: A run, or a Perceiver of Hugging Face's (a folder of `save_pretrained`), as a folder or hub id, or a
            checkpoint of DeepMind's release (`.pystate`): the model starts from its weights where they fit. Without a
            recipe, architecture and preprocessing are those of that model.
        on_message: Called with each message.
        overrides: Any field of the recipe: `max_time="10m"`, `label="species"`, `**{"optim.lr": 1e-3}`.

    Raises:
        KeyError: If there is no such recipe or field. The message names the nearest.
        ValueError: If the data cannot be learned from, or `out` holds something else.
    """
    resume = resume or resume_with_other_data
    folder = run_folder(data, out, resume=resume)
    resume = is_resumed(folder, resume=resume)
    if recipe is None and resume and (folder / RECIPE_FILE).is_file():
        chosen = read_run_recipe(folder)
        overrides = _with_new_limits(chosen, overrides)
    else:
        chosen = None if recipe is None else find_recipe(recipe, size=size)
    splits = read_splits(folder) if resume and has_begun(folder) else None
    if chosen is not None and splits is not None:
        _check_folds(chosen, overrides, splits, folder)
    pretrained = None
    if init_from is not None and chosen is None:
        if size is not None:
            raise ValueError(
                f"Without --recipe the architecture is that of {init_from}: expected no --size, got {size}."
            )
        pretrained = load_any(init_from)
    source = pretrained
    if init_from is not None and chosen is not None and chosen.task.target_modalities:
        source = load_any(init_from)
        if source.config.task is not None and source.config.task.pretrains:
            chosen = with_architecture(chosen, source)
    run = resolve(
        data, chosen, size=size, overrides=overrides, splits=splits, pretrained=pretrained
    )
    if is_first_process():
        for sentence in _summary(run, folder):
            on_message(sentence)
    return train(
        run,
        out=folder,
        resume=resume,
        other_data=resume_with_other_data,
        init_from=init_from,
        pretrained=source,
        data=data_path(data),
    )


def finetune(source: str | Path, data: Any, **settings: Any) -> Run:
    """Fine-tune a trained model on data and return the run: `fit` with `init_from`.

    Args:
        source: A run, or a Perceiver of Hugging Face's (a folder of `save_pretrained`), as a folder or hub id, or a
            checkpoint of DeepMind's release (`.pystate`).
        data: As for `fit`.
        settings: As for `fit`: `freeze=("encoder",)`, `cache_latents=1`, `lora=8`, `lr_scale={"encoder": 0.1}`,
            `out="runs/birds"`, `max_time="10m"`.

    Raises:
        OSError: If the source cannot be read.
        ValueError: If the model does not read the data, or the settings do not fit it.
    """
    return fit(data, init_from=source, **settings)


def _with_new_limits(recipe: Recipe, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return overrides in which new limits of a resumed run replace all of its limits, which may be reached already."""
    given = {
        key: value
        for key, value in overrides.items()
        if key.replace("-", "_").removeprefix("training.") in LIMITS
    }
    if not given or limits_of(override(recipe, given)) == limits_of(recipe):
        return dict(overrides)
    names = {key.replace("-", "_").removeprefix("training.") for key in given}
    return {**overrides, **{name: None for name in LIMITS if name not in names}}


def _check_folds(
    recipe: Recipe, overrides: Mapping[str, Any], splits: SavedSplits, folder: Path
) -> None:
    """Check that a resumed run is not asked for another number of folds than it has.

    Raises:
        ValueError: If it is. More folds than there are rows or groups to hold out mean as many as there are.
    """
    given = {
        key: value
        for key, value in overrides.items()
        if key.replace("-", "_").removeprefix("training.") == "folds"
    }
    requested = override(recipe, given).training.folds or 1
    own = max(splits.folds, 1)
    rows = Counter(row.split for row in splits.rows)
    is_most = recipe.data.group is not None or all(
        rows[fold_name(index)] == 1 for index in range(splits.folds)
    )
    if not given or requested == own or (requested > own > 1 and is_most):
        return
    began = f"{own} folds" if own > 1 else "a single validation split"
    raise ValueError(
        f"The run in {folder} began with {began}, which cannot change when it is resumed; got --folds {requested}. "
        "Leave --folds out to resume it, or give another --out for a new run."
    )


def _summary(run: ResolvedRun, folder: Path) -> Generator[str]:
    """Yield sentences on the data, the recipe and the size of the model."""
    if run.reason is not None:
        yield run.reason
    yield from run.choices
    yield from run.data.notes
    yield from preprocess_notes(run)
    # What `perceivers check` calls an error does not prevent training.
    for finding in quick_check(run):
        more = " `perceivers check` lists the rows." if finding.groups else ""
        yield f"Warning: {finding.message}{more}"
    with torch.device("meta"):
        count = sum(weight.numel() for weight in build(run.recipe.model_config()).parameters())
    members = f" in each of {len(run.data.folds)} members" if run.data.folds else ""
    yield f"Model: {count:,} parameters{members}. The run goes to {folder}."
    if run.recipe.task.reports_compression:
        yield f"Compression: {compression(run.recipe.model_config()).sentence()}."


def preprocess_notes(run: ResolvedRun) -> list[str]:
    """Return sentences on the preprocessing of each modality."""
    return [note for config in run.preprocess.values() for note in config.notes()]


def train(
    run: ResolvedRun,
    *,
    out: str | Path,
    resume: bool = False,
    other_data: bool = False,
    init_from: str | Path | None = None,
    pretrained: Saved | None = None,
    data: str | None = None,
) -> Run:
    """Train a model and write a run folder.

    The folder gets `recipe.yaml` at the start; `metrics.jsonl`, TensorBoard events and `checkpoints/` during training;
    `model.safetensors`, `config.json` and `report.md` at the end.

    With several processes (`training.devices`, torchrun, SLURM) each of them calls this; the first one writes.

    Args:
        run: Recipe, preprocessing and data with a validation split, with nothing left open.
        out: The run folder, new unless `resume`.
        resume: Resume the run in `out`, exactly where it was interrupted.
        other_data: Resume it although the rows differ from those with which it began.
        init_from: A run folder or hub id: the model starts from its weights where they fit. `init.json` lists the
            source of each weight.
        pretrained: The model of `init_from`, if it is loaded already.
        data: Path of the data, saved for `evaluate`.

    Raises:
        ValueError: If recipe, data, machine and folder do not fit each other, or the loss diverges.
        OSError: If something cannot be read or written. The last checkpoint is then unchanged.
        ImportError: If Lightning, or the package of a logger, is not installed.
        SystemExit: With status 143 after SIGTERM and 130 after Ctrl-C, once the run is saved.
    """
    _check_trainable(run)
    folder, recipe = Path(out), run.recipe
    resume = is_resumed(folder, resume=resume)
    run = replace(run, data=replace(run.data, identities=identify_rows(run.data)))
    if resume:
        recipe = with_found_batch(recipe, folder)
        run = replace(run, recipe=recipe)
    start = None
    # Before the folder is created: weights and settings may not fit.
    if init_from is not None and not (resume and (folder / LAST).exists()):
        start = _plan_start(run, init_from, pretrained)
    _check_preparation(run, has_start=init_from is not None or known_start(folder) is not None)
    if not is_first_process():
        restored = folder / LAST if resume and (folder / LAST).exists() else None
        return _train(run, folder, restored=restored, start=start, data=data)
    check_folder(folder, resume=resume)
    _check_processes(folds := len(run.data.folds))
    with lock_folder(folder) as note:
        rows = run.data.identities
        saved = read_splits(folder) if has_begun(folder) else None
        about = "" if saved is None else compare_rows(saved, rows, folder, other_data=other_data)
        restored = open_folder(folder, recipe, resume=resume)
        leak = leak_sentence(
            init_from or known_start(folder), rows, folds=folds, streamed=bool(run.data.streams)
        )
        notes = [note, about, leak]
        if saved is None or about:
            rows = rows if saved is None else with_removed(saved, rows)
            write_splits(folder, rows, held_out=run.data.divided is not None, folds=folds)
        if run.data.folds:
            from perceivers.training.folds import train_folds

            return train_folds(
                run, folder, resume=resume, init_from=init_from, data=data, notes=notes
            )
        return _train(run, folder, restored=restored, start=start, data=data, notes=notes)


def _plan_start(run: ResolvedRun, init_from: str | Path, pretrained: Saved | None) -> WarmStart:
    """Return the weights from which a run starts. Arguments as for `train`."""
    return plan_warm_start(
        run.recipe.model_config(),
        init_from,
        preprocess=run.preprocess,
        task=run.recipe.task,
        saved=pretrained,
    )


def _check_preparation(run: ResolvedRun, *, has_start: bool) -> None:
    """Check frozen parts, low-rank updates and cached latents, see `check_preparation`; it needs Lightning."""
    from perceivers.training.prepare_model import check_preparation

    check_preparation(run, has_start=has_start)


def _check_trainable(run: ResolvedRun) -> None:
    """Check that a run can be trained here. Errors as for `train`."""
    if not importlib.util.find_spec("lightning"):
        raise ImportError('Training needs Lightning: pip install "perceivers[train]"')
    StoppingCriteria.of(run.recipe.training)
    if run.data.folds and run.recipe.training.cache_latents is not None:
        raise ValueError(
            "Each member of an ensemble has rows of its own: expected no --folds with --cache-latents."
        )
    if "validation" not in {**run.data.splits, **run.data.streams}:
        raise ValueError(
            "Training needs validation rows, by which weights are chosen: expected a validation split, or a "
            f"--validation-fraction above 0, got {run.recipe.data.validation_fraction:g}."
        )


def _check_processes(folds: int) -> None:
    """Check that folds are trained by one process.

    Raises:
        ValueError: If there are several.
    """
    if folds and int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise ValueError(
            f"The members of an ensemble are trained one after the other by one process: expected one process with "
            f"--folds {folds}, got {os.environ['WORLD_SIZE']}."
        )


def _train(
    run: ResolvedRun,
    folder: Path,
    *,
    restored: Path | None,
    start: WarmStart | None,
    data: str | None,
    notes: Sequence[str] = (),
) -> Run:
    """Train in an opened run folder, from a checkpoint if there is one. Arguments as for `train`."""

    def finish(parts: "TrainingParts") -> Run:
        if restored is not None and not parts.callback.samples:
            parts.note(
                f"The run in {folder} had ended already; only its report is written again. To train longer, give a "
                "larger limit, such as --max-epochs."
            )
        if not parts.trainer.is_global_zero:
            return Run(folder=folder, metrics=dict(parts.callback.best.metrics))
        summary = _finish(parts, run, data)
        return Run(
            folder=folder,
            metrics=dict(summary.metrics),
            intervals=summary.intervals,
            next_commands=run.recipe.task.next_commands,
        )

    return run_training(run, folder, restored=restored, start=start, finish=finish, notes=notes)


def run_training(
    run: ResolvedRun,
    folder: Path,
    *,
    restored: Path | None,
    start: WarmStart | None,
    finish: Callable[["TrainingParts"], Result],
    notes: Sequence[str] = (),
) -> Result:
    """Train in an opened run folder, from a checkpoint if there is one, and return what `finish` returns.

    Args:
        run: Recipe, preprocessing and data.
        folder: The run folder.
        restored: The checkpoint.
        start: Weights of another run from which the model starts.
        finish: Called at the end with the parts of the run.
        notes: Sentences for the report.
    """
    from perceivers.training.build import build_parts
    from perceivers.training.engine import quiet
    from perceivers.training.prepare_model import prepare_model

    recipe = run.recipe
    limits = StoppingCriteria.of(recipe.training)
    keep_freed_memory()
    with quiet(), quiet_pillow, _threads(recipe):
        seed_everything(recipe.training.seed)
        parts = build_parts(run, folder=folder, limits=limits, last=restored)
        for note in notes:
            parts.note(note)
        prepare_model(run, parts, start, restored=restored is not None)
        trainer = parts.trainer
        try:
            trainer.fit(parts.module, parts.batches, ckpt_path=restored, weights_only=True)
            return finish(parts)
        finally:
            for loader in (parts.batches.loader, parts.validation):
                loader.close()  # ends its worker processes now, not at garbage collection


@contextmanager
def _threads(recipe: Recipe) -> Generator[None]:
    """Use this process' share of the cores in the context, unless OMP_NUM_THREADS is set."""
    before = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ:
        local = int(os.environ.get("LOCAL_WORLD_SIZE", recipe.training.devices))
        process = ProcessInfo(local_processes=local)
        torch.set_num_threads(process.threads_and_workers(recipe.data.workers)[0])
    try:
        yield
    finally:
        torch.set_num_threads(before)


def validation_results(
    task: Task, meter: Meter, note: Callable[[str], object]
) -> tuple[dict[str, TaskSummary], Any]:
    """Return the validation results of the run ("") and of each of several tasks, and the task with temperatures.

    Args:
        task: The task.
        meter: Its meter, after validation.
        note: Called with a sentence on each temperature.
    """
    names = {"": task.names, **{name: part.names for name, part in task.parts.items()}}
    results = {
        name: TaskSummary(label_names=names[name], **meter_results(one))
        for name, one in [("", meter), *meter.parts.items()]
    }
    found = {name: one.calibration for name, one in results.items() if one.calibration is not None}
    for name, calibration in found.items():
        note(calibration_sentence(calibration, name))
    return results, task.calibrated_config(found)


def _kept_sentence(
    best: "BestResult", metrics: Mapping[str, float], name: str, interval: Interval | None
) -> str:
    """Return a sentence on the weights that are kept, with the main metric and its confidence interval."""
    found = [f"{name} {metric_text(name, metrics[name], interval)}"] if name in metrics else []
    if "loss" in metrics:
        found.append(f"loss {metric_text('loss', metrics['loss'])}")
    why = best.reason or "the lowest smoothed validation loss"
    return f"Kept the weights of step {best.step:,} ({why}): validation {', '.join(found)}."


def saved_columns(run: ResolvedRun, data: str | None) -> dict[str, Any]:
    """Return the origin of the training data for `config.json`."""
    source = run.data
    return {
        "data": data,
        "form": source.form,
        "inputs": {name: asdict(column) for name, column in source.inputs.items()},
        "target": source.target,
        "config": asdict(run.recipe.data),
    }


def decoding_notes(parts: "TrainingParts") -> list[str]:
    """Return a sentence on conversions and other decisions of decoding, or nothing."""
    counts = Counter(parts.batches.loader.notes) + Counter(parts.validation.notes)
    text = ", ".join(f"{note} ({count:,})" for note, count in sorted(counts.items()))
    return [f"On decoding: {text}."] if text else []


def _finish(parts: "TrainingParts", run: ResolvedRun, data: str | None) -> RunSummary:
    """Save the best weights with fitted temperatures, write the report and return its content."""
    recipe, source = run.recipe, run.data
    callback, trainer = parts.callback, parts.trainer
    best = read_payload(callback.folder / BEST)
    model = build(recipe.model_config())  # the trained one may be sharded over devices
    model.load_state_dict(best["model"])
    parts.note(
        overfitting_sentence(
            read_metrics(callback.folder / METRICS_FILE), parts.module.task.score_name
        )
    )
    meter = parts.module.task.meter()
    if "meter" in best:  # the checkpoint of an earlier version has none
        meter.merge([best["meter"]])
    views = measure_views(parts, run, best)
    meter, metrics, mirrored = choose_views(
        run, parts.module.task, (meter, best["metrics"]), views, parts.note
    )
    results, task = validation_results(parts.module.task, meter, parts.note)
    settings: Any = {"task": task, "columns": saved_columns(run, data), "mirrored": mirrored}
    hub.save(callback.folder, model, preprocess=run.preprocess, **settings)
    waiting, what_to_do = _loading_advice(parts, run)
    decoding = decoding_notes(parts)
    name = parts.module.task.main_metric
    parts.note(_kept_sentence(callback.best, metrics, name, results[""].intervals.get(name)))
    loaders = {"train": parts.batches.loader, "validation": parts.validation}
    baseline = measured_baseline(
        run,
        callback.folder,
        parts.note,
        metrics=metrics,
        intervals=results[""].intervals,
        meter=meter,
        loaders=loaders,
    )
    if what_to_do:
        parts.note(what_to_do)
    summary = RunSummary(
        name=recipe.name,
        command=command_line(),
        metrics=metrics,
        main_metric=parts.module.task.main_metric,
        num_parameters=sum(p.numel() for p in model.parameters()),
        steps=trainer.global_step,
        best_step=best["step"],
        epochs=parts.batches.epochs_done,
        seconds=callback.clock.elapsed,
        device=f"{trainer.world_size} x {parts.module.device.type}, {recipe.training.precision}",
        batch=step_text(parts.batches.loader.settings, parts.batches.accumulate),
        waiting=waiting,
        notes=[*source.notes, *preprocess_notes(run), *parts.notes, *decoding],
        bad=[*parts.batches.loader.bad, *parts.validation.bad],
        versions=versions(),
        tasks={name: one for name, one in results.items() if name},
        baseline=baseline,
        **vars(results[""]),
    )
    write_report(callback.folder, summary)
    return summary


def _loading_advice(parts: "TrainingParts", run: ResolvedRun) -> tuple[str, str]:
    """Return a sentence on the time that training waited for data, and advice; see `advice`."""
    return advice(
        parts.callback.wait_time,
        workers=parts.batches.loader.settings.num_workers,
        threads=torch.get_num_threads(),
        processes=parts.trainer.world_size,
        tips=[config.loading_tip for config in run.preprocess.values()],
    )
