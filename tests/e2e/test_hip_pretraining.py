"""Hierarchical Perceivers from unlabeled data of every modality to labels: recipe `hip_mae`."""

import json

import pytest
import torch
from PIL import Image

import perceivers as pv
from perceivers.hub.checkpoint import load
from support import modality_data as made
from support.cli import run_command
from support.pretraining import PRETRAINED_DATA, check_reconstructions
from support.runs import make_image_folder

pytest.importorskip("matplotlib")

SHORT = ["--workers", "0", "--no-progress", "--max-steps", "2", "--batch-size", "4"]


def pretrained(folder, data, *flags):
    run = folder / "run"
    status, _, err = run_command(
        "pretrain", data, "--recipe", "hip_mae", *SHORT, *flags, "--out", run
    )
    assert status == 0, err
    return run


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Images of two classes, and a run that was pretrained on them with permuted elements."""
    folder = tmp_path_factory.mktemp("photos")
    data = make_image_folder(folder / "data", count=12)
    return data, pretrained(folder, data, "--permute", "7")


@pytest.mark.parametrize("name", PRETRAINED_DATA)
def test_every_modality_is_pretrained_measured_and_drawn(name, tmp_path):
    make, files = PRETRAINED_DATA[name]
    (tmp_path / "data").mkdir()
    data = make(tmp_path / "data")
    run = pretrained(tmp_path, data)
    check_reconstructions(run, data, files, tmp_path / "saved")
    if name == "texts":
        first = next(data.rglob("*.txt"))
        status, _, err = run_command("explain", run, first, "--out", tmp_path / "map.png")
        assert status == 0, err


def test_several_modalities_are_pretrained_together(tmp_path):
    pytest.importorskip("soundfile")
    run = pretrained(tmp_path, made.make_mixed(tmp_path / "data"))
    parts = load(run).config.task.parts
    assert len(parts) > 1
    assert {part.kind for part in parts.values()} <= {"elements", "bytes", "fields"}


def test_positions_and_blocks_up_to_the_middle_one_are_taken_over(photos, tmp_path):
    data, run = photos
    out = tmp_path / "run"
    status, printed, err = run_command(
        "fit", data, "--init-from", run, "--folds", "1", *SHORT, "--out", out
    )
    assert status == 0, err
    assert "Began from the weights" in printed + err
    assert "another function" not in printed + err
    before, after = load(run).config.model, load(out).config.model
    assert after.encoder == before.encoder.for_labels()
    assert (before.permute, after.permute) == (7, 7)
    taken = json.loads((out / "init.json").read_text())["taken"]
    kept = [name for name in load(out).model.state_dict() if name.startswith("encoder.")]
    assert "encoder.trunk.positions.image" in kept
    assert set(kept) <= set(taken)


def test_a_pretrained_run_is_used_as_any_other(photos, tmp_path):
    data, run = photos
    file = next(data.rglob("*.png"))
    page = tmp_path / "report.html"
    for command in (
        ("report", run, "--out", page, "--mistakes", "0"),
        ("predict", run, file, "--save", tmp_path / "back"),
        ("similar", run, file, "--among", data, "--top", "2", "--out", tmp_path / "similar.png"),
        ("explain", run, file, "--out", tmp_path / "map.png"),
    ):
        status, _, err = run_command(*command)
        assert status == 0, err
    text = page.read_text()
    assert text.count('<figure class="reconstruction">') == 2
    assert "<h2>Learned positions</h2>" in text
    assert "image: neighbors have rank" in text
    assert "learned positions of a few places of image" in text
    (image,) = (tmp_path / "back").iterdir()
    with Image.open(image) as shown:
        assert shown.width > 2.5 * shown.height  # original, visible, predicted
    found = pv.probe(run, data)
    assert found.main_metric in found.metrics["validation"]
    vectors = pv.load(run).embed(file).vectors
    assert vectors.shape == (1, load(run).config.model.encoder.for_labels().latent_channels)


def test_fit_takes_the_recipe_as_well(tmp_path):
    data = make_image_folder(tmp_path / "data", count=12)
    flags = ["--task.parts.image.block", "2", "2", "--task.parts.image.no-groupwise"]
    out = tmp_path / "run"
    status, _, err = run_command("fit", data, "--recipe", "hip_mae", *SHORT, *flags, "--out", out)
    assert status == 0, err
    part = load(out).config.task.parts["image"]
    assert (part.block, part.groupwise) == ((2, 2), False)


def test_pretraining_goes_on_without_labels(photos, tmp_path):
    data, run = photos
    out = tmp_path / "run"
    status, _, err = run_command(
        "fit", data, "--init-from", run, "--target", "nothing", *SHORT, "--out", out
    )
    assert status == 0, err
    first, second = load(run).config, load(out).config
    assert second.model.encoder == first.model.encoder
    assert second.task.parts == first.task.parts
    assert torch.is_tensor(load(out).model.encoder.trunk.positions["image"])
