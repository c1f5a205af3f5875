"""Masked autoencoding from real files without labels, of every modality, and the way from such a run to labels."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import perceivers as pv
from perceivers.hub.checkpoint import load
from perceivers.models.perceiver import build
from perceivers.recipes.finetune import with_architecture
from perceivers.recipes.registry import get_recipe
from perceivers.recipes.resolve import resolve
from perceivers.training.finetune import plan_warm_start
from support import modality_data as made
from support.cli import run_command
from support.pretraining import PRETRAINED_DATA, check_reconstructions
from support.runs import make_image_folder

pytest.importorskip("matplotlib")

SMALL = [
    *("--workers", "0", "--no-progress", "--max-steps", "2", "--batch-size", "4"),
    *("--encoder.num-latents", "4", "--encoder.num-self-attends-per-block", "1"),
]


def pretrained(folder, data, *flags):
    run = folder / "run"
    status, _, err = run_command("pretrain", data, *SMALL, *flags, "--out", run)
    assert status == 0, err
    return run


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Images of two classes, and a run that was pretrained on them."""
    folder = tmp_path_factory.mktemp("photos")
    data = make_image_folder(folder / "data", count=12)
    return data, pretrained(folder, data)


@pytest.mark.parametrize("name", PRETRAINED_DATA)
def test_every_modality_is_pretrained_measured_and_drawn(name, tmp_path):
    make, files = PRETRAINED_DATA[name]
    (tmp_path / "data").mkdir()
    data = make(tmp_path / "data")
    run = pretrained(tmp_path, data)
    check_reconstructions(run, data, files, tmp_path / "saved")
    if name in ("series", "texts"):  # files
        first = next(path for path in sorted(data.rglob("*")) if path.is_file())
        image = tmp_path / "similar.png"
        status, _, err = run_command(
            "similar", run, first, "--among", data, "--top", "2", "--out", image
        )
        assert status == 0, err
        with Image.open(image) as shown:
            assert np.asarray(shown.convert("L"))[20:160].std() > 5


def test_several_modalities_are_pretrained_together(tmp_path):
    pytest.importorskip("soundfile")
    run = pretrained(tmp_path, made.make_mixed(tmp_path / "data"))
    assert len(load(run).config.task.parts) > 1


def test_images_are_drawn_in_the_report_and_saved(photos, tmp_path):
    data, run = photos
    page = tmp_path / "report.html"
    status, _, err = run_command("report", run, "--out", page, "--mistakes", "0")
    assert status == 0, err
    assert page.read_text().count('<figure class="reconstruction">') == 2
    file = next(data.rglob("*.png"))
    status, _, err = run_command("predict", run, file, "--save", tmp_path / "back")
    assert status == 0, err
    (picture,) = (tmp_path / "back").iterdir()
    with Image.open(picture) as image:
        assert image.width > 2.5 * image.height  # original, visible, predicted


@pytest.mark.parametrize("label", ["class", "nothing"])
def test_first_latents_of_a_fine_tuned_model_are_those_of_the_source(photos, label):
    data, run = photos
    saved = load(run)
    chosen = resolve(
        data, pretrained=saved, overrides={"max_steps": 1, "target": label, "folds": 1}
    )
    plan = plan_warm_start(chosen.recipe.model_config(), run, task=chosen.recipe.task, saved=saved)
    model = build(chosen.recipe.model_config())
    plan.apply(model)
    x = {"image": torch.randn(2, *saved.model.inputs["image"].shape)}
    with torch.inference_mode():
        torch.testing.assert_close(
            model.eval().encode(x), saved.model.eval().encode(x), rtol=0, atol=0
        )
    is_classified = label == "class"
    assert (chosen.recipe.task.kind == "classification") == is_classified
    assert (chosen.recipe.output.kind == "mean_pool") == is_classified


def test_a_dense_recipe_takes_over_inputs_and_encoder(photos):
    _, run = photos
    saved = load(run)
    recipe = with_architecture(get_recipe("segmentation"), saved)
    assert recipe.inputs == saved.config.model.inputs
    assert recipe.encoder == saved.config.model.encoder
    assert recipe.preprocess["target"] == get_recipe("segmentation").preprocess["target"]
    with pytest.raises(ValueError, match="recipe points points"):
        with_architecture(get_recipe("points"), saved)


def test_segmentation_is_fine_tuned(photos, tmp_path):
    _, run = photos
    for sub in ("images", "masks"):
        (tmp_path / "street" / sub).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(12):
        classes = np.zeros((12, 12), dtype=np.uint8)
        classes[:, 6:] = 1
        image = (180 * classes[..., None] + rng.integers(0, 9, (12, 12, 3))).astype(np.uint8)
        Image.fromarray(image).save(tmp_path / "street" / "images" / f"{number}.png")
        Image.fromarray(classes).save(tmp_path / "street" / "masks" / f"{number}.png")
    flags = ["--workers", "0", "--no-progress", "--max-steps", "2", "--batch-size", "4"]
    out = tmp_path / "run"
    status, printed, err = run_command(
        *("fit", tmp_path / "street", "--recipe", "segmentation", "--init-from", run),
        *("--out", out, *flags),
    )
    assert status == 0, err
    taken = json.loads((out / "init.json").read_text())["taken"]
    assert any(weight.startswith("encoder.blocks.") for weight in taken)
    assert "Began from the weights" in printed + err


@pytest.mark.parametrize(
    "flags",
    [
        ("--freeze", "encoder", "--cache-latents", "1"),
        ("--lora", "2"),
        ("--lr-scale", "encoder:0.1"),
    ],
)
def test_parts_are_frozen_cached_and_updated(photos, tmp_path, flags):
    data, run = photos
    common = ["--workers", "0", "--no-progress", "--max-steps", "2", "--batch-size", "4"]
    status, printed, err = run_command(
        "fit", data, "--init-from", run, "--folds", "1", *common, *flags, "--out", tmp_path / "a"
    )
    assert status == 0, err
    assert "Began from the weights" in printed + err


def test_vectors_are_embedded_and_probed(photos):
    data, run = photos
    found = pv.probe(run, data)
    assert found.main_metric in found.metrics["validation"]
    assert len(pv.load(run).embed(next(data.rglob("*.png"))).names) == 1
