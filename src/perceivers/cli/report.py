"""`perceivers report`: an HTML report of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from perceivers.cli.parsing import parse, wrong_arguments
from perceivers.cli.terminal import echo

_EXAMPLES = """
  perceivers report runs/birds                          writes runs/birds/report.html
  perceivers report runs/birds --out birds.html --examples 6
"""

_MOST_MISTAKES = 12  # `perceivers evaluate` saves that many


@dataclass(frozen=True)
class Options:
    """Write a self-contained HTML report of a run: metrics, curves, confusion, worst mistakes, cost, settings.

    Attributes:
        run: A run folder, ended or not.
        out: The file to write. By default `report.html` in the run folder.
        examples: Number of explained samples of the run's own data, where they are available.
        mistakes: Number of the worst mistakes that are shown of each task, at most 12, likewise. They are those that
            `perceivers evaluate` found; without it, a split of at most 2,000 rows is measured.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    out: Path | None = None
    examples: int = 3
    mistakes: int = 8


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options: Options = parse(Options, args, command="report", examples=_EXAMPLES)
    if options.examples < 0:
        wrong_arguments("report", f"Expected --examples of 0 or more, got {options.examples}.")
    if not 0 <= options.mistakes <= _MOST_MISTAKES:
        most = f"from 0 to {_MOST_MISTAKES}"
        wrong_arguments("report", f"Expected --mistakes {most}, got {options.mistakes}.")
    from perceivers.report.html_report import write_html_report

    out = options.out or Path(options.run) / "report.html"
    shown = {"examples": options.examples, "mistakes": options.mistakes}
    for sentence in write_html_report(options.run, out, **shown):
        echo(f"perceivers report: {sentence}", err=True)
    echo(f"The report of {options.run}: {out}")
    return 0
