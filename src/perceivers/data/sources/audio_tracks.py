"""Audio tracks of videos as inputs of their own."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.video.decode import read_video_header
from perceivers.data.tables.columns import ColumnSelection, InputColumn


def with_audio_tracks(
    choice: ColumnSelection, rows: Iterable[Mapping[str, Any]]
) -> ColumnSelection:
    """Add the audio track of a video column as an input, if all videos have one.

    In some data sets only some classes have audio, so an audio track that is missing in some videos could reveal the
    class, and is read only on request.

    Args:
        choice: Inferred columns.
        rows: A few rows of train.
    """
    videos = [part for part in choice.inputs.values() if part.kind == "video"]
    if len(videos) != 1 or "audio" in choice.inputs:
        return choice
    column = videos[0].column
    with_audio = [has for row in rows if (has := _has_audio(row[column])) is not None]
    if not any(with_audio):
        return choice
    if all(with_audio):
        inputs = {**choice.inputs, "audio": InputColumn(column, "audio")}
        note = "All videos examined have an audio track, which is read with them."
    else:
        inputs = choice.inputs
        note = (
            f"Of {len(with_audio)} videos examined, {sum(with_audio)} have an audio track. It is not read, as having "
            f"one may give the class away; --columns {column}:film reads it all the same."
        )
    return replace(choice, inputs=inputs, notes=(*choice.notes, note))


def _has_audio(item: EncodedItem) -> bool | None:
    """Return True if a video has an audio track, None if it cannot be read."""
    try:
        return read_video_header(item).has_audio
    except (ValueError, OSError):
        return None
