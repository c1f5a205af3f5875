"""Write data of any form as Parquet shards that contain the encoded files, for copying and streaming."""

import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np

from perceivers.console import tracked
from perceivers.data.base import DataConfig, atomic_write
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.fingerprint import RowsFingerprint, rows_fingerprint
from perceivers.data.modalities.base import error_text
from perceivers.data.registry import kind_of_name
from perceivers.data.sources.open import open_tables
from perceivers.data.tables.columns import label_columns
from perceivers.data.tables.table import Concatenated, Field, Subset, Table
from perceivers.data.targets.classes import class_names, label_name
from perceivers.data.targets.infer import TargetEncoder
from perceivers.escaping import escape_surrogates
from perceivers.optional import require

SHARD_BYTES = 2**28  # default size of a shard
MOST_ROWS = 10_000
_GROUP_BYTES, _GROUP_ROWS = 2**26, 256  # of a row group, which a reader holds in memory
_LOOKED_AT = 16  # rows that decide types and the size of a row
_MARK = b"perceivers_rows"  # metadata key that identifies the rows of a shard by table and number
_CONTENT = b"perceivers_content"  # metadata key of the fingerprint of the rows
_WHERE = re.compile(r"^(.*), (?:row|line|key) '?(.*?)'?$")
_FEATURES = {"image": "Image", "audio": "Audio", "video": "Video"}
_IN_BRACKETS = re.compile(r" \(([^()]*)\)$")


@dataclass(frozen=True)
class Written:
    """Shards of one split.

    Attributes:
        split: Name of the split.
        paths: Paths of the shards.
        num_rows: Number of rows in all of them.
        there: Number of shards that an earlier run had finished.
        changed: Number of shards that were written again because their rows had changed since an earlier run.
        bad: Name and reason of each row that was left out because it could not be read.
    """

    split: str
    paths: tuple[Path, ...]
    num_rows: int
    there: int
    changed: int = 0
    bad: tuple[tuple[str, str], ...] = ()


@dataclass
class _Plan:
    """Settings of one split."""

    split: str
    table: Table
    keys: list[str] | None
    labels: TargetEncoder | None
    schema: Any
    texts: frozenset[str]
    rows_per_shard: int
    bad: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])


def write_shards(
    data: Any,
    out: str | Path,
    *,
    config: DataConfig | None = None,
    rows_per_shard: int | None = None,
    splits: Sequence[str] = (),
) -> list[Written]:
    """Write data as `train-00000-of-00012.parquet`, ...: encoded files as bytes, other columns unchanged.

    Shards are written atomically, and those that an interrupted run has finished are kept if all of their rows still
    have the same content; the others are written again. Class names and the features Image, Audio and Video are written
    to the schema like Hugging Face's `datasets` does. A column `key` names each row: the path of its file, or its table
    and row.

    Args:
        data: Any data that `open_data` accepts.
        out: Folder of the shards.
        config: Label column, and column that divides the rows into splits.
        rows_per_shard: By default for shards of about 256 MiB.
        splits: Splits to write. By default all.

    Raises:
        ValueError: If the data are not recognized, a split does not exist, `out` holds shards of other data, or more
            than `max_bad` of the rows cannot be read.
        OSError: If a file cannot be written.
    """
    config = config or DataConfig()
    if rows_per_shard is not None and rows_per_shard < 1:
        raise ValueError(
            f"Expected at least one row in a shard, got rows_per_shard={rows_per_shard}."
        )
    form, tables, _ = open_tables(data, config)
    unknown = [split for split in splits if split not in tables]
    if unknown:
        raise ValueError(
            f"There is no split '{unknown[0]}' in {form}; there is {', '.join(tables)}."
        )
    first = tables.get("train") or next(iter(tables.values()))
    labels = tuple(label_columns(config.label, first.fields)) or ("label",)
    target = labels[0]  # several labels are written unchanged
    classes = () if len(labels) > 1 else _classes(tables, target, config)
    folder = Path(out)
    written: list[Written] = []
    for split, full in tables.items():
        if splits and split not in splits:
            continue
        table = full.keep(_written_fields(full))
        index = None
        if classes and target in table.fields:
            index = TargetEncoder("class", classes, target, table.fields[target])
        schema, texts = _schema_of(table, index and target, classes)
        size = rows_per_shard or _rows_per_shard(table)
        bad = list(full.bad)
        plan = _Plan(split, table, _keys(table), index, schema, texts, size, bad)
        written.append(_write_split(plan, folder, config.max_bad))
    return written


def _write_split(plan: _Plan, folder: Path, max_bad: float) -> Written:
    rows, size = len(plan.table), plan.rows_per_shard
    count = -(-rows // size)
    paths = [folder / f"{plan.split}-{i:05d}-of-{count:05d}.parquet" for i in range(count)]
    others = set(folder.glob(f"{plan.split}-*-of-*.parquet")) - set(paths)
    if others:
        raise ValueError(
            f"'{folder}' holds other shards of {plan.split}, such as {min(others).name}. Choose another --out."
        )
    there = total = changed = 0
    for number, path in enumerate(paths):
        span = range(number * size, min(rows, (number + 1) * size))
        mark = _mark(plan, span)
        num_bad = len(plan.bad)
        finished = _finished(path, mark)
        if finished is not None and finished.content == rows_fingerprint(_cells(plan, span)):
            known = finished.num_rows
            there += 1
        else:
            changed += finished is not None
            del plan.bad[num_bad:]
            known = _write_shard(plan, path, span, mark)
        total += known
        if len(plan.bad) > max_bad * rows:
            name, reason = plan.bad[0]
            raise ValueError(
                f"{len(plan.bad)} of {rows:,} rows of {plan.split} cannot be read, more than the {max_bad:.1%} "
                f"allowed. The first is {name}: {reason} Repair the data, or go on without them with --max-bad."
            )
    return Written(plan.split, tuple(paths), total, there, changed, tuple(plan.bad))


def _write_shard(plan: _Plan, path: Path, span: range, mark: str) -> int:
    """Write one shard and return its number of rows."""
    arrow, parquet = require("pyarrow", "data"), require("pyarrow.parquet", "data")
    schema = plan.schema.with_metadata({**plan.schema.metadata, _MARK: mark.encode()})
    content, total = RowsFingerprint(), 0
    rows = _fingerprinted(_cells(plan, span), content)
    with (
        atomic_write(path) as new,
        parquet.ParquetWriter(new, schema, compression="zstd") as writer,
    ):
        while group := _row_group(rows):
            columns = {name: [row[name] for row in group] for name in schema.names}
            try:
                arrays = [
                    arrow.array(cells, type=schema.field(name).type)
                    for name, cells in columns.items()
                ]
            except (arrow.ArrowException, TypeError) as error:
                raise ValueError(
                    f"The rows of {plan.table.name} do not have one type in each column: {error}."
                ) from error
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))
            total += len(group)
        writer.add_key_value_metadata({_CONTENT.decode(): content.hexdigest()})
    return total


def _fingerprinted(
    rows: Iterator[dict[str, Any]], content: RowsFingerprint
) -> Iterator[dict[str, Any]]:
    """Yield rows, added to a fingerprint."""
    for row in rows:
        content.add(row)
        yield row


def _row_group(rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    size, group = 0, list[dict[str, Any]]()
    for row in islice(rows, _GROUP_ROWS):
        group.append(row)
        size += sum(len(cell["bytes"]) for cell in row.values() if _is_file(cell))
        if size >= _GROUP_BYTES:
            break
    return group


def _cells(plan: _Plan, span: range) -> Iterator[dict[str, Any]]:
    """Yield the cells of rows in the form of the file. Unreadable rows are recorded and left out."""
    for index in tracked(span, len(plan.table), start=span.start):
        where = plan.table.where(index)
        match = _WHERE.match(where)
        key = f"{PurePosixPath(match[1]).name}:{match[2]}" if match else where
        key = key if plan.keys is None else plan.keys[index]
        try:
            row = plan.table.row(index)
            cells = {
                name: _written_cell(row[name], held, plan.table.folder)
                for name, held in plan.table.fields.items()
            }
            if plan.labels is not None:
                column = plan.labels.column
                raw = row[column].value if isinstance(row[column], EncodedItem) else row[column]
                known = label_name(raw, plan.labels.field, where) is not None
                cells[column] = plan.labels(raw, where) if known else -1
        except (ImportError, KeyError):  # a missing package or column concerns every row
            raise
        except Exception as error:
            plan.bad.append((key, error_text(error)))
            continue
        cells |= {name: json.dumps(cells[name], default=str) for name in plan.texts}
        yield {**cells, "key": escape_surrogates(key)}


def _keys(table: Table) -> list[str] | None:
    """Return the key of each row: column `key`, else the path of its file if these are distinct, else None."""
    if "key" in table.fields:
        return [str(cell) for cell in table.column("key")]
    first = table.row(0) if len(table) else {}
    for name, held in table.fields.items():
        cell = first.get(name)
        in_folder = isinstance(cell, EncodedItem) and cell.path is not None
        if held.by_path or in_folder:
            cells = [str(cell) for cell in table.column(name)]
            if len(set(cells)) == len(cells):
                return cells
    return None


def _written_fields(table: Table) -> dict[str, Field]:
    """Return the columns to write; paths of missing files are written as strings."""
    fields = dict(table.fields)
    for name, held in table.fields.items():
        if held.by_path:
            cells = [str(cell) for cell in table.column(name) if cell is not None]
            looked_at = cells[:: max(1, len(cells) // _LOOKED_AT)]
            if not any((table.folder / Path(cell).expanduser()).exists() for cell in looked_at):
                fields[name] = Field("string")
    return fields


def _classes(tables: Mapping[str, Table], target: str, config: DataConfig) -> tuple[str, ...]:
    """Return the class names; none if the target is a number, several labels, or missing."""
    table = tables.get("train") or next(iter(tables.values()))
    if target not in table.fields or config.target not in {"auto", "class"}:
        return ()
    held = table.fields[target]
    values = table.column(target)
    if held.kind not in {"number", "string"}:
        return ()
    try:
        return class_names(values, held, f"Column '{target}' of {table.name}")
    except ValueError:
        if config.target == "class":
            raise
        return ()


def _rows_per_shard(table: Table) -> int:
    sizes = [
        sum(
            len(c.read()) for c in row.values() if isinstance(c, EncodedItem) and (c.path or c.data)
        )
        for row in islice(_sampled_rows(table), _LOOKED_AT)
    ]
    mean = max(1, sum(sizes) // max(1, len(sizes)))
    return min(MOST_ROWS, max(1, SHARD_BYTES // mean))


def _mark(plan: _Plan, span: range) -> str:
    """Return a hash that identifies the rows of a shard by table and number; their content is compared apart."""
    first, last = (plan.table.where(i) for i in (span[0], span[-1]))
    names = plan.labels and plan.labels.names
    parts = [plan.table.name, first, last, len(span), str(plan.schema), names]
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class _Finished:
    """A shard of an earlier run: its number of rows, and their fingerprint."""

    num_rows: int
    content: str


def _finished(path: Path, mark: str) -> _Finished | None:
    """Return a finished shard, None if it does not exist.

    Raises:
        ValueError: If the file holds other rows.
    """
    if not path.exists():
        return None
    parquet = require("pyarrow.parquet", "data")
    with suppress(ValueError, OSError):  # another format holds other rows, too
        found = parquet.read_metadata(path)
        metadata = found.metadata or {}
        if metadata.get(_MARK) == mark.encode():
            return _Finished(int(found.num_rows), metadata.get(_CONTENT, b"").decode())
    raise ValueError(f"{path} exists and holds other rows. Choose another --out, or remove it.")


def _schema_of(
    table: Table, target: str | None, classes: Sequence[str]
) -> tuple[Any, frozenset[str]]:
    """Return the schema of a split, and the columns without a common type, which are written as JSON.

    Args:
        table: Rows of the split.
        target: Column written as class indices. None: none.
        classes: Class names.
    """
    arrow, datasets = require("pyarrow", "data"), require("datasets", "data")
    file = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    first = list(islice(_sampled_rows(table), _LOOKED_AT))
    types: dict[str, Any] = {"key": arrow.string()}
    special: dict[str, Any] = {}
    texts: set[str] = set()
    for name, held in table.fields.items():
        cells = [_written_cell(row[name], held, table.folder) for row in first]
        if any(_is_file(cell) for cell in cells) or (held.kind in _FEATURES and not any(cells)):
            types[name] = file
            if held.kind in _FEATURES:
                special[name] = getattr(datasets, _FEATURES[held.kind])()
        elif name == target:
            types[name] = arrow.int64()
            special[name] = datasets.ClassLabel(names=list(classes))
        elif name != "key":
            kind = _type(table, name, cells)
            types[name] = arrow.string() if kind is None else kind
            if kind is None:
                texts.add(name)
            if held.names:
                special[name] = datasets.ClassLabel(names=list(held.names))
    schema = arrow.schema(list(types.items()))
    features = datasets.Features({**datasets.Features.from_arrow_schema(schema), **special})
    info = json.dumps({"info": {"features": features.to_dict()}})
    kinds = {name: "string" if name in texts else held.kind for name, held in table.fields.items()}
    kinds["key"] = "string"
    if target is not None:
        kinds[target] = "number"
    ours = json.dumps({"kinds": kinds})
    metadata = {b"huggingface": info.encode(), b"perceivers": ours.encode()}
    return schema.with_metadata(metadata), frozenset(texts)


def _type(table: Table, name: str, cells: Sequence[Any]) -> Any:
    """Return the type of a column, from its Parquet file or its cells; None if these have no common type."""
    arrow = require("pyarrow", "data")
    base: Any = table
    while isinstance(base, Subset | Concatenated):
        base = base.base if isinstance(base, Subset) else base.tables[0]
    if str(base.name).endswith(".parquet"):
        from perceivers.data.formats.parquet import parquet_file

        return parquet_file(base.path).schema_arrow.field(name).type
    held = table.fields[name]
    try:
        values = table.column(name) if held.kind in {"number", "string", "other"} else cells
        kind = arrow.array([_listed(value) for value in values]).type
    except (arrow.ArrowException, TypeError):
        return None
    return arrow.string() if kind == arrow.null() else kind


def _sampled_rows(table: Table) -> Iterator[Mapping[str, Any]]:
    """Yield readable rows spread over a table."""
    for index in np.unique(np.linspace(0, len(table) - 1, 2 * _LOOKED_AT).round().astype(int)):
        try:
            row = table.row(int(index))
            for cell in row.values():
                if isinstance(cell, EncodedItem) and cell.path is not None:
                    cell.read()
        except (OSError, ValueError):
            continue
        yield row


def _written_cell(cell: Any, held: Field, folder: Path) -> Any:
    """Return a cell in the form of the file: encoded files as bytes, decoded images as PNG, other values unchanged."""
    if not isinstance(cell, EncodedItem):
        return _listed(cell)
    if held.kind == "number":
        raise ValueError(f"{cell.name}: expected a number, got {cell.value!r:.40}.")
    if cell.value is not None:
        return _listed(cell.value)
    if cell.is_missing:
        return None
    if cell.array is not None:
        from PIL import Image

        buffer = io.BytesIO()
        array = cell.array[..., 0] if cell.array.shape[2:] == (1,) else cell.array
        Image.fromarray(array).save(buffer, format="PNG")
        return {"bytes": buffer.getvalue(), "path": None}
    # The path is relative to the folder, or a bare name: it never leads out of a folder.
    if cell.path is None:
        bracket = _IN_BRACKETS.search(cell.name)
        name = PurePosixPath(bracket[1] if bracket else cell.name).name
        path = name if kind_of_name(name) == held.kind else None
    elif cell.path.is_relative_to(folder) and ".." not in cell.path.parts:
        path = cell.path.relative_to(folder).as_posix()
    else:
        path = cell.path.name
    return {"bytes": cell.read(), "path": path and escape_surrogates(path)}


def _listed(cell: Any) -> Any:
    """Return a value for pyarrow: arrays of several axes as lists of rows."""
    if isinstance(cell, np.ndarray) and cell.dtype == np.float16:  # few readers support it
        cell = cell.astype(np.float32)
    if isinstance(cell, np.ndarray) and cell.ndim > 1:
        return [_listed(part) for part in cast("Any", cell)]
    if isinstance(cell, Mapping):
        return {key: _listed(part) for key, part in cast("Mapping[str, Any]", cell).items()}
    return escape_surrogates(cell) if isinstance(cell, str) else cell


def _is_file(cell: Any) -> bool:
    """Return True for a written file: a dict of bytes and path."""
    return isinstance(cell, dict) and cell.keys() == {"bytes", "path"}
