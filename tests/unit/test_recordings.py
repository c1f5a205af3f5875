import io
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.base import MissingValueError
from perceivers.data.modalities.series.decode import is_time_name, read_series

NAN = float("nan")


def read_csv(text: str | bytes):
    data = text if isinstance(text, bytes) else text.encode()
    return read_series(EncodedItem("a.csv", data=data))


def read_parquet(columns):
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return read_series(EncodedItem("a.parquet", data=file.getvalue()))


def read_value(value):
    return read_series(EncodedItem("row 1", value=value))


def same(values: np.ndarray, expected) -> bool:
    assert values.dtype == np.float32
    return np.array_equal(values, np.array(expected, dtype=np.float32), equal_nan=True)


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_csv_file_is_rows_in_time(mark, tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("time,x,y\n0,1,2.5\n0.5,3,-4\n".replace(",", mark))
    recording, notes = read_series(EncodedItem(str(path), path=path))
    assert same(recording.values, [[1, 2.5], [3, -4]])
    assert recording.times is not None
    assert recording.times.tolist() == [0.0, 0.5]
    assert recording.names == ("x", "y")
    assert notes == ()


def test_a_parquet_file_is_rows_in_time(tmp_path: Path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": [1, 2], "on": [True, None], "d": [Decimal("0.5"), None]}), path)
    recording, notes = read_series(EncodedItem(str(path), path=path))
    assert same(recording.values, [[1, 1, 0.5], [2, NAN, NAN]])
    assert (recording.times, notes) == (None, ())
    assert recording.names == ("x", "on", "d")


def test_decimal_commas_are_numbers_where_cells_are_parted_otherwise():
    recording, _ = read_csv("x;y\n1,5;2,25\n3;4\n")
    assert same(recording.values, [[1.5, 2.25], [3, 4]])


def test_the_mark_of_the_byte_order_is_no_part_of_a_name():
    assert read_csv(b"\xef\xbb\xbfx, y\n1,2\n")[0].names == ("x", "y")


def test_missing_cells_are_nan_and_so_are_infinite_ones():
    recording, notes = read_csv("x,y,z,v\n1,,NA,\n,2,?,\n3,inf,5,\n")
    assert same(recording.values, [[1, NAN, NAN, NAN], [NAN, 2, NAN, NAN], [3, NAN, 5, NAN]])
    assert notes == ("infinite values taken as missing",)


def test_a_constant_channel_is_a_channel():
    assert same(read_csv("x,y\n1,7\n2,7\n")[0].values, [[1, 7], [2, 7]])


def test_columns_of_text_are_left_out_and_noted():
    recording, notes = read_csv("x,who\n1,anna\n2,ben\n")
    assert recording.names == ("x",)
    assert notes == ("columns without numbers left out",)


def test_a_file_without_a_header_has_channels_without_names_of_their_own():
    recording, notes = read_csv("1,2.5\n3,-4e1\n")
    assert same(recording.values, [[1, 2.5], [3, -40]])
    assert notes == ("no header line",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("time,x\n1,2\n\n2,3\n3\n", r"'a.csv', line 5: expected 2 cells as in the header, got 1"),
        ("x,y\n1,2\n1,2,3\n", "line 3: expected 2 cells as in the header, got 3"),
        ("", "'a.csv' is empty: expected a header and rows of numbers"),
        (" \n", "'a.csv' is empty"),
        ("x,y\n", r"'a.csv' holds no rows: expected at least one moment, got the shape \(0, 2\)"),
        ("x,y", "no CSV file .*Empty CSV file"),
        ("who\nanna\n", "'a.csv' has no column of numbers"),
        ("time\n1\n", "'a.csv' has no column of numbers"),
        ("x,x\n1,2\n", "'a.csv' has columns of the same name: x, x"),
        ("x,y\n,\n,\n", "'a.csv' holds no value: every one of its 2 rows is empty"),
        ("time,x\nsoon,2\n", "column 'time': expected numbers or dates like .*, got 'soon'"),
        (
            b"PAR1 cut off",
            "Cannot read 'a.csv' as a series: it is damaged, cut off or no Parquet",
        ),
        (b"x,y\n1,2\n3,\xff\n\x00", "line 4: expected 2 cells"),
    ],
)
def test_what_is_no_recording_is_an_error(text, told):
    with pytest.raises(ValueError, match=told):
        read_csv(text)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        read_series(EncodedItem("b.csv", path=tmp_path / "b.csv"))


def test_an_empty_cell_is_missing():
    with pytest.raises(MissingValueError, match="'row 1' is empty: expected a series, got no"):
        read_value(None)
    with pytest.raises(MissingValueError, match="none of the columns x, y holds anything"):
        read_value({"x": None, "y": None})


@pytest.mark.parametrize(
    "name",
    ["time", "Timestamp", "t", "date", "datetime", "Time (s)", "time_ms", "timestamps", "t [ns]"],
)
def test_times_are_known_by_their_name(name):
    assert is_time_name(name)


@pytest.mark.parametrize("name", ["T", "x", "temperature", "times_up", "tension"])
def test_other_names_are_no_times(name):
    assert not is_time_name(name)


@pytest.mark.parametrize(
    ("name", "times", "seconds"),
    [
        ("time", [5, 7], 2.0),
        ("time", [0.25, 0.75], 0.5),
        ("time_ms", [0, 20], 0.02),
        ("time (us)", [0, 20], 2e-5),
        ("t_micros", [0, 20], 2e-5),
        ("t_ns", [0, 20], 2e-8),
        ("timestamp", [1_700_000_000, 1_700_000_001], 1.0),
        ("timestamp", [1_700_000_000_000, 1_700_000_000_020], 0.02),
        ("timestamp", [1_700_000_000_000_000, 1_700_000_000_000_020], 2e-5),
        ("timestamp", [1_700_000_000_000_000_000, 1_700_000_000_000_000_020], 2e-8),
        ("timestamp", [datetime(2024, 5, 31, 12), datetime(2024, 5, 31, 13)], 3600.0),
        ("date", [date(2024, 5, 31), date(2024, 6, 1)], 86400.0),
    ],
)
def test_times_are_seconds_whatever_they_are_written_as(name, times, seconds):
    for read in (read_parquet, read_value):
        recording, _ = read({name: times, "x": [1.0, 2.0]})
        assert recording.times is not None
        assert recording.times.tolist() == pytest.approx([0, seconds], rel=1e-9)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("2024-05-31 12:00:00", "2024-05-31 12:00:01"),
        ("2024-05-31T12:00:00.25", "2024-05-31T12:00:01.25"),
        ("2024-05-31T12:00:00Z", "2024-05-31T14:00:01+02:00"),
        ("12:00:00", "12:00:01"),
    ],
)
def test_dates_of_a_csv_file_are_times(first, second):
    recording, _ = read_csv(f"time,x\n{first},1\n{second},2\n")
    assert recording.times is not None
    assert recording.times.tolist() == pytest.approx([0, 1])


def test_a_day_and_the_time_of_it_are_one_time():
    recording, notes = read_csv("date,time,x\n2024-05-31,23:59:59,1\n2024-06-01,00:00:01,2\n")
    assert recording.times is not None
    assert recording.times.tolist() == [0, 2]
    assert recording.names == ("x",)
    assert notes == ("further time columns left out",)


def test_dates_of_a_list_may_have_zones_and_gaps():
    there = timezone(timedelta(hours=2))
    times = [
        datetime(2024, 5, 31, 12, tzinfo=UTC),
        None,
        datetime(2024, 5, 31, 14, 1, tzinfo=there),
    ]
    recording, notes = read_value({"time": times, "x": [1, 2, 3]})
    assert recording.times is not None
    assert recording.times.tolist() == [0, 60]
    assert same(recording.values, [[1], [3]])
    assert notes == ("rows without a time left out",)
    mixed = read_value({"time": [date(2024, 5, 31), "2024-06-01", ""], "x": [1, 2, 3]})[0]
    assert mixed.times is not None
    assert mixed.times.tolist() == [0, 86400]


def test_rows_are_sorted_by_time():
    recording, notes = read_csv("time,x\n2,20\n1,10\n3,30\n")
    assert recording.values[:, 0].tolist() == [10, 20, 30]
    assert notes == ("sorted by time",)


def test_rows_of_one_time_are_averaged_over_what_is_there():
    recording, notes = read_csv("time,x,y\n1,10,\n1,20,5\n2,30,\n2,40,\n")
    assert same(recording.values, [[15, 5], [35, NAN]])
    assert recording.times is not None
    assert recording.times.tolist() == [0, 1]
    assert notes == ("repeated time stamps averaged",)


def test_a_time_column_without_times_is_noted():
    for times in ([None, None], [NAN, NAN]):
        recording, notes = read_value({"time": times, "x": [1, 2]})
        assert recording.times is None
        assert notes == ("no time stamps in the time column",)
    recording, notes = read_csv("date,x\n,1\n,2\n")
    assert recording.times is None
    times = np.array(["NaT", "NaT"], dtype="datetime64[s]")
    assert read_value({"time": times, "x": [1, 2]})[0].times is None


def test_times_of_another_number_than_rows_are_an_error():
    with pytest.raises(ValueError, match="a time for each of the 2 rows, got 3"):
        read_value({"time": [1, 2, 3], "x": [1, 2]})


@pytest.mark.parametrize("make", [list, np.array, lambda cells: np.array(cells, dtype=np.int16)])
def test_columns_of_a_row_are_channels(make):
    recording, notes = read_value({"x": make([1, 2, 3]), "y": make([4, 5, 6])})
    assert same(recording.values, [[1, 4], [2, 5], [3, 6]])
    assert (recording.times, recording.names, notes) == (None, ("x", "y"), ())


def test_an_empty_column_beside_others_is_a_channel_without_values():
    recording, _ = read_value({"x": [1, None], "y": None})
    assert same(recording.values, [[1, NAN], [NAN, NAN]])


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"x": [1, 2], "y": [1, 2, 3]}, "expected channels of one length, got x 2, y 3"),
        ({"x": [1, 2], "y": ["a", "b"]}, "'row 1, column y' is no list of numbers"),
        (
            {"x": [[1, 2], [3, 4]]},
            r"column 'x': expected a list of numbers, got the shape \(2, 2\)",
        ),
        (
            {"x": 5},
            r"'row 1, column x': expected an array of moments x channels, got the shape \(\)",
        ),
        ({}, "'row 1' has no column of numbers"),
    ],
)
def test_columns_that_are_no_channels_are_an_error(columns, told):
    with pytest.raises(ValueError, match=told):
        read_value(columns)


def test_an_array_is_moments_by_channels():
    values = np.arange(6).reshape(3, 2)
    nested = np.empty(3, dtype=np.object_)
    nested[:] = list(values)
    for value in (values, values.tolist(), nested):
        recording, notes = read_value(value)
        assert same(recording.values, values)
        assert (recording.times, recording.names, notes) == (None, (), ())
    assert same(read_value([1, None, 3])[0].values, [[1], [NAN], [3]])
    assert same(
        read_series(EncodedItem("a", array=np.ones((2, 1), np.uint8)))[0].values, [[1], [1]]
    )


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([[1, 2], [3]], "'row 1' is no list of numbers"),
        (["a"], "'row 1' is no list of numbers"),
        (np.ones((2, 2, 2)), r"array of moments x channels, got the shape \(2, 2, 2\)"),
        ([], "'row 1' holds no rows"),
        ([None, NAN], "'row 1' holds no value"),
    ],
)
def test_arrays_that_are_no_recording_are_an_error(value, told):
    with pytest.raises(ValueError, match=told):
        read_value(value)


def test_numbers_too_large_for_the_model_are_missing():
    recording, notes = read_value({"x": [1e300, 1.0]})
    assert same(recording.values, [[NAN], [1]])
    assert notes == ("infinite values taken as missing",)
    assert same(read_value([1e300, 1.0])[0].values, [[NAN], [1]])
    assert read_value(np.full((4, 1), 3e38))[1] == ()
