"""Hierarchical Perceivers from data to predictions, explanations, exports, servers and fine-tuned runs."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from perceivers.cli.main import main
from perceivers.exporting.export import export
from perceivers.hub.checkpoint import load
from perceivers.models.hip_encoder import ElementDecoderConfig, ElementOutputConfig, HiPEncoder
from perceivers.recipes.files import read_recipe
from perceivers.recipes.hip import own_hip
from perceivers.recipes.registry import get_recipe
from perceivers.training.fit import fit
from support.modality_data import make_audio, make_meshes, make_mixed, make_texts
from support.runs import make_image_folder

SHORT = {
    "training.max_steps": 3,
    "training.batch_size": 4,
    "data.workers": 0,
    "training.baseline": False,
    "training.progress": False,
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_image_folder(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hip") / "run"
    fit(images, "hip", out=folder, **SHORT)
    return folder


def test_one_encoder_for_images_audio_and_points(run, tmp_path):
    encoders = [read_recipe(run / "recipe.yaml").encoder]
    for name, make in (("audio", make_audio), ("points", make_meshes)):
        folder = tmp_path / name
        fit(make(tmp_path / f"{name}-data"), "hip", out=folder, **SHORT)
        assert load(folder).config.model.inputs.keys() == {name}
        encoders.append(read_recipe(folder / "recipe.yaml").encoder)
    assert encoders[0] == encoders[1] == encoders[2]


def test_modalities_together_some_of_which_are_missing(tmp_path, capsys):
    data = make_mixed(tmp_path / "data")
    fit(data, "hip", out=tmp_path / "run", **SHORT)
    saved = load(tmp_path / "run")
    assert len(saved.config.model.inputs) > 1
    assert isinstance(saved.model.encoder, HiPEncoder)
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_samples"] > 0


def test_a_run_is_used_as_any_other(run, images, tmp_path, capsys):
    file = next(images.rglob("*.png"))
    assert main(["predict", str(run), str(file), "--format", "json"]) == 0
    assert main(["explain", str(run), str(file), "--out", str(tmp_path / "map.png")]) == 0
    assert (tmp_path / "map.png").exists()
    assert main(["info", str(run)]) == 0
    assert "grouped" in capsys.readouterr().out


def test_a_run_is_exported(run, tmp_path):
    export(run, tmp_path / "exported")
    assert (tmp_path / "exported" / "model.onnx").exists()


def test_a_run_is_fine_tuned_by_low_rank_updates(run, images, tmp_path):
    options = {"training.lora": 2}
    fit(images, init_from=run, out=tmp_path / "tuned", **SHORT, **options)
    before, after = load(run).model.state_dict(), load(tmp_path / "tuned").model.state_dict()
    assert before.keys() == after.keys()
    name = "encoder.trunk.blocks.0.cross_attend.attention.to_query.weight"
    assert not torch.equal(before[name], after[name])
    other = "encoder.trunk.positions.image"
    assert torch.equal(before[other], after[other])


@pytest.mark.parametrize("output", ["decoder", "elements"])
def test_masked_bytes_are_learned_filled_and_explained(output, tmp_path, capsys):
    recipe = replace(get_recipe("mlm_bytes", size="tiny"), encoder=own_hip("tiny"), init="papers")
    if output == "elements":
        text = ElementOutputConfig(modality="text", num_outputs=262, follows_input=True)
        recipe = replace(
            recipe,
            encoder=replace(recipe.encoder, latents="last"),
            output=ElementDecoderConfig(outputs={"text": text}),
        )
    (tmp_path / "data").mkdir()
    folder = tmp_path / "run"
    fit(make_texts(tmp_path / "data"), recipe, out=folder, **SHORT)
    capsys.readouterr()
    assert main(["evaluate", str(folder), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["hidden"] > 0
    blank = tmp_path / "blank.txt"
    blank.write_text("the [MASK][MASK][MASK] sat on it")
    assert main(["predict", str(folder), str(blank), "--format", "json"]) == 0
    assert main(["explain", str(folder), str(blank), "--out", str(tmp_path / "map.npz")]) == 0
    arrays = dict(np.load(tmp_path / "map.npz"))
    assert all(
        np.isfinite(one).all() for one in arrays.values() if one.dtype.kind == "f" and one.size
    )
