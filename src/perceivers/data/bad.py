"""Rows that cannot be read are skipped, counted and named. Too many of them end the run."""

from collections.abc import Iterable

__all__ = ["BadRows"]

SHOWN = 3
_ROUND_SHARES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class BadRows:
    """The rows that failed so far, each once.

    Args:
        max_bad: Largest share of rows that may fail.
        num_rows: Rows that there are. None: not known (a stream), so that the rows read so far count.
    """

    def __init__(self, max_bad: float, num_rows: int | None) -> None:
        self.max_bad = max_bad
        self.num_rows = num_rows
        self.num_read = 0
        self.reasons: dict[str, str] = {}

    def add(self, bad: Iterable[tuple[str, str]], num_read: int) -> None:
        """Take in what one batch reports.

        Args:
            bad: Name and reason of each row that failed.
            num_read: Rows of the batch, the failed ones too.

        Raises:
            ValueError: If more than `max_bad` of the rows have failed. The message names the first of them.
        """
        self.num_read += num_read
        before = len(self.reasons)
        for name, reason in bad:
            self.reasons.setdefault(name, reason)
        if len(self.reasons) > before:
            self._stop_if_too_many()

    def _stop_if_too_many(self) -> None:
        # A stream's share is judged from its hundredth row on: before, one bad row would be more than 1 %.
        num_rows = self.num_rows or max(self.num_read, 100)
        share = len(self.reasons) / num_rows
        if share <= self.max_bad:
            return
        higher = next(nice for nice in _ROUND_SHARES if nice > share or nice == 1.0)
        first = " ".join(list(self.reasons.values())[:SHOWN])
        more = len(self.reasons) - SHOWN
        msg = (
            f"{len(self.reasons)} of {num_rows:,} rows ({share:.1%}) cannot be read, more than the "
            f"{self.max_bad:.1%} allowed: {first}{f' And {more} more.' if more > 0 else ''} "
            f"Repair the data, or go on without such rows with --max-bad {higher:g}."
        )
        raise ValueError(msg)
