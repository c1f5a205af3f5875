"""Messages and progress in terminals, files and pipes."""

import io
import sys

import pytest
from rich.console import Console

from perceivers import console as console_module
from perceivers.cli.terminal import echo
from perceivers.console import CountProgress, tracked, wrapped
from perceivers.wording import counted, names_text


class Tty(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("count", "plural", "text"),
    [(0, None, "0 classs"), (1, None, "1 class"), (2_000, "classes", "2,000 classes")],
)
def test_nouns_follow_their_number(count, plural, text):
    assert counted(count, "class", plural) == text


def test_names_are_cut_after_the_first_few():
    assert names_text(["a", "b"]) == "a, b"
    assert names_text(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def test_a_message_is_wrapped_between_words_only():
    text = (
        "The file '/data/my birds and other animals/a robin in the snow.png' cannot be read: " * 3
    )
    lines = wrapped(text.strip(), 60).splitlines()
    assert " ".join(lines) == text.strip()
    assert "'/data/my birds and other animals/a robin in the snow.png'" in lines
    assert all(len(line) <= 60 for line in lines)


def test_a_word_longer_than_the_width_is_not_broken():
    path = "/".join(["folder"] * 20)
    assert wrapped(f"Cannot read {path}: damaged.", 40) == f"Cannot read\n{path}:\ndamaged."


def test_an_apostrophe_opens_no_quotation():
    text = (
        "The run's own data and the model's own weights are what this run's folder holds, and more."
    )
    assert max(map(len, wrapped(text, 40).splitlines())) <= 40


def test_rows_of_tables_are_not_wrapped():
    row = "accuracy       98.3 %  95.1 to 99.4      and further cells of the row"
    assert (
        wrapped(f"{row}\nA sentence after the table.", 20) == f"{row}\nA sentence after the\ntable."
    )


def test_lines_and_indents_of_a_message_are_kept():
    assert wrapped("one\n  two three", 8) == "one\n  two\n  three"


@pytest.mark.parametrize("flags", [{"err": True}, {"wrap": True}])
def test_messages_are_wrapped_in_a_terminal_and_not_in_a_file(monkeypatch, flags):
    monkeypatch.setenv("COLUMNS", "30")
    text = "A message of more than thirty columns for the terminal."
    for stream in (Tty(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr" if "err" in flags else "stdout", stream)
        echo(text, **flags)
        longest = max(map(len, stream.getvalue().splitlines()))
        assert (longest <= 30) == stream.isatty()
        assert stream.getvalue().split() == text.split()


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(console_module.time, "monotonic", lambda: now[0])
    return now


def test_progress_of_short_work_is_not_shown(clock):
    file = io.StringIO()
    with CountProgress("predict", console=Console(file=file, force_terminal=True)):
        assert list(tracked(range(5), 5)) == [0, 1, 2, 3, 4]
    assert file.getvalue() == ""


def test_progress_in_a_terminal_has_a_bar_with_done_total_rate_and_time_left(clock):
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80)
    with CountProgress("predict", console=console) as progress:
        for number in tracked(range(2000), 2000):
            clock[0] += 0.01
            if number == 999:
                line = progress._line.bar_line(80)
    assert "999 of 2,000 files" in line
    assert "100 files/s" in line
    assert "10 s left" in line
    assert len(line) <= 80
    assert file.getvalue().rstrip().endswith("perceivers predict: 2,000 files in 20 s.")


def test_progress_in_a_log_file_is_a_line_every_half_minute(clock):
    file = io.StringIO()
    with CountProgress("evaluate", "sample", console=Console(file=file, width=80)):
        for _ in tracked(range(50), 50):
            clock[0] += 1.5
    lines = file.getvalue().splitlines()
    assert lines[0].startswith("perceivers evaluate:  42%  21 of 50 samples  0.67 samples/s")
    assert lines[-1] == "perceivers evaluate: 50 samples in 1 min 15 s."
    assert len(lines) == 3


def test_items_of_unknown_number_are_counted(clock):
    file = io.StringIO()
    with CountProgress("predict", "row", console=Console(file=file, width=80)) as progress:
        for _ in tracked(iter(range(50)), size=lambda item: 10):
            clock[0] += 1
    assert progress._line is not None
    assert "310 rows  10 rows/s" in file.getvalue()


def test_without_a_command_nothing_is_shown(capsys):
    assert list(tracked([1, 2], 2)) == [1, 2]
    assert capsys.readouterr() == ("", "")


def test_shards_continue_the_count_of_the_rows(clock):
    file = io.StringIO()
    with CountProgress("shard", "row", console=Console(file=file, width=80)):
        for start in (0, 50):
            for _ in tracked(range(start, start + 50), 100, start=start):
                clock[0] += 1
    assert "perceivers shard:  61%  61 of 100 rows  1 rows/s  39 s left" in file.getvalue()
    assert file.getvalue().endswith("perceivers shard: 100 rows in 1 min 40 s.\n")
