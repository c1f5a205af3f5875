"""Waiting in tests: long enough for a machine that is busy, as only a failing test waits that long."""

import time
from collections.abc import Callable

__all__ = ["PATIENCE", "wait_until"]

PATIENCE = 120.0  # seconds


def wait_until(is_true: Callable[[], object], *, seconds: float = PATIENCE) -> None:
    """Poll a condition until it holds.

    Args:
        is_true: The condition.
        seconds: Fail after this time.

    Raises:
        AssertionError: If the condition does not hold in time.
    """
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, f"The condition did not hold within {seconds:g} s."
        time.sleep(0.005)
