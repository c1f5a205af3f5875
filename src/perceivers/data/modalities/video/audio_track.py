"""Whether the sound of films is read with them: where all of them have a sound track, and never where some have."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.tables.columns import ColumnSelection, InputColumn


def with_sound(choice: ColumnSelection, rows: Iterable[Mapping[str, Any]]) -> ColumnSelection:
    """Return the choice of columns, with the sound of its films as a further modality where all have it.

    Whether a film has sound may give its class away (in some collections, only some classes have), so that sound
    which is not everywhere is read only on request.

    Args:
        choice: Columns that were found, not named.
        rows: A few rows of train, with their films.
    """
    films = [part for part in choice.inputs.values() if part.kind == "video"]
    if len(films) != 1 or "audio" in choice.inputs:
        return choice
    column = films[0].column
    sounding = [has for row in rows if (has := _has_sound(row[column])) is not None]
    if not any(sounding):
        return choice
    if all(sounding):
        inputs = {**choice.inputs, "audio": InputColumn(column, "audio")}
        note = "All films looked at have sound, which is read with them."
    else:
        inputs = choice.inputs
        note = (
            f"Of {len(sounding)} films looked at, {sum(sounding)} have sound. It is not read, as having sound may give "
            f"the class away; --columns {column}:film reads it all the same."
        )
    return replace(choice, inputs=inputs, notes=(*choice.notes, note))


def _has_sound(media: EncodedItem) -> bool | None:
    """Return whether a film has a sound track; None if it cannot be read."""
    from perceivers.data.modalities.video.decode import read_video_header

    try:
        return read_video_header(media).has_sound
    except (ValueError, OSError):
        return None
