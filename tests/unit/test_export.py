"""What is written beside an exported model reads files as perceivers does; what cannot be exported says why."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from perceivers.data.modalities.flow.modality import FramePairPreprocessConfig
from perceivers.data.modalities.image.modality import ImagePreprocessConfig
from perceivers.evaluation.predict import load_predictor
from perceivers.explain.attribution.explain import explain_sample
from perceivers.exporting import export as exporting
from perceivers.exporting import formats, preprocessing
from perceivers.exporting.graph import build_graph, one_window
from perceivers.exporting.preprocessing import GraphPreprocessor, register_preprocessing
from perceivers.exporting.script_template import ScriptTemplate
from perceivers.exporting.verify import Difference
from perceivers.hub.checkpoint import Saved, SavedConfig, load, save
from perceivers.tasks.classification import ClassificationConfig
from perceivers.tasks.multilabel import MultiLabelConfig
from perceivers.tasks.multitask import MultiTaskConfig
from perceivers.tasks.regression import RegressionConfig
from support import modality_data as made
from support.files import RATE, write_video, write_wav
from support.models import save_untrained, tiny_model, untrained
from support.runs import LABELS, make_image_folder, save_run
from support.scripts import export_quickly, run_script


def picture(folder):
    path = folder / "a.png"
    clear = np.random.default_rng(0).integers(0, 256, (9, 13, 4), dtype=np.uint8)
    Image.fromarray(clear).save(path)
    return path


def sound(folder):
    return write_wav(folder / "a.wav", made.tone(0, 1, seconds=0.9))


def short_sound(folder):
    return write_wav(folder / "b.wav", np.stack([made.tone(0, 1, seconds=0.15)] * 2, axis=1))


def film(folder):
    heard = made.tone(1, 0, seconds=1.5, rate=16_000)
    return write_video(folder / "a.mp4", made.frames(0, 0, count=15), audio=heard)


def points(folder):
    path = folder / "a.npy"
    np.save(path, made.points(0, 0, count=150) + 40)
    return path


def few_points(folder):
    path = folder / "b.npy"
    np.save(path, made.points(1, 0, count=20).astype(np.float64))
    return path


def text(folder):
    path = folder / "a.txt"
    path.write_text("Köstlich. 美味しい。" * 20, encoding="utf-8")
    return path


def series(folder):
    path = folder / "a.csv"
    rows = [f"{x:.3f},{y:.3f}" for x, y in np.random.default_rng(0).normal(size=(40, 2))]
    path.write_text("\n".join(["x,y", rows[0], "0.5,", ",", *rows[1:]]) + "\n")
    return path


def times(folder):
    path = folder / "b.csv"
    rows = [f"{t:.2f},{t % 3:.3f},{t % 5:.3f}" for t in np.linspace(0, 7, 50)]
    path.write_text("\n".join(["time,x,y", *rows]) + "\n")
    return path


CASES = [
    (("image",), picture),
    (("audio",), sound),
    (("audio",), short_sound),
    (("wave",), sound),
    (("video",), film),
    (("audio", "video"), film),
    (("points",), points),
    (("points",), few_points),
    (("text",), text),
    (("series",), series),
    (("irregular",), times),
]


@pytest.fixture
def quickly(monkeypatch):
    export_quickly(monkeypatch)


@pytest.mark.parametrize(("kinds", "make"), CASES, ids=[case[1].__name__ for case in CASES])
def test_the_script_predicts_as_perceivers_does(kinds, make, tmp_path, quickly):
    run = save_untrained(tmp_path / "run", *kinds)
    file = make(tmp_path)
    done = exporting.export(run, tmp_path / "out", samples=[file])
    assert done.files == ("model.onnx", "predict.py", "preprocess.json")
    assert done.difference.samples == "1 sample given with --samples"
    (said,) = run_script(tmp_path / "out", build_graph(load(run)), file)
    (expected,) = load_predictor(run, device="cpu").predict(file)
    assert said["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)


def test_pooled_elements_are_predicted_explained_and_exported_alike(tmp_path, quickly):
    run = save_untrained(tmp_path / "run", "image", "text", element_pools=("mean", "max"))
    file = {"image": str(picture(tmp_path)), "text": "Köstlich."}
    only = {"text": file["text"]}
    exporting.export(run, tmp_path / "out", samples=[file, only])
    predictor = load_predictor(run, device="cpu")
    for one in (file, only):
        (expected,) = predictor.predict(one)
        found = explain_sample(load(run), one)
        given = list(expected.probabilities.values())
        assert found.probabilities == pytest.approx(given, abs=1e-5)


@pytest.mark.parametrize("kind", ["classes", "labels"])
def test_a_temperature_is_part_of_predictions_explanations_and_exports(kind, tmp_path, quickly):
    plain, run = save_untrained(tmp_path / "plain", "audio"), tmp_path / "run"
    saved = load(plain)
    with torch.no_grad():
        saved.model.output.to_logits.weight.normal_(std=1.0)
    names = saved.config.task.label_names
    config = ClassificationConfig(label_names=names)
    if kind == "labels":
        config = MultiLabelConfig(label_names=names, threshold=0.4)
    for folder, temperature in ((plain, 1.0), (run, 2.5)):
        save(
            folder,
            saved.model,
            preprocess=saved.config.preprocess,
            task=config.with_temperature(temperature),
            columns={**saved.config.columns, "config": {"clips": 3}},
        )
    file = write_wav(tmp_path / "long.wav", np.random.default_rng(0).normal(0, 0.3, 2 * RATE))
    (before,), (after,) = (load_predictor(one, device="cpu").predict(file) for one in (plain, run))
    logits = torch.tensor(list(before.probabilities.values())).logit()
    expected = (logits / 2.5).sigmoid()
    if kind == "classes":
        expected = (torch.tensor(list(before.probabilities.values())).log() / 2.5).softmax(dim=0)
    assert list(after.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-5)
    assert after.probabilities != pytest.approx(before.probabilities, abs=0.02)
    assert (after.label, after.labels) == (before.label, before.labels)
    done = exporting.export(run, tmp_path / "out", samples=[file])
    assert done.difference.largest < 1e-5
    (said,) = run_script(tmp_path / "out", build_graph(load(run)), file)
    assert said["probabilities"] == pytest.approx(after.probabilities, abs=1e-5)
    assert said.get("labels") == (list(after.labels) if kind == "labels" else None)
    shown = dict(zip(names, explain_sample(load(run), file).probabilities, strict=True))
    (one_clip,) = load_predictor(run, device="cpu", clips=1).predict(file)
    assert shown == pytest.approx(one_clip.probabilities, abs=1e-5)


def test_modalities_that_are_missing_are_masked(tmp_path, quickly):
    run = save_untrained(tmp_path / "run", "image", "audio")
    file = picture(tmp_path)
    done = exporting.export(run, tmp_path / "out", samples=[{"image": file}])
    assert done.difference.largest < 1e-5
    (said,) = run_script(tmp_path / "out", build_graph(load(run)), f"image={file}")
    (expected,) = load_predictor(run, device="cpu").predict({"image": file})
    assert said["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)


@pytest.mark.parametrize("kind", ["array", "places", "table"])
def test_what_has_no_script_is_exported_as_the_model_reads_it(kind, tmp_path, quickly):
    run = save_untrained(tmp_path / "run", kind)
    saved = load(run)
    values = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    sample = {
        "array": {"array": values},
        "places": {"places": {"values": values, "coordinates": values[:, :2]}},
        "table": {"table": {"age": 3.0, "color": "red"}},
    }[kind]
    if kind == "table":
        fields = {"columns": ["age", "color"], "kinds": ["number", "category"]}
        saved.config.columns["inputs"]["table"] |= {"column": "age", **fields}
    done = exporting.export(saved, tmp_path / "out", samples=[sample])
    assert done.files == ("model.onnx", "preprocess.json")
    assert done.notes[0].startswith("there is no predict.py for inputs of kind")
    assert done.difference.largest < 1e-5


class TenthsPreprocessor(GraphPreprocessor):
    """Takes the model's array times ten."""

    def __init__(self, source):
        length, channels = source.example.shape[1:]
        super().__init__(source, (length, channels), length, "tenths")

    def sample(self, value):
        return 10 * super().sample(value)

    def forward(self, values, mask):
        return values.masked_fill(~mask[..., None], 0.0) / 10, mask


READ_TENTHS = ScriptTemplate(
    name="read_tenths",
    text="""
def read_tenths(path, how, position):
    return 10 * np.load(path)[: how["length"]]
""",
)


def test_a_registered_preprocessing_is_in_the_graph_and_its_template_in_the_script(
    tmp_path, quickly, monkeypatch
):
    monkeypatch.setattr(preprocessing, "_REGISTERED", {**preprocessing._REGISTERED})
    register_preprocessing("array", TenthsPreprocessor, READ_TENTHS)
    run = save_untrained(tmp_path / "run", "array")
    values = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    done = exporting.export(run, tmp_path / "out", samples=[{"array": values}])
    assert done.files == ("model.onnx", "predict.py", "preprocess.json")
    assert done.difference.largest < 1e-5
    told = json.loads((tmp_path / "out" / "preprocess.json").read_text())
    assert told["inputs"]["array"]["meaning"] == "tenths"
    (said,) = run_script(tmp_path / "out", build_graph(load(run)), tmp_path / "a.npy")
    (expected,) = load_predictor(run, device="cpu").predict({"array": values})
    assert said["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)


def test_every_kind_of_output_is_named_and_explained(tmp_path, quickly):
    tasks = {
        "probabilities": MultiLabelConfig(label_names=LABELS),
        "values": RegressionConfig(target_names=LABELS, mean=(5.0, 0.0), std=(2.0, 1.0)),
    }
    path = picture(tmp_path)
    for name, task in tasks.items():
        run, out = tmp_path / name, tmp_path / f"{name}-out"
        save(
            run,
            tiny_model(),
            preprocess={"image": ImagePreprocessConfig.imagenet(size=(8, 8))},
            task=task,
            columns={"inputs": {"image": "image"}},
        )
        exporting.export(run, out)
        told = json.loads((out / "preprocess.json").read_text())
        assert told["outputs"][name]["names"] == list(LABELS)
        assert told["outputs"]["logits"]["names"] is None
        assert told["inputs"]["image"] == {
            "shape": ["batch", 8, 8, 3],
            "dtype": "uint8",
            "meaning": "pixels from 0 to 255, cropped and resized: height x width x channels (RGB, or gray)",
        }
        (said,) = run_script(out, build_graph(load(run)), path)
        (expected,) = load_predictor(run, device="cpu").predict(path)
        wanted = expected.values or expected.probabilities
        assert said[name] == pytest.approx(wanted, abs=1e-5)
        assert told["outputs"][name]["task"] == task.kind


def test_several_tasks_have_outputs_of_their_own():
    model, preprocess = untrained("image")
    parts = {"a": MultiLabelConfig(label_names=LABELS), "b": MultiLabelConfig(label_names=LABELS)}
    config = SavedConfig(
        model=model.config, preprocess=preprocess, task=MultiTaskConfig(parts=parts)
    )
    graph = build_graph(Saved(model=model, config=config, folder=Path("run")))
    logits = torch.randn(3, 2)
    found = graph.named_outputs({"a": logits, "b": -logits})
    assert list(found) == ["a_logits", "a_probabilities", "b_logits", "b_probabilities"]
    torch.testing.assert_close(found["b_probabilities"], (-logits).sigmoid())


def test_frames_that_are_put_together_of_windows_are_exported_as_one_window():
    whole = FramePairPreprocessConfig(size=(8, 8), whole=True)
    assert one_window(whole).whole is False
    assert one_window(ImagePreprocessConfig()) == ImagePreprocessConfig()


def test_the_runs_own_data_are_compared_or_else_made_up_ones(tmp_path, quickly):
    data = make_image_folder(tmp_path / "pictures", count=3)
    (data / "dark" / "0.png").write_bytes(b"no picture")
    run = save_run(tmp_path / "run", data=data)
    assert (
        "4 samples of the run's train split"
        in exporting.export(run, tmp_path / "a").difference.samples
    )
    run = save_run(tmp_path / "run2", data=tmp_path / "gone")
    assert "3 made-up samples" in exporting.export(run, tmp_path / "b").difference.samples


def test_a_predictor_is_exported_and_stays_as_it_is(tmp_path, quickly, monkeypatch):
    predictor = load_predictor(save_run(tmp_path / "run"), device="cpu")
    exporting.export(predictor, tmp_path / "out")
    assert predictor.model.encoder.attn_implementation == "auto"
    monkeypatch.setattr(exporting, "is_quantized", lambda model: model is predictor.model)
    with pytest.raises(ValueError, match="with int8 weights"):
        exporting.export(predictor, tmp_path / "out")


def test_weights_are_written_with_a_table_of_their_keys(tmp_path):
    run = save_run(tmp_path / "run")
    done = exporting.export(run, tmp_path / "out", format="safetensors")
    assert done.files == ("KEYS.md", "config.json", "model.safetensors", "preprocess.json")
    assert done.difference.largest < 1e-5
    keys = (tmp_path / "out" / "KEYS.md").read_text()
    for name, tensor in load(tmp_path / "out").model.state_dict().items():
        assert f"| `{name}` | {' x '.join(map(str, tensor.shape))} |" in keys


def test_too_large_a_difference_leaves_nothing(tmp_path, monkeypatch):
    def opened(path, threads=0):
        graph = build_graph(load(tmp_path / "run"))
        return lambda inputs: {key: one + float("nan") for key, one in graph(inputs).items()}

    def write(source, path):
        path.write_bytes(b"")

    form = replace(formats.EXPORT_FORMATS["onnx"], write=write, open=opened)
    monkeypatch.setitem(formats.EXPORT_FORMATS, "onnx", form)
    with pytest.raises(RuntimeError, match="differs from the model by up to inf, on 3 made-up"):
        exporting.export(save_run(tmp_path / "run"), tmp_path / "out")
    assert [one.name for one in tmp_path.iterdir()] == ["run"]


def test_only_what_an_export_wrote_is_replaced(tmp_path, quickly):
    run = save_run(tmp_path / "run")
    exporting.export(run, tmp_path / "out")
    (tmp_path / "out" / "mine.txt").write_text("stays")
    done = exporting.export(run, tmp_path / "out", format="safetensors")
    assert {one.name for one in done.folder.iterdir()} == {*done.files, "mine.txt"}
    with pytest.raises(OSError, match="exists, and no earlier export wrote it"):
        exporting.export(run, run)
    with pytest.raises(OSError, match=r"Expected a folder for --out, got the name of a file"):
        exporting.export(run, tmp_path / "model.onnx")


def test_what_cannot_be_exported_says_why(tmp_path, quickly, monkeypatch):
    run = save_run(tmp_path / "run")
    with pytest.raises(ValueError, match="Expected format to be one of onnx, openvino"):
        exporting.export(run, tmp_path / "out", format="tflite")
    with pytest.raises(OSError, match="does not exist"):
        exporting.export(tmp_path / "nothing", tmp_path / "out")
    save(tmp_path / "bare", tiny_model())
    with pytest.raises(ValueError, match="saved without its labels or its preprocessing"):
        exporting.export(tmp_path / "bare", tmp_path / "out")
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"bad\.png"):
        exporting.export(run, tmp_path / "out", samples=[bad])
    several = save_untrained(tmp_path / "several", "image", "audio")
    with pytest.raises(ValueError, match="reads image, audio together"):
        exporting.export(several, tmp_path / "out", samples=[bad])
    monkeypatch.setattr(exporting, "export_huggingface", lambda source, folder: "Hf")
    monkeypatch.setattr(
        exporting, "compare_transformers", lambda *_: Difference(largest=1.0, samples="this")
    )
    with pytest.raises(RuntimeError, match="differs from the model by up to"):
        exporting.export(load(run), tmp_path / "hf", format="huggingface")
    assert not (tmp_path / "hf").exists()
    monkeypatch.setattr(exporting, "compare_transformers", lambda *_: None)  # without transformers
    assert exporting.export(load(run), tmp_path / "hf", format="huggingface").notes == ("Hf",)


def test_a_graph_that_exporters_refuse_becomes_one_sentence(tmp_path, monkeypatch):
    graph = build_graph(load(save_run(tmp_path / "run")))

    def refuse(*args, **kwargs):
        raise RuntimeError("no\nsuch   operator")

    monkeypatch.setattr(torch.export, "export", refuse)
    with pytest.raises(ValueError, match=r"could not be expressed in torch\.export: no such oper"):
        formats.trace(graph)
    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(ValueError, match="could not be expressed in ONNX: no such operator"):
        formats.write_onnx(object.__new__(torch.export.ExportedProgram), graph, tmp_path / "x.onnx")


def test_export_is_a_public_function(tmp_path, quickly):
    import perceivers as pv

    assert pv.export(save_run(tmp_path / "run"), tmp_path / "out").folder == tmp_path / "out"
