"""A split read in the order of its shards: for data larger than the memory or the disk."""

import copy
import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import torch
from torch.utils.data import get_worker_info

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.streaming.shards import DamagedRow, Shard
from perceivers.data.tables.table import NamedRow

_Key = tuple[int, int]  # number of the piece in this part, and row in its shard
_Piece = tuple[Shard, int, int | None]  # a shard with its first and its end row; None: the last


@runtime_checkable
class _Labels(Protocol):
    """Encodes a target; `TargetEncoder`."""

    @property
    def column(self) -> str:
        """Name of the target column."""
        ...

    def is_missing(self, value: Any) -> bool:
        """Return whether a cell has no target."""
        ...

    def __call__(self, value: Any, where: str) -> Any:
        """Return the encoded target."""
        ...


@dataclass
class _Progress:
    """Position of one worker in an epoch, enough to resume exactly."""

    epoch: int
    part: int
    parts: int
    piece: int = 0  # next piece of this part
    row: int = 0  # next row in its shard; 0 at the beginning of a piece
    buffer: list[tuple[_Key, dict[str, Any]]] = field(
        default_factory=list[tuple[_Key, dict[str, Any]]]
    )
    generator: random.Random = field(default_factory=random.Random)


@dataclass(frozen=True)
class _HoldOut:
    """Held-out rows, chosen by a hash: the same ones in every epoch and on every machine."""

    fraction: float
    seed: int
    group: str | None
    held: bool

    def keeps(self, shard: str, index: int, row: dict[str, Any]) -> bool:
        """Return True if a row belongs to this side of the split."""
        name = shard.rpartition("/")[2]  # independent of the folder
        group = None if self.group is None else row[self.group]
        if isinstance(group, EncodedItem):
            group = group.value
        key = f"{name}/{index}" if self.group is None else str(group)
        digest = hashlib.blake2b(f"{self.seed}/{key}".encode(), digest_size=8).digest()
        return (int.from_bytes(digest) < self.fraction * 2**64) == self.held


class Stream:
    """Rows in the order of the shards, shuffled in a buffer and divided over processes.

    Each row comes once per epoch over all parts (workers of all processes). If every shard knows its number of rows,
    the rows of all shards are cut into ranges of equal length: parts differ by one row at most, before any are held
    out. Otherwise parts take turns, row by row, so that all read everything; or, if they may differ in length, each
    reads whole shards. Inside a `DataLoader`'s `IterableDataset` a stream finds out which worker it is.

    A damaged row, and one with an unknown label, is a bad row; of a damaged shard, the rest counts as one. Rows
    without a label are skipped.

    Args:
        shards: Shards of the split.
        labels: Encoder of the target column. None: no target.
        shuffle_buffer: Rows of a process among which the next one is drawn. 0: the order of the shards.
        seed: Seed of the order of shards and of that draw.
        even: Make parts equally long, as in training, where no process can continue without the others.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        *,
        labels: _Labels | None = None,
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
        # Shared with the workers, which may live longer than an epoch.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._progress: _Progress | None = None
        self._ended: int | None = None  # last epoch that was read to its end
        self._resume: dict[str, Any] | None = None
        self._damage: dict[str, str] = {}

    @property
    def num_rows(self) -> int | None:
        """Rows per epoch over all processes, None if unknown. Held-out rows are estimated."""
        total = self._total()
        if total is None or self._hold_out is None:
            return total
        share = self._hold_out.fraction
        return round(total * (share if self._hold_out.held else 1 - share))

    def _total(self) -> int | None:
        counts = [shard.num_rows for shard in self.shards]
        return None if None in counts else sum(count or 0 for count in counts)

    def distributed(self, rank: int, world_size: int) -> "Stream":
        """Return the stream of one of several processes."""
        other = self._copy()
        other._rank, other._world_size = rank, world_size
        return other

    def shuffled(self, shuffle_buffer: int, seed: int) -> "Stream":
        """Return the stream for training: shuffled, and equally long in all processes."""
        other = self._copy()
        other.shuffle_buffer, other.seed, other.even = shuffle_buffer, seed, True
        return other

    def hold_out(self, fraction: float, seed: int, group: str | None) -> tuple["Stream", "Stream"]:
        """Return the rows that stay and those held out, chosen by a hash of their position or group."""
        stay, held = self._copy(), self._copy()
        stay._hold_out = _HoldOut(fraction, seed, group, held=False)
        held._hold_out = _HoldOut(fraction, seed, group, held=True)
        held.shuffle_buffer, held.even = 0, False
        return stay, held

    def _copy(self) -> "Stream":
        other = copy.copy(self)
        other._epoch = self._epoch.clone().share_memory_()
        other._damage = {}
        return other

    def set_epoch(self, epoch: int) -> None:
        """Set the next epoch, here and in running workers."""
        self._epoch.fill_(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the position of this worker, without the rows."""
        progress = self._progress
        if progress is None:
            epoch = int(self._epoch)
            return self._resume or {"epoch": epoch + 1 if epoch == self._ended else epoch}
        return {
            "epoch": progress.epoch,
            "part": progress.part,
            "parts": progress.parts,
            "division": self._division(progress.parts),
            "rows": self._total(),
            "piece": progress.piece,
            "row": progress.row,
            "keys": [key for key, _ in progress.buffer],
            "generator": progress.generator.getstate(),
        }

    def take_damage(self) -> list[tuple[str, str]]:
        """Return name and reason of each bad row and damaged shard found since the last call."""
        found, self._damage = list(self._damage.items()), {}
        return found

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict` in the next epoch."""
        self.set_epoch(int(state["epoch"]))
        self._progress = None
        self._resume = state if "keys" in state else None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield this worker's rows: inputs as `EncodedItem`, the target encoded.

        Raises:
            ValueError: If a resumed epoch had another number of workers.
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
                raise ValueError(
                    f"The stream was at part {state['part']} of {state['parts']} and cannot go on as part {part} of "
                    f"{parts}. Resume with the same number of devices and workers."
                )
            if (state["division"], state["rows"]) != (self._division(parts), self._total()):
                raise ValueError(
                    f"The stream had {state['rows']} rows, divided by {state['division']}, and now has "
                    f"{self._total()}, divided by {self._division(parts)}: the shards differ from those before. "
                    "Resume with the same data."
                )
            progress.piece, progress.row = state["piece"], state["row"]
            keys = [(int(piece), int(row)) for piece, row in state["keys"]]
            version, internal, gauss = state["generator"]
            progress.generator.setstate((version, tuple(internal), gauss))
            progress.buffer = self._read_again(keys, self._pieces(progress))
        self._progress = progress
        return progress

    def _division(self, parts: int) -> str:
        """Return the division of rows among parts: `ranges`, whole `shards`, or `turns`."""
        if self._total() is not None:
            return "ranges"
        return "shards" if len(self.shards) >= parts and not self.even else "turns"

    def _pieces(self, progress: _Progress) -> list[_Piece]:
        """Return the pieces of this part in order; of turns, the pieces of all."""
        order = list(self.shards)
        if self.shuffle_buffer:
            random.Random(f"{self.seed}/{progress.epoch}").shuffle(order)
        division = self._division(progress.parts)
        if division != "ranges":
            mine = order[progress.part :: progress.parts] if division == "shards" else order
            return [(shard, 0, None) for shard in mine]
        counts = [shard.num_rows or 0 for shard in order]
        total = sum(counts)
        first = progress.part * total // progress.parts
        last = (progress.part + 1) * total // progress.parts
        pieces: list[_Piece] = []
        begin = 0
        for shard, count in zip(order, counts, strict=True):
            inside = max(first - begin, 0), min(last - begin, count)
            if inside[0] < inside[1]:
                pieces.append((shard, *inside))
            begin += count
        return pieces

    def _source(self, progress: _Progress) -> Iterator[tuple[_Key, dict[str, Any]]]:
        """Yield the rows of this part, not shuffled."""
        rows = self._kept_rows(progress)
        if self._division(progress.parts) != "turns":
            yield from rows
            return
        while turn := list(islice(rows, progress.parts)):
            if len(turn) > progress.part:
                yield turn[progress.part]

    def _kept_rows(self, progress: _Progress) -> Iterator[tuple[_Key, dict[str, Any]]]:
        """Yield the remaining rows of the pieces, without those of the other side of the hold-out."""
        pieces = self._pieces(progress)
        while progress.piece < len(pieces):
            shard, first, last = pieces[progress.piece]
            for index, row in self._intact(shard, max(first, progress.row), last):
                progress.row = index + 1
                if isinstance(row, DamagedRow):
                    if self._hold_out is None or not self._hold_out.held:
                        self._damage[row.name] = row.reason
                elif self._hold_out is None or self._hold_out.keeps(shard.name, index, row):
                    labelled = self._labelled(row, shard, index)
                    if labelled is not None:
                        yield (progress.piece, index), labelled
            progress.piece, progress.row = progress.piece + 1, 0

    def _intact(
        self, shard: Shard, start: int, stop: int | None
    ) -> Iterator[tuple[int, dict[str, Any] | DamagedRow]]:
        """Yield numbered rows up to the damage of a shard."""
        try:
            count = None if stop is None else max(0, stop - start)
            yield from enumerate(islice(shard.rows(start), count), start=start)
        except ValueError as error:
            self._damage[shard.name] = str(error)

    def _labelled(self, row: dict[str, Any], shard: Shard, index: int) -> dict[str, Any] | None:
        """Return a row with its encoded target, None if it has none or an unknown one."""
        if self.labels is None:
            return row
        column = self.labels.column
        cell = row.get(column)
        if isinstance(cell, EncodedItem):  # long texts and lists may be inputs too
            cell = cell.value
        if self.labels.is_missing(cell):
            return None
        where = getattr(row, "where", "") or f"{shard.name}, row {index}"
        try:
            return NamedRow({**row, column: self.labels(cell, where)}, where)
        except ValueError as error:
            self._damage[where] = str(error)
            return None

    def _read_again(
        self, keys: Sequence[_Key], pieces: Sequence[_Piece]
    ) -> list[tuple[_Key, dict[str, Any]]]:
        """Read the rows of a saved buffer again."""
        rows: dict[_Key, dict[str, Any]] = {}
        for place in sorted({place for place, _ in keys}):
            wanted = {row for at, row in keys if at == place}
            shard, first = pieces[place][0], min(wanted)
            rest = islice(shard.rows(first), max(wanted) + 1 - first)
            for index, row in enumerate(rest, start=first):
                if index in wanted and not isinstance(row, DamagedRow):
                    labelled = self._labelled(row, shard, index)
                    assert labelled is not None  # it was in the buffer
                    rows[place, index] = labelled
        return [(key, rows[key]) for key in keys]
