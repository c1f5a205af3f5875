"""A decoded and preprocessed sample with the tensors of the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.loading.sampler import LoaderSettings
from perceivers.data.loading.transform import (
    BadRowError,
    Sample,
    SampleRng,
    SampleTransform,
)
from perceivers.data.sources.samples import one_sample
from perceivers.hub.checkpoint import Saved
from perceivers.typing import Tensor


@dataclass(frozen=True, kw_only=True)
class ReadSample:
    """A decoded and preprocessed sample.

    Attributes:
        name: Names of its files, or of its modalities.
        values: Decoded value of each present modality, before preprocessing.
        inputs: Tensor of each, with a batch axis of 1.
        masks: Where the second axis of a tensor is real, for those that were padded.
        missing: Modalities that are missing.
    """

    name: str
    values: dict[str, Any]
    inputs: dict[str, Tensor]
    masks: dict[str, Tensor]
    missing: tuple[str, ...]

    def to(self, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return inputs and masks on a device."""
        return (
            {name: x.to(device) for name, x in self.inputs.items()},
            {name: x.to(device) for name, x in self.masks.items()},
        )


def read_sample(saved: Saved, file: Any, *, clip_position: float = 0.5) -> ReadSample:
    """Return one sample, decoded and preprocessed.

    Args:
        saved: Result of `perceivers.hub.checkpoint.load`.
        file: As in `perceivers.data.sources.samples.one_sample`. A `ReadSample` is returned as it is.
        clip_position: Position of the clip in a longer sample: 0 at its beginning, 1 at its end.

    Raises:
        ValueError: If the sample cannot be decoded, is empty, or it is ambiguous which modality it is. The message
            names the file and the reason.
    """
    if isinstance(file, ReadSample):
        return file
    columns = saved.config.input_columns()
    given = one_sample(file, columns)
    row = given.row
    reader = SampleTransform(columns, saved.config.preprocess, None, LoaderSettings(batch_size=1))
    try:
        values, _, _ = reader.decode(row, clip_position=clip_position)
        present = [modality for modality, value in values.items() if value is not None]
        name = given.name if given is file else _name_of(row, present)
        clips = reader.clips(values, SampleRng(clip_position), name)
    except BadRowError as error:
        raise ValueError(error.reason) from error
    return collate_sample(reader, Sample(clips, None, name), values)


def collate_sample(
    transform: SampleTransform, sample: Sample, values: Mapping[str, Any]
) -> ReadSample:
    """Return a preprocessed sample as tensors. Of the decoded values, those of missing modalities are None."""
    batch = transform.collate([sample])
    assert batch is not None  # nothing is mixed
    present = [modality for modality, value in values.items() if value is not None]
    return ReadSample(
        name=sample.name,
        values={modality: values[modality] for modality in present},
        inputs={modality: batch.inputs[modality] for modality in present},
        masks={modality: batch.masks[modality] for modality in present if modality in batch.masks},
        missing=tuple(modality for modality in values if modality not in present),
    )


def _name_of(row: Mapping[str, Any], modalities: Sequence[str]) -> str:
    """Return the names of a sample's files, or of its modalities."""
    items = [cell for cell in row.values() if isinstance(cell, EncodedItem)]
    paths = dict.fromkeys(item.path.name for item in items if item.path is not None)
    return " + ".join(paths) or " + ".join(modalities)
