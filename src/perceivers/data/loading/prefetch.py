"""The next batches are read by a thread while this one is computed on, where there are no workers."""

import threading
import weakref
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

__all__ = ["ReadAhead"]

_T = TypeVar("_T")

_END = object()


class ReadAhead(Generic[_T]):
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
