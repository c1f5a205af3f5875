"""The processes that read batches, and how many of them a machine should have."""

import os
import signal
import sys
import threading
import warnings
import weakref
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader

from perceivers.data.loading.sampler import LoaderSettings
from perceivers.data.loading.transform import WorkerResult

__all__ = ["FORKS", "Prefetcher", "divide_cores", "iterate", "start_workers", "stop_prefetching"]

_T = TypeVar("_T")

# A forked worker shares the rows and the cache of decoded pictures; elsewhere each gets a copy.
FORKS = sys.platform == "linux"


def start_workers(
    dataset: Any, settings: LoaderSettings, sampler: Any = None
) -> "DataLoader[WorkerResult]":
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


def iterate(
    batches: "DataLoader[WorkerResult]", settings: LoaderSettings
) -> Iterator[WorkerResult]:
    """Return the items of one pass, read ahead in training: by the workers, or else by a thread."""
    with warnings.catch_warnings():
        # From Python 3.12 on, a fork of a process with threads warns. Workers use neither its threads nor its GPU.
        warnings.simplefilter("ignore")
        items = iter(batches)
    threaded = settings.training and settings.prefetch_batches and not settings.num_workers
    return Prefetcher(items, settings.prefetch_batches) if threaded else items


def stop_prefetching(items: Iterator[WorkerResult] | None) -> None:
    """End the thread that reads ahead, if there is one."""
    if isinstance(items, Prefetcher):
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


_END = object()


class Prefetcher(Generic[_T]):
    """Iterates over `items` in a thread of its own, a few items ahead of who takes them.

    The order is that of `items`, and an error comes out in its place. Pillow and numpy let other threads go
    on while they decode and resize, and so does torch while it computes.

    Args:
        items: Read from by the thread alone, from now on.
        depth: Items at most that were begun and not taken.
    """

    def __init__(self, items: Iterator[_T], depth: int = 2) -> None:
        self._results: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        # A queue and no semaphore: those of Python wait for a lock that the thread may hold.
        self._room: SimpleQueue[None] = SimpleQueue()
        for _ in range(depth):
            self._room.put(None)
        stopped = threading.Event()
        self._thread = threading.Thread(
            target=_read,
            args=(items, self._results, self._room, stopped),
            name="perceivers reads ahead",
            daemon=True,
        )
        # The thread does not hold this object, so that one that is forgotten ends its thread.
        self._stop = weakref.finalize(self, _stop, self._results, self._room, stopped)
        self._thread.start()

    def __iter__(self) -> Iterator[_T]:
        """Return itself."""
        return self

    def __next__(self) -> _T:
        """Return the next item; wait for it if it is not there yet.

        Raises:
            StopIteration: After the last item, or `close`.
        """
        if not self._stop.alive:
            raise StopIteration
        item, error = self._results.get()
        if item is _END:
            self._results.put((_END, None))  # also for who asks again
            if error is not None:
                raise error
            raise StopIteration
        self._room.put(None)
        return item

    def close(self) -> None:
        """End the thread, after the item that it is reading."""
        self._stop()
        self._thread.join()


def _read(
    items: Iterator[Any],
    results: SimpleQueue[tuple[Any, BaseException | None]],
    room: SimpleQueue[None],
    stopped: threading.Event,
) -> None:
    """Put item after item while there is room."""
    failure: BaseException | None = None
    try:
        while True:
            room.get()
            if stopped.is_set():
                break
            results.put((next(items), None))
    except StopIteration:
        pass
    except BaseException as error:
        failure = error  # it is for who takes the items
    results.put((_END, failure))


def _stop(
    results: SimpleQueue[tuple[Any, BaseException | None]],
    room: SimpleQueue[None],
    stopped: threading.Event,
) -> None:
    stopped.set()
    room.put(None)
    results.put((_END, None))  # for who still asks
