"""Rows that cannot be read are skipped, counted and named. Too many of them end the run."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from perceivers.data.base import Batch
from perceivers.data.loading.transform import WorkerResult

__all__ = ["BadRowTracker"]

SHOWN = 3
FEWEST = 100  # rows of a stream before its share of bad ones is judged: one of the first few is more than 1 %
_ROUND_SHARES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class BadRowTracker:
    """Takes in what workers read, on the side of the main process.

    Args:
        max_bad: Largest share of rows that may fail.
        num_rows: Rows that there are. None: not known, so that the rows read so far count.

    Attributes:
        bad: Reason by name, of each row that failed.
        notes: How often which note on decoding was made.
    """

    def __init__(self, max_bad: float, num_rows: int | None) -> None:
        self.max_bad = max_bad
        self.num_rows = num_rows
        self.bad: dict[str, str] = {}
        self.notes: Counter[str] = Counter()
        self._num_read = 0

    def take(self, read: WorkerResult) -> Batch | None:
        """Return the batch, None if not one of its rows could be read.

        Raises:
            ValueError: If more than `max_bad` of the rows have failed, the message naming the first of them;
                or what ended the reading in a worker.
            KeyError: Likewise, in a worker.
            TypeError: Likewise, in a worker.
        """
        if read.failure is not None:
            kind, message = read.failure
            raise kind(message)
        self._num_read += read.num_rows
        self.notes.update(read.notes)
        fresh = {name: reason for name, reason in read.bad if name not in self.bad}
        if fresh:
            self.bad.update(fresh)
            self._stop_if_too_many()
        return read.batch

    def state_dict(self) -> dict[str, Any]:
        """Return what is known so far."""
        return {"bad": dict(self.bad), "notes": dict(self.notes), "num_read": self._num_read}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self.bad, self.notes = dict(state["bad"]), Counter(state["notes"])
        self._num_read = state["num_read"]

    def _stop_if_too_many(self) -> None:
        num_rows = self.num_rows or self._num_read
        if len(self.bad) <= self.max_bad * (self.num_rows or max(num_rows, FEWEST)):
            return
        share = len(self.bad) / num_rows
        higher = next((nice for nice in _ROUND_SHARES if nice > share), 1.0)
        first = " ".join(list(self.bad.values())[:SHOWN])
        more = len(self.bad) - SHOWN
        msg = (
            f"{len(self.bad)} of {num_rows:,} rows ({share:.1%}) cannot be read, more than the "
            f"{self.max_bad:.1%} allowed: {first}{f' And {more} more.' if more > 0 else ''} "
            f"Repair the data, or go on without such rows with --max-bad {higher:g}."
        )
        raise ValueError(msg)
