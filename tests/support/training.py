"""A tiny run in a process of its own, which can be made to die in the middle. Not a test.

usage: support/training.py OUT [field=value ...] [+ OUT [field=value ...]] with fields of TrainingConfig, and
    die=SIGTERM:17   send the signal to oneself after step 17
    save_every=5     save a checkpoint every 5 steps (they are seconds otherwise)
    attn_implementation=grid   how the input is read
    workers=2        processes that decode
    resume=True
    room=4           let the first process have memory for 4 samples at once (with batch=auto)
    dump=True        let every process write the weights it ends with
"""

import ast
import os
import signal
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from perceivers.data.modalities.image.modality import ImageAugmentConfig, ImagePreprocessConfig
from perceivers.data.sources.builtin import digits
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.data.tables.table import Subset
from perceivers.inputs.image import PixelInputConfig
from perceivers.inputs.positions import FourierPositionsConfig
from perceivers.outputs.heads import MeanPoolConfig
from perceivers.recipes.registry import OptimConfig, Recipe, TrainingConfig
from perceivers.recipes.resolve import ResolvedRun
from perceivers.runs.folder import is_first_process
from perceivers.tasks.classification import ClassificationConfig
from perceivers.training.batch_size_finder import MemoryProbe
from perceivers.training.distributed import gather_full_tensor
from perceivers.training.fit import Run
from perceivers.training.fit import train as train_run
from support.models import tiny_encoder

PREPROCESS = {
    "image": ImagePreprocessConfig.imagenet(
        size=(8, 8), num_channels=1, mean=(0.3,), std=(0.3,), crop_fraction=1.0
    )
}


def small_digits(rows: int = 200) -> DatasetBundle:
    """Return a few of the digits, 40 of them as validation."""
    source = digits()
    train = source.splits["train"]
    splits = {
        "train": Subset(train, list(range(rows - 40))),
        "validation": Subset(train, list(range(rows - 40, rows))),
    }
    return replace(source, splits=splits)


def small_recipe(**training: Any) -> Recipe:
    """Return a recipe of a few thousand weights: 160 rows in steps of 16 are 10 steps an epoch."""
    workers = training.pop("workers", 0)
    optim, path = training.pop("optim", {}), training.pop("attn_implementation", "auto")
    augment = ImageAugmentConfig(
        crop_scale=(0.7, 1.0), flip=False, **training.pop("augment", {"mixup": 0.2, "cutmix": True})
    )
    recipe = Recipe(
        name="digits",
        inputs={
            "image": PixelInputConfig(
                size=(8, 8), num_channels=1, positions=FourierPositionsConfig(num_bands=2)
            )
        },
        encoder=tiny_encoder(attn_implementation=path),
        output=MeanPoolConfig(num_outputs=10),
        task=ClassificationConfig(label_names=tuple(map(str, range(10)))),
        augment={"image": augment},
        optim=OptimConfig(**{"lr": 0.02, "schedule": "cosine", **optim}),
        training=TrainingConfig(**{"batch_size": 16, "ema": 0.9, "baseline": False, **training}),
    )
    return replace(recipe, data=replace(recipe.data, workers=workers))


def resolved(source: DatasetBundle, recipe: Recipe) -> ResolvedRun:
    """Return a run of the digits with nothing left open."""
    return ResolvedRun(recipe=recipe, preprocess=PREPROCESS, data=source)


def train(out: str, source: DatasetBundle | None = None, **options: Any) -> Run:
    """Train with the given options, by default on a few of the digits."""
    from perceivers.training import callback

    die, save_every = options.pop("die", None), options.pop("save_every", None)
    resume, dump = options.pop("resume", False), options.pop("dump", False)
    room = options.pop("room", None)
    after_step = callback.TrainingCallback.on_train_batch_end

    def step_and_die(self, trainer, module, *args):
        if die is not None and trainer.global_step == int(die.partition(":")[2]):
            os.kill(os.getpid(), getattr(signal, die.partition(":")[0]))
        after_step(self, trainer, module, *args)

    agree = callback.TrainingCallback._synchronize

    def agree_to_save(self, trainer, module):
        agree(self, trainer, module)
        self._is_time_to_save = trainer.global_step % save_every == 0

    def dump_weights(self, trainer, module):
        weights = {
            name: gather_full_tensor(tensor) for name, tensor in module.model.state_dict().items()
        }
        torch.save(weights, self.folder / f"rank{trainer.global_rank}.pt")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callback.TrainingCallback, "on_train_batch_end", step_and_die)
        if room is not None and is_first_process():
            patch.setattr(
                MemoryProbe, "budget", property(lambda _: room, lambda *_: None), raising=False
            )
            patch.setattr(MemoryProbe, "peak", lambda _self, size, _precision: size)
        if dump:
            patch.setattr(callback.TrainingCallback, "on_train_end", dump_weights)
        if save_every is not None:
            patch.setattr(callback.TrainingCallback, "_synchronize", agree_to_save)
        recipe = small_recipe(**options)
        source = small_digits() if source is None else source
        return train_run(resolved(source, recipe), out=out, resume=resume)


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


if __name__ == "__main__":
    torch.set_num_threads(1)
    for words in " ".join(sys.argv[1:]).split(" + "):
        folder, *fields = words.split(" ")
        train(folder, **{k: _value(text) for k, text in (field.split("=", 1) for field in fields)})
