"""`perceivers predict`: label files."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from perceivers.cli.main import readable
from perceivers.cli.parsing import (
    Device,
    Quantize,
    check_quantize,
    parse,
    texts_of,
    wrong_arguments,
)

if TYPE_CHECKING:
    from perceivers.evaluation.predict import Predictor
    from perceivers.tasks.prediction import Prediction

_EXAMPLES = """
  perceivers predict runs/birds robin.jpg --top 3
  perceivers predict runs/birds new/ more/*.jpg --format csv --out predictions.csv
  perceivers predict runs/digits spoken.flac            of whatever the run learned: sound, film, mesh, text, ...
  perceivers predict runs/talks talk.mp4 --clips 16     16 clips over the whole film, their scores averaged
  perceivers predict runs/mixed image=a.jpg,sound=a.wav several modalities; what is missing may be left out
  perceivers predict runs/watch new.parquet             every row of a table with the run's columns
  perceivers predict runs/films --text "What a film!"   a text itself
  perceivers predict runs/pairs --text "A." --text "B." several texts that are read as one, or several samples
  perceivers predict runs/book --text "A [MASK][MASK]"  blanks of it, of a run that learned masked bytes
  perceivers predict runs/flow a.png b.png --save out/  two frames: where every pixel of the first goes
  perceivers predict runs/street new/*.jpg --save out/   a picture of each, of a run that answers every pixel
  perceivers predict runs/small a.mp4 --save back/       film and sound as an autoencoder gives them back
  torchrun --nproc-per-node 8 -m perceivers predict runs/birds "s3://birds/train-{000..127}.tar" --shards out/
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
        clips: Overlapping clips of a longer recording whose scores are averaged. By default as the run says.
        drop_modality: Modalities that are not read, of a run that reads several.
        text: A text to predict, of a run that reads texts, instead of files. Give it again for more, or for the other
            texts of a sample that has several.
        shards: A folder for predictions of shards (parquet, tar, jsonl, csv; also addresses and patterns): one Parquet
            file for each, with its rows' keys. Under torchrun each process takes its part; started again, it goes on
            with the shards that are not done.
        save: A folder for what is predicted of every pixel: a PNG of values, or of classes with a palette; of flow a
            `.flo` file and a picture, whose hue says where a pixel goes and whose strength of color how far; of an
            autoencoder what it gives back, films and pictures beside the original.
        quantize: int8 weights, on the CPU: `int8` where layers are wide enough to get faster, or else float32
            and a sentence that says so; `int8-always` also where it is slower.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    files: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE...")] = ()
    top: int = 1
    format: Literal["table", "json", "csv"] = "table"
    out: Path | None = None
    device: Device = "auto"
    batch_size: int = 64
    clips: int | None = None
    drop_modality: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    text: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    shards: Path | None = None
    save: Path | None = None
    quantize: Quantize | None = None


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status: 1 if a file could not be read."""
    options: Options = parse(Options, args, command="predict", examples=_EXAMPLES)
    check_quantize("predict", options.quantize, options.device)
    if options.clips is not None and options.clips < 1:
        wrong_arguments("predict", f"Expected --clips of at least 1, got {options.clips}.")
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
        without=options.drop_modality,
    )
    if predictor.quantization is not None:
        print(f"perceivers predict: {predictor.quantization.sentence()}", file=sys.stderr)
    if options.shards is not None:
        return _predict_shards(predictor, options)
    failed: list[str] = []

    def report(name: str, error: Exception) -> None:
        failed.append(name)
        message = readable(error)
        where = "" if name in message else f"{name}: "
        print(f"perceivers predict: {where}{message}", file=sys.stderr)

    items: list[Any] = list(options.files)
    items += texts_of("predict", options.text, predictor.columns)
    predictions = predictor.predict(items, top=options.top, on_error=report)
    if options.save is not None:
        _save(predictions, options.save)
    text = predictions_text(predictions, form=options.format)
    if options.out is None:
        print(text)
    else:
        options.out.write_text(text + "\n", encoding="utf-8")
        print(f"{len(predictions)} predictions in {options.out}", file=sys.stderr)
    return 1 if failed else 0


def _save(predictions: "list[Prediction]", folder: Path) -> None:
    """Write the fields of flow, the pictures or the reconstructions that were predicted.

    Raises:
        ValueError: If there are none.
    """
    from perceivers.evaluation.save import save_predictions

    written = save_predictions(predictions, folder)
    print(f"{len(written)} files in {folder}", file=sys.stderr)


def _predict_shards(predictor: "Predictor", options: Options) -> int:
    """Predict this process' part of the shards, and return 1 if rows of them could not be read."""
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
    for done in predict_shards(
        predictor, paths, options.shards, rank=rank, world_size=world_size, model=options.run
    ):
        bad += done.bad
        told = f"{done.num_rows:,} rows, {done.bad:,} of them with an error"
        print(f"{done.shard} -> {done.path}: {'done before' if done.skipped else told}")
    return 1 if bad else 0
