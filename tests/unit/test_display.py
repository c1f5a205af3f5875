import io

import pytest
from rich.console import Console

from perceivers.training import progress as display_module
from perceivers.training.progress import ProgressDisplay, readable_duration

ROW = {"step": 10, "epoch": 1.0, "train/loss": 0.5, "validation/accuracy": 0.75}


def plain(file):
    return Console(file=file, highlight=False, width=200)


@pytest.mark.parametrize(
    ("seconds", "text"), [(48.2, "48 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations_read_well(seconds, text):
    assert readable_duration(seconds) == text


def test_without_a_terminal_a_validation_is_a_line():
    file = io.StringIO()
    display = ProgressDisplay(console=plain(file))
    display.start()
    display.result({"step": 5, "epoch": 0.5, "train/loss": 0.9}, progress=0.1)
    assert file.getvalue() == ""
    display.result(ROW, progress=0.2)
    display.stop()
    assert file.getvalue() == " 20%  step 10  epoch 1  loss 0.5  validation accuracy 75.0%\n"


def test_without_a_terminal_a_line_comes_every_half_minute(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(display_module.time, "monotonic", lambda: now[0])
    file = io.StringIO()
    display = ProgressDisplay(console=plain(file))
    display.start()
    for step in range(1, 5):
        now[0] += 10
        display.step(progress=step / 10, step=step, epoch=0, samples=20 * step)
    assert file.getvalue() == " 30%  step 3  epoch 1  2 samples/s  1 min 10 s left\n"


def test_another_metric_is_shown_as_a_number():
    file = io.StringIO()
    display = ProgressDisplay(main_metric="error", console=plain(file))
    display.result({"step": 1, "epoch": 1.0, "validation/error": 0.123456}, progress=1.0)
    assert "validation error 0.1235" in file.getvalue()


def test_every_share_is_shown_as_a_percentage():
    file = io.StringIO()
    display = ProgressDisplay(main_metric="mAP", console=plain(file))
    display.result({"step": 1, "epoch": 1.0, "validation/mAP": 0.435}, progress=1.0)
    assert "validation mAP 43.5%" in file.getvalue()


def test_in_a_terminal_there_is_a_bar():
    file = io.StringIO()
    display = ProgressDisplay(console=Console(file=file, force_terminal=True, width=200))
    display.start()
    display.result(ROW, progress=0.5)
    display.step(progress=0.5, step=5, epoch=0, samples=20)
    display.step(progress=0.6, step=6, epoch=0, samples=4000)
    display.stop()
    display.stop()
    assert "60 %" in file.getvalue()
    assert "samples/s" in file.getvalue()


def test_notes_are_said_even_when_nothing_else_is():
    file = io.StringIO()
    display = ProgressDisplay(enabled=False, console=plain(file))
    display.start()
    display.step(progress=0.5, step=5, epoch=0, samples=20)
    display.result(ROW, progress=0.5)
    display.note("This [is] a note.")
    assert file.getvalue() == "This [is] a note.\n"
