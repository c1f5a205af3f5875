"""Batches of a stream: rows come in the order of the shards, and each batch carries the state after it."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from perceivers.data.base import Batch
from perceivers.data.loading.loader import BatchLoader
from perceivers.data.loading.sampler import LoaderSettings
from perceivers.data.loading.transform import (
    Sample,
    SampleRng,
    SampleTransform,
    WorkerResult,
    guarded,
)
from perceivers.data.loading.workers import iterate, start_workers, stop_prefetching
from perceivers.data.streaming.stream import Stream
from perceivers.data.tables.columns import InputColumn


def make_stream_loader(
    stream: Stream,
    inputs: Mapping[str, InputColumn],
    target: str | None,
    *,
    preprocess: Mapping[str, Any],
    augment: Mapping[str, Any] | None,
    settings: LoaderSettings,
) -> "StreamLoader":
    """Return a loader of a stream, for this rank.

    Each worker reads its own part of the shards, so the batches depend on the number of workers; for one number they
    are reproducible and resumable.

    Arguments are those of `make_loader`, with a stream that is already shuffled for training.
    """
    transform = SampleTransform(inputs, preprocess, augment, settings)
    mine = stream.distributed(settings.rank, settings.world_size)
    return StreamLoader(_StreamDataset(mine, target, transform))


class StreamLoader(BatchLoader):
    """Yields the batches of one epoch each time it is iterated. It has no length.

    Args:
        dataset: Reads batches from the stream.
    """

    def __init__(self, dataset: "_StreamDataset") -> None:
        self.num_rows = dataset.stream.num_rows
        super().__init__(dataset.transform.settings, self.num_rows)
        self._dataset = dataset
        # State of each worker after its last batch, and the worker of the next batch.
        self._state: dict[str, Any] = _initial_state(0)

    @property
    def num_batches(self) -> int | None:
        """Approximate number of batches in an epoch (workers drop incomplete ones), None if unknown."""
        if self.num_rows is None:
            return None
        rows = self.settings.batch_size * (2 if self._dataset.transform.mixing else 1)
        return self.num_rows // (rows * self.settings.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration, by default the one after the last finished epoch."""
        if epoch != self._state["epoch"]:
            self._state, self._resumed = _initial_state(epoch), False

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the current epoch; after `load_state_dict`, the remaining ones.

        Raises:
            ValueError: If more than `max_bad` of the rows cannot be read, or labels are unknown.
        """
        epoch: int = self._state["epoch"]
        if not self._resumed:
            self._state = _initial_state(epoch)
        stop_prefetching(self._results)  # it reads the same stream
        self._dataset.stream.set_epoch(epoch)
        self._dataset.resume = self._state if self._resumed else None
        if self._resumed or self._workers is None:
            self._workers = start_workers(self._dataset, self.settings)
        self._resumed = False
        self._results = iterate(self._workers, self.settings)
        for result in self._results:
            batch = self._rows.take(result)
            if result.state is not None:
                worker, position = result.state
                following = (worker + 1) % max(1, self.settings.num_workers)
                workers = {**self._state["workers"], str(worker): position}
                self._state = {"epoch": epoch, "workers": workers, "next": following}
            if batch is not None:
                yield batch
        self._state = _initial_state(epoch + 1)

    def state_dict(self) -> dict[str, Any]:
        """Return the position of each worker and the bad rows."""
        num_workers = self.settings.num_workers
        return {**self._state, "num_workers": num_workers, **self._rows.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`.

        Raises:
            ValueError: If the number of workers differs.
        """
        if state["num_workers"] != self.settings.num_workers:
            raise ValueError(
                f"The stream was read by {state['num_workers']} workers and cannot go on with "
                f"{self.settings.num_workers}: each reads its own part. Use --workers {state['num_workers']}."
            )
        self._state = {key: state[key] for key in ("epoch", "workers", "next")}
        self._resumed = bool(state["workers"])
        self._rows.load_state_dict(state)


def _initial_state(epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "workers": {}, "next": 0}


class _StreamDataset(IterableDataset[WorkerResult]):
    """Reads batches from a stream, in a worker or in this process.

    Attributes:
        resume: State from which the next iteration continues.
    """

    def __init__(self, stream: Stream, target: str | None, transform: SampleTransform) -> None:
        self.stream = stream
        self.target = target
        self.transform = transform
        self.resume: dict[str, Any] | None = None

    def __iter__(self) -> Iterator[WorkerResult]:
        info = get_worker_info()
        worker = info.id if info else 0
        count = 0
        resume, self.resume = self.resume, None  # once: a persistent worker iterates again
        if resume is not None:
            if worker < resume["next"]:
                yield WorkerResult()  # its turn in this round was before the interruption
            position = resume["workers"].get(str(worker))
            if position is not None:
                self.stream.load_state_dict(position["stream"])
                count = position["count"]
        rows = iter(self.stream)
        while True:
            result = guarded(partial(self._read, rows, worker, count))
            damage = self.stream.take_damage()
            if damage:  # the rest of a shard counts as one row
                result = replace(result, bad=(*result.bad, *damage))
            if result.num_rows or result.failure or damage:
                yield result
            if not result.num_rows:
                return
            count += result.num_rows

    def _read(self, rows: Iterator[dict[str, Any]], worker: int, count: int) -> WorkerResult:
        """Return the next batch; at the end, one without rows."""
        settings = self.transform.settings
        wanted = settings.batch_size * (2 if self.transform.mixing else 1)
        taken = list(islice(rows, wanted))
        if not taken or (settings.training and settings.drop_last and len(taken) < wanted):
            return WorkerResult()
        state = self.stream.state_dict()
        key = (state["epoch"], settings.rank, worker)
        keys = [(*key, number) for number in range(count, count + len(taken))]

        def read(row: Mapping[str, Any], rng: SampleRng) -> tuple[Sample, tuple[str, ...]]:
            return self.transform.sample(row, rng, row[self.target] if self.target else None)

        result = self.transform.read_batch(taken, keys, read, (*key, count))
        return replace(result, state=(worker, {"stream": state, "count": count + len(taken)}))
