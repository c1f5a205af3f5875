"""The processes that read batches, and how many of them a machine should have."""

import os
import signal
import sys
import warnings
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader

from perceivers.data.loading.prefetch import ReadAhead
from perceivers.data.loading.sampler import LoaderSettings
from perceivers.data.loading.transform import Read

__all__ = ["FORKS", "divide_cores", "iterate", "let_go", "start_workers"]

_T = TypeVar("_T")

# A forked worker shares the rows and the cache of decoded pictures; elsewhere each gets a copy.
FORKS = sys.platform == "linux"


def start_workers(
    dataset: Any, settings: LoaderSettings, sampler: Any = None
) -> "DataLoader[Read]":
    """Return a loader whose items are whole batches. Its workers start with the first iteration.

    Args:
        dataset: What reads one item.
        settings: Number of workers.
        sampler: What to ask the dataset for. None: the dataset is iterated.
    """
    workers = settings.num_workers
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
            multiprocessing_context="fork" if workers and FORKS else None,
            pin_memory=settings.pin_memory,
            generator=torch.Generator(),  # or it would draw from the global one, and resuming would differ
        )


def iterate(batches: "DataLoader[Read]", settings: LoaderSettings) -> Iterator[Read]:
    """Return the items of one pass, read ahead in training: by the workers, or else by a thread."""
    with warnings.catch_warnings():
        # From Python 3.12 on, a fork of a process with threads warns. Workers use neither its threads nor its GPU.
        warnings.simplefilter("ignore")
        items = iter(batches)
    threaded = settings.training and settings.read_ahead and not settings.num_workers
    return ReadAhead(items, settings.read_ahead) if threaded else items


def let_go(items: Iterator[Read] | None) -> None:
    """End the thread that reads ahead, if there is one."""
    if isinstance(items, ReadAhead):
        items.close()


def divide_cores(cores: int, wanted_workers: int | None = None) -> tuple[int, int]:
    """Return the threads of the training process and the number of workers.

    A worker pays where it reads in the time in which the rest computes. Small pictures are read so fast (10,000 a
    second and core) that on two or three cores every core is better spent on computing: with T the time that
    one core computes on a batch and R that for reading it, max(T, R) with a worker is less than T / 2 + R
    without only if R is more than half of T.

    Args:
        cores: Those that this process may use.
        wanted_workers: The user's number. None: a quarter of the cores.
    """
    workers = cores // 4 if wanted_workers is None else wanted_workers
    return max(1, cores - workers), workers


def _unchanged(item: _T) -> _T:
    return item


def _init_worker(_worker: int) -> None:
    """Leave signals to the main process: it decides whether to save first, then ends its workers."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not what the main process does on it
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C and `timeout` signal the whole group
