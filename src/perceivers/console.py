"""Messages wrapped between words, and progress that fits the width of the terminal."""

import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from perceivers.escaping import escape_terminal
from perceivers.wording import counted, readable_duration

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live

Item = TypeVar("Item")

WIDTH = 80
LINE_EVERY_SECONDS = 30.0
"""Seconds between two lines of progress where no bar can be drawn."""

_BAR, _WIDEST_BAR = 10, 40
_REFRESHES = 4  # of the bar, in a second
_QUIET_SECONDS = 1.0  # of work whose progress is not shown


def wrapped(text: str, width: int = WIDTH) -> str:
    """Return a text in lines of at most `width` columns. Words, quoted names and rows of tables are not broken."""
    return "\n".join(_wrap_line(line, width) for line in text.split("\n"))


def _wrap_line(line: str, width: int) -> str:
    if len(line) <= width or "  " in line.strip():  # a row of a table
        return line
    indent = re.match(r" *", line)
    start = indent.group() if indent else ""
    # A quoted name with blanks is one word; an apostrophe inside a word opens no quotation.
    words: list[str] = re.findall(r"(?:(?<![^\s(\[])'[^'\n]{1,200}'|\S)+", line)
    lines, here = list[str](), start
    for word in words:
        if here.strip() and len(here) + 1 + len(word) > width:
            lines.append(here)
            here = start + word
        else:
            here = f"{here} {word}" if here.strip() else here + word
    return "\n".join([*lines, here])


def terminal_width(stream: Any) -> int | None:
    """Return the number of columns of a terminal; None for a file or a pipe."""
    return shutil.get_terminal_size((WIDTH, 24)).columns if is_terminal(stream) else None


def wrapped_for(stream: Any, text: str) -> str:
    """Return a message as it is shown: wrapped at the width of a terminal, unchanged in a file or a pipe."""
    width = terminal_width(stream)
    return text if width is None else wrapped(text, width)


def print_message(text: str) -> None:
    """Print a message to the standard output, escaped and wrapped."""
    sys.stdout.write(f"{wrapped_for(sys.stdout, escape_terminal(text))}\n")


def is_terminal(stream: Any) -> bool:
    """Return whether a stream is shown in a terminal."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # closed, or no file
        return False


class Field(NamedTuple):
    """Part of a line of progress; of those that do not fit, the ones of the highest rank are dropped first."""

    text: str
    rank: int


def fitting(fields: Sequence[Field], width: int, gap: int = 2) -> list[str]:
    """Return the texts of the fields that fit side by side, in order, without the least important ones."""
    left = [field for field in fields if field.text]
    while left and sum(len(field.text) + gap for field in left) - gap > width:
        left.remove(max(left, key=lambda field: field.rank))
    return [field.text for field in left]


class ProgressLine:
    """Progress as a bar and fields at the bottom of a terminal; elsewhere as a line every half minute.

    Args:
        enabled: False: print messages only.
        prefix: Beginning of the lines that are printed without a terminal.
        console: Output. By default the standard error stream.
    """

    def __init__(
        self, *, enabled: bool = True, prefix: str = "", console: "Console | None" = None
    ) -> None:
        if console is None:
            from rich.console import Console

            console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.console = console
        self._enabled = enabled
        self._prefix = prefix
        is_live = console.is_terminal and not console.is_dumb_terminal
        self._is_live = enabled and is_live
        self._live: Live | None = None
        self._share: float | None = None
        self._fields: Sequence[Field] = ()
        self._last_line = time.monotonic()
        self.has_shown = self._is_live  # a bar, or a line

    def start(self) -> None:
        """Start the display."""
        self._last_line = time.monotonic()
        if self._is_live:
            from rich.live import Live

            self._live = Live(
                self,
                console=self.console,
                refresh_per_second=_REFRESHES,
                transient=True,
                # Rich would send the standard output to the console's stream, out of a pipe, too.
                redirect_stdout=is_terminal(sys.stdout),
            )
            self._live.start()

    def stop(self) -> None:
        """Remove the bar and release the terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def print(self, text: str) -> None:
        """Print a message above the bar, also if progress is disabled."""
        text = escape_terminal(text)
        shown = wrapped(text, self.console.width) if self.console.is_terminal else text
        self.console.print(shown, markup=False, highlight=False, soft_wrap=True)

    def update(self, share: float | None, fields: Sequence[Field]) -> None:
        """Show the finished share of the work, if known, and the fields."""
        if not self._enabled:
            return
        self._share, self._fields = share, fields
        if self._live is None and time.monotonic() - self._last_line >= LINE_EVERY_SECONDS:
            head = "" if share is None else f"{share:4.0%}  "
            self.line(self._prefix + head + "  ".join(one.text for one in fields if one.text))

    def line(self, text: str) -> None:
        """Print a line that is kept, if progress is enabled."""
        if self._enabled:
            self._last_line, self.has_shown = time.monotonic(), True
            shown = escape_terminal(text)
            self.console.print(shown, markup=False, highlight=False, soft_wrap=True)

    def bar_line(self, width: int, *, ascii_only: bool = False) -> str:
        """Return the bar, the percentage and the fields that fit in `width` columns."""
        if self._share is None:
            return "  ".join(fitting(self._fields, width))
        share = min(max(self._share, 0.0), 1.0)
        percentage = f"{share:4.0%}"
        room = width - len(percentage) - _BAR - 2
        if room < 0:
            return percentage[:width]
        texts = fitting(self._fields, room)
        length = min(_BAR + room - sum(len(text) + 2 for text in texts), _WIDEST_BAR)
        if length < _BAR:  # the gap before the first field did not fit
            texts, length = texts[:-1], _BAR
        done, rest = ("#", "-") if ascii_only else ("━", "┄")
        filled = int(length * share)
        bar = done * filled + rest * (length - filled)
        return "  ".join([f"{bar} {percentage}", *texts])

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        """Yield the line for the present width of the terminal."""
        from rich.text import Text

        line = self.bar_line(max(options.max_width - 1, 1), ascii_only=options.ascii_only)
        yield Text(line, no_wrap=True, overflow="crop")


class CountProgress:
    """Progress over files, rows or shards in a command: done, total, rate and remaining time.

    In the context, the loops of the library that are wrapped in `tracked` report to it. Nothing is shown of work that
    takes less than a second.

    Args:
        command: Name of the command.
        noun: Name of an item.
        total: Number of items. None: unknown.
        console: Output. By default the standard error stream.
    """

    def __init__(
        self,
        command: str,
        noun: str = "file",
        total: int | None = None,
        *,
        console: "Console | None" = None,
    ) -> None:
        self._prefix = f"perceivers {command}: "
        self._console = console
        self._line: ProgressLine | None = None
        self._noun, self._total = noun, total
        self._done = self._before = 0
        self._started = self._entered = time.monotonic()
        self._token: Token[CountProgress | None] | None = None

    def __enter__(self) -> "CountProgress":
        self._started = self._entered = time.monotonic()
        self._token = _active.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._token is not None:
            _active.reset(self._token)
        if self._line is not None:
            self._line.stop()
            if kind is None and self._done and self._line.has_shown:
                took = readable_duration(time.monotonic() - self._entered)
                self._line.line(f"{self._prefix}{counted(self._done, self._noun)} in {took}.")

    def expect(self, total: int | None, noun: str | None = None, start: int = 0) -> None:
        """Start to count anew, from `start` up to a total."""
        self._total, self._noun = total, noun or self._noun
        self._done = self._before = start
        self._started = time.monotonic()

    def advance(self, count: int = 1) -> None:
        """Count finished items."""
        self._done += count
        seconds = time.monotonic() - self._started
        if self._line is None:
            if seconds < _QUIET_SECONDS:
                return
            self._line = ProgressLine(prefix=self._prefix, console=self._console)
            self._line.start()
        done, total = self._done, self._total
        rate = (done - self._before) / seconds if seconds else 0.0
        if total is None:
            fields = [Field(counted(done, self._noun), 0)]
        else:
            fields = [Field(f"{done:,} of {counted(total, self._noun)}", 0)]
        if rate:
            fields.append(Field(f"{rate_text(rate)} {self._noun}s/s", 2))
            if total and done < total:
                fields.append(Field(f"{readable_duration((total - done) / rate)} left", 1))
        self._line.update(done / total if total else None, fields)


_active: ContextVar[CountProgress | None] = ContextVar("progress", default=None)


def tracked(
    items: Iterable[Item],
    total: int | None = None,
    noun: str | None = None,
    *,
    size: Callable[[Item], int] | None = None,
    start: int = 0,
) -> Iterator[Item]:
    """Yield the items and report each to the progress of the command, if one is shown.

    Args:
        items: Files, rows or batches.
        total: Their number. None: unknown.
        noun: Name of an item. By default that of the command.
        size: Number of items in a batch. By default 1.
        start: Number of items done before, of the total.
    """
    progress = _active.get()
    if progress is None:
        yield from items
        return
    progress.expect(total, noun, start)
    for item in items:
        yield item
        progress.advance(1 if size is None else size(item))


def rate_text(rate: float) -> str:
    """Return a rate with two significant digits, or without decimals from 10 on."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
