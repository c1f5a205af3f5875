"""Whether reading keeps up with training: samples a second of the loader, of the step, and of both together.

    python benchmarks/throughput.py                          the digits, and CIFAR-10 where it is (--cifar10 FOLDER)
    python benchmarks/throughput.py DATA --recipe images     any data, any recipe

For each recipe, in one process and with the threads and workers that `fit` would take:

    first epoch   the loader alone, images decoded for the first time
    cached        the loader alone, small images decoded before
    step          training steps on one batch again and again: no reading at all
    training      the same steps on the loader's batches, as `fit` does them
    in turn       the same, but each batch is read only when it is asked for

`training / step` is what of the speed without reading is left; `waiting` is the share of the step time in which
the batch was not there. Results go to benchmarks/results/throughput-DEVICE.json.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from perceivers.data.base import Batch
from perceivers.hub.device import pick_device
from perceivers.models.perceiver import build
from perceivers.recipes import get_recipe
from perceivers.recipes.registry import Recipe
from perceivers.recipes.resolve import resolve
from perceivers.training.batches import ResumableBatches
from perceivers.training.build import build_task
from perceivers.training.data_wait import StepTimer
from perceivers.training.dataloaders import ProcessInfo, build_loaders
from perceivers.training.optim import WeightAverage, build_optimizer, clip_gradients

RESULTS = Path(__file__).parent / "results"
CIFAR10 = Path(__file__).parents[1] / "data" / "cifar10"
WARM_UP = 3


class Bench:
    """One recipe on some data.

    Args:
        recipe: Its name.
        size: Size of the recipe, or None.
        data: Path of the data, or `builtin:digits`.
        device: Where to compute.
        workers: Processes that read. None: as `fit` takes.
    """

    def __init__(
        self, recipe: str, size: str | None, data: str, *, device: torch.device, workers: int | None
    ) -> None:
        run = resolve(data, get_recipe(recipe, size=size), overrides={"workers": workers})
        self.recipe, self.preprocess, self.source = run.recipe, run.preprocess, run.data
        self.device = device
        self.place = ProcessInfo(is_gpu=device.type == "cuda")
        self.threads, self.workers = self.place.threads_and_workers(workers)
        torch.set_num_threads(self.threads)
        torch.manual_seed(0)
        self._step = training_step(self.recipe, build_task(self.recipe, self.source), device)

    def loader(self, *, prefetch_batches: bool = True) -> Any:
        """Return a fresh loader of train."""
        loader, _ = build_loaders(
            self.source,
            self.recipe,
            self.preprocess,
            batch_size=self.recipe.training.batch_size,
            process=self.place,
        )
        if not prefetch_batches:
            loader.settings = replace(loader.settings, prefetch_batches=0)
        return loader

    def reading(self, batches: Iterator[Batch], steps: int) -> float:
        """Return the samples a second of the loader alone."""
        began, samples = time.perf_counter(), 0
        for batch in islice(batches, steps):
            samples += len(batch)
        return samples / (time.perf_counter() - began)

    def stepping(self, batch: Batch, steps: int) -> float:
        """Return the samples a second of steps on one batch, from their median."""
        moved = batch.to(self.device)
        seconds: list[float] = []
        for _ in range(steps + WARM_UP):
            began = time.perf_counter()
            self._step(moved)
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
        return len(batch) / statistics.median(seconds[WARM_UP:])

    def training(self, loader: Any, steps: int) -> tuple[float, float]:
        """Return the samples a second of steps on the loader's batches, and the share of waiting."""
        watch = StepTimer(self.device)
        feed, samples, began = ResumableBatches(loader, timer=watch), 0, 0.0
        for number, taken in enumerate(islice(feed, steps + WARM_UP)):
            batch = taken.to(self.device).batch
            watch.receive()
            if number >= WARM_UP:
                samples += len(batch)
            self._step(batch)
            watch.end(pauses=number == steps + WARM_UP - 1)
            watch.begin()
            if number == WARM_UP - 1:
                began = time.perf_counter()
        rate = samples / (time.perf_counter() - began)
        return rate, watch.take().share or 0.0

    def measure(self, *, steps: int, repeats: int) -> dict[str, float]:
        """Return all rates, training and stepping in turns so that they meet the same machine."""
        loader, in_turn = self.loader(), self.loader(prefetch_batches=False)
        per_epoch = min(steps, len(loader))
        found: dict[str, list[float]] = {}

        def note(**values: float) -> None:
            for name, value in values.items():
                found.setdefault(name, []).append(value)

        note(first_epoch=self.reading(iter(in_turn), per_epoch))
        for one in (in_turn, loader):  # until each has every picture decoded
            for _ in one:
                pass
        batch = next(iter(self.loader()))
        for _ in range(repeats):
            note(cached=self.reading(iter(in_turn), per_epoch))
            note(step=self.stepping(batch, steps))
            rate, waiting = self.training(loader, steps)
            note(training=rate, waiting=waiting)
            rate, waiting = self.training(in_turn, steps)
            note(in_turn=rate, waiting_in_turn=waiting)
        loader.close()
        in_turn.close()
        return {name: statistics.median(values) for name, values in found.items()}


def training_step(recipe: Recipe, task: Any, device: torch.device) -> Callable[[Batch], None]:
    """Return a function that runs one optimizer step of a recipe."""
    model = build(recipe.model_config()).to(device)
    optimizer = build_optimizer(model, recipe.optim)
    ema = recipe.training.ema
    average = None if ema is None else WeightAverage(model, ema)

    def step(batch: Batch) -> None:
        loss = task.loss(model(batch.inputs, batch.masks), batch.targets)
        loss.backward()
        clip_gradients(model.parameters(), recipe.optim.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        if average is not None:
            average.update(model, step=1000)

    return step


def row(bench: Bench, found: dict[str, float]) -> dict[str, object]:
    """Return one line of the results."""
    return {
        "recipe": bench.recipe.name,
        "batch": bench.recipe.training.batch_size,
        "threads": bench.threads,
        "workers": bench.workers,
        "samples_per_second": {
            name: round(found[name])
            for name in ("first_epoch", "cached", "step", "training", "in_turn")
        },
        "training / step": round(found["training"] / found["step"], 3),
        "in turn / step": round(found["in_turn"] / found["step"], 3),
        "first epoch / step": round(found["first_epoch"] / found["step"], 2),
        "cached / step": round(found["cached"] / found["step"], 2),
        "waiting": round(found["waiting"], 4),
        "waiting in turn": round(found["waiting_in_turn"], 4),
    }


def main() -> None:
    """Measure what was asked for, print it and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", help="by default the digits and CIFAR-10")
    parser.add_argument("--recipe", default="images")
    parser.add_argument("--size", help="of the recipe")
    parser.add_argument("--cifar10", default=str(CIFAR10), metavar="FOLDER")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    cases = [("digits", None, "builtin:digits"), ("images", "tiny", args.cifar10)]
    if args.data:
        cases = [(args.recipe, args.size, args.data)]
    device = pick_device("auto")
    rows: list[dict[str, object]] = []
    for recipe, size, data in cases:
        if data != "builtin:digits" and not Path(data).exists():
            print(f"{recipe} skipped: there is no {data}")
            continue
        bench = Bench(recipe, size, data, device=device, workers=args.workers)
        rows.append(row(bench, bench.measure(steps=args.steps, repeats=args.repeats)))
        print(json.dumps(rows[-1], indent=2))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"throughput-{device.type}.json"
    machine = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processor": platform.machine(),
        "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None,
    }
    path.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
