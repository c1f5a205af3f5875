"""Decoding of series: rows in time from CSV, Parquet or arrays. Every failure becomes one sentence."""

import codecs
import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.array.decode import NPY_MAGIC, load_arrays
from perceivers.data.modalities.base import MissingValueError
from perceivers.optional import require

Numbers = npt.NDArray[np.float64]

_TIME = re.compile(
    r"(?:time_?stamp|date_?time|time|date|t|ts|elapsed|elapsed_time|seconds_elapsed|elapsed_seconds)s?"
    r"[ _]*[\[(]?(?P<unit>s|secs?|seconds|ms|millis|milliseconds|us|micros|microseconds|ns|nanos|nanoseconds)?[\])]?",
    re.IGNORECASE,
)
_UNITS = {"mic": 1e6, "m": 1e3, "u": 1e6, "n": 1e9}  # in a second, by how the unit begins
# Seconds since 1970 reach 1e11 in the year 5138, so larger numbers count something finer.
_SIZES = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
_NUMBER = re.compile(r"\s*[-+]?(\d+[.,]?\d*|[.,]\d+)([eE][-+]?\d+)?\s*")
_NULLS = (
    "",
    "NA",
    "N/A",
    "n/a",
    "#N/A",
    "NaN",
    "nan",
    "-nan",
    "NULL",
    "null",
    "None",
    "none",
    "?",
    "-",
)


@dataclass(frozen=True, slots=True)
class SeriesValue:
    """Sensor values, row by row in time.

    Attributes:
        values: L x C, NaN where a value is missing.
        times: Seconds since the first row, rising. None: rows follow each other evenly, or nothing is known.
        names: Names of the channels. Empty if they have none.
    """

    values: npt.NDArray[np.float32]
    times: Numbers | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TimeStamps:
    """Time stamps of the rows of a series.

    Attributes:
        name: Name of their column.
        origin: Date in UTC, or number, from which the seconds count.
        per_second: Units of the numbers in a second.
        seconds: Seconds since the origin, rising, each once.
    """

    name: str
    origin: "np.datetime64 | int | float"
    per_second: float
    seconds: Numbers


class _Origin(NamedTuple):
    """Column of time stamps, the one from which seconds count, and its units in a second. None: times of a day."""

    name: str
    start: "np.datetime64 | int | float | None"
    per_second: float = 1.0


@lru_cache(maxsize=1024)
def is_time_name(name: str) -> bool:
    """Return whether a column of this name holds time stamps. A capital T is a temperature."""
    return name != "T" and _TIME.fullmatch(name.strip()) is not None


def read_series(media: EncodedItem) -> tuple[SeriesValue, tuple[str, ...]]:
    """Return a series, rows in the order of time, with notes on what had to be decided.

    Args:
        media: A CSV or Parquet file (a header, then one row for each moment), a dict of columns that are lists
            or arrays of one length, or an array L x C or L.

    Raises:
        MissingValueError: If the cell is empty.
        ValueError: If there are no numbers in it, or rows differ in length. The message names file and line.
    """
    if media.is_missing:
        raise MissingValueError(f"'{media.name}' is empty: expected a series, got no cell.")
    notes: list[str] = []
    if media.value is None and media.array is None:
        if _first_bytes(media).startswith(NPY_MAGIC):
            return SeriesValue(_checked(media.name, _matrix(media.name, _npy(media)), notes)), ()
        columns = _columns_of_file(media, notes)
    elif isinstance(media.value, Mapping):
        columns = dict(cast("Mapping[str, Any]", media.value))
    else:
        values = _matrix(media.name, media.array if media.value is None else media.value)
        return SeriesValue(_checked(media.name, values, notes)), tuple(notes)
    timed = _times(media.name, columns, notes)
    values = _checked(media.name, _stacked(media.name, columns), notes)
    times = None
    if timed is not None:
        values, times = _in_order(media.name, values, timed[0], notes)
    return SeriesValue(values, times, tuple(columns)), tuple(notes)


def read_time_stamps(media: EncodedItem) -> TimeStamps | None:
    """Return the time stamps of a series. None: it has none, or times of a day without a date.

    Args:
        media: A series that `read_series` reads.
    """
    if isinstance(media.value, Mapping):
        columns = dict(cast("Mapping[str, Any]", media.value))
    elif (
        media.value is None
        and media.array is None
        and not _first_bytes(media).startswith(NPY_MAGIC)
    ):
        columns = _columns_of_file(media, [])
    else:
        return None
    timed = _times(media.name, columns, [])
    if timed is None:
        return None
    seconds, (column, start, per_second) = timed
    if start is None:
        return None
    return TimeStamps(column, start, per_second, np.unique(seconds[np.isfinite(seconds)]))


def _first_bytes(media: EncodedItem) -> bytes:
    try:
        with media.open() as file:
            return file.read(8)
    except OSError as error:
        raise ValueError(str(error)) from error


def _npy(media: EncodedItem) -> npt.NDArray[Any]:
    array = load_arrays(media, "a series", ("values",))[0]
    assert array is not None
    return array


def _columns_of_file(media: EncodedItem, notes: list[str]) -> dict[str, Any]:
    """Return the columns of a CSV or Parquet file that hold numbers or times, as arrays."""
    pyarrow = require("pyarrow", "data")
    try:
        data = media.read()
    except OSError as error:
        raise ValueError(str(error)) from error
    if not data.strip():
        raise ValueError(f"'{media.name}' is empty: expected a header and rows of numbers.")
    try:
        table = _parquet(data) if data[:4] == b"PAR1" else _csv(data, notes)
        names = [name.strip() for name in table.column_names]
        found = {
            name: _array(pyarrow, column) for name, column in zip(names, table.columns, strict=True)
        }
    except Exception as error:  # what damaged files raise is the library's choice
        raise ValueError(_why(media.name, data, error)) from error
    if len(found) < len(names):
        raise ValueError(
            f"'{media.name}' has columns of the same name: {', '.join(names)}. Give each its own."
        )
    texts = [n for n, a in found.items() if a.dtype.kind not in "biuf" and not is_time_name(n)]
    if texts:
        notes.append("columns without numbers left out")
    return {name: array for name, array in found.items() if name not in texts}


def _parquet(data: bytes) -> Any:
    reader = require("pyarrow.parquet", "data")
    return reader.ParquetFile(io.BytesIO(data)).read(use_threads=False)


def _csv(data: bytes, notes: list[str]) -> Any:
    """Return a table of text; comma, semicolon, tab, `|` or blanks between cells, as the first line shows."""
    reader = require("pyarrow.csv", "data")
    data = _without_comments(_utf8(data, notes), notes)
    header, rest = _line(data), _line(data[len(_line(data)) :].lstrip())
    mark = _mark(header)
    headless = all(_NUMBER.fullmatch(cell) for cell in header.decode("latin1").strip().split(mark))
    if headless:
        notes.append("no header line")
    elif _are_units(data, mark):
        notes.append("a row of units left out")
        start = data.index(rest, len(header))
        data = header + data[start + len(rest) :]
        rest = _line(data[len(header) :].lstrip())
    decimal = "," if mark != "," and re.search(rb"\d,\d", rest) else "."
    return reader.read_csv(
        io.BytesIO(data),
        read_options=reader.ReadOptions(use_threads=False, autogenerate_column_names=headless),
        parse_options=reader.ParseOptions(delimiter=mark),
        convert_options=reader.ConvertOptions(null_values=_NULLS, decimal_point=decimal),
    )


def _utf8(data: bytes, notes: list[str]) -> bytes:
    """Return text in UTF-8."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        notes.append("read as UTF-16")
        return data.decode("utf-16", "replace").encode()
    if data.isascii():
        return data
    try:
        data.decode()
    except UnicodeDecodeError:
        notes.append("read as Windows-1252")
        return data.decode("cp1252", "replace").encode()
    return data.removeprefix(codecs.BOM_UTF8)


def _without_comments(data: bytes, notes: list[str]) -> bytes:
    """Return text without lines that begin with `#`, and with one blank or tab between cells that blanks set apart.

    The last comment is the header if it has as many cells as the first row of numbers, as NumPy writes it.
    """
    start = data.lstrip()
    if start.startswith(b"sep=") or b"#" in data:
        lines = data.splitlines(keepends=True)
        skipped = [line for line in lines if line.lstrip().startswith((b"#", b"sep="))]
        rows = [line for line in lines if not line.lstrip().startswith((b"#", b"sep="))]
        if skipped and rows:
            notes.append("comments left out")
            names = skipped[-1].lstrip().lstrip(b"#").strip()
            mark = _mark(rows[0]).encode()
            first = rows[0].strip().split(mark)
            numeric = all(_NUMBER.fullmatch(cell.decode("latin1")) for cell in first)
            if numeric and len(names.split(mark)) == len(first):
                rows.insert(0, names + b"\n")
            data = b"".join(rows)
    header = _line(data)
    if _mark(header) != " ":
        return data
    return b"\n".join(b" ".join(line.split()) for line in data.splitlines())


def _are_units(data: bytes, mark: str) -> bool:
    """Return whether the second row holds units: no number in it, and numbers below."""
    lines = [line for line in data[: 1 << 16].split(b"\n") if line.strip()][1:3]
    if len(lines) < 2:
        return False
    units, below = ([c.strip() for c in line.decode("latin1").split(mark)] for line in lines)
    if len(units) != len(below) or any(any(c.isdigit() for c in one[:1]) for one in units):
        return False
    is_named = any(one and one not in _NULLS for one in units)
    numbers = sum(_NUMBER.fullmatch(cell) is not None for cell in below)
    return is_named and not any(map(_NUMBER.fullmatch, units)) and 2 * numbers >= len(below)


def _line(data: bytes) -> bytes:
    end = data.find(b"\n")
    return data if end < 0 else data[: end + 1]


def _mark(header: bytes) -> str:
    """Return the mark between cells; a blank only if there is no other one."""
    mark = max(",;\t|", key=lambda mark: header.count(mark.encode()))
    return mark if mark.encode() in header or b" " not in header.strip() else " "


def _array(pyarrow: Any, column: Any) -> npt.NDArray[Any]:
    """Return a column as numbers with NaN, as dates, or as objects where it is neither."""
    kinds = pyarrow.types
    if kinds.is_null(column.type):
        return np.full(len(column), np.nan)
    if kinds.is_boolean(column.type):
        column = column.cast(pyarrow.int8())
    elif kinds.is_decimal(column.type):
        column = column.cast(pyarrow.float64())
    elif kinds.is_time(column.type):  # of the day
        column = column.cast(pyarrow.time64("ns")).cast(pyarrow.int64()).cast(pyarrow.float64())
        return column.to_numpy() * 1e-9
    return column.to_numpy()


def _why(name: str, data: bytes, error: Exception) -> str:
    """Return why a file is no series, with the line where a row has too many or too few cells."""
    if data[:4] != b"PAR1":
        reader = csv.reader(io.StringIO(data.decode("latin1")), delimiter=_mark(_line(data)))
        rows = ((reader.line_num, len(row)) for row in reader if row)
        try:
            expected = next(rows, (1, 0))[1]
            ragged = next(((line, cells) for line, cells in rows if cells != expected), None)
        except csv.Error:  # no text at all
            ragged, expected = None, 0
        if ragged is not None:
            return (
                f"'{name}', line {ragged[0]}: expected {expected} cells as in the header, got {ragged[1]}. "
                "Cells with commas in them must stand in quotes."
            )
    kind = "Parquet" if data[:4] == b"PAR1" else "CSV"
    reason = " ".join(str(error).split()) or type(error).__name__
    return (
        f"Cannot read '{name}' as a series: it is damaged, cut off or no {kind} file ({reason}). "
        "Expected a header and one row of numbers for each moment."
    )


def _times(name: str, columns: dict[str, Any], notes: list[str]) -> tuple[Numbers, _Origin] | None:
    """Take the columns of time stamps out and return them in seconds since an origin, NaN where one is missing."""
    found = {column: columns.pop(column) for column in list(columns) if is_time_name(column)}
    if not found:
        return None
    if len(found) > 1:
        notes.append("further time columns left out")
    day = next((c for c in found if np.asarray(found[c]).dtype == np.dtype("datetime64[D]")), None)
    first = day or next(iter(found))
    seconds, origin = _seconds(name, first, found[first])
    if day is not None:  # the time of that day may stand beside it
        of_day = next((c for c in found if np.asarray(found[c]).dtype.kind == "f"), None)
        seconds = seconds if of_day is None else seconds + np.asarray(found[of_day])
    if np.isnan(seconds).all():
        notes.append("no time stamps in the time column")
        return None
    return seconds, origin


def _seconds(name: str, column: str, cells: Any) -> tuple[Numbers, _Origin]:
    array = np.asarray(cells)
    if array.dtype.kind == "O" and all(isinstance(c, int | float | None) for c in array.tolist()):
        array = array.astype(np.float64)
    if array.dtype.kind not in "Miuf":
        of_day = _seconds_of_day(array.tolist())
        if of_day is not None:
            return of_day, _Origin(column, None)
        cells = _month_first(array.tolist())
        array = np.array([_date(name, column, cell) for cell in cells], "datetime64[us]")
    if array.dtype.kind == "M":
        whole = (
            array.astype("datetime64[ns]") if array.dtype != np.dtype("datetime64[D]") else array
        )
        known = whole[~np.isnat(whole)]
        if not len(known):
            return np.full(len(whole), np.nan), _Origin(column, None)
        start = known.min()
        return (whole - start) / np.timedelta64(1, "s"), _Origin(column, start)
    per_second = _per_second(column, array)
    start = 0.0
    if array.dtype.kind in "iu" and len(array):
        start = int(array.min())
        array = array - array.min()  # exact: nanoseconds since 1970 do not fit into float64
    return array.astype(np.float64) / per_second, _Origin(column, start, per_second)


_OF_DAY = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d)(?:[.,:](\d+))?)?\s*([AaPp][Mm])?")
_DAY = re.compile(r"(\d{1,2})([/.-])(\d{1,2})\2(\d{4})(?:[T, ]+(.*))?")


def _seconds_of_day(cells: Sequence[Any]) -> Numbers | None:
    """Return times such as `12:30:01.250` in seconds, also past midnight; None if the cells are something else."""
    found: list[float] = []
    day, before = 0, 0.0
    for cell in cells:
        if cell is None or (isinstance(cell, str) and cell.strip() in _NULLS):
            found.append(np.nan)
            continue
        match = _OF_DAY.fullmatch(cell.strip()) if isinstance(cell, str) else None
        if match is None:
            return None
        seconds = _time_of_day(match) + day
        if before - seconds > _DAY_SECONDS / 2:  # midnight
            day, seconds = day + _DAY_SECONDS, seconds + _DAY_SECONDS
        before = seconds
        found.append(seconds)
    return np.array(found)


_DAY_SECONDS = 86_400


def _time_of_day(match: re.Match[str]) -> float:
    hours, minutes, seconds, fraction, half = match.groups()
    hour = int(hours)
    if half:
        hour = hour % 12 + 12 * (half.lower() == "pm")
    return hour * 3600 + int(minutes) * 60 + int(seconds or 0) + float(f"0.{fraction or 0}")


def _month_first(cells: Sequence[Any]) -> list[Any]:
    """Return dates such as `5/31/2024 2:05:00 PM` in the order of ISO 8601; others unchanged.

    Numbers above 12 show which is the day. Otherwise the month comes first between slashes, the day between points.
    """
    matches = [_DAY.fullmatch(cell.strip()) if isinstance(cell, str) else None for cell in cells]
    known = [match for match in matches if match is not None]
    if not known:
        return list(cells)
    day_first = any(int(match[1]) > 12 for match in known)
    if not day_first and all(int(match[3]) <= 12 for match in known):
        day_first = known[0][2] != "/"
    found: list[Any] = []
    for cell, match in zip(cells, matches, strict=True):
        if match is None:
            found.append(cell)
            continue
        day, month = (match[1], match[3]) if day_first else (match[3], match[1])
        time = _OF_DAY.fullmatch((match[5] or "0:00").strip())
        if time is None or not 1 <= int(month) <= 12 or not 1 <= int(day) <= 31:
            found.append(cell)  # `_date` raises the error
            continue
        seconds = _time_of_day(time)
        whole = datetime(int(match[4]), int(month), 1) + timedelta(int(day) - 1, seconds)
        found.append(whole)
    return found


def _per_second(column: str, array: npt.NDArray[Any]) -> float:
    """Return the number of units in a second, by the name of the column or the size of its values."""
    found = _TIME.fullmatch(column.strip())
    unit = found["unit"] if found else None
    if unit is not None:
        return next(
            (count for start, count in _UNITS.items() if unit.lower().startswith(start)), 1.0
        )
    finite = np.abs(array[np.isfinite(array)].astype(np.float64))
    largest = finite.max(initial=0.0)
    return next((count for size, count in _SIZES if largest >= size), 1.0)


def _date(name: str, column: str, cell: Any) -> datetime | None:
    """Return a date as UTC without a time zone, as NumPy requires."""
    if cell is None or cell == "":
        return None
    if isinstance(cell, date) and not isinstance(cell, datetime):
        return datetime(cell.year, cell.month, cell.day)
    try:
        clip_position = (
            cell if isinstance(cell, datetime) else datetime.fromisoformat(str(cell).strip())
        )
    except ValueError:
        raise ValueError(
            f"'{name}', column '{column}': expected numbers or dates like 2024-05-31T12:00:00, got {cell!r}. "
            "Rename the column if it holds no time."
        ) from None
    return (
        clip_position.astimezone(UTC).replace(tzinfo=None)
        if clip_position.tzinfo
        else clip_position
    )


def _stacked(name: str, columns: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    """Return columns side by side."""
    if not columns:
        raise ValueError(f"'{name}' has no column of numbers. Expected one for each channel.")
    cells = list(columns.values())
    try:
        with np.errstate(over="ignore"):  # what is too large for float32 is taken as missing
            # Lists of whole numbers become float64 in half the time.
            wide = np.array(cells, dtype=np.float64 if isinstance(cells[0], list) else np.float32)
            stacked = wide.astype(np.float32, copy=False)
        if stacked.ndim == 2:
            return np.ascontiguousarray(stacked.T)
    except (ValueError, TypeError):
        pass
    return _stacked_with_care(name, columns)


def _stacked_with_care(name: str, columns: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    """Return columns side by side, nan where a cell is empty."""
    arrays: dict[str, npt.NDArray[np.float32]] = {}
    for column, cells in columns.items():
        if cells is None:
            continue
        if isinstance(cells, str | EncodedItem):
            text = cells if isinstance(cells, str) else cells.name
            raise ValueError(
                f"Column '{column}': expected a list of numbers such as [0.1, 0.2], got the text {text!r:.60}."
            )
        array = _matrix(f"{name}, column {column}", cells)
        if array.shape[1] != 1 or np.ndim(cells) > 1:
            raise ValueError(
                f"'{name}', column '{column}': expected a list of numbers, got the shape {np.shape(cells)}."
            )
        arrays[column] = array[:, 0]
    if not arrays:
        raise MissingValueError(
            f"'{name}' is empty: none of the columns {', '.join(columns)} holds anything."
        )
    lengths = {column: array.shape[0] for column, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        stated = ", ".join(f"{column} {length}" for column, length in lengths.items())
        raise ValueError(f"'{name}': expected channels of one length, got {stated}.")
    nothing = np.full(next(iter(lengths.values())), np.nan, dtype=np.float32)
    return np.stack([arrays.get(column, nothing) for column in columns], axis=1)


def _matrix(name: str, value: Any) -> npt.NDArray[np.float32]:
    """Return an array or nested lists as L x C."""
    try:
        cells = (
            value.tolist() if isinstance(value, np.ndarray) and value.dtype == np.object_ else value
        )
        with np.errstate(over="ignore"):
            array = np.array(cells, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"'{name}' is no list of numbers: {error}. Expected rows of one length, and None where one is missing."
        ) from error
    if array.ndim not in (1, 2):
        raise ValueError(
            f"'{name}': expected an array of moments x channels, got the shape {array.shape}."
        )
    return array[:, None] if array.ndim == 1 else array


def _checked(
    name: str, values: npt.NDArray[np.float32], notes: list[str]
) -> npt.NDArray[np.float32]:
    """Return values whose missing ones are NaN.

    Raises:
        ValueError: If there is none.
    """
    if values.size == 0:
        raise ValueError(
            f"'{name}' holds no rows: expected at least one moment, got the shape {values.shape}."
        )
    with np.errstate(over="ignore", invalid="ignore"):
        suspicious = not np.isfinite(values.sum())  # fast; nearly always all is well
    if suspicious:
        infinite = np.isinf(values)
        if infinite.any():
            notes.append("infinite values taken as missing")
            values = np.where(infinite, np.float32(np.nan), values)
        if np.isnan(values).all():
            raise ValueError(
                f"'{name}' holds no value: every one of its {values.shape[0]} rows is empty."
            )
    return values


def _in_order(
    name: str, values: npt.NDArray[np.float32], times: Numbers, notes: list[str]
) -> tuple[npt.NDArray[np.float32], Numbers]:
    """Return rows in the order of time, each time once; times from zero on."""
    if times.shape[0] != values.shape[0]:
        raise ValueError(
            f"'{name}': expected a time for each of the {values.shape[0]} rows, got {times.shape[0]}."
        )
    known = np.isfinite(times)
    if not known.all():
        notes.append("rows without a time left out")
        values, times = values[known], times[known]
    steps = np.diff(times)
    if (steps < 0).any():
        notes.append("sorted by time")
        order = np.argsort(times, kind="stable")
        values, times = values[order], times[order]
        steps = np.diff(times)
    if (steps == 0).any():
        notes.append("repeated time stamps averaged")
        first = np.flatnonzero(np.concatenate([[True], steps > 0]))
        there = ~np.isnan(values)
        counts = np.add.reduceat(there, first, axis=0, dtype=np.float64)
        sums = np.add.reduceat(np.where(there, values, 0.0), first, axis=0, dtype=np.float64)
        mean = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
        values, times = mean.astype(np.float32), times[first]
    return values, times - times[0]
