"""Tables in files: CSV, TSV, JSON, NumPy and HDF5 arrays."""

import math
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from perceivers.data.base import open_regular
from perceivers.data.encoded_item import to_uint8_images
from perceivers.data.formats.delimited import (
    Dialect,
    TextRow,
    delimited_rows,
    detect_dialect,
    detect_encoding,
    encoding_notes,
    json_rows,
    json_table,
)
from perceivers.data.formats.parquet import ParquetTable
from perceivers.data.formats.remote import Location, suffix_of
from perceivers.data.formats.webdataset import TarTable
from perceivers.data.tables.memory import check_fits
from perceivers.data.tables.table import (
    ColumnScan,
    ColumnTable,
    Concatenated,
    Field,
    Table,
    infer_field,
)
from perceivers.optional import require

_POINTS = ("points", "point_cloud", "xyz", "data")  # `data` in ModelNet's HDF5 files


def read_files(paths: Sequence[Location]) -> Table:
    """Return one file, or several shards together, as a table.

    Raises:
        ValueError: If a file has another format than its suffix, or no rows.
        OSError: If a file cannot be read.
    """
    tables = [_read_file(path) for path in paths]
    full = [table for table in tables if len(table)]
    if not full:
        reason = f" {tables[0].bad[0][1]}" if tables[0].bad else ""
        raise ValueError(
            f"{tables[0].name} holds no rows{' that can be read.' if reason else '.'}{reason}"
        )
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
        ".csv": _read_delimited,
        ".tsv": _read_delimited,
        ".jsonl": _read_jsonl,
        ".json": _read_json,
        ".tar": TarTable,
        ".npz": _read_npz,
        ".h5": _read_h5,
    }
    try:
        open_regular(path).close()
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


def _read_delimited(path: Path) -> ColumnTable:
    dialect = detect_dialect(path)
    table = _from_rows(path, delimited_rows(path, dialect), spelled=True)
    fields = delimited_fields({c: _scan(cells) for c, cells in table.columns.items()}, dialect)
    columns = {
        name: [None if cell == "" else fields[name].value(cell) for cell in cells]
        for name, cells in table.columns.items()
    }
    return replace(table, columns=columns, fields=fields, notes=dialect.notes)


def _scan(cells: Sequence[Any]) -> ColumnScan:
    scan = ColumnScan(spelled=True)
    scan.add(cells)
    return scan


def delimited_fields(scans: Mapping[str, ColumnScan], dialect: Dialect) -> dict[str, Field]:
    """Return the columns of a delimited file from the scans of their cells.

    Decimal commas in one column show how numbers are spelled in the others.
    """
    is_comma = any(
        scan.numbers.uses_decimal_comma and scan.numbers.found() is not None
        for scan in scans.values()
    )
    comma = is_comma or dialect.delimiter == ";"
    return {name: scan.field(name, comma=comma, grouped=is_comma) for name, scan in scans.items()}


def _read_jsonl(path: Path) -> ColumnTable:
    notes = encoding_notes(path, detect_encoding(path))
    return replace(_from_rows(path, json_rows(path)), notes=notes)


def _read_json(path: Path) -> ColumnTable:
    rows = json_table(path)
    return column_table(str(path), rows, folder=path.parent)


def column_table(name: str, rows: Sequence[Mapping[Any, Any]], *, folder: Path) -> ColumnTable:
    """Return dicts as a table whose columns are all of their keys."""
    names = dict.fromkeys(key for row in rows for key in row)
    columns = {str(key): [row.get(key) for row in rows] for key in names}
    return ColumnTable(name=name, columns=columns, folder=folder)


def is_pandas(data: Any) -> bool:
    """Return True for an object of pandas, without importing it."""
    return type(data).__module__.split(".")[0] == "pandas"


def frame_table(frame: Any) -> ColumnTable:
    """Return a pandas `DataFrame` as a table.

    Raises:
        ValueError: If two columns have the same name, or there are no rows.
    """
    names = [str(name) for name in frame.columns]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise ValueError(
            f"The DataFrame has several columns of the name '{twice[0]}'. Rename or drop them, such as with "
            "data.loc[:, ~data.columns.duplicated()]."
        )
    if not len(frame):
        raise ValueError("The DataFrame holds no rows.")
    columns = {name: frame.iloc[:, place].tolist() for place, name in enumerate(names)}
    return ColumnTable(name="the DataFrame", columns=columns)


def _from_rows(path: Path, rows: Iterable[TextRow], *, spelled: bool = False) -> ColumnTable:
    """Return the rows of a text file as a table; those that cannot be read are its `bad` ones."""
    lines: list[int] = []
    bad: list[tuple[str, str]] = []
    columns: dict[str, list[Any]] = {}
    for row in rows:
        if row.cells is None:
            bad.append((f"{path}, line {row.line}", row.error))
            continue
        for name in row.cells:
            if name not in columns:
                columns[name] = [None] * len(lines)
        for name, cells in columns.items():
            cells.append(row.cells.get(name))
        lines.append(row.line)
    fields = dict.fromkeys(columns, Field("other")) if spelled else {}
    return ColumnTable(
        name=str(path),
        columns=columns,
        fields=fields,
        folder=path.parent,
        unit="line",
        lines=lines,
        bad=tuple(bad),
    )


def _read_npz(path: Path) -> ColumnTable:
    try:
        check_fits(str(path), _unpacked_bytes(path))
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise ValueError(
            f"{path} cannot be read as .npz: {error}. Arrays of objects (pickles) are refused."
        ) from error
    return _from_arrays(path, arrays)


def _unpacked_bytes(path: Path) -> int:
    """Return the bytes of all arrays of an archive.

    Raises:
        ValueError: If the header of an array states more numbers than its part of the archive holds.
    """
    total = 0
    with zipfile.ZipFile(path) as archive:
        for part in archive.infolist():
            total += part.file_size
            with archive.open(part) as file:
                readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
                reader = readers.get(npy.read_magic(file))
                shape, _, dtype = reader(file) if reader else ((), False, np.dtype("u1"))
            if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > part.file_size:
                raise ValueError(
                    f"the header of '{part.filename}' states the shape {shape}, for which its {part.file_size:,} "
                    "bytes are too few"
                )
    return total


def _read_h5(path: Path) -> ColumnTable:
    h5py = require("h5py", "points")
    try:
        with h5py.File(path, "r") as file:
            found = {name: file[name] for name in file if hasattr(file[name], "dtype")}
            check_fits(str(path), sum(int(array.nbytes) for array in found.values()))
            arrays = {name: np.asarray(array) for name, array in found.items()}
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
