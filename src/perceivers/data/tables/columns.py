"""Selection of the input and target columns of a table."""

import keyword
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from perceivers.data.base import DataConfig, nearest
from perceivers.data.registry import (
    can_read_as,
    column_kinds,
    list_modalities,
    media_kinds,
    noun_of,
)
from perceivers.data.tables.numbers import NumberFormat
from perceivers.data.tables.table import Field, Table
from perceivers.wording import counted, names_text


@dataclass(frozen=True)
class InputColumn:
    """Column or columns of one modality.

    Attributes:
        column: Name of the column, the first if there are several.
        kind: The modality: `image`, `audio`, `video`, `points`, `text`, `series`, `array`, `table`, `frame_pair` or
            `flow`.
        columns: All columns of a modality with several: the channels of a series, the fields of a table. Else empty.
        kinds: Kind of each of `columns`.
    """

    column: str
    kind: str
    columns: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()

    @property
    def all_columns(self) -> tuple[str, ...]:
        """All columns of the modality."""
        return self.columns or (self.column,)


def input_kinds(inputs: Mapping[str, InputColumn]) -> dict[str, str]:
    """Return the kind of each input column."""
    kinds: dict[str, str] = {}
    for part in inputs.values():
        columns = part.all_columns
        of_columns = part.kinds or (part.kind,) * len(columns)
        kinds.update(zip(columns, of_columns, strict=True))
    return kinds


def read_as(field: Field, kind: str) -> Field:
    """Return the content of a column that is read as a modality."""
    # A video column with its audio track has two modalities.
    return field if field.kind == "video" else replace(field, kind=kind)


def cell_key(modality: str, column: InputColumn, columns: Mapping[str, InputColumn]) -> str:
    """Return the key of a modality's cell in a row.

    Image frames and audio track of a video share one column; if they are given apart, each has a key of its own.
    """
    alone = [part.column for part in columns.values()].count(column.column) == 1
    return column.column if alone else f"{column.column}:{modality}"


def _series(columns: Sequence[str]) -> list[InputColumn]:
    """Return columns of lists as the channels of one series."""
    kinds = ("array",) * len(columns)
    return [InputColumn(columns[0], "series", tuple(columns), kinds)] if columns else []


def _frame_pair(columns: Sequence[str], name: str) -> list[InputColumn]:
    """Return two image columns as frame pairs; `name` is the table in messages."""
    if len(columns) != 2:
        raise ValueError(
            f"Expected two columns of frames in {name}, the first and the second: --columns one:frame,two:frame; got "
            f"{', '.join(columns)}."
        )
    return [InputColumn(columns[0], "frame_pair", tuple(columns), ("image", "image"))]


def _merge_frames(found: list[InputColumn], name: str) -> list[InputColumn]:
    """Merge two image columns into a frame pair if there is a flow column."""
    images = [part.column for part in found if part.kind == "image"]
    if len(images) != 2 or all(part.kind != "flow" for part in found):
        return found
    return [*_frame_pair(images, name), *(part for part in found if part.kind != "image")]


_PATHS = 20  # paths of a column of which one must exist

_SHOWN = 12  # columns of an input in a sentence
_TARGET_KINDS = ("class", "labels", "number")


def label_columns(label: str | None, known: Container[str]) -> dict[str, str]:
    """Return the columns named by `DataConfig.label`, each with its declared kind or "".

    `digit,color` names two columns, `digit,age:number` declares the kind of the second. A column whose name is the
    whole text takes precedence.

    Raises:
        ValueError: If a name is empty or repeated, or a kind is unknown.
    """
    if label is None:
        return {}
    if label in known:
        return {label: ""}
    found: dict[str, str] = {}
    for part in (part.strip() for part in label.split(",")):
        column, kind = part, ""
        if part not in known and ":" in part:
            column, _, kind = part.rpartition(":")
            if kind not in _TARGET_KINDS:
                raise ValueError(
                    f"Label '{column}' has the unknown kind '{kind}': expected one of {', '.join(_TARGET_KINDS)}."
                )
        if not column or column in found:
            reason = f"'{column}' comes twice" if column else "a name is empty"
            raise ValueError(
                f"Expected different columns as labels, COLUMN,COLUMN,..., got '{label}': {reason}."
            )
        found[column] = kind
    return found


def known_column(column: str, fields: Mapping[str, Field], name: str) -> Field:
    """Return the content of a column.

    Raises:
        ValueError: If there is no such column. The message suggests the nearest name.
    """
    if column not in fields:
        raise ValueError(
            f"{name} has no column '{column}'.{nearest(column, fields)} Its columns are {', '.join(fields)}."
        )
    return fields[column]


def target_columns(
    fields: Mapping[str, Field], config: DataConfig, inputs: Sequence[str], name: str
) -> dict[str, str]:
    """Return the target columns, each with its declared kind or ""; none if there are no labels.

    Raises:
        ValueError: If a target is an input or has no suitable kind, or the target column cannot be inferred.
    """
    has_flow = any(fields[column].kind == "flow" for column in inputs)
    if config.target == "nothing" or (has_flow and config.label is None):
        return {}
    targets = label_columns(config.label, fields)
    if not targets and "label" in fields and "label" not in inputs:
        targets = {"label": ""}
    for target in targets:
        kind = known_column(target, fields, name).kind
        if target in inputs:
            raise ValueError(f"Column '{target}' of {name} cannot be both the label and an input.")
        if kind not in {"number", "string", "other", "text", "array"}:
            raise ValueError(
                f"Column '{target}' of {name} holds {noun_of(kind)}, not classes: expected names, whole "
                "numbers, lists of them, or quantities."
            )
    if targets:
        return targets
    taken = {*inputs, config.group, config.split_column}
    candidates = [c for c, f in fields.items() if f.kind in {"number", "string"} and c not in taken]
    if not candidates:
        return {}
    raise ValueError(
        f"{name} has no column 'label', so the target cannot be inferred. Name its column with --label: "
        f"{', '.join(candidates)}."
    )


@dataclass(frozen=True)
class ColumnSelection:
    """Columns of a table by their use.

    Attributes:
        inputs: Input columns by modality name.
        target: Target column, None without one; of several tasks, their columns joined by commas.
        group: Columns that only divide the rows (`group`, `split_column`).
        ignored: All other columns.
        notes: Sentences about the selection.
        tasks: Of several tasks, the target column of each with its declared kind or "".
    """

    inputs: dict[str, InputColumn]
    target: str | None
    group: tuple[str, ...]
    ignored: tuple[str, ...]
    notes: tuple[str, ...]
    tasks: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def targets(self) -> tuple[str, ...]:
        """The target columns."""
        return tuple(self.tasks) or ((self.target,) if self.target else ())

    @property
    def columns(self) -> list[str]:
        """All columns that are read."""
        names = [name for column in self.inputs.values() for name in column.all_columns]
        return list(dict.fromkeys([*names, *self.targets, *self.group]))

    def kept(
        self, fields: Mapping[str, Field], name: str, *, without_target: bool = False
    ) -> dict[str, Field]:
        """Return the used columns of a table, each with the kind as which it is read.

        Raises:
            ValueError: If a column is missing.
        """
        kinds = input_kinds(self.inputs)
        kept: dict[str, Field] = {}
        for column in self.columns:
            if column not in fields:
                if column in self.targets and without_target:
                    continue
                raise ValueError(f"{name} lacks the column '{column}' that the others have.")
            known = fields[column]
            if column in kinds:
                kept[column] = read_as(known, kinds[column])
            else:  # unchanged, even if a model could read it
                plain = known.kind not in media_kinds()
                kept[column] = known if plain else replace(known, kind="other", by_path=False)
        return kept


def choose(
    fields: Mapping[str, Field],
    config: DataConfig,
    name: str,
    *,
    inputs: Mapping[str, InputColumn] | None = None,
) -> ColumnSelection:
    """Select the columns of a table.

    Args:
        fields: Content of the columns.
        config: Configured columns.
        name: Name of the table in messages.
        inputs: Input columns of a trained model, used if the table has them.

    Raises:
        ValueError: If there is no input, a named column is missing, or the target cannot be inferred.
    """
    for column in (*label_columns(config.label, fields), config.group, config.split_column):
        if column is not None:
            known_column(column, fields, name)
    named = config.columns
    if inputs is None or not all(c in fields for part in inputs.values() for c in part.all_columns):
        if named:
            named = _expand_names(fields, named, config)
        parts = _named_inputs(fields, named, name) if named else _found_inputs(fields, config, name)
        inputs = _fitting(_by_name(parts), inputs, name)
    columns = [column for part in inputs.values() for column in part.all_columns]
    about = tuple(dict.fromkeys(c for c in (config.group, config.split_column) if c is not None))
    targets = target_columns(fields, config, columns, name)
    used = {*columns, *about, *targets}
    ignored = tuple(column for column in fields if column not in used)
    notes = _notes(fields, inputs, tuple(targets), ignored)
    tasks = targets if len(targets) > 1 or any(targets.values()) else {}
    return ColumnSelection(dict(inputs), ",".join(targets) or None, about, ignored, notes, tasks)


def check_paths(table: Table, columns: Sequence[str]) -> None:
    """Check that some of the files of each column of paths exist.

    Raises:
        FileNotFoundError: If none does, mostly because paths are relative to another folder.
    """
    for column in columns:
        if not table.fields[column].by_path:
            continue
        filled = [str(cell) for cell in table.column(column) if cell is not None]
        few = filled[:: max(1, len(filled) // _PATHS)]
        if few and not any((table.folder / Path(one).expanduser()).exists() for one in few):
            first = few[0]
            raise FileNotFoundError(
                f"Column '{column}' of {table.name} names files, but the first, '{first}', is not there: looked for "
                f"'{table.folder / str(first)}'. Paths are relative to the folder of the table, or absolute."
            )


def _named_inputs(
    fields: Mapping[str, Field], named: Mapping[str, str], name: str
) -> list[InputColumn]:
    """Return the configured inputs."""
    found: list[InputColumn] = []
    table: dict[str, str] = {}
    lists: list[str] = []
    frames: list[str] = []
    for column, kind in named.items():
        field = known_column(column, fields, name)
        _check_kind(column, field, kind, name)
        is_list = field.kind == "array" and not field.by_path and len(field.shape) < 2
        if kind in {"number", "category"}:
            table[column] = kind
        elif kind == "frame":
            frames.append(column)
        elif kind == "film":
            found += [InputColumn(column, "video"), InputColumn(column, "audio")]
        elif kind == "series" and is_list:
            lists.append(column)
        else:
            found.append(InputColumn(column, kind))
    found += _series(lists)
    if table:
        found.append(InputColumn(next(iter(table)), "table", tuple(table), tuple(table.values())))
    return [*found, *_frame_pair(frames, name)] if frames else found


def _check_kind(column: str, field: Field, kind: str, name: str) -> None:
    if kind not in column_kinds():
        raise ValueError(
            f"Column '{column}' has the unknown kind '{kind}': expected one of {', '.join(column_kinds())}."
        )
    is_spelled = kind == "number" and field.kind in {"string", "text"} and field.number is not None
    if not is_spelled and not can_read_as(field.kind, kind):
        raise ValueError(
            f"Column '{column}' of {name} cannot be read as {noun_of(kind)}: it holds {noun_of(field.kind)}."
        )


def _free_columns(fields: Mapping[str, Field], config: DataConfig) -> dict[str, Field]:
    """Return the columns that are neither labels nor divide the rows."""
    labels = label_columns(config.label, fields) or {"label": ""}
    taken = {*labels, config.group, config.split_column}
    return {c: f for c, f in fields.items() if c not in taken}


def _expand_names(
    fields: Mapping[str, Field], named: Mapping[str, str], config: DataConfig
) -> dict[str, str]:
    """Return the configured columns with `*` replaced by all others that are no labels, and inferred kinds.

    A name with a comma in it was cut there, and is joined again.
    """
    found: dict[str, str] = {}
    cut = ""  # beginning of a name up to a comma
    for part, kind in named.items():
        whole = next(
            (c for mark in (",", ", ") if cut and (c := f"{cut}{mark}{part}") in fields), ""
        )
        column = whole or (f"{cut},{part}" if cut else part)
        if column not in fields and column != _ALL and kind == _AUTO and len(named) > 1:
            cut = column
        else:
            found[column], cut = kind, ""
    if cut:
        found[cut] = _AUTO
    rest = found.pop(_ALL, None)
    if rest is not None:
        free = {c: f for c, f in _free_columns(fields, config).items() if c not in found}
        found |= {c: rest for c in free if rest != _AUTO or _inferred_kind(free[c])}
    return {
        c: (_inferred_kind(fields[c]) or "text") if kind == _AUTO and c in fields else kind
        for c, kind in found.items()
    }


def _inferred_kind(field: Field) -> str | None:
    """Return the kind as which a column is read, None if it numbers or names the rows."""
    if field.kind == "number":
        return None if field.statistics.is_counter else "number"
    if field.kind == "string":
        if field.statistics.are_sentences:
            return "text"
        return "category" if field.statistics.few_values else None
    if field.kind == "array":
        return "series" if len(field.shape) == 1 else "array"
    return field.kind if field.kind in media_kinds() else None


def _by_name(parts: Sequence[InputColumn]) -> dict[str, InputColumn]:
    """Return the inputs by the name of their modality: the kind of the only one of a kind, else from the column.

    Names are identifiers, since they are parts of names of weights, flags and fields.
    """
    kinds = [part.kind for part in parts]
    found: dict[str, InputColumn] = {}
    for part in parts:
        name = part.kind if kinds.count(part.kind) == 1 else identifier(part.column)
        stem, number = name, 2
        while name in found:
            name, number = f"{stem}_{number}", number + 1
        found[name] = part
    return found


def identifier(column: str) -> str:
    """Return an identifier for a column of any name, such as `Front_view` for `Front view`."""
    name = re.sub(r"\W+", "_", column).strip("_") or "column"
    name = f"column_{name}" if name[0].isdigit() else name
    # A module cannot have a part that is called like one of its attributes.
    return f"{name}_" if keyword.iskeyword(name) or hasattr(_MODULES, name) else name


_MODULES = torch.nn.ModuleDict()
_ALL, _AUTO = "*", "auto"


def _found_inputs(fields: Mapping[str, Field], config: DataConfig, name: str) -> list[InputColumn]:
    """Infer the inputs: files and text by kind, lists of numbers together as one series.

    If nothing else can be an input, short texts are text, and numbers and categories beside a known label are a table.
    """
    free = _free_columns(fields, config)
    # Beside a column of encoded files, paths only name their origin.
    encoded = {field.kind for field in free.values() if not field.by_path}
    found: list[InputColumn] = []
    lists: list[str] = []
    for column, held in free.items():
        if held.kind not in media_kinds() or (held.by_path and held.kind in encoded):
            continue
        if held.kind == "array" and not held.by_path:
            kind = _kind_of_array(column, held)
            if kind == "series":
                lists.append(column)
            elif kind:
                found.append(InputColumn(column, kind))
        else:
            found.append(InputColumn(column, held.kind))
    found += _series(lists)
    if found:
        return _merge_frames(found, name)
    texts = _short_texts(free)
    if texts:
        return [InputColumn(column, "text") for column in texts]
    table = {c: k for c, f in free.items() if (k := _inferred_kind(f)) in _TABLE_KINDS}
    if table and (config.label is not None or "label" in fields or config.target == "nothing"):
        return [InputColumn(next(iter(table)), "table", tuple(table), tuple(table.values()))]
    if table:
        likely = next(reversed(free))
        raise ValueError(
            f"{name} holds numbers and categories only, and has no column 'label'. Name the column to learn with "
            f"--label, such as --label {likely}; the others are then its inputs. Its columns are {', '.join(fields)}."
        )
    seen = (
        "; ".join(f"'{c}' holds {noun_of(f.kind)}" for c, f in fields.items())
        or "there is no column at all"
    )
    advice = " If a column does hold such, name it with --columns COLUMN:KIND."
    raise ValueError(
        f"{name} has no column of images, audio, video, points, text, series or arrays: {seen}. Expected encoded "
        f"files (PNG, WAV, MP4, OFF, ...), paths of files with such a suffix, texts or lists of numbers.{advice}"
    )


_TABLE_KINDS = ("number", "category")


def _short_texts(free: Mapping[str, Field]) -> list[str]:
    """Return the columns of short strings that are texts: sentences, or all that could be an input."""
    strings = {c: f for c, f in free.items() if f.kind == "string"}
    sentences = [c for c, f in strings.items() if f.statistics.are_sentences]
    has_table = len(strings) > 1 and any(f.statistics.few_values for f in strings.values())
    has_numbers = any(f.kind == "number" and not f.statistics.is_counter for f in free.values())
    return sentences or ([] if has_table or has_numbers else list(strings))


def _kind_of_array(column: str, field: Field) -> str | None:
    """Return the modality of a column of arrays, None if they are not numeric."""
    if len(field.shape) == 1:
        return "series"
    if len(field.shape) == 2:
        named = (one.name for one in list_modalities() if one.holds_array(column, field.shape))
        return next(named, "array")
    return "array" if field.shape else None


def _fitting(
    found: dict[str, InputColumn], wanted: Mapping[str, InputColumn] | None, name: str
) -> dict[str, InputColumn]:
    """Return the inputs of a trained model among those found, matched by kind."""
    if wanted is None:
        return found
    by_kind = {part.kind: part for part in found.values()}
    if "video" in by_kind and "audio" not in by_kind:
        by_kind["audio"] = InputColumn(by_kind["video"].column, "audio")
    fitting = {key: by_kind[part.kind] for key, part in wanted.items() if part.kind in by_kind}
    if not fitting:
        words = ", ".join(f"{key} ({noun_of(part.kind)})" for key, part in wanted.items())
        seen = ", ".join(_described(part, name) for name, part in found.items())
        raise ValueError(
            f"The model reads {words}, and {name} holds {seen}. Name the columns with --columns."
        )
    return fitting


def _notes(
    fields: Mapping[str, Field],
    inputs: Mapping[str, InputColumn],
    targets: Sequence[str],
    ignored: Sequence[str],
) -> tuple[str, ...]:
    notes = [f"Inputs: {', '.join(_described(part, name) for name, part in inputs.items())}."]
    short = [
        p.column for p in inputs.values() if p.kind == "text" and fields[p.column].kind == "string"
    ]
    if short:
        notes.append(f"Short texts are read as text: {', '.join(short)}.")
    if targets or all(part.kind != "flow" for part in inputs.values()):
        several = f"Targets: {', '.join(targets)}, a task each."
        one = f"Target: {targets[0]}." if targets else "There are no labels."
        notes.append(several if len(targets) > 1 else one)
    media = [c for c in ignored if fields[c].kind in media_kinds()]
    if media:
        seen = ", ".join(f"{c} ({noun_of(fields[c].kind)})" for c in media)
        notes.append(f"Not read: {seen}.")
    rest = [c for c in ignored if c not in media]
    counters = [c for c in rest if fields[c].statistics.is_counter]
    if counters:
        notes.append(f"Ignored, as they number the rows: {', '.join(counters)}.")
        rest = [c for c in rest if c not in counters]
    empty = [c for c in rest if fields[c].statistics.distinct == 0]
    if empty and any(fields[c].statistics.filled for c in fields):
        notes.append(f"Ignored, as they are empty: {', '.join(empty)}.")
        rest = [c for c in rest if c not in empty]
    if rest:
        notes.append(
            f"Ignored, as they describe rows and may give the answer away: {', '.join(rest)} "
            "(--columns '*' reads them too)."
        )
    used = [c for part in inputs.values() for c in part.all_columns] + list(targets)
    notes += [note for c in dict.fromkeys(used) for note in fields[c].statistics.notes]
    kinds = {**{c: fields[c].kind for c in targets}, **input_kinds(inputs)}
    return (*notes, *_spellings({c: fields[c] for c, kind in kinds.items() if kind == "number"}))


def _spellings(fields: Mapping[str, Field]) -> Iterator[str]:
    """Yield a sentence for each unusual spelling of numbers."""
    columns: dict[NumberFormat, list[str]] = {}
    for column, known in fields.items():
        if known.number is not None and not known.number.is_usual:
            columns.setdefault(known.number, []).append(column)
    for spelling, names in columns.items():
        example = fields[names[0]].statistics.example
        with suppress(ValueError):  # an example in another spelling
            yield f"Numbers are read as '{example}' = {spelling.parse(example)}: {', '.join(names)}."


def _described(part: InputColumn, name: str) -> str:
    """Describe an input: `photo (images, named image)`, `x, y, z (series, 3 channels)`, or `text` of this name."""
    columns = names_text(part.all_columns, shown=_SHOWN)
    channels = (
        f", {counted(len(part.columns), 'channel')}"
        if part.kind == "series" and part.columns
        else ""
    )
    is_plain = part.columns or name in {part.column, noun_of(part.kind)}
    named = "" if is_plain else f", named {name}"
    about = f"{noun_of(part.kind)}{channels}{named}"
    return columns if columns == about else f"{columns} ({about})"
