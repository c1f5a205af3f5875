"""What one does with a run: evaluate, predict, explain."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from perceivers.cli.main import main
from perceivers.data.base import DataConfig
from perceivers.hub import quantize
from support import image_data
from support.files import write_parquet
from support.runs import make_image_folder, needs_int8, save_run


@pytest.fixture
def pictures(tmp_path) -> Path:
    return make_image_folder(tmp_path / "birds")


@pytest.fixture
def run(tmp_path, pictures, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    return str(save_run(tmp_path / "run", data=pictures))


class TestEvaluate:
    def test_measures_what_training_held_out_when_there_is_no_test_split(self, run, capsys):
        assert main(["evaluate", run]) == 0
        out = capsys.readouterr().out
        assert "validation split of the run's own data: 2 samples" in out
        assert out.splitlines()[-1].startswith("validation accuracy: ")

    def test_measures_the_test_split_when_there_is_one(self, tmp_path, monkeypatch, capsys):
        for split in ("train", "test"):
            make_image_folder(tmp_path / "birds" / split)
        run = save_run(tmp_path / "run", data=tmp_path / "birds")
        assert main(["evaluate", str(run)]) == 0
        assert capsys.readouterr().out.splitlines()[-1].startswith("test accuracy: ")
        assert main(["evaluate", str(run), "--split", "validation"]) == 0
        assert "validation split" in capsys.readouterr().out

    def test_measures_all_of_other_data(self, run, tmp_path, capsys):
        other = make_image_folder(tmp_path / "others", count=3)
        assert main(["evaluate", run, str(other), "--format", "json", "--out", "r.json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert (result["split"], result["num_samples"]) == ("train", 6)
        assert json.loads(Path("r.json").read_text()) == result

    def test_measures_streams(self, tmp_path, pictures, capsys):
        rows = [f"{path},{path.parent.name}" for path in sorted(pictures.rglob("*.png"))]
        (tmp_path / "test.csv").write_text("\n".join(["picture,species", *rows]))
        config = DataConfig(stream=True, label="species")
        run = save_run(tmp_path / "run", data=tmp_path / "test.csv", config=config)
        assert main(["evaluate", str(run), "--split", "train", "--format", "json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["split"] == "train"
        assert 10 < result["num_samples"] < 20  # less what the run held out

    def test_permuting_the_elements_changes_nothing(self, run, pictures, capsys):
        losses = []
        for flags in ([], ["--permute", "3"]):
            assert main(["evaluate", run, "--format", "json", *flags]) == 0
            losses.append(json.loads(capsys.readouterr().out)["metrics"]["loss"])
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)

    def test_a_split_that_is_not_there_is_refused(self, run, capsys):
        assert main(["evaluate", run, "--split", "test"]) == 1
        assert (
            "Expected a test split in the data; there is: train, valid" in capsys.readouterr().err
        )

    def test_a_label_that_was_not_seen_in_training_is_named(self, run, tmp_path, capsys):
        other = make_image_folder(tmp_path / "others", labels=("dark", "striped"))
        assert main(["evaluate", run, str(other)]) == 0
        said = " ".join(capsys.readouterr().err.split())
        assert "Skipped: 10 of 20 rows of train have a label that is not in the" in said
        assert "'striped' (10)" in said

    def test_data_without_labels_cannot_be_measured(self, run, pictures, capsys):
        assert main(["evaluate", run, str(pictures / "dark")]) == 1
        assert "no labels" in capsys.readouterr().err

    def test_a_run_that_does_not_know_its_data_asks_for_them(self, tmp_path, capsys):
        run = save_run(tmp_path / "run")
        assert main(["evaluate", str(run)]) == 1
        assert (
            "Give the data to measure on: perceivers evaluate RUN DATA" in capsys.readouterr().err
        )


class TestPredict:
    def test_files_folders_and_globs(self, run, pictures, capsys):
        assert main(["predict", run, str(pictures / "dark"), str(pictures / "*" / "1.png")]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 2 + 10 + 2
        assert lines[0].split() == ["file", "label", "probability"]

    def test_csv_goes_to_a_file(self, run, pictures, capsys):
        flags = ["--format", "csv", "--out", "table.csv", "--batch-size", "3"]
        assert main(["predict", run, str(pictures), *flags]) == 0
        rows = list(csv.DictReader(Path("table.csv").read_text().splitlines()))
        assert len(rows) == 20
        assert {row["label"] for row in rows} <= {"dark", "light"}
        assert "20 predictions in table.csv" in capsys.readouterr().err

    def test_json_holds_the_best_labels(self, run, pictures, capsys):
        file = str(pictures / "dark" / "0.png")
        assert main(["predict", run, file, "--top", "2", "--format", "json"]) == 0
        (row,) = json.loads(capsys.readouterr().out)
        assert row["name"] == file
        assert len(row["top"]) == 2

    def test_one_bad_file_does_not_stop_the_others(self, run, pictures, capsys):
        bad = pictures / "dark" / "3.png"
        bad.write_text("text")
        assert main(["predict", run, str(pictures / "dark"), "nowhere.png"]) == 1
        captured = capsys.readouterr()
        assert len(captured.out.splitlines()) == 2 + 9
        assert captured.err.count("perceivers predict: ") == 2
        assert str(bad) in captured.err
        assert "nowhere.png" in captured.err

    def test_files_are_needed(self, run, capsys):
        assert main(["predict", run]) == 2
        assert "FILE" in capsys.readouterr().err


class TestExplain:
    def test_draws_a_picture(self, run, pictures, capsys):
        file = pictures / "dark" / "0.png"
        assert main(["explain", run, str(file), "--out", "a.png", "--latents", "2"]) == 0
        assert "a.png" in capsys.readouterr().out
        with Image.open("a.png") as picture:
            assert picture.width > 300

    def test_arrays_are_named_after_the_file(self, run, pictures):
        file = pictures / "dark" / "0.png"
        assert main(["explain", run, str(file), "--format", "npz"]) == 0
        assert Path("0-attention.npz").stat().st_size > 0


@pytest.mark.parametrize("command", [["evaluate"], ["predict", "x.png"], ["explain", "x.png"]])
def test_a_folder_that_is_not_a_run_is_told(tmp_path, capsys, command):
    name, *rest = command
    assert main([name, str(tmp_path), *rest]) == 1
    assert "is not a run folder" in capsys.readouterr().err
    assert main([name, str(tmp_path / "nowhere"), *rest]) == 1
    assert "does not exist" in capsys.readouterr().err


class TestQuantize:
    @needs_int8
    def test_int8_says_on_standard_error_what_it_did(self, run, pictures, capsys):
        file = str(pictures / "dark" / "0.png")
        assert main(["predict", run, file, "--format", "json", "--quantize", "int8-always"]) == 0
        out, err = capsys.readouterr()
        assert err == "perceivers predict: int8 weights in 8 of 8 linear layers.\n"
        assert json.loads(out)[0]["label"] in ("dark", "light")
        assert main(["evaluate", run, "--format", "json", "--quantize", "int8-always"]) == 0
        out, err = capsys.readouterr()
        assert err == "perceivers evaluate: int8 weights in 8 of 8 linear layers.\n"
        assert json.loads(out)["quantization"] == "int8 weights in 8 of 8 linear layers."

    @needs_int8
    def test_a_model_too_narrow_stays_in_float32(self, run, pictures, capsys, monkeypatch):
        monkeypatch.setattr(quantize, "_speed", lambda linear, rows: 0.6)
        file = str(pictures / "dark" / "0.png")
        found = []
        for flags in ([], ["--quantize", "int8"]):
            assert main(["predict", run, file, "--format", "csv", *flags]) == 0
            found.append(capsys.readouterr())
        assert found[0].out == found[1].out
        assert found[0].err == ""
        assert "Staying in float32" in found[1].err
        assert len(found[1].err.splitlines()) == 1

    @pytest.mark.parametrize("command", [["evaluate"], ["predict", "x.png"]])
    def test_int8_elsewhere_than_on_the_cpu_is_wrong(self, run, capsys, command):
        name, *rest = command
        assert main([name, run, *rest, "--quantize", "int8", "--device", "cuda"]) == 2
        err = capsys.readouterr().err
        assert "expected --device cpu with --quantize int8, got --device cuda" in err
        assert len(err.splitlines()) == 1
        assert main([name, run, *rest, "--quantize", "int9"]) == 2
        assert "int8-always" in capsys.readouterr().err

    def test_bad_input_is_told_as_without(self, run, capsys, monkeypatch):
        monkeypatch.setattr(quantize, "_speed", lambda linear, rows: 0.6)
        assert main(["predict", run, "none.png", "--quantize", "int8"]) == 1
        assert "no file, folder or match for 'none.png'" in capsys.readouterr().err
        assert main(["evaluate", run, "none/", "--quantize", "int8-always"]) == 1
        assert "Traceback" not in capsys.readouterr().err


def test_shards_are_predicted_into_a_folder_and_not_twice(run, tmp_path, capsys):
    parquet = pytest.importorskip("pyarrow.parquet")
    cells = [
        {"bytes": image_data.png(1), "path": "1.png"},
        {"bytes": b"no picture", "path": "2.png"},
    ]
    shard = write_parquet(tmp_path / "a.parquet", {"image": cells})
    out = tmp_path / "predictions"
    command = ["predict", run, str(shard), "--shards", str(out)]
    assert main(command) == 1  # one row has an error
    assert "2 rows, 1 of them with an error" in capsys.readouterr().out
    rows = parquet.read_table(out / "a.parquet").to_pylist()
    assert rows[0]["label"] in ("dark", "light")
    assert rows[1]["label"] is None
    assert "a.parquet, row 1" in rows[1]["error"]
    assert main(command) == 1  # the error is still there
    assert "done before" in capsys.readouterr().out
