"""Lightning callback between the optimizer steps: logging, validation, checkpoints, stopping criteria."""

# ruff: noqa: ARG002  (the hooks have the arguments that Lightning passes)

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from perceivers.data.base import Batch
from perceivers.runs.folder import BEST, LAST
from perceivers.runs.metrics import MetricsLogger
from perceivers.tasks.averaging import Views, combine_clips, infer_views
from perceivers.tasks.base import forward_task
from perceivers.tasks.intervals import Interval
from perceivers.tasks.meters import Meter
from perceivers.training import distributed
from perceivers.training.batches import ResumableBatches
from perceivers.training.checkpoint import save_payload
from perceivers.training.data_wait import DataWaitTime
from perceivers.training.low_rank import merged_weights
from perceivers.training.module import PerceiverModule
from perceivers.training.optim import local
from perceivers.training.progress import ProgressDisplay
from perceivers.training.seeding import get_rng_state, set_rng_state
from perceivers.training.selection import FIRST_VALIDATIONS, BestResult, losses_of_parts
from perceivers.training.stopping import RunClock, StoppingCriteria, StopSignals
from perceivers.typing import Tensor
from perceivers.wording import counted, names_text

LOG_EVERY_STEPS = 50
SAVE_EVERY_SECONDS = 300.0
SAVE_SHARE = 0.03  # of the time at most is spent on checkpoints after validations


class TrainingCallback(Callback):
    """Everything in a training run but the steps: a run is logged, validated, saved and stopped between steps only.

    Args:
        early_stopping: Validations without improvement after which the run ends. None: never.
    """

    def __init__(
        self,
        folder: Path,
        *,
        batches: ResumableBatches,
        validation: Any,
        limits: StoppingCriteria,
        metrics: MetricsLogger,
        display: ProgressDisplay,
        signals: StopSignals,
        early_stopping: int | None = None,
    ) -> None:
        self.folder = folder
        self.batches = batches
        self.limits = limits
        self.best = BestResult()
        self.clock = RunClock()
        self.samples = 0  # since this process began
        self.wait_time = DataWaitTime()  # of the whole run
        self.validation = validation
        self._metrics = metrics
        self._display = display
        self._signals = signals
        self._patience = early_stopping
        self._elapsed = 0.0  # seconds, the same in all processes
        self._first_step = 0.0  # seconds at the end of the first step, for a time limit
        self._stop = 0  # received signal, the same in all processes
        self._is_time_to_save = False  # the same in all processes
        self._saved_at = 0.0
        self._save_seconds = 0.0  # duration of the last save
        self._candidate: dict[str, Any] | None = None  # weights to keep, not written yet
        self._logged_step = 0
        self._restored: dict[str, Any] | None = None
        self._reported: set[str] = set()  # names of bad rows

    # -- hooks, in the order in which Lightning calls them ------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the state of the checkpoint, if any."""
        module = cast("PerceiverModule", pl_module)
        average = module.average  # starts from the weights before the first step
        if self._restored is not None:
            module.sums.values, module.lr = self._restored["sums"], self._restored["lr"]
            if average is not None:
                average.load_state_dict(self._restored["average"])
            states = self._restored["rng"]
            set_rng_state(states[min(trainer.global_rank, len(states) - 1)])
            if trainer.is_global_zero:
                self._metrics.cut_after(trainer.global_step)
            self._restored = None
        self.clock.start()
        self._saved_at = time.monotonic()
        self._signals.listen()
        if trainer.is_global_zero:
            self._display.start()
        self._synchronize(trainer, module)
        if self.best.is_due:
            self._close_epoch(trainer, module)
            self._write_candidate()
        self._end_if_done(trainer, module)
        self.batches.timer.begin()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop the timer of the wait for a batch."""
        self.batches.timer.receive()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Validate, log, save and stop after an optimizer step, as due."""
        module = cast("PerceiverModule", pl_module)
        self.samples += len(batch.batch) * trainer.world_size
        if self.batches.batches_done % self.batches.accumulate:
            return  # in the middle of a step
        step = trainer.global_step
        if module.average is not None:
            module.average.update(module.model, step=step)
        self._synchronize(trainer, module)
        closes = module.progress >= 1 or (
            self.batches.at_epoch_end
            and self.best.needs_validation(step=step, batch_size=self._step_samples(trainer))
        )
        logs = closes or self._is_line_due(step)
        self.batches.timer.end(pauses=logs or bool(self._stop) or self._is_time_to_save)
        if closes:
            self.best.is_due = True
            self._close_epoch(trainer, module)
        elif logs:
            self._log(trainer, module, {})
        if self._stop:
            self._leave(trainer)
        if trainer.is_global_zero:
            self._display.step(
                progress=module.progress,
                step=step,
                epoch=self.batches.epochs_done,
                samples=self.samples,
            )
        self._end_if_done(trainer, module)
        validated = self.best.measured_step == step
        if self._is_time_to_save or (validated and self._is_save_cheap(trainer, module)):
            self.save(trainer)
        self.batches.timer.begin()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Release the terminal and the signals."""
        self._display.stop()
        self._signals.release()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Release the terminal and the signals after an error."""
        self.on_train_end(trainer, pl_module)

    # -- checkpoints ------------------------------------------------------------------------------------

    def save(self, trainer: Trainer) -> None:
        """Write the checkpoint from which a run is resumed.

        Raises:
            OSError: If it cannot be written. The previous checkpoint is then unchanged.
            ValueError: If the loss, the gradient or a weight is not finite.
        """
        module = cast("PerceiverModule", trainer.lightning_module)
        began = time.monotonic()
        self._check_finite(trainer, module)
        self._write_candidate()
        trainer.save_checkpoint(self.folder / LAST)
        self._saved_at = time.monotonic()
        self._save_seconds = self._saved_at - began

    def _write_candidate(self) -> None:
        if self._candidate is not None:
            save_payload(self.folder / BEST, self._candidate)
            self._candidate = None

    def _is_save_cheap(self, trainer: Trainer, module: PerceiverModule) -> bool:
        """Return whether to save after a validation: one of the first, the end, or if saving is short for the time."""
        if trainer.should_stop or self.best.count <= FIRST_VALIDATIONS:
            return True
        passed = time.monotonic() - self._saved_at
        is_cheap = torch.tensor([self._save_seconds <= SAVE_SHARE * passed], dtype=torch.float64)
        return bool(distributed.largest(is_cheap, module.device).item())

    def _step_samples(self, trainer: Trainer) -> int:
        """Return the samples of an optimizer step, on all devices."""
        size = self.batches.loader.settings.batch_size
        return size * self.batches.accumulate * trainer.world_size

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the state of this callback, as plain values and tensors, which need no unpickling."""
        module = cast("PerceiverModule", pl_module)
        averages = None if module.average is None else module.average.state_dict()
        checkpoint["perceivers"] = {
            "batches": distributed.gather_objects(self.batches.state_dict()),
            "rng": distributed.gather_objects(get_rng_state()),
            "elapsed": self._elapsed,
            "logged_step": self._logged_step,
            "first_step": self._first_step,
            "lr": module.lr,
            "best": vars(self.best).copy(),
            "sums": distributed.summed(module.sums.values, module.device).cpu(),
            "average": averages
            and {k: distributed.gather_full_tensor(v) for k, v in averages.items()},
            "wait_time": vars(self.wait_time).copy(),
            "world_size": trainer.world_size,
        }

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the state of the checkpoint; `on_train_start` restores tensors on the device."""
        state = checkpoint["perceivers"]
        self._restored = state
        if trainer.global_rank > 0:
            state["sums"] = torch.zeros_like(state["sums"])  # the first process has the sums of all
        self.best = BestResult(**state["best"])
        self.clock = RunClock(state["elapsed"])
        self._first_step = state["first_step"]
        self._logged_step = state["logged_step"]
        self.wait_time = DataWaitTime(**state["wait_time"])
        states = state["batches"]
        self.batches.load_state_dict(states[min(trainer.global_rank, len(states) - 1)])

    def _is_line_due(self, step: int) -> bool:
        """Return whether to log within an epoch: not shortly before its end, whose line would be of few steps."""
        left = self.batches.steps_left
        if self.limits.steps is not None:
            left = min(self.limits.steps - step, self.limits.steps if left is None else left)
        enough = step - self._logged_step >= LOG_EVERY_STEPS
        return enough and (left is None or left >= LOG_EVERY_STEPS // 2)

    # -- parts ------------------------------------------------------------------------------------------

    def _synchronize(self, trainer: Trainer, module: PerceiverModule) -> None:
        """Give all processes the same time, and so the same learning rate, and let them stop and save together."""
        is_due = time.monotonic() - self._saved_at >= SAVE_EVERY_SECONDS
        mine = torch.tensor(
            [self.clock.elapsed, self._signals.received, is_due], dtype=torch.float64
        )
        elapsed, stop, save = distributed.largest(mine, module.device).tolist()
        self._elapsed, self._stop, self._is_time_to_save = elapsed, int(stop), bool(save)
        if trainer.global_step <= 1 and self.limits.seconds is not None:
            self._first_step = elapsed
        module.progress = self.limits.progress(
            epochs=self.batches.epochs_done,
            steps=trainer.global_step,
            seconds=elapsed,
            first_step=self._first_step,
        )

    def _log(
        self,
        trainer: Trainer,
        module: PerceiverModule,
        measured: dict[str, float],
        interval: Interval | None = None,
    ) -> None:
        """Write one line of metrics, those of a validation with the interval of the main one, and reset the sums."""
        means = self._means(trainer, module)
        module.sums.values = torch.zeros_like(module.sums.values)
        self._logged_step = trainer.global_step
        waiting = self.batches.timer.take().slowest(module.device)
        self.wait_time.add(waiting)
        row = {
            "step": trainer.global_step,
            "epoch": round(self.batches.epochs_done, 6),
            "elapsed": round(self._elapsed, 3),
            "lr": module.lr,
            **({} if waiting.share is None else {"waiting": round(waiting.share, 4)}),
            **{f"train/{name}": value for name, value in means.items()},
            **{f"validation/{name}": value for name, value in measured.items()},
        }
        if trainer.is_global_zero:
            self._metrics.write(row)
            self._display.result(row, progress=module.progress, interval=interval)

    def _report_bad_rows(self) -> None:
        """Print the rows that could not be read since the last validation."""
        bad = dict([*self.batches.loader.bad, *self.validation.bad])
        if fresh := [name for name in bad if name not in self._reported]:
            self._reported.update(fresh)
            self._display.note(
                f"Left out, as {counted(len(fresh), 'row')} could not be read: {names_text(fresh)}. The first: "
                f"{bad[fresh[0]]} report.md lists them all."
            )

    def _means(self, trainer: Trainer, module: PerceiverModule) -> dict[str, float]:
        """Return the means over all processes since the last line, all of them finite."""
        sums = distributed.summed(module.sums.values, module.device)
        means = module.sums.means(sums)
        if not math.isfinite(means["loss"]):
            raise self._diverged(f"the loss was {means['loss']}", trainer, module)
        scales_loss = trainer.precision == "16-mixed"  # steps whose gradient overflows are skipped
        if module.sums.overflows(sums) and not scales_loss:
            raise self._diverged("the gradient was not finite", trainer, module)
        return means

    def _check_finite(self, trainer: Trainer, module: PerceiverModule) -> None:
        """Check losses and gradients since the last line, all weights and their averages, before they are saved.

        Raises:
            ValueError: If one is not a finite number.
        """
        self._means(trainer, module)
        averages = {} if module.average is None else module.average.state_dict()
        tensors = [*module.model.state_dict().values(), *averages.values()]
        mine = all(bool(local(one).isfinite().all()) for one in tensors if one.is_floating_point())
        if not distributed.all_true(mine, module.device):
            raise self._diverged("a weight was not a finite number", trainer, module)

    def _diverged(self, reason: str, trainer: Trainer, module: PerceiverModule) -> ValueError:
        last = self.folder / LAST
        kept = f" {last} still holds an earlier step." if last.exists() else ""
        return ValueError(
            f"The run has diverged: {reason} at step {trainer.global_step}, and nothing of it was saved.{kept} Start a "
            f"new run with a lower rate (--optim.lr, now {module.optim.lr:g}), a warm-up (--optim.warmup-steps 500) or "
            "a smaller --optim.clip-norm."
        )

    def _close_epoch(self, trainer: Trainer, module: PerceiverModule) -> None:
        """Validate, log, and save the weights if they are to be kept."""
        alone = trainer.world_size == 1
        losses: list[float] = []
        rows: list[int] = []
        self._check_finite(trainer, module)
        meter = validate(
            module,
            self.validation,
            is_sharded=distributed.is_sharded(module.model),
            should_stop=lambda: alone and bool(self._signals.received),
            losses=losses,
            rows=rows,
        )
        if meter is None:  # interrupted; the resumed run validates again
            self._stop = self._signals.received
            self._leave(trainer)
            return
        self.best.rows = sum(rows)
        measured = meter.compute()
        if not math.isfinite(measured.get("loss", 0.0)):
            raise self._diverged(f"the validation loss was {measured['loss']}", trainer, module)
        interval = meter.proportions().get(module.task.main_metric)
        self._log(trainer, module, measured, interval)
        if trainer.is_global_zero:
            self._report_bad_rows()
        keeps = self.best.update(
            measured,
            losses,
            step=trainer.global_step,
            task=module.task,
            is_end=module.progress >= 1,
        )
        if keeps:
            self._keep_best(trainer, module, meter)

    def _keep_best(self, trainer: Trainer, module: PerceiverModule, meter: Meter) -> None:
        """Keep the weights, which are written together with the next checkpoint: both are of one run then."""
        weights: dict[str, Tensor] = dict(module.model.state_dict())
        if module.average is not None:
            weights |= module.average.state_dict()
        weights = {name: distributed.gather_full_tensor(tensor) for name, tensor in weights.items()}
        if trainer.is_global_zero:
            self._candidate = {
                "model": merged_weights(weights),
                "metrics": self.best.metrics,
                "step": self.best.step,
                "epoch": self.batches.epochs_done,
                "meter": meter.state(),
            }

    def _end_if_done(self, trainer: Trainer, module: PerceiverModule) -> None:
        without_improvement = self._patience is not None and self.best.since >= self._patience
        if module.progress >= 1 or without_improvement:
            trainer.should_stop = True

    def _leave(self, trainer: Trainer) -> None:
        """Save a checkpoint and exit with the status of the signal, 128 + its number."""
        self.save(trainer)
        if trainer.is_global_zero:
            with suppress(OSError):  # after SIGHUP the terminal is gone
                self._display.stop()
                self._display.note(
                    f"Stopped at step {trainer.global_step}; saved in {self.folder / LAST}. "
                    "The same command with --resume continues from it."
                )
        raise SystemExit(128 + self._stop if trainer.is_global_zero else 0)


def validate(
    module: PerceiverModule,
    loader: Any,
    *,
    is_sharded: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    losses: list[float] | None = None,
    rows: list[int] | None = None,
    views: Views | None = None,
) -> Meter | None:
    """Return the metrics of the validation split, with averaged weights if there are any.

    Args:
        module: Model, task and moving average of the weights.
        loader: The split, in order; each of several processes has its own part.
        is_sharded: Whether a forward pass needs all processes (FSDP).
        should_stop: Called after each batch; True aborts the validation, which then returns None.
        losses: Gets the loss on each part of the split, of all processes.
        rows: Gets the number of rows that each process passed through the model: several clips count each.
        views: Other views of modalities over which outputs are averaged.

    Raises:
        ValueError: If a process has no sample.
    """
    task = module.task
    meter, passed = task.meter(), 0
    averaged = nullcontext() if module.average is None else module.average.applied(module.model)
    precision = module.trainer.precision_plugin
    was_training = module.model.training
    module.model.eval()
    try:
        with averaged, torch.no_grad(), precision.val_step_context():
            for batch, counts in _in_step(iter(loader), module.device, is_sharded=is_sharded):
                moved = batch.to(module.device)
                prepared = task.prepare_batch(
                    moved.inputs, moved.masks, moved.targets, training=False
                )
                infer = partial(forward_task, module.model)
                outputs = infer_views(task, infer, prepared, views or {})
                passed += next(iter(moved.inputs.values())).shape[0]
                if counts:
                    outputs = combine_clips(task, outputs, moved.num_clips)
                    meter.update(outputs, prepared.targets)
                    if losses is not None:
                        losses += losses_of_parts(task, outputs, prepared.targets)
                if should_stop():
                    return None
    finally:
        module.train(was_training)
    meter.merge(distributed.gather_objects(meter.state()))
    if losses is not None:
        losses[:] = [one for part in distributed.gather_objects(losses) for one in part]
    if rows is not None:
        rows[:] = distributed.gather_objects(passed)
    return meter


def _in_step(
    batches: Iterator[Batch], device: torch.device, *, is_sharded: bool
) -> Iterator[tuple[Batch, bool]]:
    """Yield each batch and whether it counts.

    The forward pass of a sharded model needs all processes: one without further batches repeats its last one, which
    does not count, until the others are done.
    """
    last: Batch | None = None
    while True:
        batch = next(batches, None)
        if not is_sharded:
            if batch is None:
                return
            yield batch, True
            continue
        if distributed.all_true(batch is None, device):
            return
        if batch is None and last is None:
            raise ValueError(
                "Expected at least one sample of validation for each device; give fewer --devices."
            )
        last = last if batch is None else batch
        assert last is not None
        yield last, batch is not None
