"""Plans become batches: the rows of a split are read by index, and what they decode to is kept. Runs in the workers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from perceivers.data.base import Records
from perceivers.data.loading.image_cache import PictureCache
from perceivers.data.loading.sample_cache import DecodedCache
from perceivers.data.loading.sampler import Plan
from perceivers.data.loading.transform import BadRowError, Chances, Read, Reader, Sample, guarded
from perceivers.data.modalities.base import TooLongError
from perceivers.data.modalities.image.decode import quiet_pillow
from perceivers.data.modalities.image.modality import Pictures, as_image
from perceivers.data.modalities.image.preprocess import as_pixels

__all__ = ["RecordsReader"]


class RecordsReader(torch.utils.data.Dataset[Read]):
    """Reads plans from a split. `DataLoader` sees each plan as an index and each batch as an item.

    Args:
        records: The split.
        targets: Class index, or vector, of each row. None: not known.
        reader: What is done with a row.
        pictures: Keeps small decoded pictures, where they are the one input. Its samples are named by their row.
        kept: Keeps decoded values of every other kind.
    """

    def __init__(
        self,
        records: Records,
        targets: Sequence[Any] | None,
        reader: Reader,
        pictures: PictureCache | None = None,
        kept: DecodedCache | None = None,
    ) -> None:
        self.records = records
        self.targets = None if targets is None else np.asarray(targets)
        self.reader = reader
        self.pictures = pictures
        self.kept = kept

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.records)

    def __getitem__(self, plan: Plan) -> Read:
        """Return the batch of a plan, with what went wrong."""
        return guarded(lambda: self._read(plan))

    def _read(self, plan: Plan) -> Read:
        samples: list[Sample] = []
        bad: list[tuple[str, str]] = []
        notes: Counter[str] = Counter()
        first_partner = len(plan.rows) // 2 if self.reader.mixing else len(plan.rows)
        rows = plan.rows.tolist()
        keys = [(plan.epoch, row, int(place >= first_partner)) for place, row in enumerate(rows)]
        with quiet_pillow:
            for index, chances in zip(rows, self.reader.chances(keys), strict=True):
                target = None if self.targets is None else self.targets[index]
                try:
                    samples.append(self._sample(index, chances, target, notes))
                except BadRowError as error:
                    bad.append((error.name, error.reason))
        if plan.epoch:
            notes.clear()  # each row was counted in the first epoch
        batch = self.reader.collate(samples, (plan.epoch, plan.number, self.reader.settings.rank))
        return Read(batch=batch, num_rows=len(plan.rows), bad=tuple(bad), notes=dict(notes))

    def _sample(self, index: int, chances: Chances, target: Any, notes: Counter[str]) -> Sample:
        """Return one row, from what is kept of it if it is."""
        if self.pictures is None and self.kept is None:
            sample, told = self.reader.sample(self._row(index), chances, target)
            notes.update(told)
            return sample
        name = f"row {index}"
        values = self._kept(index)
        if values is None:
            try:
                values, name, told = self.reader.decode(self._row(index))
            except TooLongError:  # nothing of it is kept
                sample, told = self.reader.sample(self._row(index), chances, target)
                notes.update(told)
                return sample
            notes.update(told)
            self._keep(index, values)
        return Sample(self.reader.clips(values, chances, name), target, name)

    def _keep(self, index: int, values: Mapping[str, Any]) -> None:
        if self.pictures is not None:
            self.pictures.put(index, as_pixels(next(iter(values.values()))))
        elif self.kept is not None:
            for modality, value in values.items():
                if value is not None:
                    is_picture = isinstance(value, Image.Image)
                    self.kept.put(f"{index}-{modality}", as_pixels(value) if is_picture else value)
            self.kept.put(f"{index}", np.array([value is not None for value in values.values()]))

    def _kept(self, index: int) -> dict[str, Any] | None:
        """Return the values of a row if all of them are kept: which there are is kept with them."""
        if self.pictures is not None:
            pixels = self.pictures.get(index)
            return None if pixels is None else {next(iter(self.reader.columns)): as_image(pixels)}
        assert self.kept is not None
        there = self.kept.get(f"{index}")
        if there is None or len(there) != len(self.reader.columns):
            return None
        values: dict[str, Any] = {}
        for modality, is_there in zip(self.reader.columns, there, strict=True):
            value: Any = self.kept.get(f"{index}-{modality}") if is_there else None
            if is_there and value is None:
                return None
            is_picture = is_there and isinstance(self.reader.modalities[modality], Pictures)
            values[modality] = as_image(value) if is_picture else value
        return values

    def _row(self, index: int) -> Mapping[str, Any]:
        try:
            return self.records.row(index)
        except (OSError, ValueError) as error:
            raise BadRowError(f"row {index}", f"Row {index}: {error}") from error
