"""Append the help of every command to docs/commands.md when the documentation is built.

MkDocs calls `on_page_markdown` (`hooks` in mkdocs.yml).
"""

import contextlib
import io
import os
from typing import Any
from unittest import mock

from perceivers.cli.main import COMMANDS, main

__all__ = ["command_help", "on_page_markdown", "reference"]


def command_help(command: str) -> str:
    """Return the help of a command at 100 columns."""
    out = io.StringIO()
    with mock.patch.dict(os.environ, COLUMNS="100"), contextlib.redirect_stdout(out):
        status = main([command, "--help"])
    if status:
        raise ValueError(f"perceivers {command} --help ended with status {status}.")
    return out.getvalue().strip()


def reference() -> str:
    """Return the Markdown of the reference: a heading and the help of each command."""
    parts = ["## Reference"]
    for command, purpose in COMMANDS.items():
        parts.append(
            f"### perceivers {command}\n\n{purpose}\n\n```text\n{command_help(command)}\n```"
        )
    return "\n\n".join(parts) + "\n"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Append the reference to docs/commands.md."""
    return f"{markdown}\n{reference()}" if page.file.src_uri == "commands.md" else markdown
