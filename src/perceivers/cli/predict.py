"""`perceivers predict`: predict files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from perceivers.cli.main import readable
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
from perceivers.cli.terminal import echo
from perceivers.console import CountProgress
from perceivers.wording import counted

if TYPE_CHECKING:
    from perceivers.evaluation.predict import Predictor
    from perceivers.tasks.prediction import Prediction

_EXAMPLES = """
  perceivers predict runs/birds robin.jpg --top 3
  perceivers predict runs/birds new/ more/*.jpg --format csv --out predictions.csv
  perceivers predict runs/digits spoken.flac            audio, video, points, text, ...: as the run takes
  perceivers predict runs/talks talk.mp4 --clips 16     predictions of 16 clips over the video, averaged
  perceivers predict runs/mixed image=a.jpg,audio=a.wav several modalities; any may be left out
  perceivers predict runs/watch new.parquet             every row of a table with the run's columns
  perceivers predict runs/films --text "What a movie!"  a text
  perceivers predict runs/pairs --text "A." --text "B." several texts of one sample, or several samples
  perceivers predict runs/book --text "A [MASK][MASK]"  fill blanks, with masked language modeling
  perceivers predict runs/flow a.png b.png --save out/  two frames: the optical flow
  perceivers predict runs/street new/*.jpg --save out/   an image of each, of a dense task
  perceivers predict runs/small a.mp4 --save back/       the reconstruction of an autoencoder
  torchrun --nproc-per-node 8 -m perceivers predict runs/birds "s3://birds/train-{000..127}.tar" --shards out/
"""


@dataclass(frozen=True)
class Options:
    """Predict files, folders and globs. A file that cannot be read is reported, and the others are predicted.

    Attributes:
        run: A run folder, or a model on the Hugging Face hub.
        files: Files, folders or quoted globs.
        top: Number of the most probable labels to list. Default: 1 in a table, 5 in JSON.
        format: Output format. json and jsonl (one answer on each line) are the answers of `perceivers serve` and of
            exported scripts; csv has the probability of every label.
        out: A file for the result, instead of the terminal.
        device: Where to compute. `auto` uses an accelerator if there is one.
        batch_size: Samples in one forward pass.
        clips: Overlapping clips of a longer sample whose predictions are averaged. By default as in training.
        no_tta: Leave out the average over mirrored images (test-time augmentation), which takes twice as long.
        drop_modality: Modalities to leave out, of a run with several.
        text: A text to predict instead of files. Repeat it for more samples, or for the other texts of a sample with
            several.
        shards: A folder for predictions of shards (parquet, tar, jsonl, csv; also addresses and patterns): one Parquet
            file for each, with its rows' keys. Under torchrun each process predicts its part. Started again, shards
            that this model has finished are skipped; if the model or a shard has changed, it is predicted again.
        save: A folder for dense predictions: a PNG of values, or of classes with a palette; of flow a `.flo` file and
            an image (hue: direction, saturation: distance); of an autoencoder the reconstructions, videos and images
            next to the original.
        quantize: int8 weights, on the CPU: `int8` if the layers are wide enough to get faster, otherwise float32
            with a message; `int8-always` also if it is slower.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    files: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE...")] = ()
    top: int | None = None
    format: Literal["table", "json", "jsonl", "csv"] = "table"
    out: Path | None = None
    device: Device = "auto"
    batch_size: int = 64
    clips: int | None = None
    no_tta: Switch = False
    drop_modality: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    text: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    shards: Path | None = None
    save: Path | None = None
    quantize: Quantize | None = None


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status: 1 if a file could not be read."""
    options: Options = parse(Options, args, command="predict", examples=_EXAMPLES)
    check_numbers("predict", options, {"top": 0, "batch_size": 1, "clips": 1})
    check_quantize("predict", options.quantize, options.device)
    if not options.files and not options.text:
        wrong_arguments("predict", "Expected at least one FILE to predict after RUN; got none.")
    from perceivers.evaluation.metrics_table import predictions_text
    from perceivers.evaluation.predict import load_predictor

    predictor = load_predictor(
        options.run,
        device=options.device,
        batch_size=options.batch_size,
        quantize=options.quantize,
        clips=options.clips,
        tta=not options.no_tta,
        without=options.drop_modality,
    )
    if predictor.quantization is not None:
        echo(f"perceivers predict: {predictor.quantization.sentence()}", err=True)
    if options.shards is not None:
        return _predict_shards(predictor, options)
    failed, report, note = report_errors("predict")
    items: list[Any] = [item_of(file) for file in options.files]
    items += texts_of("predict", options.text, predictor.columns)
    listed = 1 if options.format == "table" else 5
    top = listed if options.top is None else options.top
    with CountProgress("predict"):
        predictions = predictor.predict(items, top=top, on_error=report, on_skip=note)
    if options.save is not None:
        _save(predictions, options.save)
    text = predictions_text(predictions, form=options.format)
    if options.out is None:
        echo(text)
    else:
        _write(text, options.out)
        echo(f"{counted(len(predictions), 'prediction')} in {options.out}", err=True)
    return 1 if failed else 0


def report_errors(
    command: str,
) -> tuple[list[str], Callable[[str, Exception], None], Callable[[str], None]]:
    """Return a list of names of samples that failed, and functions that print errors and notes."""
    failed: list[str] = []

    def report(name: str, error: Exception) -> None:
        failed.append(name)
        message = readable(error)
        where = "" if name in message else f"{name}: "
        echo(f"perceivers {command}: {where}{message}", err=True)

    def note(sentence: str) -> None:
        echo(f"perceivers {command}: {sentence}", err=True)

    return failed, report, note


def _write(text: str, path: Path) -> None:
    from perceivers.data.base import atomic_write_text

    atomic_write_text(path, text + "\n")


def item_of(file: str) -> str | Path:
    """Return an argument that is named like a file as a path, so that it is no text if there is no such file."""
    from perceivers.data.formats.remote import is_remote
    from perceivers.data.registry import kind_of_name

    is_name = kind_of_name(file) is not None and not any(c.isspace() for c in file)
    return Path(file) if is_name and "=" not in file and not is_remote(file) else file


def _save(predictions: "list[Prediction]", folder: Path) -> None:
    """Write predicted flow fields, images or reconstructions."""
    from perceivers.evaluation.save import save_predictions

    written = save_predictions(predictions, folder)
    echo(f"{counted(len(written), 'file')} in {folder}", err=True)


def _predict_shards(predictor: "Predictor", options: Options) -> int:
    """Predict this process' part of the shards; return 1 if some rows could not be read."""
    import os

    import torch

    from perceivers.evaluation.shards import predict_shards, rank_from_environment, shards_of

    assert options.shards is not None
    rank, world_size = rank_from_environment()
    if torch.cuda.is_available() and predictor.device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    files = list(options.files)
    paths = shards_of(files if len(files) > 1 else files[0])
    bad = 0
    shards = predict_shards(
        predictor, paths, options.shards, rank=rank, world_size=world_size, model=options.run
    )
    with CountProgress("predict", "row"):
        for done in shards:
            bad += done.bad
            counts = f"{counted(done.num_rows, 'row')}, {done.bad:,} of them with an error"
            before = "done before, " if done.skipped else ""
            again = f", predicted again: the {done.changed} has changed" if done.changed else ""
            echo(f"{done.shard} -> {done.path}: {before}{counts}{again}")
    return 1 if bad else 0
