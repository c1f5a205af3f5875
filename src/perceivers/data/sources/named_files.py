"""Tables whose rows name files by an id without folder and suffix, such as `7f3a` for `images/7f3a.jpg`."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from perceivers.data.base import DataConfig
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.registry import kind_of_name, media_kinds, suffixes_of
from perceivers.data.tables.columns import label_columns
from perceivers.data.tables.table import Field, Table

_LOOKED_AT = 20  # cells of a column that are compared with the files


class NamedFilesTable(Table):
    """A table with one column of ids that is read as files.

    Args:
        base: The table.
        column: Column of the ids.
        folder: Folder of the files.
        suffix: Suffix of the files.
        kind: Their modality.
    """

    def __init__(self, base: Table, column: str, folder: Path, suffix: str, kind: str) -> None:
        self.base, self.column_of_ids, self.folder_of_files = base, column, folder
        self.suffix, self.kind = suffix, kind
        self.name, self.folder, self.num_bytes = base.name, base.folder, base.num_bytes
        self.notes, self.bad = base.notes, base.bad
        self.fields = {**base.fields}
        if column in base.fields:
            self.fields[column] = Field(kind, by_path=True)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.base)

    def row(self, index: int) -> Mapping[str, Any]:
        """Return one row."""
        row = dict(self.base.row(index))
        if self.column_of_ids in row:
            path = self._path(row[self.column_of_ids])
            name = self.where(index) if path is None else str(path)
            row[self.column_of_ids] = EncodedItem(name, path=path)
        return row

    def column(self, name: str) -> Sequence[Any]:
        """Return the values of one column; of the ids, the paths of the files."""
        cells = self.base.column(name)
        if name != self.column_of_ids:
            return cells
        return [None if (path := self._path(cell)) is None else str(path) for cell in cells]

    def keep(self, fields: Mapping[str, Field]) -> "NamedFilesTable":
        """Return the table with these columns only."""
        ids = self.column_of_ids
        kept = {c: self.base.fields[c] if c == ids else field for c, field in fields.items()}
        return NamedFilesTable(
            self.base.keep(kept), ids, self.folder_of_files, self.suffix, self.kind
        )

    def where(self, index: int) -> str:
        """Return the name of a row in messages."""
        return self.base.where(index)

    def _path(self, cell: Any) -> Path | None:
        return _path_of(cell, self.folder_of_files, self.suffix)


def name_files(tables: Mapping[str, Table], config: DataConfig) -> dict[str, Table]:
    """Return tables whose column of ids is read as files, by `config.files` and `config.suffix`.

    Raises:
        ValueError: If the folder, the suffix or the column does not fit.
    """
    if config.files is None:
        if config.suffix is not None:
            raise ValueError(
                f"suffix='{config.suffix}' completes names of files, but not in which folder. Add --files FOLDER."
            )
        return dict(tables)
    first = next(iter(tables.values()))
    folder = Path(config.files).expanduser()
    folder = folder if folder.is_dir() else first.folder / folder
    if not folder.is_dir():
        raise ValueError(
            f"--files expects the folder of the files that {first.name} names, got '{config.files}', which is no "
            "folder."
        )
    suffix = _suffix(folder, config.suffix)
    kind = kind_of_name(f"x{suffix}")
    if kind not in media_kinds():
        known = ", ".join(mark for one in media_kinds() for mark in suffixes_of(one)[:2])
        raise ValueError(
            f"--suffix expects a suffix of files that are read, such as {known}; got '{suffix}'."
        )
    column = _column_of_ids(first, folder, suffix, config)
    return {
        split: NamedFilesTable(table, column, folder.absolute(), suffix, str(kind))
        for split, table in tables.items()
    }


def _suffix(folder: Path, suffix: str | None) -> str:
    """Return the suffix with its dot; by default that of the files in the folder."""
    if suffix is not None:
        return suffix if not suffix or suffix.startswith(".") else f".{suffix}"
    found = {p.suffix for p in folder.iterdir() if kind_of_name(p.name) in media_kinds()}
    if len(found) == 1:
        return found.pop()
    seen = ", ".join(sorted(found)) or "no file that is read"
    raise ValueError(
        f"--suffix is needed: '{folder}' holds {seen}. Give one, such as --suffix .jpg."
    )


def _path_of(cell: Any, folder: Path, suffix: str) -> Path | None:
    if cell is None or cell == "":
        return None
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    name = str(cell).strip()
    return folder / (name if name.lower().endswith(suffix.lower()) else f"{name}{suffix}")


def _column_of_ids(table: Table, folder: Path, suffix: str, config: DataConfig) -> str:
    """Return the column whose cells name files in the folder.

    Raises:
        ValueError: If there is none.
    """
    labels = label_columns(config.label, table.fields) or {"label": ""}
    declared = [c for c, k in (config.columns or {}).items() if k in media_kinds()]
    free = [
        c
        for c, field in table.fields.items()
        if field.kind in {"string", "number"} or (field.by_path and c not in labels)
    ]
    tried: list[str] = []
    best, most = "", 0
    for column in [c for c in declared if c in table.fields] or [
        c for c in free if c not in labels
    ]:
        filled = (cell for cell in table.column(column) if cell is not None)
        paths = [_path_of(cell, folder, suffix) for cell in islice(filled, _LOOKED_AT)]
        count = sum(path is not None and path.is_file() for path in paths)
        tried += [f"'{path.name}' (column {column})" for path in paths[:1] if path is not None]
        if count > most:
            best, most = column, count
    if not best:
        raise ValueError(
            f"No column of {table.name} names files in '{folder}': looked for {', '.join(tried) or 'nothing'}. Check "
            "--files and --suffix, or name the column with --columns COLUMN:KIND."
        )
    return best
