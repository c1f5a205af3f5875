"""Which columns of a table are inputs, which is the target, and which are only about the rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from perceivers.data.base import DataConfig, nearest
from perceivers.data.media import MEDIA_KINDS
from perceivers.data.tables import Field, Table

__all__ = ["Choice", "InputColumn", "check_paths", "choose", "known_column"]

_SUPPORTED = ("image",)
_WORDS = {
    "image": "pictures",
    "audio": "sound",
    "video": "video",
    "points": "shapes",
    "text": "text",
    "array": "lists of numbers",
    "number": "numbers",
    "string": "short strings",
    "other": "something unknown",
}


@dataclass(frozen=True)
class InputColumn:
    """One column that the model reads.

    Attributes:
        column: Its name in the data.
        kind: What it holds.
    """

    column: str
    kind: Literal["image"]


@dataclass(frozen=True)
class Choice:
    """The columns that are used, and how that was decided.

    Attributes:
        inputs: Input columns by the name of their modality.
        target: Column of the target, or None where there is none.
        group: Columns that only tell rows apart (`group`, `split_column`).
        ignored: All others.
        notes: Sentences about the choice.
    """

    inputs: dict[str, InputColumn]
    target: str | None
    group: tuple[str, ...]
    ignored: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def columns(self) -> list[str]:
        """All columns that are read."""
        names = [column.column for column in self.inputs.values()]
        return [*names, *([self.target] if self.target else []), *self.group]


def choose(fields: Mapping[str, Field], config: DataConfig, name: str) -> Choice:
    """Return which columns are used.

    Args:
        fields: What the columns hold.
        config: What the user said about them.
        name: The data, in messages.

    Raises:
        ValueError: If there is no input, a named column is missing, or the target cannot be told.
    """
    for column in (config.label, config.group, config.split_column):
        if column is not None:
            known_column(column, fields, name)
    inputs = (
        _named_inputs(fields, config, name)
        if config.columns
        else _found_inputs(fields, config, name)
    )
    about = tuple(dict.fromkeys(c for c in (config.group, config.split_column) if c is not None))
    target = _target(fields, config, inputs, name)
    used = {*inputs, *about, target}
    ignored = tuple(column for column in fields if column not in used)
    key = {column: "image" if len(inputs) == 1 else column for column in inputs}
    chosen = {key[column]: InputColumn(column, "image") for column in inputs}
    return Choice(chosen, target, about, ignored, _notes(fields, inputs, target, ignored))


def known_column(column: str, fields: Mapping[str, Field], name: str) -> Field:
    """Return what a column holds.

    Raises:
        ValueError: If there is no such column. The message suggests the nearest.
    """
    if column not in fields:
        msg = f"{name} has no column '{column}'.{nearest(column, fields)} Its columns are {', '.join(fields)}."
        raise ValueError(msg)
    return fields[column]


def check_paths(table: Table, columns: Sequence[str]) -> None:
    """Look whether the first file that each column of paths names is there.

    Raises:
        FileNotFoundError: If it is not, which mostly means that paths are relative to another folder.
    """
    for column in columns:
        if not table.fields[column].by_path:
            continue
        first = next((cell for cell in table.column(column) if cell is not None), None)
        if first is not None and not (table.folder / Path(str(first)).expanduser()).exists():
            msg = (
                f"Column '{column}' of {table.name} names files, but the first, '{first}', is not there: looked for "
                f"'{table.folder / str(first)}'. Paths are relative to the folder of the table, or absolute."
            )
            raise FileNotFoundError(msg)


def _named_inputs(fields: Mapping[str, Field], config: DataConfig, name: str) -> list[str]:
    named = config.columns or {}
    for column, kind in named.items():
        field = known_column(column, fields, name)
        if kind not in _SUPPORTED:
            msg = f"Column '{column}' is said to hold '{kind}': this release reads {', '.join(_SUPPORTED)}."
            raise ValueError(msg)
        if field.kind in {"number", "text", "array"} or (
            field.kind in MEDIA_KINDS and field.kind != kind
        ):
            msg = f"Column '{column}' of {name} is said to hold pictures, but it holds {_WORDS[field.kind]}."
            raise ValueError(msg)
    return list(named)


def _found_inputs(fields: Mapping[str, Field], config: DataConfig, name: str) -> list[str]:
    spoken_for = {config.label or "label", config.group, config.split_column}
    free = {c: f for c, f in fields.items() if c not in spoken_for}
    pictures = [column for column, field in free.items() if field.kind == "image"]
    held = [column for column in pictures if not free[column].by_path]
    # Where pictures lie in the table itself, a column of paths only says where they once came from.
    if held or pictures:
        return held or pictures
    seen = (
        "; ".join(f"'{c}' holds {_WORDS[f.kind]}" for c, f in fields.items())
        or "there is no column at all"
    )
    msg = (
        f"{name} has no column of pictures: {seen}. This release reads pictures: encoded (PNG, JPEG, ...) or as paths "
        "of files with such a suffix. If a column does hold them, name it with --columns COLUMN:image."
    )
    raise ValueError(msg)


def _target(
    fields: Mapping[str, Field], config: DataConfig, inputs: Sequence[str], name: str
) -> str | None:
    target = config.label or ("label" if "label" in fields and "label" not in inputs else None)
    if target is not None:
        kind = fields[target].kind
        if target in inputs:
            msg = f"Column '{target}' of {name} cannot be both the label and an input."
            raise ValueError(msg)
        if kind not in {"number", "string", "other", "text"}:
            msg = f"Column '{target}' of {name} holds {_WORDS[kind]}, not classes: expected names or whole numbers."
            raise ValueError(msg)
        return target
    taken = {*inputs, config.group, config.split_column}
    candidates = [c for c, f in fields.items() if f.kind in {"number", "string"} and c not in taken]
    if not candidates:
        return None
    msg = (
        f"{name} has no column 'label', so the target cannot be told. Say which column it is, with --label: "
        f"{', '.join(candidates)}."
    )
    raise ValueError(msg)


def _notes(
    fields: Mapping[str, Field], inputs: Sequence[str], target: str | None, ignored: Sequence[str]
) -> tuple[str, ...]:
    notes = [f"Inputs: {', '.join(f'{column} (pictures)' for column in inputs)}."]
    notes.append(f"Target: {target}." if target else "There are no labels.")
    media = [c for c in ignored if fields[c].kind in (*MEDIA_KINDS, "array")]
    if media:
        seen = ", ".join(f"{c} ({_WORDS[fields[c].kind]})" for c in media)
        notes.append(f"Not read: {seen}.")
    rest = [c for c in ignored if c not in media]
    if rest:
        notes.append(
            f"Ignored, as they describe rows and may give the answer away: {', '.join(rest)}."
        )
    return tuple(notes)
