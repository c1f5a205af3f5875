"""Startup cost of commands: processor and elapsed time of whole processes.

    python -m benchmarks.startup

Rounds of all cases, one fresh process each, take turns; medians are written to benchmarks/results/startup-cpu.json.
`import torch` stands among them, because no prediction can be faster. Targets: `--help` in 0.5 s of processor time,
the first forward of a prediction after 5 s.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks import facts
from perceivers.data.modalities.image.modality import ImagePreprocessConfig
from perceivers.hub.checkpoint import save
from perceivers.models.perceiver import build
from perceivers.recipes import get_recipe
from perceivers.tasks.classification import ClassificationConfig

__all__ = ["cases", "main", "make_run", "measure", "took"]

RESULTS = Path(__file__).parent / "results" / "startup-cpu.json"

# Case -> (which time, seconds).
TARGETS = {"--help": ("processor", 0.5), "predict digits": ("elapsed", 5.0)}
TARGETS["predict imagenet"] = TARGETS["predict digits"]

_COMMAND = "import sys; from perceivers.cli.main import main; sys.exit(main(sys.argv[1:]))"

# The command as it is, until the model is called for the first time.
_UNTIL_FORWARD = """
import sys
from perceivers.cli.main import main
from perceivers.evaluation import predict
def leave(self, inputs):
    sys.exit(0)
predict.Predictor.probabilities = leave
sys.exit(main(sys.argv[1:]))
"""


def make_run(folder: Path, recipe: str) -> tuple[str, str]:
    """Write a run with fresh weights, and an image for it. Return their paths."""
    config = get_recipe(recipe).model_config()
    size, channels = config.inputs["image"].size, config.inputs["image"].num_channels
    assert size is not None
    statistic = (0.5,) * channels
    save(
        folder,
        build(config),
        preprocess={
            "image": ImagePreprocessConfig.imagenet(
                size=size, num_channels=channels, mean=statistic, std=statistic
            )
        },
        task=ClassificationConfig(
            label_names=tuple(str(label) for label in range(config.output.num_outputs or 0))
        ),
    )
    shape = (*size, 3) if channels == 3 else size
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    image = folder / "image.png"
    Image.fromarray(pixels).save(image)
    return str(folder), str(image)


def cases(folder: Path, recipes: tuple[str, ...] = ("digits", "imagenet")) -> dict[str, list[str]]:
    """Return the measured commands by name, as arguments of Python."""
    found = {
        "python": ["-c", "pass"],
        "import torch": ["-c", "import torch"],
        "--help": ["-c", _COMMAND, "--help"],
        "predict --help": ["-c", _COMMAND, "predict", "--help"],
        "recipes": ["-c", _COMMAND, "recipes"],
    }
    for recipe in recipes:
        run, image = make_run(folder / recipe, recipe)
        found[f"predict {recipe}"] = ["-c", _UNTIL_FORWARD, "predict", run, image]
    return found


def took(arguments: list[str]) -> dict[str, float]:
    """Run Python once and return the seconds it took: elapsed, and of the processor (user and system).

    Raises:
        RuntimeError: If it failed.
    """
    with Path(os.devnull).open("wb") as nowhere:
        start = time.perf_counter()
        process = os.posix_spawn(
            sys.executable,
            [sys.executable, *arguments],
            dict(os.environ),
            file_actions=[(os.POSIX_SPAWN_DUP2, nowhere.fileno(), 1)],
        )
        _, status, usage = os.wait4(process, 0)
        elapsed = time.perf_counter() - start
    if status:
        msg = f"Expected {arguments[1:]} to end with 0, got {os.waitstatus_to_exitcode(status)}."
        raise RuntimeError(msg)
    return {"elapsed": elapsed, "processor": usage.ru_utime + usage.ru_stime}


def measure(work: Mapping[str, list[str]], rounds: int) -> dict[str, dict[str, float]]:
    """Return medians by case: seconds of both times, and elapsed time as a multiple of torch's import."""
    times: dict[str, list[dict[str, float]]] = {name: [] for name in work}
    for turn in range(rounds + 1):
        for name, arguments in work.items():
            one = took(arguments)
            if turn:  # the first reads files that are in memory from then on
                times[name].append(one)
    found: dict[str, dict[str, float]] = {}
    for name, rows in times.items():
        row = {
            kind: round(statistics.median(one[kind] for one in rows), 3)
            for kind in ("elapsed", "processor")
        }
        pairs = zip(rows, times["import torch"], strict=True)
        ratio = statistics.median(one["elapsed"] / other["elapsed"] for one, other in pairs)
        found[name] = row | {"of_import_torch": round(ratio, 3)}
    return found


def main(argv: list[str] | None = None) -> int:
    """Measure, print a table, write the results. Return 1 if a target was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    machine, load_now = facts.machine("cpu"), facts.load_now("cpu", "float32")
    with tempfile.TemporaryDirectory() as folder:
        found = measure(cases(Path(folder)), args.rounds)
    verdicts: dict[str, dict[str, object]] = {}
    for name, (kind, limit) in TARGETS.items():
        met = found[name][kind] <= limit
        verdicts[name] = {"time": kind, "at_most": limit, "met": met}
    for name, row in found.items():
        line = f"{name:18} {row['elapsed']:7.3f} s elapsed {row['processor']:7.3f} s of processor"
        met = verdicts.get(name, {}).get("met")
        print(f"{line} {row['of_import_torch']:6.2f} x import torch{_shown(met)}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    result = {"machine": machine, "moment": load_now, "rounds": args.rounds, "cases": found}
    args.out.write_text(json.dumps(result | {"targets": verdicts}, indent=2) + "\n")
    print(f"written to {args.out}")
    return 0 if all(verdict["met"] for verdict in verdicts.values()) else 1


def _shown(met: object) -> str:
    return "" if met is None else "  target met" if met else "  TARGET MISSED"


if __name__ == "__main__":
    torch.set_num_threads(facts.cores() or 1)
    sys.exit(main())
