"""`perceivers make-flow-data`: write synthetic frame pairs with their optical flow."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perceivers.cli.parsing import check_numbers, parse
from perceivers.cli.terminal import echo
from perceivers.wording import counted

_EXAMPLES = """
  perceivers make-flow-data --out pairs --count 2000
  perceivers make-flow-data --out pairs --images photos/ --size 128 128 --largest 8
  perceivers fit pairs --recipe flow --size tiny
  perceivers fit builtin:flow                                 synthetic pairs without files
"""


@dataclass(frozen=True)
class Options:
    """Write frame pairs with exactly known optical flow, in the layout of the FlyingChairs data set.

    Images, or synthetic textures, are moved by smooth random fields: a translation, an affine part and a few low waves.

    Attributes:
        out: The folder, new or empty.
        count: Number of pairs.
        size: Height and width of the frames in pixels.
        largest: Largest displacement in pixels.
        images: A folder of images to move; those of the validation split are others. By default synthetic textures.
        validation: Share of the validation split.
        seed: Seed of the pairs.
    """

    out: Path
    count: int = 1000
    size: tuple[int, int] = (48, 48)
    largest: float = 3.0
    images: Path | None = None
    validation: float = 0.1
    seed: int = 0


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options: Options = parse(Options, args, command="make-flow-data", examples=_EXAMPLES)
    check_numbers("make-flow-data", options, {"count": 2})
    from perceivers.data.sources.synthetic_flow import write_pairs

    held_out = write_pairs(
        options.out,
        count=options.count,
        size=options.size,
        largest=options.largest,
        seed=options.seed,
        images=options.images,
        validation=options.validation,
    )
    pairs = counted(options.count, "pair")
    echo(f"{pairs} in {options.out}, {held_out:,} of them for validation.", wrap=True)
    echo(f"Next: perceivers fit {options.out} --recipe flow --size tiny")
    return 0
