"""`perceivers check`: what `fit` would see and choose, and what is wrong with the data."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from perceivers.cli.parsing import Switch, parse, wrong_arguments
from perceivers.cli.terminal import echo
from perceivers.console import CountProgress, wrapped

if TYPE_CHECKING:
    from perceivers.checks.check import CheckReport
    from perceivers.checks.finding import Finding, RowName

_EXAMPLES = """
  perceivers check birds/
  perceivers check patients.csv --label outcome --group patient
  perceivers check birds/ --format json > findings.json
  perceivers check birds/ --strict && perceivers fit birds/
"""
_MOST_JSON = 1000  # groups of rows of a finding


@dataclass(frozen=True)
class Options:
    """Read all data once: what `fit` would see and choose, unreadable rows, duplicates, labels, groups.

    Exit status: 0 without errors, 1 with errors (or, with --strict, warnings), 2 for wrong arguments.

    Attributes:
        data: A folder, a table, a saved Hugging Face dataset, a hub id, or builtin:digits.
        label: Target column, or several: `digit,color`.
        target: Kind of the target.
        columns: Input columns with their kinds: `photo:image,age:number`.
        split_column: Column that divides the rows into splits.
        test: Value of `split_column` in the test split.
        group: Column whose values never occur on both sides of a split.
        recipe: Recipe's name, YAML file, or module:function. By default one that fits the data.
        show: Rows that are listed for each finding.
        strict: Whether warnings count as errors in the exit status.
        format: Output format.
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    label: str | None = None
    target: Literal["auto", "class", "labels", "number", "nothing"] | None = None
    columns: str | None = None
    split_column: str | None = None
    test: str | None = None
    group: str | None = None
    recipe: str | None = None
    show: int = 5
    strict: Switch = False
    format: Literal["text", "json"] = "text"


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options: Options = parse(Options, args, command="check", examples=_EXAMPLES)
    if options.show < 0:
        wrong_arguments("check", f"Expected --show of at least 0, got {options.show}.")
    from perceivers.checks.check import check_data
    from perceivers.recipes.overrides import FlagWords, OverrideError

    names = ("label", "target", "columns", "split_column", "test", "group")
    given = {name: getattr(options, name) for name in names}
    words: dict[str, Any] = {
        name: FlagWords([value]) for name, value in given.items() if value is not None
    }
    try:
        with CountProgress("check", "row"):
            overrides: dict[str, Any] = {**words}
            report = check_data(options.data, options.recipe, **overrides)
    except OverrideError as error:
        wrong_arguments("check", error.hint)
    if options.format == "json":
        echo(json.dumps(_as_json(report), indent=2))
    else:
        echo("\n".join(_lines(report, options.show)))
    counted = {"error", "warning"} if options.strict else {"error"}
    return int(any(one.severity in counted for one in report.findings))


def _lines(report: "CheckReport", show: int) -> Iterator[str]:
    """Yield the report as lines of at most 80 columns, but for names of files."""
    splits = ", ".join(f"{split} {count:,}" for split, count in report.rows.items())
    inputs = ", ".join(
        name if name == kind else f"{name} ({kind})" for name, kind in report.inputs.items()
    )
    yield wrapped(f"Rows: {splits}. Inputs: {inputs}. Target: {report.target or 'none'}.")
    for note in report.notes:
        yield wrapped(note)
    if not report.findings:
        yield ""
        yield "No problems were found."
        return
    for one in report.findings:
        yield ""
        yield wrapped(f"{one.severity.upper()}: {one.message}")
        for group in one.groups[:show]:
            yield from _names(group)
        rest = len(one.groups) - show
        if rest > 0 and show:
            yield f"  ... and {rest:,} more (--show, or --format json)"


def _names(group: "Sequence[RowName]") -> Iterator[str]:
    """Yield the names of the rows of a group, each with its split and class."""
    for place, row in enumerate(group):
        label = "" if row.label is None else f", {row.label}"
        note = f": {row.note}" if row.note else ""
        yield f"  {'=' if place else '-'} {row.name} ({row.split}{label}){note}"


def _as_json(report: "CheckReport") -> dict[str, Any]:
    fields = dataclasses.asdict(dataclasses.replace(report, findings=()))
    return {**fields, "findings": [_finding(one) for one in report.findings]}


def _finding(one: "Finding") -> dict[str, Any]:
    groups = [[dataclasses.asdict(row) for row in group] for group in one.groups[:_MOST_JSON]]
    return {
        "kind": one.kind,
        "severity": one.severity,
        "message": one.message,
        "num_groups": len(one.groups),
        "groups": groups,
    }
