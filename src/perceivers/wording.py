"""Counts, durations and lists of names as text."""

from collections.abc import Sequence


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Return a count with its noun: `1 file`, `2 files`, `1,200 rows`.

    Args:
        count: Number of things.
        noun: The noun in the singular.
        plural: Its plural. Default: with an s.
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def readable_duration(seconds: float) -> str:
    """Return `48 s`, `3 min 20 s` or `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def names_text(names: Sequence[str], shown: int = 3) -> str:
    """Return the first names and the number of the others: `a.png, b.png, c.png and 5 more`."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more:,} more" if more > 0 else "")
