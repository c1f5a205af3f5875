"""`perceivers quickstart`: all steps on real handwritten digits, without a download."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perceivers.cli.parsing import Device, check_numbers, parse
from perceivers.cli.terminal import echo

if TYPE_CHECKING:
    from perceivers.data.sources.bundle import DatasetBundle


_EXAMPLES = """
  perceivers quickstart
  perceivers quickstart --out /tmp/digits --permute 7    with the pixels in a random, fixed order
"""

_SHOWN = 20  # test digits written to files and predicted


@dataclass(frozen=True)
class Options:
    """Classify handwritten digits: fit, evaluate on a held-out fifth, predict files, explain one.

    Attributes:
        out: The run folder. By default `quickstart`, or the next free name.
        max_epochs: Passes over the training digits. By default the recipe's.
        permute: Seed of one fixed permutation of the pixels of every digit.
        device: Where to compute. `auto` uses an accelerator if there is one.
    """

    out: Path | None = None
    max_epochs: int | None = None
    permute: int | None = None
    device: Device = "auto"


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options: Options = parse(Options, args, command="quickstart", examples=_EXAMPLES)
    check_numbers("quickstart", options, {"max_epochs": 1})
    from perceivers.data.base import atomic_write_text
    from perceivers.data.sources.builtin import digits
    from perceivers.evaluation.evaluate import evaluate_run
    from perceivers.evaluation.metrics_table import evaluation_text, predictions_text
    from perceivers.evaluation.predict import load_predictor
    from perceivers.explain.render.write import explain_file
    from perceivers.hub.checkpoint import load
    from perceivers.runs.folder import next_free
    from perceivers.training.fit import fit

    folder = options.out or next_free(Path("quickstart"))
    changes: dict[str, Any] = {"device": options.device, "permute": options.permute}
    if options.max_epochs is not None:
        changes["max_epochs"] = options.max_epochs
    fit("builtin:digits", "digits", out=folder, **changes)

    files = _write_digits(digits(), folder / "digits")
    predictions = load_predictor(folder, device=options.device).predict(files)
    table = folder / "predictions.csv"
    atomic_write_text(table, predictions_text(predictions, form="csv") + "\n")
    image = explain_file(load(folder), files[0], folder / "attention.png")

    result = evaluate_run(folder, device=options.device)
    echo(f"\nreport:      {folder / 'report.md'}")
    echo(f"predictions: {table} ({len(files)} test digits, as files in {folder / 'digits'})")
    echo(f"attention:   {image}")
    echo(
        "\nThe test digits, a fifth of all, took no part in training or in choosing weights:\n",
        wrap=True,
    )
    echo(evaluation_text(result))
    return 0


def _write_digits(source: "DatasetBundle", folder: Path) -> list[str]:
    """Write the first test digits as images named by their label, and return their paths."""
    from perceivers.data.base import atomic_write
    from perceivers.data.modalities.image.preprocess import decode_image

    folder.mkdir(parents=True, exist_ok=True)
    test, column = source.splits["test"], source.inputs["image"].column
    paths: list[str] = []
    for index, target in enumerate(source.targets("test")[:_SHOWN]):
        path = folder / f"{index:02d}-is-{source.label_names[target]}.png"
        with atomic_write(path, sync=False) as new:
            decode_image(test.row(index)[column], num_channels=1).save(new, format="PNG")
        paths.append(str(path))
    return paths
