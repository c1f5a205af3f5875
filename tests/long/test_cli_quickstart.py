"""`perceivers quickstart`, the whole way, cut short."""

import csv
import re

import pytest
from PIL import Image

from perceivers.cli.main import main

pytestmark = pytest.mark.quick


@pytest.mark.slow
def test_quickstart_leaves_report_predictions_and_attention(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["quickstart", "--max-epochs", "1"]) == 0
    out = capsys.readouterr().out
    assert re.fullmatch(r"test accuracy: \d+\.\d % \(\d+\.\d to \d+\.\d\)", out.splitlines()[-1])
    folder = tmp_path / "quickstart"
    assert (folder / "report.md").is_file()
    rows = list(csv.DictReader((folder / "predictions.csv").read_text().splitlines()))
    assert len(rows) == 20
    assert re.fullmatch(r".*digits/00-is-\d\.png", rows[0]["name"])
    with Image.open(folder / "attention.png") as picture:
        assert picture.width > 300
    assert main(["evaluate", "quickstart"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == out.splitlines()[-1]


def test_the_digits_have_their_own_recipe(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert (
        main(["fit", "builtin:digits", "--max-steps", "1", "--permute", "7", "--no-progress"]) == 0
    )
    out = capsys.readouterr().out
    assert "Recipe digits" in out
    assert "perceivers evaluate runs/digits" in out
