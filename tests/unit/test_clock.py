import os
import signal
import threading
import time

import pytest

from perceivers.recipes.registry import TrainingConfig
from perceivers.training.stopping import RunClock, StoppingCriteria, StopSignals


def test_progress_is_the_largest_share():
    limits = StoppingCriteria(epochs=10, steps=1000, seconds=60.0)
    assert limits.progress(epochs=1.0, steps=500, seconds=6.0) == 0.5
    assert limits.progress(epochs=9.0, steps=500, seconds=6.0) == 0.9
    assert limits.progress(epochs=1.0, steps=1, seconds=100.0) == 1.0


def test_time_is_counted_from_the_end_of_the_first_step():
    limits = StoppingCriteria(seconds=10.0)
    shares = [
        limits.progress(epochs=0, steps=1, seconds=now, first_step=4.0) for now in (4, 7, 10, 12)
    ]
    assert shares == [0.0, 0.5, 1.0, 1.0]
    assert limits.progress(epochs=0, steps=1, seconds=12.0, first_step=12.0) == 1.0


def test_limits_are_those_of_the_recipe():
    limits = StoppingCriteria.of(TrainingConfig(max_epochs=3, max_time="1m"))
    assert limits == StoppingCriteria(epochs=3, steps=None, seconds=60.0)


def test_a_run_without_end_is_refused():
    with pytest.raises(ValueError, match="would never end: give --max-time"):
        StoppingCriteria.of(TrainingConfig())


@pytest.mark.parametrize("name", ["max_epochs", "max_steps"])
def test_a_limit_of_nothing_is_refused(name):
    with pytest.raises(ValueError, match=rf"training.{name} to be 1 or more, got 0"):
        StoppingCriteria.of(TrainingConfig(**{name: 0}))


def test_the_clock_goes_on_from_where_it_was():
    clock = RunClock(100.0)
    assert clock.elapsed == 100.0
    clock.start()
    time.sleep(0.01)
    assert 100.0 < clock.elapsed < 110.0


def test_a_signal_is_remembered_and_the_former_handler_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    signals = StopSignals([signal.SIGTERM])
    signals.listen()
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.received == signal.SIGTERM
    signals.release()
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_second_ctrl_c_interrupts_at_once():
    signals = StopSignals([signal.SIGINT])
    signals.listen()
    try:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signals.release()


def test_outside_of_the_main_thread_no_signal_is_taken():
    before = signal.getsignal(signal.SIGTERM)
    signals = StopSignals([signal.SIGTERM])
    thread = threading.Thread(target=signals.listen)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) == before
