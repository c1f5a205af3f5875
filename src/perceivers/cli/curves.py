"""`perceivers explain RUN --faithfulness`: whether the maps of a run are faithful."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perceivers.cli.parsing import wrong_arguments

if TYPE_CHECKING:
    from perceivers.cli.explain import Options
    from perceivers.explain.attribution.deletion import MeanCurves
    from perceivers.hub.checkpoint import Saved


SEED = 0


def draw_run(options: "Options") -> int:
    """Draw the curves of a file or of a split, print mean areas, and return the exit status."""
    if options.samples < 1:
        wrong_arguments("explain", f"Expected at least one of --samples, got {options.samples}.")
    if options.text or options.format not in (None, "png", "npz"):
        wrong_arguments(
            "explain",
            "--faithfulness takes a FILE or a split, and writes a png or npz; leave out --text and --format.",
        )
    from perceivers.explain.attribution.deletion import mean_curves
    from perceivers.explain.attribution.faithfulness import curves_of_files
    from perceivers.explain.render.deletion_curves import write_curves
    from perceivers.hub.checkpoint import load
    from perceivers.hub.device import pick_device

    saved = load(options.run, device=pick_device(options.device))
    samples, where = _samples(saved, options)
    found = mean_curves(
        list(curves_of_files(saved, samples, about=options.about, task=options.task))
    )
    stem = Path(options.run).name if options.file is None else Path(options.file).stem
    out = options.out or Path(f"{stem}-curves.{options.format or 'png'}")
    written = write_curves(found, out, format=options.format)
    print(
        f"Mean areas of {found.samples} of {where}; lower deletion and higher insertion are better.\n"
    )
    print(_table(found))
    print(f"\nThe curves: {written}")
    return 0


def _samples(saved: "Saved", options: "Options") -> tuple[list[Any], str]:
    """Return the samples to measure on, and what to call them."""
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
    """Return so many of them, drawn at random and in their order, or all."""
    if len(items) <= count:
        return list(items)
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
