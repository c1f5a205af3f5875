"""Samples of a run's own data with what the model said and where it looked, for its report."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.evaluation.evaluate import choose_split, open_for_run
from perceivers.evaluation.inputs import Sample
from perceivers.evaluation.predict import Predictor, load_predictor
from perceivers.explain.render.write import explain_file
from perceivers.hub.checkpoint import load
from perceivers.runs.record import LoadedRun

__all__ = ["Example", "examples_of"]


@dataclass(frozen=True, kw_only=True)
class Example:
    """One sample.

    Attributes:
        name: What to call it.
        words: What it is, and from where.
        picture: The bytes of a PNG of it with what was attended to.
    """

    name: str
    words: str
    picture: bytes


def examples_of(past: LoadedRun, count: int) -> tuple[list[Example], list[str]]:
    """Return samples spread evenly over the test split, or else validation; or sentences on why there are none.

    Args:
        past: The run.
        count: How many.
    """
    if past.state != "ended" or past.data is None:
        return [], [
            "No examples are shown: the run does not say where its data are, or has not ended."
        ]
    try:
        predictor = load_predictor(past.folder)
        source = open_for_run(predictor)
        split = choose_split(source, None, own=True)
    except (OSError, ValueError, ImportError) as error:
        return [], [f"No examples are shown: {' '.join(str(error).split())}"]
    if split not in source.splits:
        return [], [
            "No examples are shown: the run's data are a stream, whose rows have no numbers."
        ]
    saved = load(past.folder)
    found: list[Example] = []
    lacks: list[str] = []
    records = source.splits[split]
    with tempfile.TemporaryDirectory(prefix="perceivers-report-") as folder:
        for index in range(0, len(records), max(1, len(records) // count))[:count]:
            row = dict(records.row(index))
            sample = Sample(name=_name(row, index), row=row)
            out = Path(folder) / "drawn.png"
            try:
                explain_file(saved, sample, out, latents=4)
            except (OSError, ValueError, ImportError) as error:
                lacks.append(f"{sample.name} is not shown: {' '.join(str(error).split())}")
                continue
            words = f"{split} split{_truth(predictor, source, split, index)}"
            found.append(Example(name=sample.name, words=words, picture=out.read_bytes()))
    return found, list(dict.fromkeys(lacks))


def _name(row: Mapping[str, Any], index: int) -> str:
    """Return the names of a row's files without their folders, or its number."""
    cells = [
        cell for cell in row.values() if isinstance(cell, EncodedItem) and cell.path is not None
    ]
    names = dict.fromkeys(cell.path.name for cell in cells if cell.path is not None)
    return " + ".join(names) or f"Row {index}"


def _truth(predictor: Predictor, source: DatasetBundle, split: str, index: int) -> str:
    """Return the class that a sample has, as text."""
    if source.target is None or source.target_kind != "class":
        return ""
    target: Any = source.targets(split)[index]
    names = predictor.task.names
    return f", in truth {names[int(target)]}" if 0 <= int(target) < len(names) else ""
