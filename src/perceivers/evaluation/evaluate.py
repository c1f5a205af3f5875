"""Evaluation of a trained model on a split, by the metrics of its task."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from perceivers.console import tracked
from perceivers.data.base import Batch, DataConfig, atomic_write
from perceivers.data.loading.loader import LoaderSettings, make_loader
from perceivers.data.loading.workers import divide_cores
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.data.sources.open import open_data
from perceivers.data.sources.split import with_validation
from perceivers.evaluation.mistakes import Mistake, WorstMistakes
from perceivers.evaluation.predict import Predictor, load_predictor
from perceivers.models.compression import compression
from perceivers.recipes.resolve import split_for_task
from perceivers.runs.splits import read_splits
from perceivers.tasks.averaging import combine_clips
from perceivers.tasks.base import Task
from perceivers.tasks.calibration import Calibration
from perceivers.tasks.classes import ClassResult, class_results
from perceivers.tasks.curves import Curve
from perceivers.tasks.intervals import Interval
from perceivers.tasks.meters import Baseline, Details, Meter
from perceivers.tasks.prediction import finite_rows
from perceivers.wording import counted


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Metrics of a model on a split.

    Attributes:
        split: Name of the split: `test`, `validation` or `train`.
        num_samples: Number of samples.
        metrics: Value of each metric by its name; shares in [0, 1].
        main_metric: Name of the metric by which runs are compared.
        label_names: Name of each class, label or number.
        confusion: Samples by true class (rows) and predicted class (columns). None: the task has no single classes.
        details: Metrics of each label or number. Empty where there is a confusion matrix.
        intervals: 95 % confidence interval of each metric that has one, by name.
        detail_intervals: Those of `details`.
        calibration: Calibration of the probabilities. None: the task has none.
        curves: ROC and precision-recall curves of the classes or labels.
        mistakes: The worst mistakes, worst first.
        bad: Name and error of every sample that could not be decoded. They are left out.
        notes: Notes on the data and the choices made for them.
        remarks: Explanations of the metrics, as the compression of an autoencoder.
        quantization: Layers with int8 weights, or the reason for none. None: not requested.
        tasks: For several tasks, the evaluation of each, by name.
    """

    split: str
    num_samples: int
    metrics: dict[str, float]
    main_metric: str
    label_names: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...] | None = None
    details: Details = field(default_factory=Details)
    intervals: Mapping[str, Interval] = field(default_factory=dict[str, Interval])
    detail_intervals: Sequence[Mapping[str, Interval]] = ()
    calibration: Calibration | None = None
    curves: tuple[Curve, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    bad: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    quantization: str | None = None
    tasks: dict[str, "Evaluation"] = field(default_factory=dict[str, "Evaluation"])

    def recall(self) -> dict[str, float | None]:
        """Return the recall of each class; None without samples."""
        if self.confusion is None:
            return {}
        return {
            name: row[index] / sum(row) if sum(row) else None
            for index, (name, row) in enumerate(zip(self.label_names, self.confusion, strict=True))
        }

    def classes(self) -> list[ClassResult]:
        """Return recall and precision of each class, with their intervals."""
        return [] if self.confusion is None else class_results(self.label_names, self.confusion)


def evaluate_run(
    run: str | Path,
    data: Any = None,
    *,
    split: str | None = None,
    permute: int | None = None,
    max_bad: float | None = None,
    **how: Any,
) -> Evaluation:
    """Evaluate a trained run on the test split of its training data, or on other data.

    Args:
        run: A run folder, or a model on the Hugging Face hub.
        data: A path, a hub id, a Hugging Face dataset or a DataFrame. By default, the training data.
        split: Name of the split. By default `test`, or else `validation`; of other data without these, all of it.
        permute: Seed of one fixed permutation of the elements of every input. By default, that of the run.
        max_bad: Largest share of rows that may fail to decode. By default that of the training.
        how: The arguments of `perceivers.load`: `device`, `batch_size` (here 128), `quantize`, `clips`, `without`,
            `tta`.

    Results on the training data's splits with the defaults are written to the run folder (`evaluation-test.json`),
    for reports and comparisons.

    Raises:
        ValueError: If the run does not know its data and none is given, if the split does not exist, or if
            the data hold a label that was not seen in training.
    """
    settings: dict[str, Any] = {"batch_size": 128, **how}
    predictor = load_predictor(run, **settings)
    source = open_for_run(predictor, data)
    if max_bad is None:
        max_bad = data_config(predictor).max_bad
    chosen = choose_split(source, split, own=data is None)
    if permute is not None:
        predictor.model.set_permutation(permute)
    baseline = None
    if predictor.task.has_baseline:
        baseline = _baseline(predictor, source if data is None else None)
    how_measured: Any = {"max_bad": max_bad, "baseline": baseline}
    if chosen == "validation" and source.folds:
        found = _evaluate_folds(predictor, source, **how_measured)
    else:
        found = evaluate_source(predictor, source, chosen, **how_measured)
    if source.new_rows:
        found = replace(found, remarks=(*found.remarks, _new_rows_remark(source.new_rows)))
    as_trained = not any(how.get(name) for name in ("quantize", "clips", "without"))
    as_trained = as_trained and how.get("tta", True)
    if data is None and permute is None and as_trained:
        plain = without_names(as_dict(found))
        text = json.dumps(plain, indent=1) + "\n"
        file = predictor.folder / f"evaluation-{found.split}.json"
        with suppress(OSError), atomic_write(file) as path:  # unless the folder is read-only
            path.write_text(text, encoding="utf-8")
    return found


def _new_rows_remark(count: int) -> str:
    verb = "is" if count == 1 else "are"
    return (
        f"{counted(count, 'row')} of the data {verb} new since the training and left out; copy them to a folder or "
        "file of their own to measure on them."
    )


def _baseline(predictor: Predictor, data: DatasetBundle | None) -> Baseline | None:
    """Return the baseline of the task, fitted to the training split; None if the training data are gone."""
    if data is None:
        try:
            data = open_for_run(predictor)
        except (ValueError, OSError):
            return None
    task = predictor.task
    with torch.inference_mode():
        return task.fit_baseline(
            task.prepare_batch(moved.inputs, moved.masks, None, training=False)
            for batch in loader_for(predictor, data, "train")
            for moved in (batch.to(predictor.device),)
        )


def open_for_run(predictor: Predictor, data: Any = None) -> DatasetBundle:
    """Return the data of a run, or other data opened with the run's configuration.

    Raises:
        ValueError: If the run does not know where its data are, or a label was not seen in training.
    """
    config = data_config(predictor)
    remembered = predictor.config.columns.get("data")
    if data is None and remembered is None:
        raise ValueError(
            f"The run '{predictor.folder}' does not know which data it learned from: they were an "
            "object, not a path. Give the data to measure on: perceivers evaluate RUN DATA."
        )
    is_own = data is None or remembered in (str(data), str(Path(str(data)).absolute()))
    if not is_own:  # the split of the training data does not apply to other data
        config = replace(config, split_column=None, test=None, group=None)
    source = open_data(
        remembered if data is None else data,
        config,
        label_names=None if predictor.config.task is None else predictor.config.task.known_names,
        inputs=predictor.config.input_columns(targets=True),
    )
    # The same hold-out as in training, by the keys of its rows, also if rows were added since.
    saved = read_splits(predictor.folder) if is_own else None
    saved = None if saved is None else replace(saved, takes_new=False)
    held_out, task = config if is_own else None, predictor.config.task
    if task is not None and task.target_kind == "nothing":
        return split_for_task(source, task, predictor.preprocess, held_out, saved)
    if held_out is None:
        return source
    # A validation split of the data is none of the folds.
    num_members = 1 if "validation" in source.splits else predictor.config.num_members
    return with_validation(source, held_out, saved, num_folds=num_members)


def data_config(predictor: Predictor) -> DataConfig:
    """Return the data configuration of a run, with the kind of target that its task learns."""
    config = DataConfig(**predictor.config.columns.get("config", {}))
    task = predictor.config.task
    if task is None:
        return config
    if task.subtasks:
        kinds = [f"{name}:{part.target_kind}" for name, part in task.subtasks.items()]
        return replace(config, label=",".join(kinds))
    return replace(config, target=task.target_kind)


def choose_split(source: DatasetBundle, split: str | None, *, own: bool) -> str:
    """Return the name of the split to evaluate on. By default, the first that exists of test and validation.

    Of other data than those that the run learned from (not `own`), the training split is the last default.

    Raises:
        ValueError: If there is no such split.
    """
    known = source.streams or source.splits
    order = [split] if split else ["test", "validation", *([] if own else ["train"])]
    for name in order:
        if name in known:
            return name
    raise ValueError(
        f"Expected a {' or '.join(order)} split in the data; there is: {', '.join(known)}."
    )


@torch.inference_mode()
def evaluate_source(
    predictor: Predictor,
    source: DatasetBundle,
    split: str,
    *,
    max_bad: float = 0.01,
    baseline: Baseline | None = None,
) -> Evaluation:
    """Evaluate a predictor on one split of opened data, and a baseline beside it.

    Rows that cannot be decoded are left out and counted, up to the share `max_bad`.

    Raises:
        ValueError: If the split has no labels, or too many of its rows cannot be decoded.
    """
    task = predictor.task
    meter, mistakes = task.meter(), WorstMistakes(task)
    bad = _measure(predictor, source, split, meter, mistakes, max_bad=max_bad, baseline=baseline)
    return _with_remarks(predictor, source, split, meter, mistakes, bad, baseline)


@torch.inference_mode()
def _evaluate_folds(
    predictor: Predictor, source: DatasetBundle, *, max_bad: float, baseline: Baseline | None
) -> Evaluation:
    """Evaluate each member of an ensemble on the fold that it has not learned, and return the results of all."""
    task = predictor.task
    meter, mistakes = task.meter(), WorstMistakes(task)
    bad: list[tuple[str, str]] = []
    states: list[dict[str, Any]] = []
    for index in range(len(source.folds)):
        one = task.meter()
        bad += _measure(
            predictor.member(index),
            source.fold(index),
            "validation",
            one,
            mistakes,
            max_bad=max_bad,
            baseline=baseline,
        )
        states.append(one.state())
    meter.merge(states)
    found = _with_remarks(predictor, source, "validation", meter, mistakes, bad, baseline)
    remark = (
        f"Out of fold: each row is predicted by the one of the {len(states)} members that has not learned it. The "
        "average of all members, which `perceivers predict` returns, is usually better."
    )
    return replace(found, remarks=(remark, *found.remarks))


def _measure(
    predictor: Predictor,
    source: DatasetBundle,
    split: str,
    meter: Meter,
    mistakes: WorstMistakes,
    *,
    max_bad: float,
    baseline: Baseline | None,
) -> list[tuple[str, str]]:
    """Add the rows of a split to a meter, to the worst mistakes and to a baseline; return the bad rows."""
    config = predictor.config.task
    if source.target is None and (config is None or config.requires_labels):
        raise ValueError(
            f"These data have no labels to measure against ({source.form}). Use predict instead."
        )
    loader = loader_for(predictor, source, split, max_bad)
    streams = source.streams
    total = streams[split].num_rows if streams else len(source.splits[split])
    for batch in tracked(loader, total, size=len):
        moved, prepared, combined = _finite_outputs(predictor, loader, batch)
        if moved is None:
            continue
        meter.update(combined, prepared.targets)
        mistakes.add(combined, prepared.targets, moved.names, moved.rows)
        if baseline is not None:
            baseline.update(prepared.targets)
    return list(loader.bad)


def _with_remarks(
    predictor: Predictor,
    source: DatasetBundle,
    split: str,
    meter: Meter,
    mistakes: WorstMistakes,
    bad: Sequence[tuple[str, str]],
    baseline: Baseline | None,
) -> Evaluation:
    """Return the evaluation of a meter that has all rows, with sentences on it."""
    task = predictor.task
    plan = predictor.quantization
    found = _evaluation(split, task, meter, mistakes)
    if baseline is not None:
        found = replace(found, metrics=baseline.add_to(found.metrics))
    remarks = task.remarks(has_baseline=baseline is not None)
    if task.config.reports_compression:
        remarks.insert(0, f"Compression: {compression(predictor.config.model).sentence()}.")
    return replace(
        found,
        bad=tuple(bad),
        notes=source.notes,
        remarks=tuple(remarks),
        quantization=None if plan is None else plan.sentence(),
    )


def _finite_outputs(predictor: Predictor, loader: Any, batch: Batch) -> tuple[Any, Any, Any]:
    """Return a batch, prepared, and its outputs, without the samples that have no finite output.

    These are reported to the loader as bad rows. All is None if no sample is left.
    """
    moved, task = batch.to(predictor.device), predictor.task
    while True:
        prepared = task.prepare_batch(moved.inputs, moved.masks, moved.targets, training=False)
        combined = combine_clips(task, predictor.infer(prepared), moved.num_clips)
        are_finite = finite_rows(combined, len(moved))
        if all(are_finite):
            return moved, prepared, combined
        for name, is_finite in zip(moved.names, are_finite, strict=True):
            if not is_finite:
                loader.report_bad(name, str(predictor.not_finite(name)))
        left = [place for place, is_finite in enumerate(are_finite) if is_finite]
        if not left:
            return None, None, None
        moved = moved.select(left)


def _evaluation(split: str, task: Task, meter: Meter, mistakes: WorstMistakes) -> Evaluation:
    """Return the metrics of a meter; for several tasks, also those of each that had a sample."""
    metrics = meter.compute()
    counts = meter.confusion
    parts = {
        name: _evaluation(split, task.parts[name], one, mistakes.parts[name])
        for name, one in meter.parts.items()
    }
    return Evaluation(
        split=split,
        num_samples=int(metrics["samples"]),
        metrics=metrics,
        main_metric=task.main_metric,
        label_names=task.names,
        confusion=None if counts is None else tuple(map(tuple, counts.tolist())),
        details=meter.details(),
        intervals=meter.intervals(),
        detail_intervals=meter.detail_intervals(),
        calibration=meter.calibration(getattr(task.config, "temperature", 1.0)),
        curves=meter.curves(),
        mistakes=tuple(mistakes.found),
        tasks={name: one for name, one in parts.items() if one.num_samples},
    )


def loader_for(
    predictor: Predictor, source: DatasetBundle, split: str, max_bad: float = 0.01
) -> Any:
    """Return batches of one split of opened data for a predictor, every row once and in order."""
    settings = LoaderSettings(
        batch_size=predictor.batch_size,
        num_workers=divide_cores(os.cpu_count() or 1)[1],
        num_classes=predictor.task.num_outputs,
        max_bad=max_bad,
        num_clips=predictor.clips,
        target_modalities=predictor.config.target_modalities,
    )
    how: Any = {"preprocess": predictor.preprocess, "augment": None, "settings": settings}
    if source.streams:
        from perceivers.data.loading.stream_loader import make_stream_loader

        return make_stream_loader(source.streams[split], source.inputs, source.target, **how)
    targets = None if source.target is None else source.targets(split)
    return make_loader(source.splits[split], source.inputs, targets, **how)


def as_dict(evaluation: Evaluation) -> dict[str, Any]:
    """Return the evaluation as plain data for JSON."""
    result: dict[str, Any] = {
        "split": evaluation.split,
        "num_samples": evaluation.num_samples,
        "metrics": evaluation.metrics,
        "intervals": {name: list(ends) for name, ends in evaluation.intervals.items()},
    }
    if evaluation.confusion is not None:
        result["recall"] = evaluation.recall()
        result["classes"] = {one.name: _class_as_dict(one) for one in evaluation.classes()}
        result["confusion"] = [list(row) for row in evaluation.confusion]
    if evaluation.tasks:
        of_run = {"split", "quantization", "unreadable"}
        result["tasks"] = {
            name: {key: value for key, value in as_dict(one).items() if key not in of_run}
            for name, one in evaluation.tasks.items()
        }
    if evaluation.details:
        result["details"] = dict(zip(evaluation.label_names, evaluation.details, strict=True))
    if evaluation.detail_intervals:
        result["detail_intervals"] = {
            name: {metric: list(ends) for metric, ends in one.items()}
            for name, one in zip(evaluation.label_names, evaluation.detail_intervals, strict=True)
        }
    if evaluation.calibration is not None:
        result["calibration"] = asdict(evaluation.calibration)
    if evaluation.curves:
        result["curves"] = [asdict(one) for one in evaluation.curves]
    if evaluation.mistakes:
        result["mistakes"] = [asdict(one) for one in evaluation.mistakes]
    if evaluation.remarks:
        result["remarks"] = list(evaluation.remarks)
    result["label_names"] = list(evaluation.label_names)
    result["quantization"] = evaluation.quantization
    result["unreadable"] = [{"name": name, "reason": reason} for name, reason in evaluation.bad]
    return result


def _class_as_dict(one: ClassResult) -> dict[str, Any]:
    """Return recall and precision of a class, each with its interval; null where they are undefined."""
    return {
        "n": one.n,
        "recall": one.recall,
        "recall_interval": one.recall_interval,
        "predicted": one.predicted,
        "precision": one.precision,
        "precision_interval": one.precision_interval,
    }


def without_names(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain data of an evaluation without the names of samples and bad rows: file names may be private."""
    found = {key: value for key, value in plain.items() if key != "unreadable"}
    if "mistakes" in found:
        found["mistakes"] = [{**one, "name": ""} for one in found["mistakes"]]
    if "tasks" in found:
        found["tasks"] = {name: without_names(one) for name, one in found["tasks"].items()}
    return found


evaluate = evaluate_run
