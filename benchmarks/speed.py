"""How long a forward pass and a training step of the shipped recipes take, and how much memory.

    python benchmarks/speed.py                       every recipe that a CPU can run in a minute
    python benchmarks/speed.py imagenet --batch 1    the 2021 model

Each number is the median over repeated runs after a warm-up, in a process of its own, because memory at its
peak is a property of a process. Results go to benchmarks/results/speed-DEVICE.json.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.outputs.heads import MeanPoolConfig
from perceivers.recipes import get_recipe

RESULTS = Path(__file__).parent / "results"

# Recipe, its size, picture size where the recipe leaves it to the data, batch.
CASES = (
    ("digits", None, None, 64),
    ("images", "tiny", (32, 32), 64),
    ("images", "tiny", (64, 64), 64),
    ("images", "small", (128, 128), 16),
)


def config_of(name: str, size: str | None, pixels: tuple[int, int] | None) -> PerceiverConfig:
    """Return the model of a recipe, with what it leaves to the data filled in."""
    recipe = get_recipe(name, size=size)
    adapter = recipe.inputs["image"]
    if adapter.size is None:
        adapter = replace(adapter, size=pixels)
    output = MeanPoolConfig(num_outputs=recipe.output.num_outputs or 10)
    return PerceiverConfig(inputs={"image": adapter}, encoder=recipe.encoder, output=output)


def measure(
    config: PerceiverConfig, *, batch: int, device: str, repeats: int, train: bool
) -> dict[str, float]:
    """Return median seconds of a pass and the peak of memory in bytes."""
    torch.manual_seed(0)
    model = build(config).to(device).train(train)
    adapter = config.inputs["image"]
    images = torch.randn(batch, adapter.num_channels, *adapter.size, device=device)
    targets = torch.zeros(batch, dtype=torch.long, device=device)
    seconds: list[float] = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        with torch.set_grad_enabled(train):
            outputs = model({"image": images})
            if train:
                torch.nn.functional.cross_entropy(outputs, targets).backward()
                model.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        scale = 1 if platform.system() == "Darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    return {"seconds": statistics.median(seconds[2:]), "peak_bytes": float(peak)}


def apart(case: tuple[str, str | None, tuple[int, int] | None, int], **options: object) -> dict:
    """Measure in a process of its own."""
    argument = json.dumps({"case": case, **options})
    command = [sys.executable, __file__, "--one", argument]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def one(argument: str) -> None:
    """Measure one case and print the result as JSON."""
    options = json.loads(argument)
    name, size, pixels, batch = options.pop("case")
    config = config_of(name, size, None if pixels is None else (pixels[0], pixels[1]))
    print(json.dumps(measure(config, batch=batch, **options)))


def machine(device: str) -> dict[str, object]:
    """Return what the numbers depend on besides the code."""
    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
    }


def main() -> None:
    """Measure what was asked for, print a table and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="?", help="only this one; by default a list of small ones")
    parser.add_argument("--size", help="of the recipe")
    parser.add_argument("--pixels", type=int, nargs=2, default=(64, 64), metavar=("Y", "X"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one(args.one)
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    cases = CASES
    if args.recipe:
        cases = ((args.recipe, args.size, tuple(args.pixels), args.batch),)
    rows: list[dict[str, object]] = []
    for case in cases:
        name, size, pixels, batch = case
        shown = config_of(name, size, pixels).inputs["image"].size
        row: dict[str, object] = {"recipe": name, "size": size, "pixels": shown, "batch": batch}
        for kind in ("forward", "step"):
            found = apart(case, device=device, repeats=args.repeats, train=kind == "step")
            row[f"{kind}_ms"] = round(1000 * found["seconds"], 2)
            row[f"{kind}_peak_mib"] = round(found["peak_bytes"] / 2**20)
        rows.append(row)
        print("  ".join(f"{key} {value}" for key, value in row.items() if value is not None))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"speed-{device}.json"
    path.write_text(json.dumps({"machine": machine(device), "rows": rows}, indent=2) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
