"""`perceivers embed`: write vectors of files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from perceivers.cli.parsing import (
    Device,
    Quantize,
    Switch,
    check_numbers,
    check_quantize,
    parse,
    texts_of,
    wrong_arguments,
)
from perceivers.cli.predict import item_of, report_errors
from perceivers.cli.terminal import echo
from perceivers.console import CountProgress
from perceivers.wording import counted

_EXAMPLES = """
  perceivers embed runs/birds photos/ --out vectors.parquet
  perceivers embed runs/watch new.parquet --out vectors.npy    the rows of a table
  perceivers embed runs/birds robin.jpg --latents --out z.npy
"""


@dataclass(frozen=True)
class Options:
    """Write a vector for each file: the mean of the latents, and pooled elements where the outputs use them.

    `perceivers similar` finds the nearest ones. A file that cannot be read is reported, and the others are embedded.

    Attributes:
        run: A run folder, or a model on the Hugging Face hub.
        files: Files, folders, quoted globs or tables.
        out: File of the vectors: .parquet, .npy (without names) or .csv.
        latents: Write all latents of each sample.
        text: A text instead of files. Repeat it for more.
        device: Where to compute. `auto` uses an accelerator if there is one.
        batch_size: Samples in one forward pass.
        quantize: int8 weights, on the CPU: `int8` if the layers are wide enough to get faster, otherwise float32 with a
            message; `int8-always` also if it is slower.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    out: Path
    files: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE...")] = ()
    latents: Switch = False
    text: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    device: Device = "auto"
    batch_size: int = 64
    quantize: Quantize | None = None


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status: 1 if a file could not be read."""
    options: Options = parse(Options, args, command="embed", examples=_EXAMPLES)
    check_numbers("embed", options, {"batch_size": 1})
    check_quantize("embed", options.quantize, options.device)
    if not options.files and not options.text:
        wrong_arguments("embed", "Expected at least one FILE after RUN; got none.")
    from perceivers.evaluation.embeddings import SUFFIXES, write_embeddings
    from perceivers.evaluation.predict import load_predictor

    if options.out.suffix not in SUFFIXES:
        wrong_arguments(
            "embed", f"--out: expected one of {', '.join(SUFFIXES)}, got {options.out}."
        )
    predictor = load_predictor(
        options.run,
        device=options.device,
        batch_size=options.batch_size,
        quantize=options.quantize,
        tta=False,
    )
    if predictor.quantization is not None:
        echo(f"perceivers embed: {predictor.quantization.sentence()}", err=True)
    items = [item_of(file) for file in options.files]
    items += texts_of("embed", options.text, predictor.columns)
    failed, report, note = report_errors("embed")
    with CountProgress("embed"):
        found = predictor.embed(items, latents=options.latents, on_error=report, on_skip=note)
    if not len(found):
        raise ValueError("Expected at least one sample that can be read, got none.")
    write_embeddings(found, options.out)
    shape = " x ".join(map(str, found.vectors.shape[1:]))
    echo(f"{counted(len(found), 'vector')} of {shape} numbers in {options.out}", err=True)
    return 1 if failed else 0
