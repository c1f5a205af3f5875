"""Time that training waits for data: zero if loading keeps up."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from perceivers.training.distributed import largest

WARM_UP_STEPS = 3  # of each process: workers start, kernels are compiled, caches are cold
MUCH, LONG = 0.1, 10.0  # share of the step time, and seconds of steps, above which advice is given
# Share from which a worker process gains more than the core that it takes from computing (`divide_cores`).
MUCH_WITHOUT_WORKERS = 1 / 3


@dataclass
class DataWaitTime:
    """Duration of optimizer steps, and the part of it spent waiting for data.

    Attributes:
        seconds: Duration of the steps, without validation, logging and checkpoints.
        waiting: Seconds of them spent waiting for the next batch.
    """

    seconds: float = 0.0
    waiting: float = 0.0

    @property
    def share(self) -> float | None:
        """Share of the step time spent waiting. None before the first measurement."""
        return min(self.waiting / self.seconds, 1.0) if self.seconds > 0 else None

    def add(self, other: "DataWaitTime") -> None:
        """Add the time of other steps."""
        self.seconds += other.seconds
        self.waiting += other.waiting

    def slowest(self, device: torch.device) -> "DataWaitTime":
        """Return the maximum over all processes, exchanged on `device`: a step waits for the slowest."""
        mine = torch.tensor([self.seconds, self.waiting], dtype=torch.float64)
        seconds, waiting = largest(mine, device).tolist()
        return DataWaitTime(seconds, waiting)


class StepTimer:
    """Measure the steps of this process, and the wait for data in them.

    On the CPU, waiting is the time from requesting a batch to receiving it. On CUDA, it is the idle time of the GPU
    between two batches, measured with events, without synchronizing.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._steps = 0
        self._started: float | None = None  # start of the current step
        self._requested = 0.0
        self._waiting = 0.0  # in the current step
        self._found = DataWaitTime()
        self._events: list[tuple[Any, Any]] = []  # of CUDA: requested, received
        self._last: Any = None

    def begin(self) -> None:
        """Start the timer of a step. Time between two steps is not counted."""
        self._started = time.perf_counter()

    def ask(self) -> None:
        """Start the wait for the next batch."""
        self._requested = time.perf_counter()
        if self._is_cuda:
            self._last = _event()  # reached when all queued work is done

    def receive(self) -> None:
        """End the wait for the next batch."""
        self._waiting += time.perf_counter() - self._requested
        if self._last is not None:
            self._events.append((self._last, _event()))
            self._last = None

    def end(self, *, pauses: bool) -> None:
        """Stop the timer of a step. If no step follows immediately (`pauses`), a GPU is synchronized first."""
        if self._started is None:
            return
        if pauses and self._is_cuda:
            torch.cuda.synchronize()
        self._steps += 1
        if self._steps > WARM_UP_STEPS:
            self._found.add(DataWaitTime(time.perf_counter() - self._started, self._waiting))
        else:
            self._events.clear()
        self._started, self._waiting = None, 0.0

    def take(self) -> DataWaitTime:
        """Return the time since the last call, and reset it. Call it after `end` with `pauses`."""
        found, self._found = self._found, DataWaitTime()
        if self._is_cuda:
            # Both events are done, and between them the GPU was idle.
            found.waiting = (
                sum(requested.elapsed_time(received) for requested, received in self._events) / 1000
            )
            self._events.clear()
        return found


def advice(
    waited: DataWaitTime,
    *,
    workers: int,
    threads: int,
    processes: int = 1,
    tips: Iterable[str] = (),
) -> tuple[str, str]:
    """Return the share of waiting as text for the report, and advice, or "" if it is small.

    Args:
        waited: Time of the steps, and of waiting in them.
        workers: Worker processes.
        threads: Threads that compute.
        processes: Processes that train.
        tips: Sentences on faster loading of the modalities, see `BasePreprocessConfig.loading_tip`.
    """
    if waited.share is None:
        return "", ""
    whose = f" (the slowest of {processes} processes)" if processes > 1 else ""
    text = f"{waited.share:.1%} of the step time{whose}"
    if waited.share <= (MUCH if workers else MUCH_WITHOUT_WORKERS) or waited.seconds < LONG:
        return text, ""
    more = f"--workers {max(2 * workers, 2)} (now {workers}; {threads} threads compute)"
    found = f"Data loading does not keep up: {text} was waiting for data. Use more worker processes ({more})."
    return text, " ".join([found, *filter(None, dict.fromkeys(tips))])


def _event() -> Any:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
