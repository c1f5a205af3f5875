"""Progress of training: a bar that fits the terminal and a table of validations."""

import io

import pytest
from rich.console import Console

from perceivers import console as console_module
from perceivers.training.progress import ProgressDisplay, epoch_text
from perceivers.wording import readable_duration

ROW = {
    "step": 1010,
    "epoch": 1.0,
    "train/loss": 0.5,
    "validation/loss": 0.4,
    "validation/accuracy": 0.75,
}


def plain(file, width=80):
    return Console(file=file, highlight=False, width=width)


def live(file, width=80, **settings):
    return Console(file=file, force_terminal=True, width=width, **settings)


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(console_module.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("seconds", "text"), [(48.2, "48 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations_read_well(seconds, text):
    assert readable_duration(seconds) == text


def test_without_a_terminal_a_validation_is_a_row_of_a_table():
    file = io.StringIO()
    display = ProgressDisplay(console=plain(file))
    display.start()
    display.result({"step": 5, "epoch": 0.5, "train/loss": 0.9}, progress=0.1)
    assert file.getvalue() == ""
    display.result(ROW, progress=0.2)
    display.result({**ROW, "step": 2020, "epoch": 1.929}, progress=1.0, interval=(0.71, 0.78))
    display.stop()
    assert file.getvalue().splitlines() == [
        " done     step   epoch  train loss  validation loss  accuracy",
        "  20%    1,010       1      0.5000           0.4000    75.0 %",
        " 100%    2,020    1.93      0.5000           0.4000    75.0 %     71.0 to 78.0",
    ]


def test_a_narrow_terminal_gets_the_most_important_columns():
    file = io.StringIO()
    display = ProgressDisplay(console=plain(file, width=40))
    display.result(ROW, progress=0.2)
    header, row = file.getvalue().splitlines()
    assert header.split()[:2] == ["step", "epoch"]
    assert header.split()[-1] == "accuracy"
    assert max(len(header), len(row)) <= 40


def test_without_a_terminal_a_line_comes_every_half_minute(clock):
    file = io.StringIO()
    display = ProgressDisplay(console=plain(file, width=200))
    display.start()
    for step in range(1, 5):
        clock[0] += 10
        display.step(progress=step / 10, step=step, epoch=step / 4, samples=20 * step)
    assert file.getvalue() == " 30%  epoch 0.75  step 3  2 samples/s  1 min 10 s left\n"


def test_another_metric_is_shown_as_a_number():
    file = io.StringIO()
    display = ProgressDisplay(main_metric="error", console=plain(file))
    display.result({"step": 1, "epoch": 1.0, "validation/error": 0.123456}, progress=1.0)
    assert "0.1235" in file.getvalue()


def test_every_share_is_shown_as_a_percentage():
    file = io.StringIO()
    display = ProgressDisplay(main_metric="mAP", console=plain(file))
    display.result({"step": 1, "epoch": 1.0, "validation/mAP": 0.435}, progress=1.0)
    assert "43.5 %" in file.getvalue()


def test_a_loss_as_the_main_metric_is_one_column():
    file = io.StringIO()
    display = ProgressDisplay(main_metric="loss", console=plain(file))
    display.result(ROW, progress=1.0)
    assert file.getvalue().splitlines()[0].split() == [
        "done",
        "step",
        "epoch",
        "train",
        "loss",
        "validation",
        "loss",
    ]


def test_in_a_terminal_there_is_a_bar_and_each_validation_is_kept():
    file = io.StringIO()
    display = ProgressDisplay(console=live(file))
    display.start()
    display.result(ROW, progress=0.5)
    display.step(progress=0.5, step=5, epoch=0.5, samples=20)
    display.step(progress=0.6, step=6, epoch=0.6, samples=4000)
    display.stop()
    display.stop()
    text = file.getvalue()
    assert "━" in text
    assert "60%" in text
    assert "75.0 %\n" in text


@pytest.mark.parametrize("width", [20, 40, 60, 79, 80, 120, 200])
def test_the_bar_fits_every_width_and_keeps_its_percentage(clock, width):
    display = ProgressDisplay(console=live(io.StringIO(), width=width))
    display.result(ROW, progress=0.5)
    display.step(progress=0.1, step=1_000, epoch=0.5, samples=20)
    clock[0] += 4000
    display.step(progress=0.456, step=123_456, epoch=12.34, samples=400_000)
    line = display._bar.bar_line(width)
    assert len(line) <= width
    assert " 46%" in line
    assert line.count("━") + line.count("┄") >= 10
    assert ("left" in line) == (width > 30)
    assert ("samples/s" in line) == (width >= 120)


@pytest.mark.parametrize(("name", "value"), [("TERM", "dumb"), ("TERM", "unknown")])
def test_a_terminal_that_cannot_draw_gets_lines(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    file = io.StringIO()
    display = ProgressDisplay(console=live(file, color_system=None))
    display.start()
    display.step(progress=0.5, step=5, epoch=0.5, samples=20)
    display.result(ROW, progress=0.5)
    display.stop()
    assert "━" not in file.getvalue()
    assert "\x1b" not in file.getvalue()
    assert "75.0 %\n" in file.getvalue()


def test_notes_are_printed_even_when_nothing_else_is():
    file = io.StringIO()
    display = ProgressDisplay(enabled=False, console=plain(file))
    display.start()
    display.step(progress=0.5, step=5, epoch=0.5, samples=20)
    display.result(ROW, progress=0.5)
    display.note("This [is] a note.")
    assert file.getvalue() == "This [is] a note.\n"


@pytest.mark.parametrize(
    ("epoch", "text"), [(0.0, "0"), (1.0, "1"), (1.929, "1.93"), (2.9999, "3")]
)
def test_epochs_are_passes_over_the_data(epoch, text):
    assert epoch_text(epoch) == text
