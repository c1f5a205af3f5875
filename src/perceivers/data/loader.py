"""Batches, in this process or from workers: reproducible from (seed, epoch), resumable at any batch."""

import os
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Sampler

from perceivers.data.bad import BadRows
from perceivers.data.base import Batch, ImageAugmentConfig, ImagePreprocessConfig, Records
from perceivers.data.order import LoaderSettings, Order, Plan
from perceivers.data.reading import Read, Reader, RecordsReader
from perceivers.data.sources import InputColumn

__all__ = ["Loader", "LoaderSettings", "divide_cores", "make_loader"]

_T = TypeVar("_T")


def make_loader(
    records: Records,
    inputs: Mapping[str, InputColumn],
    targets: Sequence[int] | None,
    *,
    preprocess: Mapping[str, ImagePreprocessConfig],
    augment: Mapping[str, ImageAugmentConfig] | None,
    settings: LoaderSettings,
) -> "Loader":
    """Return a split as batches.

    In training the order follows from (seed, epoch), the augmentation of a row from (seed, epoch, index) and
    the mixing of a batch from (seed, epoch, number), so that they are the same for any number of workers.
    Mixing reads two rows for each sample; an epoch then sees every row twice.

    Args:
        records: The split.
        inputs: For each input of the model, its column.
        targets: Class index of each row. None: not known.
        preprocess: For each input, size and statistics.
        augment: For each input, what is random. Used in training only.
        settings: Batch size, seed, workers, ranks.

    Raises:
        ValueError: If the split has no rows, or fewer than there are ranks in training.
    """
    if len(records) < (settings.world_size if settings.training else 1):
        msg = f"Expected a split of at least {settings.world_size} rows (one per rank), got {len(records)}."
        raise ValueError(msg)
    columns = {name: column.column for name, column in inputs.items()}
    reader = Reader(columns, preprocess, augment, settings)
    order = Order(len(records), settings, in_pairs=reader.mixing is not None)
    return Loader(RecordsReader(records, targets, reader), order)


class Loader:
    """Yields the batches of one epoch each time it is iterated.

    Lightning takes it as it is: it has a length, and its `state_dict` goes into checkpoints. The state is
    small, since everything random follows from the epoch and the number of the next batch.

    Args:
        dataset: What reads a plan.
        order: Which plans there are.

    Attributes:
        epoch_source: Asked for the epoch when an iteration starts, not before (Lightning knows it only then).
            None: epochs are counted here.
        notes: How often which note on decoding was made.
    """

    def __init__(self, dataset: RecordsReader, order: Order) -> None:
        self.settings = order.settings
        self.epoch_source: Callable[[], int] | None = None
        self.notes: Counter[str] = Counter()
        self._order = order
        self._plans = _Plans(order)
        self._dataset = dataset
        self._bad = BadRows(self.settings.max_bad, len(dataset))
        self._batches: DataLoader[Read] | None = None
        self._epoch = 0
        self._next = 0
        self._resumed = False

    @property
    def bad(self) -> list[tuple[str, str]]:
        """Name and reason of each row that could not be read so far."""
        return list(self._bad.reasons.items())

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self._order)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is, where no `epoch_source` does."""
        if epoch != self._epoch:
            self._epoch, self._next, self._resumed = epoch, 0, False

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the current epoch; after `load_state_dict`, those not seen yet.

        Raises:
            ValueError: If more than `max_bad` of the rows cannot be read.
        """
        if self.epoch_source is not None:
            self.set_epoch(self.epoch_source())
        if not self._resumed:
            self._next = 0
        self._resumed = False
        self._plans.epoch, self._plans.start = self._epoch, self._next
        for read in self._started():
            self._next += 1
            if read.failure is not None:
                kind, message = read.failure
                raise kind(message)
            self.notes.update(read.notes)
            self._bad.add(read.bad, read.num_rows)
            if read.batch is not None:
                yield read.batch
        self._epoch, self._next = self._epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Return where the next batch stands and which rows were bad."""
        return {
            "epoch": self._epoch,
            "samples": self._next * self.settings.batch_size * self.settings.world_size,
            "bad": dict(self._bad.reasons),
            "notes": dict(self.notes),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken. With another batch size, at the nearest batch before."""
        self._epoch = state["epoch"]
        self._next = state["samples"] // (self.settings.batch_size * self.settings.world_size)
        self._resumed = True
        if self._next >= len(self):
            self._epoch, self._next = self._epoch + 1, 0
        self._bad.reasons = dict(state["bad"])
        self.notes = Counter(state["notes"])

    def close(self) -> None:
        """End the workers. The next iteration starts new ones."""
        self._batches = None

    def _started(self) -> Iterator[Read]:
        if self._batches is None:
            self._batches = start_workers(self._dataset, self.settings, sampler=self._plans)
        with warnings.catch_warnings():
            # More workers than cores, and fork from a process with threads: both are meant.
            warnings.simplefilter("ignore")
            return iter(self._batches)


class _Plans(Sampler[Plan]):
    """The rest of an epoch, as `DataLoader` wants it."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        return len(self.order) - self.start

    def __iter__(self) -> Iterator[Plan]:
        return self.order.plans(self.epoch, self.start)


def start_workers(
    dataset: Any, settings: LoaderSettings, sampler: Any = None
) -> "DataLoader[Read]":
    """Return a loader whose items are whole batches."""
    workers = settings.num_workers
    fork = workers > 0 and sys.platform == "linux"  # the rows are shared with the workers, not sent
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # more workers than cores
        return DataLoader(
            dataset=dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            collate_fn=_unchanged,
            worker_init_fn=_init_worker,
            persistent_workers=workers > 0,
            multiprocessing_context="fork" if fork else None,
            pin_memory=settings.pin_memory,
            generator=torch.Generator(),  # or it would draw from the global one, and resuming would differ
        )


def _unchanged(item: _T) -> _T:
    return item


def _init_worker(_worker: int) -> None:
    """Leave signals to the main process: it decides whether to save first, then ends its workers."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C and `timeout` signal the whole group


def divide_cores(cores: int, wanted_workers: int | None = None) -> tuple[int, int]:
    """Return the threads of the main process and the number of workers."""
    workers = wanted_workers if wanted_workers is not None else cores // 4
    return max(1, cores - workers), workers
