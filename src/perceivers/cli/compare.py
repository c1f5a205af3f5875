"""`perceivers compare`: several runs in one table and one figure."""

import csv
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from perceivers.cli.parsing import parse, wrong_arguments
from perceivers.cli.terminal import echo
from perceivers.console import rate_text, terminal_width, wrapped_for
from perceivers.escaping import json_text

if TYPE_CHECKING:
    from perceivers.runs.comparison import Comparison
    from perceivers.runs.record import LoadedRun


_EXAMPLES = """
  perceivers compare runs/birds runs/birds-small
  perceivers compare runs/* --out compare.png                the curves in one figure, too
  perceivers compare runs/* --format csv > runs.csv          a row for each run
"""

_SHOWN_SETTINGS = 30  # in the table
_WIDTH = 28  # of a cell of the table


@dataclass(frozen=True)
class Options:
    """Compare runs: metrics, cost, and settings that differ.

    Attributes:
        runs: Run folders, finished or not.
        format: Output format. csv has a row for each run.
        out: PNG file for a figure of the curves.
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")] = ()
    format: Literal["table", "json", "csv"] = "table"
    out: Path | None = None


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status: 1 if a run could not be read."""
    options: Options = parse(Options, args, command="compare", examples=_EXAMPLES)
    if len(options.runs) < 2:
        wrong_arguments("compare", f"Expected at least two run folders, got {len(options.runs)}.")
    from perceivers.optional import require
    from perceivers.runs.comparison import compare_runs

    if options.out is not None:
        require("matplotlib", "viz")
    comparison = compare_runs(options.runs)
    for folder, reason in comparison.left_out:
        where = "" if folder in reason else f"{folder}: "
        echo(f"perceivers compare: left out: {where}{reason}", err=True)
    forms = {"table": _table, "json": _json, "csv": _csv}
    echo(forms[options.format](comparison))
    if options.out is not None:
        from perceivers.runs.comparison import draw_comparison

        draw_comparison(comparison, options.out)
        echo(f"The curves: {options.out}", err=True)
    return 1 if comparison.left_out else 0


def _properties(one: "LoadedRun") -> dict[str, Any]:
    """Return the properties of a run besides its metrics, by column name. None: unknown."""
    summary, cost = one.summary, one.cost
    baseline = None if summary is None else summary.baseline
    return {
        "state": one.state,
        "recipe": None if one.recipe is None else one.recipe.name,
        "data": one.data,
        "parameters": None if cost is None else cost.num_parameters,
        "flops_per_sample": None if cost is None else cost.flops,
        "paper_flops_per_sample": None if cost is None else cost.paper_flops,
        "steps": one.steps,
        "epochs": one.rows[-1].get("epoch") if one.rows else None,
        "seconds": one.seconds,
        "samples_per_second": one.samples_per_second,
        "simple_baseline": None if baseline is None else baseline.value,
        "device": None if summary is None else summary.device or None,
        "command": None if summary is None else summary.command or None,
    }


def _json(comparison: "Comparison") -> str:
    runs = [
        {
            "run": str(one.folder),
            **_properties(one),
            "main_metric": one.main_metric,
            "metrics": one.metrics,
            "intervals": {
                split: dict(results[""].intervals) for split, results in one.results.items()
            },
        }
        for one in comparison.runs
    ]
    content = {
        "runs": runs,
        "settings": comparison.settings,
        "notes": comparison.notes,
        "left_out": [{"run": name, "reason": why} for name, why in comparison.left_out],
    }
    return json_text(content, indent=2, nan_as_null=True)


def _csv(comparison: "Comparison") -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    rows = [_properties(one) for one in comparison.runs]
    measures = comparison.measures
    writer.writerow(
        ["run", *rows[0], *(f"{split}/{name}" for split, name in measures), *comparison.settings]
    )
    for place, (one, row) in enumerate(zip(comparison.runs, rows, strict=True)):
        found = [one.metrics.get(split, {}).get(name) for split, name in measures]
        settings = [values[place] for values in comparison.settings.values()]
        writer.writerow([str(one.folder), *row.values(), *found, *settings])
    return buffer.getvalue().rstrip("\n")


def _table(comparison: "Comparison") -> str:
    from perceivers.evaluation.metrics_table import in_blocks
    from perceivers.tasks.metric_text import metric_text

    runs, width = comparison.runs, terminal_width(sys.stdout)
    rows = [["", *(_short(one.name) for one in runs)]]
    for split, name in comparison.measures:
        found = [(one.metrics.get(split, {}).get(name), one.interval(split, name)) for one in runs]
        texts = ["-" if v is None else metric_text(name, v, ends) for v, ends in found]
        rows.append([f"{split} {name}", *texts])
    for label, texts in _property_rows(comparison).items():
        rows.append([label, *(_short(text) for text in texts)])
    parts = [in_blocks(rows, width=width)]
    if comparison.settings:
        shown = list(comparison.settings.items())[:_SHOWN_SETTINGS]
        rows = [["settings that differ", *(_short(one.name) for one in runs)]]
        for name, values in shown:
            texts = [v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values]
            rows.append([name, *map(_short, texts)])
        more = len(comparison.settings) - len(shown)
        rest = f"\nand {more} more: --format json has all." if more else ""
        parts.append(in_blocks(rows, width=width) + rest)
    return "\n\n".join([*parts, *(wrapped_for(sys.stdout, note) for note in comparison.notes)])


def _property_rows(comparison: "Comparison") -> dict[str, list[str]]:
    """Return the rows of the table on size and cost, without those unknown for all runs."""
    from perceivers.tasks.metric_text import metric_text
    from perceivers.wording import readable_duration

    formats = {
        "state": ("state", "{}"),
        "parameters": ("parameters", "{:,}"),
        "flops_per_sample": ("GFLOPs a sample", "{:,.3g}"),
        "steps": ("steps", "{:,}"),
        "epochs": ("epochs", "{:.4g}"),
        "seconds": ("training time", "{}"),
        "samples_per_second": ("samples a second", "{}"),
        "simple_baseline": ("simple baseline", "{}"),
        "device": ("device", "{}"),
    }
    every = [_properties(one) for one in comparison.runs]
    for one, run in zip(every, comparison.runs, strict=True):
        if one["simple_baseline"] is not None:
            one["simple_baseline"] = metric_text(run.main_metric, one["simple_baseline"])
        if one["flops_per_sample"] is not None:
            one["flops_per_sample"] /= 1e9
        if one["samples_per_second"] is not None:
            one["samples_per_second"] = rate_text(one["samples_per_second"])
        if one["seconds"] is not None:
            one["seconds"] = readable_duration(one["seconds"])
    found: dict[str, list[str]] = {}
    for key, (label, form) in formats.items():
        values = [one[key] for one in every]
        if any(value is not None for value in values):
            found[label] = ["-" if v is None else form.format(v) for v in values]
    return found


def _short(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."
