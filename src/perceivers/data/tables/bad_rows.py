"""Share of rows that cannot be read, and the error if it is too large."""

from collections.abc import Mapping

_SHOWN = 3  # bad rows in a message
_ROUND_SHARES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def check_bad_share(
    bad: Mapping[str, str], num_rows: int, max_bad: float, *, fewest: int = 0
) -> None:
    """Check that not too many rows are bad.

    Args:
        bad: Reason by name of each row that cannot be read.
        num_rows: Number of rows, with these.
        max_bad: Largest share of bad rows.
        fewest: Number of rows below which the share is not judged.

    Raises:
        ValueError: If there are more.
    """
    if len(bad) <= max_bad * max(num_rows, fewest):
        return
    share = len(bad) / num_rows
    higher = next((nice for nice in _ROUND_SHARES if nice > share), 1.0)
    first = " ".join(list(bad.values())[:_SHOWN])
    more = len(bad) - _SHOWN
    raise ValueError(
        f"{len(bad)} of {num_rows:,} rows ({share:.1%}) cannot be read, more than the "
        f"{max_bad:.1%} allowed, so far: {first}{f' And {more} more.' if more > 0 else ''} "
        f"Repair the data, or go on without such rows with --max-bad {higher:g}. `perceivers check` counts all of them."
    )
