"""Progress of a run: a live bar in a terminal, or plain lines."""

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from perceivers.escaping import escape_terminal
from perceivers.runs.summary import readable_duration
from perceivers.tasks.base import is_share

LINE_EVERY_SECONDS = 30.0


class ProgressDisplay:
    """Display of progress, speed and remaining time.

    Args:
        enabled: False: print notes only.
        main_metric: Validation metric to show besides the loss.
        console: Output. By default the standard error stream.
    """

    def __init__(
        self, *, enabled: bool = True, main_metric: str = "accuracy", console: Console | None = None
    ) -> None:
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._enabled = enabled
        self._main_metric = main_metric
        self._is_live = enabled and self._console.is_terminal
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._started = self._last_line = time.monotonic()
        self._first_progress: float | None = None
        self._first_samples = 0
        self._results: dict[str, float] = {}

    def note(self, text: str) -> None:
        """Print a sentence, also if disabled."""
        self._console.print(escape_terminal(text), markup=False)

    def start(self) -> None:
        """Start the display."""
        self._started = self._last_line = time.monotonic()
        if self._is_live:
            columns = (
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %"),
                TextColumn("{task.description}"),
            )
            self._bar = Progress(*columns, console=self._console, transient=False)
            self._task = self._bar.add_task("", total=1.0)
            self._bar.start()

    def stop(self) -> None:
        """Stop the display and release the terminal."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def step(self, *, progress: float, step: int, epoch: int, samples: int) -> None:
        """Show a step: the fraction of the run, and the samples since this process started."""
        if not self._enabled:
            return
        now = time.monotonic()
        if self._first_progress is None:
            # The first step warms up and is not part of the rate.
            self._first_progress, self._first_samples, self._started = progress, samples, now
        parts = [f"step {step}", f"epoch {epoch + 1}"]
        done, seconds = progress - self._first_progress, now - self._started
        if seconds > 0 and done > 0:
            rate = (samples - self._first_samples) / seconds
            parts.append(f"{rate:.0f} samples/s" if rate >= 10 else f"{rate:.2g} samples/s")
            parts.append(f"{readable_duration(seconds * (1 - progress) / done)} left")
        text = "  ".join(parts) + self._metrics()
        if self._bar is not None:
            self._bar.update(self._task, completed=progress, description=text)
        elif now - self._last_line >= LINE_EVERY_SECONDS:
            self._line(f"{progress:4.0%}  {text}")

    def result(self, row: Mapping[str, float], *, progress: float) -> None:
        """Show a line of the log. Without a live bar, lines with a validation are printed."""
        self._results |= {name: row[name] for name in row if "/" in name}
        validates = any(name.startswith("validation/") for name in row)
        if self._enabled and self._bar is None and validates:
            self._line(
                f"{progress:4.0%}  step {row['step']}  epoch {row['epoch']:.4g}{self._metrics()}"
            )

    def _line(self, text: str) -> None:
        self._last_line = time.monotonic()
        self._console.print(escape_terminal(text), markup=False)

    def _metrics(self) -> str:
        shown = {
            "loss": "train/loss",
            "validation loss": "validation/loss",
            f"validation {self._main_metric}": f"validation/{self._main_metric}",
        }
        known = [
            (label, self._results[name]) for label, name in shown.items() if name in self._results
        ]
        return "".join(
            f"  {label} {value:.1%}" if is_share(label.split()[-1]) else f"  {label} {value:.4g}"
            for label, value in known
        )
