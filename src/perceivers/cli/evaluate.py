"""`perceivers evaluate`: metrics of a run on a split."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from perceivers.cli.parsing import Device, Quantize, Switch, check_numbers, check_quantize, parse
from perceivers.cli.terminal import echo
from perceivers.console import CountProgress
from perceivers.wording import counted

_EXAMPLES = """
  perceivers evaluate runs/birds                        its test split, or else its validation split
  perceivers evaluate runs/birds birds/2024             other data with the same labels
  perceivers evaluate runs/birds --permute 7            with the elements of every input permuted
  perceivers evaluate runs/talks --clips 16             16 clips of each sample, averaged
  perceivers evaluate runs/talks --drop-modality video        by audio alone
  perceivers evaluate runs/birds --format json --out birds.json
"""


@dataclass(frozen=True)
class Options:
    """Evaluate a run: metrics, loss, and the recall of each class.

    Attributes:
        run: A run folder, or a model on the Hugging Face hub.
        data: Other data to evaluate on. By default the data of the run.
        split: Split to evaluate. By default test, or else validation.
        permute: Seed of one fixed permutation of the elements of every input.
        format: Output format.
        out: A file for the result, besides the terminal.
        device: Where to compute. `auto` uses an accelerator if there is one.
        batch_size: Samples in one forward pass.
        quantize: int8 weights, on the CPU: `int8` if the layers are wide enough to get faster, otherwise float32
            with a message; `int8-always` also if it is slower.
        clips: Overlapping clips of each sample whose predictions are averaged. By default as in training.
        no_tta: Leave out the average over mirrored images (test-time augmentation), which takes twice as long.
        drop_modality: Modalities to leave out, of a run with several.
        max_bad: Largest share of rows that may fail to decode. By default that of the training.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    data: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[DATA]")] = None
    split: Literal["train", "validation", "test"] | None = None
    permute: int | None = None
    format: Literal["table", "json"] = "table"
    out: Path | None = None
    device: Device = "auto"
    batch_size: int = 128
    quantize: Quantize | None = None
    clips: int | None = None
    no_tta: Switch = False
    drop_modality: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    max_bad: float | None = None


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options: Options = parse(Options, args, command="evaluate", examples=_EXAMPLES)
    check_numbers("evaluate", options, {"batch_size": 1, "clips": 1}, ["max_bad"])
    check_quantize("evaluate", options.quantize, options.device)
    from perceivers.data.base import atomic_write_text
    from perceivers.evaluation.evaluate import evaluate_run
    from perceivers.evaluation.metrics_table import evaluation_text

    with CountProgress("evaluate", "sample"):
        result = evaluate_run(
            options.run,
            options.data,
            split=options.split,
            permute=options.permute,
            device=options.device,
            batch_size=options.batch_size,
            max_bad=options.max_bad,
            quantize=options.quantize,
            clips=options.clips,
            tta=not options.no_tta,
            without=options.drop_modality,
        )
    if result.quantization is not None:
        echo(f"perceivers evaluate: {result.quantization}", err=True)
    for note in result.notes:
        if note.startswith("Skipped"):  # rows that are not part of the metrics
            echo(f"perceivers evaluate: {note}", err=True, wrap=True)
    text = evaluation_text(result, form=options.format)
    if options.out is not None:
        atomic_write_text(options.out, text + "\n")
    if options.format == "table":
        where = options.data or "the run's own data"
        samples = counted(result.num_samples, "sample")
        echo(f"Measured on the {result.split} split of {where}: {samples}.\n", wrap=True)
    echo(text, wrap=options.format == "table")
    return 0
