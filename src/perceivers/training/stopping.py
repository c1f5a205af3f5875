"""Stopping criteria, elapsed time and stop signals of a run."""

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType

from perceivers.recipes.registry import TrainingConfig
from perceivers.wording import parse_duration


@dataclass(frozen=True, kw_only=True)
class StoppingCriteria:
    """Limits of a run, which ends at the first that is reached.

    `epochs` are passes over the training split, `steps` optimizer steps, `seconds` those of training and validation.
    """

    epochs: int | None = None
    steps: int | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, config: TrainingConfig) -> "StoppingCriteria":
        """Return the limits of a recipe.

        Raises:
            ValueError: If there is none, or one is not positive.
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
        """Return the fraction of the run that is done: the largest over the limits. At 1, the run ends.

        The fraction of the time limit is counted from the end of the first step, at `first_step` seconds: kernels are
        compiled in this step, which can take a quarter of a short run on a GPU, and with it the whole warm-up.
        """
        shares = [0.0]
        if self.epochs is not None:
            shares.append(epochs / self.epochs)
        if self.steps is not None:
            shares.append(steps / self.steps)
        if self.seconds is not None:
            is_over = seconds >= self.seconds
            shares.append(1.0 if is_over else (seconds - first_step) / (self.seconds - first_step))
        return min(max(shares), 1.0)


class RunClock:
    """Seconds of training, summed over all resumed parts of a run."""

    def __init__(self, elapsed: float = 0.0) -> None:
        self._before = elapsed
        self._started: float | None = None

    def start(self) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds of training so far."""
        return self._before + (0.0 if self._started is None else time.monotonic() - self._started)


class StopSignals:
    """Record a signal, so that the run stops between two steps and not inside of one.

    Schedulers send SIGTERM, Ctrl-C sends SIGINT, and SLURM sends SIGUSR1 before its time limit. The second Ctrl-C
    interrupts immediately.
    """

    def __init__(self, signals: Sequence[signal.Signals]) -> None:
        self.received: int = 0
        self._signals = signals
        self._former: dict[signal.Signals, object] = {}

    def listen(self) -> None:
        """Install the handlers. Does nothing outside of the main thread."""
        for number in self._signals:
            try:
                self._former[number] = signal.signal(number, self._receive)
            except ValueError:
                return

    def release(self) -> None:
        """Restore the previous handlers."""
        for number, handler in self._former.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
        self._former = {}

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received == number:
            raise KeyboardInterrupt
        self.received = number
