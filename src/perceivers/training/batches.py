"""One endless row of batches that knows where it is, so that a run can go on in the middle of an epoch.

Lightning sees a single epoch without end; passes over the data are counted here. Its own account of
epochs restarts in five different ways, depending on where it was interrupted; this one has one.
"""

from collections.abc import Callable, Iterator, Sized
from typing import Any

import torch

from perceivers.data.base import Batch
from perceivers.training.data_wait import StepTimer

ENDLESS = 2**40  # a length, so that Lightning does not read ahead to look for the end


class TrainBatch:
    """A batch and its place in the run. Not a dataclass: Lightning would take it apart.

    Args:
        batch: Samples.
        epoch: Passes over train before this one.
        index: Batches of this epoch before this one.
        weight: Of its mean loss. Trainers take the mean over the batches of a step and the processes; times
            this, it becomes the mean over their samples. 1 where all batches have the same number of them.
    """

    def __init__(self, batch: Batch, *, epoch: int, index: int, weight: float = 1.0) -> None:
        self.batch, self.epoch, self.index, self.weight = batch, epoch, index, weight

    def to(self, device: torch.device, *, non_blocking: bool = False) -> "TrainBatch":
        """Return it with its tensors on `device`."""
        # Lightning asks for this for tensors only. To a GPU it is safe: the kernels come after the copy.
        moved = self.batch.to(device, non_blocking=non_blocking or device.type == "cuda")
        return TrainBatch(moved, epoch=self.epoch, index=self.index, weight=self.weight)


class ResumableBatches:
    """Hands out the batches of a loader, epoch after epoch, in whole optimizer steps.

    What is left of an epoch when no whole step can be made of it is not used; the order of the next epoch is
    another, so other samples are left then.

    Args:
        loader: Loader of train. Its order is a function of the epoch, which `set_epoch` tells it. Its
            `state_dict` is the place in an epoch.
        accumulate: Batches in one optimizer step.
        agree: Is given whether this process has a whole step, and its samples. Returns whether all have one,
            and the mean of their samples. A stream may end earlier in one of them, and no process can take a
            step alone; a picture that cannot be read leaves one with fewer samples.
        watch: Is told whenever the next batch is asked for.
    """

    def __init__(
        self,
        loader: Any,
        *,
        accumulate: int = 1,
        agree: Callable[[bool, int], tuple[bool, float]] = lambda whole, samples: (whole, samples),
        watch: StepTimer | None = None,
    ) -> None:
        self.epoch = 0
        self.batches = 0  # of this epoch, handed out
        self.at_epoch_end = False
        self.watch = StepTimer(torch.device("cpu")) if watch is None else watch
        self._agree = agree
        self._resume: dict[str, Any] | None = None
        self._position: Any = None
        self.use(loader, accumulate=accumulate)

    def use(self, loader: Any, *, accumulate: int) -> None:
        """Take the batches from another loader, before the first is taken."""
        self.loader = loader
        self.accumulate = accumulate
        # A stream guesses at first, so that the rate falls in its first pass too.
        length = len(loader) if isinstance(loader, Sized) else getattr(loader, "num_batches", None)
        self.steps_per_epoch: int | None = None if length is None else length // accumulate

    def __len__(self) -> int:
        """Return a length that no run reaches."""
        return ENDLESS

    def __iter__(self) -> Iterator[TrainBatch]:
        """Go on from where the feed is."""
        self.watch.ask()
        while True:
            was_resumed = self._resume is not None
            for (group, samples), is_last in self._groups():
                for batch in group:
                    index, self.batches = self.batches, self.batches + 1
                    self.at_epoch_end = is_last and batch is group[-1]
                    weight = len(batch) * self.accumulate / samples
                    yield TrainBatch(batch, epoch=self.epoch, index=index, weight=weight)
                    self.watch.ask()
            if self.batches:
                self.steps_per_epoch = self.batches // self.accumulate
            elif not was_resumed:
                raise ValueError(
                    "Expected at least one whole batch in train, got none that could be read."
                )
            self.epoch, self.batches, self.at_epoch_end = self.epoch + 1, 0, False

    @property
    def epochs_done(self) -> float:
        """Passes over train, counting the part of the present one where its length is known."""
        if self.at_epoch_end or not self.steps_per_epoch:
            return float(self.epoch + self.at_epoch_end)
        # Divided once, so that a milestone at 84 of 120 epochs is met exactly.
        per_epoch = self.steps_per_epoch * self.accumulate
        batches = min(self.batches, per_epoch - 1)  # a guess may have been too low
        return (self.epoch * per_epoch + batches) / per_epoch

    def state_dict(self) -> dict[str, Any]:
        """Return the place between two optimizer steps. Plain values only."""
        place = (self.epoch + 1, 0) if self.at_epoch_end else (self.epoch, self.batches)
        return {
            "epoch": place[0],
            "batches": place[1],
            "loader": self._position,
            "steps_per_epoch": self.steps_per_epoch,  # which a stream had to find out
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a place; the next `iter` begins there."""
        self.epoch, self.batches, self.at_epoch_end = state["epoch"], state["batches"], False
        self._position, self._resume = state["loader"], dict(state)
        if not isinstance(self.loader, Sized):
            self.steps_per_epoch = state["steps_per_epoch"]

    def _groups(self) -> Iterator[tuple[tuple[list[Batch], float], bool]]:
        """Yield the batches of each step of this epoch, with a process' mean samples, and whether it is the last.

        Looks one step ahead: where rows cannot be read, or a stream ends, no length tells the last step.
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
            self.loader.set_epoch(self.epoch)  # where the position is of the epoch before, its end
        batches = iter(self.loader)
        if position is None and resume is not None:
            for _ in range(resume["batches"]):  # no state to load: read and leave what was seen
                next(batches, None)
        return batches
