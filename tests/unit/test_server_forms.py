import pytest
from starlette.exceptions import HTTPException

from perceivers.data.modalities.flow.modality import FramePairPreprocessConfig
from perceivers.data.tables.columns import InputColumn
from perceivers.server.decoding import Upload
from perceivers.server.forms import InputField, input_fields, parse_form
from perceivers.server.service import describe_outputs
from perceivers.tasks.classification import ClassificationConfig
from perceivers.tasks.multitask import MultiTaskConfig
from perceivers.tasks.regression import RegressionConfig

CLASSES = ClassificationConfig(label_names=("low", "high"))
NUMBERS = RegressionConfig(target_names=("age",))
PICTURE = b"\x89PNG\r\n\x1a\n"


def test_each_task_has_an_output_with_its_names():
    task = MultiTaskConfig(parts={"digit": CLASSES, "age": NUMBERS})
    assert describe_outputs(task) == [
        {"name": "digit", "task": "classification", "names": ["low", "high"]},
        {"name": "age", "task": "regression", "names": ["age"]},
    ]
    assert describe_outputs(NUMBERS) == [{"name": "", "task": "regression", "names": ["age"]}]


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


def test_files_or_texts_name_a_sample():
    given = [("note", "hello", ""), ("age", "3", "")]
    assert parse_form(given, MIXED).name == "hello"
    assert parse_form([*given, ("image", PICTURE, "/a/b.png")], MIXED).name == "/a/b.png"
    assert parse_form([("age", "3", "")], MIXED).name == ""
    assert parse_form([("note", "x" * 300, "")], MIXED).name == ""
    assert len(parse_form([("image", PICTURE, "x" * 5000)], MIXED).name) == 300
    both = [("file", b"film", "a.mp4"), ("audio", b"sound", "b.wav")]
    assert parse_form(both, FIELDS).name == "a.mp4 + b.wav"


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
