"""The six published models, small: fine-tuned by one command, then used by every other command."""

import json

import pytest
from starlette.testclient import TestClient

from perceivers.server.access import AccessRules
from perceivers.server.app import create_app
from perceivers.server.service import Service
from perceivers.server.settings import ServerSettings
from support.cli import predict_rows, run_command
from support.published import PUBLISHED, make_data, save_published

pytest.importorskip("transformers")
pytest.importorskip("av")

FLAGS = [
    *("--max-steps", "2", "--batch-size", "4", "--workers", "0"),
    *("--no-progress", "--no-baseline"),
]
# Flags that change the size of the model's input from that of the published model.
SIZES = {
    "fourier": ("--inputs.image.size", "33", "18"),
    "learned": ("--inputs.image.size", "12", "20"),
    "conv": ("--inputs.image.size", "31", "18"),
    "language": ("--inputs.text.max-length", "100"),
    "flow": ("--inputs.frame_pair.size", "24", "32"),
    "multimodal": ("--inputs.video.size", "24", "20"),
}
NAMES = [
    pytest.param(name, marks=pytest.mark.quick if name == "language" else ()) for name in PUBLISHED
]


def done(*args):
    """Run a command that must succeed, and return its output."""
    status, out, err = run_command(*args)
    assert status == 0, f"{args}: {err}"
    assert "Traceback" not in err
    return out


def samples(name, data):
    """Return the arguments of a sample, and the files of a request for it."""
    if name == "language":
        return ("--text", "one more text"), {"text": (None, "one more text")}
    if name == "flow":
        frames = {end: data / f"00000_{file}.ppm" for end, file in FRAMES.items()}
        return (data,), {end: (path.name, path.read_bytes()) for end, path in frames.items()}
    file = next(path for path in sorted(data.rglob("*")) if path.is_file())
    kind = "video" if name == "multimodal" else "image"
    return (file,), {kind: (file.name, file.read_bytes())}


FRAMES = {"first": "img1", "second": "img2"}


def served(run, files):
    """Return the answers of a server of a run to a prediction and an explanation."""
    app = create_app(
        Service(ServerSettings(str(run), device="cpu")),
        token=None,
        access=AccessRules(hosts=frozenset(("localhost",)), origins=frozenset()),
    )
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        answers = [client.post(route, files=files) for route in ("/predict", "/explain")]
    for answer in answers:
        assert answer.status_code == 200, answer.text
    return [answer.json() for answer in answers]


@pytest.mark.parametrize("name", NAMES)
def test_a_published_model_is_fine_tuned_and_used(tmp_path, name):
    pytest.importorskip("fastapi")
    source, data = save_published(name, tmp_path / "source"), make_data(name, tmp_path / "data")
    run = tmp_path / "run"
    done("fit", data, "--init-from", source, "--out", run, *FLAGS, *SIZES[name])
    start = json.loads((run / "init.json").read_text())
    assert not {key for key in start["fresh"] if not key.startswith("output.")}
    assert not start["other_settings"]
    assert "samples" in done("evaluate", run)
    sample, files = samples(name, data)
    (row, *_) = predict_rows(run, *sample)
    if name != "flow":
        assert row["label"] in {"a", "b", "c", "good", "bad", "clap", "wave"}
    for end in ("png", "html"):
        path = tmp_path / f"attention.{end}"
        done("explain", run, *sample, "--out", path)
        assert path.stat().st_size > 1000
    out = done("export", run, "--format", "torch", "--out", tmp_path / "export")
    assert float(out.rpartition("largest difference to the model: ")[2].partition(",")[0]) < 1e-3
    predicted, explained = served(run, files)
    assert predicted["answers"][0].get("label") == row.get("label")
    assert explained["views"]


@pytest.mark.parametrize("name", NAMES)
def test_a_converted_model_has_a_recipe_for_fine_tuning(tmp_path, name):
    source, data = save_published(name, tmp_path / "source"), make_data(name, tmp_path / "data")
    run = tmp_path / "converted"
    done("convert", source, "--out", run)
    assert done("info", run)
    recipe = run / "recipe.yaml"
    done("fit", data, "--recipe", recipe, "--init-from", run, "--out", tmp_path / "tuned", *FLAGS)
    start = json.loads((tmp_path / "tuned" / "init.json").read_text())
    names = ("output.heads.", "fusion.modality_embeddings.label")
    assert not {key for key in start["fresh"] if not key.startswith(names)}
    done("evaluate", tmp_path / "tuned")
    status, _, err = run_command("fit", data, "--out", run, *FLAGS)
    assert (status, "already holds a run" in err) == (1, True)
