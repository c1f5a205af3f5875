"""Data loaders of a run: batch sizes, worker processes and caches that fit the machine."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from perceivers.data.fingerprint import value_fingerprint
from perceivers.data.loading.loader import LoaderSettings, make_loader
from perceivers.data.loading.stream_loader import make_stream_loader
from perceivers.data.loading.workers import divide_cores
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.data.tables.memory import available_memory
from perceivers.recipes.registry import Recipe, TrainingConfig
from perceivers.wording import counted

_CACHE_SHARE = 0.3  # of the free memory, for decoded samples


@dataclass(frozen=True, kw_only=True)
class ProcessInfo:
    """Rank of this process, the number of processes, in all and on this machine, and whether it computes on a GPU."""

    rank: int = 0
    world_size: int = 1
    local_processes: int = 1
    is_gpu: bool = False

    def threads_and_workers(self, workers: int | None) -> tuple[int, int]:
        """Return this process' share of the cores: compute threads and worker processes (those requested, if any)."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return divide_cores(max(1, (cores or 1) // self.local_processes), workers)


def num_rows(source: DatasetBundle, split: str) -> int | None:
    """Return the number of rows of a split; None for a stream that has not been read yet."""
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
        world_size: Number of processes.
        rows: Training samples; None if unknown.

    Raises:
        ValueError: If a step cannot be divided into equal batches.
    """
    parts = accumulate * world_size
    if accumulate < 1 or batch_size < 1 or batch_size % parts:
        raise ValueError(
            f"--batch-size is the size of an optimizer step and must be a multiple of "
            f"--accumulate times the number of devices; got {batch_size} for {accumulate} x "
            f"{world_size}. The next that fits is {max(1, -(-batch_size // max(parts, 1))) * max(parts, 1)}."
        )
    if rows is None or rows >= batch_size:
        return batch_size // parts, ""
    if rows < parts:
        raise ValueError(
            f"Expected at least {parts} training samples for {accumulate} x {world_size}, got {rows}."
        )
    size = rows // parts
    return (
        size,
        f"Steps of {counted(size * parts, 'sample')}: train has {rows}, fewer than the batch size of {batch_size}.",
    )


def step_parts(config: TrainingConfig, world_size: int, rows: int | None) -> tuple[int, int, str]:
    """Return the samples of a batch of one process, the batches of a step, and the sentence of `step_size`.

    With `batch="auto"` the batch is the whole step of the process, until the batch size finder has run. Arguments and
    errors as for `step_size`.
    """
    if config.batch is None:
        size, text = step_size(config.batch_size, config.accumulate, world_size, rows)
        return size, config.accumulate, text
    size, text = step_size(config.batch_size, 1, world_size, rows)
    if config.batch == "auto":
        return size, 1, text
    if config.accumulate != 1:
        raise ValueError(
            f"Give --batch or --accumulate, not both: with --batch {config.batch}, the batches of a step follow "
            f"from --batch-size {config.batch_size}. Expected --accumulate 1, got {config.accumulate}."
        )
    is_full = size * world_size == config.batch_size  # otherwise there are too few training samples
    if config.batch < 1 or (is_full and size % config.batch):
        fitting = [n for n in range(1, size + 1) if size % n == 0]
        raise ValueError(
            f"--batch must divide the {counted(size, 'sample')} that each device has in a step (--batch-size "
            f"{config.batch_size}, devices {world_size}); got {config.batch}. Expected one of "
            f"{', '.join(map(str, fitting[-8:]))}, or auto."
        )
    batch = min(config.batch, size)
    return batch, size // batch, text


def step_text(settings: LoaderSettings, accumulate: int) -> str:
    """Describe a step: `128 samples: 4 batches of 16 on each of 2 devices`."""
    size, devices = settings.batch_size, settings.world_size
    parts = f"{accumulate} batches of {size}" if accumulate > 1 else f"one batch of {size}"
    where = f" on each of {devices} devices" if devices > 1 else ""
    return f"{counted(size * accumulate * devices, 'sample')}: {parts}{where}"


def _fingerprint(
    source: DatasetBundle,
    preprocess: Mapping[str, Any],
    augment: Mapping[str, Any] | None = None,
) -> str:
    """Return a fingerprint of the configuration of decoding, which decoded samples in a shared cache depend on.

    The samples themselves are identified row by row, by the loader.
    """
    columns = {name: asdict(column) for name, column in source.inputs.items()}
    settings = {name: asdict(part) for name, part in preprocess.items()}
    # Videos are stored larger if crops are cut from them.
    crops = {
        n: getattr(part, "crop_scale", None) is not None for n, part in (augment or {}).items()
    }
    return value_fingerprint([version("perceivers"), columns, settings, crops])


def build_loaders(
    source: DatasetBundle,
    recipe: Recipe,
    preprocess: Mapping[str, Any],
    *,
    batch_size: int,
    process: ProcessInfo,
    drop_last: bool = True,
) -> tuple[Any, Any]:
    """Return the data loaders of the training and the validation split.

    Args:
        source: The data.
        recipe: The recipe.
        preprocess: Preprocessing of each modality.
        batch_size: Samples of a batch of one process.
        process: This process.
        drop_last: Drop the last, incomplete batch in training.
    """
    is_shared = recipe.data.cache is not None  # a folder that other runs may use, too
    # The width of mixed targets; of several tasks, of each.
    subtasks = {name: len(part.output_names) for name, part in recipe.task.subtasks.items()}
    cache_bytes = _CACHE_SHARE * (available_memory() or 0) / process.local_processes

    # A small validation split alone would turn one bad file into a large share.
    rows = None if source.streams else sum(len(source.splits[s]) for s in ("train", "validation"))

    def loader(split: str, *, training: bool) -> Any:
        augment = recipe.augment if training else None
        settings = LoaderSettings(
            batch_size=batch_size,
            training=training,
            seed=recipe.training.seed,
            num_workers=process.threads_and_workers(recipe.data.workers)[1],
            num_classes=subtasks or recipe.output.num_outputs,
            max_bad=recipe.data.max_bad,
            drop_last=drop_last,
            num_rows=rows,
            world_size=process.world_size,
            rank=process.rank,
            pin_memory=process.is_gpu,
            target_modalities=recipe.task.target_modalities,
            cache=recipe.data.cache,
            sample_cache_bytes=int(cache_bytes * (0.8 if training else 0.2)),
            fingerprint=_fingerprint(source, preprocess, augment) if is_shared else "",
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
