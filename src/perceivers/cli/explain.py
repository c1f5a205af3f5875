"""`perceivers explain`: explain the output of a run for a sample, or measure the faithfulness of its maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from perceivers.cli.parsing import Device, Switch, check_numbers, parse, texts_of, wrong_arguments
from perceivers.cli.terminal import echo
from perceivers.console import CountProgress, tracked
from perceivers.wording import counted

if TYPE_CHECKING:
    from perceivers.explain.attribution.faithfulness import MeanCurves
    from perceivers.hub.checkpoint import Saved


SEED = 0

_EXAMPLES = """
  perceivers explain runs/birds robin.jpg --out robin.png
  perceivers explain runs/birds robin.jpg --format npz      the arrays behind the figure
  perceivers explain runs/birds robin.jpg --out robin.html  an interactive page that needs no other file
  perceivers explain runs/talks talk.mp4 --out talk.gif     frame after frame
  perceivers explain runs/birds robin.jpg --class wren      attention for another class
  perceivers explain runs/birds robin.jpg --faithfulness    deletion and insertion curves of the maps for this image
  perceivers explain runs/birds --faithfulness --samples 300  the same over the test split, with mean areas
  perceivers explain runs/digits spoken.flac                audio, video, mesh, series, array: any modality of the run
  perceivers explain runs/talks talk.mp4 --clip-position 0  the first clip; 0.5 the middle, 1 the last
  perceivers explain runs/reviews --text "What a film!"     a text itself, or a .txt file
  perceivers explain runs/mixed image=a.jpg,audio=a.wav     several modalities; a missing one may be left out
  perceivers explain runs/watch new.parquet --row 3         a row of a table with the run's columns
  perceivers explain runs/mixed a.jpg --task age            the output of one of several tasks
"""


@dataclass(frozen=True)
class Options:
    """Draw the attention of each cross-attention over a sample, beside the output of the run.

    Attributes:
        run: A run folder, or a model on the Hugging Face hub.
        file: The sample: a file, or NAME=FILE,NAME=FILE,... for a run of several modalities.
        out: The file to write. By default `NAME-attention.png` in this folder, or `NAME-faithfulness.png`.
        format: A figure, an animation, a page, or the arrays behind them. By default the suffix of `out`.
        latents: Number of latents that are shown one by one.
        clip_position: Position of the clip in a longer file: 0 is its beginning, 1 its end.
        text: A text instead of a file, for a run that reads texts. Repeat it for the other texts of a sample that has
            several.
        row: Row of a table, from 0 on, where FILE is one.
        task: Task whose output is explained, of a run with several. By default the first.
        map: Map of the whole model: the mean of all cross-attentions, the last one, attention rolled up through all
            layers, or the same weighted by the gradient of a class. By default `class` where the run learned classes,
            or else `rollup`.
        about: Class of `--map class`. By default the most probable one.
        faithfulness: Draw deletion and insertion curves of all maps instead, beside a random map and input gradients;
            without FILE, their mean over a split.
        split: Split of the run's data for `--faithfulness`. By default test, or else validation.
        samples: Number of samples of a split, a folder or a table for `--faithfulness`, drawn at random.
        device: Device to compute on. `auto` takes an accelerator if the machine has one.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    file: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")] = None
    out: Path | None = None
    format: Literal["png", "gif", "html", "npz"] | None = None
    latents: int = 8
    clip_position: float = 0.5
    text: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    row: int = 0
    task: str | None = None
    map: Literal["mean", "last", "rollup", "class"] | None = None
    about: Annotated[str | None, tyro.conf.arg(name="class", metavar="NAME")] = None
    faithfulness: Switch = False
    split: Literal["train", "validation", "test"] | None = None
    samples: int = 200
    device: Device = "auto"


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options: Options = parse(Options, args, command="explain", examples=_EXAMPLES)
    check_numbers("explain", options, {"latents": 0, "row": 0}, ["clip_position"])
    if options.faithfulness:
        return _measure_faithfulness(options)
    if options.file is None and not options.text:
        wrong_arguments("explain", "Expected a FILE to explain after RUN, or --text; got neither.")
    from perceivers.explain.render.write import explain_file
    from perceivers.hub.checkpoint import load
    from perceivers.hub.device import pick_device

    saved = load(options.run, device=pick_device(options.device))
    sample = _sample(saved, options)
    out = options.out or Path(f"{_stem(options)}-attention.{options.format or 'png'}")
    written = explain_file(
        saved,
        sample,
        out,
        format=options.format,
        latents=options.latents,
        clip_position=options.clip_position,
        task=options.task,
        map=options.map,
        about=options.about,
    )
    echo(f"Attention of the model for {options.file or 'the text'}: {written}")
    return 0


def _stem(options: Options) -> str:
    """Return the default name of the written file, without its suffix."""
    if options.file is None:
        return "text"
    first = options.file.split(",")[0]
    return Path(first.partition("=")[2] or first).stem


def _sample(saved: "Saved", options: Options) -> Any:
    """Return the sample to explain: FILE or, of a table, the row asked for."""
    from perceivers.data.sources.samples import parse_pairs, samples_of

    columns = saved.config.input_columns()
    if options.text:
        found = texts_of("explain", options.text, columns)
        if len(found) != 1 or (options.file is not None and "=" not in options.file):
            wrong_arguments(
                "explain",
                "--text is for a run with one text input, instead of FILE; this one has "
                f"{', '.join(columns)}, and {len(found)} samples were given.",
            )
        given: dict[str, Any] = dict(found[0])
        if options.file is not None:
            given |= parse_pairs(options.file, columns)
        return next(iter(samples_of(given, columns)))
    samples = list(islice(samples_of(Path(str(options.file)), columns), options.row + 1))
    if not 0 <= options.row < len(samples):
        raise ValueError(
            f"{options.file} holds {counted(len(samples), 'sample')}: there is no --row {options.row}; rows count "
            "from 0."
        )
    return samples[options.row]


def _measure_faithfulness(options: Options) -> int:
    """Draw the curves of a file or of a split, print mean areas, and return the exit status."""
    if options.samples < 1:
        wrong_arguments("explain", f"Expected at least one of --samples, got {options.samples}.")
    if options.text or options.format not in (None, "png", "npz"):
        wrong_arguments(
            "explain",
            "--faithfulness takes a FILE or a split, and writes a png or npz; leave out --text and --format.",
        )
    from perceivers.explain.attribution.faithfulness import curves_of_files, mean_curves
    from perceivers.explain.render.write import write_curves
    from perceivers.hub.checkpoint import load
    from perceivers.hub.device import pick_device

    saved = load(options.run, device=pick_device(options.device))
    samples, where = _samples_of_run(saved, options)
    curves = curves_of_files(saved, samples, about=options.about, task=options.task)
    with CountProgress("explain", "sample"):
        found = mean_curves(list(tracked(curves, len(samples))))
    stem = Path(options.run).name if options.file is None else Path(options.file).stem
    out = options.out or Path(f"{stem}-faithfulness.{options.format or 'png'}")
    written = write_curves(found, out, format=options.format)
    echo(
        f"Mean areas of {found.samples} of {where}; lower deletion and higher insertion are better.\n",
        wrap=True,
    )
    echo(_table(found))
    echo(f"\nThe curves: {written}")
    return 0


def _samples_of_run(saved: "Saved", options: Options) -> tuple[list[Any], str]:
    """Return the samples to measure on, and their description."""
    from perceivers.data.sources.samples import Sample, samples_of
    from perceivers.evaluation.evaluate import choose_split, open_for_run
    from perceivers.evaluation.predict import Predictor

    if options.file is not None:
        given = list(samples_of(Path(options.file), saved.config.input_columns()))
        return _some(given, options.samples), options.file
    predictor = Predictor(saved, device=options.device)
    source = open_for_run(predictor)
    split = choose_split(source, options.split, own=True)
    if source.streams:
        wrong_arguments(
            "explain", "--faithfulness cannot draw samples of data that are streamed; give a FILE."
        )
    table = source.splits[split]
    rows = _some(range(len(table)), options.samples)
    return [Sample(name=f"row {row} of {split}", row=dict(table.row(row))) for row in rows], (
        f"the {split} split"
    )


def _some(items: Sequence[Any], count: int) -> list[Any]:
    """Return at most `count` items, drawn at random, in their order."""
    if len(items) <= count:
        return list(items)
    import numpy as np

    chosen = np.random.default_rng(SEED).choice(len(items), count, replace=False)
    return [items[index] for index in sorted(chosen.tolist())]


def _table(found: "MeanCurves") -> str:
    from perceivers.evaluation.metrics_table import in_columns

    rows = [("map", "deletion", "insertion", "deletion below random", "insertion above random")]
    for name, (deletion, insertion) in found.areas().items():
        first, second = found.errors[name]
        lower, higher = found.gains[name]
        rows.append(
            (
                name,
                f"{deletion:.3f} ± {first:.3f}",
                f"{insertion:.3f} ± {second:.3f}",
                "" if name == "random" else f"{lower[0]:+.3f} ± {lower[1]:.3f}",
                "" if name == "random" else f"{higher[0]:+.3f} ± {higher[1]:.3f}",
            )
        )
    return in_columns(rows)
