import base64
import io
import math

import numpy as np
import pytest
from PIL import Image
from starlette.exceptions import HTTPException

from perceivers.data.modalities.flow.modality import FramePairPreprocessConfig
from perceivers.data.tables.columns import InputColumn
from perceivers.server.decoding import Upload
from perceivers.server.forms import InputField, input_fields, parse_form
from perceivers.server.service import output_schemas, outputs_as_json
from perceivers.tasks.classification import ClassificationConfig
from perceivers.tasks.flow import FlowConfig
from perceivers.tasks.masked import MaskedBytesConfig
from perceivers.tasks.multilabel import MultiLabelConfig
from perceivers.tasks.multitask import MultiTaskConfig
from perceivers.tasks.prediction import Prediction, Reconstruction
from perceivers.tasks.regression import RegressionConfig

CLASSES = ClassificationConfig(label_names=("low", "high"))
NUMBERS = RegressionConfig(target_names=("age",))
PICTURE = b"\x89PNG\r\n\x1a\n"


def opened(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def test_several_labels_and_numbers_are_told():
    said = Prediction(name="a", label="x", top=(("x", 0.9), ("y", 0.2)), labels=("x",))
    (told,) = outputs_as_json(said, MultiLabelConfig(label_names=("x", "y")), top=1)
    assert told["labels"] == ["x"]
    assert told["top"] == [{"label": "x", "score": 0.9}]
    (told,) = outputs_as_json(Prediction(name="a", values={"age": 3.5, "size": math.inf}), NUMBERS)
    assert told == {"name": "answer", "kind": "regression", "values": {"age": 3.5, "size": None}}


def test_filled_blanks_are_told_with_their_text():
    said = Prediction(name="a", text="a cat", probability=0.5, blanks=((("c", 0.8), ("b", 0.1)),))
    (told,) = outputs_as_json(said, MaskedBytesConfig(modality="text"), top=1)
    assert told["text"] == "a cat"
    assert told["blanks"] == [[{"label": "c", "score": 0.8}]]


def test_of_several_tasks_each_has_an_answer():
    task = MultiTaskConfig(parts={"digit": CLASSES, "age": NUMBERS})
    parts = {
        "digit": Prediction(name="a", label="low", top=(("low", 1.0),)),
        "age": Prediction(name="a", values={"age": 2.0}),
    }
    told = outputs_as_json(Prediction(name="a", tasks=parts), task)
    assert [(one["name"], one["kind"]) for one in told] == [
        ("digit", "classification"),
        ("age", "regression"),
    ]
    assert [one["classes"] for one in output_schemas(task)] == [["low", "high"], ["age"]]


def test_what_is_answered_for_every_pixel_is_a_picture():
    flow = np.ones((4, 6, 2), np.float32)
    (told,) = outputs_as_json(Prediction(name="a", values={"mean": 1.0}, flow=flow), FlowConfig())
    assert opened(told["image"]).size == (6, 4)
    pixels = np.zeros((3, 5, 3), np.uint8)
    pair = Reconstruction(kind="image", original=pixels, restored=pixels)
    (told,) = outputs_as_json(Prediction(name="a", reconstructions={"image": pair}), CLASSES)
    assert opened(told["images"]["image"]).size == (5, 3)


FIELDS = [
    InputField(name="video", kind="video", accept=(".mp4",), shared="film"),
    InputField(name="audio", kind="audio", accept=(".wav", ".mp4"), shared="film"),
]
MIXED = [
    InputField(name="image", kind="image", accept=(".png",)),
    InputField(name="note", kind="text"),
    InputField(name="age", kind="table", number=True),
]


@pytest.mark.parametrize("name", ["file", "film", "video"])
def test_a_film_is_given_for_its_sound_too(name):
    cells = parse_form([(name, b"film", "a.MP4")], FIELDS).job.cells
    assert cells == {"video": Upload(".mp4", b"film"), "audio": Upload(".mp4", b"film")}
    both = parse_form([(name, b"film", "a.mp4"), ("audio", b"sound", "b.wav")], FIELDS).job.cells
    assert both["audio"] == Upload(".wav", b"sound")
    assert list(parse_form([("audio", b"sound", "b.wav")], FIELDS).job.cells) == ["audio"]


def test_what_is_missing_may_be_left_out_or_left_empty():
    given = [("note", "hello", ""), ("age", " ", ""), ("image", b"", "")]
    assert parse_form(given, MIXED).job.cells == {"note": "hello"}
    assert parse_form([*given, ("top", "3", "")], MIXED).top == 3


@pytest.mark.parametrize(
    ("field", "status", "words"),
    [
        (("image", "a text", ""), 422, "Expected a file for 'image'"),
        (("age", b"1", "a.txt"), 422, "Expected a plain field for 'age'"),
        (("image", b"RIFF0000WAVE", "a.wav"), 415, "Accepted are files of .png"),
        (("file", PICTURE, "a.png"), 422, "There is no input 'file'"),
        (("x" * 900, PICTURE, "a.png"), 422, "..."),
        (("top", "\u0663", ""), 422, "a number from 0 to 1000"),
    ],
)
def test_a_field_that_does_not_fit_is_refused(field, status, words):
    with pytest.raises(HTTPException) as refused:
        parse_form([field], MIXED)
    assert refused.value.status_code == status
    assert words in refused.value.detail
    assert len(refused.value.detail) < 300


def test_of_a_name_only_an_accepted_suffix_is_kept():
    for name in ("../../a.exe", "C:\\a.exe", ".png/..", "a", "\udcff.ex\0e"):
        assert parse_form([("image", PICTURE, name)], MIXED).job.cells["image"].suffix == ""
    assert parse_form([("image", PICTURE, "/etc/x.PNG")], MIXED).job.cells["image"].suffix == ".png"


def test_a_pair_of_frames_is_two_fields():
    columns = {"frames": InputColumn("one", "frame_pair", ("one", "two"), ("image", "image"))}
    found = input_fields(columns, {"frames": FramePairPreprocessConfig(size=(8, 8))})
    assert [one.name for one in found] == ["one", "two"]
    assert found[0].as_json()["kind"] == "frame_pair"
    assert ".png" in found[0].accept
