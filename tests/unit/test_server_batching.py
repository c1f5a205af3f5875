import asyncio
import threading
import time

import pytest

from perceivers.server.batching import Batcher, ModelGoneError
from support.timing import PATIENCE


def soon() -> float:
    return time.monotonic() + PATIENCE


def running(compute, **how):
    batcher = Batcher(compute, **{"largest": 4, "wait": 0.2} | how)
    batcher.start()
    return batcher


def test_what_waits_goes_together_up_to_the_largest_batch():
    sizes = []
    batcher = running(
        lambda items: [2 * item for item in items],
        wait=PATIENCE,
        expected=lambda: 6 - sum(sizes),
        on_batch=sizes.append,
    )

    async def ask():
        return await asyncio.gather(*(batcher.submit(item, soon()) for item in range(6)))

    assert asyncio.run(ask()) == [0, 2, 4, 6, 8, 10]
    assert sizes == [4, 2]
    batcher.stop()
    assert not batcher.is_alive


def test_one_that_is_alone_does_not_wait():
    batcher = running(list, wait=10 * PATIENCE, expected=lambda: 1)
    assert asyncio.run(batcher.submit("a", soon())) == "a"
    batcher.stop()


def test_a_sample_that_fails_spoils_no_other_of_its_batch():
    def compute(items):
        if 1 in items:
            msg = "one is odd"
            raise ValueError(msg)
        return items

    batcher = running(compute, expected=lambda: 3)

    async def ask():
        asked = (batcher.submit(item, soon()) for item in range(3))
        return await asyncio.gather(*asked, return_exceptions=True)

    first, second, third = asyncio.run(ask())
    assert (first, third) == (0, 2)
    assert str(second) == "one is odd"
    with pytest.raises(ValueError, match="odd"):
        asyncio.run(batcher.submit(1, soon()))
    batcher.stop()


def test_work_goes_alone_and_what_comes_before_it_does_not_wait_for_more():
    batcher = running(list, wait=10 * PATIENCE, expected=lambda: 10)

    async def ask():
        sample = asyncio.create_task(batcher.submit("a", soon()))
        await asyncio.sleep(0)
        return await batcher.alone(lambda: "b", soon()), await sample

    assert asyncio.run(ask()) == ("b", "a")
    batcher.stop()


def test_what_is_late_is_given_up_and_not_computed():
    started, held, seen = threading.Event(), threading.Event(), []

    def compute(items):
        started.set()
        assert held.wait(PATIENCE)
        seen.extend(items)
        return items

    batcher = running(compute, largest=1)

    async def ask():
        first = asyncio.create_task(batcher.submit("first", soon()))
        await asyncio.to_thread(started.wait, PATIENCE)
        with pytest.raises(TimeoutError):
            await batcher.submit("late", time.monotonic() + 0.05)
        assert batcher.waiting == 1
        held.set()
        return await first

    assert asyncio.run(ask()) == "first"
    batcher.stop()
    assert seen == ["first"]


def test_what_waits_is_finished_before_it_stops():
    batcher = running(list, wait=10 * PATIENCE, expected=lambda: 10)

    async def ask():
        asked = [asyncio.create_task(batcher.submit(item, soon())) for item in range(3)]
        await asyncio.sleep(0)
        await asyncio.to_thread(batcher.stop)
        return await asyncio.gather(*asked)

    assert asyncio.run(ask()) == [0, 1, 2]
    with pytest.raises(ModelGoneError, match="Start the server again"):
        asyncio.run(batcher.submit(1, soon()))
