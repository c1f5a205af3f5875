"""`perceivers benchmark`: size, speed and accuracy of a run and its exports."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from perceivers.cli.parsing import check_numbers, parse
from perceivers.cli.terminal import echo
from perceivers.console import CountProgress
from perceivers.escaping import json_text
from perceivers.wording import counted, megabytes

if TYPE_CHECKING:
    from perceivers.benchmark import Benchmark, Contestant

_EXAMPLES = """
  perceivers benchmark runs/birds                      with exports that are made for it
  perceivers benchmark runs/birds --exports exported/birds exported/half
  perceivers benchmark runs/birds --threads 1 --batch-size 64
  perceivers benchmark runs/birds --format json --out birds.json
"""

_WIDEST = 20  # columns of a model's name


@dataclass(frozen=True)
class Options:
    """Compare a run's model in PyTorch with its exports on the CPU: size, latency, differences, accuracy.

    The models take turns, so that other work on the machine slows all alike.

    Attributes:
        run: A run folder, or a model on the Hugging Face hub.
        exports: Folders that `perceivers export` wrote. Without any, ONNX in float32, float16 and int8 and, if it is
            installed, OpenVINO in float32 are made in a temporary folder.
        split: Split of the run's data to compare on. By default test, or else validation.
        rows: Largest number of rows to compare on.
        batch_size: Samples of the larger batch; the other has one.
        threads: Threads of each runtime. By default as many as PyTorch uses.
        seconds: Time of the measurements for each batch size; at least five rounds, at most 100.
        format: Output format.
        out: A file for the result, besides the terminal.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    exports: tuple[str, ...] = ()
    split: Literal["train", "validation", "test"] | None = None
    rows: int = 500
    batch_size: int = 16
    threads: int | None = None
    seconds: int = 10
    format: Literal["table", "json"] = "table"
    out: Path | None = None


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options: Options = parse(Options, args, command="benchmark", examples=_EXAMPLES)
    at_least = {"rows": 1, "batch_size": 1, "threads": 1, "seconds": 0}
    check_numbers("benchmark", options, at_least)
    from perceivers.benchmark import benchmark_run
    from perceivers.data.base import atomic_write_text
    from perceivers.optional import require

    if not options.exports:
        for module in ("onnx", "onnxscript", "onnxruntime"):
            require(module, "export")
    with CountProgress("benchmark", "row"):
        found = benchmark_run(
            options.run,
            options.exports,
            split=options.split,
            num_rows=options.rows,
            batch_size=options.batch_size,
            threads=options.threads,
            seconds=options.seconds,
        )
    for note in found.notes:
        echo(f"perceivers benchmark: {note}", err=True, wrap=True)
    content = {"run": options.run, **found.as_dict()}
    is_json = options.format == "json"
    text = json_text(content, indent=2, nan_as_null=True) if is_json else benchmark_text(found)
    if options.out is not None:
        atomic_write_text(options.out, text + "\n")
    echo(text, wrap=not is_json)
    return 0


def benchmark_text(found: "Benchmark") -> str:
    """Return the results as a table that fits 80 columns, and a description of the measurements."""
    from perceivers.evaluation.metrics_table import in_columns

    sizes = [f"batch {size}" for size in found.batch_sizes]
    metric = found.metric or "accuracy"
    head = ["model", "size", *sizes, "difference", metric.replace("_", " ")]
    rows = [head, *(_row(one, found) for one in found.models)]
    rounds = [len(found.models[0].seconds[size]) for size in found.batch_sizes]
    labels = found.models[0].same_top is not None
    sentences = [
        f"Time of a forward pass: median of {' and '.join(map(str, rounds))} rounds, "
        f"{counted(found.threads, 'thread')}, preprocessing in the graph included.",
        f"Largest absolute difference of {'a probability' if labels else 'an output'} to PyTorch, on {found.samples}"
        f"{', as is the metric' if found.metric else ''}.",
    ]
    return "\n\n".join([in_columns(rows, right=range(1, len(head))), "\n".join(sentences)])


def _row(one: "Contestant", found: "Benchmark") -> list[str]:
    from perceivers.tasks.metric_text import metric_text

    shown = one.name if len(one.name) <= _WIDEST else f"{one.name[: _WIDEST - 3]}..."
    is_reference = one.format == "pytorch"
    return [
        shown,
        megabytes(one.num_bytes),
        *(f"{one.milliseconds(size):,.3g} ms" for size in found.batch_sizes),
        "" if is_reference else f"{one.difference:.1e}",
        "-" if one.metric is None else metric_text(found.metric or "", one.metric),
    ]
