"""Progress of a training run: a live bar in a terminal, and a line for each validation."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from perceivers.console import Field, ProgressLine, fitting, rate_text
from perceivers.tasks.metric_text import metric_text
from perceivers.wording import readable_duration

if TYPE_CHECKING:
    from rich.console import Console

_INTERVAL = "95 % interval"


class _Column(NamedTuple):
    """Column of the table of validations: the columns of the highest rank are dropped where the width is short."""

    title: str
    width: int
    rank: int
    cell: str


class ProgressDisplay:
    """Display of progress, speed and remaining time.

    Args:
        enabled: False: print notes only.
        main_metric: Validation metric to show besides the loss.
        console: Output. By default the standard error stream.
    """

    def __init__(
        self,
        *,
        enabled: bool = True,
        main_metric: str = "accuracy",
        console: "Console | None" = None,
    ) -> None:
        self._bar = ProgressLine(enabled=enabled, console=console)
        self._main_metric = main_metric
        self._started = time.monotonic()
        self._first_progress: float | None = None
        self._first_samples = 0
        self._results: dict[str, float] = {}
        self._has_header = False

    def note(self, text: str) -> None:
        """Print a sentence, also if disabled."""
        self._bar.print(text)

    def start(self) -> None:
        """Start the display."""
        self._started = time.monotonic()
        self._has_header = False
        self._bar.start()

    def stop(self) -> None:
        """Stop the display and release the terminal."""
        self._bar.stop()

    def step(self, *, progress: float, step: int, epoch: float, samples: int) -> None:
        """Show a step: the fraction of the run, passes over the data, and the samples since this process started."""
        now = time.monotonic()
        if self._first_progress is None:
            # The first step warms up and is not part of the rate.
            self._first_progress, self._first_samples, self._started = progress, samples, now
        fields = [Field(f"epoch {epoch_text(epoch)}", 1), Field(f"step {step:,}", 3)]
        if "train/loss" in self._results:
            fields.append(Field(f"loss {self._results['train/loss']:.4g}", 2))
        name = f"validation/{self._main_metric}"
        if name in self._results:
            text = metric_text(self._main_metric, self._results[name])
            fields.append(Field(f"validation {self._main_metric} {text}", 5))
        done, seconds = progress - self._first_progress, now - self._started
        if seconds > 0 and done > 0:
            rate = (samples - self._first_samples) / seconds
            fields.append(Field(f"{rate_text(rate)} samples/s", 4))
            fields.append(Field(f"{readable_duration(seconds * (1 - progress) / done)} left", 0))
        self._bar.update(progress, fields)

    def result(
        self,
        row: Mapping[str, float],
        *,
        progress: float,
        interval: tuple[float, float] | None = None,
    ) -> None:
        """Show a line of the log; one with a validation is kept as a row of a table.

        Args:
            row: Step, epoch and metrics.
            progress: Fraction of the run.
            interval: Confidence interval of the main metric, if known.
        """
        self._results |= {name: row[name] for name in row if "/" in name}
        if not any(name.startswith("validation/") for name in row):
            return
        columns = self._columns(row, progress, interval)
        kept = fitting(
            [Field(one.title.rjust(one.width), one.rank) for one in columns],
            self._bar.console.width,
        )
        shown = [one for one in columns if one.title in {title.strip() for title in kept}]
        if not self._has_header:
            self._bar.line(_joined([one.title.rjust(one.width) for one in shown]))
            self._has_header = True
        self._bar.line(_joined([one.cell.rjust(one.width) for one in shown]))

    def _columns(
        self, row: Mapping[str, float], progress: float, interval: tuple[float, float] | None
    ) -> list[_Column]:
        """Return the columns of the table of validations, with the cells of a row."""
        loss, known = row.get("train/loss"), row.get("validation/loss")
        value = row.get(f"validation/{self._main_metric}")
        columns = [
            _Column("done", 5, 6, f"{progress:.0%}"),
            _Column("step", 7, 2, f"{row['step']:,.0f}"),
            _Column("epoch", 6, 1, epoch_text(row["epoch"])),
            _Column("train loss", 10, 4, "-" if loss is None else f"{loss:.4f}"),
            _Column("validation loss", 15, 3, "-" if known is None else f"{known:.4f}"),
        ]
        if self._main_metric != "loss":
            cell = "-" if value is None else metric_text(self._main_metric, value)
            width = max(len(self._main_metric), 8)
            columns.append(_Column(self._main_metric, width, 0, cell))
        if interval is not None:
            ends = [metric_text(self._main_metric, end).removesuffix(" %") for end in interval]
            columns.append(_Column(_INTERVAL, 15, 5, " to ".join(ends)))
        return columns


def _joined(cells: Sequence[str]) -> str:
    return "  ".join(cells).rstrip()


def epoch_text(epoch: float) -> str:
    """Return passes over the training split: `3`, or `1.93` within one."""
    return f"{epoch:.0f}" if abs(epoch - round(epoch)) < 5e-3 else f"{epoch:.2f}"
