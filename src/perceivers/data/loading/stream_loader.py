"""Batches of a stream: rows come in the order of the shards, and each batch says how to go on after it."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from perceivers.data.base import Batch
from perceivers.data.loading.errors import BadRowTracker
from perceivers.data.loading.sampler import LoaderSettings
from perceivers.data.loading.transform import (
    BadRowError,
    Sample,
    SampleTransform,
    WorkerResult,
    guarded,
)
from perceivers.data.loading.workers import iterate, start_workers, stop_prefetching
from perceivers.data.modalities.image.decode import quiet_pillow
from perceivers.data.streaming.stream import Stream
from perceivers.data.tables.columns import InputColumn

__all__ = ["StreamLoader", "make_stream_loader"]


def make_stream_loader(
    stream: Stream,
    inputs: Mapping[str, InputColumn],
    target: str | None,
    *,
    preprocess: Mapping[str, Any],
    augment: Mapping[str, Any] | None,
    settings: LoaderSettings,
) -> "StreamLoader":
    """Return a stream as batches, those of this rank.

    Each worker reads its own part of the shards, so that the batches depend on the number of workers; for one
    number they are reproducible and resumable.

    Args:
        stream: The split, shuffled already if it is for training.
        inputs: For each input of the model, its column.
        target: Column of the class index. None: not known.
        preprocess: For each input, size and statistics.
        augment: For each input, what is random. Used in training only.
        settings: Batch size, seed, workers, ranks.
    """
    reader = SampleTransform(inputs, preprocess, augment, settings)
    mine = stream.distributed(settings.rank, settings.world_size)
    return StreamLoader(_StreamReader(mine, target, reader))


class StreamLoader:
    """Yields the batches of one epoch each time it is iterated. It has no length.

    Args:
        dataset: What reads the stream.
    """

    def __init__(self, dataset: "_StreamReader") -> None:
        self.settings = dataset.reader.settings
        self.num_rows = dataset.stream.num_rows
        # What each worker returned with its last batch, and which worker is next.
        self._state: dict[str, Any] = _fresh(0)
        self._dataset = dataset
        self._intake = BadRowTracker(self.settings.max_bad, self.num_rows)
        self._batches: DataLoader[WorkerResult] | None = None
        self._reads: Iterator[WorkerResult] | None = None
        self._resumed = False

    @property
    def num_batches(self) -> int | None:
        """Batches of a pass, about; None where the rows are not known. Workers leave incomplete ones away."""
        if self.num_rows is None:
            return None
        rows = self.settings.batch_size * (2 if self._dataset.reader.mixing else 1)
        return self.num_rows // (rows * self.settings.world_size)

    @property
    def bad(self) -> list[tuple[str, str]]:
        """Name and reason of each row that could not be read so far."""
        return list(self._intake.bad.items())

    @property
    def notes(self) -> dict[str, int]:
        """How many pictures of the first epoch were turned, scaled to 8 bit and the like."""
        return dict(self._intake.notes)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is. Otherwise each is the one after the last that was finished."""
        if epoch != self._state["epoch"]:
            self._state, self._resumed = _fresh(epoch), False

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the current epoch; after `load_state_dict`, those not seen yet.

        Raises:
            ValueError: If more than `max_bad` of the rows cannot be read, or labels are unknown.
        """
        epoch: int = self._state["epoch"]
        if not self._resumed:
            self._state = _fresh(epoch)
        stop_prefetching(self._reads)  # it reads the same stream
        self._dataset.stream.set_epoch(epoch)
        self._dataset.resume = self._state if self._resumed else None
        if self._resumed or self._batches is None:
            self._batches = start_workers(self._dataset, self.settings)
        self._resumed = False
        self._reads = iterate(self._batches, self.settings)
        for read in self._reads:
            batch = self._intake.take(read)
            if read.state is not None:
                worker, position = read.state
                following = (worker + 1) % max(1, self.settings.num_workers)
                workers = {**self._state["workers"], str(worker): position}
                self._state = {"epoch": epoch, "workers": workers, "next": following}
            if batch is not None:
                yield batch
        self._state = _fresh(epoch + 1)

    def state_dict(self) -> dict[str, Any]:
        """Return where each worker goes on and which rows were bad."""
        return {
            **self._state,
            "num_workers": self.settings.num_workers,
            **self._intake.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            ValueError: If the number of workers is another.
        """
        if state["num_workers"] != self.settings.num_workers:
            msg = (
                f"The stream was read by {state['num_workers']} workers and cannot go on with "
                f"{self.settings.num_workers}: each reads its own part. Use --workers {state['num_workers']}."
            )
            raise ValueError(msg)
        self._state = {key: state[key] for key in ("epoch", "workers", "next")}
        self._resumed = bool(state["workers"])
        self._intake.load_state_dict(state)

    def close(self) -> None:
        """End the workers, or the thread. The next iteration starts new ones."""
        stop_prefetching(self._reads)
        self._batches = self._reads = None


def _fresh(epoch: int) -> dict[str, Any]:
    """Return the state in which an epoch begins."""
    return {"epoch": epoch, "workers": {}, "next": 0}


class _StreamReader(IterableDataset[WorkerResult]):
    """Reads batches from a stream, in a worker or in the process itself.

    Attributes:
        resume: Where the workers go on, for the iteration that starts next.
    """

    def __init__(self, stream: Stream, target: str | None, reader: SampleTransform) -> None:
        self.stream = stream
        self.target = target
        self.reader = reader
        self.resume: dict[str, Any] | None = None

    def __iter__(self) -> Iterator[WorkerResult]:
        info = get_worker_info()
        worker = info.id if info else 0
        count = 0
        resume, self.resume = self.resume, None  # once: a persistent worker comes here again
        if resume is not None:
            if worker < resume["next"]:
                yield WorkerResult()  # its turn in this round was before the interruption
            position = resume["workers"].get(str(worker))
            if position is not None:
                self.stream.load_state_dict(position["stream"])
                count = position["count"]
        rows = iter(self.stream)
        while True:
            read = guarded(partial(self._read, rows, worker, count))
            damage = self.stream.take_damage()
            if damage:  # the rest of a shard counts as one row
                read = replace(read, bad=(*read.bad, *damage))
            if read.num_rows or read.failure or damage:
                yield read
            if not read.num_rows:
                return
            count += read.num_rows

    def _read(self, rows: Iterator[dict[str, Any]], worker: int, count: int) -> WorkerResult:
        """Return the next batch. At the end, one of no rows."""
        settings = self.reader.settings
        wanted = settings.batch_size * (2 if self.reader.mixing else 1)
        taken = list(islice(rows, wanted))
        if not taken or (settings.training and settings.drop_last and len(taken) < wanted):
            return WorkerResult()
        state = self.stream.state_dict()
        key = (state["epoch"], settings.rank, worker)
        samples: list[Sample] = []
        bad: list[tuple[str, str]] = []
        notes: Counter[str] = Counter()
        keys = [(*key, number) for number in range(count, count + len(taken))]
        with quiet_pillow:
            for row, chances in zip(taken, self.reader.chances(keys), strict=True):
                target = None if self.target is None else row[self.target]
                try:
                    sample, told = self.reader.sample(row, chances, target)
                except BadRowError as error:
                    bad.append((error.name, error.reason))
                    continue
                samples.append(sample)
                if not state["epoch"]:
                    notes.update(told)
        return WorkerResult(
            batch=self.reader.collate(samples, (*key, count)),
            num_rows=len(taken),
            bad=tuple(bad),
            notes=dict(notes),
            state=(worker, {"stream": state, "count": count + len(taken)}),
        )
