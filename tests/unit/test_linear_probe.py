"""Linear probe: classes and numbers from vectors of a frozen model; bad input."""

import json

import numpy as np
import pandas as pd
import pytest

import perceivers as pv
from perceivers.cli.main import main
from support.models import save_untrained
from support.runs import make_image_folder, save_run


def test_classes_are_found_in_the_vectors_of_an_untrained_model(tmp_path):
    run = save_run(tmp_path / "run")
    data = make_image_folder(tmp_path / "images", labels=("dark", "gray", "light"), count=20)
    found = pv.probe(run, data)
    assert found.main_metric == "accuracy"
    assert found.metrics["validation"]["accuracy"] > 0.8
    assert found.rows == {"train": 54, "validation": 6}
    assert found.model.startswith("logistic regression (strength ")
    low, high = found.intervals["validation"]["accuracy"]
    assert low <= found.metrics["validation"]["accuracy"] <= high
    assert found.width == pv.load(run).embed(data / "dark" / "0.png").vectors.shape[1]


def test_numbers_are_predicted_and_the_test_split_is_measured(tmp_path):
    generator = np.random.default_rng(0)
    slopes = generator.normal(size=120)
    time = np.arange(16)
    table = {
        "x": [(slope * time + generator.normal(size=16)).tolist() for slope in slopes],
        "y": [generator.normal(size=16).tolist() for _ in slopes],
        "slope": slopes,
        "part": ["test" if place % 4 == 0 else "train" for place in range(120)],
    }
    pd.DataFrame(table).to_parquet(tmp_path / "data.parquet")
    run = save_untrained(tmp_path / "run", "series")
    found = pv.probe(
        run,
        tmp_path / "data.parquet",
        label="slope",
        split_column="part",
        columns={"x": "series", "y": "series"},
    )
    assert found.metrics["test"]["r2"] > 0.3
    assert found.rows["test"] == 30


def test_the_command_prints_tables_and_json(tmp_path, capsys):
    run = save_run(tmp_path / "run")
    data = make_image_folder(tmp_path / "images", count=20)
    (data / "dark" / "3.png").write_bytes(b"nothing")
    flags = ["probe", str(run), str(data)]
    assert main([*flags, "--format", "json"]) == 1  # more than 1 % of the rows
    assert "cannot be read, more than the 1.0% allowed" in capsys.readouterr().err
    (data / "dark" / "3.png").unlink()
    assert main([*flags, "--format", "json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["rows"] == {"train": 35, "validation": 4}
    assert main(flags) == 0
    told = capsys.readouterr().out
    assert told.startswith("Logistic regression (strength ")
    assert "accuracy" in told


def test_data_without_labels_or_of_another_modality_are_errors(tmp_path):
    run = save_run(tmp_path / "run")
    with pytest.raises(ValueError, match="reads image, but the data hold text"):
        pv.probe(run, {"text": ["a b c"] * 20, "label": ["x", "y"] * 10})
    images = make_image_folder(tmp_path / "images", labels=("one",), count=20)
    with pytest.raises(ValueError, match="label"):
        pv.probe(run, images / "one")
