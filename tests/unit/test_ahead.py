import gc
import threading
import time

import pytest

from perceivers.data.loading.workers import Prefetcher
from support.timing import wait_until


def threads():
    return [t for t in threading.enumerate() if t.name == "perceivers reads ahead"]


def counting(log, stop=100):
    for number in range(stop):
        log.append(number)
        yield number


def settled(log, length):
    """Wait until the thread has read so much, and a little longer for what it should not read."""
    wait_until(lambda: len(log) >= length)
    time.sleep(0.05)
    return list(log)


def test_items_come_in_their_order_and_end():
    ahead = Prefetcher(iter(range(50)))
    assert list(ahead) == list(range(50))
    assert list(ahead) == []  # and stays at its end
    ahead.close()


def test_no_more_is_read_than_was_asked_for():
    log = []
    ahead = Prefetcher(counting(log), depth=3)
    assert settled(log, 3) == [0, 1, 2]
    assert next(ahead) == 0
    assert settled(log, 4) == [0, 1, 2, 3]
    ahead.close()


def test_reading_goes_on_while_the_taker_is_busy():
    log = []
    ahead = Prefetcher(counting(log, stop=6))
    for number in ahead:  # busy with this item until the next one is read
        settled(log, min(number + 2, 6))
    assert log == list(range(6))


def test_an_error_comes_in_its_place():
    def failing():
        yield 1
        raise ValueError("a damaged row")

    ahead = Prefetcher(failing())
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="a damaged row"):
        next(ahead)
    with pytest.raises(StopIteration):
        next(ahead)


def test_closing_ends_the_thread_and_the_items():
    log = []
    ahead = Prefetcher(counting(log))
    ahead.close()
    ahead.close()
    assert list(ahead) == []
    assert not threads()


def test_one_that_is_forgotten_ends_its_thread():
    Prefetcher(counting([]))
    gc.collect()
    wait_until(lambda: not threads())
