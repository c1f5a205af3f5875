"""`perceivers explain`: draw what a run looked at."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from perceivers.cli.parsing import Device, parse

__all__ = ["run"]

_EXAMPLES = """
  perceivers explain runs/birds robin.jpg --out robin.png
  perceivers explain runs/birds robin.jpg --format npz      the arrays behind the picture
"""


@dataclass(frozen=True)
class Options:
    """Draw where in a picture each read of a run looked, beside what it predicts.

    Attributes:
        run: A run folder, or a model on the Hugging Face hub.
        file: The picture.
        out: The file to write. By default `NAME-attention.png` in this folder.
        format: A picture, or the arrays that it is drawn from. By default as `out` ends.
        latents: How many latents to show on their own.
        device: Where to compute. `auto` takes an accelerator if there is one.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    out: Path | None = None
    format: Literal["png", "npz"] | None = None
    latents: int = 8
    device: Device = "auto"


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options: Options = parse(Options, args, command="explain", examples=_EXAMPLES)
    from perceivers.explain.render import explain_image
    from perceivers.hub.checkpoint import load
    from perceivers.hub.device import pick_device

    saved = load(options.run, device=pick_device(options.device))
    out = options.out or Path(f"{options.file.stem}-attention.{options.format or 'png'}")
    written = explain_image(
        saved, options.file, out, format=options.format, latents=options.latents
    )
    print(f"What the model looked at in {options.file}: {written}")
    return 0
