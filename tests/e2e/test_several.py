"""Several tasks from the command line: one run answers all of them, everywhere."""

import csv
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from perceivers.cli.main import main
from perceivers.data.base import DataConfig
from perceivers.data.sources.open import open_data
from perceivers.evaluation.predict import load_predictor
from perceivers.recipes.files import read_recipe
from perceivers.training.batch_size_finder import MemoryProbe
from perceivers.training.build import build_task as task_of
from perceivers.training.dataloaders import ProcessInfo
from perceivers.training.fit import fit
from support.cli import TINY
from support.files import write_csv
from support.image_data import write_png
from support.runs import make_image_folder, save_run

ROWS = 20


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    for number in range(ROWS):
        write_png(folder / f"{number}.png", number)
    rows = [
        {
            "file": f"{n}.png",
            "bird": ("robin", "wren")[n % 2],
            "type": ("a", "b", "", "a")[n % 4],
            "age": n + 0.5 if n % 3 else "",
            "tags": ("x;y", "x", "", "y")[n % 4],
        }
        for n in range(ROWS)
    ]
    data = write_csv(folder / "birds.csv", rows)
    args = ["fit", str(data), "--label", "bird,type,age,tags:labels", "--out", str(folder / "run")]
    weights = ["--task.weights", "age:0.5,tags:2", "--task.parts.bird.class-weights", "balanced"]
    assert main([*args, *weights, *TINY]) == 0
    return folder


def test_the_run_tells_each_task(run):
    recipe = read_recipe(run / "run" / "recipe.yaml")
    assert recipe.task.weights == {"age": 0.5, "tags": 2.0}
    report = (run / "run" / "report.md").read_text()
    for part in ("## Classes of bird", "## Numbers of age", "## Labels of tags", "confusion-1.png"):
        assert part in report
    assert (run / "run" / "confusion-2.png").exists()
    assert "validation score" in report


def test_evaluate_tells_each_task(run, capsys):
    assert main(["evaluate", str(run / "run")]) == 0
    told = capsys.readouterr().out
    assert "bird/accuracy" in told
    assert "\nage:\nnumber" in told
    assert told.splitlines()[-1].startswith("validation score: ")
    assert main(["evaluate", str(run / "run"), "--split", "train", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tasks"]["bird"]["num_samples"] == found["num_samples"] == ROWS - 2
    assert found["tasks"]["type"]["num_samples"] < ROWS - 2
    assert set(found["tasks"]["tags"]["details"]) == {"x", "y"}


def test_predict_tells_each_task(run, capsys):
    files = [str(run / "1.png"), str(run / "2.png")]
    assert main(["predict", str(run / "run"), *files]) == 0
    head = capsys.readouterr().out.splitlines()[0].split()
    assert head == ["file", "bird", "probability", "type", "probability", "age", "tags"]
    assert main(["predict", str(run / "run"), *files, "--format", "csv"]) == 0
    first = next(iter(csv.DictReader(capsys.readouterr().out.splitlines())))
    assert {"name", "bird/label", "bird/p(wren)", "type/probability", "age", "tags/labels"} <= set(
        first
    )
    assert main(["predict", str(run / "run"), files[0], "--format", "json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert set(one["tasks"]) == {"bird", "type", "age", "tags"}
    assert one["tasks"]["age"]["values"]["age"] == pytest.approx(float(first["age"]), rel=1e-5)
    assert (
        main(["predict", str(run / "run"), str(run / "birds.csv"), "--shards", str(run / "p")]) == 0
    )
    table = pd.read_parquet(run / "p" / "birds.parquet")
    assert len(table) == ROWS
    assert list(table["bird/label"])[1] == first["bird/label"]


def test_a_prediction_is_that_of_the_first_task_and_holds_all(run):
    (one,) = load_predictor(run / "run", device="cpu").predict(run / "1.png")
    assert one.label == one.tasks["bird"].label
    assert one.tasks["tags"].labels is not None


def test_explain_draws_the_answer_of_one_task(run, tmp_path, capsys):
    args = ["explain", str(run / "run"), str(run / "1.png"), "--format", "npz"]
    assert main([*args, "--task", "age", "--out", str(tmp_path / "a.npz")]) == 0
    assert main([*args, "--out", str(tmp_path / "b.npz")]) == 0
    assert str(np.load(tmp_path / "a.npz")["task"]) == "regression"
    assert np.load(tmp_path / "b.npz")["label_names"].tolist() == ["robin", "wren"]
    assert main([*args, "--task", "agee"]) == 1
    assert "Did you mean 'age'?" in capsys.readouterr().err


def test_a_run_of_one_task_has_no_other(tmp_path, capsys):
    picture = make_image_folder(tmp_path / "pictures", count=1) / "dark" / "0.png"
    run = save_run(tmp_path / "run")
    args = ["explain", str(run), str(picture), "--task", "age", "--out", str(tmp_path / "a.png")]
    assert main(args) == 1
    assert "no task 'age': the run learned one task alone" in capsys.readouterr().err


def test_a_step_of_several_tasks_can_be_measured(run):
    recipe = read_recipe(run / "run" / "recipe.yaml")
    source = open_data(run / "birds.csv", DataConfig(label="bird,type,age,tags:labels"))
    task = task_of(recipe, source)
    probe = MemoryProbe(recipe, task, device=torch.device("cpu"), process=ProcessInfo())
    assert set(probe._synthetic_batch(2).targets) == {"bird", "type", "age", "tags"}
    mixed = replace(recipe, augment={"image": replace(recipe.augment["image"], mixup=0.2)})
    probe = MemoryProbe(mixed, task, device=torch.device("cpu"), process=ProcessInfo())
    probe._step(probe._synthetic_batch(2), torch.enable_grad())


def test_samples_of_several_tasks_are_mixed(run, tmp_path):
    changes = {"augment.image.mixup": 0.2, "max_epochs": None, "max_steps": 1}
    done = fit(
        run / "birds.csv",
        read_recipe(run / "run" / "recipe.yaml"),
        out=tmp_path / "mixed",
        on_message=lambda _: None,
        **changes,
    )
    assert {"bird/accuracy", "type/accuracy", "age/r2", "tags/mAP"} <= set(done.metrics)
