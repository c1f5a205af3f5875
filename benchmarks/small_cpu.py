"""Compare `perceivers fit` without flags with simple baselines, in minutes of a small CPU (`make small-cpu`).

Each row of the benchmark is one data set with a budget in minutes: `perceivers fit`, then `perceivers evaluate` on the
test split, then simple baselines on the same split. Every run is a process with a log file. Results are written as soon
as they are there; what is on file is not run again. Rows without data are skipped with a message.

    python -m benchmarks small_cpu --list
    python -m benchmarks small_cpu --data DATA                           all rows
    python -m benchmarks small_cpu --data DATA --only wine --seeds 0 1 2
    python -m benchmarks small_cpu --data DATA --parts training          without reading the test splits
    python -m benchmarks small_cpu --page                                docs/results/small_cpu.md from the results

DATA is a folder with a folder for each data set (see `--list`): `train.parquet` and `test.parquet` (or `.npz`, `.tar`),
and `esc10/esc10.parquet` with the column `fold`. Scikit-learn's sets are written by the benchmark itself.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from benchmarks import facts

RESULTS = Path(__file__).parent / "results" / "small_cpu.json"
PAGE = Path(__file__).parent.parent / "docs" / "results" / "small_cpu.md"
MADE = "made"  # folder of the data that the benchmark writes itself
SERIES = ("GunPoint", "BasicMotions", "ItalyPowerDemand", "ACSF1", "UnitTest")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One data set with its budget.

    Attributes:
        name: Name of the row, and of the run's folder.
        data: Folder below the data directory, or below `made` for data that the benchmark writes.
        kind: Loader of the baselines (`benchmarks.small_cpu_baselines`).
        minutes: Training time on all cores. None: the recipe's number of passes.
        flags: Flags of `perceivers fit`.
        metric: Measure of the test split.
        baselines: Names of the baselines.
        group: Rows of one group are averaged in the table. None: the row stands by itself.
        label: Column of the target.
        fold: Test fold, where the folds are numbers in a column `fold`.
    """

    name: str
    data: str
    kind: str
    minutes: float | None
    flags: tuple[str, ...] = ()
    metric: str = "accuracy"
    baselines: tuple[str, ...] = ()
    group: str | None = None
    label: str = "label"
    fold: int | None = None

    @property
    def is_made(self) -> bool:
        """Whether the benchmark writes the data itself, from nothing."""
        return self.kind in ("table", "digits")


def _table(name: str, label: str, metric: str = "accuracy", flags: tuple[str, ...] = ()) -> Row:
    return Row(
        name=name,
        data=f"{MADE}/{name}",
        kind="table",
        minutes=1,
        flags=("--label", label, *flags, "--columns", "*"),
        metric=metric,
        baselines=("linear", "random forest", "boosted trees"),
        label=label,
    )


ROWS = (
    Row(name="cifar10", data="cifar10", kind="image", minutes=20, baselines=("plain ResNet",)),
    Row(
        name="cifar10_5000",
        data=f"{MADE}/cifar10_5000",
        kind="image",
        minutes=10,
        baselines=("plain ResNet",),
    ),
    Row(name="imdb", data="imdb", kind="text", minutes=13, baselines=("words",)),
    Row(
        name="subjectivity",
        data="subjectivity",
        kind="text",
        minutes=5,
        baselines=("words", "words and characters"),
    ),
    Row(name="fsdd", data="fsdd", kind="audio", minutes=10, baselines=("mel statistics",)),
    *(
        Row(
            name=f"esc10-{fold}",
            data="esc10",
            kind="audio",
            minutes=15,
            flags=("--split-column", "fold", "--test", str(fold)),
            baselines=("mel statistics",),
            group="esc10",
            fold=fold,
        )
        for fold in range(1, 6)
    ),
    Row(name="modelnet10", data="modelnet10", kind="points", minutes=14, baselines=("histograms",)),
    Row(
        name="wisdm51_watch",
        data="wisdm51_watch",
        kind="series",
        minutes=15,
        flags=("--group", "subject"),
        baselines=("channel statistics", "random kernels"),
    ),
    Row(
        name="ucf101_3class",
        data="ucf101_3class",
        kind="video",
        minutes=15,
        flags=("--label", "class", "--columns", "video:video", "--group", "group"),
        baselines=("frame statistics",),
        label="class",
    ),
    Row(
        name="grid_s1",
        data="grid_s1",
        kind="speech",
        minutes=30,
        flags=("--label", "digit"),
        baselines=("pooled spectrogram",),
        label="digit",
    ),
    *(
        Row(
            name=f"series_small-{name}",
            data=f"series_small/{name}",
            kind="series",
            minutes=2,
            baselines=("random forest", "random kernels"),
            group="series_small",
        )
        for name in SERIES
    ),
    _table("wine", "class"),
    _table("breast_cancer", "class"),
    _table("diabetes", "target", "r2", ("--target", "number")),
    Row(
        name="digits",
        data="builtin:digits",
        kind="digits",
        minutes=None,
        flags=("--recipe", "digits"),
        baselines=("linear", "random forest"),
    ),
)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line, read."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks small_cpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, help="folder with a folder for each data set")
    parser.add_argument("--out", type=Path, default=Path("runs/small_cpu"), help="runs and logs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the results")
    parser.add_argument("--list", action="store_true", help="names and data of all rows")
    parser.add_argument("--page", action="store_true", help="write docs/results/small_cpu.md only")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="rows whose names begin so"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="one run for each")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of all budgets")
    parser.add_argument(
        "--fit-flags", default="", help='further flags of every fit: "--preset best"'
    )
    parser.add_argument(
        "--parts",
        choices=("all", "training", "fit", "baselines"),
        default="all",
        help="fit and baselines, or one of them; training: fit without a look at the test split, which a later "
        "call reads without training again",
    )
    parser.add_argument("--threads", type=int, help="of every process; by default all cores")
    return parser.parse_args(argv)


def chosen(names: Iterable[str]) -> list[Row]:
    """Return the rows whose names begin with one of `names`; all without names.

    Raises:
        ValueError: If no row begins so.
    """
    names = list(names)
    for name in names:
        if not any(row.name.startswith(name) for row in ROWS):
            known = ", ".join(row.name for row in ROWS)
            raise ValueError(
                f"Expected the beginning of a row's name, got '{name}'. Rows: {known}."
            )
    return [row for row in ROWS if not names or any(row.name.startswith(name) for name in names)]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0, 1 if a run failed, 2 for wrong arguments."""
    args = arguments(argv)
    try:
        rows = chosen(args.only)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if args.list:
        print("\n".join(f"{row.name:30} {row.data:30} {_minutes(row, 1.0)}" for row in rows))
        return 0
    if args.page:
        return _page(args.results)
    if args.data is not None and not args.data.is_dir():
        print(f"Expected a folder of data sets, got --data {args.data}.", file=sys.stderr)
        return 2
    if args.scale <= 0:
        print(f"Expected --scale above 0, got {args.scale}.", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    for row in rows:
        folder = data_folder(row, args.data, args.out)
        if folder is None:
            continue
        if args.parts != "baselines":
            failed += [f"{row.name}, seed {s}" for s in args.seeds if not fit(row, folder, s, args)]
        if args.parts in ("all", "baselines"):
            failed += [
                f"{row.name}, {b}" for b in row.baselines if not compare(row, folder, b, args)
            ]
    if failed:
        print(f"Failed: {'; '.join(failed)}. The logs are in {args.out}.", file=sys.stderr)
    return 1 if failed else 0


def data_folder(row: Row, data: Path | None, out: Path) -> str | None:
    """Return the data of a row, after writing those that the benchmark makes. Without data, print a message."""
    if row.data.startswith("builtin:"):
        return row.data
    if row.is_made:
        folder = out / row.data
        if not folder.exists():
            write_table(row, folder)
        return str(folder)
    if row.data.startswith(MADE):
        original = None if data is None else data / "cifar10"
        if original is not None and (original / "train.parquet").exists():
            folder = out / row.data
            if not folder.exists():
                write_part(original, folder, 5000)
            return str(folder)
        folder = original
    else:
        folder = None if data is None else data / row.data
    if folder is not None and folder.is_dir():
        return str(folder)
    where = "--data is not given" if folder is None else f"there is no {folder}"
    print(f"{row.name}: skipped, {where}.", flush=True)
    return None


def write_table(row: Row, folder: Path) -> None:
    """Write one of scikit-learn's sets as CSV files: 70 % of the rows to learn from, 30 % to test."""
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    table = getattr(datasets, f"load_{row.name}")(as_frame=True)
    frame, target = table.data, table.target
    if row.metric == "accuracy":
        target = target.map(lambda index: str(table.target_names[index]))
    frame[row.label] = target
    stratify = target if row.metric == "accuracy" else None
    train, test = train_test_split(frame, test_size=0.3, random_state=0, stratify=stratify)
    _whole_folder(
        folder,
        lambda to: [
            part.to_csv(to / f"{name}.csv", index=False)
            for name, part in (("train", train), ("test", test))
        ],
    )


def write_part(original: Path, folder: Path, count: int) -> None:
    """Write the first rows of a training split, whose rows are shuffled, and the whole test split."""
    import pyarrow.parquet as pq

    def write(to: Path) -> None:
        pq.write_table(
            pq.read_table(original / "train.parquet").slice(0, count), to / "train.parquet"
        )
        shutil.copy(original / "test.parquet", to / "test.parquet")

    _whole_folder(folder, write)


def _whole_folder(folder: Path, write: Any) -> None:
    """Write a folder under another name first, so that an interrupted one is not taken for complete."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    write(unfinished)
    unfinished.rename(folder)


def fit(row: Row, folder: str, seed: int, args: argparse.Namespace) -> bool:
    """Fit and evaluate, unless that is on file. Return whether there is a result."""
    key = {"row": row.name, "seed": seed, "scale": args.scale, "flags": args.fit_flags}
    if on_file(args.results, "runs", key):
        print(f"{row.name}, seed {seed}: on file", flush=True)
        return True
    run = args.out / _file_name(row.name, f"seed{seed}", args)
    log = run.with_name(f"{run.name}.log")
    trained = run.with_name(f"{run.name}.trained.json")
    flags = [
        *row.flags,
        *_budget(row, args.scale),
        "--seed",
        str(seed),
        *shlex.split(args.fit_flags),
    ]
    command = [sys.executable, "-m", "perceivers"]
    if not trained.exists():
        shutil.rmtree(run, ignore_errors=True)
        limit = 60 * (2 * (row.minutes or 5) * args.scale + 20)
        start = time.perf_counter()
        print(f"{row.name}, seed {seed}: {_minutes(row, args.scale)}, log in {log}", flush=True)
        if not logged(
            [*command, "fit", folder, *flags, "--out", str(run)], log, limit, args.threads
        ):
            return False
        minutes = round((time.perf_counter() - start) / 60, 2)
        trained.write_text(json.dumps({"minutes": minutes, **machine_facts(args.threads)}) + "\n")
    if args.parts == "training":
        return True
    facts_of_run = json.loads(trained.read_text())
    answer = run / "evaluation.json"
    evaluate = [*command, "evaluate", str(run), "--split", "test", "--format", "json"]
    if not logged([*evaluate, "--out", str(answer)], log, 3600, args.threads):
        return False
    metrics = json.loads(answer.read_text())["metrics"]
    if row.metric not in metrics:
        print(f"{row.name}: expected the measure '{row.metric}', got {', '.join(metrics)}.")
        return False
    shown = "DATA/" + row.data.removeprefix(f"{MADE}/") if ":" not in row.data else row.data
    found = {
        **key,
        "metric": row.metric,
        "value": metrics[row.metric],
        "metrics": metrics,
        "command": shlex.join(["perceivers", "fit", shown, *flags]).replace("'*'", '"*"'),
        **facts_of_run,
    }
    keep(args.results, "runs", key, found)
    print(
        f"{row.name}, seed {seed}: {row.metric} {metrics[row.metric]:.4f} in {found['minutes']} min"
    )
    return True


def compare(row: Row, folder: str, baseline: str, args: argparse.Namespace) -> bool:
    """Run one baseline in a process, unless it is on file. Return whether there is a result."""
    key = {"row": row.name, "baseline": baseline, "scale": args.scale}
    if on_file(args.results, "baselines", key):
        print(f"{row.name}, {baseline}: on file", flush=True)
        return True
    name = _file_name(row.name, baseline.replace(" ", "-"), args)
    log, answer = args.out / f"{name}.log", args.out / f"{name}.json"
    command = [sys.executable, "-m", "benchmarks.small_cpu_baselines", "--row", row.name]
    command += ["--folder", folder, "--baseline", baseline, "--out", str(answer)]
    if row.minutes is not None:
        command += ["--minutes", f"{row.minutes * args.scale:g}"]
    answer.unlink(missing_ok=True)
    limit = 60 * (2 * (row.minutes or 5) * args.scale + 30)
    if not logged(command, log, limit, args.threads) or not answer.exists():
        return False
    found = json.loads(answer.read_text())
    keep(args.results, "baselines", key, {**key, **found, **machine_facts(args.threads)})
    print(f"{row.name}, {baseline}: {found['metric']} {found['value']:.4f} in {found['seconds']} s")
    return True


def logged(command: Sequence[str], log: Path, limit: float, threads: int | None) -> bool:
    """Run a process whose output is appended to a file, and return whether it succeeded within `limit` seconds."""
    environment = {
        k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    }
    if threads is not None:
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with log.open("a") as file:
        file.write(f"\n$ {shlex.join(command)}\n")
        file.flush()
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            status = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            status = f"more than {limit:.0f} seconds"
            _end(process)
        except BaseException:
            _end(process)
            raise
    if status == 0:
        return True
    last = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-8:]
    print("\n".join([f"failed ({status}), see {log}:", *last]), file=sys.stderr, flush=True)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process with all that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()


def machine_facts(threads: int | None) -> dict[str, Any]:
    """Return the facts of the machine that a result depends on."""
    return {
        "processor": facts.processor(),
        "threads": threads or facts.cores(),
        "torch": facts.installed("torch"),
        "perceivers": facts.installed("perceivers"),
        "day": time.strftime("%Y-%m-%d"),
    }


def read(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the results on file."""
    if not path.exists():
        return {"runs": [], "baselines": []}
    return json.loads(path.read_text())


def on_file(path: Path, part: str, key: dict[str, Any]) -> bool:
    """Return whether a result with this key is on file."""
    return any(_matches(one, key) for one in read(path)[part])


def keep(path: Path, part: str, key: dict[str, Any], found: dict[str, Any]) -> None:
    """Add a result to the file in place of one with the same key; other processes may do so at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        results = read(path)
        results[part] = [one for one in results[part] if not _matches(one, key)] + [found]
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(results, indent=1) + "\n")
        unfinished.replace(path)


def _matches(one: dict[str, Any], key: dict[str, Any]) -> bool:
    return all(one.get(name) == value for name, value in key.items())


def _budget(row: Row, scale: float) -> list[str]:
    if row.minutes is None:
        return []
    return ["--max-time", f"{max(1, round(60 * row.minutes * scale))}s"]


def _minutes(row: Row, scale: float) -> str:
    return "as in the recipe" if row.minutes is None else f"{row.minutes * scale:g} min"


def _file_name(row: str, part: str, args: argparse.Namespace) -> str:
    name = f"{row}-{part}"
    if args.scale != 1:
        name += f"-x{args.scale:g}"
    flags = "".join(c if c.isalnum() else "-" for c in getattr(args, "fit_flags", "")).strip("-")
    return f"{name}-{flags}" if flags and part.startswith("seed") else name


def _page(results: Path) -> int:
    """Write the page and return the exit status."""
    from benchmarks.small_cpu_page import rewrite

    if not results.exists():
        print(f"Expected results in {results}; run the benchmark first.", file=sys.stderr)
        return 2
    rewrite(read(results), ROWS, PAGE)
    print(f"written to {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
