"""Infinite, resumable iterator over training batches.

Lightning sees a single endless epoch; passes over the data are counted here. Lightning's own epochs resume in five
different ways, depending on where a run was interrupted.
"""

from collections.abc import Callable, Iterator, Sized
from typing import Any

import torch

from perceivers.data.base import Batch
from perceivers.training.data_wait import StepTimer

ENDLESS = 2**40  # with a length, Lightning does not prefetch to find the end


class TrainBatch:
    """A batch and its position in the run. Not a dataclass: Lightning would move its fields one by one.

    Args:
        batch: Samples.
        epoch: Index of the epoch.
        index: Index of the batch in the epoch.
        weight: Weight of its mean loss. The trainer averages over the batches of a step and the processes; with this
            weight that is the mean over their samples. 1 if all batches are equally large.
    """

    def __init__(self, batch: Batch, *, epoch: int, index: int, weight: float = 1.0) -> None:
        self.batch, self.epoch, self.index, self.weight = batch, epoch, index, weight

    def to(self, device: torch.device, *, non_blocking: bool = False) -> "TrainBatch":
        """Return it with its tensors on `device`."""
        # Lightning requests this for tensors only. To a GPU it is safe: the kernels come after the copy.
        moved = self.batch.to(device, non_blocking=non_blocking or device.type == "cuda")
        return TrainBatch(moved, epoch=self.epoch, index=self.index, weight=self.weight)


class ResumableBatches:
    """Yield the batches of a loader, epoch after epoch, in complete optimizer steps.

    The last batches of an epoch that do not make a complete step are dropped; the next epoch has another order, so
    other samples are dropped then.

    Args:
        loader: Training loader. Its order is a function of the epoch, set by `set_epoch`. Its `state_dict` is the
            position in an epoch.
        accumulate: Batches in one optimizer step.
        agree: Called with whether this process has a complete step, and its number of samples; returns whether all
            processes have one, and their mean number of samples. A stream may end earlier in one process, and rows that
            cannot be decoded make batches smaller.
        timer: Measures the wait for each batch.
        data: Fingerprint of the rows. A position among other rows means nothing.
    """

    def __init__(
        self,
        loader: Any,
        *,
        accumulate: int = 1,
        agree: Callable[[bool, int], tuple[bool, float]] = lambda whole, samples: (whole, samples),
        timer: StepTimer | None = None,
        data: str = "",
    ) -> None:
        self.epoch = 0
        self.batches_done = 0  # in this epoch
        self.at_epoch_end = False
        self.timer = StepTimer(torch.device("cpu")) if timer is None else timer
        self._agree = agree
        self._data = data
        self._resume: dict[str, Any] | None = None
        self._position: Any = None
        self.use(loader, accumulate=accumulate)

    def use(self, loader: Any, *, accumulate: int) -> None:
        """Replace the loader, before the first batch."""
        self.loader = loader
        self.accumulate = accumulate
        # A stream estimates its length at first, so that the learning rate decays in its first epoch, too.
        length = len(loader) if isinstance(loader, Sized) else getattr(loader, "num_batches", None)
        self.steps_per_epoch: int | None = None if length is None else length // accumulate

    def __len__(self) -> int:
        """Return a length that no run reaches."""
        return ENDLESS

    def __iter__(self) -> Iterator[TrainBatch]:
        """Continue from the current position."""
        self.timer.ask()
        while True:
            was_resumed = self._resume is not None
            for (group, samples), is_last in self._groups():
                for batch in group:
                    index, self.batches_done = self.batches_done, self.batches_done + 1
                    self.at_epoch_end = is_last and batch is group[-1]
                    weight = len(batch) * self.accumulate / samples
                    yield TrainBatch(batch, epoch=self.epoch, index=index, weight=weight)
                    self.timer.ask()
            if self.batches_done:
                self.steps_per_epoch = self.batches_done // self.accumulate
            elif not was_resumed:
                raise ValueError(
                    "Expected at least one complete batch in train, got none that could be read."
                )
            self.epoch, self.batches_done, self.at_epoch_end = self.epoch + 1, 0, False

    @property
    def epochs_done(self) -> float:
        """Epochs done, with the fraction of the current one if its length is known."""
        if self.at_epoch_end or not self.steps_per_epoch:
            return float(self.epoch + self.at_epoch_end)
        # A single division, so that a milestone at 84 of 120 epochs is met exactly.
        per_epoch = self.steps_per_epoch * self.accumulate
        batches = min(self.batches_done, per_epoch - 1)  # an estimate may be too low
        return (self.epoch * per_epoch + batches) / per_epoch

    @property
    def steps_left(self) -> int | None:
        """Optimizer steps left in this epoch; None if its length is unknown, or was estimated too low."""
        if self.steps_per_epoch is None:
            return None
        left = self.steps_per_epoch - self.batches_done // self.accumulate
        return left if left >= 0 else None

    def state_dict(self) -> dict[str, Any]:
        """Return the position between two optimizer steps, as plain values."""
        epoch, batches = (
            (self.epoch + 1, 0) if self.at_epoch_end else (self.epoch, self.batches_done)
        )
        return {
            "epoch": epoch,
            "batches": batches,
            "loader": self._position,
            "data": self._data,
            "steps_per_epoch": self.steps_per_epoch,  # unknown to a new stream
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a position; the next `iter` starts there, or with the next epoch if the rows differ."""
        if state["data"] != self._data:
            self.epoch, self.batches_done = state["epoch"] + (state["batches"] > 0), 0
            self.at_epoch_end = False
            return
        self.epoch, self.batches_done, self.at_epoch_end = state["epoch"], state["batches"], False
        self._position, self._resume = state["loader"], dict(state)
        if not isinstance(self.loader, Sized):
            self.steps_per_epoch = state["steps_per_epoch"]

    def _groups(self) -> Iterator[tuple[tuple[list[Batch], float], bool]]:
        """Yield the batches of each step of this epoch, the mean samples of a process, and whether it is the last.

        Looks one step ahead: with rows that cannot be decoded, and in streams, the last step is not known before.
        """
        batches = self._batches_of_epoch()
        group = self._take(batches)
        while group is not None:
            if hasattr(self.loader, "state_dict"):
                self._position = self.loader.state_dict()  # before looking ahead
            ahead = self._take(batches)
            yield group, ahead is None
            group = ahead

    def _take(self, batches: Iterator[Batch]) -> tuple[list[Batch], float] | None:
        group = [batch for _, batch in zip(range(self.accumulate), batches, strict=False)]
        whole, samples = self._agree(len(group) == self.accumulate, sum(map(len, group)))
        return (group, samples) if whole else None

    def _batches_of_epoch(self) -> Iterator[Batch]:
        resume, self._resume = self._resume, None
        position = None if resume is None else resume["loader"]
        if position is not None:
            self.loader.load_state_dict(position)
        if hasattr(self.loader, "set_epoch"):
            self.loader.set_epoch(self.epoch)  # a position at the end of the previous epoch
        batches = iter(self.loader)
        if position is None and resume is not None:
            for _ in range(
                resume["batches"]
            ):  # without a state, batches that were used are skipped
                next(batches, None)
        return batches
