"""Compare pretraining on unlabeled data and fine-tuning on a tenth of the labels with training from scratch on these.

Each row of the benchmark is one data set with a budget in minutes. All training inputs are given without labels, and a
tenth of the training rows with labels (stratified by class, or a tenth of the groups). The ways to learn:

    pretrained  `perceivers pretrain` for half of the minutes, then `perceivers fit --init-from` for the rest
    scratch     `perceivers fit` on the labeled rows for all minutes
    probe       `perceivers probe` of the pretrained run on the labeled rows

All are measured on the test split of the data set. Every run is a process with a log file; results are written as soon
as they are there, and what is on file is not run again.

    python -m benchmarks pretraining --list
    python -m benchmarks pretraining --data DATA --only modelnet10 --seeds 0 1 2
    python -m benchmarks pretraining --data DATA --scale 0.1             a tenth of all budgets
    python -m benchmarks pretraining --page                              docs/results/pretraining.md from the results
"""

import argparse
import json
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import numpy as np

from benchmarks.small_cpu import keep, logged, machine_facts, on_file, read
from benchmarks.table import put_between
from perceivers.wording import counted

RESULTS = Path(__file__).parent / "results" / "pretraining.json"
PAGE = Path(__file__).parent.parent / "docs" / "results" / "pretraining.md"
WAYS = ("pretrained", "scratch", "probe")
SHARE = 0.1  # of the training rows, with labels
PRETRAINING = 1 / 2  # of the minutes


@dataclass(frozen=True, kw_only=True)
class Row:
    """One data set with its budget.

    Attributes:
        name: Name of the row.
        data: Folder below the data directory.
        minutes: Training time of each way.
        flags: Flags of every fit.
        group: Column of groups, a tenth of which has labels. None: a tenth of the rows of each class.
        fold: Test fold, where folds are numbers in a column `fold` of a single table. None: there is a test split.
        table: Rows of one table are averaged under this name. None: the row stands by itself.
    """

    name: str
    data: str
    minutes: float = 8
    flags: tuple[str, ...] = ()
    group: str | None = None
    fold: int | None = None
    table: str | None = None


ROWS = (
    Row(name="wisdm51_watch", data="wisdm51_watch", group="subject", flags=("--group", "subject")),
    *(
        Row(name=f"esc10-{fold}", data="esc10", minutes=4, fold=fold, table="esc10")
        for fold in range(1, 6)
    ),
    Row(name="cifar10", data="cifar10"),
    Row(name="modelnet10", data="modelnet10"),
)


def labeled_rows(
    labels: Sequence[Any], groups: Sequence[Any] | None, seed: int, share: float = SHARE
) -> list[int]:
    """Return the rows that have labels: a share of each class, at least one; or all rows of a share of the groups."""
    rng = np.random.default_rng(seed)
    if groups is not None:
        known = rng.permutation(np.unique(np.asarray(groups)))
        chosen = known[: max(round(share * len(known)), 2)]  # one is held out for validation
        return np.flatnonzero(np.isin(np.asarray(groups), chosen)).tolist()
    found: list[int] = []
    for label in np.unique(np.asarray(labels)):
        rows = rng.permutation(np.flatnonzero(np.asarray(labels) == label))
        found += rows[: max(round(share * len(rows)), 1)].tolist()
    return sorted(found)


def write_data(row: Row, folder: Path, made: Path, seed: int) -> tuple[Path, Path]:
    """Write all training inputs without labels, and the labeled rows with the test split; return both folders."""
    unlabeled, labeled = made / "unlabeled", made / "labeled"
    if labeled.exists():
        return unlabeled, labeled
    shutil.rmtree(unlabeled, ignore_errors=True)
    write = _write_npz if (folder / "train.npz").exists() else _write_parquet
    unfinished = made / "labeled.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unlabeled.mkdir(parents=True)
    unfinished.mkdir()
    write(row, folder, unlabeled, unfinished, seed)
    unfinished.rename(labeled)
    return unlabeled, labeled


def _write_parquet(row: Row, folder: Path, unlabeled: Path, labeled: Path, seed: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if row.fold is None:
        train = pq.read_table(folder / "train.parquet")
        test = pq.read_table(folder / "test.parquet")
    else:
        table = pq.read_table(folder / f"{row.data}.parquet")
        folds = np.asarray(table.column("fold"))
        train = table.take(pa.array(np.flatnonzero(folds != row.fold)))
        test = table.take(pa.array(np.flatnonzero(folds == row.fold)))
        train, test = train.drop_columns(["fold"]), test.drop_columns(["fold"])
    groups = None if row.group is None else train.column(row.group).to_pylist()
    rows = labeled_rows(train.column("label").to_pylist(), groups, seed)
    pq.write_table(train.drop_columns(["label"]), unlabeled / "train.parquet")
    pq.write_table(train.take(pa.array(rows)), labeled / "train.parquet")
    pq.write_table(test, labeled / "test.parquet")


def _write_npz(row: Row, folder: Path, unlabeled: Path, labeled: Path, seed: int) -> None:
    train = dict(np.load(folder / "train.npz", allow_pickle=False))
    count = len(train["label"])
    groups = None if row.group is None else train[row.group].tolist()
    rows = labeled_rows(train["label"].tolist(), groups, seed)
    per_row = {name: values for name, values in train.items() if len(values) == count}
    rest: dict[str, Any] = {name: train[name] for name in train if name not in per_row}
    inputs: dict[str, Any] = {name: per_row[name] for name in per_row if name != "label"}
    chosen: dict[str, Any] = {name: values[rows] for name, values in per_row.items()}
    np.savez(unlabeled / "train.npz", **inputs)
    np.savez(labeled / "train.npz", **chosen, **rest)
    shutil.copy(folder / "test.npz", labeled / "test.npz")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line, read."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks pretraining",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, help="folder with a folder for each data set")
    parser.add_argument("--out", type=Path, default=Path("runs/pretraining"), help="runs and logs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the results")
    parser.add_argument("--list", action="store_true", help="names and data of all rows")
    parser.add_argument("--page", action="store_true", help="write docs/results/pretraining.md")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="rows whose names begin so"
    )
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="one run for each")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of all budgets")
    parser.add_argument("--threads", type=int, help="of every process; by default all cores")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0, 1 if a run failed, 2 for wrong arguments."""
    args = arguments(argv)
    rows = [row for row in ROWS if not args.only or row.name.startswith(tuple(args.only))]
    if not rows or args.scale <= 0:
        known = ", ".join(row.name for row in ROWS)
        print(f"Expected --only of {known} and --scale above 0, got {args.only}, {args.scale}.")
        return 2
    if args.list:
        print("\n".join(f"{row.name:16} {row.data:16} {row.minutes:g} min" for row in rows))
        return 0
    if args.page:
        results = read(args.results)["runs"]
        PAGE.write_text(put_between(PAGE.read_text(), "pretraining", render(results), PAGE))
        print(f"written to {PAGE}")
        return 0
    failed: list[str] = []
    for row in rows:
        folder = None if args.data is None else args.data / row.data
        if folder is None or not folder.is_dir():
            print(f"{row.name}: skipped, there is no {folder or '--data'}.", flush=True)
            continue
        for seed in args.seeds:
            failed += _measure(row, folder, seed, args)
    if failed:
        print(f"Failed: {'; '.join(failed)}. The logs are in {args.out}.", file=sys.stderr)
    return 1 if failed else 0


def _measure(row: Row, folder: Path, seed: int, args: argparse.Namespace) -> list[str]:
    """Measure the ways that are not on file; return those that failed."""
    made = args.out / "made" / f"{row.name}-seed{seed}"
    name = f"{row.name}-seed{seed}" + ("" if args.scale == 1 else f"-x{args.scale:g}")
    steps: dict[str, Callable[[], dict[str, Any] | None]] = {
        "pretrained": lambda: _pretrained(row, made, args.out / name, seed, args),
        "scratch": lambda: _fit(row, made, args.out / f"{name}-scratch", seed, args, 1.0),
        "probe": lambda: _probe(row, made, args.out / name, args),
    }
    failed: list[str] = []
    for way in args.ways:
        key = {"row": row.name, "seed": seed, "scale": args.scale, "way": way}
        if on_file(args.results, "runs", key):
            print(f"{row.name}, seed {seed}, {way}: on file", flush=True)
            continue
        args.out.mkdir(parents=True, exist_ok=True)
        write_data(row, folder, made, seed)
        start = time.perf_counter()
        metrics = steps[way]()
        if metrics is None:
            failed.append(f"{row.name}, seed {seed}, {way}")
            continue
        spent = round((time.perf_counter() - start) / 60, 2)
        found = {**key, "table": row.table or row.name, "minutes": spent, "budget": row.minutes}
        keep(
            args.results,
            "runs",
            key,
            {**found, "accuracy": metrics["accuracy"], **machine_facts(args.threads)},
        )
        print(f"{row.name}, seed {seed}, {way}: {metrics['accuracy']:.4f} in {spent} min")
    return failed


def _pretrained(
    row: Row, made: Path, run: Path, seed: int, args: argparse.Namespace
) -> dict[str, Any] | None:
    """Pretrain and fine-tune; return the metrics of test."""
    shutil.rmtree(run, ignore_errors=True)
    limit = _seconds(row, args, PRETRAINING)
    flags = [*row.flags, "--max-time", f"{limit}s", "--seed", str(seed), "--out", str(run)]
    if not _run(["pretrain", str(made / "unlabeled"), *flags], run, limit, args):
        return None
    source = ["--init-from", str(run)]
    return _fit(row, made, Path(f"{run}-tuned"), seed, args, 1 - PRETRAINING, source)


def _fit(
    row: Row,
    made: Path,
    run: Path,
    seed: int,
    args: argparse.Namespace,
    share: float,
    more: Sequence[str] = (),
) -> dict[str, Any] | None:
    """Fit on the labeled rows for a share of the minutes; return the metrics of test."""
    shutil.rmtree(run, ignore_errors=True)
    limit = _seconds(row, args, share)
    flags = [*row.flags, "--max-time", f"{limit}s", "--seed", str(seed), "--no-baseline", *more]
    if not _run(["fit", str(made / "labeled"), *flags, "--out", str(run)], run, limit, args):
        return None
    answer = run / "evaluation.json"
    command = ["evaluate", str(run), "--split", "test", "--format", "json", "--out", str(answer)]
    return json.loads(answer.read_text())["metrics"] if _run(command, run, 600, args) else None


def _probe(row: Row, made: Path, run: Path, args: argparse.Namespace) -> dict[str, Any] | None:
    """Probe the pretrained run on the labeled rows; return the metrics of test."""
    if not (run / "config.json").exists():
        print(f"{row.name}: no pretrained run in {run}; measure the way `pretrained` first.")
        return None
    log = run.with_name(f"{run.name}-probe.log")
    log.unlink(missing_ok=True)
    if not _run(
        ["probe", str(run), str(made / "labeled"), *row.flags, "--format", "json"],
        log.with_suffix(""),
        1800,
        args,
    ):
        return None
    text = log.read_text()
    return json.loads(text[text.index("\n{") : text.rindex("}") + 1])["metrics"]["test"]


def _run(command: Sequence[str], run: Path, limit: float, args: argparse.Namespace) -> bool:
    whole = [sys.executable, "-m", "perceivers", *command]
    return logged(whole, run.with_name(f"{run.name}.log"), 2 * limit + 1200, args.threads)


def _seconds(row: Row, args: argparse.Namespace, share: float) -> int:
    return max(1, round(60 * row.minutes * args.scale * share))


def render(results: Sequence[dict[str, Any]]) -> str:
    """Return the table as Markdown: mean and standard deviation of the seeds, folds averaged."""
    if not results:
        return "Not measured yet."
    lines = [
        "| data | minutes | runs | pretrained, fine-tuned | from scratch | linear probe |",
        "|---|---|---|---|---|---|",
    ]
    for scale in sorted({one["scale"] for one in results}, reverse=True):
        here = [one for one in results if one["scale"] == scale]
        for table in dict.fromkeys(row.table or row.name for row in ROWS):
            part = [one for one in here if one["table"] == table]
            if not part:
                continue
            cells = {way: _by_seed([one for one in part if one["way"] == way]) for way in WAYS}
            minutes = f"{part[0]['budget'] * scale:g}"
            folds = " each" if any(row.table == table for row in ROWS) else ""
            shown = " | ".join(_cell(values) for values in cells.values())
            runs = max(map(len, cells.values()))
            lines.append(f"| {table} | {minutes}{folds} | {runs} | {shown} |")
    days = ", ".join(sorted({one["day"] for one in results}))
    machine = ", ".join(
        sorted({f"{one['processor']}, {counted(one['threads'], 'thread')}" for one in results})
    )
    return "\n".join(
        [f"Accuracy of the test split in percent, measured on {days}: {machine}.", "", *lines]
    )


def _by_seed(runs: Sequence[dict[str, Any]]) -> list[float]:
    """Return the accuracy of each seed, the mean over its folds."""
    seeds: dict[int, list[float]] = defaultdict(list)
    for one in runs:
        seeds[one["seed"]].append(one["accuracy"])
    return [mean(values) for _, values in sorted(seeds.items())]


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {100 * pstdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{spread}"


if __name__ == "__main__":
    sys.exit(main())
