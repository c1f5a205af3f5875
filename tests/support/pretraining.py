"""Data of the modalities that are pretrained without labels, and a check of the pretrained run."""

import json

import numpy as np

import perceivers as pv
from perceivers.data.base import DataConfig
from perceivers.data.sources.open import open_data
from perceivers.data.sources.samples import Sample
from perceivers.evaluation.save import save_predictions
from support import modality_data as made
from support.cli import run_command

PRETRAINED_DATA = {
    "points": (made.make_point_table, ["points.npz", "points.png"]),
    "series": (made.make_series, ["series.npz", "series.png"]),
    "arrays": (made.make_arrays, ["array.npz", "array.png"]),
    "texts": (made.make_texts, ["text.npz", "text.txt"]),
    "table": (lambda folder: made.make_table(folder / "t.csv"), ["table.npz", "table.txt"]),
}
"""Function that writes the data of each modality, and ends of the names of the files of its predictions."""


def check_reconstructions(run, data, files, folder):
    """Check that a run is evaluated, and that a prediction of its first row hides a part and is saved in files."""
    status, out, err = run_command("evaluate", run, "--format", "json")
    assert status == 0, err
    assert np.isfinite(json.loads(out)["metrics"]["loss"])
    source = open_data(str(data), DataConfig(target="nothing")).splits["train"]
    (prediction,) = pv.load(run).stream([Sample(name="first", row=dict(source.row(0)))])
    (modality,) = prediction.reconstructions
    assert prediction.reconstructions[modality].hidden.any()
    saved = save_predictions([prediction], folder)
    assert [path.name.partition(".")[2] for path in saved] == files
