"""Results of `python -m benchmarks transfer` -> the tables of docs/results/fine_tuning.md."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

from benchmarks.table import put_between
from benchmarks.transfer import Transfer

Runs = Sequence[dict[str, Any]]


def rewrite(results: dict[str, Any], rows: Sequence[Transfer], page: Path) -> None:
    """Put the results that are on file into the page."""
    text = page.read_text()
    for row in rows:
        runs = [one for one in results["runs"] if one["row"] == row.name]
        if runs:
            text = put_between(text, row.name, _table(row, runs), page)
    page.write_text(text)


def _table(row: Transfer, runs: Runs) -> str:
    """Return the accuracy and the times of each way."""
    lines = [
        "| way | test accuracy | runs | epochs | seconds of a run | seconds of an epoch |",
        "|---|---|---|---|---|---|",
    ]
    for way in row.ways:
        found = [one for one in runs if one["way"] == way]
        accuracies = _by_seed(row, found)
        if not accuracies:
            continue
        spread = f" ± {100 * pstdev(accuracies):.1f}" if len(accuracies) > 1 else ""
        numbers = [mean(one[name] for one in found) for name in ("epochs", "seconds")]
        lines.append(
            f"| {way} | **{100 * mean(accuracies):.1f} %**{spread} | {len(found)} | {numbers[0]:.0f} | "
            f"{numbers[1]:.0f} | {mean(one['seconds_per_epoch'] for one in found):.2f} |"
        )
    return "\n".join(["", *lines, ""])


def _by_seed(row: Transfer, runs: Runs) -> list[float]:
    """Return the accuracy of each seed, the mean of its folds, where all folds are on file."""
    seeds: dict[int, list[float]] = {}
    for one in runs:
        seeds.setdefault(one["seed"], []).append(one["accuracy"])
    return [mean(found) for found in seeds.values() if len(found) == max(len(row.folds), 1)]
