"""Where one modality lies in a table: a column, or several that belong together."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["InputColumn", "frame_pair", "with_pairs"]


@dataclass(frozen=True)
class InputColumn:
    """Where one modality lies in the data.

    Attributes:
        column: Name of the column, the first if there are several.
        kind: The modality: `image`, `audio`, `video`, `points`, `text`, `series`, `array`, `table`, `frame_pair` or
            `flow`.
        columns: All columns, where the modality lies in several side by side: the channels of a series, the fields
            of a table. Empty where it lies in one.
        kinds: For each of `columns`, what it holds.
    """

    column: str
    kind: str
    columns: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()

    @property
    def all_columns(self) -> tuple[str, ...]:
        """Every column that is read for it."""
        return self.columns or (self.column,)


def frame_pair(frames: Sequence[str], name: str) -> list[InputColumn]:
    """Return two columns of pictures as pairs of frames, the first and the second.

    Args:
        frames: The columns.
        name: The data, in messages.

    Raises:
        ValueError: If there are not two.
    """
    if len(frames) != 2:
        msg = (
            f"Expected two columns of frames in {name}, the first and the second: --columns one:frame,two:frame; got "
            f"{', '.join(frames)}."
        )
        raise ValueError(msg)
    return [InputColumn(frames[0], "frame_pair", tuple(frames), ("image", "image"))]


def with_pairs(found: Sequence[InputColumn]) -> list[InputColumn]:
    """Return what was found; beside a flow, two columns of pictures are the frames between which it leads.

    Args:
        found: The inputs of a table, in the order of its columns.
    """
    pictures = [part.column for part in found if part.kind == "image"]
    if len(pictures) != 2 or all(part.kind != "flow" for part in found):
        return list(found)
    rest = [part for part in found if part.kind != "image"]
    return [*frame_pair(pictures, "the data"), *rest]
