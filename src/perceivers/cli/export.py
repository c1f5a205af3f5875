"""`perceivers export`: a run in the form of another library."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from perceivers.cli.parsing import parse

__all__ = ["run"]

_EXAMPLES = """
  perceivers export runs/imagenet --format huggingface --out hf/imagenet
"""


@dataclass(frozen=True)
class Options:
    """Write a run in the form of another library.

    Attributes:
        run: A run folder, or a model on the Hugging Face hub.
        out: The folder to write, made if need be.
        format: `huggingface`: what `transformers` loads, of a model that has the shape of one of its six Perceivers.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    out: Path
    format: Literal["huggingface"] = "huggingface"


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options: Options = parse(Options, args, command="export", examples=_EXAMPLES)
    from perceivers.hub.convert import export_huggingface

    name = export_huggingface(options.run, options.out)
    print(f"{options.out} holds a {name}: transformers.{name}.from_pretrained('{options.out}').")
    return 0
