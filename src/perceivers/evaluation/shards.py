"""Predictions of data in shards: processes share the shards, and each shard gets a file of its own, whole or not."""

import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

from perceivers.data.base import atomic_write
from perceivers.data.fingerprint import RowsFingerprint
from perceivers.data.formats.remote import Location, remote_version
from perceivers.data.sources.layout import STREAMED, recognize
from perceivers.data.streaming.shards import DamagedRow, FileShard, infer_fields
from perceivers.data.tables.columns import InputColumn
from perceivers.data.tables.table import Field
from perceivers.optional import require
from perceivers.tasks.prediction import Prediction

_MARK = b"perceivers"  # metadata key of the identity of shard and model
_GROUP = 1024  # rows that are written at a time


@runtime_checkable
class RowPredictor(Protocol):
    """Predictor of the rows of a table: `Predictor`.

    Attributes:
        columns: Columns of each input of the model.
        fingerprint: Identity of the model: its weights and its configuration.
    """

    columns: Mapping[str, InputColumn]

    @property
    def fingerprint(self) -> str:
        """Identity of the model: its weights and its configuration."""
        ...

    def predict_rows(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Prediction | Exception]:
        """Yield for each row, cells by column, a prediction or an error."""
        ...


@dataclass(frozen=True)
class ShardResult:
    """Result of one shard.

    Attributes:
        shard: Address of the shard.
        path: File of its predictions.
        num_rows: Number of rows there.
        bad: Number of rows with an error instead of a label.
        skipped: Whether it was finished before, and left as it was.
        changed: `model` or `shard`, which had changed since an earlier file was written. "": there was none.
    """

    shard: Location
    path: Path
    num_rows: int = 0
    bad: int = 0
    skipped: bool = False
    changed: str = ""


def rank_from_environment() -> tuple[int, int]:
    """Return the number of this process and the number of processes, from torchrun. Alone: 0 of 1."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def shards_of(data: Any) -> list[Location]:
    """Return the shards that a path, address, pattern, folder or a list of these names.

    Raises:
        ValueError: If these are no Parquet, tar, JSON lines or CSV files.
        OSError: If there are none.
    """
    found = recognize(data)
    paths = [path for part in found.splits.values() for path in part.paths]
    if any(part.kind != "files" for part in found.splits.values()) or not paths:
        raise ValueError(
            f"'{data}' is {found.form}: expected shards, files of {', '.join(STREAMED)}."
        )
    return paths


def predict_shards(
    predictor: RowPredictor,
    paths: Sequence[Location],
    out: Path,
    *,
    rank: int,
    world_size: int,
    key: str = "key",
    model: str = "",
) -> Iterator[ShardResult]:
    """Predict every row of this process' part of the shards. Each becomes one Parquet file in `out`.

    It has a row for each row of the shard: its key (or number), the columns of its prediction, and `error`,
    the reason where a row has none. Where a shard is damaged, a last row without a key has the error.
    A file appears whole or not at all. A shard whose file was made by the same weights and configuration from the same
    rows is not predicted again; if the weights or the rows have changed, it is. Remote shards are identified by what
    their storage reports: size, time, hash. `paths` is the same list in every process. Predictions of a `model` of
    another name are never replaced.

    Raises:
        ValueError: If a shard has none of the columns that the model reads, or `out` holds other predictions.
        OSError: If a shard is missing, or a file cannot be written.
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"Expected rank from 0 to world_size - 1 = {world_size - 1}, got {rank}.")
    stems = [PurePosixPath(str(path).partition("?")[0]).stem for path in paths]
    if len(set(stems)) < len(stems):
        stems = [f"{number:05d}-{stem}" for number, stem in enumerate(stems)]
    for shard, stem in list(zip(paths, stems, strict=True))[rank::world_size]:
        path = out / f"{stem}.parquet"
        rows = _Rows(shard, predictor.columns, key)
        mark = {"shard": str(shard), "model": model, "weights": predictor.fingerprint}
        finished = _finished(path, mark, rows)
        if finished is not None and not finished.changed:
            yield finished
            continue
        changed = "" if finished is None else finished.changed
        yield replace(_predict_shard(predictor, rows, path, key, mark), changed=changed)


def _finished(path: Path, mark: Mapping[str, str], rows: "_Rows") -> ShardResult | None:
    """Return the result of an earlier run with what has changed since. None: there is none.

    Raises:
        ValueError: If the file is that of another shard or of a model of another name, or of another program.
    """
    if not path.exists():
        return None
    parquet = require("pyarrow.parquet", "data")
    found: dict[str, str] = {}
    with suppress(ValueError, OSError):
        found = json.loads((parquet.read_metadata(path).metadata or {}).get(_MARK, b"{}"))
    is_same = found.get("weights") == mark["weights"] and found.get("rows") == rows.fingerprint()
    is_ours = all(found.get(name) == mark[name] for name in ("shard", "model"))
    if not is_same and not is_ours:
        raise ValueError(
            f"{path} exists and holds something else: expected predictions of {mark['shard']} by "
            f"'{mark['model']}'. Choose another folder for --shards, or remove it."
        )
    changed = "" if is_same else "model" if found.get("weights") != mark["weights"] else "shard"
    errors = parquet.read_table(path, columns=["error"]).column(0)
    bad = len(errors) - errors.null_count
    return ShardResult(rows.shard, path, len(errors), bad, skipped=True, changed=changed)


def _predict_shard(
    predictor: RowPredictor, rows: "_Rows", path: Path, key: str, mark: Mapping[str, str]
) -> ShardResult:
    arrow, parquet = require("pyarrow", "data"), require("pyarrow.parquet", "data")
    cells = _cells(predictor.predict_rows(rows), rows, key)
    group = list(islice(cells, _GROUP))
    while all("error" in row for row in group) and (more := list(islice(cells, _GROUP))):
        group += more  # the columns are those of a prediction
    found = {name: kind for row in group for name, kind in _types(row).items() if name != key}
    schema = arrow.schema(
        [
            (key, arrow.string() if rows.has_key else arrow.int64()),
            *found.items(),
            *(() if "error" in found else (("error", arrow.string()),)),
        ]
    )
    total = bad = 0
    with atomic_write(path) as new, parquet.ParquetWriter(new, schema) as writer:
        while group:
            columns = {name: [row.get(name) for row in group] for name in schema.names}
            writer.write_table(arrow.table(columns, schema=schema))
            total += len(group)
            bad += sum("error" in row for row in group)
            group = list(islice(cells, _GROUP))
        mark = {**mark, "rows": rows.read_fingerprint}
        writer.add_key_value_metadata({_MARK.decode(): json.dumps(mark)})
    return ShardResult(rows.shard, path, total, bad)


def _types(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the types of the cells of a row: numbers, texts, and the labels of one that has several."""
    arrow = require("pyarrow", "data")
    return {
        name: arrow.list_(arrow.string())
        if isinstance(cell, list)
        else arrow.string()
        if isinstance(cell, str)
        else arrow.float32()
        for name, cell in row.items()
    }


def _cells(
    predictions: Iterator[Prediction | Exception], rows: "_Rows", key: str
) -> Iterator[dict[str, Any]]:
    """Yield the cells of each row in the file of predictions."""
    for prediction in predictions:
        name, reason = rows.keys.popleft()
        row: dict[str, Any] = {key: name}
        if isinstance(prediction, Exception):
            reason = reason or str(prediction)
            row["error"] = " ".join(reason.split()) or type(prediction).__name__
        else:
            row |= prediction.columns()
        yield row
    if rows.damage is not None:
        yield {key: None, "error": rows.damage}


class _Rows:
    """The rows of a shard, with the inputs alone; their keys are put aside in their order.

    Attributes:
        shard: Address of the shard.
        keys: Keys of the rows that were read.
        damage: Reason why reading stopped, of a damaged shard.
        has_key: Whether the shard has a column of keys.
        read_fingerprint: Fingerprint of the rows, after they were read.
    """

    def __init__(self, shard: Location, columns: Mapping[str, InputColumn], key: str) -> None:
        self.shard = shard
        self.read_fingerprint = ""
        self.keys: deque[tuple[Any, str | None]] = deque()  # with the reason of a damaged row
        self.damage: str | None = None
        self.has_key = False
        self._key = key
        self._shard: FileShard | None = None
        self._missing: dict[str, Field] = {}
        try:
            found = infer_fields(shard)
        except ValueError as error:
            self.damage = str(error)
            return
        kinds = {
            name: kind
            for column in columns.values()
            for name, kind in zip(
                column.all_columns,
                column.kinds or (column.kind,) * len(column.all_columns),
                strict=True,
            )
        }
        fields = {n: replace(found[n], kind=kind) for n, kind in kinds.items() if n in found}
        if not fields:
            raise ValueError(
                f"{shard} has none of the columns that the model reads, {', '.join(kinds)}; its columns are "
                f"{', '.join(found)}."
            )
        self._missing = {n: Field(kind) for n, kind in kinds.items() if n not in found}
        self.has_key = key in found
        if self.has_key:
            fields[key] = replace(fields.get(key, found[key]), kind="string")
        self._shard = FileShard(shard, fields)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the rows up to where the shard is damaged."""
        found = RowsFingerprint()
        version = self._remote_version()
        for number, (row, reason) in enumerate(self._rows()):
            if version is None:
                found.add(reason or row)
            cell = row.pop(self._key, None) if self.has_key else number
            name = None if cell is None else str(cell) if self.has_key else cell
            self.keys.append((name, reason))
            yield row
        found.add([version, self.damage])
        self.read_fingerprint = found.hexdigest()

    def fingerprint(self) -> str:
        """Return the fingerprint of the rows and keys; of a remote shard, that of its version in the storage."""
        found, version, damage = RowsFingerprint(), self._remote_version(), self.damage
        if version is None:
            for row, reason in self._rows():
                found.add(reason or row)
        found.add([version, self.damage])
        self.damage = damage  # set again when the rows are predicted
        return found.hexdigest()

    def _remote_version(self) -> str | None:
        return remote_version(self.shard) if isinstance(self.shard, str) else None

    def _rows(self) -> Iterator[tuple[dict[str, Any], str | None]]:
        """Yield the rows with their keys, and the reason of a damaged one."""
        if self._shard is None:
            return
        try:
            for number, row in enumerate(self._shard.rows(0)):
                if isinstance(row, DamagedRow):  # to get an error in its place
                    yield self._empty(self._shard.fields, row.name), row.reason
                    continue
                where = f"{self._shard.name}, row {number}"
                yield {**row, **self._empty(self._missing, where)}, None
        except ValueError as error:
            self.damage = str(error)

    @staticmethod
    def _empty(fields: Mapping[str, Field], where: str) -> dict[str, Any]:
        return {name: field.cell(None, where, Path()) for name, field in fields.items()}
