"""Tables in files: CSV, JSON lines, NumPy and HDF5 arrays."""

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from perceivers.data.base import require
from perceivers.data.encoded_item import to_uint8_images
from perceivers.data.formats.parquet import ParquetTable
from perceivers.data.formats.remote import Location, open_binary, suffix_of
from perceivers.data.formats.webdataset import TarTable
from perceivers.data.tables.table import ColumnTable, Concatenated, Field, Table, infer_field

_INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})")  # 007 is a name, not the number 7
_POINTS = ("points", "point_cloud", "xyz", "data")  # `data` in ModelNet's HDF5 files
_NUMBER = re.compile(r"-?\d+\.?\d*([eE][-+]?\d+)?|-?\.\d+")


def read_files(paths: Sequence[Location]) -> Table:
    """Return one file, or several shards together, as a table.

    Raises:
        ValueError: If a file has another format than its suffix, or no rows.
        OSError: If a file cannot be read.
    """
    tables = [_read_file(path) for path in paths]
    full = [table for table in tables if len(table)]
    if not full:
        raise ValueError(f"{tables[0].name} holds no rows.")
    return full[0] if len(full) == 1 else Concatenated(full)


def _read_file(path: Location) -> Table:
    if isinstance(path, str):
        if suffix_of(path) == ".parquet":
            return ParquetTable(path)
        raise ValueError(
            f"{path} is remote: only Parquet files are then read by index. Use --stream, or download it first."
        )
    readers: dict[str, Callable[[Path], Table]] = {
        ".parquet": ParquetTable,
        ".csv": _read_csv,
        ".jsonl": _read_jsonl,
        ".tar": TarTable,
        ".npz": _read_npz,
        ".h5": _read_h5,
    }
    try:
        return readers[path.suffix.lower()](path)
    except OSError as error:
        if error.strerror is None:  # the message is complete
            raise
        raise type(error)(f"'{path}' cannot be read: {error.strerror}.") from error
    except (ValueError, ImportError):
        raise
    except Exception as error:  # not foreseen by the library that reads the file
        reason = " ".join(str(error).split()) or "no reason given"
        raise ValueError(f"'{path}' cannot be read: {type(error).__name__}: {reason}.") from error


def csv_rows(path: Location) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV file as strings by column. The header decides the delimiter: comma, semicolon or tab.

    Raises:
        ValueError: If the file is not CSV in UTF-8 with a header, or a row has too many or too few cells.
    """
    with (
        open_binary(path) as binary,
        io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as file,
    ):
        try:
            header = file.readline()
            counts = {mark: header.count(mark) for mark in ",;\t"}
            file.seek(0)
            reader = csv.reader(
                file, delimiter=max(counts, key=lambda mark: counts[mark]), strict=True
            )
            names = next(reader, [])
            if not names or len(set(names)) < len(names):
                raise ValueError(
                    f"{path} is no CSV file with a header: expected different names in its first line, got {names}."
                )
            for cells in reader:
                if cells and len(cells) != len(names):
                    raise ValueError(
                        f"{path}, line {reader.line_num}: expected {len(names)} cells ({', '.join(names)}), "
                        f"got {len(cells)}. Cells with commas in them must stand in quotes."
                    )
                if cells:
                    yield dict(zip(names, cells, strict=True))
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(
                f"{path} cannot be read as CSV: {error}. It must be text in UTF-8 with a header line."
            ) from error


def jsonl_rows(path: Location, start: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file of JSON lines, from number `start` on.

    Raises:
        ValueError: If a line is not a JSON object.
    """
    with open_binary(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            if start:
                start -= 1
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number} is not JSON: {error}.") from error
            if not isinstance(row, dict):
                raise ValueError(
                    f'{path}, line {number}: expected an object like {{"image": "a.png"}}, got {row!r:.40}.'
                )
            yield cast("dict[str, Any]", row)


def _read_csv(path: Path) -> ColumnTable:
    columns: dict[str, list[Any]] = {}
    for row in csv_rows(path):
        for name, cell in row.items():
            columns.setdefault(name, []).append(cell)
    columns = {name: _typed(cells) for name, cells in columns.items()}
    return ColumnTable(name=str(path), columns=columns, folder=path.parent, first=2, unit="line")


def _typed(cells: Sequence[str]) -> list[Any]:
    """Convert strings to numbers if all are numbers, and empty strings to None."""
    filled = [cell for cell in cells if cell]
    convert: Callable[[str], Any] = str
    if all(_INTEGER.fullmatch(cell) for cell in filled):
        convert = int
    elif all(_NUMBER.fullmatch(cell) for cell in filled) and any("." in cell for cell in filled):
        convert = float
    return [convert(cell) if cell else None for cell in cells]


def _read_jsonl(path: Path) -> ColumnTable:
    rows = list(jsonl_rows(path))
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    return ColumnTable(name=str(path), columns=columns, folder=path.parent, first=1, unit="line")


def _read_npz(path: Path) -> ColumnTable:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise ValueError(
            f"{path} cannot be read as .npz: {error}. Arrays of objects (pickles) are refused."
        ) from error
    return _from_arrays(path, arrays)


def _read_h5(path: Path) -> ColumnTable:
    h5py = require("h5py", "points")
    try:
        with h5py.File(path, "r") as file:
            arrays = {name: np.asarray(file[name]) for name in file if hasattr(file[name], "dtype")}
    except OSError as error:
        raise OSError(f"{path} cannot be read as HDF5: {error}.") from error
    return _from_arrays(path, arrays)


def _from_arrays(path: Path, arrays: Mapping[str, Any]) -> ColumnTable:
    """Return arrays of equal length as a table; `label_names` names the classes."""
    names = (
        tuple(_text(n) for n in arrays["label_names"].tolist()) if "label_names" in arrays else ()
    )
    images = next((n for n in ("images", "image") if n in arrays), None)
    longest = max((len(a) for a in arrays.values() if a.ndim), default=0)
    length = len(arrays[images]) if images else longest
    # Points are rows of N x C, with three coordinates or more.
    shaped = [n for n, a in arrays.items() if a.ndim == 3 and 3 <= a.shape[2] <= 9]
    points = next((n for n in _POINTS if n in shaped and arrays[n].dtype.kind == "f"), None)
    columns: dict[str, Any] = {}
    fields: dict[str, Field] = {}
    for name, array in arrays.items():
        if name == "label_names" or array.ndim == 0 or len(array) != length:
            continue
        if name == images:
            columns[name] = _images(array, f"{path}, array '{name}'")
            fields[name] = Field("image")
        elif array.ndim > 1 and not (name == "label" and array.shape[1:] == (1,)):
            kind = "points" if name == points else "array"
            columns[name], fields[name] = array, Field(kind, shape=array.shape[1:])
        else:
            columns[name] = [_text(cell) for cell in array.reshape(-1).tolist()]
            fields[name] = infer_field(columns[name])
    if names and "label" in fields:
        fields["label"] = Field("number", names=names)
    if "label" not in columns and "label" in arrays:
        raise ValueError(
            f"{path}: expected as many labels as samples, {length}, got {len(arrays['label'])}."
        )
    return ColumnTable(name=str(path), columns=columns, fields=fields, folder=path.parent)


def _images(array: Any, where: str) -> Any:
    if array.ndim not in {3, 4}:
        raise ValueError(
            f"{where}: expected images x rows x columns [x channels], got the shape {array.shape}."
        )
    if array.ndim == 4 and array.shape[-1] not in {1, 3, 4} and array.shape[1] in {1, 3, 4}:
        array = np.moveaxis(array, 1, -1)  # channels first, as PyTorch writes them
    return to_uint8_images(array, where)


def _text(cell: Any) -> Any:
    return cell.decode() if isinstance(cell, bytes) else cell
