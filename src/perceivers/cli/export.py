"""`perceivers export`: a run in a format that other programs read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from perceivers.cli.parsing import parse, wrong_arguments
from perceivers.cli.terminal import echo
from perceivers.wording import megabytes

_EXAMPLES = """
  perceivers export runs/birds --out exported/birds                 ONNX, for onnxruntime
  perceivers export runs/birds --precision float16 --out exported/half    half the size
  perceivers export runs/birds --precision int8 --out exported/small      smaller still, for CPUs
  perceivers export runs/birds --format openvino --out exported/birds     for OpenVINO
  perceivers export runs/birds --format triton --out models/birds         for Triton and KServe
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
        format: `onnx`: model.onnx for onnxruntime. `openvino`: model.xml for OpenVINO. `triton`: a model of Triton
            Inference Server, whose name is that of the folder. `torch`: model.pt2 for torch.export.load. `safetensors`:
            the weights, their configuration and a table of their keys. All with preprocess.json, a manifest of inputs
            and outputs, and all but the last with predict.py, which needs no perceivers. `huggingface`: for
            `transformers`, of a model that has the shape of one of its six Perceivers.
        precision: `float16`: weights and their products in half precision, of onnx, openvino and triton. `int8`:
            weights of linear layers of latents and large embedding tables in 8 bits, of onnx and triton.
        samples: Files to compare on, as for `predict`. By default some of the run's own data, or else random inputs.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    out: Path
    format: Literal["onnx", "openvino", "triton", "torch", "safetensors", "huggingface"] = "onnx"
    precision: Literal["float32", "float16", "int8"] = "float32"
    samples: tuple[str, ...] = ()


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options: Options = parse(Options, args, command="export", examples=_EXAMPLES)
    from perceivers.exporting.export import check_format, export

    try:
        check_format(options.format, options.precision)
    except ValueError as error:
        wrong_arguments("export", str(error))
    samples = options.samples or None
    how = {"format": options.format, "precision": options.precision}
    done = export(options.run, options.out, samples=samples, **how)
    if options.format == "huggingface":
        (name,) = done.notes
        echo(f"{done.folder} holds a {name}: transformers.{name}.from_pretrained('{done.folder}').")
    else:
        echo(f"{done.folder} holds {', '.join(done.files)}.", wrap=True)
        weights = f"the weights have {megabytes(done.weight_bytes)} in float32"
        echo(f"{done.model_file}: {megabytes(done.num_bytes)}; {weights}.")
        if "predict.py" in done.files:
            echo(f"Predict without perceivers: python {done.folder / 'predict.py'} FILE...")
        for note in done.notes:
            echo(f"perceivers export: {note}.", err=True)
    if done.difference is None:
        missing = "not compared with the model: pip install transformers, and export again"
        echo(f"perceivers export: {missing}.", err=True)
    else:
        echo(f"largest difference to the model: {done.difference.sentence()}", wrap=True)
    return 0
