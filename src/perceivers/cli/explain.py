"""`perceivers explain`: draw what a run looked at."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from perceivers.cli.parsing import Device, Switch, parse, texts_of, wrong_arguments

if TYPE_CHECKING:
    from perceivers.hub.checkpoint import Saved


_EXAMPLES = """
  perceivers explain runs/birds robin.jpg --out robin.png
  perceivers explain runs/birds robin.jpg --format npz      the arrays behind the picture
  perceivers explain runs/birds robin.jpg --out robin.html  a page to turn, slide and choose in; it needs nothing else
  perceivers explain runs/talks talk.mp4 --out talk.gif     frame after frame
  perceivers explain runs/birds robin.jpg --class wren      what speaks for another class
  perceivers explain runs/birds robin.jpg --faithfulness          whether the maps are faithful, for this picture
  perceivers explain runs/birds --faithfulness --samples 300      the same over the test split, with mean areas
  perceivers explain runs/digits spoken.flac                sound, film, mesh, recording, array: whatever it learned
  perceivers explain runs/talks talk.mp4 --clip-position 0  the first clip; 0.5 the middle, 1 the last
  perceivers explain runs/reviews --text "What a film!"     a text itself, or a .txt file
  perceivers explain runs/mixed image=a.jpg,audio=a.wav     several modalities; what is missing may be left out
  perceivers explain runs/watch new.parquet --row 3         a row of a table with the run's columns
  perceivers explain runs/mixed a.jpg --task age            the answer of one of several tasks
"""


@dataclass(frozen=True)
class Options:
    """Draw where in a file each read of a run looked, beside what it predicts.

    Attributes:
        run: A run folder, or a model on the Hugging Face hub.
        file: What to look at: a file, or NAME=FILE,NAME=FILE,... for a run of several modalities.
        out: The file to write. By default `NAME-attention.png` in this folder, or `NAME-curves.png`.
        format: A picture, a moving one, a page, or the arrays that it is drawn from. By default as `out` ends.
        latents: How many latents to show on their own.
        clip_position: Where the clip lies in a longer recording: 0 at its beginning, 1 at its end.
        text: A text to look at, of a run that reads texts, instead of a file. Give it again for the other texts of a
            sample that has several.
        row: Which row of a table, from 0 on, where FILE is one.
        task: Which answer is drawn, of a run that learned several tasks. By default that of the first.
        map: What the one map of the whole model shows: the mean of all reads, the last read, attention rolled up
            through all layers, or that weighted by the gradient of a class. By default `class` where the run learned
            classes, or else `rollup`.
        about: The class that `--map class` is about. By default the most probable one.
        faithfulness: Draw deletion and insertion curves of all maps instead, beside a random map and input
            gradients; without FILE, their mean over a split.
        split: Which split of the run's own data `--faithfulness` is measured on. By default test, or else validation.
        samples: How many samples of a split, a folder or a table `--faithfulness` is measured on, drawn at random.
        device: Where to compute. `auto` takes an accelerator if there is one.
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
    if options.faithfulness:
        from perceivers.cli.curves import draw_run

        return draw_run(options)
    if options.file is None and not options.text:
        wrong_arguments("explain", "Expected a FILE to look at after RUN, or --text; got neither.")
    from perceivers.explain.render.render import explain_file
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
    print(f"What the model looked at in {options.file or 'the text'}: {written}")
    return 0


def _stem(options: Options) -> str:
    """Return what the written file is called by default."""
    if options.file is None:
        return "text"
    first = options.file.split(",")[0]
    return Path(first.partition("=")[2] or first).stem


def _sample(saved: "Saved", options: Options) -> Any:
    """Return what is looked at: the one sample that FILE is or, of a table, the row asked for."""
    from perceivers.data.sources.samples import samples_of

    columns = saved.config.input_columns()
    if options.text:
        found = texts_of("explain", options.text, columns)
        if len(found) != 1 or (options.file is not None and "=" not in options.file):
            wrong_arguments(
                "explain",
                "--text is for a run that reads one text, instead of FILE; this one reads "
                f"{', '.join(columns)}, and {len(found)} samples were given.",
            )
        given: dict[str, Any] = dict(found[0])
        if options.file is not None:
            for pair in options.file.split(","):
                name, _, value = pair.partition("=")
                given[name.strip()] = value.strip()
        return next(iter(samples_of(given, columns)))
    samples = list(islice(samples_of(Path(str(options.file)), columns), options.row + 1))
    if not 0 <= options.row < len(samples):
        raise ValueError(
            f"{options.file} holds {len(samples)} samples: there is no --row {options.row}; they count from 0."
        )
    return samples[options.row]
