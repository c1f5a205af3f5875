"""Precisions of exports, their comparison, and files for Triton."""

import json
import re

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from perceivers.exporting import export as exporting
from perceivers.exporting import precision, triton
from perceivers.exporting.verify import Difference, Reference, compare
from perceivers.hub.checkpoint import load
from support.models import save_untrained, tiny_model
from support.runs import save_run
from support.scripts import export_quickly


def reference(**outputs):
    count = len(next(iter(outputs.values())))
    return Reference(inputs={"x": torch.arange(count)}, outputs=outputs, samples="these")


def answer(**outputs):
    """Return a model that returns these rows for the inputs of `reference`."""
    return lambda inputs: {name: one[inputs["x"]] for name, one in outputs.items()}


class TestComparison:
    def test_reduced_precision_is_compared_by_probabilities_and_best_labels(self):
        expected = torch.tensor([[0.6, 0.4], [0.51, 0.49], [0.1, 0.9]])
        actual = torch.tensor([[0.6, 0.4], [0.49, 0.51], [0.1, 0.9]])
        logits = torch.zeros(3, 2)
        run = answer(probabilities=actual, logits=logits + 5)  # whose differences do not count
        found = compare(reference(probabilities=expected, logits=logits), run, "float16")
        assert found.largest == pytest.approx(0.02, abs=1e-6)
        assert (found.same_top, found.answers) == (2, 3)
        text = "2.0e-02 of a probability and the same best label in 2 of 3 answers, on these"
        assert found.sentence() == text

    def test_outputs_without_probabilities_are_compared_relative_to_the_largest(self):
        expected = torch.tensor([[200.0], [0.0]])
        run = answer(logits=expected + 1, values=expected * 7)
        found = compare(reference(logits=expected, values=expected), run, "int8")
        # The row alone is compared, too.
        assert found.largest == pytest.approx(1 / 200)
        assert found.sentence() == "5.0e-03 of the largest output, on these"

    def test_every_row_is_compared(self):
        expected = torch.zeros(11, 2)
        actual = expected.clone()
        actual[10, 1] = 0.5
        found = compare(reference(logits=expected), answer(logits=actual))
        assert found.largest == 0.5

    @pytest.mark.parametrize(
        ("name", "fits", "not_fits"),
        [("float32", 1e-4, 2e-4), ("float16", 0.02, 0.03), ("int8", 0.1, 0.11)],
    )
    def test_each_precision_has_a_tolerance(self, name, fits, not_fits):
        assert Difference(largest=fits, samples="", precision=name).fits
        assert not Difference(largest=not_fits, samples="", precision=name).fits


class TestFormats:
    @pytest.mark.parametrize(
        ("form", "name", "expected"),
        [
            ("tflite", "float32", "Expected format to be one of onnx, openvino, triton"),
            ("onnx", "half", "Expected precision to be one of float32, float16, int8; got 'half'"),
            (
                "huggingface",
                "int8",
                "huggingface is not written in int8. Choose the format onnx or",
            ),
            ("openvino", "int8", "or the precision float32 or float16"),
        ],
    )
    def test_unknown_combinations_are_refused(self, form, name, expected):
        with pytest.raises(ValueError, match=re.escape(expected)):
            exporting.check_format(form, name)

    def test_a_model_far_off_is_refused_with_its_tolerance(self, tmp_path, monkeypatch):
        export_quickly(monkeypatch)
        far = Difference(largest=0.5, samples="these", precision="int8", same_top=1, answers=4)
        monkeypatch.setattr(exporting, "compare", lambda *_: far)
        sentence = r"5\.0e-01 of a probability .* 1 of 4 answers, on these; at most 0\.1 is allowed in int8"
        with pytest.raises(RuntimeError, match=sentence):
            exporting.export(save_run(tmp_path / "run"), tmp_path / "out", precision="int8")
        assert not (tmp_path / "out").exists()

    def test_the_manifest_has_the_precision_and_a_note_states_little_gain(
        self, tmp_path, monkeypatch
    ):
        export_quickly(monkeypatch)
        run = save_run(tmp_path / "run")
        monkeypatch.setattr("perceivers.exporting.formats.ExportFormat.num_bytes", lambda *_: 10**9)
        for name, note in (("int8", "int8 saves little"), ("float16", "float16 saves little")):
            done = exporting.export(run, tmp_path / "out", precision=name)
            told = json.loads((tmp_path / "out" / "preprocess.json").read_text())
            assert (told["format"], told["precision"]) == ("onnx", name)
            assert told["checked"]["tolerance"] == done.difference.tolerance
            assert done.notes[0].startswith(note)
        script = (tmp_path / "out" / "predict.py").read_text()
        assert "set_default_logger_severity" in script  # of float16 only
        exporting.export(run, tmp_path / "out")
        assert "set_default_logger_severity" not in (tmp_path / "out" / "predict.py").read_text()


class TestConversion:
    def test_preprocessing_positions_and_outputs_stay_in_float32(self):
        modules = {
            "a": "preprocessors.audio",
            "b": "model.inputs.audio",
            "c": "model.members.0.inputs.audio.stem",
            "d": "model.encoder.blocks.0.0.mlp",
            "e": "",
        }

        def stays(name, operator="MatMul", weights=""):
            node = helper.make_node(operator, ["x", weights], ["y"], name=name)
            return precision._stays_float32(node, modules, {"large"})

        assert [stays(name) for name in "abcde"] == [True, True, True, False, True]
        assert not stays("b", "Conv", "large")
        assert stays("b", "Concat", "large")
        assert stays("c", "Conv", "small")

    def test_lookups_of_rows_become_gather(self):
        table = numpy_helper.from_array(np.eye(3, dtype=np.float32), "table")
        axis = numpy_helper.from_array(np.array([-1]), "axis")
        nodes = [
            helper.make_node("Unsqueeze", ["ids", "axis"], ["wide"]),
            helper.make_node("GatherND", ["table", "wide"], ["rows"], batch_dims=0),
            helper.make_node("GatherND", ["table", "ids"], ["cells"]),  # of two numbers
        ]
        ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [2, 2])
        outputs = [
            helper.make_tensor_value_info("rows", TensorProto.FLOAT, [2, 2, 3]),
            helper.make_tensor_value_info("cells", TensorProto.FLOAT, [2]),
        ]
        graph = helper.make_graph(nodes, "graph", [ids], outputs, [table, axis])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
        precision._simplify_lookups(model)
        assert [one.op_type for one in model.graph.node] == ["Unsqueeze", "Gather", "GatherND"]
        onnx.checker.check_model(model, full_check=True)
        run = ReferenceEvaluator(model)
        rows, cells = run.run(None, {"ids": np.array([[0, 1], [2, 2]])})
        assert np.array_equal(rows, np.eye(3, dtype=np.float32)[[[0, 1], [2, 2]]])
        assert cells.tolist() == [0, 1]

    def test_a_model_without_weights_for_int8_is_refused(self, tmp_path):
        value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
        result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
        graph = helper.make_graph(
            [helper.make_node("Neg", ["x"], ["y"], name="n")], "graph", [value], [result]
        )
        onnx.save(helper.make_model(graph), str(tmp_path / "a.onnx"))
        with pytest.raises(ValueError, match=r"this model has none\. Choose --precision float16"):
            precision.convert_precision(tmp_path / "a.onnx", "int8", {}, tiny_model())


MANIFEST = {
    "inputs": {
        "image": {"shape": ["batch", 8, 8, 3], "dtype": "uint8"},
        "points": {"shape": ["batch", "any", 3], "dtype": "float32"},
        "points_mask": {"shape": ["batch", "any"], "dtype": "bool"},
        "text": {"shape": ["batch", 24], "dtype": "int64"},
    },
    "outputs": {
        "probabilities": {"shape": ["batch", 2], "names": ["a", "b"]},
        "logits": {"shape": ["batch", 2], "names": None},
    },
}

CONFIG = """\
name: "birds"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [
  {
    name: "image"
    data_type: TYPE_UINT8
    dims: [ 8, 8, 3 ]
  },
  {
    name: "points"
    data_type: TYPE_FP32
    dims: [ -1, 3 ]
  },
  {
    name: "points_mask"
    data_type: TYPE_BOOL
    dims: [ -1 ]
  },
  {
    name: "text"
    data_type: TYPE_INT64
    dims: [ 24 ]
  }
]
output [
  {
    name: "probabilities"
    data_type: TYPE_FP32
    dims: [ 2 ]
    label_filename: "probabilities_labels.txt"
  },
  {
    name: "logits"
    data_type: TYPE_FP32
    dims: [ 2 ]
  }
]
dynamic_batching {
  max_queue_delay_microseconds: 2000
}
"""


class TestTriton:
    def test_the_configuration_has_every_tensor_without_its_batch(self):
        assert triton.config_text("birds", MANIFEST, {"probabilities": ["a", "b"]}) == CONFIG

    def test_the_metadata_are_those_of_the_protocol(self):
        found = triton.metadata("birds", MANIFEST)
        assert found["versions"] == ["1"]
        assert found["inputs"][1] == {"name": "points", "datatype": "FP32", "shape": [-1, -1, 3]}
        assert found["outputs"][1] == {"name": "logits", "datatype": "FP32", "shape": [-1, 2]}

    @pytest.mark.parametrize("name", ["birds 2", "vögel", "", ".hidden"])
    def test_names_that_an_address_cannot_have_are_refused(self, name, tmp_path, monkeypatch):
        with pytest.raises(ValueError, match="The folder's name is the model's name on the server"):
            triton.check_model_name(name)

    def test_the_folder_is_a_model_of_a_repository(self, tmp_path, monkeypatch):
        export_quickly(monkeypatch)
        run = save_untrained(tmp_path / "run", "series")
        out = tmp_path / "models" / "birds"
        done = exporting.export(run, out, format="triton")
        assert done.files == (
            *("1/model.onnx", "config.pbtxt", "metadata.json", "predict.py", "preprocess.json"),
            *("probabilities_labels.txt", "request.json", "response.json"),
        )
        names = load(run).config.task.label_names
        labels = (out / "probabilities_labels.txt").read_text()
        assert labels.splitlines() == list(names)
        request = json.loads((out / "request.json").read_text())
        shapes = {one["name"]: one for one in request["inputs"]}
        assert list(shapes) == ["series", "series_mask"]
        assert shapes["series_mask"]["datatype"] == "BOOL"
        assert len(shapes["series"]["data"]) == np.prod(shapes["series"]["shape"])
        answer = json.loads((out / "response.json").read_text())
        assert answer["outputs"][0]["shape"] == [1, len(names)]
        assert sum(answer["outputs"][0]["data"]) == pytest.approx(1, abs=1e-5)
        # Another format removes what this one wrote, and the other way around.
        done = exporting.export(run, out)
        assert {one.name for one in out.iterdir()} == set(done.files)
        exporting.export(run, out, format="triton")
        assert not (out / "model.onnx").exists()
        with pytest.raises(ValueError, match="The folder's name is the model's name"):
            exporting.export(run, tmp_path / "models" / "my birds", format="triton")
