"""Continuation of the time stamps of a series at their regular step."""

from typing import Any

import numpy as np
import numpy.typing as npt

from perceivers.data.modalities.series.decode import TimeStamps

Dates = npt.NDArray[Any]  # of datetime64

_REGULAR = 0.9  # share of the steps that equal their median
_TOLERANCE = 0.01  # of a step, for stamps that are rounded
_MICROSECONDS = 1e6


def continue_stamps(stamps: TimeStamps, last: int, count: int) -> list[str] | list[float]:
    """Return the time stamps of the steps after a row.

    The step is the median difference between rows: a number of calendar months if all stamps are dates on one day of
    the month, or on its last day; otherwise a duration.

    Args:
        stamps: Time stamps of all rows.
        last: Index of the row.
        count: Number of steps.

    Returns:
        Dates in ISO 8601 (UTC), or numbers in the units of the series. Empty if the stamps are irregular: there are
        fewer than two rows, or more than a tenth of the differences are not the median one.
    """
    if isinstance(stamps.origin, np.datetime64):
        span = np.rint(stamps.seconds * _MICROSECONDS).astype("timedelta64[us]")
        dates = stamps.origin.astype("datetime64[us]") + span
        found = _months(dates, last, count)
        if found is None:
            step = _step(stamps.seconds)
            if step is None:
                return []
            found = dates[last] + np.arange(1, count + 1) * np.timedelta64(
                round(step * _MICROSECONDS), "us"
            )
        both = np.concatenate([dates, found])
        shortest = next(
            (one for one in ("D", "s") if (both == both.astype(f"datetime64[{one}]")).all()), "us"
        )
        return np.datetime_as_string(found.astype(f"datetime64[{shortest}]")).tolist()
    step = _step(stamps.seconds)
    if step is None:
        return []
    after = (stamps.seconds[last] + step * np.arange(1, count + 1)) * stamps.per_second
    if isinstance(stamps.origin, int):
        return [stamps.origin + round(one) for one in after.tolist()]
    return [float(f"{stamps.origin + one:.15g}") for one in after.tolist()]  # 0.3, not 0.1 + 0.2


def _step(times: npt.NDArray[np.float64]) -> float | None:
    """Return the median difference of times. None: they are irregular."""
    steps = np.diff(times)
    if not len(steps):
        return None
    step = float(np.median(steps))
    is_equal = np.abs(steps - step) <= _TOLERANCE * step
    return step if is_equal.mean() >= _REGULAR else None


def _months(dates: Dates, last: int, count: int) -> Dates | None:
    """Return the dates after a row if the step is a number of calendar months."""
    months = dates.astype("datetime64[M]")
    days = (dates.astype("datetime64[D]") - months.astype("datetime64[D]")).astype(int)  # from 0
    time = dates - dates.astype("datetime64[D]")
    lengths = _days_of(months)
    day = 30 if (days == lengths - 1).all() else int(days.max())
    if (days != np.minimum(day, lengths - 1)).any() or (time != time[0]).any():
        return None
    step = _step(months.astype(np.float64))
    if step is None or step < 1 or not step.is_integer():
        return None
    after = months[last] + np.arange(1, count + 1) * int(step)
    return after.astype("datetime64[D]") + np.minimum(day, _days_of(after) - 1) + time[0]


def _days_of(months: Dates) -> npt.NDArray[np.int64]:
    """Return the number of days of each month."""
    first, following = (one.astype("datetime64[D]") for one in (months, months + 1))
    return (following - first).astype(np.int64)
