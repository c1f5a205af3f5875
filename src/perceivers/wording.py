"""Counts, durations and lists of names as text."""

import re
from collections.abc import Sequence

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")
_UNITS = {"h": 3600, "m": 60, "s": 1}


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


def parse_duration(text: str) -> float:
    """Return a duration such as `90`, `45s`, `10m`, `2h` or `1h30m` in seconds.

    Raises:
        ValueError: If the text is no duration, or zero.
    """
    found = _DURATION.fullmatch(text.strip().lower())
    parts = found.groups(default="0") if found else ("0", "0", "0")
    seconds = sum(float(n) * unit for n, unit in zip(parts, _UNITS.values(), strict=True))
    if seconds <= 0:
        raise ValueError(f"Expected a duration such as 45s, 10m, 2h or 1h30m, got '{text}'.")
    return seconds


def check_duration(text: str) -> str:
    """Return a text that `parse_duration` can parse.

    Raises:
        ValueError: If it cannot.
    """
    parse_duration(text)
    return text


def names_text(names: Sequence[str], shown: int = 3) -> str:
    """Return the first names and the number of the others: `a.png, b.png, c.png and 5 more`."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more:,} more" if more > 0 else "")


def megabytes(count: int) -> str:
    """Return a number of bytes as text, in units of a million: `0.43 MB`, `25.4 MB`."""
    size = count / 1e6
    return f"{size:.2f} MB" if size < 10 else f"{size:,.1f} MB"
