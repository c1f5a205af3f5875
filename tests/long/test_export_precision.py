"""Real exports of reduced precision, for OpenVINO and for Triton, and the benchmark of them."""

import json
import re
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from perceivers import benchmark
from perceivers.cli.main import main
from perceivers.exporting import formats
from perceivers.exporting.graph import build_graph
from perceivers.hub.checkpoint import load, save
from perceivers.models.perceiver import build
from support import modality_data as made
from support.cli import launch, run_command
from support.models import save_untrained

PBTXT_TYPES = {
    "TYPE_FP32": onnx.TensorProto.FLOAT,
    "TYPE_UINT8": onnx.TensorProto.UINT8,
    "TYPE_INT64": onnx.TensorProto.INT64,
    "TYPE_BOOL": onnx.TensorProto.BOOL,
}
V2_TYPES = {"FP32": np.float32, "UINT8": np.uint8, "INT64": np.int64, "BOOL": np.bool_}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run of points whose latents are wide enough for weights to be most of a file."""
    folder = save_untrained(tmp_path_factory.mktemp("precision") / "run", "points")
    saved = load(folder)
    encoder = replace(
        saved.config.model.encoder,
        latent_channels=256,
        num_blocks=2,
        num_cross_attends=1,
        share_blocks=True,
    )
    model = build(replace(saved.config.model, encoder=encoder))
    torch.nn.init.normal_(model.output.to_logits.weight, std=0.1)
    config = saved.config
    save(folder, model, preprocess=config.preprocess, task=config.task, columns=config.columns)
    return folder


@pytest.fixture(scope="module", autouse=True)
def traced(run):
    """Trace once for all exports: that is most of the time."""
    program = formats.trace(build_graph(load(run)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "trace", lambda graph: program)
        patch.setattr(benchmark, "trace", lambda graph: program)
        yield


def written(run, form, precision):
    """Export the run and return the folder and its manifest."""
    out = run.parent / f"{form}-{precision}"
    flags = ("--format", form, "--precision", precision, "--out", out)
    status, printed, err = run_command("export", run, *flags)
    assert (status, err) == (0, "")
    assert printed.splitlines()[-1].startswith("largest difference to the model: ")
    return out, json.loads((out / "preprocess.json").read_text())


def test_files_shrink_with_the_precision(run):
    sizes = {}
    for precision in ("float32", "float16", "int8"):
        out, manifest = written(run, "onnx", precision)
        sizes[precision] = (out / "model.onnx").stat().st_size
        checked = manifest["checked"]
        assert checked["largest_difference"] <= checked["tolerance"]
    weights = sum(4 * one.numel() for one in load(run).model.parameters())
    assert sizes["float32"] < 1.1 * weights  # weights that layers share are stored once
    assert sizes["float16"] < 0.6 * sizes["float32"]
    assert sizes["int8"] < 0.4 * sizes["float32"]
    # Inputs and outputs keep their types, and no path of a source file is left.
    whole, half = (
        onnx.load(str(run.parent / f"onnx-{one}" / "model.onnx")) for one in ("float32", "float16")
    )
    for mine, other in (
        (whole.graph.input, half.graph.input),
        (whole.graph.output, half.graph.output),
    ):
        assert [one.type for one in mine] == [one.type for one in other]
    assert b"perceivers/" not in whole.SerializeToString()


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_openvino_predicts_without_perceivers(run, precision, tmp_path):
    pytest.importorskip("openvino")
    out, _ = written(run, "openvino", precision)
    answer_without_perceivers(out, tmp_path)


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_reduced_precision_predicts_without_perceivers(run, precision, tmp_path):
    out, _ = written(run, "onnx", precision)
    answer_without_perceivers(out, tmp_path)


def answer_without_perceivers(out, folder):
    np.save(folder / "a.npy", made.points(0, 1))
    said = json.loads(launch(sys.executable, out / "predict.py", folder / "a.npy"))
    assert sum(said["probabilities"].values()) == pytest.approx(1, abs=1e-3)


def test_the_configuration_for_triton_fits_the_model(run):
    out, _ = written(run, "triton", "float16")
    model = onnx.load(str(out / "1" / "model.onnx"))
    text = (out / "config.pbtxt").read_text()
    assert f'name: "{out.name}"' in text
    pattern = r'name: "(\w+)"\s+data_type: (\w+)\s+dims: \[ ([-0-9, ]+) \]'
    found = {name: (kind, dims) for name, kind, dims in re.findall(pattern, text)}
    values = [*model.graph.input, *model.graph.output]
    assert set(found) == {one.name for one in values}
    for one in values:
        kind, dims = found[one.name]
        tensor = one.type.tensor_type
        assert PBTXT_TYPES[kind] == tensor.elem_type
        batch, *shape = tensor.shape.dim
        assert batch.dim_param == "batch"
        assert [int(size) for size in dims.split(",")] == [size.dim_value or -1 for size in shape]
    # The request gives the response that is stored with it.
    request = json.loads((out / "request.json").read_text())
    feed = {
        one["name"]: torch.from_numpy(
            np.array(one["data"], V2_TYPES[one["datatype"]]).reshape(one["shape"])
        )
        for one in request["inputs"]
    }
    answer = formats.open_onnx(out / "1" / "model.onnx")(feed)
    for one in json.loads((out / "response.json").read_text())["outputs"]:
        assert answer[one["name"]].ravel().tolist() == pytest.approx(one["data"], abs=1e-4)


def test_the_configuration_is_valid_for_triton(run):
    config = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    from google.protobuf import text_format

    out, _ = written(run, "triton", "float32")
    found = text_format.Parse((out / "config.pbtxt").read_text(), config.ModelConfig())
    assert found.platform == "onnxruntime_onnx"


def test_the_benchmark_measures_real_exports(run, capsys):
    given = [str(run.parent / f"onnx-{one}") for one in ("float32", "int8")]
    for one in ("float32", "int8"):
        written(run, "onnx", one)
    flags = ["--seconds", "0", "--batch-size", "2", "--threads", "1"]
    assert main(["benchmark", str(run), "--exports", *given, *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["PyTorch", "onnx-float32", "onnx-int8"]
    assert main(["benchmark", str(run), *flags]) == 0
    assert "onnx float16" in capsys.readouterr().out
