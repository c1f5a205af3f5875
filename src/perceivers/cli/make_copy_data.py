"""`perceivers make-copy-data`: write texts of the copy task."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perceivers.cli.parsing import check_numbers, parse
from perceivers.cli.terminal import echo
from perceivers.wording import counted

_EXAMPLES = """
  perceivers make-copy-data --out copy
  perceivers fit copy --recipe copy_131072 --size tiny --out runs/copy
  perceivers evaluate runs/copy
  perceivers make-copy-data --out long --length 131072 --count 1000
"""


@dataclass(frozen=True)
class Options:
    """Write texts of the copy task: random characters, then the same in reverse order.

    Attributes:
        out: The folder, new or empty.
        length: Tokens of a sequence. Two less are characters.
        count: Number of texts.
        test: Share of the test split.
        seed: Seed of the texts.
    """

    out: Path
    length: int = 1024
    count: int = 10_000
    test: float = 0.02
    seed: int = 0


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options: Options = parse(Options, args, command="make-copy-data", examples=_EXAMPLES)
    check_numbers("make-copy-data", options, {"length": 10, "count": 2, "seed": 0})
    from perceivers.data.sources.synthetic_copy import write_copy_texts

    held_out = write_copy_texts(
        options.out,
        length=options.length,
        count=options.count,
        test=options.test,
        seed=options.seed,
    )
    echo(f"{counted(options.count, 'text')} in {options.out}, {held_out:,} of them for test.")
    echo(f"Next: perceivers fit {options.out} --recipe copy_131072 --size tiny")
    return 0
