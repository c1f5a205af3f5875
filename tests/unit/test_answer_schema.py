"""One schema of answers: command line, HTTP and exported scripts return the same JSON for a sample."""

import base64
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import jsonschema_rs
import numpy as np
import pytest
import torch
from PIL import Image

from perceivers.cli.main import main
from perceivers.data.modalities.image.modality import ImagePreprocessConfig
from perceivers.data.modalities.text.modality import TextPreprocessConfig
from perceivers.escaping import json_text
from perceivers.exporting import export as exporting
from perceivers.exporting.graph import build_graph
from perceivers.hub.checkpoint import load, save
from perceivers.models.decoder import DecoderConfig, OutputConfig
from perceivers.models.perceiver import build
from perceivers.outputs.heads import LinearHeadConfig
from perceivers.outputs.queries import LearnedQueriesConfig
from perceivers.recipes import get_recipe
from perceivers.tasks.autoencode import AutoencodeConfig
from perceivers.tasks.base import PredictionRequest, TaskBatch
from perceivers.tasks.classification import ClassificationConfig
from perceivers.tasks.dense import ImageToImageConfig, SegmentationConfig
from perceivers.tasks.flow import FlowConfig
from perceivers.tasks.masked import MaskedBytesConfig
from perceivers.tasks.multilabel import MultiLabelConfig
from perceivers.tasks.multitask import MultiTaskConfig
from perceivers.tasks.prediction import ANSWER_FIELDS, Prediction, Reconstruction
from perceivers.tasks.reconstruction import ReconstructionConfig
from perceivers.tasks.registry import build_task
from perceivers.tasks.regression import RegressionConfig
from support import modality_data as made
from support.docs import ROOT
from support.models import save_untrained, tiny_model
from support.scripts import export_quickly, run_script
from support.server import client_of

NAMES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")
CLASSES = ClassificationConfig(label_names=NAMES)
NUMBERS = RegressionConfig(target_names=("age", "height"), mean=(40.0, 1.5), std=(10.0, 0.5))
TAGS = MultiLabelConfig(label_names=NAMES, threshold=0.3)
SEVERAL = MultiTaskConfig(parts={"animal": CLASSES, "tags": TAGS, "size": NUMBERS})


def save_on_images(folder: Path, task) -> Path:
    """Write a run on images that learned nothing."""
    model = tiny_model(len(task.output_names))
    if task is SEVERAL:
        outputs = {
            name: OutputConfig(
                queries=LearnedQueriesConfig(),
                head=LinearHeadConfig(num_outputs=len(part.output_names)),
            )
            for name, part in task.parts.items()
        }
        model = build(replace(model.config, output=DecoderConfig(outputs=outputs)))
    preprocess = {"image": ImagePreprocessConfig.imagenet(size=(8, 8))}
    save(folder, model, preprocess=preprocess, task=task, columns={"inputs": {"image": "image"}})
    return folder


def save_masked(folder: Path) -> Path:
    """Write a run that fills blanks and learned nothing."""
    torch.manual_seed(0)
    column = {"column": "text", "kind": "text", "columns": (), "kinds": ()}
    save(
        folder,
        build(get_recipe("mlm_bytes", size="tiny").model_config()),
        preprocess={"text": TextPreprocessConfig(max_length=128, marks=True)},
        task=MaskedBytesConfig(),
        columns={"data": None, "form": "f", "inputs": {"text": column}, "config": {}},
    )
    return folder


def answers_of(folder: Path, run: Path, words: list[str], form: dict, capsys, monkeypatch):
    """Return the answers of the command line, of the server and of the exported script, in this order."""
    export_quickly(monkeypatch)
    assert main(["predict", str(run), *words, "--format", "jsonl", "--device", "cpu"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert main(["predict", str(run), *words, "--format", "json", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out) == printed
    with client_of(folder, run.name) as client:
        reply = client.post("/predict", **form)
    assert reply.status_code == 200, reply.text
    exporting.export(run, folder / "exported")
    script = run_script(folder / "exported", build_graph(load(run)), words[-1])
    return printed[0], reply.json()["answers"][0], script[0]


def assert_same(one, other):
    """Assert that two answers have the same keys in the same order, and numbers equal up to rounding."""
    assert json.dumps(rounded(one)) == json.dumps(rounded(other))


def rounded(value):
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return round(value, 3) + 0.0 if isinstance(value, float) else value


@pytest.mark.parametrize("task", [CLASSES, TAGS, NUMBERS, SEVERAL], ids=lambda task: task.kind)
def test_command_line_server_and_script_return_the_same(task, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = save_on_images(tmp_path / "run", task)
    (tmp_path / "a.png").write_bytes(made.png(0, 0))
    form = {"files": {"image": ("a.png", made.png(0, 0))}}
    printed, served, script = answers_of(tmp_path, run, ["a.png"], form, capsys, monkeypatch)
    assert (printed["version"], printed["name"], printed["task"]) == (1, "a.png", task.kind)
    assert_same(served, printed)
    assert_same(script, printed)
    fields = printed["tasks"]["animal"] if task is SEVERAL else printed
    if task in (CLASSES, SEVERAL):
        assert len(fields["top"]) == 5
        assert list(fields["probabilities"]) == list(NAMES)
        assert fields["top"][0] == {name: fields[name] for name in ("label", "probability")}


def test_filled_text_is_the_same_everywhere(tmp_path, capsys, monkeypatch):
    run, text = save_masked(tmp_path / "run"), "the c[MASK][MASK] sat é"
    form = {"data": {"text": text}}
    words = ["--text", text]
    printed, served, script = answers_of(tmp_path, run, words, form, capsys, monkeypatch)
    assert printed["name"] == text
    assert [len(blank["top"]) for blank in printed["blanks"]] == [5, 5]
    mean = sum(blank["probability"] for blank in printed["blanks"]) / 2
    assert printed["probability"] == pytest.approx(mean)
    assert_same(served, printed)
    assert_same(script, printed)


def test_files_of_a_sample_name_it_in_the_order_of_the_run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = save_untrained(tmp_path / "points-image", "points", "image")
    (tmp_path / "a.png").write_bytes(made.png(0, 0))
    np.save(tmp_path / "a.npy", made.points(0, 0))
    files = {name: (name, (tmp_path / name).read_bytes()) for name in ("a.png", "a.npy")}
    form = {"files": {"image": files["a.png"], "points": files["a.npy"]}}
    words = ["image=a.png,points=a.npy"]
    printed, served, script = answers_of(tmp_path, run, words, form, capsys, monkeypatch)
    assert printed["name"] == served["name"] == script["name"] == "a.npy + a.png"
    assert_same(served, printed)


def test_top_limits_the_list_and_no_number(tmp_path, capsys):
    run = save_on_images(tmp_path / "run", CLASSES)
    (tmp_path / "a.png").write_bytes(made.png(0, 0))
    found = []
    for top in ("1", "7", "1000"):
        words = [str(tmp_path / "a.png"), "--top", top, "--format", "jsonl"]
        assert main(["predict", str(run), *words]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert [len(one.pop("top")) for one in found] == [1, 7, 7]
    assert found[0] == found[1] == found[2]
    assert sum(found[0]["probabilities"].values()) == pytest.approx(1.0)
    with client_of(tmp_path, "run") as client:
        sent = {"files": {"image": ("a.png", made.png(0, 0))}}
        (more,) = client.post("/predict", data={"top": "6"}, **sent).json()["answers"]
    assert len(more["top"]) == 6


def reconstruction(shape):
    pixels = np.zeros(shape, np.uint8)
    return Reconstruction(kind="image", original=pixels, restored=pixels)


FLOW = Prediction(name="a", values={"mean motion": 1.0}, flow=np.ones((4, 6, 2), np.float32))
DENSE = Prediction(name="a", values={"sky": 1.0}, image=Image.new("L", (6, 4)))
FILLED = Prediction(
    name="a", text="cat", probability=0.5, blanks=((("c", 0.5), ("b", 0.2)),), filled=(("c", 0.5),)
)
RESTORED = Prediction(
    name="a", values={"image_psnr": 20.0}, reconstructions={"image": reconstruction((4, 6, 1))}
)
PART = {"image": ReconstructionConfig(patch=(1, 1), size=(4, 6), num_channels=1)}
CASES = [
    (FlowConfig(), FLOW),
    (SegmentationConfig(label_names=("sky", "road"), size=(4, 6)), DENSE),
    (ImageToImageConfig(size=(4, 6)), DENSE),
    (MaskedBytesConfig(), FILLED),
    (AutoencodeConfig(parts=PART), RESTORED),
]


def task_of(config):
    """Return a task whose predictions are checked against its schema."""
    return build_task(config)


def predictions(config, outputs):
    batch = TaskBatch(inputs={}, masks={}, targets=None)
    request = PredictionRequest(names=["a"] * 2, batch=batch)
    return list(task_of(config).predict(outputs, request))


def validate(schema, answer):
    answer = json.loads(json_text(answer))
    assert answer.pop("version") == 1
    assert answer.pop("name") == "a"
    jsonschema_rs.validate(schema, answer)


@pytest.mark.parametrize("config", [CLASSES, TAGS, NUMBERS, SEVERAL], ids=lambda one: one.kind)
def test_predictions_follow_the_schema_of_their_task(config):
    sizes = {"animal": 7, "tags": 7, "size": 2}
    outputs = torch.randn(2, len(config.output_names))
    if config is SEVERAL:
        outputs = {name: torch.randn(2, size) for name, size in sizes.items()}
    schema = task_of(config).answer_schema()
    for one in predictions(config, outputs):
        validate(schema, one.answer())
    jsonschema_rs.validate(schema, task_of(config).answer_example())


@pytest.mark.parametrize(("config", "found"), CASES, ids=lambda one: getattr(one, "kind", ""))
def test_outputs_beyond_labels_and_numbers_follow_the_schema(config, found):
    schema = task_of(config).answer_schema()
    validate(schema, replace(found, task=config.kind).answer())
    jsonschema_rs.validate(schema, task_of(config).answer_example())


def test_an_autoencoder_with_classes_has_their_fields():
    config = AutoencodeConfig(parts=PART, label_weight=0.1, label_names=NAMES)
    assert task_of(config).answer_fields == task_of(CLASSES).answer_fields
    assert task_of(AutoencodeConfig(parts=PART)).answer_fields == ()


def test_images_are_png():
    for found, field in ((FLOW, "image"), (DENSE, "image"), (RESTORED, "images")):
        image = found.answer()[field]
        address = image["image"] if field == "images" else image
        data = base64.b64decode(address.removeprefix("data:image/png;base64,"))
        assert Image.open(io.BytesIO(data)).size == (6, 4)


def test_names_of_any_bytes_can_be_written():
    answer = Prediction(name="a\udcff.png", values={"age": 1.0}).answer()
    assert json.loads(json_text(answer).encode())["name"] == "a\udcff.png"
    with pytest.raises(ValueError, match="JSON"):
        json_text({"age": math.nan})


def test_every_field_is_documented():
    text = (ROOT / "docs" / "answers.md").read_text(encoding="utf-8")
    for field, schema in ANSWER_FIELDS.items():
        assert f"| `{field}` |" in text
        assert schema["description"] in text
