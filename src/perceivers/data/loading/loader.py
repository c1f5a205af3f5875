"""Batches of a split, in this process or from workers: the same for the same seed, resumable at any batch."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from perceivers.data.base import Batch, MapStyleSplit
from perceivers.data.encoded_item import kind_of_name
from perceivers.data.loading.errors import BadRowTracker
from perceivers.data.loading.image_cache import ImageCache, open_image_cache
from perceivers.data.loading.sample_cache import SampleCache, open_cache
from perceivers.data.loading.sampler import BatchPlan, BatchSampler, LoaderSettings
from perceivers.data.loading.transform import (
    BadRowError,
    Sample,
    SampleRng,
    SampleTransform,
    WorkerResult,
    guarded,
)
from perceivers.data.loading.workers import (
    FORKS,
    divide_cores,
    iterate,
    start_workers,
    stop_prefetching,
)
from perceivers.data.modalities.base import TooLongError
from perceivers.data.modalities.image.decode import quiet_pillow
from perceivers.data.modalities.image.modality import Pictures, as_image
from perceivers.data.modalities.image.preprocess import as_pixels
from perceivers.data.tables.columns import InputColumn

__all__ = ["Loader", "LoaderSettings", "MapDataset", "divide_cores", "make_loader"]


def make_loader(
    records: MapStyleSplit,
    inputs: Mapping[str, InputColumn],
    targets: Sequence[Any] | None,
    *,
    preprocess: Mapping[str, Any],
    augment: Mapping[str, Any] | None,
    settings: LoaderSettings,
) -> "Loader":
    """Return a split as batches.

    In training the order follows from (seed, epoch), the augmentation of a row from (seed, epoch, index) and
    the mixing of a batch from (seed, epoch, number), so that they are the same for any number of workers.
    Mixing reads two rows for each sample; an epoch then sees every row twice.

    Args:
        records: The split.
        inputs: For each input of the model, its column.
        targets: Class index, or vector, of each row. None: not known.
        preprocess: For each input, its size and statistics.
        augment: For each input, what is random. Used in training only.
        settings: Batch size, seed, workers, ranks.

    Raises:
        ValueError: If the split has no rows, or fewer than there are ranks in training.
    """
    fewest = settings.world_size if settings.training else 1
    if len(records) < fewest:
        msg = (
            f"Expected a split of at least {fewest} rows, one for each device, got {len(records)}."
        )
        raise ValueError(msg)
    reader = SampleTransform(inputs, preprocess, augment, settings)
    lengths = _lengths(records, inputs) if settings.training else None
    order = BatchSampler(
        len(records), settings, in_pairs=reader.mixing is not None, lengths=lengths
    )
    pictures, kept = _caches(records, reader, preprocess)
    return Loader(MapDataset(records, targets, reader, pictures, kept), order)


def _lengths(records: MapStyleSplit, inputs: Mapping[str, InputColumn]) -> list[int] | None:
    """Return the length of each row's text, where a text lies in the table; None where all are alike."""
    texts = [part.column for part in inputs.values() if part.kind == "text"]
    if not texts:
        return None
    cells = records.column(texts[0])
    by_path = any(isinstance(cell, str) and kind_of_name(cell) == "text" for cell in cells[:8])
    return None if by_path else [len(cell) if isinstance(cell, str) else 0 for cell in cells]


def _caches(
    records: MapStyleSplit, reader: SampleTransform, preprocess: Mapping[str, Any]
) -> tuple[ImageCache | None, SampleCache | None]:
    """Return where decoded values are kept: small pictures in shared memory, all else in memory or a folder."""
    settings = reader.settings
    kinds = [preprocess[name].kind for name in reader.columns]
    if kinds == ["image"] and settings.cache is None:
        shared = FORKS or settings.num_workers == 0
        if not (settings.training and settings.image_cache_bytes and shared):
            return None, None
        ((name, column),) = reader.columns.items()
        channels = preprocess[name].num_channels
        largest = settings.image_cache_bytes
        return open_image_cache(
            records, column.column, num_channels=channels, largest=largest
        ), None
    if settings.cache is not None:
        return None, open_cache(Path(settings.cache), settings.fingerprint, 0)
    if settings.sample_cache_bytes and settings.num_workers == 0:
        return None, open_cache(None, settings.fingerprint, settings.sample_cache_bytes)
    return None, None


class Loader:
    """Yields the batches of one epoch each time it is iterated.

    The state of an epoch is the number of its next batch, since everything random follows from that. So a run
    resumes exactly with any number of workers, and nothing that they read ahead is lost.

    Args:
        dataset: What reads a plan.
        order: Which plans there are.
    """

    def __init__(self, dataset: "MapDataset", order: BatchSampler) -> None:
        self.settings = order.settings
        self._order = order
        self._plans = _Plans(order)
        self._dataset = dataset
        self._intake = BadRowTracker(self.settings.max_bad, len(dataset))
        self._batches: DataLoader[WorkerResult] | None = None
        self._reads: Iterator[WorkerResult] | None = (
            None  # of the epoch that is read, or of the next
        )
        self._begun: tuple[int, int] | None = (
            None  # the epoch and batch of the pass that waits to be used
        )
        self._epoch = 0
        self._next = 0
        self._resumed = False

    @property
    def bad(self) -> list[tuple[str, str]]:
        """Name and reason of each row that could not be read so far."""
        return list(self._intake.bad.items())

    @property
    def notes(self) -> dict[str, int]:
        """How many pictures of the first epoch were turned, scaled to 8 bit and the like."""
        return dict(self._intake.notes)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self._order)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is. Otherwise each is the one after the last that was finished."""
        if epoch != self._epoch:
            self._epoch, self._next, self._resumed = epoch, 0, False

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the current epoch; after `load_state_dict`, those not seen yet.

        Raises:
            ValueError: If more than `max_bad` of the rows cannot be read.
        """
        if not self._resumed:
            self._next = 0
        self._resumed = False
        for read in self._begin():
            self._next += 1
            batch = self._intake.take(read)
            if batch is not None:
                yield batch
        self._epoch, self._next = self._epoch + 1, 0
        if self.settings.training:
            # What comes after this epoch, its last step and a validation, need not wait for the next one.
            self._begin()
            self._begun = self._epoch, self._next

    def _begin(self) -> Iterator[WorkerResult]:
        """Return the reads from the current place on; those that were begun early, if they are these."""
        begun, self._begun = self._begun, None
        if self._reads is None or begun != (self._epoch, self._next):
            stop_prefetching(self._reads)
            self._plans.epoch, self._plans.start = self._epoch, self._next
            if self._batches is None:
                self._batches = start_workers(self._dataset, self.settings, sampler=self._plans)
            self._reads = iterate(self._batches, self.settings)
        return self._reads

    def state_dict(self) -> dict[str, Any]:
        """Return where the next batch stands and which rows were bad."""
        samples = self._next * self.settings.batch_size * self.settings.world_size
        return {"epoch": self._epoch, "samples": samples, **self._intake.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken. With another batch size, at the nearest batch before."""
        self._epoch = state["epoch"]
        self._next = state["samples"] // (self.settings.batch_size * self.settings.world_size)
        self._resumed = True
        if self._next >= len(self):
            self._epoch, self._next = self._epoch + 1, 0
        self._intake.load_state_dict(state)

    def close(self) -> None:
        """End the workers, or the thread. The next iteration starts new ones."""
        stop_prefetching(self._reads)
        self._batches = self._reads = self._begun = None


class _Plans(Sampler[BatchPlan]):
    """The rest of an epoch, as `DataLoader` wants it."""

    def __init__(self, order: BatchSampler) -> None:
        self.order = order
        self.epoch = 0
        self.start = 0

    def __iter__(self) -> Iterator[BatchPlan]:
        return self.order.plans(self.epoch, self.start)


class MapDataset(Dataset[WorkerResult]):
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
        records: MapStyleSplit,
        targets: Sequence[Any] | None,
        reader: SampleTransform,
        pictures: ImageCache | None = None,
        kept: SampleCache | None = None,
    ) -> None:
        self.records = records
        self.targets = None if targets is None else np.asarray(targets)
        self.reader = reader
        self.pictures = pictures
        self.kept = kept

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.records)

    def __getitem__(self, plan: BatchPlan) -> WorkerResult:
        """Return the batch of a plan, with what went wrong."""
        return guarded(lambda: self._read(plan))

    def _read(self, plan: BatchPlan) -> WorkerResult:
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
        return WorkerResult(batch=batch, num_rows=len(plan.rows), bad=tuple(bad), notes=dict(notes))

    def _sample(self, index: int, chances: SampleRng, target: Any, notes: Counter[str]) -> Sample:
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
