"""Runs with folds: one folder, one model, results out of fold; resumed between and within folds."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import perceivers as pv
from perceivers.data.sources.samples import samples_of
from perceivers.evaluation.evaluate import evaluate_run
from perceivers.explain.attribution.explain import explain_sample
from perceivers.exporting.export import export
from perceivers.hub.checkpoint import load
from perceivers.recipes.files import read_run_recipe
from perceivers.report.publish import model_card
from perceivers.runs.record import read_run
from perceivers.tasks.averaging import stack_outputs
from perceivers.training import folds as folds_module
from perceivers.training import views as views_module
from support import modality_data as made
from support.cli import TINY, run_command
from support.runs import make_image_folder
from support.server import client_of
from support.tolerance import assert_close


def undrawn(self, file, **_):
    file.touch() if isinstance(file, Path) else file.write("<svg></svg>")


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch):
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", undrawn)


FLAGS = [flag for flag in TINY if not flag.startswith("--no-")]


def options():
    words = iter(FLAGS)
    found, key = {}, ""
    for word in words:
        if word.startswith("--"):
            key = word[2:].replace("-", "_")
            found[key] = []
        else:
            found[key].append(int(word))
    known = {k: v[0] if len(v) == 1 else tuple(v) for k, v in found.items()}
    return known | {"progress": False, "baseline": False, "batch_size": 4, "optim.lr": 0.02}


def fit(birds, out, **changes):
    return pv.fit(
        str(birds), out=out, on_message=lambda _: None, **{**options(), "folds": 3} | changes
    )


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    return make_image_folder(tmp_path_factory.mktemp("data") / "birds", count=6, size=8)


@pytest.fixture(scope="module")
def run(birds, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", undrawn)
        return fit(birds, tmp_path_factory.mktemp("runs") / "run")


def check_same_weights(folder, other):
    found, expected = (load(one).model.state_dict() for one in (folder, other))
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


def test_one_folder_holds_one_model_and_the_results_of_all_rows(run):
    assert (run.num_members, run.metrics["samples"]) == (3, 12)
    assert "accuracy" in run.intervals
    names = {str(path.relative_to(run.folder)) for path in run.folder.rglob("*")}
    assert {
        "model.safetensors",
        "config.json",
        "recipe.yaml",
        "metrics.jsonl",
        "report.md",
    } <= names
    for index in range(3):
        assert {path.name for path in (run.folder / f"folds/{index}/checkpoints").iterdir()} == {
            "fold.ckpt"
        }
        assert f"folds/{index}/metrics.jsonl" in names
    report = json.loads((run.folder / "report.json").read_text())
    assert sum(map(sum, report["confusion"])) == 12
    assert [one["rows"] for one in report["members"]] == [4, 4, 4]
    recipes = [read_run_recipe(run.folder / f"folds/{index}") for index in range(3)]
    assert [one.training.seed for one in recipes] == [0, 1, 2]
    members = load(run.folder).model.members
    assert not torch.equal(members[0].encoder.latents, members[1].encoder.latents)


def test_reports_say_what_was_measured(run):
    text = (run.folder / "report.md").read_text()
    assert "An ensemble of 3 members, whose outputs are averaged. Metrics out of fold" in text
    assert "## Members" in text
    loaded = read_run(run.folder)
    assert loaded.num_members == 3
    count = sum(weight.numel() for weight in load(run.folder).model.parameters())
    assert loaded.cost.num_parameters == loaded.summary.num_parameters == count
    assert "An ensemble of 3 members" in model_card(loaded)
    status, out, _ = run_command("info", run.folder)
    assert status == 0
    assert "3 models whose outputs are averaged" in out
    assert f"{count:,}" in out
    status, out, _ = run_command("compare", run.folder, run.folder)
    assert "is an ensemble of 3 members" in " ".join(out.split())
    page = run.folder / "page.html"
    assert run_command("report", run.folder, "--out", page)[0] == 0
    assert "The outputs of 3 members are averaged" in page.read_text()


def test_rows_are_evaluated_by_the_member_that_has_not_learned_them(run, birds):
    found = evaluate_run(run.folder, device="cpu")
    assert (found.split, found.num_samples) == ("validation", 12)
    for name, value in found.metrics.items():
        assert value == pytest.approx(run.metrics[name], abs=1e-4), name
    assert found.remarks[0].startswith("Out of fold: each row is predicted by the one of the 3")
    averaged = evaluate_run(run.folder, str(birds), split="train", device="cpu")
    assert averaged.remarks == ()
    (run.folder / "splits.jsonl.gz").rename(run.folder / "away")  # as after a push
    try:
        assert evaluate_run(run.folder, device="cpu").metrics == found.metrics
    finally:
        (run.folder / "away").rename(run.folder / "splits.jsonl.gz")


def test_an_interrupted_run_keeps_its_folds(run, birds, tmp_path, monkeypatch):
    trained = []
    train_member = folds_module._train_member

    def die(run, folder, index, **how):
        trained.append(index)
        if trained == [0, 1]:
            raise KeyboardInterrupt
        train_member(run, folder, index, **how)

    monkeypatch.setattr(folds_module, "_train_member", die)
    with pytest.raises(KeyboardInterrupt):
        fit(birds, tmp_path / "run")
    assert read_run(tmp_path / "run").state == "unfinished, 1 fold done"
    with pytest.raises(ValueError, match="already holds a run"):
        fit(birds, tmp_path / "run")
    fit(birds, tmp_path / "run", resume=True)
    assert trained == [0, 1, 1, 2]
    check_same_weights(tmp_path / "run", run.folder)


def test_a_run_is_resumed_within_a_fold(run, birds, tmp_path, monkeypatch):
    """A member that is stopped after its last step is finished from its checkpoint."""
    save_member = folds_module._save_member
    calls = []

    def die_once(parts, member):
        calls.append(parts.callback.samples)
        if len(calls) == 2:
            raise KeyboardInterrupt
        save_member(parts, member)

    monkeypatch.setattr(folds_module, "_save_member", die_once)
    with pytest.raises(KeyboardInterrupt):
        fit(birds, tmp_path / "run")
    fit(birds, tmp_path / "run", resume=True)
    assert [bool(samples) for samples in calls] == [True, True, False, True]
    check_same_weights(tmp_path / "run", run.folder)


def test_an_ended_run_is_only_reported_again(run, birds, tmp_path, capsys):
    shutil.copytree(run.folder, tmp_path / "run")
    again = fit(birds, tmp_path / "run", resume=True, max_epochs=5)
    assert again.metrics == run.metrics
    assert "had ended already" in (tmp_path / "run/report.md").read_text()
    assert "had ended already" in capsys.readouterr().out


@pytest.mark.parametrize("folds", [1, 4])
def test_a_resumed_run_keeps_its_number_of_folds(folds, run, birds):
    before = sorted(run.folder.rglob("*"))
    with pytest.raises(ValueError, match=rf"began with 3 folds.*got --folds {folds}\. Leave"):
        fit(birds, run.folder, resume=True, folds=folds)
    assert sorted(run.folder.rglob("*")) == before


def test_the_time_is_divided(birds, tmp_path):
    made = fit(birds, tmp_path / "run", max_epochs=None, max_steps=1, max_time="90s")
    training = read_run_recipe(made.folder / "folds/2").training
    assert (training.max_time, training.folds, training.max_steps) == ("30.000s", None, 1)


@pytest.mark.parametrize(
    "form", ["torch", "safetensors", pytest.param("onnx", marks=pytest.mark.slow)]
)
def test_exports_hold_the_average(run, tmp_path, form):
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    found = export(run.folder, tmp_path / form, format=form)
    assert found.difference.fits
    manifest = json.loads((tmp_path / form / "preprocess.json").read_text())
    assert manifest["members"] == 3


def test_a_server_answers_with_the_average(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "run")
    expected = pv.load(run.folder, device="cpu").predict(made.png(0, 0))[0]
    with client_of(tmp_path, "run") as client:
        answer = client.post("/predict", files={"image": ("a.png", made.png(0, 0))}).json()
    (found,) = answer["answers"]
    assert found["probabilities"] == pytest.approx(expected.probabilities, abs=1e-4)


def test_a_new_run_starts_from_the_members(run, birds, tmp_path):
    made = fit(birds, tmp_path / "run", init_from=run.folder)
    text = (made.folder / "report.md").read_text()
    assert "Began from the weights of member 2 of" in text
    assert (
        "are too good" not in text
    )  # each member holds out the same rows as the one that it starts from
    assert json.loads((made.folder / "init.json").read_text())["from"] == str(run.folder)


def flipping(birds, out, **changes):
    augment = {"augment.image.flip": True, "tta": True}
    return fit(birds, out, **{**augment, "folds": 1, "max_epochs": 3, **changes})


@pytest.mark.parametrize("folds", [1, 3])
def test_mirrored_images_are_averaged_where_that_is_better(folds, birds, tmp_path, monkeypatch):
    monkeypatch.setattr(views_module, "is_better", lambda *_: True)
    run = flipping(birds, tmp_path / "run", folds=folds)
    saved = load(run.folder)
    assert saved.config.mirrored == ("image",)
    found = evaluate_run(run.folder, device="cpu")
    assert found.metrics["loss"] == pytest.approx(run.metrics["loss"], abs=1e-4)
    plain = evaluate_run(run.folder, device="cpu", tta=False)
    assert plain.metrics["loss"] != pytest.approx(run.metrics["loss"], abs=1e-6)
    predictor, alone = (pv.load(run.folder, device="cpu", tta=tta) for tta in (True, False))
    image = made.png(0, 0)
    batch = predictor.read(list(samples_of(image, predictor.columns)))
    mirrored = replace(batch, inputs={"image": batch.inputs["image"].flip(-1)})
    both = stack_outputs([alone.outputs(batch), alone.outputs(mirrored)])
    assert_close(predictor.outputs(batch), predictor.task.average_members(both))
    assert predictor.fingerprint != alone.fingerprint
    (answer,) = predictor.predict(image)
    explained = explain_sample(run.folder, image)
    expected = [answer.probabilities[name] for name in explained.label_names]
    assert explained.probabilities == pytest.approx(expected, abs=1e-5)
    export(run.folder, tmp_path / "out", format="safetensors")
    manifest = json.loads((tmp_path / "out/preprocess.json").read_text())
    assert manifest["mirrored"] == ["image"]
    assert load(tmp_path / "out").config.mirrored == ("image",)


def test_mirrored_images_are_left_out_where_they_are_worse(birds, tmp_path, monkeypatch):
    monkeypatch.setattr(views_module, "is_better", lambda *_: False)
    run = flipping(birds, tmp_path / "run")
    assert load(run.folder).config.mirrored == ()
    assert "are not averaged over mirrored images" in (run.folder / "report.md").read_text()
    run = flipping(birds, tmp_path / "other", tta=False)
    assert "mirrored images" not in (run.folder / "report.md").read_text()
