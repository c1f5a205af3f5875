"""Pairs of frames among what a predictor is given: two files in a row, or a folder in a known layout."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from perceivers.data.encoded_item import as_encoded_item, kind_of_name
from perceivers.data.sources.flow_datasets import list_frame_pairs
from perceivers.data.tables.columns import InputColumn

__all__ = ["in_pairs", "pair_row", "reads_pairs"]


def reads_pairs(columns: Mapping[str, InputColumn]) -> bool:
    """Tell whether a model reads pairs of frames and nothing else.

    Args:
        columns: For each modality of the model, where it lies in the data that it learned from.
    """
    return [part.kind for part in columns.values()] == ["frame_pair"]


def in_pairs(items: Sequence[Any]) -> list[Any]:
    """Return items with every two files of pictures as one, and folders as the pairs in them.

    Args:
        items: Paths, and whatever else.

    Raises:
        ValueError: If a picture is left without a second, or a folder holds no pairs.
    """
    found: list[Any] = []
    waiting: Any = None
    for item in items:
        if isinstance(item, str | Path) and Path(item).is_dir():
            pairs = [(pair.first, pair.second) for pair in list_frame_pairs(Path(item))]
            if not pairs:
                msg = (
                    f"Expected pairs of frames in the folder '{item}', laid out as FlyingChairs (1_img1.ppm, "
                    "1_img2.ppm), Sintel or KITTI; found none. Give two files instead."
                )
                raise ValueError(msg)
            found += pairs
        elif not _is_picture(item):
            found.append(item)
        elif waiting is None:
            waiting = item
        else:
            found.append((waiting, item))
            waiting = None
    if waiting is not None:
        msg = (
            f"Expected two frames, the first and the second: '{_name(waiting)}' has no second one."
        )
        raise ValueError(msg)
    return found


def pair_row(item: Any, column: InputColumn, name: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the cells of a pair.

    Args:
        item: Two files, pictures or arrays; or one array of both.
        column: Where pairs lay in the data that the model learned from.
        name: Of the pair, where its first frame is no file.

    Raises:
        TypeError: If it is no pair.
    """
    if isinstance(item, str | Path) or not hasattr(item, "__len__") or len(item) != 2:
        msg = (
            "This model reads pairs of frames: give two files, the first and the second, a folder of pairs, an array "
            f"of 2 x height x width x 3, or a table with the columns {', '.join(column.columns)}; got '{name}'."
        )
        raise TypeError(msg)
    frames = cast("Sequence[Any]", item)
    cells = {
        key: as_encoded_item(frame, f"frame {number} of {name}", Path())
        for number, (key, frame) in enumerate(zip(column.columns, frames, strict=True), 1)
    }
    paths = [str(cell.path) for cell in cells.values() if cell.path is not None]
    return " -> ".join(paths) or name, cells


def _is_picture(item: Any) -> bool:
    """Tell whether an item is one frame."""
    if isinstance(item, str | Path):
        return kind_of_name(str(item)) == "image" and "=" not in str(item)
    return hasattr(item, "getexif") or getattr(item, "ndim", 0) in {2, 3}


def _name(item: Any) -> str:
    return str(item) if isinstance(item, str | Path) else type(item).__name__
