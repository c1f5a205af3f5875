"""`perceivers similar`: find the samples that are most similar to a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from perceivers.cli.parsing import Device, check_numbers, parse
from perceivers.cli.predict import item_of, report_errors
from perceivers.cli.terminal import echo
from perceivers.console import CountProgress

if TYPE_CHECKING:
    from perceivers.evaluation.embeddings import Embeddings
    from perceivers.evaluation.predict import Predictor

_EXAMPLES = """
  perceivers similar runs/birds robin.jpg --among photos/
  perceivers similar runs/birds robin.jpg --among photos/ --out similar.png
  perceivers embed runs/birds photos/ --out vectors.parquet
  perceivers similar runs/birds robin.jpg --among vectors.parquet
"""


@dataclass(frozen=True)
class Options:
    """List the samples whose vectors are nearest to that of a file, by cosine similarity.

    Attributes:
        run: A run folder, or a model on the Hugging Face hub.
        file: The file, or a row of a table as a table of one row.
        among: Files, a folder, a table, or a file of vectors that `perceivers embed` wrote.
        top: Number of samples to list.
        out: An image of the file and the similar ones: images, curves, spectrograms, point clouds or texts.
        device: Where to compute. `auto` uses an accelerator if there is one.
        batch_size: Samples in one forward pass.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    among: str
    top: int = 5
    out: Path | None = None
    device: Device = "auto"
    batch_size: int = 64


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status: 1 if a file could not be read."""
    options: Options = parse(Options, args, command="similar", examples=_EXAMPLES)
    check_numbers("similar", options, {"top": 1, "batch_size": 1})
    from perceivers.evaluation.metrics_table import in_columns
    from perceivers.evaluation.predict import load_predictor

    predictor = load_predictor(
        options.run, device=options.device, batch_size=options.batch_size, tta=False
    )
    query = predictor.embed(item_of(options.file))
    failed, report, note = report_errors("similar")
    with CountProgress("similar"):
        among = _among(predictor, options.among, {"on_error": report, "on_skip": note})
    if not len(among):
        raise ValueError("Expected at least one sample in --among that can be read, got none.")
    for name, found in zip(query.names, among.most_similar(query, top=options.top), strict=True):
        echo(f"Most similar to {name} of {len(among):,}:\n")
        rows = [("sample", "similarity"), *((one, f"{x:.3f}") for one, x in found)]
        echo(in_columns(rows, right=(1,)))
        if options.out is not None:
            from perceivers.evaluation.similar import draw_similar

            tiles = _tiles(predictor, options, {name, *(one for one, _ in found)})
            draw_similar(name, found, options.out, tiles)
            echo(f"\nImage in {options.out}", err=True)
            break
    return 1 if failed else 0


def _tiles(predictor: "Predictor", options: Options, names: set[str]) -> dict[str, Any]:
    """Return images or texts of samples by name, of files and rows of --among."""
    from perceivers.evaluation.embeddings import is_vectors
    from perceivers.explain.render.thumbnails import thumbnails
    from perceivers.hub.checkpoint import Saved

    saved = Saved(model=predictor.model, config=predictor.config, folder=predictor.folder)
    files = [name for name in names if Path(name).is_file()]
    items = [item_of(options.file), *files]
    if not is_vectors(Path(options.among)):
        items.append(item_of(options.among))
    return thumbnails(saved, items, names)


def _among(predictor: "Predictor", among: str, how: dict[str, Any]) -> "Embeddings":
    """Return the vectors in a file, or those of samples."""
    from perceivers.evaluation.embeddings import is_vectors, read_embeddings

    path = Path(among)
    return read_embeddings(path) if is_vectors(path) else predictor.embed(item_of(among), **how)
