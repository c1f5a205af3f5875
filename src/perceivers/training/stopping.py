"""How far a run is, whatever limits it, and who has asked it to stop."""

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType

from perceivers.recipes.registry import TrainingConfig
from perceivers.training.optim import parse_duration


@dataclass(frozen=True, kw_only=True)
class StoppingCriteria:
    """Where a run ends: at the first limit that is reached.

    Attributes:
        epochs: Passes over train.
        steps: Optimizer steps.
        seconds: Time of training, validation included.
    """

    epochs: int | None = None
    steps: int | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, config: TrainingConfig) -> "StoppingCriteria":
        """Return the limits that a recipe gives.

        Raises:
            ValueError: If there is none, or one that is no positive number.
        """
        for name in ("max_epochs", "max_steps"):
            value = getattr(config, name)
            if value is not None and value < 1:
                raise ValueError(f"Expected training.{name} to be 1 or more, got {value}.")
        seconds = None if config.max_time is None else parse_duration(config.max_time)
        limits = cls(epochs=config.max_epochs, steps=config.max_steps, seconds=seconds)
        if limits == cls():
            raise ValueError(
                "The run would never end: give --max-time, --max-epochs or "
                "--max-steps, or use a recipe that has one of them."
            )
        return limits

    def progress(
        self, *, epochs: float, steps: int, seconds: float, first_step: float = 0.0
    ) -> float:
        """Return the share of the run that is done: the largest over the limits. At 1, the run ends.

        The share of the time is counted from the end of the first step, at `first_step` seconds: in it kernels are
        compiled, and of a short run on a GPU that can be a quarter. The warm-up would be over before it began.
        """
        shares = (
            0.0 if self.epochs is None else epochs / self.epochs,
            0.0 if self.steps is None else steps / self.steps,
            0.0 if self.seconds is None else _share(seconds, first_step, self.seconds),
        )
        return min(max(shares), 1.0)


def _share(now: float, start: float, end: float) -> float:
    return 1.0 if now >= end else (now - start) / (end - start)


class RunClock:
    """Seconds of training, over all the times that a run was resumed.

    Args:
        elapsed: Seconds that earlier parts of the run took.
    """

    def __init__(self, elapsed: float = 0.0) -> None:
        self._before = elapsed
        self._began: float | None = None

    def start(self) -> None:
        """Begin to count."""
        self._began = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds of training until now."""
        return self._before + (0.0 if self._began is None else time.monotonic() - self._began)


class StopSignals:
    """Remembers a request to stop, so that it is obeyed between two steps and not inside of one.

    SIGTERM is what schedulers send, SIGINT is Ctrl-C, SIGUSR1 is SLURM's early warning. The second Ctrl-C
    interrupts at once.

    Args:
        signals: What to listen to.
    """

    def __init__(self, signals: Sequence[signal.Signals]) -> None:
        self.received: int = 0
        self._signals = signals
        self._former: dict[signal.Signals, object] = {}

    def listen(self) -> None:
        """Take over the signals. Possible in the main thread only; elsewhere nothing is changed."""
        for number in self._signals:
            try:
                self._former[number] = signal.signal(number, self._receive)
            except ValueError:
                return

    def release(self) -> None:
        """Give the signals back to whom they belonged."""
        for number, handler in self._former.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
        self._former = {}

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received == number:
            raise KeyboardInterrupt
        self.received = number
