"""perceivers benchmark: a run beside its exports."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from perceivers import benchmark as benchmarking
from perceivers.benchmark import benchmark_run
from perceivers.cli.benchmark import benchmark_text
from perceivers.exporting import export as exporting
from perceivers.exporting import formats
from perceivers.exporting.graph import build_graph
from perceivers.hub.checkpoint import load
from support.cli import run_command
from support.models import save_untrained
from support.runs import make_image_folder, save_run
from support.scripts import export_quickly

QUICK = {"seconds": 0.0, "batch_size": 4, "threads": 1}


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    export_quickly(monkeypatch)
    monkeypatch.setattr(benchmarking, "trace", lambda graph: None)
    form = formats.EXPORT_FORMATS["onnx"]
    other = replace(formats.EXPORT_FORMATS["openvino"], write=form.write, open=form.open)
    monkeypatch.setitem(formats.EXPORT_FORMATS, "openvino", other)


@pytest.fixture
def run(tmp_path):
    data = make_image_folder(tmp_path / "images", count=12)
    return save_run(tmp_path / "run", data=data)


def test_a_run_is_compared_with_exports_made_for_it(run):
    found = benchmark_run(run, split="train", num_rows=10, **QUICK)
    names = [one.name for one in found.models]
    assert names[:4] == ["PyTorch", "onnx float32", "onnx float16", "onnx int8"]
    assert found.num_samples == 10
    assert found.samples == "10 rows of the run's train split"
    assert found.batch_sizes == (1, 4)
    for one in found.models:
        assert one.difference < 1e-5
        assert one.same_top == 10
        assert all(len(times) == 5 for times in one.seconds.values())
        assert one.milliseconds(4) > 0


def test_the_metric_is_that_of_the_evaluation(run, monkeypatch):
    monkeypatch.setattr(benchmarking, "_no_metric", lambda *_: "")  # of training rows
    found = benchmark_run(run, split="train", num_rows=100, **QUICK)
    assert found.metric == "accuracy"
    from perceivers.evaluation.evaluate import evaluate_run

    expected = evaluate_run(run, split="train", device="cpu").metrics["accuracy"]
    assert [one.metric for one in found.models] == [pytest.approx(expected)] * len(found.models)


def test_without_data_random_inputs_are_compared_and_accuracy_is_missing(tmp_path):
    run = save_run(tmp_path / "run", data=tmp_path / "gone")
    found = benchmark_run(run, **QUICK)
    assert found.samples == "16 random samples"
    assert found.metric is None
    assert "The run's data were not found" in found.notes[0]
    text = benchmark_text(found)
    assert text.splitlines()[0].split()[-1] == "accuracy"
    assert max(map(len, text.split("\n\n")[0].splitlines())) <= 80
    with pytest.raises((ValueError, OSError)):
        benchmark_run(run, split="test", **QUICK)


def test_a_missing_split_is_named(run):
    with pytest.raises(ValueError, match="Expected a test split"):
        benchmark_run(run, split="test", **QUICK)
    found = benchmark_run(run, **QUICK)
    assert found.samples == "2 rows of the run's validation split"
    assert found.metric == "accuracy"


def test_rows_that_cannot_be_read_are_left_out_and_counted(run, tmp_path):
    (tmp_path / "images" / "dark" / "0.png").write_bytes(b"no image")
    found = benchmark_run(run, split="train", **QUICK)
    assert "1 row could not be read, and was left out." in found.notes
    for path in (tmp_path / "images").rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(ValueError, match="None of the rows of the run's data could be read"):
        benchmark_run(run, split="train", **QUICK)


def test_given_exports_are_measured(run, tmp_path):
    exporting.export(run, tmp_path / "a", precision="int8")
    exporting.export(run, tmp_path / "b", format="triton")
    found = benchmark_run(run, [tmp_path / "a", tmp_path / "b"], **QUICK)
    shown = [(one.name, one.format, one.precision) for one in found.models[1:]]
    assert shown == [("a", "onnx", "int8"), ("b", "triton", "float32")]
    plain = json.loads(json.dumps(found.as_dict()))
    assert plain["models"][1]["rounds"] == {"1": 5, "4": 5}


def test_exports_that_cannot_be_made_are_named(run, monkeypatch):
    def refuse(source, path):
        raise ValueError("no\nweights.")

    form = replace(formats.EXPORT_FORMATS["onnx"], write=refuse)
    monkeypatch.setitem(formats.EXPORT_FORMATS, "onnx", form)
    monkeypatch.setattr(benchmarking, "find_spec", lambda name: None)
    found = benchmark_run(run, **QUICK)
    assert [one.name for one in found.models] == ["PyTorch"]
    assert "onnx in int8 is not measured: no weights." in found.notes
    assert any("OpenVINO is not measured" in note for note in found.notes)


def test_an_export_that_differs_is_noted(run, monkeypatch):
    form = formats.EXPORT_FORMATS["onnx"]

    def opened(path, threads):
        graph = build_graph(load(run))
        return lambda inputs: {key: one.flip(-1) + 2 for key, one in graph(inputs).items()}

    monkeypatch.setitem(formats.EXPORT_FORMATS, "onnx", replace(form, open=opened))
    found = benchmark_run(run, **QUICK)
    note = "onnx float32 differs by more than the 0.0001 that perceivers export allows"
    assert any(one.startswith(note) for one in found.notes)


def test_what_is_no_export_of_the_run_is_refused(run, tmp_path):
    with pytest.raises(OSError, match="Expected a folder that perceivers export wrote"):
        benchmark_run(run, [tmp_path / "images"], **QUICK)
    out = exporting.export(run, tmp_path / "out").folder
    (out / "model.onnx").unlink()
    with pytest.raises(OSError, match=r"Expected the model 'model\.onnx' in"):
        benchmark_run(run, [out], **QUICK)
    (out / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(OSError, match=r"Cannot open .*model\.onnx: .* Export the run again"):
        benchmark_run(run, [out], **QUICK)
    (out / "preprocess.json").write_text('{"model": "model.onnx", "inputs": 3, "outputs": 4}')
    with pytest.raises(OSError, match="Expected a folder that perceivers export wrote"):
        benchmark_run(run, [out], **QUICK)
    other = save_untrained(tmp_path / "other", "audio")
    exporting.export(other, tmp_path / "audio")
    with pytest.raises(ValueError, match="is the export of another model than the run's"):
        benchmark_run(run, [tmp_path / "audio"], **QUICK)


def test_streamed_data_and_other_targets_have_no_accuracy(run):
    predictor = benchmarking.load_predictor(run, device="cpu")
    source = benchmarking.open_for_run(predictor)
    reason = benchmarking._no_metric(predictor, replace(source, target=None), "test")
    assert reason.startswith("Accuracy is measured for classes")
    folds = replace(source, folds=((0,), (1,)))
    assert "members of its ensemble" in benchmarking._no_metric(predictor, folds, "validation")
    assert "no test or validation" in benchmarking._no_metric(predictor, source, "train")
    assert benchmarking._no_metric(predictor, source, "test") == ""


def test_several_tasks_have_outputs_by_name():
    logits = np.zeros((2, 3), np.float32)
    found = benchmarking._model_outputs({"a_logits": logits, "a_probabilities": logits})
    assert list(found) == ["a"]
    assert isinstance(found["a"], torch.Tensor)


class TestCommand:
    def test_a_table_is_printed_and_written(self, run, tmp_path):
        out = tmp_path / "table.txt"
        flags = ("--seconds", 0, "--batch-size", 2, "--threads", 1, "--out", out)
        status, printed, err = run_command("benchmark", run, *flags)
        assert status == 0
        assert printed == out.read_text()
        assert printed.splitlines()[2].startswith("PyTorch ")
        assert err == ""

    def test_json_has_all_results(self, run):
        status, printed, _ = run_command("benchmark", run, "--seconds", 0, "--format", "json")
        assert status == 0
        content = json.loads(printed)
        assert content["run"] == str(run)
        assert set(content["models"][0]["milliseconds"]) == {"1", "16"}

    @pytest.mark.parametrize(
        ("flags", "status", "expected"),
        [
            (("nothing",), 1, "does not exist"),
            (("RUN", "--exports", "nothing"), 1, "Expected a folder that perceivers export wrote"),
            (("RUN", "--rows", "0"), 2, "Expected --rows of at least 1, got 0."),
            (("RUN", "--threads", "0"), 2, "Expected --threads of at least 1, got 0."),
            (("RUN", "--split", "other"), 2, "--split"),
        ],
    )
    def test_wrong_input_is_one_paragraph(self, run, flags, status, expected, capsys):
        found = run_command("benchmark", *(run if one == "RUN" else one for one in flags))
        assert found[0] == status
        assert expected in found[2] + capsys.readouterr().err
        assert "Traceback" not in found[2]
