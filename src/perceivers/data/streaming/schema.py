"""The columns of shards that are written: their types, and a cell as these take it."""

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np

from perceivers.data.base import require
from perceivers.data.encoded_item import Media
from perceivers.data.registry import kind_of_name
from perceivers.data.tables.table import Concatenated, Field, Subset, Table

__all__ = ["is_file", "sampled_rows", "schema_of", "written_cell"]

_FEATURES = {"image": "Image", "audio": "Audio", "video": "Video"}
_LOOKED_AT = 16  # rows by which types are told
_IN_BRACKETS = re.compile(r" \(([^()]*)\)$")


def schema_of(
    table: Table, target: str | None, classes: Sequence[str]
) -> tuple[Any, frozenset[str]]:
    """Return the schema of a split, and which columns are written as JSON text, as they have no type.

    Args:
        table: The rows.
        target: The column that is written as indices of classes. None: there is no such.
        classes: Their names.

    Returns:
        The schema tells by its metadata what is a picture, a sound, a film or a class, as `datasets` writes it.
    """
    arrow, datasets = require("pyarrow", "data"), require("datasets", "data")
    file = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    first = list(islice(sampled_rows(table), _LOOKED_AT))
    types: dict[str, Any] = {"key": arrow.string()}
    special: dict[str, Any] = {}
    texts: set[str] = set()
    for name, held in table.fields.items():
        cells = [written_cell(row[name], held, table.folder) for row in first]
        if any(is_file(cell) for cell in cells) or (held.kind in _FEATURES and not any(cells)):
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
    """Return the type of a column that is written as it is: that of the Parquet file it comes from, or of its cells.

    None where these are of several types.
    """
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


def sampled_rows(table: Table) -> Iterator[Mapping[str, Any]]:
    """Yield rows spread over a table, leaving out those that cannot be read."""
    for index in np.unique(np.linspace(0, len(table) - 1, 2 * _LOOKED_AT).round().astype(int)):
        try:
            row = table.row(int(index))
            for cell in row.values():
                if isinstance(cell, Media) and cell.path is not None:
                    cell.read()
        except (OSError, ValueError):
            continue
        yield row


def written_cell(cell: Any, held: Field, folder: Path) -> Any:
    """Return a cell as it is written: files as their bytes, pictures of arrays as PNG, other values as they are."""
    if not isinstance(cell, Media):
        return _listed(cell)
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
    return {"bytes": cell.read(), "path": _path(cell, held, folder)}


def _path(media: Media, held: Field, folder: Path) -> str | None:
    """Return the name under which a file is written: relative, and never one that leads out of a folder."""
    if media.path is not None:
        relative = media.path.is_relative_to(folder) and ".." not in media.path.parts
        return (media.path.relative_to(folder) if relative else Path(media.path.name)).as_posix()
    bracket = _IN_BRACKETS.search(media.name)
    name = PurePosixPath(bracket[1] if bracket else media.name).name
    return name if kind_of_name(name) == held.kind else None


def _listed(cell: Any) -> Any:
    """Return a value as pyarrow takes it: arrays of several axes as lists of the rows."""
    if isinstance(cell, np.ndarray) and cell.dtype == np.float16:  # which few can read
        cell = cell.astype(np.float32)
    if isinstance(cell, np.ndarray) and cell.ndim > 1:
        return [_listed(part) for part in cast("Any", cell)]
    if isinstance(cell, Mapping):
        return {key: _listed(part) for key, part in cast("Mapping[str, Any]", cell).items()}
    return cell


def is_file(cell: Any) -> bool:
    """Tell whether a cell, as it is written, is a file: its bytes and its name."""
    return isinstance(cell, dict) and cell.keys() == {"bytes", "path"}
