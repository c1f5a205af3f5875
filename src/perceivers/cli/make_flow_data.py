"""`perceivers make-flow-data`: write pairs of frames with exactly known flow."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perceivers.cli.parsing import parse

_EXAMPLES = """
  perceivers make-flow-data --out pairs --count 2000
  perceivers make-flow-data --out pairs --images photos/ --size 128 128 --largest 8
  perceivers fit pairs --recipe flow --size tiny
  perceivers fit builtin:flow                                 made pairs without files
"""


@dataclass(frozen=True)
class Options:
    """Write pairs of frames whose flow is known exactly, as the data set FlyingChairs is laid out.

    Images, or synthetic textures, are moved by smooth random fields: a translation, an affine part and a few low waves.

    Attributes:
        out: The folder, new or empty.
        count: How many pairs.
        size: Height and width of the frames in pixels.
        largest: No pixel moves farther, in pixels.
        images: A folder of images that are moved; those of validation are others. By default textures are made.
        validation: Share of the pairs that are of the validation split.
        seed: Another seed makes other pairs.
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
    print(f"{options.count:,} pairs in {options.out}, {held_out:,} of them for validation.")
    print(f"Next: perceivers fit {options.out} --recipe flow --size tiny")
    return 0
