"""A split whose rows are read in the order of its shards: for data larger than the memory or the disk."""

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
from perceivers.data.streaming.shards import Shard

_Key = tuple[int, int]  # the how-manieth piece of this part, and the row in its shard
_Piece = tuple[
    Shard, int, int | None
]  # a shard, its first row and the row behind its last; None: to its end


@runtime_checkable
class _Labels(Protocol):
    """Encodes a target; `TargetEncoder`."""

    @property
    def column(self) -> str:
        """The target column."""
        ...

    def __call__(self, value: Any, where: str) -> Any:
        """Return the target."""
        ...


@dataclass
class _Progress:
    """Where one worker's pass is: enough to go on exactly."""

    epoch: int
    part: int
    parts: int
    piece: int = 0  # of this part's pieces, the next to read from
    row: int = 0  # the next row in its shard; 0 at the beginning of a piece
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
        group = None if self.group is None else row[self.group]
        if isinstance(group, EncodedItem):
            group = group.value
        key = f"{name}/{index}" if self.group is None else str(group)
        digest = hashlib.blake2b(f"{self.seed}/{key}".encode(), digest_size=8).digest()
        return (int.from_bytes(digest) < self.fraction * 2**64) == self.held


class Stream:
    """Rows in the order of the shards, shuffled among some, divided over processes.

    Each row comes once in a pass over all parts (workers of all processes). Where every shard knows its number of
    rows, the shards in their order make one long row, which is cut into equally long ranges: parts differ by one
    row at most, before any are held out. Otherwise parts take turns, row by row, so that all read everything; or,
    where they need not be equally long, each has shards of its own. Inside a `DataLoader`'s `IterableDataset` a
    stream finds out by itself which worker it is.

    A shard that is damaged or cut short gives the rows before the damage. The rest of it counts as one bad row.

    Args:
        shards: What to read.
        labels: Turns the cells of the target column into targets. None: there is no target.
        shuffle_buffer: Rows of a process among which the next one is picked. 0: the order of the shards.
        seed: Of the order of shards and of that pick.
        even: Whether parts must be equally long: in training, no process can go on without the others.
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
        # Shared with the workers, which live longer than a pass if they are persistent.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._progress: _Progress | None = None
        self._ended: int | None = None  # the pass that was read to its end last
        self._resume: dict[str, Any] | None = None
        self._damage: dict[str, str] = {}

    @property
    def num_rows(self) -> int | None:
        """Rows of one pass over all processes; None where they are not known before. Held-out ones guessed."""
        total = self._total()
        if total is None or self._hold_out is None:
            return total
        share = self._hold_out.fraction
        return round(total * (share if self._hold_out.held else 1 - share))

    def _total(self) -> int | None:
        counts = [shard.num_rows for shard in self.shards]
        return None if None in counts else sum(count or 0 for count in counts)

    def distributed(self, rank: int, world_size: int) -> "Stream":
        """Return the stream of one process of several."""
        other = self._copy()
        other._rank, other._world_size = rank, world_size
        return other

    def shuffled(self, shuffle_buffer: int, seed: int) -> "Stream":
        """Return the stream for training: shuffled, and equally long in all processes."""
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
        other._damage = {}
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
            "how": self._how(progress.parts),
            "rows": self._total(),
            "piece": progress.piece,
            "row": progress.row,
            "keys": [key for key, _ in progress.buffer],
            "generator": progress.generator.getstate(),
        }

    def take_damage(self) -> list[tuple[str, str]]:
        """Return name and reason of each shard that was found damaged since this was asked last."""
        found, self._damage = list(self._damage.items()), {}
        return found

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on in the next pass where `state_dict` was taken."""
        self.set_epoch(int(state["epoch"]))
        self._progress = None
        self._resume = state if "keys" in state else None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of this worker: media as `EncodedItem`, the target encoded (a class index, a vector).

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
                raise ValueError(
                    f"The stream was at part {state['part']} of {state['parts']} and cannot go on as part {part} of "
                    f"{parts}. Resume with the same number of devices and workers."
                )
            if (state["how"], state["rows"]) != (self._how(parts), self._total()):
                raise ValueError(
                    f"The stream had {state['rows']} rows, divided by {state['how']}, and now has {self._total()}, "
                    f"divided by {self._how(parts)}: the shards are others than before. Resume with the same data."
                )
            progress.piece, progress.row = state["piece"], state["row"]
            keys = [(int(piece), int(row)) for piece, row in state["keys"]]
            version, internal, gauss = state["generator"]
            progress.generator.setstate((version, tuple(internal), gauss))
            progress.buffer = self._read_again(keys, self._pieces(progress))
        self._progress = progress
        return progress

    def _how(self, parts: int) -> str:
        """Return how rows are divided: by `ranges`, by whole `shards`, or by taking `turns`."""
        if self._total() is not None:
            return "ranges"
        return "shards" if len(self.shards) >= parts and not self.even else "turns"

    def _pieces(self, progress: _Progress) -> list[_Piece]:
        """Return what this part reads, or what all read in turns, in its order."""
        order = list(self.shards)
        if self.shuffle_buffer:
            random.Random(f"{self.seed}/{progress.epoch}").shuffle(order)
        how = self._how(progress.parts)
        if how != "ranges":
            mine = order[progress.part :: progress.parts] if how == "shards" else order
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
        """Yield the rows of this part, not shuffled, and keep count."""
        rows = self._kept_rows(progress)
        if self._how(progress.parts) != "turns":
            yield from rows
            return
        while turn := list(islice(rows, progress.parts)):
            if len(turn) > progress.part:
                yield turn[progress.part]

    def _kept_rows(self, progress: _Progress) -> Iterator[tuple[_Key, dict[str, Any]]]:
        """Yield the rows of the pieces that this side of the hold-out has, from where the pass stands on."""
        pieces = self._pieces(progress)
        while progress.piece < len(pieces):
            shard, first, last = pieces[progress.piece]
            for index, row in self._intact(shard, max(first, progress.row), last):
                progress.row = index + 1
                if self._hold_out is None or self._hold_out.keeps(shard.name, index, row):
                    yield (progress.piece, index), self._labelled(row, shard, index)
            progress.piece, progress.row = progress.piece + 1, 0

    def _intact(
        self, shard: Shard, start: int, stop: int | None
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield rows with their numbers, up to where the shard is damaged."""
        try:
            count = None if stop is None else max(0, stop - start)
            yield from enumerate(islice(shard.rows(start), count), start=start)
        except ValueError as error:
            self._damage[shard.name] = str(error)

    def _labelled(self, row: dict[str, Any], shard: Shard, index: int) -> dict[str, Any]:
        if self.labels is None:
            return row
        column = self.labels.column
        cell = row.get(column)
        if isinstance(cell, EncodedItem):  # long texts and lists are what a model may read, too
            cell = cell.value
        return {**row, column: self.labels(cell, f"{shard.name}, row {index}")}

    def _read_again(
        self, keys: Sequence[_Key], pieces: Sequence[_Piece]
    ) -> list[tuple[_Key, dict[str, Any]]]:
        """Return the rows that lay in the buffer, from the shards."""
        rows: dict[_Key, dict[str, Any]] = {}
        for place in sorted({place for place, _ in keys}):
            wanted = {row for at, row in keys if at == place}
            shard, first = pieces[place][0], min(wanted)
            for index, row in enumerate(
                islice(shard.rows(first), max(wanted) + 1 - first), start=first
            ):
                if index in wanted:
                    rows[place, index] = self._labelled(row, shard, index)
        return [(key, rows[key]) for key in keys]
