"""`perceivers export`: a run in a format that other programs read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from perceivers.cli.parsing import parse
from perceivers.cli.terminal import echo

_EXAMPLES = """
  perceivers export runs/birds --out exported/birds                 ONNX, for onnxruntime
  perceivers export runs/birds --format torch --out exported/birds  an archive of torch.export
  perceivers export runs/birds --format safetensors --out weights/birds
  perceivers export runs/birds --out exported/birds --samples a.jpg b.jpg
  perceivers export runs/imagenet --format huggingface --out hf/imagenet
  python exported/birds/predict.py robin.jpg                        without perceivers
"""


@dataclass(frozen=True)
class Options:
    """Write a run as a folder that other programs read, after comparing its outputs with the model's.

    Attributes:
        run: A run folder, or a model on the Hugging Face hub.
        out: The folder to write, created if need be. Only the files of an earlier export are replaced.
        format: `onnx`: model.onnx for onnxruntime. `torch`: model.pt2 for torch.export.load. `safetensors`: the
            weights, their configuration and a table of their keys. All with preprocess.json, a manifest of inputs and
            outputs, the first two with predict.py, which needs no perceivers. `huggingface`: for `transformers`, of a
            model that has the shape of one of its six Perceivers.
        samples: Files to compare on, as for `predict`. By default some of the run's own data, or else random inputs.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    out: Path
    format: Literal["onnx", "torch", "safetensors", "huggingface"] = "onnx"
    samples: tuple[str, ...] = ()


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options: Options = parse(Options, args, command="export", examples=_EXAMPLES)
    from perceivers.exporting.export import export

    samples = options.samples or None
    done = export(options.run, options.out, format=options.format, samples=samples)
    if options.format == "huggingface":
        (name,) = done.notes
        echo(f"{done.folder} holds a {name}: transformers.{name}.from_pretrained('{done.folder}').")
    else:
        echo(f"{done.folder} holds {', '.join(done.files)}.", wrap=True)
        if "predict.py" in done.files:
            echo(f"Predict without perceivers: python {done.folder / 'predict.py'} FILE...")
        for note in done.notes:
            echo(f"perceivers export: {note}.", err=True)
    if done.difference is None:
        missing = "not compared with the model: pip install transformers, and export again"
        echo(f"perceivers export: {missing}.", err=True)
    else:
        compared = f"{done.difference.largest:.1e}, on {done.difference.samples}"
        echo(f"largest difference to the model: {compared}")
    return 0
