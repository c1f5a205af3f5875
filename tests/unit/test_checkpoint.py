"""Saved models: what is written is what is read, and nothing else is believed."""

import json
import pickle
import resource
import subprocess
import sys

import pytest
import torch

from perceivers.data.modalities.image.modality import ImagePreprocessConfig
from perceivers.hub import checkpoint
from perceivers.hub.quantize import Int8Linear
from perceivers.inputs.image import PixelInputConfig
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.outputs.heads import MeanPoolConfig
from perceivers.tasks.classification import ClassificationConfig
from support.models import tiny_encoder

CONFIG = PerceiverConfig(
    inputs={"image": PixelInputConfig(size=(4, 4))},
    encoder=tiny_encoder(num_latents=3, latent_channels=8, num_cross_attends=2, num_blocks=2),
    output=MeanPoolConfig(num_outputs=2),
)
PREPROCESS = {"image": ImagePreprocessConfig.imagenet(size=(4, 4), mean=(0.1, 0.2, 0.3))}
TASK = ClassificationConfig(label_names=("ant", "bee"))


@pytest.fixture
def model():
    model = build(CONFIG)
    torch.nn.init.normal_(model.output.to_logits.weight)
    return model.eval()


@pytest.fixture
def folder(tmp_path, model):
    checkpoint.save(
        tmp_path / "run", model, preprocess=PREPROCESS, task=TASK, columns={"data": "birds"}
    )
    return tmp_path / "run"


def test_loading_draws_no_random_numbers_and_leaves_other_models_alone(folder):
    state = torch.get_rng_state()
    saved = checkpoint.load(folder)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.device.type == "cpu" and p.requires_grad for p in saved.model.parameters())
    assert torch.nn.Linear(2, 2).weight.device.type == "cpu"


def test_constants_that_are_not_saved_are_computed(folder, monkeypatch):
    def build_scaled(config):
        """Return a model with a constant that is neither saved nor on a fixed device."""
        model = build(config)
        model.inputs["image"].register_buffer("scale", torch.arange(1.0, 3.0), persistent=False)
        return model

    monkeypatch.setattr(checkpoint, "build", build_scaled)
    assert checkpoint.load(folder).model.inputs["image"].scale.tolist() == [1.0, 2.0]


def test_int8_weights_are_not_saved(tmp_path, model):
    model.encoder.blocks[0][0].mlp[0] = Int8Linear(model.encoder.blocks[0][0].mlp[0])
    with pytest.raises(ValueError, match="Load it again without quantize, and save that"):
        checkpoint.save(tmp_path / "int8", model)
    assert not (tmp_path / "int8").exists()


def test_what_is_saved_is_loaded(folder, model):
    saved = checkpoint.load(folder)
    image = {"image": torch.randn(2, 3, 4, 4)}
    assert torch.equal(saved.model(image), model(image))
    assert not saved.model.training
    assert saved.config == checkpoint.SavedConfig(
        model=CONFIG, preprocess=PREPROCESS, task=TASK, columns={"data": "birds"}
    )
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_a_compiled_model_is_saved_under_its_own_names(tmp_path, model):
    wrapped = torch.compile(model)
    checkpoint.save(tmp_path, wrapped)
    assert torch.equal(checkpoint.load(tmp_path).model.encoder.latents, model.encoder.latents)


def test_a_folder_that_is_no_run_says_so(tmp_path):
    with pytest.raises(OSError, match=r"is not a run folder: it has no config.json"):
        checkpoint.load(tmp_path)


def test_a_file_instead_of_a_folder_says_so(folder):
    with pytest.raises(OSError, match=r"is a file. Expected a run folder with config.json"):
        checkpoint.load(folder / "model.safetensors")


def test_what_does_not_exist_says_so():
    with pytest.raises(OSError, match=r"./nowhere does not exist. Expected a run folder"):
        checkpoint.load("./nowhere")


def test_a_model_on_the_hub_is_downloaded(folder, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(folder))
    assert checkpoint.load("somebody/birds").folder == folder


def test_a_model_missing_on_the_hub_says_so(monkeypatch):
    import huggingface_hub

    def offline(name, **_):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    message = r"no folder somebody/birds, and .* Hugging Face hub either: no route\. "
    with pytest.raises(OSError, match=message):
        checkpoint.load("somebody/birds")


def test_truncated_weights_are_a_clear_error(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(
        OSError, match=r"model.safetensors cannot be read as safetensors .*truncated"
    ):
        checkpoint.load(folder)


def test_missing_weights_name_the_way_on(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"has no model.safetensors.*fit --resume"):
        checkpoint.load(folder)


def test_a_config_with_an_unknown_key_is_refused(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["model"]["encoder"]["num_latent"] = 3
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config.json is not a configuration.*num_latent"):
        checkpoint.load(folder)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"at the file: Invalid JSON"):
        checkpoint.load(folder)


def test_a_run_of_version_0_1_is_refused(folder):
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 1'))
    with pytest.raises(
        ValueError, match=r"by perceivers 0.1: expected format 2, got 1. Train again"
    ):
        checkpoint.load(folder)


def test_weights_of_another_model_are_refused(folder):
    path = folder / "config.json"
    text = path.read_text()
    path.write_text(text.replace('"num_latents": 3', '"num_latents": 5'))
    message = r"do not fit its config.json: encoder.latents is \(3, 8\), expected \(5, 8\)"
    with pytest.raises(ValueError, match=message):
        checkpoint.load(folder)
    path.write_text(text.replace('"all_but_first"', '"all"'))
    with pytest.raises(ValueError, match=r"not part of the model.*\(and \d+ more\)"):
        checkpoint.load(folder)
    path.write_text(
        text.replace('"all_but_first"', '"none"').replace('_blocks": true', '_blocks": false')
    )
    with pytest.raises(ValueError, match=r"is missing"):
        checkpoint.load(folder)


def test_a_plain_pickle_of_tensors_is_read_by_the_restricted_loader(folder, model):
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    assert torch.equal(checkpoint.load(folder).model.encoder.latents, model.encoder.latents)


class Evil:
    def __reduce__(self):
        return print, ("this code ran",)


def test_a_pickle_that_would_run_code_is_refused(folder, capsys):
    (folder / "model.safetensors").unlink()
    (folder / "model.pt").write_bytes(pickle.dumps({"x": Evil()}, protocol=2))
    with pytest.raises(ValueError, match=r"was refused.*could run code"):
        checkpoint.load(folder)
    torch.save([1, 2], folder / "model.pt")
    with pytest.raises(ValueError, match=r"does not hold weights by name"):
        checkpoint.load(folder)
    assert "this code ran" not in capsys.readouterr().out


def test_a_full_disk_leaves_the_old_file_and_no_rubbish(folder):
    before = (folder / "model.safetensors").read_bytes()
    program = f"""
import resource, signal, sys
import torch
from perceivers.hub import checkpoint
model = checkpoint.load({str(folder)!r}).model
torch.nn.init.ones_(model.encoder.latents)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, {resource.RLIM_INFINITY}))
try:
    checkpoint.save({str(folder)!r}, model)
except OSError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "Could not write" in run.stdout
    assert "The previous file is unchanged." in run.stdout
    assert (folder / "model.safetensors").read_bytes() == before
    assert len(list(folder.iterdir())) == 2


def test_from_pretrained_gives_the_module_alone(folder):
    model = checkpoint.from_pretrained(folder)
    assert isinstance(model, torch.nn.Module)
    assert not model.training
