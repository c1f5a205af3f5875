import io
import os
import sys

import pytest

from perceivers.cli.terminal import echo, prepare_streams
from perceivers.training.progress import ProgressDisplay

NAME = os.fsdecode(b"caf\xe9") + "\x1b[2J\u202e.png"


class Stream(io.TextIOWrapper):
    """A stream that may be a terminal."""

    def __init__(self, *, is_terminal: bool, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding=encoding)
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal

    def written(self) -> bytes:
        return self.buffer.getvalue()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_messages_are_escaped(monkeypatch, is_terminal):
    stream = Stream(is_terminal=is_terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    echo(f"cannot read {NAME}\nnext", err=True)
    assert stream.written() == b"cannot read caf\\xe9\\x1b[2J\\u202e.png\nnext\n"


def test_results_are_escaped_in_a_terminal_and_exact_in_a_pipe(monkeypatch):
    for is_terminal in (True, False):
        stream = Stream(is_terminal=is_terminal)
        monkeypatch.setattr(sys, "stdout", stream)
        prepare_streams()
        echo(NAME)
        exact = b"caf\xe9\x1b[2J\xe2\x80\xae.png\n"
        assert stream.written() == (b"caf\\xe9\\x1b[2J\\u202e.png\n" if is_terminal else exact)


def test_a_character_that_the_encoding_lacks_is_no_error(monkeypatch):
    stream = Stream(is_terminal=False, encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    prepare_streams()
    echo("鳥 😀")
    assert stream.written() == b"\\u9ce5 \\U0001f600\n"


def test_notes_of_a_run_are_escaped(capsys):
    ProgressDisplay(enabled=False).note(f"left out {NAME}")
    assert capsys.readouterr().err == "left out caf\\xe9\\x1b[2J\\u202e.png\n"
