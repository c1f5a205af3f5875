"""`perceivers convert`: convert published weights to a run folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from perceivers.cli.parsing import parse
from perceivers.cli.terminal import echo

_EXAMPLES = """
  perceivers convert deepmind/vision-perceiver-fourier --out runs/imagenet
  perceivers convert krasserm/perceiver-ar-clm-base --out runs/c4
  perceivers convert my_model/ --out runs/mine
  perceivers convert optical_flow_checkpoint.pystate --out runs/flow
  perceivers predict runs/imagenet cat.jpg
"""


@dataclass(frozen=True)
class Options:
    """Convert a Perceiver of Hugging Face, DeepMind or krasserm's library to a run folder for all other commands.

    Attributes:
        source: A folder written by `save_pretrained`, the id of a model on the hub, or a checkpoint of DeepMind's
            release (`.pystate`; `.pickle` of the language model). Of krasserm's models, those of Perceiver AR.
        out: The run folder, new or empty.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    out: Path


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options: Options = parse(Options, args, command="convert", examples=_EXAMPLES)
    from perceivers.recipes.convert import convert

    found = convert(options.source, options.out)
    echo(f"{found.architecture}: {found.num_parameters:,} parameters, now in {options.out}.")
    if found.generates:
        echo(f'Next: perceivers generate {options.out} --prompt "Once upon a time"')
    elif found.predicts:
        echo(f"Next: perceivers predict {options.out} FILE...")
    else:
        echo(f"Next: perceivers info {options.out}")
    return 0
