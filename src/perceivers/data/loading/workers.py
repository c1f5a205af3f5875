"""Processes or a thread that read batches ahead of training, and how many of them suit a machine."""

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

_T = TypeVar("_T")

# Forked workers share the rows and the image cache; elsewhere each gets a copy.
FORKS = sys.platform == "linux"


def start_workers(
    dataset: Any, settings: LoaderSettings, sampler: Any = None
) -> "DataLoader[WorkerResult]":
    """Return a loader whose items are whole batches. Its workers start with the first iteration."""
    workers = settings.num_workers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # more workers than cores
        return DataLoader(
            dataset=dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            collate_fn=_identity,
            worker_init_fn=_init_worker,
            persistent_workers=workers > 0,
            multiprocessing_context="fork" if workers and FORKS else None,
            pin_memory=settings.pin_memory,
            generator=torch.Generator(),  # else the global one would advance, and resuming differ
        )


def iterate(
    batches: "DataLoader[WorkerResult]", settings: LoaderSettings
) -> Iterator[WorkerResult]:
    """Return the items of one epoch, in training prefetched by the workers or else by a thread."""
    with warnings.catch_warnings():
        # From Python 3.12 on, a fork of a process with threads warns. Workers use neither its threads nor its GPU.
        warnings.simplefilter("ignore")
        items = iter(batches)
    threaded = settings.training and settings.prefetch_batches and not settings.num_workers
    return Prefetcher(items, settings.prefetch_batches) if threaded else items


def stop_prefetching(items: Iterator[WorkerResult] | None) -> None:
    """Stop the thread that prefetches `items`, if there is one."""
    if isinstance(items, Prefetcher):
        items.close()


def divide_cores(cores: int, wanted_workers: int | None = None) -> tuple[int, int]:
    """Return the number of threads of the training process and of workers.

    A worker pays if it reads while the rest computes. Small images are read so fast (10,000 a second and core) that on
    two or three cores every core is better spent on computing: if one core takes T to compute a batch and R to read
    it, max(T, R) with a worker is less than T / 2 + R without only if R is more than half of T.
    By default, workers get a quarter of the cores.
    """
    workers = cores // 4 if wanted_workers is None else wanted_workers
    return max(1, cores - workers), workers


def _identity(item: _T) -> _T:
    return item


def _init_worker(_worker: int) -> None:
    """Use one thread, and leave signals to the main process, which may save before it ends its workers."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not the main process's handler
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C and `timeout` signal the whole group


_END = object()


class Prefetcher(Generic[_T]):
    """Iterates over `items` in a thread, a few items ahead.

    The order is that of `items`, and an error is raised in its place. Pillow, NumPy and PyTorch release the GIL while
    they decode and compute.

    Args:
        items: Iterated by the thread only, from now on.
        depth: Largest number of items that were started and not taken.
    """

    def __init__(self, items: Iterator[_T], depth: int = 2) -> None:
        self._results: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        # A queue instead of a semaphore: Python's semaphores wait for a lock that the thread may hold.
        self._room: SimpleQueue[None] = SimpleQueue()
        for _ in range(depth):
            self._room.put(None)
        stopped = threading.Event()
        self._thread = threading.Thread(
            target=_prefetch,
            args=(items, self._results, self._room, stopped),
            name="perceivers prefetch",
            daemon=True,
        )
        # The thread does not hold this object, so that its garbage collection stops the thread.
        self._stop = weakref.finalize(self, _stop, self._results, self._room, stopped)
        self._thread.start()

    def __iter__(self) -> Iterator[_T]:
        """Return itself."""
        return self

    def __next__(self) -> _T:
        """Return the next item, and wait for it if necessary.

        Raises:
            StopIteration: After the last item, or `close`.
        """
        if not self._stop.alive:
            raise StopIteration
        item, error = self._results.get()
        if item is _END:
            self._results.put((_END, None))  # for further calls
            if error is not None:
                raise error
            raise StopIteration
        self._room.put(None)
        return item

    def close(self) -> None:
        """Stop the thread after its current item."""
        self._stop()
        self._thread.join()


def _prefetch(
    items: Iterator[Any],
    results: SimpleQueue[tuple[Any, BaseException | None]],
    room: SimpleQueue[None],
    stopped: threading.Event,
) -> None:
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
        failure = error  # raised by `__next__`
    results.put((_END, failure))


def _stop(
    results: SimpleQueue[tuple[Any, BaseException | None]],
    room: SimpleQueue[None],
    stopped: threading.Event,
) -> None:
    stopped.set()
    room.put(None)
    results.put((_END, None))  # for a caller that waits
