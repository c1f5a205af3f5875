"""`perceivers shard`: write data as Parquet shards with the encoded files inside."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from perceivers.cli.parsing import check_numbers, parse
from perceivers.cli.terminal import echo
from perceivers.console import CountProgress
from perceivers.wording import counted

_EXAMPLES = """
  perceivers shard birds/ --out shards/birds
  perceivers shard clips.csv --out shards/clips --rows-per-shard 500
  perceivers shard esc10.parquet --out shards/esc10 --split-column fold --test 5
  perceivers fit shards/birds --stream
"""


@dataclass(frozen=True)
class Options:
    """Write data as Parquet shards that contain the encoded files, for copying and streaming.

    Finished shards are not written again unless the content of their rows has changed, so an interrupted run continues.

    Attributes:
        data: A folder, a table, tar shards, a saved Hugging Face dataset or a hub id.
        out: Folder of the shards.
        rows_per_shard: Rows per shard. By default for about 256 MiB.
        split: Splits to write. By default all.
        label: Target column, whose class names are written. By default `label`.
        split_column: Column that divides the rows into splits.
        test: Value of `split_column` in the test split.
        max_bad: Largest share of unreadable rows, which are left out.
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    out: Path
    rows_per_shard: int | None = None
    split: tuple[Literal["train", "validation", "test"], ...] = ()
    label: str | None = None
    split_column: str | None = None
    test: str | None = None
    max_bad: float = 0.01


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options: Options = parse(Options, args, command="shard", examples=_EXAMPLES)
    check_numbers("shard", options, {"rows_per_shard": 1}, ["max_bad"])
    from perceivers.data.base import DataConfig
    from perceivers.data.sources.write_shards import write_shards

    config = DataConfig(
        label=options.label,
        split_column=options.split_column,
        test=options.test,
        max_bad=options.max_bad,
    )
    with CountProgress("shard", "row"):
        written = write_shards(
            options.data,
            options.out,
            config=config,
            rows_per_shard=options.rows_per_shard,
            splits=options.split,
        )
    for part in written:
        there = f", {part.there} of them there already" if part.there else ""
        if part.changed:
            there += f", {part.changed} written again because their rows had changed"
        shards = counted(len(part.paths), "shard")
        echo(f"{part.split}: {counted(part.num_rows, 'row')} in {shards}{there}")
        for name, reason in part.bad[:5]:
            echo(f"perceivers shard: left out {name}: {reason}", err=True)
        if len(part.bad) > 5:
            echo(f"perceivers shard: left out {len(part.bad) - 5} more", err=True)
    echo(f"Next: perceivers fit {options.out} --stream")
    return 0
