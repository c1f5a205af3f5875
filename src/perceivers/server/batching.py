"""Dynamic batching: concurrent requests share forward passes, computed one after another in one thread."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any


class ModelGoneError(RuntimeError):
    """The model's thread has ended."""


@dataclass(frozen=True, slots=True)
class _Task:
    """A queued computation: `work` runs alone, or `item` joins a batch."""

    work: Callable[[], Any] | None
    item: Any
    deadline: float  # by time.monotonic; later the result is not needed
    result: "Future[Any]" = field(default_factory=Future[Any])


class Batcher:
    """Collects queued samples into batches of at most `largest`.

    A batch starts when it is full, after `wait` seconds, or as soon as it holds all requests in progress: a single
    request never waits for others. `compute` returns one result for each item of a batch, in their order.
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
        self._queue: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._busy_since: float | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the model's thread runs."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Number of queued items."""
        return self._queue.qsize()

    @property
    def busy_seconds(self) -> float:
        """Seconds since the current computation began, 0 if there is none."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def start(self) -> None:
        """Start the model's thread."""
        self._thread.start()

    def stop(self, seconds: float | None = None) -> None:
        """Finish the queued items and end the thread. After `seconds`, leave it to end with the process."""
        self._queue.put(None)
        self._thread.join(seconds)

    async def submit(self, item: Any, deadline: float) -> Any:
        """Return the result of an item, computed in a batch with others, before a deadline by `time.monotonic`.

        Raises TimeoutError after the deadline, and ModelGoneError if the model's thread has ended.
        """
        return await self._wait_for(_Task(None, item, deadline))

    async def alone(self, work: Callable[[], Any], deadline: float) -> Any:
        """Return the result of `work`, called in the model's thread. Raises what `submit` and `work` raise."""
        return await self._wait_for(_Task(work, None, deadline))

    async def _wait_for(self, task: _Task) -> Any:
        if not self.is_alive:
            raise ModelGoneError("The model does not run any more. Start the server again.")
        self._queue.put(task)
        async with asyncio.timeout(max(task.deadline - time.monotonic(), 0)):
            return await asyncio.wrap_future(task.result)

    def _run(self) -> None:
        following: _Task | None = None
        while True:
            first = following or self._queue.get()
            following = None
            if first is None:
                return
            if first.work is not None:
                self._finish([first], lambda batch: [one.work() for one in batch if one.work])
                continue
            batch, following, is_last = self._gather(first)
            self._finish(batch, lambda batch: self._compute([one.item for one in batch]))
            if is_last:
                return

    def _gather(self, first: _Task) -> tuple[list[_Task], _Task | None, bool]:
        """Return a batch, a task that was queued behind it and runs alone, and whether the batch is the last."""
        batch, until = [first], time.monotonic() + self.wait
        while len(batch) < self.largest:
            seconds = until - time.monotonic()
            is_complete = len(batch) >= self._expected() or seconds <= 0
            try:
                task = self._queue.get_nowait() if is_complete else self._queue.get(timeout=seconds)
            except queue.Empty:
                break
            if task is None:
                return batch, None, True
            if task.work is not None:
                return batch, task, False
            batch.append(task)
        return batch, None, False

    def _finish(self, batch: list[_Task], compute: Callable[[list[_Task]], Sequence[Any]]) -> None:
        """Compute a batch; after an error, compute each of its tasks alone, so that one sample fails no other."""
        now = time.monotonic()
        batch = [
            one for one in batch if now < one.deadline and one.result.set_running_or_notify_cancel()
        ]
        if not batch:
            return
        if self._on_batch is not None:
            self._on_batch(len(batch))
        self._busy_since = now
        try:
            self._compute_batch(batch, compute)
        finally:
            self._busy_since = None

    def _compute_batch(
        self, batch: list[_Task], compute: Callable[[list[_Task]], Sequence[Any]]
    ) -> None:
        try:
            for one, result in zip(batch, compute(batch), strict=True):
                one.result.set_result(result)
        except Exception as error:
            if len(batch) == 1:
                batch[0].result.set_exception(error)
                return
            for one in batch:
                try:
                    one.result.set_result(compute([one])[0])
                except Exception as alone:
                    one.result.set_exception(alone)
