"""`perceivers predict`: label files."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from perceivers.cli.main import readable
from perceivers.cli.parsing import Device, Quantize, check_quantize, parse, wrong_arguments

__all__ = ["run"]

_EXAMPLES = """
  perceivers predict runs/birds robin.jpg --top 3
  perceivers predict runs/birds new/ more/*.jpg --format csv --out predictions.csv
"""


@dataclass(frozen=True)
class Options:
    """Label files, folders and globs. A file that cannot be read is reported, and the others are labeled.

    Attributes:
        run: A run folder, or a model on the Hugging Face hub.
        files: Files, folders or quoted globs.
        top: How many of the best labels to show.
        format: How the result is written. csv holds the probability of every label.
        out: A file for the result, instead of the terminal.
        device: Where to compute. `auto` takes an accelerator if there is one.
        batch_size: Samples that go through the model at once.
        quantize: int8 weights, on the CPU: `int8` where layers are wide enough to get faster, or else float32
            and a sentence that says so; `int8-always` also where it is slower.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    files: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE...")]
    top: int = 1
    format: Literal["table", "json", "csv"] = "table"
    out: Path | None = None
    device: Device = "auto"
    batch_size: int = 64
    quantize: Quantize | None = None


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status: 1 if a file could not be read."""
    options: Options = parse(Options, args, command="predict", examples=_EXAMPLES)
    check_quantize("predict", options.quantize, options.device)
    if not options.files:
        wrong_arguments("predict", "Expected at least one FILE to predict after RUN; got none.")
    from perceivers.evaluation.predict import load_predictor
    from perceivers.evaluation.table import predictions_text

    predictor = load_predictor(
        options.run,
        device=options.device,
        batch_size=options.batch_size,
        quantize=options.quantize,
    )
    if predictor.quantization is not None:
        print(f"perceivers predict: {predictor.quantization.sentence()}", file=sys.stderr)
    failed: list[str] = []

    def report(name: str, error: Exception) -> None:
        failed.append(name)
        message = readable(error)
        where = "" if name in message else f"{name}: "
        print(f"perceivers predict: {where}{message}", file=sys.stderr)

    predictions = predictor.predict(list(options.files), top=options.top, on_error=report)
    text = predictions_text(predictions, form=options.format)
    if options.out is None:
        print(text)
    else:
        options.out.write_text(text + "\n", encoding="utf-8")
        print(f"{len(predictions)} predictions in {options.out}", file=sys.stderr)
    return 1 if failed else 0
