"""What a run needs before its first step: a folder, a model, loaders that fit the machine."""

import hashlib
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from perceivers.data.base import atomic_write
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.loading.loader import LoaderSettings, divide_cores, make_loader
from perceivers.data.loading.stream_loader import make_stream_loader
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.data.tables.memory import available_memory
from perceivers.models.perceiver import Perceiver, build
from perceivers.recipes.files import dump_recipe, read_recipe
from perceivers.recipes.registry import Recipe, TrainingConfig
from perceivers.tasks.base import Task
from perceivers.tasks.classification import ClassificationConfig
from perceivers.tasks.multitask import MultiTaskConfig
from perceivers.tasks.registry import TaskConfig, answers_of, names_of
from perceivers.tasks.registry import build_task as task_of
from perceivers.training.resume import check_same_recipe

__all__ = [
    "BEST",
    "LAST",
    "RECIPE_FILE",
    "ProcessInfo",
    "as_begun",
    "build_loaders",
    "build_model",
    "build_task",
    "keep_recipe",
    "num_rows",
    "open_folder",
    "step_parts",
    "step_size",
    "step_text",
]

RECIPE_FILE = "recipe.yaml"
_KEPT_SHARE = 0.3  # of the free memory, for decoded samples
LAST, BEST = "checkpoints/last.ckpt", "checkpoints/best.ckpt"


@dataclass(frozen=True, kw_only=True)
class ProcessInfo:
    """Which of the processes this is, and what it may use.

    Attributes:
        rank: Of this process.
        world_size: Number of processes.
        local_processes: Of them on this machine.
        is_gpu: Whether a GPU computes.
    """

    rank: int = 0
    world_size: int = 1
    local_processes: int = 1
    is_gpu: bool = False

    def threads_and_workers(self, workers: int | None) -> tuple[int, int]:
        """Return this process' share of the cores: threads that compute, processes that decode.

        Args:
            workers: Processes that were asked for. None: a share.
        """
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return divide_cores(max(1, (cores or 1) // self.local_processes), workers)


def open_folder(out: Path, recipe: Recipe, *, resume: bool, last: Path) -> Path | None:
    """Make a run's folder, or find the checkpoint with which it goes on.

    Args:
        out: The folder.
        recipe: Of the run.
        resume: Go on with the run that is there.
        last: Where its checkpoint would be.

    Returns:
        The checkpoint, or None if the run begins.

    Raises:
        ValueError: If a run is there and was not meant, or has another recipe.
        OSError: If there is none to go on with, or the folder cannot be made.
    """
    recipe_file = out / RECIPE_FILE
    if resume:
        if not recipe_file.exists():
            msg = (
                f"There is no run to resume in {out}: it has no {RECIPE_FILE}. Expected the --out of a "
                "run that was interrupted; without --resume, a new one begins."
            )
            raise OSError(msg)
        check_same_recipe(read_recipe(recipe_file), recipe, out)
        return last if last.exists() else None  # it was interrupted before its first checkpoint
    if recipe_file.exists() or last.exists():
        msg = (
            f"{out} holds a run already. Go on with it by --resume, or choose another --out "
            "for a new one."
        )
        raise ValueError(msg)
    if out.exists() and not out.is_dir():
        msg = f"{out} is a file. Expected a folder for the run, new or empty (--out)."
        raise ValueError(msg)
    keep_recipe(out, recipe)
    return None


def keep_recipe(folder: Path, recipe: Recipe) -> None:
    """Write the recipe of a run into its folder."""
    with atomic_write(folder / RECIPE_FILE) as new:
        new.write_bytes(dump_recipe(recipe).encode())


def as_begun(recipe: Recipe, folder: Path) -> Recipe:
    """Return the recipe with the batch that the run in `folder` has found, if `auto` asks for one again."""
    path = folder / RECIPE_FILE
    if recipe.training.batch != "auto" or not path.exists():
        return recipe
    found = read_recipe(path).training
    training = replace(recipe.training, batch=found.batch, accumulate=found.accumulate)
    return replace(recipe, training=training)


def build_model(recipe: Recipe) -> Perceiver:
    """Return a fresh model of a recipe."""
    return build(recipe.model_config())


def build_task(recipe: Recipe, source: DatasetBundle) -> Task:
    """Return the task of a recipe; the weights of unequal classes are counted in train."""
    task = recipe.task
    if isinstance(task, MultiTaskConfig):
        balanced = [name for name, part in task.parts.items() if _is_balanced(part)]
        return task_of(task, {name: source.class_counts("train", name) for name in balanced})
    return task_of(task, source.class_counts("train") if _is_balanced(task) else None)


def _is_balanced(task: TaskConfig) -> bool:
    return isinstance(task, ClassificationConfig) and task.class_weights == "balanced"


def _num_classes(recipe: Recipe) -> int | dict[str, int] | None:
    """Return the width of mixed targets; of several tasks, of each."""
    if isinstance(recipe.task, MultiTaskConfig):
        return {name: len(names_of(part)) for name, part in recipe.task.parts.items()}
    return recipe.output.num_outputs


def num_rows(source: DatasetBundle, split: str) -> int | None:
    """Return the rows of a split, or None where a stream does not know before it was read."""
    if split in source.streams:
        return source.streams[split].num_rows
    return len(source.splits[split])


def step_size(
    batch_size: int, accumulate: int, world_size: int, rows: int | None
) -> tuple[int, str]:
    """Return the samples of one batch of one process, and a sentence if there are too few rows for it.

    Args:
        batch_size: Samples of an optimizer step, over all batches and processes.
        accumulate: Batches of a step.
        world_size: Processes.
        rows: Samples in train, where that is known.

    Raises:
        ValueError: If a step cannot be divided so.
    """
    parts = accumulate * world_size
    if accumulate < 1 or batch_size < 1 or batch_size % parts:
        msg = (
            f"--batch-size is the whole optimizer step and must be a multiple of "
            f"--accumulate times the number of devices; got {batch_size} for {accumulate} x "
            f"{world_size}. The next that fits is {max(1, -(-batch_size // max(parts, 1))) * max(parts, 1)}."
        )
        raise ValueError(msg)
    if rows is None or rows >= batch_size:
        return batch_size // parts, ""
    if rows < parts:
        msg = f"Expected at least {parts} training samples for {accumulate} x {world_size}, got {rows}."
        raise ValueError(msg)
    size = rows // parts
    return (
        size,
        f"Steps of {size * parts} samples: train has {rows}, fewer than the {batch_size} asked for.",
    )


def step_parts(config: TrainingConfig, world_size: int, rows: int | None) -> tuple[int, int, str]:
    """Return the samples of a batch of one process, the batches of a step, and `step_size`'s sentence.

    With `batch="auto"` the batch is the whole step of the process, until it is known what fits.

    Args:
        config: Says how a step is divided.
        world_size: Processes.
        rows: Samples in train, where that is known.

    Raises:
        ValueError: If a step cannot be divided so.
    """
    if config.batch is None:
        size, text = step_size(config.batch_size, config.accumulate, world_size, rows)
        return size, config.accumulate, text
    size, text = step_size(config.batch_size, 1, world_size, rows)
    if config.batch == "auto":
        return size, 1, text
    if config.accumulate != 1:
        msg = (
            f"Give --batch or --accumulate, not both: with --batch {config.batch}, the batches of a step follow "
            f"from --batch-size {config.batch_size}. Expected --accumulate 1, got {config.accumulate}."
        )
        raise ValueError(msg)
    whole = (
        size * world_size == config.batch_size
    )  # else train is too small for it, and the text says so
    if config.batch < 1 or (whole and size % config.batch):
        fitting = [n for n in range(1, size + 1) if size % n == 0]
        msg = (
            f"--batch must divide the {size} samples that each device has in a step (--batch-size "
            f"{config.batch_size}, devices {world_size}); got {config.batch}. Expected one of "
            f"{', '.join(map(str, fitting[-8:]))}, or auto."
        )
        raise ValueError(msg)
    batch = min(config.batch, size)
    return batch, size // batch, text


def step_text(settings: LoaderSettings, accumulate: int) -> str:
    """Return how a step is made: `128 samples: 4 batches of 16 on each of 2 devices`."""
    size, devices = settings.batch_size, settings.world_size
    parts = f"{accumulate} batches of {size}" if accumulate > 1 else f"one batch of {size}"
    where = f" on each of {devices} devices" if devices > 1 else ""
    return f"{size * accumulate * devices} samples: {parts}{where}"


def sample_cache_bytes(local_processes: int, split: str) -> int:
    """Return the memory for decoded samples of a split: a share of what is free, most of it for train."""
    share = _KEPT_SHARE * (0.8 if split == "train" else 0.2)
    return int(share * (available_memory() or 0) / local_processes)


def fingerprint(
    source: DatasetBundle,
    split: str,
    preprocess: Mapping[str, Any],
    augment: Mapping[str, Any] | None = None,
) -> str:
    """Return what tells decoded samples of a split from those of other data, splits and settings.

    Data are told apart by a few of their rows: names, sizes and times of files, or what lies in the table itself.
    """
    columns = {name: asdict(column) for name, column in source.inputs.items()}
    settings = {name: asdict(part) for name, part in preprocess.items()}
    # Films of which crops are cut are kept larger.
    crops = {
        n: getattr(part, "crop_scale", None) is not None for n, part in (augment or {}).items()
    }
    known = [sorted(part.items()) for part in (columns, settings, crops)]
    told = repr((source.notes, split, known, _few_rows(source, split)))
    return hashlib.blake2b(told.encode(), digest_size=12).hexdigest()


def _few_rows(source: DatasetBundle, split: str) -> list[str]:
    """Return what tells a few rows of a split, spread over it, from others."""
    records = source.splits.get(split)
    names = dict.fromkeys(c for part in source.inputs.values() for c in part.all_columns)
    told: list[str] = []
    for index in sorted({round(i * (len(records) - 1) / 15) for i in range(16)} if records else ()):
        assert records is not None
        try:
            row = records.row(index)
        except (OSError, ValueError):  # it is named when it is to be learned from
            continue
        told += [_told(row.get(name)) for name in names]
    return told


def _told(cell: Any) -> str:
    """Return what tells a cell from others: of a file its name, size and time."""
    if not isinstance(cell, EncodedItem):
        return repr(cell)
    if cell.path is not None:
        try:
            about = cell.path.stat()
        except OSError:
            return cell.name
        return f"{cell.path.absolute()} {about.st_size} {about.st_mtime_ns}"
    return f"{cell.name} {zlib.crc32(cell.data or b'')} {cell.value!r}"


def build_loaders(
    source: DatasetBundle,
    recipe: Recipe,
    preprocess: Mapping[str, Any],
    *,
    batch_size: int,
    place: ProcessInfo,
) -> tuple[Any, Any]:
    """Return the loaders of train and validation.

    Args:
        source: With both splits.
        recipe: What is random, and how data are read.
        preprocess: For each input, and for what is learned where that is a modality, its size and statistics.
        batch_size: Samples of one batch of this process.
        place: Which process this is.
    """
    kept = recipe.data.cache is not None  # in a folder, which other runs may share

    def loader(split: str, *, training: bool) -> Any:
        augment = recipe.augment if training else None
        settings = LoaderSettings(
            batch_size=batch_size,
            training=training,
            seed=recipe.training.seed,
            num_workers=place.threads_and_workers(recipe.data.workers)[1],
            num_classes=_num_classes(recipe),
            max_bad=recipe.data.max_bad,
            world_size=place.world_size,
            rank=place.rank,
            pin_memory=place.is_gpu,
            target_modalities=answers_of(recipe.task),
            cache=recipe.data.cache,
            sample_cache_bytes=sample_cache_bytes(place.local_processes, split),
            fingerprint=fingerprint(source, split, preprocess, augment) if kept else "",
        )
        if split in source.streams:
            stream = source.streams[split]
            if training:
                stream = stream.shuffled(recipe.data.shuffle_buffer, settings.seed)
            return make_stream_loader(
                stream,
                source.inputs,
                source.target,
                preprocess=preprocess,
                augment=augment,
                settings=settings,
            )
        return make_loader(
            source.splits[split],
            source.inputs,
            None if source.target is None else source.targets(split),
            preprocess=preprocess,
            augment=augment,
            settings=settings,
        )

    return loader("train", training=True), loader("validation", training=False)
