"""Batches of a split, from this process or from workers: reproducible from the seed and resumable at any batch."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from perceivers.data.base import Batch, MapStyleSplit
from perceivers.data.encoded_item import EncodedItem
from perceivers.data.fingerprint import value_fingerprint
from perceivers.data.loading.array_rows import ArrayRows
from perceivers.data.loading.sample_cache import (
    ImageCache,
    SampleCache,
    open_cache,
    open_image_cache,
)
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
    iterate,
    start_workers,
    stop_prefetching,
)
from perceivers.data.modalities.base import TooLongError, error_text
from perceivers.data.modalities.image.modality import ImageModality, image_from_pixels
from perceivers.data.modalities.image.preprocess import as_pixels
from perceivers.data.registry import kind_of_name
from perceivers.data.tables.bad_rows import check_bad_share
from perceivers.data.tables.columns import InputColumn
from perceivers.wording import counted

_FEWEST = 100  # rows of a stream below which the share of bad ones is not judged


def make_loader(
    split: MapStyleSplit,
    inputs: Mapping[str, InputColumn],
    targets: Sequence[Any] | None,
    *,
    preprocess: Mapping[str, Any],
    augment: Mapping[str, Any] | None,
    settings: LoaderSettings,
) -> "Loader":
    """Return a loader of a split whose rows are read by index.

    In training the order depends on (seed, epoch), the augmentation of a row on (seed, epoch, index) and the mixing of
    a batch on (seed, epoch, number), so they are the same for any number of workers. Mixing reads two rows per sample;
    an epoch then sees every row twice.

    Args:
        split: Rows of the split.
        inputs: Column of each model input.
        targets: Class index or vector of each row. None: unknown.
        preprocess: Preprocessing configuration of each input.
        augment: Augmentation configuration of each input, used in training only.
        settings: Batch size, seed, workers, ranks.

    Raises:
        ValueError: If the split is empty, or in training has fewer rows than there are ranks.
    """
    fewest = settings.world_size if settings.training else 1
    if len(split) < fewest:
        raise ValueError(
            f"Expected a split of at least {counted(fewest, 'row')}, one for each device, got {len(split)}."
        )
    transform = SampleTransform(inputs, preprocess, augment, settings)
    lengths = _text_lengths(split, inputs) if settings.training else None
    mixes = transform.mixing is not None
    sampler = BatchSampler(len(split), settings, in_pairs=mixes, lengths=lengths)
    images, samples = _open_caches(split, transform, preprocess)
    return Loader(MapDataset(split, targets, transform, images, samples), sampler)


def _text_lengths(split: MapStyleSplit, inputs: Mapping[str, InputColumn]) -> list[int] | None:
    """Return the length of each row's text, None without texts in the table itself."""
    texts = [part.column for part in inputs.values() if part.kind == "text"]
    if not texts:
        return None
    cells = split.column(texts[0])
    by_path = any(isinstance(cell, str) and kind_of_name(cell) == "text" for cell in cells[:8])
    return None if by_path else [len(cell) if isinstance(cell, str) else 0 for cell in cells]


def _open_caches(
    split: MapStyleSplit, transform: SampleTransform, preprocess: Mapping[str, Any]
) -> tuple[ImageCache | None, SampleCache | None]:
    """Return the cache of decoded values: shared memory for small images, else memory or a folder."""
    settings = transform.settings
    kinds = [preprocess[name].kind for name in transform.columns]
    if kinds == ["image"] and settings.cache is None:
        shared = FORKS or settings.num_workers == 0
        if not (settings.training and settings.image_cache_bytes and shared):
            return None, None
        ((name, column),) = transform.columns.items()
        channels = preprocess[name].num_channels
        limit = settings.image_cache_bytes
        return open_image_cache(split, column.column, num_channels=channels, largest=limit), None
    if settings.cache is not None:
        return None, open_cache(Path(settings.cache), settings.fingerprint, 0)
    if settings.sample_cache_bytes and settings.num_workers == 0:
        return None, open_cache(None, settings.fingerprint, settings.sample_cache_bytes)
    return None, None


class BadRowTracker:
    """Collects the bad rows that workers report, and stops the run if there are too many.

    If the number of rows is unknown, the rows read so far count.

    Attributes:
        bad: Reason by name of each row that failed.
        notes: Counts of notes on decoding.
    """

    def __init__(self, max_bad: float, num_rows: int | None) -> None:
        self.max_bad = max_bad
        self.num_rows = num_rows
        self.bad: dict[str, str] = {}
        self.notes: Counter[str] = Counter()
        self._num_read = 0

    def take(self, result: WorkerResult) -> Batch | None:
        """Return the batch of a result, None if none of its rows could be read.

        Raises:
            ValueError: If more than `max_bad` of the rows have failed.
            ValueError, KeyError, TypeError: The error that ended a worker.
        """
        if result.failure is not None:
            kind, message = result.failure
            raise kind(message)
        self._num_read += result.num_rows
        self.notes.update(result.notes)
        fresh = {name: reason for name, reason in result.bad if name not in self.bad}
        if fresh:
            self.bad.update(fresh)
            self._check_share()
        return result.batch

    def report(self, name: str, reason: str) -> None:
        """Add a bad row that was found after decoding. Raises as `take`."""
        if name not in self.bad:
            self.bad[name] = reason
            self._check_share()

    def state_dict(self) -> dict[str, Any]:
        """Return the state, as plain values."""
        return {"bad": dict(self.bad), "notes": dict(self.notes), "num_read": self._num_read}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.bad, self.notes = dict(state["bad"]), Counter(state["notes"])
        self._num_read = state["num_read"]

    def _check_share(self) -> None:
        check_bad_share(
            self.bad,
            self.num_rows or self._num_read,
            self.max_bad,
            fewest=0 if self.num_rows else _FEWEST,
        )


class BatchLoader:
    """Base of the loaders: workers, bad rows and notes."""

    def __init__(self, settings: LoaderSettings, num_rows: int | None) -> None:
        self.settings = settings
        rows = settings.num_rows if num_rows is not None and settings.num_rows else num_rows
        self._rows = BadRowTracker(settings.max_bad, rows)
        self._workers: DataLoader[WorkerResult] | None = None
        self._results: Iterator[WorkerResult] | None = None  # of the current epoch, or the next
        self._resumed = False

    @property
    def bad(self) -> list[tuple[str, str]]:
        """Name and reason of each row that could not be read so far."""
        return list(self._rows.bad.items())

    def report_bad(self, name: str, reason: str) -> None:
        """Count a row that was decoded, but has no finite output, among the bad rows.

        Raises:
            ValueError: If more than `max_bad` of the rows have failed.
        """
        self._rows.report(name, reason)

    @property
    def notes(self) -> dict[str, int]:
        """Counts of notes on decoding in the first epoch, such as images that were rotated or scaled to 8 bit."""
        return dict(self._rows.notes)

    def close(self) -> None:
        """Stop the workers or the thread. The next iteration starts new ones."""
        stop_prefetching(self._results)
        self._workers = self._results = None


class Loader(BatchLoader):
    """Yields the batches of one epoch each time it is iterated.

    The state within an epoch is the number of the next batch, since everything random depends on it. So a run resumes
    exactly with any number of workers, and prefetched batches are not lost.
    """

    def __init__(self, dataset: "MapDataset | ArrayRows", sampler: BatchSampler) -> None:
        super().__init__(sampler.settings, len(dataset))
        self._dataset = dataset
        self._plans = _EpochPlans(sampler)
        self._started: tuple[int, int] | None = None  # epoch and batch of results not yet used
        self._epoch = 0
        self._next = 0

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self._plans.sampler)

    @property
    def dataset(self) -> "MapDataset | ArrayRows":
        """The rows, with the caches of their decoded values."""
        return self._dataset

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration. By default it follows the last that was finished."""
        if epoch != self._epoch:
            self._epoch, self._next, self._resumed = epoch, 0, False

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the current epoch; after `load_state_dict`, the remaining ones.

        Raises:
            ValueError: If more than `max_bad` of the rows cannot be read.
        """
        if not self._resumed:
            self._next = 0
        self._resumed = False
        for result in self._start():
            self._next += 1
            batch = self._rows.take(result)
            if batch is not None:
                yield batch
        self._epoch, self._next = self._epoch + 1, 0
        if self.settings.training:
            # Prefetch the next epoch during the last step of this one and validation.
            self._start()
            self._started = self._epoch, self._next

    def _start(self) -> Iterator[WorkerResult]:
        """Return the results from the current batch on, reusing those that were started early."""
        started, self._started = self._started, None
        if self._results is None or started != (self._epoch, self._next):
            stop_prefetching(self._results)
            self._plans.epoch, self._plans.start = self._epoch, self._next
            if self._workers is None:
                self._workers = start_workers(self._dataset, self.settings, sampler=self._plans)
            self._results = iterate(self._workers, self.settings)
        return self._results

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the next batch and the bad rows."""
        samples = self._next * self.settings.batch_size * self.settings.world_size
        return {"epoch": self._epoch, "samples": samples, **self._rows.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`; with another batch size, from the nearest batch before."""
        self._epoch = state["epoch"]
        self._next = state["samples"] // (self.settings.batch_size * self.settings.world_size)
        self._resumed = True
        if self._next >= len(self):
            self._epoch, self._next = self._epoch + 1, 0
        self._rows.load_state_dict(state)

    def close(self) -> None:
        """Stop the workers or the thread. The next iteration starts new ones."""
        super().close()
        self._started = None


class _EpochPlans(Sampler[BatchPlan]):
    """The remaining plans of an epoch, as the sampler of `DataLoader`."""

    def __init__(self, sampler: BatchSampler) -> None:
        self.sampler, self.epoch, self.start = sampler, 0, 0

    def __iter__(self) -> Iterator[BatchPlan]:
        return self.sampler.plans(self.epoch, self.start)


class MapDataset(Dataset[WorkerResult]):
    """Reads batches by index; `DataLoader` sees each plan as an index and each batch as an item.

    Args:
        split: Rows of the split.
        targets: Class index or vector of each row. None: unknown.
        transform: Turns rows into batches.
        images: Cache of small decoded images, if they are the only input. Its samples are named by their row.
        samples: Cache of all other decoded values.
    """

    def __init__(
        self,
        split: MapStyleSplit,
        targets: Sequence[Any] | None,
        transform: SampleTransform,
        images: ImageCache | None = None,
        samples: SampleCache | None = None,
    ) -> None:
        self.split = split
        self.targets = None if targets is None else np.asarray(targets)
        self.transform = transform
        self.images = images
        self.samples = samples

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.split)

    def __getitem__(self, plan: BatchPlan) -> WorkerResult:
        """Return the batch of a plan, with its bad rows."""
        return guarded(lambda: self._read(plan))

    def _read(self, plan: BatchPlan) -> WorkerResult:
        rows = plan.rows.tolist()
        first_partner = len(rows) // 2 if self.transform.mixing else len(rows)
        keys = [(plan.epoch, row, int(place >= first_partner)) for place, row in enumerate(rows)]
        key = (plan.epoch, plan.number, self.transform.settings.rank)
        return self.transform.read_batch(rows, keys, self._sample, key)

    def _sample(self, index: int, rng: SampleRng) -> tuple[Sample, tuple[str, ...]]:
        """Return one row as a sample, from the cache if it is there, and notes on decoding."""
        target = None if self.targets is None else self.targets[index]
        if self.images is None and self.samples is None:
            return self.transform.sample(self._row(index), rng, target)
        name, notes = f"row {index}", ()
        row, key = self._identified(index)
        values = self._cached(index, key)
        if values is None:
            row = self._row(index) if row is None else row
            try:
                values, name, notes = self.transform.decode(row)
            except TooLongError:  # decoded clip by clip, not cached
                return self.transform.sample(row, rng, target)
            self._cache(index, key, values)
        return Sample(self.transform.clips(values, rng, name), target, name), notes

    def _identified(self, index: int) -> tuple[Mapping[str, Any] | None, str]:
        """Return the key of a row in the cache of samples, and the raw row where the key depends on it.

        A folder outlives the run, so that its keys identify the files and cells of a row instead of its number.
        """
        if self.samples is None or self.samples.folder is None:
            return None, str(index)
        row = self._row(index)
        names = dict.fromkeys(
            c for part in self.transform.columns.values() for c in part.all_columns
        )
        # The modalities of one file have cells of their own, such as "clip:audio".
        cells = {n: cell for n, cell in row.items() if n in names or n.partition(":")[0] in names}
        # The suffix of a name decides how bytes are decoded.
        known = [cell.name for cell in cells.values() if isinstance(cell, EncodedItem)]
        return row, value_fingerprint([known, cells], by="ctime")

    def _cache(self, index: int, key: str, values: Mapping[str, Any]) -> None:
        if self.images is not None:
            self.images.put(index, as_pixels(next(iter(values.values()))))
        elif self.samples is not None:
            for modality, value in values.items():
                if value is not None:
                    is_image = isinstance(value, Image.Image)
                    self.samples.put(f"{key}-{modality}", as_pixels(value) if is_image else value)
            self.samples.put(key, np.array([value is not None for value in values.values()]))

    def _cached(self, index: int, key: str) -> dict[str, Any] | None:
        """Return the cached values of a row, or None unless all are cached."""
        if self.images is not None:
            pixels = self.images.get(index)
            modality = next(iter(self.transform.columns))
            return None if pixels is None else {modality: image_from_pixels(pixels)}
        assert self.samples is not None
        present = self.samples.get(key)
        if present is None or len(present) != len(self.transform.columns):
            return None
        values: dict[str, Any] = {}
        for modality, is_present in zip(self.transform.columns, present, strict=True):
            value: Any = self.samples.get(f"{key}-{modality}") if is_present else None
            if is_present and value is None:
                return None
            is_image = is_present and isinstance(self.transform.modalities[modality], ImageModality)
            values[modality] = image_from_pixels(value) if is_image else value
        return values

    def _row(self, index: int) -> Mapping[str, Any]:
        try:
            return self.split.row(index)
        except (ImportError, KeyError):  # a missing package or column concerns every row
            raise
        except Exception as error:
            raise BadRowError(f"row {index}", f"Row {index}: {error_text(error)}") from error
