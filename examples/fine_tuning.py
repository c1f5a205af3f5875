"""Fine-tuning of a run on other data, compared with training from scratch.

    python examples/fine_tuning.py runs/birds rare_birds/ runs/rare --max-steps 500

The model has the architecture of the first run with the classes of the new data. All weights that match are loaded, and
the head is initialized. The learning rate of fine-tuning is lower.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import perceivers as pv
from perceivers.recipes.files import read_recipe


def main(
    run: str, data: str, out: str, *, max_steps: int = 500, lr: float = 3e-4
) -> dict[str, float]:
    pretrained = read_recipe(Path(run) / "recipe.yaml")
    recipe = replace(
        pretrained,
        output=replace(pretrained.output, num_outputs=None),  # from the data
        task=pv.ClassificationConfig(),
        training=replace(pretrained.training, max_epochs=None, max_time=None, max_steps=max_steps),
    )
    accuracies: dict[str, float] = {}
    for name, init_from in (("fine-tuned", run), ("from scratch", None)):
        folder = Path(out) / name.replace(" ", "-")
        rate = {"optim.lr": lr if init_from else pretrained.optim.lr}
        done = pv.fit(data, recipe, out=folder, init_from=init_from, **rate)
        accuracies[name] = done.metrics["accuracy"]
    for name, accuracy in accuracies.items():
        print(f"{name}: {accuracy:.1%} validation accuracy")
    return accuracies


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="folder of the run to start from")
    parser.add_argument("data", help="the new data")
    parser.add_argument("out", help="folder for the two new runs")
    parser.add_argument("--max-steps", type=int, default=500)
    parser.add_argument("--lr", type=float, default=3e-4)
    main(**vars(parser.parse_args()))
