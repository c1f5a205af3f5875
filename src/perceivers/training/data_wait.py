"""How much of a step's time the trainer waits for data, which is none where reading keeps up."""

import time
from dataclasses import dataclass
from typing import Any

import torch

from perceivers.training.distributed import largest

WARM_UP_STEPS = 3  # of each process: workers start, kernels are compiled, caches are cold
MUCH, LONG = 0.1, 10.0  # a share, and seconds of steps from which it is taken seriously


@dataclass
class DataWaitTime:
    """Time of some steps.

    Attributes:
        seconds: Of the steps, without validation, log and checkpoints.
        waiting: Those of them in which the next batch was not there, or began to be copied to the device.
    """

    seconds: float = 0.0
    waiting: float = 0.0

    @property
    def share(self) -> float | None:
        """Waiting, as a share of the steps' time. None before anything was measured."""
        return min(self.waiting / self.seconds, 1.0) if self.seconds > 0 else None

    def add(self, other: "DataWaitTime") -> None:
        """Count other steps too."""
        self.seconds += other.seconds
        self.waiting += other.waiting

    def slowest(self, device: torch.device) -> "DataWaitTime":
        """Return the longest of all processes: a step waits for the last of them.

        Args:
            device: Where the processes exchange.
        """
        mine = torch.tensor([self.seconds, self.waiting], dtype=torch.float64)
        seconds, waiting = largest(mine, device).tolist()
        return DataWaitTime(seconds, waiting)


class StepTimer:
    """Measures the steps of this process.

    On the CPU, waiting is the time from asking for a batch until it is there. A GPU works on while the process
    waits for a batch, so there it is the time in which the GPU stood still for want of one, which CUDA's events
    tell without stopping it.

    Args:
        device: That computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._steps = 0
        self._begun: float | None = None  # when the present step began
        self._asked = 0.0
        self._waiting = 0.0  # in the present step
        self._found = DataWaitTime()
        self._events: list[tuple[Any, Any]] = []  # of CUDA: asked, there
        self._last: Any = None

    def begin(self) -> None:
        """Start the time of a step. What came since the step before counts nowhere."""
        self._begun = time.perf_counter()

    def ask(self) -> None:
        """Note that the next batch is asked for."""
        self._asked = time.perf_counter()
        if self._is_cuda:
            self._last = _event()  # comes when all work that was given out is done

    def receive(self) -> None:
        """Note that it is there and on its way to the device."""
        self._waiting += time.perf_counter() - self._asked
        if self._last is not None:
            self._events.append((self._last, _event()))
            self._last = None

    def end(self, *, pauses: bool) -> None:
        """Stop the time of a step.

        Args:
            pauses: Something else follows. A GPU is then waited for, so that its work counts here.
        """
        if self._begun is None:
            return
        if pauses and self._is_cuda:
            torch.cuda.synchronize()
        self._steps += 1
        if self._steps > WARM_UP_STEPS:
            self._found.add(DataWaitTime(time.perf_counter() - self._begun, self._waiting))
        else:
            self._events.clear()
        self._begun, self._waiting = None, 0.0

    def take(self) -> DataWaitTime:
        """Return what was measured since the last time, and begin anew. Follows `end` with `pauses`."""
        found, self._found = self._found, DataWaitTime()
        if self._is_cuda:
            # Both events are over, and what lies between them is no work: the GPU stood still.
            found.waiting = sum(asked.elapsed_time(there) for asked, there in self._events) / 1000
            self._events.clear()
        return found


def advice(
    waited: DataWaitTime, *, workers: int, threads: int, processes: int = 1
) -> tuple[str, str]:
    """Return what the report says of the waiting, and what to do about it, or "" if it is little.

    Args:
        waited: By the whole run.
        workers: That read for each process.
        threads: That compute in each process.
        processes: That train together.
    """
    if waited.share is None:
        return "", ""
    whose = f" (the slowest of {processes} processes)" if processes > 1 else ""
    text = f"{waited.share:.1%} of the step time{whose}"
    if waited.share <= MUCH or waited.seconds < LONG:
        return text, ""
    more = f"--workers {max(2 * workers, 2)} (now {workers}; {threads} threads compute)"
    return text, (
        f"Reading does not keep up: {text} was waiting for data. Give it more processes ({more}), or make the "
        "pictures smaller on disk: those of one size that fit in 256 MiB decoded are decoded only once, and "
        "photographs far larger than the model's input are best shrunk beforehand."
    )


def _event() -> Any:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
