"""Real exports: what onnxruntime and torch.export say of files, in a process that has no perceivers."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from perceivers.cli.main import main
from perceivers.evaluation.predict import load_predictor
from perceivers.exporting import formats
from perceivers.exporting.graph import build_graph
from perceivers.exporting.verify import compare, make_reference
from perceivers.hub.checkpoint import load, save
from perceivers.models.perceiver import build
from support import modality_data as made
from support.files import write_wav
from support.models import save_untrained

KINDS = ("audio", "image", "points")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run of pictures, sounds and points whose model is as small as it can be: exporters take long."""
    folder = save_untrained(tmp_path_factory.mktemp("export") / "run", *KINDS)
    saved = load(folder)
    encoder = replace(saved.config.model.encoder, num_blocks=1, num_cross_attends=1)
    model = build(replace(saved.config.model, encoder=encoder))
    torch.nn.init.normal_(model.output.to_logits.weight)
    config = saved.config
    save(folder, model, preprocess=config.preprocess, task=config.task, columns=config.columns)
    return folder


@pytest.fixture(scope="module")
def files(run):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(run.parent / "a.png")
    write_wav(run.parent / "a.wav", made.tone(0, 1))
    np.save(run.parent / "a.npy", made.points(0, 1))
    names = {"image": "a.png", "audio": "a.wav", "points": "a.npy"}
    return {name: str(run.parent / file) for name, file in names.items()}


def says(folder, files):
    """Return what predict.py says where importing perceivers is an error."""
    block = folder.parent / "block"
    block.mkdir(exist_ok=True)
    (block / "sitecustomize.py").write_text("import sys\nsys.modules['perceivers'] = None\n")
    words = ",".join(f"{name}={file}" for name, file in files.items())
    done = subprocess.run(
        [sys.executable, str(folder / "predict.py"), words],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
        env={"PYTHONPATH": str(block), "OMP_NUM_THREADS": "1"},
    )
    return json.loads(done.stdout)["probabilities"]


def test_onnx_and_torch_export_predict_without_perceivers(run, files, capfd, monkeypatch):
    # Traced once for both: that is most of the time.
    program = formats.trace(build_graph(load(run)))
    monkeypatch.setattr(formats, "trace", lambda graph: program)
    predictor = load_predictor(run, device="cpu")
    for form, model in (("onnx", "model.onnx"), ("torch", "model.pt2")):
        out = run.parent / form
        words = ",".join(f"{name}={file}" for name, file in files.items())
        assert (
            main(["export", str(run), "--format", form, "--out", str(out), "--samples", words]) == 0
        )
        printed = capfd.readouterr()
        assert printed.err == ""
        lines = printed.out.splitlines()
        assert lines[0] == f"{out} holds {model}, predict.py, preprocess.json."
        assert lines[-1].startswith("largest difference to the model: ")
        told = json.loads((out / "preprocess.json").read_text())
        assert told["checked"]["largest_difference"] < 1e-4
        some = files if form == "onnx" else {"points": files["points"]}
        (expected,) = predictor.predict(some)
        assert says(out, some) == pytest.approx(expected.probabilities, abs=1e-4)
    check_other_shapes(run)


def check_other_shapes(run):
    """Compare with another batch and another number of points than were traced."""
    saved = load(run)
    graph = build_graph(saved)
    reference = make_reference(saved, graph)
    longer = {
        name: tensor[:1].repeat(5, *[1] * (tensor.ndim - 1))
        for name, tensor in reference.inputs.items()
    }
    for name in ("points", "points_mask"):
        longer[name] = longer[name][:, :7]
    with torch.inference_mode():
        reference = replace(reference, inputs=longer, outputs=graph(longer))
    assert compare(reference, formats.open_onnx(run.parent / "onnx" / "model.onnx")).fits
    assert compare(reference, formats.open_program(run.parent / "torch" / "model.pt2")).fits
