"""Repeat the runs behind docs/results: the commands as a user types them, on real data.

Data sets are read from `--data`. Missing ones are skipped with a message. Results go to
benchmarks/results/accuracy.json; the pages under docs/results quote them.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.made_data import make_haptic, make_mixed

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One line of a results table.

    Attributes:
        name: Name of the run's folder.
        data: A folder under `--data`, `digits` for the embedded ones, or what `made_data` makes of them.
        flags: Of `perceivers fit`.
        at_least: Smallest value of the measure that passes, accuracy in percent.
        metric: Name of the measure. Other ones than `accuracy` are taken from `evaluate` unchanged.
        at_most: Largest value that passes, of a measure that is to be small.
    """

    name: str
    data: str
    flags: tuple[str, ...] = ()
    at_least: float | None = None
    metric: str = "accuracy"
    at_most: float | None = None

    def holds(self, value: float) -> bool:
        """Return whether the measured value passes."""
        low = self.at_least is None or value >= self.at_least
        return low and (self.at_most is None or value <= self.at_most)


# GRID: a coarse spectrogram whose masks are shorter than a digit, and a few frames of the whole film.
_WORDS = (
    *("--preprocess.audio.num-mels", "40", "--preprocess.audio.hop", "0.015"),
    *("--augment.audio.time-share", "0.05"),
)
_FRAMES = (
    *("--preprocess.video.num-frames", "8", "--preprocess.video.frame-rate", "2.5"),
    *("--inputs.video.stride", "4"),
)

EXPERIMENTS = (
    Experiment(name="digits", data="digits", flags=("--recipe", "digits"), at_least=97.0),
    Experiment(
        name="digits-permuted",
        data="digits",
        flags=("--recipe", "digits", "--permute", "7"),
        at_least=97.0,
    ),
    Experiment(name="cifar10", data="cifar10", flags=("--max-time", "20m"), at_least=60.0),
    Experiment(name="fsdd", data="fsdd", flags=("--max-time", "10m"), at_least=97.0),
    Experiment(
        name="fsdd-raw",
        data="fsdd",
        flags=("--recipe", "audio_raw", "--max-time", "10m"),
        at_least=90.0,
    ),
    Experiment(
        name="esc10",
        data="esc10",
        flags=("--split-column", "fold", "--test", "5", "--max-time", "15m"),
        at_least=70.0,
    ),
    Experiment(name="modelnet10", data="modelnet10", flags=("--max-time", "14m"), at_least=88.0),
    Experiment(
        name="wisdm51",
        data="wisdm51_watch",
        flags=(
            *("--group", "subject", "--max-time", "25m"),
            *("--augment.series.rotate", "--augment.series.rotate-degrees", "30"),
            *("--augment.series.mixup", "0.2", "--augment.series.time-mask", "0.2"),
        ),
        at_least=76.0,
    ),
    Experiment(
        name="ucf101",
        data="ucf101_3class",
        flags=(
            *("--label", "class", "--columns", "video:video"),
            *("--group", "group", "--max-time", "15m"),
        ),
        at_least=70.0,
    ),
    *(
        Experiment(
            name=f"grid-{name}",
            data="grid_s1",
            flags=("--label", "digit", *flags, "--max-time", minutes),
            at_least=at_least,
        )
        for name, flags, minutes, at_least in (
            ("audio", ("--columns", "video:audio", *_WORDS), "25m", 95.0),
            ("video", ("--columns", "video:video", *_FRAMES), "8m", 0.0),
            ("both", (*_WORDS, *_FRAMES, "--modality-dropout", "video:0.7"), "30m", 90.0),
        )
    ),
    Experiment(
        name="imdb",
        data="imdb",
        flags=("--preprocess.text.max-length", "1024", "--max-time", "30m"),
        at_least=70.0,
    ),
    Experiment(
        name="shakespeare",
        data="tinyshakespeare/input.txt",
        flags=("--recipe", "mlm_bytes", "--size", "tiny", "--max-time", "40m"),
        at_least=58.0,
    ),
    Experiment(
        name="grid-autoencode",
        data="grid_s1",
        flags=(
            *("--recipe", "autoencode", "--label", "digit", "--max-time", "40m"),
            *("--preprocess.video.num-frames", "8", "--preprocess.video.frame-rate", "2.5"),
            *("--preprocess.video.size", "32", "40", "--preprocess.audio.sample-rate", "8000"),
            *("--task.parts.audio.weight", "0.1"),
        ),
        metric="video_psnr",
        at_least=29.0,
    ),
    Experiment(
        name="flow",
        data="pairs",
        flags=("--recipe", "flow", "--size", "tiny", "--max-time", "30m"),
        metric="epe",
        at_most=0.37,
    ),
    Experiment(name="mixed", data="mixed", flags=("--max-time", "4m"), at_least=60.0),
    Experiment(name="haptic", data="haptic", flags=("--max-time", "2m"), at_least=80.0),
)

MADE = ("mixed", "haptic", "pairs")  # by benchmarks.made_data, of other sets or of nothing


def measured(output: str, metric: str) -> float:
    """Return a measure from the output of `perceivers evaluate --format json`: accuracy in percent."""
    metrics = json.loads(output)["metrics"]
    if metric not in metrics:
        sys.exit(f"Expected a measure '{metric}', got {', '.join(metrics)}.")
    return round(100 * metrics[metric], 1) if metric == "accuracy" else round(metrics[metric], 4)


def made(name: str, data: Path, out: Path) -> Path:
    """Return the folder of a data set that is made for this, and make it if it is not there."""
    folder = out / name
    if not folder.exists():
        if name == "haptic":
            make_haptic(folder)
        elif name == "pairs":
            make = ["perceivers", "moving", "--out", str(folder), "--count", "6000"]
            subprocess.run([sys.executable, "-m", *make], check=True)
        elif (data / "cifar10").exists():
            make_mixed(data, folder)
    return folder


def run(experiment: Experiment, data: Path, out: Path) -> dict[str, object] | None:
    """Fit and evaluate, or return None where the data are missing."""
    source = "builtin:digits" if experiment.data == "digits" else str(data / experiment.data)
    if experiment.data in MADE:
        source = str(made(experiment.data, data, out / "data"))
    if experiment.data != "digits" and not Path(source).exists():
        print(f"{experiment.name}: skipped, there is no {source}")
        return None
    folder = out / experiment.name
    command = ["perceivers", "fit", source, *experiment.flags, "--out", str(folder)]
    program = [sys.executable, "-m"]
    start = time.perf_counter()
    subprocess.run([*program, *command], check=True)
    seconds = time.perf_counter() - start
    evaluate = [*program, "perceivers", "evaluate", str(folder), "--format", "json"]
    done = subprocess.run(evaluate, check=True, capture_output=True, text=True)
    value = measured(done.stdout, experiment.metric)
    print(f"{experiment.name}: {experiment.metric} {value} after {seconds / 60:.1f} minutes")
    return {
        "name": experiment.name,
        "command": " ".join(command),
        "metric": experiment.metric,
        "value": value,
        "holds": experiment.holds(value),
        "fit_minutes": round(seconds / 60, 2),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Run the experiments, write their results, and fail if one is below what it must reach."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("runs/evidence"), help="for the runs")
    parser.add_argument("--only", help="the name of one experiment")
    args = parser.parse_args()
    chosen = [e for e in EXPERIMENTS if args.only in (None, e.name)]
    rows = [row for e in chosen if (row := run(e, args.data, args.out)) is not None]
    path = RESULTS / "accuracy.json"
    kept = json.loads(path.read_text()) if path.exists() else []
    names = {row["name"] for row in rows}
    kept = [row for row in kept if row["name"] not in names]
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps([*kept, *rows], indent=2) + "\n")
    failed = [row["name"] for row in rows if not row["holds"]]
    if failed:
        sys.exit(f"Below what they must reach: {', '.join(map(str, failed))}. See {path}.")


if __name__ == "__main__":
    main()
