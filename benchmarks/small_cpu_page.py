"""Results of `make small-cpu` -> the table of docs/results/small_cpu.md; the prose around it is written by hand."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

from benchmarks.small_cpu import Row
from benchmarks.small_cpu_baselines import BASELINES
from benchmarks.table import put_between

Results = dict[str, list[dict[str, Any]]]


def rewrite(results: Results, rows: Sequence[Row], page: Path) -> None:
    """Put the results that are on file into the page."""
    page.write_text(put_between(page.read_text(), "small-cpu", render(results, rows), page))


def render(results: Results, rows: Sequence[Row]) -> str:
    """Return the tables as Markdown: one for each set of further flags and factor of the budget."""
    ways = sorted({(one["scale"], one["flags"]) for one in results["runs"]})
    lines: list[str] = [_machine(results)]
    for scale, flags in ways:
        runs = [one for one in results["runs"] if (one["scale"], one["flags"]) == (scale, flags)]
        baselines = [one for one in results["baselines"] if one["scale"] == scale]
        words = [f"budgets times {scale:g}"] if scale != 1 else []
        words += [f"with `{flags}`"] if flags else ["without further flags"]
        lines += ["", f"{', '.join(words).capitalize()}:", "", *_table(runs, baselines, rows)]
    commands = {
        one["row"]: one["command"]
        for one in results["runs"]
        if not one["flags"] and one["scale"] == 1
    }
    if commands:
        shown = [_seedless(commands[row.name]) for row in rows if row.name in commands]
        lines += ["", "Commands:", "", "```bash", *shown, "```"]
    return "\n".join(lines)


def _table(
    runs: list[dict[str, Any]], baselines: list[dict[str, Any]], rows: Sequence[Row]
) -> list[str]:
    lines = [
        "| data | minutes | threads | runs | `perceivers fit` | baselines on the same split (seconds) |",
        "|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row.group or row.name for row in rows):
        members = [row for row in rows if (row.group or row.name) == name]
        found = _by_seed(runs, members)
        if not found:
            continue
        minutes = members[0].minutes
        metric = members[0].metric
        each = " each" if len(members) > 1 else ""
        budget = "as in the recipe" if minutes is None else f"{minutes:g}{each}"
        spread = f" ± {_shown(pstdev(found), metric)}" if len(found) > 1 else ""
        text = f"**{_shown(mean(found), metric)}**{spread}{_unit(metric)}"
        lines.append(
            f"| {name} | {budget} | {_threads(runs, members)} | {len(found)} | {text} | "
            f"{_baselines(baselines, members, metric)} |"
        )
    return lines


def _threads(runs: list[dict[str, Any]], members: Sequence[Row]) -> str:
    """Return the number of threads of the runs of a group."""
    names = {row.name for row in members}
    return " or ".join(map(str, sorted({one["threads"] for one in runs if one["row"] in names})))


def _by_seed(runs: list[dict[str, Any]], members: Sequence[Row]) -> list[float]:
    """Return the value of each seed for which all rows of a group are on file: their mean."""
    names = {row.name for row in members}
    values: dict[int, dict[str, float]] = {}
    for one in runs:
        if one["row"] in names:
            values.setdefault(one["seed"], {})[one["row"]] = one["value"]
    return [mean(found.values()) for _, found in sorted(values.items()) if len(found) == len(names)]


def _baselines(baselines: list[dict[str, Any]], members: Sequence[Row], metric: str) -> str:
    texts: list[str] = []
    names = {row.name for row in members}
    for baseline in members[0].baselines:
        found = [one for one in baselines if one["row"] in names and one["baseline"] == baseline]
        if len(found) == len(names):
            value = _shown(mean(one["value"] for one in found), metric)
            seconds = mean(one["seconds"] for one in found)
            texts.append(f"{value}{_unit(metric)} {BASELINES[baseline].text} ({seconds:.0f})")
    return "; ".join(texts)


def _shown(value: float, metric: str) -> str:
    return f"{100 * value:.1f}" if metric == "accuracy" else f"{value:.3f}"


def _unit(metric: str) -> str:
    return " %" if metric == "accuracy" else f" {metric.upper()}"


def _machine(results: Results) -> str:
    every = [*results["runs"], *results["baselines"]]
    days = sorted({one["day"] for one in every})
    kinds = sorted({f"{one['processor']}, torch {one['torch']}" for one in every})
    until = f" to {days[-1]}" if len(days) > 1 else ""
    return (
        f"Measured on {days[0]}{until}: {'; '.join(kinds)}." if days else "No results on file yet."
    )


def _seedless(command: str) -> str:
    head, _, tail = command.partition(" --seed ")
    return head + tail[tail.find(" ") :] if " " in tail else head
