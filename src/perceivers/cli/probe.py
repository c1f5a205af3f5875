"""`perceivers probe`: measure the vectors of a frozen model by a linear model."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import tyro

from perceivers.cli.parsing import Device, check_numbers, parse
from perceivers.cli.terminal import echo
from perceivers.console import CountProgress
from perceivers.wording import counted

_EXAMPLES = """
  perceivers probe runs/animals birds/                  a folder for each class
  perceivers probe runs/words reviews.csv --label stars
  perceivers probe deepmind/vision-perceiver-conv birds/ --format json
"""


@dataclass(frozen=True)
class Options:
    """Fit logistic or ridge regression to the vectors of a frozen model, and measure it on held-out rows.

    It shows in seconds how much a pretrained model holds about other labels, before anything is fine-tuned.

    Attributes:
        run: A run folder, a folder that `save_pretrained` has written, or a model on the Hugging Face hub.
        data: Data with labels.
        label: Target column.
        columns: Input columns, as of `fit`: `left:image,right:image`.
        group: Column whose values never occur on both sides of a split.
        split_column: Column that divides the rows into splits.
        test: Value of `split_column` in the test split.
        format: Output format.
        device: Where to compute. `auto` uses an accelerator if there is one.
        batch_size: Samples in one forward pass.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    label: str | None = None
    columns: str | None = None
    group: str | None = None
    split_column: str | None = None
    test: str | None = None
    format: Literal["table", "json"] = "table"
    device: Device = "auto"
    batch_size: int = 64


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options: Options = parse(Options, args, command="probe", examples=_EXAMPLES)
    check_numbers("probe", options, {"batch_size": 1})
    from perceivers.evaluation.metrics_table import metrics_text
    from perceivers.evaluation.probe import probe
    from perceivers.recipes.overrides import FlagWords

    names = ("label", "columns", "group", "split_column", "test")
    given: dict[str, Any] = {
        name: FlagWords((value,)) for name in names if (value := getattr(options, name)) is not None
    }
    with CountProgress("probe", "batch"):
        found = probe(
            options.run, options.data, device=options.device, batch_size=options.batch_size, **given
        )
    if options.format == "json":
        echo(json.dumps(asdict(found), indent=2))
        return 0
    rows = ", ".join(f"{name} {count:,}" for name, count in found.rows.items())
    echo(f"{found.model.capitalize()} on vectors of {found.width:,} numbers; rows: {rows}.")
    if found.bad:
        echo(f"{counted(len(found.bad), 'row')} could not be read, such as {found.bad[0][1]}")
    for split, metrics in found.metrics.items():
        echo(f"\n{split}:\n\n{metrics_text(metrics, found.intervals[split])}")
    return 0
