"""Printing of the commands: the only place that writes text to standard output and standard error."""

import io
import sys

from perceivers.console import wrapped_for
from perceivers.escaping import encoding_errors, escape_terminal


def echo(
    text: object = "", *, err: bool = False, end: str = "\n", wrap: bool | None = None
) -> None:
    """Print a text, escaped if it is a message or is shown in a terminal.

    Results that another program reads (standard output that is no terminal) are written unchanged, and names in them
    that are not UTF-8 with their bytes.

    Args:
        text: Text of one or more lines.
        err: Print to standard error: messages, warnings and progress.
        end: Text after it.
        wrap: Wrap between words in a terminal. By default messages are wrapped; tables and commands are not.
    """
    stream = sys.stderr if err else sys.stdout
    shown = escape_terminal(str(text)) if err or stream.isatty() else str(text)
    if err if wrap is None else wrap:
        shown = wrapped_for(stream, shown)
    stream.write(f"{shown}{end}")
    stream.flush()


def prepare_streams() -> None:
    """Let standard output and error take any character, and keep their order in a pipe."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors=encoding_errors())
