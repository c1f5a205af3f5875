"""Train one Hierarchical Perceiver, unchanged, on images, audio and points, beside Perceivers with the same time.

    python -m benchmarks.modalities --data DATA --minutes 4 --out runs/modalities

DATA holds the folders cifar10, fsdd and modelnet10 of `python -m benchmarks small_cpu`. The contestants:

    hip        recipe `hip`: raw elements, learned positions, the same encoder for all data
    perceiver  the same raw elements with Fourier positions, and an encoder of about the same FLOPs on 1,024 pixels
    default    `perceivers fit` without flags: the recipe of the modality

Every run has the same time and ends with an evaluation of the test split, printed as a table row.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import perceivers as pv
from perceivers.inputs.positions import FourierPositionsConfig
from perceivers.recipes.common import SIZES, own_encoder
from perceivers.recipes.hip import hip_for
from perceivers.recipes.registry import Recipe

DATA = {"cifar10": "image", "fsdd": "audio", "modelnet10": "points"}
LATENTS = 64  # 141 MFLOPs an image of 32 x 32 pixels; the Hierarchical Perceiver has 145


def perceiver_for(kind: str) -> Recipe:
    """Return the recipe `hip` of one modality with a Perceiver in place of its encoder, and Fourier positions."""
    made = hip_for({kind: kind})
    part: Any = made.inputs[kind]
    if kind == "points":
        part = replace(part, num_bands=16)
    else:
        part = replace(part, positions=FourierPositionsConfig(num_bands=16))
    encoder = replace(own_encoder(SIZES["tiny"], fine=True), num_latents=LATENTS)
    return replace(made, name="perceiver", inputs={kind: part}, encoder=encoder)


CONTESTANTS: dict[str, Callable[[str], str | Recipe | None]] = {
    "hip": lambda _kind: "hip",
    "perceiver": perceiver_for,
    "default": lambda _kind: None,
}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--out", type=Path, default=Path("runs/modalities"))
    parser.add_argument("--only", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    args = parser.parse_args()
    for name in args.only:
        for contestant in args.contestants:
            result = measure(args.data / name, DATA[name], contestant, args)
            print(json.dumps({"data": name, "model": contestant, **result}), flush=True)


def measure(data: Path, kind: str, contestant: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train on a data set and return the accuracy on its test split, with the model's weights and passes."""
    run = pv.fit(
        data,
        CONTESTANTS[contestant](kind),
        out=args.out / f"{data.name}-{contestant}",
        max_time=f"{round(60 * args.minutes)}s",
        on_message=lambda _text: None,
        baseline=False,
    )
    found = pv.evaluate(run.folder, split="test")
    return {
        "accuracy": round(found.metrics["accuracy"], 4),
        "weights": sum(p.numel() for p in pv.load(run.folder).model.parameters()),
    }


if __name__ == "__main__":
    main()
