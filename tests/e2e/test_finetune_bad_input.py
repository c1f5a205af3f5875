"""Sources and settings of fine-tuning that are wrong: one paragraph, status 1, and nothing is written or lost."""

import json
import shutil

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from perceivers.training.latent_cache import FOLDER
from support.cli import run_command
from support.published import make_data, make_images, save_published
from support.runs import save_run

pytest.importorskip("transformers")

FLAGS = [
    *("--max-steps", "1", "--batch-size", "4", "--workers", "0"),
    *("--no-progress", "--no-baseline"),
]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Return a function that gives the folder of a published model and its data; each is made once."""
    folder, known = tmp_path_factory.mktemp("sources"), {}

    def made(name):
        if name not in known:
            source = save_published(name, folder / name)
            known[name] = source, make_data(name, folder / f"{name} data")
        return known[name]

    return made


def refused(data, source, folder, *flags):
    """Return the message with which fine-tuning is refused, before anything was written."""
    out = folder / "run"
    status, _, err = run_command("fit", data, "--init-from", source, "--out", out, *FLAGS, *flags)
    message = err.strip().splitlines()[-1]
    assert status == 1
    assert message.startswith("perceivers fit: ")
    assert "Traceback" not in err
    assert not out.exists()
    return message


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("learned", "language", "reads image, but the data hold text"),
        ("language", "learned", "reads text, but the data hold image"),
        ("flow", "language", "reads frame_pair, flow, but the data hold text"),
        ("multimodal", "learned", "reads audio, video, but the data hold image"),
        ("learned", "flow", "reads image, but the data hold frame_pair, flow"),
    ],
)
def test_a_source_of_other_modalities(sources, tmp_path, name, data, told):
    message = refused(sources(data)[1], sources(name)[0], tmp_path)
    assert told in message
    assert "Expected data of modalities that the model reads" in message


def changed_config(folder, **changes):
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | changes))


def bert(folder):
    changed_config(folder, architectures=["BertForMaskedLM"], model_type="bert")


def base_model(folder):
    changed_config(folder, architectures=None, model_type="bert")


def random_folder(folder):
    (folder / "config.json").unlink()


def foreign_config(folder):
    (folder / "config.json").write_text('{"learning_rate": 1}')


def truncated(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:9_000])


def corrupt(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:20] + b"\xff" * 40 + path.read_bytes()[60:])


def empty(folder):
    (folder / "model.safetensors").write_bytes(b"")


def pointer(folder):
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"
    (folder / "model.safetensors").write_text(text)


def without_weights(folder):
    (folder / "model.safetensors").unlink()


def no_json(folder):
    (folder / "config.json").write_text("{no")


def no_text(folder):
    (folder / "config.json").write_bytes(b"\xff\xfe\x00{")


def text_for_a_number(folder):
    changed_config(folder, num_latents="six")


def other_classes(folder):
    changed_config(folder, id2label={"0": "a", "1": "b"})


def names_without_numbers(folder):
    changed_config(folder, id2label={f"x{n}": "a" for n in range(10)})


def crop_of_nothing(folder):
    (folder / "preprocessor_config.json").write_text('{"crop_size": 0}')


def mean_of_text(folder):
    (folder / "preprocessor_config.json").write_text('{"image_mean": 3}')


def list_for_index(folder):
    (folder / "model.safetensors.index.json").write_text('{"weight_map": ["a"]}')


def number_for_file(folder):
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": 3}}')


def missing_part(folder):
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "b.safetensors"}}')


def not_finite(folder):
    weights = load_file(folder / "model.safetensors")
    weights["perceiver.embeddings.latents"][0, 0] = torch.nan
    save_file(weights, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (bert, "architecture out of PerceiverForImage"),
        (base_model, "got bert"),
        (random_folder, "has no config.json. Expected a run folder"),
        (foreign_config, "is not a configuration of perceivers: it has no key 'model'"),
        (truncated, "cannot be read as safetensors"),
        (corrupt, "cannot be read as safetensors"),
        (empty, "cannot be read as safetensors"),
        (pointer, "is a pointer of Git LFS, not the weights. Fetch them: `git lfs pull`"),
        (without_weights, "has no model.safetensors. Copy it there, or"),
        (no_json, "is not JSON"),
        (no_text, "is not JSON"),
        (text_for_a_number, "expected num_latents of type int, got 'six'"),
        (other_classes, "do not fit its config.json"),
        (names_without_numbers, "holds a value from which no model can be built"),
        (crop_of_nothing, "preprocessor_config.json has a size of 0 pixels"),
        (mean_of_text, "holds a value from which no model can be built"),
        (list_for_index, "names no files of weights"),
        (number_for_file, "names no files of weights"),
        (missing_part, "has no b.safetensors"),
        (not_finite, "are not finite: encoder.latents holds NaN or infinity"),
    ],
)
def test_a_damaged_source(sources, tmp_path, change, told):
    source, data = sources("learned")
    broken = shutil.copytree(source, tmp_path / "broken")
    change(broken)
    message = refused(data, broken, tmp_path)
    assert told in message
    assert str(broken) in message or change in (bert, base_model)


@pytest.mark.parametrize("change", [truncated, corrupt, no_json, no_text, without_weights])
def test_a_damaged_run(tmp_path, change):
    data = make_images(tmp_path / "images")
    run = save_run(tmp_path / "source")
    change(run)
    assert str(run) in refused(data, run, tmp_path)


def test_a_path_that_is_no_folder(sources, tmp_path):
    source, data = sources("learned")
    weights = source / "model.safetensors"
    assert f"Give the folder that it is in: {source}." in refused(data, weights, tmp_path)
    assert "does not exist" in refused(data, tmp_path / "a" / "b" / "c", tmp_path)
    assert "is a file" in refused(data, __file__, tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        OSError("401 Client Error. (Request ID: 1)\n\nCannot access gated repo"),
        ConnectionError("Name or service not known"),
        huggingface_hub.errors.LocalEntryNotFoundError("offline"),
        RuntimeError(),
    ],
    ids=["gated", "no network", "offline", "no message"],
)
def test_the_hub_cannot_be_reached(sources, tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    name = "deepmind/vision-perceiver-conv"
    message = refused(sources("learned")[1], name, tmp_path)
    assert f"`hf download {name} --local-dir vision-perceiver-conv` on another machine" in message
    assert "`hf auth login`" in message
    assert (str(error).splitlines() or [type(error).__name__])[0].rstrip(".") in message


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--freeze", "encoder", "output"), "nothing is left to train"),
        (("--freeze", "all-but"), "name of a part after all-but"),
        (("--freeze", "encoder.blok"), "Did you mean 'encoder.blocks'?"),
        (("--freeze", "encoder", "output", "--cache-latents", "1"), "nothing is left to train"),
        (("--cache-latents", "1"), "Expected a frozen encoder"),
        (("--lora", "4", "--freeze", "encoder"), "expected no --freeze"),
        (("--lr-scale", "encoder.blok:0.1"), "Did you mean 'encoder.blocks'?"),
        (("--size", "small"), "expected no --size, got small"),
        (("--recipe", "images"), "do not fit the model of this recipe"),
    ],
)
def test_settings_that_do_not_fit(sources, tmp_path, flags, told):
    source, data = sources("learned")
    assert told in refused(data, source, tmp_path, *flags)


def test_latents_of_flow_cannot_be_cached(sources, tmp_path):
    source, data = sources("flow")
    flags = ("--freeze", "encoder", "--cache-latents", "1")
    assert "also depend on the input elements" in refused(data, source, tmp_path, *flags)


def test_latents_of_other_weights_or_damaged_ones_are_computed_again(sources, tmp_path):
    source, data = sources("learned")
    cache = tmp_path / "cache"
    flags = [*FLAGS, "--freeze", "encoder", "--cache-latents", "1", "--cache", cache]

    def report(init_from, out):
        args = ("fit", data, "--init-from", init_from, "--out", tmp_path / out, *flags)
        status, _, err = run_command(*args)
        assert status == 0, err
        return (tmp_path / out / "report.md").read_text()

    assert "24 samples computed, in" in report(source, "one")
    assert "Latents of the frozen encoder: read, in" in report(source, "two")
    other = shutil.copytree(source, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["perceiver.embeddings.latents"] += 1
    save_file(weights, other / "model.safetensors")
    again = report(other, "three")
    assert "24 samples computed, in" in again
    assert "2 files of other data, settings or weights there are not used." in again
    for path in (cache / FOLDER).iterdir():
        path.write_bytes(path.read_bytes()[:50])
    assert "A file of them was damaged and is written again." in report(source, "four")


def test_a_run_that_diverged_is_started_again_in_its_folder_with_its_latents(sources, tmp_path):
    source, data = sources("learned")
    out = tmp_path / "run"
    args = ("fit", data, "--init-from", source, "--out", out, *FLAGS)
    args = (*args, "--freeze", "encoder", "--cache-latents", "1", "--max-steps", "8")
    status, _, err = run_command(*args, "--optim.lr", "1e37")
    assert status == 1
    assert "The run has diverged" in err
    latents = {path: path.stat().st_mtime_ns for path in (out / FOLDER).iterdir()}
    status, _, err = run_command(*args)
    assert status == 0, err
    assert {path: path.stat().st_mtime_ns for path in (out / FOLDER).iterdir()} == latents
