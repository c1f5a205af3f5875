"""Measure the cases that were asked for, write the results and rewrite the tables of docs/performance.md.

A result is written as soon as it is there; running single cases again replaces their rows.
"""

import argparse
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import facts, harness, table
from benchmarks.cases import CASES, find
from benchmarks.measure import Budget
from benchmarks.setting import Case, Setting

RESULTS = Path(__file__).parent / "results"

# Benchmarks with a command line of their own.
_WHOLE = ("small_cpu", "pretraining", "evidence", "transfer")


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the command line, read."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--list", action="store_true", help="the names of all cases")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="cases whose names begin so"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--dtype",
        nargs="+",
        choices=("float32", "bfloat16"),
        help="by default float32, and on a GPU both",
    )
    parser.add_argument("--threads", type=int, help="of the CPU; by default one for each core")
    parser.add_argument("--seconds", type=float, default=30.0, help="of rounds for each case")
    parser.add_argument("--rounds", type=int, default=15, help="of each case at most")
    parser.add_argument("--smoke", action="store_true", help="tiny shapes: does everything run?")
    parser.add_argument(
        "--out", type=Path, help="file of the results, instead of results/DEVICE.json"
    )
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status: 0, 1 if a case failed, 2 for wrong arguments."""
    given = sys.argv[1:] if argv is None else argv
    if given and given[0] in _WHOLE:
        return importlib.import_module(f"benchmarks.{given[0]}").main(given[1:])
    args = arguments(argv)
    if args.child:
        harness.child(json.loads(args.child[0]), Path(args.child[1]))
        return 0
    try:
        cases = find(args.only)
    except KeyError as error:
        print(error.args[0], file=sys.stderr)
        return 2
    if args.list:
        width = max(len(case.name) for case in CASES)
        print("\n".join(f"{case.name:{width}}  {case.what}" for case in cases))
        return 0
    if args.device == "cuda" and not torch.cuda.is_available():
        print(
            "Expected a GPU that PyTorch can use, got none. Measure on the CPU with --device cpu.",
            file=sys.stderr,
        )
        return 2
    return measure(cases, args)


def measure(cases: list[Case], args: argparse.Namespace) -> int:
    """Measure the cases one after the other."""
    torch.set_num_threads(args.threads or facts.cores() or 1)
    machine = facts.machine(args.device)
    folder = Path("runs/smoke") if args.smoke else RESULTS
    path = args.out or folder / f"{args.device}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    dtypes = args.dtype or ["float32"] + ["bfloat16"] * (args.device == "cuda")
    budget = Budget(seconds=args.seconds, at_least=min(3, args.rounds), at_most=args.rounds)
    failed: list[str] = []
    for dtype in dtypes:
        setting = Setting(device=args.device, dtype=dtype, smoke=args.smoke)
        for case in cases:
            if args.device not in case.devices or (case.float32_only and dtype != "float32"):
                continue
            load_now = facts.load_now(args.device, dtype)
            start = time.perf_counter()
            row = harness.run_case(case, setting, budget, torch.get_num_threads())
            row["measured_in_seconds"] = round(time.perf_counter() - start)
            results = harness.merged(path, machine, load_now, row)
            path.write_text(json.dumps(results, indent=1) + "\n")
            say(row)
            if "error" in row or any("error" in c for c in row["contestants"].values()):
                failed.append(case.name)
    print(f"written to {path}")
    if not args.smoke and args.out is None:
        table.rewrite(RESULTS)
    if failed:
        print(
            f"Failed: {', '.join(failed)}. The messages are above and in {path}.", file=sys.stderr
        )
    return 1 if failed else 0


def say(row: dict[str, Any]) -> None:
    """Print a case while the next one runs."""
    print(f"\n{row['case']}, {row['dtype']} ({row['measured_in_seconds']} s)", flush=True)
    if "error" in row:
        print(f"  {row['error']}", flush=True)
    for name, found in row["contestants"].items():
        print(f"  {name:18} {table.contestant(found)}", flush=True)
    for name, reason in row.get("skipped", {}).items():
        print(f"  {name:18} skipped: {reason}", flush=True)
    for target in row["targets"]:
        print(f"  {table.target(target)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
