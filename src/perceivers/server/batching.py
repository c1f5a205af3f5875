"""Requests that come at the same time go through the model together: one thread, one batch after the other."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Batcher", "ModelGoneError"]


class ModelGoneError(RuntimeError):
    """The thread that runs the model has ended."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """One thing to compute.

    Attributes:
        work: What is computed alone. None: `item` joins a batch.
        item: One sample of a batch.
        deadline: When nobody waits for it any more, by `time.monotonic`.
        done: Where the result goes.
    """

    work: Callable[[], Any] | None
    item: Any
    deadline: float
    done: "Future[Any]" = field(default_factory=Future[Any])


class Batcher:
    """Joins what waits into batches.

    A batch starts when it is full, when `wait` is over, or when all that could still join it is there: a single
    request never waits for others.

    Args:
        compute: Returns one result for each item of a batch, in their order.
        largest: Items of a batch at most.
        wait: Seconds that the first item of a batch waits for others.
        expected: Returns how many requests are on their way or here. None: not known.
        on_batch: Called with the size of every batch.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Any]], Sequence[Any]],
        *,
        largest: int,
        wait: float = 0.004,
        expected: Callable[[], int] | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        self._compute = compute
        self.largest = largest
        self.wait = wait
        self._expected = expected or (lambda: largest)
        self._on_batch = on_batch
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether the model's thread runs."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """How many wait for the model."""
        return self._queue.qsize()

    def start(self) -> None:
        """Start the model's thread."""
        self._thread.start()

    def stop(self) -> None:
        """Let it finish what waits, and end it."""
        self._queue.put(None)
        self._thread.join()

    async def submit(self, item: Any, deadline: float) -> Any:
        """Return the result of an item, computed in a batch with others.

        Args:
            item: One sample.
            deadline: When it must be done, by `time.monotonic`.

        Raises:
            TimeoutError: If it was not.
            ModelGoneError: If the model's thread has ended.
        """
        return await self._wait_for(_Waiting(None, item, deadline))

    async def alone(self, work: Callable[[], Any], deadline: float) -> Any:
        """Return what `work` does, called in the model's thread. Raises what `submit` and `work` raise."""
        return await self._wait_for(_Waiting(work, None, deadline))

    async def _wait_for(self, waiting: _Waiting) -> Any:
        if not self.is_alive:
            msg = "The model does not run any more. Start the server again."
            raise ModelGoneError(msg)
        self._queue.put(waiting)
        async with asyncio.timeout(max(waiting.deadline - time.monotonic(), 0)):
            return await asyncio.wrap_future(waiting.done)

    def _run(self) -> None:
        left: _Waiting | None = None
        while True:
            first = left or self._queue.get()
            left = None
            if first is None:
                return
            if first.work is not None:
                self._finish([first], _worked)
                continue
            batch, left, is_over = self._gather(first)
            self._finish(batch, lambda batch: self._compute([one.item for one in batch]))
            if is_over:
                return

    def _gather(self, first: _Waiting) -> tuple[list[_Waiting], _Waiting | None, bool]:
        """Return a batch, what came behind it that goes alone, and whether it is the last."""
        batch, until = [first], time.monotonic() + self.wait
        while len(batch) < self.largest:
            seconds = until - time.monotonic()
            enough = len(batch) >= self._expected() or seconds <= 0
            try:
                found = self._queue.get_nowait() if enough else self._queue.get(timeout=seconds)
            except queue.Empty:
                break
            if found is None:
                return batch, None, True
            if found.work is not None:
                return batch, found, False
            batch.append(found)
        return batch, None, False

    def _finish(
        self, batch: list[_Waiting], compute: Callable[[list[_Waiting]], Sequence[Any]]
    ) -> None:
        """Compute a batch; if it fails, each of it by itself, so that one sample spoils no other."""
        now = time.monotonic()
        batch = [
            one for one in batch if now < one.deadline and one.done.set_running_or_notify_cancel()
        ]
        if not batch:
            return
        if self._on_batch is not None:
            self._on_batch(len(batch))
        try:
            for one, result in zip(batch, compute(batch), strict=True):
                one.done.set_result(result)
        except Exception as error:
            if len(batch) == 1:
                batch[0].done.set_exception(error)
                return
            for one in batch:
                self._one(one, compute)

    def _one(self, one: _Waiting, compute: Callable[[list[_Waiting]], Sequence[Any]]) -> None:
        try:
            one.done.set_result(compute([one])[0])
        except Exception as error:
            one.done.set_exception(error)


def _worked(batch: list[_Waiting]) -> list[Any]:
    return [one.work() for one in batch if one.work is not None]
