"""Validation: every sample once, with any number of processes."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch

from perceivers.data.base import Batch
from perceivers.tasks.base import Meter, combine_clips, forward_task
from perceivers.training.distributed import all_true, gather_objects
from perceivers.training.module import PerceiverModule


def validate(
    module: PerceiverModule,
    loader: Any,
    *,
    is_sharded: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
) -> Meter | None:
    """Return the metrics of the validation split, with averaged weights if there are any.

    Args:
        module: Model, task and moving average of the weights.
        loader: The split, in order; each of several processes has its own part.
        is_sharded: Whether a forward pass needs all processes (FSDP).
        should_stop: Called after each batch; True aborts the validation.

    Returns:
        A meter with the samples of all processes, or None if aborted.

    Raises:
        ValueError: If a process has no sample.
    """
    task = module.task
    meter = task.meter()
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
                outputs = forward_task(module.model, prepared)
                if counts:
                    meter.update(combine_clips(task, outputs, moved.num_clips), prepared.targets)
                if should_stop():
                    return None
    finally:
        module.model.train(was_training)
    meter.merge(gather_objects(meter.state()))
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
        if all_true(batch is None, device):
            return
        if batch is None and last is None:
            raise ValueError(
                "Expected at least one sample of validation for each device; give fewer --devices."
            )
        last = last if batch is None else batch
        assert last is not None
        yield last, batch is not None
