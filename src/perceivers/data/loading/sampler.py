"""Assignment of rows to batches: a function of seed and epoch, so that it can be resumed at any batch."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from perceivers.data.loading.rng import make_rng

_POOL = 50  # batches within which rows are sorted by length


@dataclass(frozen=True, kw_only=True)
class LoaderSettings:
    """Settings of a loader.

    Attributes:
        batch_size: Samples per process (rank) and batch. Mixed samples count once.
        training: Random order and augmentation, remainder dropped. Otherwise every row once, in order.
        seed: Seed of order, augmentation and mixing.
        num_workers: Processes that decode. 0: this process.
        num_classes: Width of the targets if samples are mixed; of several tasks, of each of them.
        max_bad: Largest share of rows that may fail to decode before the run stops.
        num_rows: Rows of which `max_bad` is a share, such as those of train and of the validation split held out of it.
            None: those of the split.
        drop_last: Drop the last, incomplete batch in training. Each epoch drops other rows.
        world_size: Number of processes (ranks) that share the rows.
        rank: Number of this process.
        image_cache_bytes: Memory for decoded images, used if all have one size and fit. 0: none.
        pin_memory: Put batches in pinned memory.
        prefetch_batches: Batches that a thread prefetches in training if there are no workers. 0: no thread.
        num_clips: Clips per sample in evaluation, evenly spaced.
        target_modalities: Modalities that are targets, not inputs. A row without one is bad.
        cache: Folder of cached decoded values. None: in memory, up to `sample_cache_bytes`.
        sample_cache_bytes: Memory for decoded values other than images, if there are no workers.
        fingerprint: Identifies the configuration of decoding in the folder `cache`.
    """

    batch_size: int = 128
    training: bool = False
    seed: int = 0
    num_workers: int = 0
    num_classes: int | Mapping[str, int] | None = None
    max_bad: float = 0.01
    num_rows: int | None = None
    drop_last: bool = True
    world_size: int = 1
    rank: int = 0
    image_cache_bytes: int = 2**28
    pin_memory: bool = False
    prefetch_batches: int = 2
    num_clips: int = 1
    target_modalities: tuple[str, ...] = ()
    cache: str | None = None
    sample_cache_bytes: int = 0
    fingerprint: str = ""

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.batch_size < 1:
            raise ValueError(f"Expected batch_size of at least 1, got {self.batch_size}.")
        if not 0 <= self.rank < self.world_size:
            raise ValueError(
                f"Expected rank from 0 to world_size - 1 = {self.world_size - 1}, got {self.rank}."
            )
        if min(self.seed, self.num_workers, self.prefetch_batches) < 0:
            raise ValueError(
                f"Expected seed={self.seed}, num_workers={self.num_workers} and "
                f"prefetch_batches={self.prefetch_batches} not to be negative."
            )
        if not 0 <= self.max_bad <= 1:
            raise ValueError(
                f"Expected max_bad, a share of the rows, from 0 to 1, got {self.max_bad}."
            )


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Rows of one batch.

    Attributes:
        epoch: Number of the epoch.
        number: Number of the batch in the epoch, over all ranks.
        rows: Indices of the rows. With mixing, twice as many as samples: first ones, then their partners.
    """

    epoch: int
    number: int
    rows: npt.NDArray[np.int64]


class BatchSampler:
    """Plans the batches of one rank.

    Rank r of w takes the r-th part of each global batch, so that w ranks with batches of B see the same global batches
    as one rank with w * B. In evaluation each row comes once on one rank, and none is repeated.

    Args:
        num_rows: Rows of the split.
        settings: Settings of the loader.
        in_pairs: Read a partner for each sample, from a second permutation.
        lengths: Length of each row, if they differ. Training batches then hold rows of similar length, which need
            little padding.
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
        """Return all rows in random order, grouped by similar length if lengths are known."""
        rng = make_rng("order", self.settings.seed, epoch, turn)
        order = rng.permutation(self.num_rows)
        if self.lengths is None:
            return order
        size = self._global_size()
        # Sorted within pools of batches only, so that batches stay random.
        pools = [order[at : at + _POOL * size] for at in range(0, self.num_rows, _POOL * size)]
        order = np.concatenate(
            [pool[np.argsort(self.lengths[pool], kind="stable")] for pool in pools]
        )
        full = self.num_rows // size
        batches = order[: full * size].reshape(full, size)
        return np.concatenate([batches[rng.permutation(full)].ravel(), order[full * size :]])

    def _global_size(self) -> int:
        """Return the batch size over all ranks, smaller than configured if there are fewer rows."""
        per_rank = min(self.settings.batch_size, self.num_rows // self.settings.world_size)
        return max(1, per_rank) * self.settings.world_size

    def _mine(self, order: npt.NDArray[np.int64], number: int) -> npt.NDArray[np.int64]:
        size = self._global_size()
        batch = order[number * size : (number + 1) * size]
        share = len(batch) // self.settings.world_size
        return batch[self.settings.rank * share : (self.settings.rank + 1) * share]
