"""What happens between two optimizer steps: the clock, the log, validation, checkpoints, the end."""

# ruff: noqa: ARG002  (the hooks have the arguments that Lightning gives them)

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch

from perceivers.runs.folder import BEST, LAST
from perceivers.runs.metrics import MetricsLogger
from perceivers.tasks.base import Meter, Task
from perceivers.training import distributed
from perceivers.training.batches import ResumableBatches
from perceivers.training.checkpoint import save_payload
from perceivers.training.data_wait import DataWaitTime
from perceivers.training.module import PerceiverModule
from perceivers.training.progress import ProgressDisplay
from perceivers.training.seeding import get_rng_state, set_rng_state
from perceivers.training.stopping import RunClock, StoppingCriteria, StopSignals
from perceivers.training.validation import validate
from perceivers.typing import Tensor

LOG_EVERY_STEPS = 50
SAVE_EVERY_SECONDS = 300.0


@dataclass
class BestResult:
    """The best result so far. Part of every checkpoint.

    Attributes:
        metrics: Of the best validation.
        step: At which it was.
        since: Validations since then.
        is_due: An epoch has ended, and its validation has not.
        measured_step: Step of the last validation.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    step: int = 0
    since: int = 0
    is_due: bool = False
    measured_step: int = 0


class TrainingCallback(lightning.Callback):
    """Runs everything that is not the step itself, at the one place where a run can be cut: between steps.

    Args:
        folder: The run's.
        feed: Batches of train.
        validation: Loader of the validation split.
        limits: Where the run ends.
        journal: Where results are written.
        display: Where they are shown.
        signals: Requests to stop.
        early_stopping: Validations without a better result that end the run.
    """

    def __init__(
        self,
        folder: Path,
        *,
        feed: ResumableBatches,
        validation: Any,
        limits: StoppingCriteria,
        journal: MetricsLogger,
        display: ProgressDisplay,
        signals: StopSignals,
        early_stopping: int | None = None,
    ) -> None:
        self.folder = folder
        self.feed = feed
        self.limits = limits
        self.standing = BestResult()
        self.clock = RunClock()
        self.samples = 0  # since this process began
        self.waited = DataWaitTime()  # for data, in the whole run
        self.validation = validation
        self._journal = journal
        self._display = display
        self._signals = signals
        self._patience = early_stopping
        self._elapsed = 0.0  # as all processes agreed
        self._first_step = 0.0  # when it had been done, of a run that time limits
        self._stop = 0  # signal that was received, as all processes agreed
        self._is_time_to_save = False  # as all processes agreed
        self._saved_at = 0.0
        self._restored: dict[str, Any] | None = None

    # -- hooks, in the order in which Lightning calls them ------------------------------------------------

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Take up where the checkpoint, if any, has left."""
        module = _ours(pl_module)
        average = module.average  # begins from the weights as they are before the first step
        if self._restored is not None:
            module.sums.values, module.lr = self._restored["sums"], self._restored["lr"]
            if average is not None:
                average.load_state_dict(self._restored["average"])
            states = self._restored["random"]
            set_rng_state(states[min(trainer.global_rank, len(states) - 1)])
            if trainer.is_global_zero:
                self._journal.cut_after(trainer.global_step)
            self._restored = None
        self.clock.start()
        self._saved_at = time.monotonic()
        self._signals.listen()
        if trainer.is_global_zero:
            self._display.start()
        self._agree(trainer, module)
        if self.standing.is_due:
            self._close_epoch(trainer, module)
        self._end_if_done(trainer, module)
        self.feed.watch.begin()

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """End the waiting for a batch, which the feed began."""
        self.feed.watch.receive()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Do what is due after an optimizer step."""
        module = _ours(pl_module)
        self.samples += len(batch.batch) * trainer.world_size
        if self.feed.batches % self.feed.accumulate:
            return  # in the middle of a step
        step = trainer.global_step
        if module.average is not None:
            module.average.update(module.model, step=step)
        self._agree(trainer, module)
        closes = self.feed.at_epoch_end or module.progress >= 1
        logs = closes or step % LOG_EVERY_STEPS == 0
        self.feed.watch.end(pauses=logs or bool(self._stop) or self._is_time_to_save)
        if closes:
            self.standing.is_due = True
            self._close_epoch(trainer, module)
        elif logs:
            self._log(trainer, module, {})
        if trainer.is_global_zero:
            self._display.step(
                progress=module.progress, step=step, epoch=self.feed.epoch, samples=self.samples
            )
        if self._stop:
            self._leave(trainer)
        if self.standing.measured_step == step or self._is_time_to_save:
            self.save(trainer)
        self._end_if_done(trainer, module)
        self.feed.watch.begin()

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Let the terminal and the signals go."""
        self._display.stop()
        self._signals.release()

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        """Let the terminal and the signals go, whatever has happened."""
        self._display.stop()
        self._signals.release()

    # -- checkpoints ------------------------------------------------------------------------------------

    def save(self, trainer: lightning.Trainer) -> None:
        """Write the checkpoint from which a run goes on.

        Raises:
            OSError: If there is no room. The checkpoint from before is then still there.
            ValueError: If the loss is no number any more.
        """
        self._means(trainer, _ours(trainer.lightning_module))
        trainer.save_checkpoint(self.folder / LAST)
        self._saved_at = time.monotonic()

    def on_save_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Add what Lightning does not know. Plain values and tensors, which need no unpickling."""
        module = _ours(pl_module)
        averages = None if module.average is None else module.average.state_dict()
        checkpoint["perceivers"] = {
            "feed": distributed.gather_objects(self.feed.state_dict()),
            "random": distributed.gather_objects(get_rng_state()),
            "elapsed": self._elapsed,
            "first_step": self._first_step,
            "lr": module.lr,
            "standing": vars(self.standing).copy(),
            "sums": distributed.summed(module.sums.values, module.device).cpu(),
            "average": averages and {k: distributed.whole(v) for k, v in averages.items()},
            "waited": vars(self.waited).copy(),
            "bad": list(getattr(self.feed.loader, "bad", ())),
            "world_size": trainer.world_size,
        }

    def on_load_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Go to the place of the checkpoint; what needs the device waits for `on_train_start`."""
        state = checkpoint["perceivers"]
        self._restored = state
        if trainer.global_rank > 0:
            state["sums"] = torch.zeros_like(state["sums"])  # they are those of all processes
        self.standing = BestResult(**state["standing"])
        self.clock = RunClock(state["elapsed"])
        self._first_step = state.get("first_step", 0.0)  # runs from before have none
        self.waited = DataWaitTime(**state["waited"])
        feeds = state["feed"]
        self.feed.load_state_dict(feeds[min(trainer.global_rank, len(feeds) - 1)])

    # -- parts ------------------------------------------------------------------------------------------

    def _agree(self, trainer: lightning.Trainer, module: PerceiverModule) -> None:
        """Let all processes have the same time, and so the same rate, and stop and save together."""
        is_due = time.monotonic() - self._saved_at >= SAVE_EVERY_SECONDS
        mine = torch.tensor(
            [self.clock.elapsed, self._signals.received, is_due], dtype=torch.float64
        )
        elapsed, stop, save = distributed.largest(mine, module.device).tolist()
        self._elapsed, self._stop, self._is_time_to_save = elapsed, int(stop), bool(save)
        if trainer.global_step <= 1 and self.limits.seconds is not None:
            self._first_step = elapsed
        module.progress = self.limits.progress(
            epochs=self.feed.epochs_done,
            steps=trainer.global_step,
            seconds=elapsed,
            first_step=self._first_step,
        )

    def _log(
        self, trainer: lightning.Trainer, module: PerceiverModule, measured: dict[str, float]
    ) -> None:
        """Write one line and begin new sums."""
        means = self._means(trainer, module)
        module.sums.values = torch.zeros_like(module.sums.values)
        waited = self.feed.watch.take().slowest(module.device)
        self.waited.add(waited)
        row = {
            "step": trainer.global_step,
            "epoch": round(self.feed.epochs_done, 6),
            "elapsed": round(self._elapsed, 3),
            "lr": module.lr,
            **({} if waited.share is None else {"waiting": round(waited.share, 4)}),
            **{f"train/{name}": value for name, value in means.items()},
            **{f"validation/{name}": value for name, value in measured.items()},
        }
        if trainer.is_global_zero:
            self._journal.write(row)
            self._display.result(row, progress=module.progress)

    def _means(self, trainer: lightning.Trainer, module: PerceiverModule) -> dict[str, float]:
        """Return the means of all processes since the last line.

        Raises:
            ValueError: If the loss is no number any more. It is looked at before anything is saved.
        """
        means = module.sums.means(distributed.summed(module.sums.values, module.device))
        if not math.isfinite(means["loss"]):
            raise ValueError(
                f"The loss was {means['loss']} before step {trainer.global_step}: the run has diverged. "
                f"Use a lower rate (--optim.lr, now {module.optim.lr:g}), a warm-up "
                "(--optim.warmup-steps 500) or a smaller --optim.clip-norm."
            )
        return means

    def _close_epoch(self, trainer: lightning.Trainer, module: PerceiverModule) -> None:
        """Validate, log, and keep the weights if they are the best."""
        alone = trainer.world_size == 1
        meter = validate(
            module,
            self.validation,
            is_sharded=distributed.is_sharded(module.model),
            should_stop=lambda: alone and bool(self._signals.received),
        )
        if meter is None:  # the validation stays due, and is done when the run is resumed
            self._stop = self._signals.received
            self._leave(trainer)
            return
        measured = meter.compute()
        self._log(trainer, module, measured)
        standing, task = self.standing, module.task
        standing.is_due, standing.measured_step = False, trainer.global_step
        if _is_better(measured, standing.metrics, task):
            standing.metrics, standing.step, standing.since = measured, trainer.global_step, 0
            self._keep_best(trainer, module, meter)
        else:
            standing.since += 1

    def _keep_best(self, trainer: lightning.Trainer, module: PerceiverModule, meter: Meter) -> None:
        weights: dict[str, Tensor] = dict(module.model.state_dict())
        if module.average is not None:
            weights |= module.average.state_dict()
        weights = {name: distributed.whole(tensor) for name, tensor in weights.items()}
        if trainer.is_global_zero:
            payload = {
                "model": weights,
                "metrics": self.standing.metrics,
                "step": self.standing.step,
                "epoch": self.feed.epochs_done,
                "confusion": getattr(meter, "confusion", None),
                "details": meter.details(),
                "tasks": {
                    name: {"confusion": getattr(one, "confusion", None), "details": one.details()}
                    for name, one in getattr(meter, "parts", {}).items()
                },
            }
            save_payload(self.folder / BEST, payload)

    def _end_if_done(self, trainer: lightning.Trainer, module: PerceiverModule) -> None:
        impatient = self._patience is not None and self.standing.since >= self._patience
        if module.progress >= 1 or impatient:
            trainer.should_stop = True

    def _leave(self, trainer: lightning.Trainer) -> None:
        """Save and end the process as the signal would have: with 128 + its number."""
        self.save(trainer)
        if trainer.is_global_zero:
            self._display.stop()
            self._display.note(
                f"Stopped at step {trainer.global_step}; saved in {self.folder / LAST}. "
                "The same command with --resume goes on from there."
            )
        raise SystemExit(128 + self._stop if trainer.is_global_zero else 0)


def _is_better(new: dict[str, float], old: dict[str, float], task: Task) -> bool:
    """Tell whether a validation is the best so far. Of equals, which a small split has many, by its loss."""
    if not old:
        return True
    mine, best = new[task.main_metric], old[task.main_metric]
    if mine == best:
        return new["loss"] < old["loss"]
    return mine > best if task.higher_is_better else mine < best


def _ours(module: lightning.LightningModule) -> PerceiverModule:
    assert isinstance(module, PerceiverModule)
    return module
