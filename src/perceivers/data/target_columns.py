"""Which columns are targets: the label, or several of them, each a task of its own."""

from collections.abc import Container, Mapping, Sequence

from perceivers.data.base import DataConfig, nearest
from perceivers.data.media import WORDS
from perceivers.data.tables import Field

__all__ = ["known_column", "label_columns", "target_columns"]

_KINDS = ("class", "labels", "number")


def label_columns(label: str | None, known: Container[str]) -> dict[str, str]:
    """Return the columns that `DataConfig.label` names, each with what it is said to hold, "" if nothing.

    `digit,color` names two, `digit,age:number` says what the second holds. A column that is called like the whole
    text is that column.

    Args:
        label: The text. None: no column is named.
        known: The columns that there are.

    Raises:
        ValueError: If a name is empty or comes twice, or what a column is said to hold is no target.
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
            if kind not in _KINDS:
                msg = (
                    f"Label '{column}' is said to be '{kind}': expected one of {', '.join(_KINDS)}."
                )
                raise ValueError(msg)
        if not column or column in found:
            reason = f"'{column}' comes twice" if column else "a name is empty"
            msg = (
                f"Expected different columns as labels, COLUMN,COLUMN,..., got '{label}': {reason}."
            )
            raise ValueError(msg)
        found[column] = kind
    return found


def known_column(column: str, fields: Mapping[str, Field], name: str) -> Field:
    """Return what a column holds.

    Raises:
        ValueError: If there is no such column. The message suggests the nearest.
    """
    if column not in fields:
        msg = f"{name} has no column '{column}'.{nearest(column, fields)} Its columns are {', '.join(fields)}."
        raise ValueError(msg)
    return fields[column]


def target_columns(
    fields: Mapping[str, Field], config: DataConfig, inputs: Sequence[str], name: str
) -> dict[str, str]:
    """Return the target columns, each with what it is said to hold, "" if nothing. None: there are no labels.

    Args:
        fields: What the columns hold.
        config: What the user said about them.
        inputs: Columns that are inputs.
        name: The data, in messages.

    Raises:
        ValueError: If a target is an input or holds nothing of the kind, or which column it is cannot be told.
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
            msg = f"Column '{target}' of {name} cannot be both the label and an input."
            raise ValueError(msg)
        if kind not in {"number", "string", "other", "text", "array"}:
            msg = (
                f"Column '{target}' of {name} holds {WORDS[kind]}, not classes: expected names, whole "
                "numbers, lists of them, or quantities."
            )
            raise ValueError(msg)
    if targets:
        return targets
    taken = {*inputs, config.group, config.split_column}
    candidates = [c for c, f in fields.items() if f.kind in {"number", "string"} and c not in taken]
    if not candidates:
        return {}
    msg = (
        f"{name} has no column 'label', so the target cannot be told. Say which column it is, with --label: "
        f"{', '.join(candidates)}."
    )
    raise ValueError(msg)
