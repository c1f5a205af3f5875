"""One sample as the model reads it: from a file, an array, a text, or one of these for each modality."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from perceivers.data.base import Row, nearest
from perceivers.data.encoded_item import EncodedItem, as_encoded_item
from perceivers.data.loading.sampler import LoaderSettings
from perceivers.data.loading.transform import (
    BadRowError,
    Sample,
    SampleRng,
    SampleTransform,
    cell_key,
)
from perceivers.data.tables.columns import InputColumn
from perceivers.hub.checkpoint import Saved
from perceivers.typing import Tensor

_AUDIO = {"wave": "audio", "mel": "audio"}


@dataclass(frozen=True, kw_only=True)
class ReadSample:
    """One sample, decoded and prepared.

    Attributes:
        name: The name of its file, or files.
        values: What was decoded of each modality that is there, before it was cut to size.
        inputs: The model's tensor of each, with a batch axis of 1.
        masks: Where the second axis of a tensor is real, for those that were padded.
        missing: Modalities that are not there.
    """

    name: str
    values: dict[str, Any]
    inputs: dict[str, Tensor]
    masks: dict[str, Tensor]
    missing: tuple[str, ...]


def read_sample(saved: Saved, file: Any, *, clip_position: float = 0.5) -> ReadSample:
    """Return one sample as the model reads it.

    Args:
        saved: What `perceivers.hub.checkpoint.load` returned.
        file: A path, a PIL image, an array or a text, of a model of one modality or of films with their sound; a
            dict with one of these for each modality, where what is missing may be left out; or a `Row`. A sample that
            is read already stays as it is.
        clip_position: Where the clip lies in a longer recording: 0 at its beginning, 1 at its end.

    Raises:
        ValueError: If something cannot be decoded, nothing is there, or the file does not say of which modality it
            is. The message names the file and the reason.
    """
    if isinstance(file, ReadSample):
        return file
    columns = saved.config.input_columns()
    if isinstance(file, Row) and not isinstance(file, Path):
        name, row = file.name, file.row
    elif isinstance(file, Mapping):
        name, row = _from_dict(cast("Mapping[str, Any]", file), columns)
    else:
        name, row = _from_one(file, columns)
    reader = SampleTransform(columns, saved.config.preprocess, None, LoaderSettings(batch_size=1))
    try:
        values, _, _ = reader.decode(row, clip_position=clip_position)
        clips = reader.clips(values, SampleRng(clip_position), name)
    except BadRowError as error:
        raise ValueError(error.reason) from error
    batch = reader.collate([Sample(clips, None, name)])
    assert batch is not None  # nothing is mixed
    there = [modality for modality, value in values.items() if value is not None]
    return ReadSample(
        name=name,
        values={modality: values[modality] for modality in there},
        inputs={modality: batch.inputs[modality] for modality in there},
        masks={modality: batch.masks[modality] for modality in there if modality in batch.masks},
        missing=tuple(modality for modality in values if modality not in there),
    )


def _from_one(file: Any, columns: Mapping[str, InputColumn]) -> tuple[str, dict[str, Any]]:
    """Return name and cells of a sample that is one file: of the only modality, or a film with its sound."""
    if len({part.all_columns for part in columns.values()}) > 1:
        example = ",".join(f"{name}=..." for name in columns)
        raise ValueError(
            f"This model reads {', '.join(columns)} together, so one file does not say what it is: give a dict with "
            f"one of each, or {example} on the command line. What is missing may be left out."
        )
    modality, part = next(iter(columns.items()))
    if part.columns:
        raise ValueError(
            f"This model reads the columns {', '.join(part.columns)} together: give a table that has them (parquet, "
            "csv, jsonl), or a dict with one of each."
        )
    where = {"image": "picture"}.get(part.kind, modality)
    media = as_encoded_item(
        file, f"the {where}", Path(), kind=part.kind, by_path=isinstance(file, Path)
    )
    name = media.path.name if media.path is not None else where
    return name, {part.column: media}


def _from_dict(
    file: Mapping[str, Any], columns: Mapping[str, InputColumn]
) -> tuple[str, dict[str, Any]]:
    """Return name and cells of a sample of which each modality, or each column, is given by its name."""
    known = dict.fromkeys([*columns, *(c for part in columns.values() for c in part.all_columns)])
    unknown = [key for key in file if key not in known]
    if unknown or not file:
        got = f"'{unknown[0]}'.{nearest(unknown[0], known)}" if unknown else "none."
        raise ValueError(f"Expected a dict with some of {', '.join(known)}; got {got}")
    row: dict[str, Any] = {}
    for modality, part in columns.items():
        whole = file.get(modality)
        inside = cast("Mapping[str, Any]", whole) if isinstance(whole, Mapping) else file
        if part.columns:
            row |= {column: inside.get(column) for column in part.columns}
            continue
        cell = whole
        if whole is None and (part.column == modality or part.column not in columns):
            cell = file.get(part.column)
        row[cell_key(modality, part, columns)] = as_encoded_item(
            cell, f"the {modality}", Path(), kind=part.kind, by_path=isinstance(cell, Path)
        )
    media = [cell for cell in row.values() if isinstance(cell, EncodedItem)]
    paths = dict.fromkeys(cell.path.name for cell in media if cell.path is not None)
    there = [modality for modality in columns if file.get(modality) is not None]
    return " + ".join(paths) or " + ".join(there) or "sample", row
