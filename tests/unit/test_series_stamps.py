"""Time stamps after the end of a series: days, months, numbers, and irregular ones."""

import numpy as np
import pytest

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.series.decode import read_time_stamps
from perceivers.data.modalities.series.stamps import continue_stamps


def continued(column, count=3, *, name="date", last=None):
    """Return the stamps after the last one, or after that of the index `last`."""
    item = EncodedItem("a", value={name: column, "x": np.arange(len(column), dtype=float)})
    stamps = read_time_stamps(item)
    assert stamps is not None
    assert stamps.name == name
    return continue_stamps(stamps, len(stamps.seconds) - 1 if last is None else last, count)


def dates(first, count, unit):
    return [str(one) for one in np.datetime64(first) + np.arange(count) * np.timedelta64(1, unit)]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (dates("2024-02-26", 3, "D"), ["2024-02-29", "2024-03-01", "2024-03-02"]),
        (dates("2024-02-26", 10, "W"), ["2024-05-06", "2024-05-13", "2024-05-20"]),
        (
            dates("2024-12-31T22:00", 2, "h"),
            ["2025-01-01T00:00:00", "2025-01-01T01:00:00", "2025-01-01T02:00:00"],
        ),
        (["1/30/2024 11:59:30 PM", "1/31/2024 12:00:00 AM"], None),
        (["2024-10-01", "2024-11-01", "2024-12-01"], ["2025-01-01", "2025-02-01", "2025-03-01"]),
        (["2023-11-30", "2023-12-31", "2024-01-31"], ["2024-02-29", "2024-03-31", "2024-04-30"]),
        (["2023-11-30", "2023-12-30", "2024-01-30"], ["2024-02-29", "2024-03-30", "2024-04-30"]),
        (["2024-01-15", "2024-04-15", "2024-07-15"], ["2024-10-15", "2025-01-15", "2025-04-15"]),
        (["2022-01-01", "2023-01-01", "2024-01-01"], ["2025-01-01", "2026-01-01", "2027-01-01"]),
        (
            ["2024-03-01T00:00:00.25", "2024-03-01T00:00:00.50"],
            [f"2024-03-01T00:00:{one}" for one in ("00.750000", "01.000000", "01.250000")],
        ),
        (["2024-03-02", "2024-03-01"], ["2024-03-03", "2024-03-04", "2024-03-05"]),  # unsorted
        (
            ["2024-01-01T06:00+02:00", "2024-02-01T06:00+02:00"],
            ["2024-03-01T04:00:00", "2024-04-01T04:00:00", "2024-05-01T04:00:00"],
        ),
    ],
)
def test_dates_go_on_at_their_step(column, expected):
    expected = expected or ["2024-01-31T00:00:30", "2024-01-31T00:01:00", "2024-01-31T00:01:30"]
    assert continued(column) == expected


@pytest.mark.parametrize(
    ("column", "name", "expected"),
    [
        ([1990, 1991, 1992], "time", [1993, 1994, 1995]),
        ([0.0, 0.1, 0.2], "time", [0.3, 0.4, 0.5]),
        ([10, 20, 30], "time [ms]", [40, 50, 60]),
        ([1_700_000_000_000_000_000 + 10**9 * n for n in range(3)], "timestamp", None),
    ],
)
def test_numbers_go_on_in_their_units(column, name, expected):
    expected = expected or [1_700_000_000_000_000_000 + 10**9 * n for n in (3, 4, 5)]
    assert continued(column, name=name) == expected


def test_stamps_follow_the_last_known_row():
    assert continued(dates("2024-01-01", 9, "D"), 2, last=4) == ["2024-01-06", "2024-01-07"]


def test_few_gaps_and_rounded_stamps_are_regular():
    days = dates("2024-01-01", 25, "D")
    assert continued([*days[:10], *days[11:]], 1) == ["2024-01-26"]
    months = [f"2023-{month:02d}-01" for month in range(1, 13) if month not in (5, 8)]
    assert continued(months, 1) == []  # two of nine differences
    years = [f"{year}-{month:02d}-01" for year in (2022, 2023) for month in range(1, 13)]
    assert continued([one for one in years if one != "2022-05-01"], 1) == ["2024-01-01"]


@pytest.mark.parametrize(
    "column",
    [
        ["2024-01-01"],
        ["2024-01-01", "2024-01-02", "2024-01-05", "2024-01-19"],
        [f"2024-01-{day:02d}" for day in (1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 15)],  # without weekends
    ],
)
def test_irregular_stamps_do_not_go_on(column):
    assert continued(column) == []
    assert continued([0, 1, 3, 7, 15], name="t") == []


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((3, 2)),
        {"x": [1.0, 2.0]},
        {"time": ["12:00", "12:01"], "x": [1.0, 2.0]},
        {"date": np.array(["NaT", "NaT"], "datetime64[s]"), "x": [1.0, 2.0]},
    ],
)
def test_a_series_without_time_stamps(value):
    assert read_time_stamps(EncodedItem("a", value=value)) is None
