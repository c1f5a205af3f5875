"""Ensemble of a run with folds: one member for each fold, trained without it and validated on it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from perceivers.console import print_message
from perceivers.data.base import atomic_write
from perceivers.escaping import encode_text
from perceivers.hub import checkpoint as hub
from perceivers.models.perceiver import build
from perceivers.recipes.resolve import ResolvedRun
from perceivers.runs.folder import (
    BEST,
    FOLD_RESULT,
    LAST,
    fold_folder,
    open_folder,
    with_found_batch,
)
from perceivers.runs.metrics import METRICS_FILE, mean_metrics, read_metrics
from perceivers.runs.report import write_report
from perceivers.runs.sentences import overfitting_sentence
from perceivers.runs.summary import MemberSummary, RunSummary, command_line, versions
from perceivers.tasks.base import Task
from perceivers.tasks.meters import Meter
from perceivers.tasks.metric_text import metric_text
from perceivers.training.baseline import measured_baseline
from perceivers.training.build import build_task
from perceivers.training.checkpoint import read_payload, save_payload
from perceivers.training.data_wait import advice
from perceivers.training.dataloaders import step_text
from perceivers.training.finetune import known_start, plan_warm_start
from perceivers.training.fit import (
    Run,
    decoding_notes,
    preprocess_notes,
    run_training,
    saved_columns,
    validation_results,
)
from perceivers.training.views import choose_views, measure_views
from perceivers.wording import counted, parse_duration

if TYPE_CHECKING:
    from perceivers.training.build import TrainingParts

Payload = dict[str, Any]
"""Weights and results of a member, as `FOLD_RESULT` holds them."""


def train_folds(
    run: ResolvedRun,
    folder: Path,
    *,
    resume: bool,
    init_from: str | Path | None,
    data: str | None,
    notes: Sequence[str] = (),
) -> Run:
    """Train one member for each fold in an opened run folder, and save them as one model.

    Members that have ended are kept when a run is resumed; an interrupted one continues. Arguments as for
    `perceivers.training.fit.train`.
    """
    count = len(run.data.folds)
    ended = [fold_folder(folder, index) / FOLD_RESULT for index in range(count)]
    all_had_ended = all(path.exists() for path in ended)
    payloads: list[Payload] = []
    lines = [note for note in notes if note]
    for line in lines:
        print_message(line)
    for index, path in enumerate(ended):
        if not path.exists():
            _train_member(run, folder, index, resume=resume, init_from=init_from)
        payloads.append(read_payload(path))
        if not all_had_ended:
            print_message(_member_sentence(payloads[-1], run, index))
    if all_had_ended:
        lines.append(
            f"The run in {folder} had ended already; only its report is written again. Ended members are not trained "
            f"longer: a new run with --init-from {folder} starts from their weights."
        )
        print_message(lines[-1])
    summary = _finish(run, folder, payloads, data, lines)
    return Run(
        folder=folder,
        metrics=dict(summary.metrics),
        intervals=summary.intervals,
        num_members=count,
    )


def _member_run(run: ResolvedRun, index: int) -> ResolvedRun:
    """Return the run of one member: the rows of its fold, a seed of its own and its part of the time."""
    training, count = run.recipe.training, len(run.data.folds)
    limit = training.max_time
    if limit is not None:
        limit = f"{max(parse_duration(limit) / count, 0.001):.3f}s"
    training = replace(training, folds=None, seed=training.seed + index, max_time=limit)
    return replace(run, recipe=replace(run.recipe, training=training), data=run.data.fold(index))


def _train_member(
    run: ResolvedRun,
    folder: Path,
    index: int,
    *,
    resume: bool,
    init_from: str | Path | None,
) -> None:
    """Train one member, or resume it, and write `FOLD_RESULT` into its folder. Arguments as for `train_folds`."""
    member, own = _member_run(run, index), fold_folder(folder, index)
    rows = {split: len(member.data.splits[split]) for split in ("train", "validation")}
    print_message(
        f"Fold {index + 1} of {len(run.data.folds)}: {counted(rows['train'], 'row')}, validated on "
        f"{rows['validation']:,}."
    )
    if resume:
        member = replace(member, recipe=with_found_batch(member.recipe, own))
    start = None
    init_from = init_from or known_start(folder)
    if init_from is not None and not (own / LAST).exists():
        config = member.recipe.model_config()
        start = plan_warm_start(
            config, init_from, preprocess=run.preprocess, task=run.recipe.task, member=index
        )
        start.write(folder)
    own.mkdir(parents=True, exist_ok=True)
    restored = open_folder(own, member.recipe, resume=resume)
    run_training(
        member,
        own,
        restored=restored,
        start=start,
        finish=lambda parts: _save_member(parts, member),
    )


def _save_member(parts: "TrainingParts", run: ResolvedRun) -> None:
    """Write the weights and results of an ended member; its checkpoints, with the optimizer's state, are removed."""
    callback, trainer = parts.callback, parts.trainer
    loaders = (parts.batches.loader, parts.validation)
    waiting, what_to_do = advice(
        callback.wait_time,
        workers=loaders[0].settings.num_workers,
        threads=torch.get_num_threads(),
        processes=trainer.world_size,
        tips=[config.loading_tip for config in run.preprocess.values()],
    )
    payload = read_payload(callback.folder / BEST)
    views = measure_views(parts, run, payload)
    payload |= {
        "views": None if views is None else views.state(),
        "steps": trainer.global_step,
        "epochs": parts.batches.epochs_done,
        "seconds": callback.clock.elapsed,
        "device": f"{trainer.world_size} x {parts.module.device.type}",
        "batch": step_text(loaders[0].settings, parts.batches.accumulate),
        "rows": len(run.data.splits["validation"]),
        "waiting": waiting,
        "notes": [*parts.notes, what_to_do, *decoding_notes(parts)],
        "bad": [list(one) for loader in loaders for one in loader.bad],
    }
    save_payload(callback.folder / FOLD_RESULT, payload)
    for name in (BEST, LAST):
        (callback.folder / name).unlink(missing_ok=True)


def _member_sentence(payload: Payload, run: ResolvedRun, index: int) -> str:
    """Return a sentence on the result of an ended member."""
    metrics: Mapping[str, float] = payload["metrics"]
    name = build_task(run.recipe, run.data).main_metric
    found = f", {name} {metric_text(name, metrics[name])}" if name in metrics else ""
    loss = f", loss {metric_text('loss', metrics['loss'])}" if "loss" in metrics else ""
    return f"Fold {index + 1}: kept the weights of step {payload['step']:,}{found}{loss}."


def _finish(
    run: ResolvedRun,
    folder: Path,
    payloads: Sequence[Payload],
    data: str | None,
    notes: list[str],
) -> RunSummary:
    """Save the members as one model, write the report of the out-of-fold results and return its content."""

    def note(text: str) -> None:
        if text:
            notes.append(text)
            print_message(text)

    task = build_task(run.recipe, run.data)
    logs = [read_metrics(fold_folder(folder, n) / METRICS_FILE) for n in range(len(payloads))]
    rows = mean_metrics(logs)
    with atomic_write(folder / METRICS_FILE) as new:
        new.write_bytes(encode_text("".join(json.dumps(row) + "\n" for row in rows)))
    note(overfitting_sentence(rows, task.score_name))
    meter, metrics, mirrored = _out_of_fold(run, task, payloads, note)
    results, config = validation_results(task, meter, note)
    members: list[Any] = []
    for payload in payloads:
        model = build(run.recipe.model_config())
        model.load_state_dict(payload["model"])
        members.append(model)
    model = hub.ensemble_of(members, config)
    settings: Any = {"columns": saved_columns(run, data), "mirrored": mirrored}
    hub.save(folder, model, preprocess=run.preprocess, task=config, **settings)
    name, interval = task.main_metric, results[""].intervals.get(task.main_metric)
    note(_out_of_fold_sentence(metrics, task, len(payloads), interval))
    baseline = measured_baseline(
        run, folder, note, metrics=metrics, intervals=results[""].intervals, meter=meter
    )
    of_members = list(dict.fromkeys(text for one in payloads for text in one["notes"] if text))
    first = payloads[0]
    summary = RunSummary(
        name=run.recipe.name,
        command=command_line(),
        metrics=metrics,
        main_metric=name,
        num_parameters=sum(p.numel() for p in model.parameters()),
        steps=sum(one["steps"] for one in payloads),
        best_step=first["step"],
        epochs=sum(one["epochs"] for one in payloads) / len(payloads),
        seconds=sum(one["seconds"] for one in payloads),
        device=f"{first['device']}, {run.recipe.training.precision}",
        batch=first["batch"],
        waiting=first["waiting"],
        notes=[*run.data.notes, *preprocess_notes(run), *notes, *of_members],
        bad=list(dict.fromkeys((one[0], one[1]) for p in payloads for one in p["bad"])),
        versions=versions(),
        tasks={part: one for part, one in results.items() if part},
        baseline=baseline,
        members=[_member_summary(payload, name) for payload in payloads],
        **vars(results[""]),
    )
    write_report(folder, summary)
    return summary


def _out_of_fold(
    run: ResolvedRun, task: Task, payloads: Sequence[Payload], note: Callable[[str], object]
) -> tuple[Meter, Mapping[str, float], tuple[str, ...]]:
    """Return the meter of all rows and its metrics, with averaged views if that is better, and their modalities."""
    meter = task.meter()
    meter.merge([payload["meter"] for payload in payloads])
    metrics = meter.compute()
    views = None
    if all(payload["views"] is not None for payload in payloads):
        views = task.meter()
        views.merge([payload["views"] for payload in payloads])
    return choose_views(run, task, (meter, metrics), views, note)


def _member_summary(payload: Payload, metric: str) -> MemberSummary:
    metrics: Mapping[str, float] = payload["metrics"]
    return MemberSummary(
        rows=payload["rows"],
        step=payload["step"],
        steps=payload["steps"],
        seconds=payload["seconds"],
        value=metrics.get(metric),
        loss=metrics.get("loss"),
    )


def _out_of_fold_sentence(
    metrics: Mapping[str, float], task: Task, count: int, interval: Any
) -> str:
    """Return a sentence on the result of the whole run."""
    name = task.main_metric
    found = [f"{name} {metric_text(name, metrics[name], interval)}"] if name in metrics else []
    if "loss" in metrics:
        found.append(f"loss {metric_text('loss', metrics['loss'])}")
    return (
        f"Out of fold, where each of {counted(int(metrics['samples']), 'row')} is predicted by the member that has not "
        f"learned it: {', '.join(found)}. The average of the {count} members, which is saved, is usually better."
    )
