"""Compare ways of fine-tuning a run on few labels with training from scratch.

A source is trained on one part of the data, then each way is trained on another part with each seed, and evaluated on
its test rows. Every run is a process with a log file; results are written as soon as they are there, and what is on
file is not run again.

    python -m benchmarks transfer --list
    python -m benchmarks transfer --data DATA --only cifar10 --seeds 0 1 2 3 4 --threads 1
    python -m benchmarks transfer --page                      docs/results/fine_tuning.md from the results

DATA is the folder of `python -m benchmarks small_cpu`.
"""

import argparse
import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.small_cpu import keep, logged, machine_facts, on_file, read

RESULTS = Path(__file__).parent / "results" / "transfer.json"
PAGE = Path(__file__).parent.parent / "docs" / "results" / "fine_tuning.md"

TUNE = ("--init-from", "SOURCE")
WAYS: dict[str, tuple[str, ...]] = {
    "all weights": TUNE,
    "frozen encoder, cached latents": (*TUNE, "--freeze", "encoder", "--cache-latents", "1"),
    "low-rank updates": (*TUNE, "--lora", "8"),
    "from scratch": (),
}
"""Flags of each way; SOURCE stands for the folder of the source's run."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """One source and the data that it is fine-tuned on.

    Attributes:
        name: Name of the row.
        source: Flags of the source's `fit`, after its data.
        source_data: Writes the folder of the source's data, or names one below DATA.
        data: Writes the folder of the labeled data of a seed, or names one below DATA.
        flags: Flags of every fit on the labeled data.
        scratch: Flags of training from scratch.
        folds: Test folds, in the column `fold`: each is a run of its own.
        ways: Names of the ways.
    """

    name: str
    source: tuple[str, ...]
    source_data: str | Callable[[Path, Path], None]
    data: str | Callable[[Path, Path, int], None]
    flags: tuple[str, ...] = ()
    scratch: tuple[str, ...] = ()
    folds: tuple[int, ...] = ()
    ways: tuple[str, ...] = tuple(WAYS)


def first_classes(original: Path, folder: Path) -> None:
    """Write the images of classes 0 to 4."""
    _write_classes(original / "cifar10", folder, range(5), None, 0)


def last_classes(original: Path, folder: Path, seed: int) -> None:
    """Write 500 training images of classes 5 to 9, as many of each, and all test images of these classes."""
    _write_classes(original / "cifar10", folder, range(5, 10), 100, seed)


def _write_classes(
    original: Path, folder: Path, classes: range, count: int | None, seed: int
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for part in ("train", "test"):
        table = pq.read_table(original / f"{part}.parquet").to_pandas()
        table = table[table["label"].isin(classes)]
        if part == "train" and count is not None:
            table = table.groupby("label").sample(count, random_state=seed)
        pq.write_table(
            pa.Table.from_pandas(table, preserve_index=False), folder / f"{part}.parquet"
        )


TRANSFERS = (
    Transfer(
        name="cifar10",
        source=("--recipe", "images", "--max-time", "20m"),
        source_data=first_classes,
        data=last_classes,
        scratch=("--max-time", "5m"),
    ),
    Transfer(
        name="fsdd-esc10",
        source=("--max-time", "10m"),
        source_data="fsdd",
        data="esc10",
        flags=("--split-column", "fold", "--test", "FOLD"),
        scratch=("--max-time", "15m"),
        folds=(1, 2, 3, 4, 5),
        ways=("all weights", "frozen encoder, cached latents", "low-rank updates"),
    ),
    Transfer(
        name="imdb",
        source=("--recipe", "mlm_bytes", "--size", "tiny", "--max-time", "12m"),
        source_data="imdb",
        data="imdb",
        flags=("--validation-fraction", "0.02", "--max-time", "12m"),
        ways=("all weights",),
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0, 1 if a run failed, 2 for wrong arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks transfer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [row.name for row in TRANSFERS]
    parser.add_argument("--data", type=Path, help="folder with a folder for each data set")
    parser.add_argument("--out", type=Path, default=Path("runs/transfer"), help="runs and logs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the results")
    parser.add_argument("--list", action="store_true", help="names of all rows")
    parser.add_argument("--page", action="store_true", help="write the page only")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="one run for each")
    parser.add_argument("--threads", type=int, help="of every process; by default all cores")
    args = parser.parse_args(argv)
    if args.list:
        print("\n".join(names))
        return 0
    if args.page:
        from benchmarks.transfer_page import rewrite

        rewrite(read(args.results), TRANSFERS, PAGE)
        return 0
    if args.data is None or not args.data.is_dir():
        print(f"Expected a folder of data sets, got --data {args.data}.", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    done = [measure(row, args) for row in TRANSFERS if row.name in args.only]
    return 0 if all(done) else 1


def measure(row: Transfer, args: argparse.Namespace) -> bool:
    """Train the source and every way with every seed. Return whether all succeeded."""
    source = args.out / f"{row.name}-source"
    if not (source / "trained.json").exists():
        shutil.rmtree(source, ignore_errors=True)
        folder = _folder(row.source_data, args, f"{row.name}-source-data")
        seconds = _fit(folder, [*row.source], source, args)
        if seconds is None:
            return False
        (source / "trained.json").write_text(json.dumps({"seconds": seconds}) + "\n")
    cases = [
        (way, seed, fold)
        for seed in args.seeds
        for fold in row.folds or (None,)
        for way in row.ways
    ]
    done = [_measure_way(row, source, way, seed, fold, args) for way, seed, fold in cases]
    return all(done)


def _measure_way(
    row: Transfer, source: Path, way: str, seed: int, fold: int | None, args: argparse.Namespace
) -> bool:
    key = {"row": row.name, "way": way, "seed": seed, "fold": fold}
    if on_file(args.results, "runs", key):
        return True
    folder = _folder(row.data, args, f"{row.name}-data{seed}", seed)
    flags = [str(source) if flag == "SOURCE" else flag for flag in WAYS[way]]
    flags += [str(fold) if flag == "FOLD" else flag for flag in row.flags]
    flags += [] if "--init-from" in flags else row.scratch
    run = args.out / f"{row.name}-{way.replace(', ', '-').replace(' ', '-')}-{seed}-{fold or 0}"
    shutil.rmtree(run, ignore_errors=True)
    seconds = _fit(folder, [*flags, "--seed", str(seed)], run, args)
    answer = run / "evaluation.json"
    command = ["evaluate", str(run), "--split", "test", "--format", "json", "--out", str(answer)]
    if seconds is None or not _perceivers(command, run, args):
        return False
    metrics = json.loads(answer.read_text())["metrics"]
    epochs, each = _epochs(run / "metrics.jsonl")
    found = {
        "accuracy": metrics["accuracy"],
        "seconds": round(seconds, 1),
        "epochs": epochs,
        "seconds_per_epoch": each,
        **machine_facts(args.threads),
    }
    keep(args.results, "runs", key, {**key, **found})
    print(f"{row.name}, {way}, seed {seed}, fold {fold}: {found['accuracy']:.4f} in {seconds:.0f} s, "
          f"{each:.2f} s an epoch", flush=True)  # fmt: skip
    return True


def _folder(
    data: str | Callable[..., None], args: argparse.Namespace, name: str, *seed: int
) -> Path:
    """Return a folder of data, written first where the row makes it."""
    if isinstance(data, str):
        return args.data / data
    folder = args.out / name
    if not folder.exists():
        unfinished = folder.with_name(f"{name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        data(args.data, unfinished, *seed)
        unfinished.rename(folder)
    return folder


def _fit(folder: Path, flags: list[str], run: Path, args: argparse.Namespace) -> float | None:
    """Train, and return the seconds that it took; None if it failed."""
    start = time.perf_counter()
    done = _perceivers(["fit", str(folder), *flags, "--out", str(run)], run, args)
    return time.perf_counter() - start if done else None


def _perceivers(command: list[str], run: Path, args: argparse.Namespace) -> bool:
    print(shlex.join(["perceivers", *command]), flush=True)
    log = run.with_name(f"{run.name}.log")
    return logged([sys.executable, "-m", "perceivers", *command], log, 7200, args.threads)


def _epochs(path: Path) -> tuple[float, float]:
    """Return the number of epochs, and seconds for one of them, from the first logged one to the last."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [line for line in lines if "elapsed" in line and "epoch" in line]
    first, last = lines[0], lines[-1]
    passed = last["epoch"] - first["epoch"]
    return last["epoch"], (last["elapsed"] - first["elapsed"]) / passed if passed else 0.0
