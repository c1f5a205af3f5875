"""A split whose rows are read in the order of its shards: for data larger than the memory or the disk."""

import copy
import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch.utils.data import get_worker_info

from perceivers.data.labels import ClassIndex
from perceivers.data.shards import Shard

__all__ = ["Stream"]

_Key = tuple[int, int]  # the how-manieth shard of this part, and the row in it


@dataclass
class _Progress:
    """Where one worker's pass is: enough to go on exactly."""

    epoch: int
    part: int
    parts: int
    shard: int = 0  # of this part's shards, the next to read from
    row: int = 0  # the next row in it
    taken: int = 0  # rows that this part has had
    buffer: list[tuple[_Key, dict[str, Any]]] = field(
        default_factory=list[tuple[_Key, dict[str, Any]]]
    )
    generator: random.Random = field(default_factory=random.Random)


@dataclass(frozen=True)
class _HoldOut:
    """Rows that a hash picks: the same ones in every pass, on every machine."""

    fraction: float
    seed: int
    group: str | None
    held: bool

    def keeps(self, shard: str, index: int, row: dict[str, Any]) -> bool:
        """Tell whether this side of the split has the row."""
        name = shard.rpartition("/")[2]  # the same wherever the folder lies
        key = f"{name}/{index}" if self.group is None else str(row[self.group])
        digest = hashlib.blake2b(f"{self.seed}/{key}".encode(), digest_size=8).digest()
        return (int.from_bytes(digest) < self.fraction * 2**64) == self.held


class Stream:
    """Rows in the order of the shards, shuffled among some, divided over processes.

    In training every part (worker of a process) gets equally many rows, so that no process waits for another at
    the end: a few rows are read twice or not at all in a pass. In evaluation each row comes exactly once.
    Inside a `DataLoader`'s `IterableDataset` it finds out by itself which worker it is.

    Args:
        shards: What to read.
        labels: Turns the target into the index of its class. None: there is no target.
        shuffle_buffer: Rows of a process among which the next one is picked. 0: the order of the shards.
        seed: Of the order of shards and of that pick.
        even: Whether every part gets equally many rows.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        *,
        labels: ClassIndex | None = None,
        shuffle_buffer: int = 0,
        seed: int = 0,
        even: bool = False,
    ) -> None:
        self.shards = tuple(shards)
        self.labels = labels
        self.shuffle_buffer = shuffle_buffer
        self.seed = seed
        self.even = even
        self._rank, self._world_size = 0, 1
        self._hold_out: _HoldOut | None = None
        # Shared with the workers, which live longer than a pass if they are persistent.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._progress: _Progress | None = None
        self._ended: int | None = None  # the pass that was read to its end last
        self._resume: dict[str, Any] | None = None

    @property
    def num_rows(self) -> int | None:
        """Rows of one pass over all processes; None where they are not known before. Held-out ones guessed."""
        counts = [shard.num_rows for shard in self.shards]
        if any(count is None for count in counts):
            return None
        total = sum(count or 0 for count in counts)
        if self._hold_out is None:
            return total
        share = self._hold_out.fraction
        return round(total * (share if self._hold_out.held else 1 - share))

    def distributed(self, rank: int, world_size: int) -> "Stream":
        """Return the stream of one process of several."""
        other = self._copy()
        other._rank, other._world_size = rank, world_size
        return other

    def shuffled(self, shuffle_buffer: int, seed: int) -> "Stream":
        """Return the stream for training: shuffled, and even over processes."""
        other = self._copy()
        other.shuffle_buffer, other.seed, other.even = shuffle_buffer, seed, True
        return other

    def hold_out(self, fraction: float, seed: int, group: str | None) -> tuple["Stream", "Stream"]:
        """Return the rows that stay and those that are held out, picked by a hash of their place or group."""
        stay, held = self._copy(), self._copy()
        stay._hold_out = _HoldOut(fraction, seed, group, held=False)
        held._hold_out = _HoldOut(fraction, seed, group, held=True)
        held.shuffle_buffer, held.even = 0, False
        return stay, held

    def _copy(self) -> "Stream":
        other = copy.copy(self)
        other._epoch = self._epoch.clone().share_memory_()
        return other

    def set_epoch(self, epoch: int) -> None:
        """Say which pass is next, here and in the workers that are running."""
        self._epoch.fill_(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return where this worker's pass is, without the rows themselves."""
        progress = self._progress
        if progress is None:
            epoch = int(self._epoch)
            return self._resume or {"epoch": epoch + 1 if epoch == self._ended else epoch}
        return {
            "epoch": progress.epoch,
            "part": progress.part,
            "parts": progress.parts,
            "shard": progress.shard,
            "row": progress.row,
            "taken": progress.taken,
            "keys": [key for key, _ in progress.buffer],
            "generator": progress.generator.getstate(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on in the next pass where `state_dict` was taken."""
        self.set_epoch(int(state["epoch"]))
        self._progress = None
        self._resume = state if "keys" in state else None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of this worker: media as `Media`, the target as the index of its class.

        Raises:
            ValueError: If a label is missing or unknown, or a resumed pass had another number of workers.
        """
        progress = self._begin()
        size = self.shuffle_buffer // (progress.parts // self._world_size)
        buffer, generator = progress.buffer, progress.generator
        for item in self._source(progress):
            if size <= 1:
                yield item[1]
            elif len(buffer) < size:
                buffer.append(item)
            else:
                at = generator.randrange(size)
                chosen, buffer[at] = buffer[at], item
                yield chosen[1]
        while buffer:
            at = generator.randrange(len(buffer))
            buffer[at], buffer[-1] = buffer[-1], buffer[at]
            yield buffer.pop()[1]
        self._progress, self._ended = None, progress.epoch

    def _begin(self) -> _Progress:
        worker = get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        part, parts = self._rank * workers + number, self._world_size * workers
        epoch = int(self._epoch)
        state, self._resume = self._resume, None
        progress = _Progress(
            epoch, part, parts, generator=random.Random(f"{self.seed}/{epoch}/{part}")
        )
        if state is not None:
            if (state["part"], state["parts"]) != (part, parts):
                msg = (
                    f"The stream was at part {state['part']} of {state['parts']} and cannot go on as part {part} of "
                    f"{parts}. Resume with the same number of devices and workers."
                )
                raise ValueError(msg)
            progress.shard, progress.row = state["shard"], state["row"]
            progress.taken = state["taken"]
            keys = [(int(shard), int(row)) for shard, row in state["keys"]]
            version, internal, gauss = state["generator"]
            progress.generator.setstate((version, tuple(internal), gauss))
            progress.buffer = self._read_again(keys, self._order(progress))
        self._progress = progress
        return progress

    def _order(self, progress: _Progress) -> list[Shard]:
        """Return the shards of this part: some of them whole, or all, of whose rows it takes some."""
        order = list(self.shards)
        if self.shuffle_buffer:
            random.Random(f"{self.seed}/{progress.epoch}").shuffle(order)
        return order[progress.part :: progress.parts] if self._by_shard(progress.parts) else order

    def _by_shard(self, parts: int) -> bool:
        countable = all(shard.num_rows for shard in self.shards) and self._hold_out is None
        return len(self.shards) >= parts and (countable or not self.even)

    def _source(self, progress: _Progress) -> Iterator[tuple[_Key, dict[str, Any]]]:
        """Yield the rows of this part, not shuffled, and keep count."""
        rows = self._filtered(progress)
        if progress.parts == 1 or (self._by_shard(progress.parts) and not self.even):
            yield from rows
        elif self._by_shard(progress.parts):
            quota = (self.num_rows or 0) // progress.parts
            for item in islice(rows, max(0, quota - progress.taken)):
                progress.taken += 1
                yield item
        else:
            yield from self._every_nth(rows, progress)

    def _every_nth(
        self, rows: Iterator[tuple[_Key, dict[str, Any]]], progress: _Progress
    ) -> Iterator[tuple[_Key, dict[str, Any]]]:
        """Yield this part's row of each round of one row for each part; where even, of whole rounds only."""
        while True:
            turn = list(islice(rows, progress.parts))
            whole = len(turn) == progress.parts
            if whole or (not self.even and len(turn) > progress.part):
                yield turn[progress.part]
            if not whole:
                return

    def _filtered(self, progress: _Progress) -> Iterator[tuple[_Key, dict[str, Any]]]:
        """Yield the rows of this part's shards that this side of the hold-out has, from where it stands on."""
        order = self._order(progress)
        again = self.even and progress.parts > 1 and self._by_shard(progress.parts)
        while progress.shard < len(order) or again:
            shard = order[progress.shard % len(order)]
            for index, row in enumerate(shard.rows(progress.row), start=progress.row):
                progress.row = index + 1
                if self._hold_out is None or self._hold_out.keeps(shard.name, index, row):
                    yield (progress.shard, index), self._labelled(row, shard, index)
            progress.shard, progress.row = progress.shard + 1, 0

    def _labelled(self, row: dict[str, Any], shard: Shard, index: int) -> dict[str, Any]:
        if self.labels is None:
            return row
        column = self.labels.column
        return {**row, column: self.labels(row.get(column), f"{shard.name}, row {index}")}

    def _read_again(
        self, keys: Sequence[_Key], order: Sequence[Shard]
    ) -> list[tuple[_Key, dict[str, Any]]]:
        """Return the rows that lay in the buffer, from the shards."""
        rows: dict[_Key, dict[str, Any]] = {}
        for position in sorted({position for position, _ in keys}):
            wanted = {row for at, row in keys if at == position}
            shard, first = order[position % len(order)], min(wanted)
            for index, row in enumerate(
                islice(shard.rows(first), max(wanted) + 1 - first), start=first
            ):
                if index in wanted:
                    rows[position, index] = self._labelled(row, shard, index)
        return [(key, rows[key]) for key in keys]
