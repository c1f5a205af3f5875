"""Which rows stand in which batch: a function of seed and epoch, so that it can be taken up anywhere."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from perceivers.data.loading.rng import make_rng

__all__ = ["BatchPlan", "BatchSampler", "LoaderSettings"]

_POOL = 50  # batches among which rows of different lengths are sorted


@dataclass(frozen=True, kw_only=True)
class LoaderSettings:
    """How rows are put into batches.

    Attributes:
        batch_size: Samples that one process (rank) gets at a time. Mixed pictures count once.
        training: Random order and augmentation, remainder dropped. Otherwise every row once, in order.
        seed: Of order, augmentation and mixing.
        num_workers: Processes that decode. 0: the process itself.
        num_classes: Width of the targets when pictures are mixed; of several tasks, of each of them.
        max_bad: Largest share of rows that may fail to decode before reading stops.
        drop_last: In training, leave out the rows that do not fill the last batch. They are others each epoch.
        world_size: Processes that share the rows.
        rank: Which of them this is.
        image_cache_bytes: Memory for decoded pictures, if all have one size and fit. 0: none.
        pin_memory: Put batches where a GPU can fetch them from.
        prefetch_batches: Batches that a thread prepares in training while there are no workers. 0: no thread.
        num_clips: Clips of each recording in evaluation, spread evenly over it.
        answers: Modalities that are no inputs but what is learned. A row that lacks one is bad.
        cache: Folder in which decoded values are kept. None: in memory, as far as `sample_cache_bytes` go.
        sample_cache_bytes: Memory for decoded values of other kinds than pictures, in a process that reads for itself.
        fingerprint: Tells kept values of these data from those of others.
    """

    batch_size: int = 128
    training: bool = False
    seed: int = 0
    num_workers: int = 0
    num_classes: int | Mapping[str, int] | None = None
    max_bad: float = 0.01
    drop_last: bool = True
    world_size: int = 1
    rank: int = 0
    image_cache_bytes: int = 2**28
    pin_memory: bool = False
    prefetch_batches: int = 2
    num_clips: int = 1
    answers: tuple[str, ...] = ()
    cache: str | None = None
    sample_cache_bytes: int = 0
    fingerprint: str = ""

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        if self.batch_size < 1:
            msg = f"Expected batch_size of at least 1, got {self.batch_size}."
            raise ValueError(msg)
        if not 0 <= self.rank < self.world_size:
            msg = (
                f"Expected rank from 0 to world_size - 1 = {self.world_size - 1}, got {self.rank}."
            )
            raise ValueError(msg)
        if min(self.seed, self.num_workers, self.prefetch_batches) < 0:
            msg = (
                f"Expected seed={self.seed}, num_workers={self.num_workers} and "
                f"prefetch_batches={self.prefetch_batches} not to be negative."
            )
            raise ValueError(msg)
        if not 0 <= self.max_bad <= 1:
            msg = f"Expected max_bad, a share of the rows, from 0 to 1, got {self.max_bad}."
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """What one batch holds.

    Attributes:
        epoch: Which pass over the rows.
        number: Which batch of the epoch, over all ranks.
        rows: Indices of the rows. With mixing, twice as many as samples: first the ones, then their partners.
    """

    epoch: int
    number: int
    rows: npt.NDArray[np.int64]


class BatchSampler:
    """The batches of one rank.

    Rank r of w takes the r-th part of each global batch, so that w ranks with batches of B see the same global
    batches as one with w * B. In evaluation each row comes once on one rank, and none is repeated.

    Args:
        num_rows: Length of the split.
        settings: Batch size, seed, ranks.
        in_pairs: Read a partner for each sample, from a second permutation.
        lengths: Of each row, where they differ. Rows of about one length then share a batch in training, so that
            little of it is padding.
    """

    def __init__(
        self,
        num_rows: int,
        settings: LoaderSettings,
        *,
        in_pairs: bool = False,
        lengths: Sequence[int] | None = None,
    ) -> None:
        self.num_rows = num_rows
        self.lengths = None if lengths is None else np.asarray(lengths)
        self.settings = settings
        self.in_pairs = in_pairs

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        settings = self.settings
        if settings.training:
            size = self._global_size()
            full, rest = divmod(self.num_rows, size)
            return full + (not settings.drop_last and rest >= settings.world_size)
        mine = len(range(settings.rank, self.num_rows, settings.world_size))
        return math.ceil(mine / settings.batch_size)

    def plans(self, epoch: int, start: int = 0) -> Iterator[BatchPlan]:
        """Yield the batches of an epoch, from number `start` on."""
        settings = self.settings
        if not settings.training:
            mine = np.arange(settings.rank, self.num_rows, settings.world_size)
            for number in range(start, len(self)):
                first = number * settings.batch_size
                yield BatchPlan(epoch, number, mine[first : first + settings.batch_size])
            return
        passes = [self._pass(epoch, turn) for turn in range(1 + self.in_pairs)]
        for number in range(start, len(self)):
            yield BatchPlan(
                epoch, number, np.concatenate([self._mine(order, number) for order in passes])
            )

    def _pass(self, epoch: int, turn: int) -> npt.NDArray[np.int64]:
        """Return all rows in random order; of different lengths, those of about one length side by side."""
        rng = make_rng("order", self.settings.seed, epoch, turn)
        order = rng.permutation(self.num_rows)
        if self.lengths is None:
            return order
        size = self._global_size()
        # Sorted within pools of many batches only: who shares a batch with whom stays a matter of chance.
        pools = [order[at : at + _POOL * size] for at in range(0, self.num_rows, _POOL * size)]
        order = np.concatenate(
            [pool[np.argsort(self.lengths[pool], kind="stable")] for pool in pools]
        )
        whole = self.num_rows // size
        batches = order[: whole * size].reshape(whole, size)
        return np.concatenate([batches[rng.permutation(whole)].ravel(), order[whole * size :]])

    def _global_size(self) -> int:
        """Return the samples of one batch over all ranks: fewer than asked for if there are fewer rows."""
        per_rank = min(self.settings.batch_size, self.num_rows // self.settings.world_size)
        return max(1, per_rank) * self.settings.world_size

    def _mine(self, order: npt.NDArray[np.int64], number: int) -> npt.NDArray[np.int64]:
        size = self._global_size()
        batch = order[number * size : (number + 1) * size]
        share = len(batch) // self.settings.world_size
        return batch[self.settings.rank * share : (self.settings.rank + 1) * share]
