"""Fine-tuning: what one run has learned, taken over by another, beside the same run from nothing.

    python examples/fine_tuning.py runs/birds rare_birds/ runs/rare --max-steps 500

The model is built as that of the first run, for the classes of the new data; every weight that fits is taken over, the
head begins anew. The rate is lower than from nothing, so that what is there is not lost.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import perceivers as pv
from perceivers.recipes.files import read_recipe


def main(
    run: str, data: str, out: str, *, max_steps: int = 500, lr: float = 3e-4
) -> dict[str, float]:
    learned = read_recipe(Path(run) / "recipe.yaml")
    recipe = replace(
        learned,
        output=replace(learned.output, num_outputs=None),  # as many as the new data have
        task=pv.ClassificationConfig(),
        training=replace(learned.training, max_epochs=None, max_time=None, max_steps=max_steps),
    )
    found: dict[str, float] = {}
    for name, begin in (("tuned", run), ("from nothing", None)):
        folder = Path(out) / name.replace(" ", "-")
        rate = {"optim.lr": lr if begin else learned.optim.lr}
        done = pv.fit(data, recipe, out=folder, init_from=begin, **rate)
        found[name] = done.metrics["accuracy"]
    for name, accuracy in found.items():
        print(f"{name}: {accuracy:.1%} of the validation split")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="a run folder that has learned something near")
    parser.add_argument("data", help="what to learn now")
    parser.add_argument("out", help="a folder for the two new runs")
    parser.add_argument("--max-steps", type=int, default=500)
    parser.add_argument("--lr", type=float, default=3e-4)
    main(**vars(parser.parse_args()))
