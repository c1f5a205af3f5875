"""Ways of fine-tuning a trained model on other data, compared with training from scratch.

    python examples/fine_tuning.py runs/birds rare_birds/ runs/rare --max-epochs 10

The source is a run, or a published model such as `deepmind/vision-perceiver-conv`. All four have its architecture and
preprocessing, and a new head for the classes of the data.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import perceivers as pv
from perceivers.recipes.files import read_recipe

WAYS: dict[str, dict[str, Any]] = {
    "all weights": {},
    "frozen encoder": {"freeze": ("encoder",), "cache_latents": 1},
    "low-rank updates": {"lora": 8},
}


def main(source: str, data: str, out: str, *, max_epochs: int = 10) -> dict[str, float]:
    accuracies: dict[str, float] = {}

    def note(name: str, began: float, run: pv.Run) -> None:
        accuracies[name] = run.metrics["accuracy"]
        print(f"{name}: {accuracies[name]:.1%} validation accuracy, {time.time() - began:.0f} s")

    for name, settings in WAYS.items():
        began, folder = time.time(), Path(out) / name.replace(" ", "-")
        run = pv.finetune(source, data, out=folder, max_epochs=max_epochs, **settings)
        note(name, began, run)
    recipe = read_recipe(Path(out) / "all-weights" / "recipe.yaml")
    began, folder = time.time(), Path(out) / "from-scratch"
    note("from scratch", began, pv.fit(data, recipe, out=folder, **{"optim.lr": 1e-3}))
    return accuracies


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="run folder, or hub id of a model, to start from")
    parser.add_argument("data", help="the new data")
    parser.add_argument("out", help="folder for the new runs")
    parser.add_argument("--max-epochs", type=int, default=10)
    main(**vars(parser.parse_args()))
