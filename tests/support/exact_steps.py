"""A few optimizer steps in float64, divided over batches and processes as one likes. Not a test.

usage: torchrun support/exact_steps.py OUT RUNS, RUNS as JSON: a list of [OPTIMIZER, PARTS], where PARTS are, for each
process, the sizes of the batches of each step. Each process writes the weights that it ends each of the runs with.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch

from perceivers.data.base import Batch
from perceivers.recipes.registry import OptimConfig, TrainingConfig
from perceivers.tasks.classification import ClassificationConfig, ClassificationTask
from perceivers.training.batches import ResumableBatches
from perceivers.training.distributed import whole_step
from perceivers.training.engine import build_trainer, quiet
from perceivers.training.module import PerceiverModule
from support.models import tiny_model

STEPS, SAMPLES = 5, 12


class Steps:
    """A loader that cuts the samples of each step into batches of given sizes."""

    def __init__(self, parts: list[list[int]], rank: int) -> None:
        self.sizes = parts[rank]
        self.first = sum(map(sum, parts[:rank]))

    def __iter__(self) -> Any:
        numbers = torch.Generator().manual_seed(0)
        for _ in range(STEPS + 1):  # the feed looks one step ahead
            images = torch.randn(SAMPLES, 3, 8, 8, generator=numbers, dtype=torch.float64)
            shares = torch.rand(SAMPLES, 3, generator=numbers, dtype=torch.float64)  # as mixup's
            targets = shares / shares.sum(dim=1, keepdim=True)
            at = self.first
            for size in self.sizes:
                here = slice(at, at + size)
                yield Batch(inputs={"image": images[here]}, targets=targets[here])
                at += size


class Stop(lightning.Callback):
    """Ends after the steps, and remembers how long the gradients were before they were clipped."""

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.global_step >= STEPS


def train(folder: Path, optimizer: str, parts: list[list[int]]) -> dict[str, torch.Tensor]:
    """Return the weights after the steps."""
    torch.manual_seed(0)
    model = tiny_model(3).double()
    config = ClassificationConfig(label_names=("a", "b", "c"), label_smoothing=0.1)
    # Gradients are longer than this, so that clipping once and clipping each batch differ.
    optim = OptimConfig(name=optimizer, lr=1e-2, clip_norm=0.05, schedule="constant")
    module = PerceiverModule(model, ClassificationTask(config), optim)
    training = TrainingConfig(devices=len(parts), accumulate=len(parts[0]), device="cpu")
    with quiet():
        trainer = build_trainer(training, folder=folder, loggers=[])
        trainer.callbacks.append(Stop())
        feed = ResumableBatches(
            Steps(parts, trainer.global_rank),
            accumulate=len(parts[0]),
            agree=lambda whole, samples: whole_step(whole, samples, torch.device("cpu")),
        )
        trainer.fit(module, feed)
    assert trainer.global_step == STEPS
    norm = module.sums.means(module.sums.values)["grad_norm"]
    assert norm > 0.05, f"nothing was clipped: {norm}"
    return model.state_dict()


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    weights = [train(out, optimizer, parts) for optimizer, parts in json.loads(sys.argv[2])]
    torch.save(weights, out / f"rank{os.environ['RANK']}.pt")
