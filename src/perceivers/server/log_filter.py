"""A filter that logs each kind of trouble once per interval."""

import logging
import time

_SECONDS = 60.0
_MOST_KINDS = 1000


class RepeatFilter(logging.Filter):
    """Passes one record per interval for each line of code and type of error, and counts the others.

    Args:
        seconds: The interval.
    """

    def __init__(self, seconds: float = _SECONDS) -> None:
        super().__init__()
        self.seconds = seconds
        self._seen: dict[tuple[object, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is logged. It states how many like it were not."""
        if record.levelno < logging.WARNING:
            return True
        error = record.exc_info[0] if record.exc_info else None
        key = (record.name, record.pathname, record.lineno, error)
        now = time.monotonic()
        last, count = self._seen.get(key, (-self.seconds, 0))
        if now - last < self.seconds:
            self._seen[key] = (last, count + 1)
            return False
        if len(self._seen) >= _MOST_KINDS:
            self._seen.clear()
        self._seen[key] = (now, 0)
        if count:
            record.msg = f"{record.getMessage()} ({count} more like this since the last message)"
            record.args = ()
        return True
