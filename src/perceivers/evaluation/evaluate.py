"""How good a trained model is on a whole split, by the protocol of its task."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from perceivers.data.base import DataConfig, atomic_write
from perceivers.data.loading.loader import LoaderSettings, divide_cores, make_loader
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.data.sources.open import open_data
from perceivers.data.sources.split import with_validation
from perceivers.evaluation.mean_baseline import MeanAnswers, mean_answers
from perceivers.evaluation.predict import Predictor, load_predictor
from perceivers.models.compression import compression
from perceivers.recipes.resolve import split_for_task
from perceivers.tasks.autoencode import AutoencodeTask
from perceivers.tasks.base import Details, Meter, Task, combine_clips
from perceivers.tasks.multitask import MultiTask, MultiTaskConfig, MultiTaskMeter
from perceivers.tasks.registry import TARGET_KINDS, known_names, target_of
from perceivers.typing import Tensor

__all__ = ["Evaluation", "evaluate_run", "evaluate_source"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was measured, and on what.

    Attributes:
        split: Name of the split: `test`, `validation` or `train`.
        num_samples: How many samples were measured.
        metrics: Value of each measure by its name; shares in [0, 1].
        main_metric: Name of the measure by which runs are compared.
        label_names: Index -> class, label or number.
        confusion: Samples by true class (rows) and predicted class (columns). None where a sample has several labels
            or none, or numbers are predicted.
        details: For each label or number, its own measures. Empty where there is a confusion matrix.
        bad: Name and reason of every sample that could not be read. They are not measured.
        notes: What was seen in the data and chosen.
        remarks: What must be known to read the numbers: of reconstructions, how small the latents are.
        quantization: Which layers had int8 weights, or why none; None where it was not asked for.
        tasks: Of several tasks, what was measured of each, by its name.
    """

    split: str
    num_samples: int
    metrics: dict[str, float]
    main_metric: str
    label_names: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...] | None = None
    details: Details = field(default_factory=Details)
    bad: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    quantization: str | None = None
    tasks: dict[str, "Evaluation"] = field(default_factory=dict[str, "Evaluation"])

    def recall(self) -> dict[str, float | None]:
        """Return, for each class, the share of its samples that were recognized; None without samples."""
        if self.confusion is None:
            return {}
        return {
            name: row[index] / sum(row) if sum(row) else None
            for index, (name, row) in enumerate(zip(self.label_names, self.confusion, strict=True))
        }


def evaluate_run(
    run: str | Path,
    data: Any = None,
    *,
    split: str | None = None,
    permute: int | None = None,
    max_bad: float | None = None,
    **how: Any,
) -> Evaluation:
    """Measure a trained run on its own data's test split, or on other data.

    Args:
        run: A run folder, or a model on the Hugging Face hub.
        data: A path, a hub id, a Hugging Face dataset or a DataFrame. By default, what the run learned from.
        split: Which split. By default `test`, or else `validation`; of other data without these, all of it.
        permute: Seed of one fixed permutation of the elements of every input. By default, the run's own.
        max_bad: Largest share of rows that may fail to decode. By default that of the training.
        how: How it predicts, as `perceivers.load` takes it: `device`, `batch_size` (here 128), `quantize`, `clips`,
            `without`.

    What is found on the run's own data, read as in training, is kept in its folder (`evaluation-test.json`), for
    reports and comparisons.

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
    means = None
    if isinstance(predictor.task, AutoencodeTask):
        means = _means_of_training(predictor, predictor.task, source if data is None else None)
    found = evaluate_source(predictor, source, chosen, max_bad=max_bad, means=means)
    as_trained = not any(how.get(name) for name in ("quantize", "clips", "without"))
    if data is None and permute is None and as_trained:
        _keep(found, predictor.folder)
    return found


def _keep(evaluation: Evaluation, folder: Path) -> None:
    """Write an evaluation into the folder of its run. Where that cannot be written, it is measured all the same."""
    told = as_dict(evaluation)
    del told["unreadable"]  # names of files, which nobody asked to be kept
    text = json.dumps(told, indent=1, ensure_ascii=False) + "\n"
    with suppress(OSError), atomic_write(folder / f"evaluation-{evaluation.split}.json") as path:
        path.write_text(text, encoding="utf-8")


def _means_of_training(
    predictor: Predictor, task: AutoencodeTask, own: DatasetBundle | None
) -> Mapping[str, Tensor] | None:
    """Return the mean of every value over the split that a run learned from; None where it is not there any more."""
    if own is None:
        try:
            own = open_for_run(predictor)
        except (ValueError, OSError):
            return None
    with torch.inference_mode():
        return mean_answers(task, loader_for(predictor, own, "train"), predictor.device)


def open_for_run(predictor: Predictor, data: Any = None) -> DatasetBundle:
    """Return the data of a run, or other data read as the run's were.

    Raises:
        ValueError: If the run does not know where its data are, or a label was not seen in training.
    """
    config = data_config(predictor)
    remembered = predictor.config.columns.get("data")
    if data is None and remembered is None:
        msg = (
            f"The run '{predictor.folder}' does not know which data it learned from: they were an "
            "object, not a path. Give the data to measure on: perceivers evaluate RUN DATA."
        )
        raise ValueError(msg)
    is_own = data is None or remembered in (str(data), str(Path(str(data)).absolute()))
    if not is_own:  # how the run's data were divided says nothing about others
        config = replace(config, split_column=None, test=None, group=None)
    source = open_data(
        remembered if data is None else data,
        config,
        label_names=None if predictor.config.task is None else known_names(predictor.config.task),
        inputs=predictor.config.input_columns(answers=True),
    )
    # The same hold-out as in training: fixed by a seed that the run remembers.
    held_out, task = config if is_own else None, predictor.config.task
    if task is not None and target_of(task) == "nothing":
        return split_for_task(source, task, predictor.preprocess, held_out)
    return source if held_out is None else with_validation(source, held_out)


def data_config(predictor: Predictor) -> DataConfig:
    """Return how the data of a run were read. What their target is, the run's task knows."""
    config = DataConfig(**predictor.config.columns.get("config", {}))
    task = predictor.config.task
    if isinstance(task, MultiTaskConfig):
        kinds = {name: TARGET_KINDS[part.kind] for name, part in task.parts.items()}
        return replace(config, label=",".join(f"{name}:{kind}" for name, kind in kinds.items()))
    return config if task is None else replace(config, target=target_of(task))


def choose_split(source: DatasetBundle, split: str | None, *, own: bool) -> str:
    """Return the name of the split to measure.

    Args:
        source: The data.
        split: What was asked for, if anything.
        own: Whether the run learned from these data. Its training split is then never chosen unasked.

    Raises:
        ValueError: If there is no such split.
    """
    there = source.streams or source.splits
    order = [split] if split else ["test", "validation", *([] if own else ["train"])]
    for name in order:
        if name in there:
            return name
    msg = f"Expected a {' or '.join(order)} split in the data; there is: {', '.join(there)}."
    raise ValueError(msg)


@torch.inference_mode()
def evaluate_source(
    predictor: Predictor,
    source: DatasetBundle,
    split: str,
    *,
    max_bad: float = 0.01,
    means: Mapping[str, Tensor] | None = None,
) -> Evaluation:
    """Measure a predictor on one split of opened data.

    Args:
        predictor: A trained model.
        source: The data.
        split: One of its splits.
        max_bad: Largest share of rows that may fail to decode. They are left out and counted.
        means: Of each modality that is reconstructed, the mean over training: measured beside the reconstructions.

    Raises:
        ValueError: If the split has no labels, or too many of its rows cannot be read.
    """
    config = predictor.config.task
    if source.target is None and (config is None or TARGET_KINDS[config.kind] != "nothing"):
        msg = f"These data have no labels to measure against ({source.form}). Use predict instead."
        raise ValueError(msg)
    task = predictor.task
    meter = task.meter()
    yardstick = None
    if isinstance(task, AutoencodeTask) and means is not None:
        yardstick = MeanAnswers(task, means)
    loader = loader_for(predictor, source, split, max_bad)
    for batch in loader:
        moved = batch.to(predictor.device)
        asked = task.pose(moved.inputs, moved.masks, moved.targets, training=False)
        outputs = predictor.answer(asked)
        meter.update(combine_clips(task, outputs, moved.num_clips), asked.targets)
        if yardstick is not None:
            yardstick.update(asked.targets)
    plan = predictor.quantization
    measured = _measured(split, task, meter)
    if yardstick is not None:
        measured = replace(measured, metrics=yardstick.beside(measured.metrics))
    return replace(
        measured,
        bad=tuple(loader.bad),
        notes=source.notes,
        remarks=_remarks(predictor, yardstick is not None),
        quantization=None if plan is None else plan.sentence(),
    )


def _measured(split: str, task: Task, meter: Meter) -> Evaluation:
    """Return what a meter says; of several tasks, also of each that had a sample."""
    metrics = meter.compute()
    counts = getattr(meter, "confusion", None)
    confusion = None if counts is None else tuple(map(tuple, counts.tolist()))
    tasks: dict[str, Evaluation] = {}
    if isinstance(task, MultiTask) and isinstance(meter, MultiTaskMeter):
        found = {name: _measured(split, task.parts[name], one) for name, one in meter.parts.items()}
        tasks = {name: one for name, one in found.items() if one.num_samples}
    return Evaluation(
        split=split,
        num_samples=int(metrics["samples"]),
        metrics=metrics,
        main_metric=task.main_metric,
        label_names=task.names,
        confusion=confusion,
        details=meter.details(),
        tasks=tasks,
    )


def _remarks(predictor: Predictor, has_means: bool) -> tuple[str, ...]:
    """Return what must be known to read the measures of reconstructions."""
    if not isinstance(predictor.task, AutoencodeTask):
        return ()
    peaks = {name: part.peak for name, part in predictor.task.config.parts.items()}
    told = ", ".join(f"{peak:g} of {name}" for name, peak in peaks.items())
    sentences = [
        f"Compression: {compression(predictor.config.model).sentence()}.",
        f"PSNR is relative to a peak of {told}: pixels are in [0, 1], samples in [-1, 1], others in deviations.",
    ]
    if has_means:
        sentences.append(
            "..._mean_psnr is what the mean of every value over the training split would reach."
        )
    else:
        sentences.append(
            "The data that the run learned from are not there, so that their mean is not measured."
        )
    return tuple(sentences)


def loader_for(
    predictor: Predictor, source: DatasetBundle, split: str, max_bad: float = 0.01
) -> Any:
    """Return one split of opened data as batches for a predictor, every row once and in order."""
    settings = LoaderSettings(
        batch_size=predictor.batch_size,
        num_workers=divide_cores(os.cpu_count() or 1)[1],
        num_classes=predictor.task.num_outputs,
        max_bad=max_bad,
        num_clips=predictor.clips,
        target_modalities=predictor.config.answers,
    )
    if source.streams:
        from perceivers.data.loading.stream_loader import make_stream_loader

        return make_stream_loader(
            source.streams[split],
            source.inputs,
            source.target,
            preprocess=predictor.preprocess,
            augment=None,
            settings=settings,
        )
    return make_loader(
        source.splits[split],
        source.inputs,
        None if source.target is None else source.targets(split),
        preprocess=predictor.preprocess,
        augment=None,
        settings=settings,
    )


def as_dict(evaluation: Evaluation) -> dict[str, Any]:
    """Return the evaluation as plain data for JSON."""
    result: dict[str, Any] = {
        "split": evaluation.split,
        "num_samples": evaluation.num_samples,
        "metrics": evaluation.metrics,
    }
    if evaluation.confusion is not None:
        result["recall"] = evaluation.recall()
        result["confusion"] = [list(row) for row in evaluation.confusion]
    if evaluation.tasks:
        result["tasks"] = {name: _of_task(one) for name, one in evaluation.tasks.items()}
    if evaluation.details:
        result["details"] = dict(zip(evaluation.label_names, evaluation.details, strict=True))
    if evaluation.remarks:
        result["remarks"] = list(evaluation.remarks)
    result["label_names"] = list(evaluation.label_names)
    result["quantization"] = evaluation.quantization
    result["unreadable"] = [{"name": name, "reason": reason} for name, reason in evaluation.bad]
    return result


def _of_task(evaluation: Evaluation) -> dict[str, Any]:
    """Return what was measured of one of several tasks."""
    whole = as_dict(evaluation)
    return {key: whole[key] for key in whole if key not in {"split", "quantization", "unreadable"}}
