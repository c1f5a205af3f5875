from types import SimpleNamespace

import pytest
import torch

from perceivers.data.modalities.image.modality import ImagePreprocessConfig
from perceivers.training import data_wait as waiting
from perceivers.training.data_wait import WARM_UP_STEPS, DataWaitTime, StepTimer, advice

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """A clock that goes on when a test says so."""
    now = [0.0]
    monkeypatch.setattr(waiting, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    return now


def step(watch, clock, *, wait=0.0, work=0.0, pauses=False):
    watch.begin()
    watch.ask()
    clock[0] += wait
    watch.receive()
    clock[0] += work
    watch.end(pauses=pauses)


def test_the_share_is_waiting_over_the_whole_step(clock):
    watch = StepTimer(CPU)
    for _ in range(WARM_UP_STEPS):
        step(watch, clock, wait=0.05)  # workers start: not counted
    for _ in range(5):
        step(watch, clock, wait=0.01, work=0.03)
        clock[0] += 0.05  # a validation: not counted
    found = watch.take()
    assert found.waiting == pytest.approx(0.05)
    assert found.seconds == pytest.approx(0.2)
    assert found.share == found.waiting / found.seconds
    assert watch.take() == DataWaitTime()  # it begins anew


def test_all_batches_of_a_step_count(clock):
    watch = StepTimer(CPU)
    for _ in range(WARM_UP_STEPS):
        step(watch, clock)
    watch.begin()
    for _ in range(3):
        watch.ask()
        clock[0] += 0.01
        watch.receive()
    watch.end(pauses=True)
    assert watch.take().waiting == pytest.approx(0.03)


def test_a_run_of_a_few_steps_has_no_share(clock):
    watch = StepTimer(CPU)
    step(watch, clock)
    watch.end(pauses=True)  # nothing was begun
    assert watch.take().share is None
    assert advice(DataWaitTime(), workers=0, threads=2) == ("", "")


def test_times_add_up_and_no_share_is_above_one():
    waited = DataWaitTime(10.0, 1.0)
    waited.add(DataWaitTime(10.0, 2.0))
    assert waited == DataWaitTime(20.0, 3.0)
    assert waited.share == 0.15
    assert DataWaitTime(1.0, 1.1).share == 1.0
    assert waited.slowest(CPU) == waited  # of one process


def test_little_waiting_needs_no_advice():
    assert advice(DataWaitTime(1000.0, 12.0), workers=0, threads=2) == ("1.2% of the step time", "")
    assert advice(DataWaitTime(5.0, 4.0), workers=0, threads=2)[1] == ""  # too short to tell
    assert advice(DataWaitTime(100.0, 30.0), workers=0, threads=2)[1] == ""  # a worker gains less
    assert advice(DataWaitTime(100.0, 30.0), workers=1, threads=2)[1] != ""


@pytest.mark.parametrize(("workers", "more"), [(0, 2), (4, 8)])
def test_much_waiting_names_the_knobs(workers, more):
    waited, tip = DataWaitTime(100.0, 40.0), ImagePreprocessConfig.loading_tip
    text, what = advice(waited, workers=workers, threads=6, processes=2, tips=[tip, "", tip])
    assert text == "40.0% of the step time (the slowest of 2 processes)"
    assert f"--workers {more} (now {workers}; 6 threads compute)" in what
    assert "256 MiB" in what
    assert what.count("resized beforehand") == 1
    assert "image" not in advice(waited, workers=workers, threads=6)[1]


class Event:
    """A CUDA event of a GPU that was idle from 2 ms after the first to the second, at made-up times."""

    clock = 0.0

    def __init__(self, *, enable_timing):
        assert enable_timing

    def record(self):
        self.at = Event.clock

    def elapsed_time(self, other):
        return (other.at - self.at) * 1000


def test_on_a_gpu_its_own_idle_time_counts(clock, monkeypatch):
    stopped = []
    monkeypatch.setattr(waiting.torch.cuda, "Event", Event)
    monkeypatch.setattr(waiting.torch.cuda, "synchronize", lambda: stopped.append(1))
    watch = StepTimer(torch.device("cuda"))
    for number in range(WARM_UP_STEPS + 4):
        watch.begin()
        watch.ask()
        Event.clock += 0.002  # by the GPU's clock; the process waits for less
        watch.receive()
        Event.clock += 0.010
        clock[0] += 0.012
        watch.end(pauses=number == WARM_UP_STEPS + 3)
    found = watch.take()
    assert found.waiting == pytest.approx(4 * 0.002)  # of the steps after the warm-up
    assert found.seconds == pytest.approx(4 * 0.012)
    assert stopped == [1]  # only before a pause
    assert watch.take().waiting == 0
