from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perceivers.data.sources.samples import samples_of
from perceivers.data.tables.columns import InputColumn
from support.runs import make_image_folder

IMAGE = {"image": InputColumn("image", "image")}
PAIR = {name: InputColumn(name, "image") for name in ("left", "right")}


def names(items, columns=IMAGE, **kwargs):
    return [sample.name for sample in samples_of(items, columns, **kwargs)]


@pytest.fixture
def pictures(tmp_path):
    return make_image_folder(tmp_path / "pictures", count=2)


def test_a_file_a_folder_and_a_glob_are_samples(pictures):
    every = [
        str(pictures / place)
        for place in ("dark/0.png", "dark/1.png", "light/0.png", "light/1.png")
    ]
    assert names(pictures / "dark" / "0.png") == every[:1]
    assert names(str(pictures)) == every
    assert names(str(pictures / "*" / "1.png")) == every[1::2]
    assert names([pictures / "light", str(pictures / "dark" / "0.png")]) == [*every[2:], every[0]]


def test_a_folder_leaves_out_what_is_no_picture(pictures):
    (pictures / "notes.txt").write_text("no picture")
    assert len(names(pictures)) == 4


def test_a_file_named_by_hand_is_never_left_out(tmp_path):
    path = tmp_path / "picture.dat"
    path.write_bytes(b"")
    assert names(path) == [str(path)]


def test_arrays_and_pictures_are_samples():
    array = np.zeros((4, 5, 3), dtype=np.uint8)
    assert names([array, Image.fromarray(array)]) == ["item 0", "item 1"]
    sample = next(samples_of(array, IMAGE))
    assert sample.row["image"].array.shape == (4, 5, 3)


def test_a_dict_holds_one_of_each_modality(pictures):
    left, right = pictures / "dark" / "0.png", pictures / "light" / "0.png"
    assert names({"left": left, "right": right}, PAIR) == [f"{left} + {right}"]
    array = np.zeros((4, 5), dtype=np.uint8)
    assert names([{"left": array, "right": array}], PAIR) == ["item 0"]


def test_what_is_left_out_of_a_dict_is_missing():
    (sample,) = samples_of({"left": np.zeros((4, 5), dtype=np.uint8)}, PAIR)
    assert sample.row["right"].is_missing
    assert not sample.row["left"].is_missing


def test_a_dict_of_something_else_is_refused():
    with pytest.raises(
        KeyError, match=r"Expected a dict with some of left, right; got 'lefd' in item 0. Did you"
    ):
        names({"lefd": np.zeros((4, 5), dtype=np.uint8)}, PAIR)
    with pytest.raises(KeyError, match="some of left, right; got none"):
        names({}, PAIR)


def test_several_modalities_are_named_on_the_command_line(pictures):
    left = pictures / "dark" / "0.png"
    (sample,) = samples_of(f"left={left}", PAIR)
    assert sample.name == str(left)
    assert sample.row["right"].is_missing
    with pytest.raises(ValueError, match=r"Expected NAME=FILE,NAME=FILE,... .*, got 'left=a,b'"):
        names("left=a,b", PAIR)


def test_columns_of_a_table_are_named_too():
    columns = {
        "image": InputColumn("image", "image"),
        "table": InputColumn("age", "table", ("age", "sex"), ("number", "category")),
    }
    (sample,) = samples_of("age=41,sex=f", columns)
    assert sample.row["age"] == "41"
    assert sample.row["sex"] == "f"
    assert sample.row["image"].is_missing
    (sample,) = samples_of({"table": {"age": 3}}, columns)
    assert (sample.row["age"], sample.row["sex"]) == (3, None)


def test_a_model_of_columns_wants_a_table():
    columns = {"series": InputColumn("x", "series", ("x", "y"), ("array", "array"))}
    with pytest.raises(TypeError, match="reads the columns x, y: give a table that has them"):
        names(np.zeros(3), columns)


def test_the_rows_of_a_table_are_samples(tmp_path):
    columns = {"series": InputColumn("x", "series", ("x", "y"), ("array", "array"))}
    path = tmp_path / "rows.jsonl"
    path.write_text('{"x": [1, 2], "y": [3, 4], "z": 1}\n{"x": [5, 6], "y": null}\n')
    first, second = samples_of(path, columns)
    assert first.name == f"{path}, line 1"
    assert first.row["x"].value == [1, 2]
    assert second.row["y"].is_missing
    path.write_text('{"x": [1, 2]}\n')
    with pytest.raises(
        ValueError, match=r"has no column 'y', which the model reads\. Its columns are x"
    ):
        names(path, columns)


def test_a_recording_is_one_sample_and_an_archive_of_many_is_many(tmp_path):
    recording = tmp_path / "a.csv"
    recording.write_text("x\n1\n2\n")
    assert names(recording, {"series": InputColumn("series", "series")}) == [str(recording)]
    arrays = {"array": InputColumn("values", "array")}
    np.savez(tmp_path / "one.npz", values=np.zeros((5, 2)))
    assert names(tmp_path / "one.npz", arrays) == [str(tmp_path / "one.npz")]
    np.savez(tmp_path / "many.npz", values=np.zeros((3, 5, 2)))
    assert len(names(tmp_path / "many.npz", arrays)) == 3
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    assert len(names(tmp_path / "broken.npz", arrays)) == 1


def test_a_text_itself_is_a_sample_of_a_model_of_texts(tmp_path):
    columns = {"text": InputColumn("text", "text")}
    assert next(samples_of("What a film!", columns)).row["text"].value == "What a film!"
    assert next(samples_of("a\nb", columns)).row["text"].value == "a\nb"
    path = tmp_path / "a.txt"
    path.write_text("x")
    assert next(samples_of(str(path), columns)).row["text"].path == path
    assert next(samples_of(str(tmp_path / "*.txt"), columns)).row["text"].path == path
    for text in ("Was it lovely?", "[5/5], a *lovely* one", "see nowhere.txt", "nowhere.txt"):
        assert [sample.row["text"].value for sample in samples_of([text], columns)] == [text]
    with pytest.raises(FileNotFoundError):
        names(Path("nowhere.txt"), columns)
    assert names([1.0, 2.0], {"series": InputColumn("s", "series")}) == ["item 0"]


def test_one_thing_for_several_modalities_is_refused(pictures):
    with pytest.raises(
        TypeError,
        match=r"reads left, right together: give a dict with one of each, or left=",
    ):
        names(pictures, PAIR)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file, folder or match for '.*nowhere\.png'"):
        names(tmp_path / "nowhere.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"Expected images in the folder '.*empty'; found none"):
        names(tmp_path / "empty")


def test_errors_can_be_collected(pictures):
    failed = []
    items = ["nowhere.png", pictures / "dark"]
    found = names(items, on_error=lambda name, error: failed.append((name, str(error))))
    assert len(found) == 2
    assert failed == [("nowhere.png", "There is no file, folder or match for 'nowhere.png'.")]


def test_a_folder_is_read_as_in_training_and_the_rest_is_named(pictures):
    for name in ("._1.png", ".cache/2.png", "__MACOSX/3.png", "4.jxl", ".DS_Store"):
        (pictures / "dark" / name).parent.mkdir(exist_ok=True)
        (pictures / "dark" / name).touch()
    skipped = []
    assert len(names(pictures / "dark", on_skip=skipped.append)) == 2
    assert skipped == [
        f"Skipped in '{pictures / 'dark'}': 1 file not read as images (4.jxl) and 3 hidden (.cache, __MACOSX, ._1.png)."
    ]


def test_masks_beside_images_are_no_samples(tmp_path):
    for name in ("1.png", "1_mask.png", "2.png", "2_mask.png"):
        Image.new("L", (4, 4)).save(tmp_path / name)
    assert names(tmp_path) == [str(tmp_path / "1.png"), str(tmp_path / "2.png")]


@pytest.mark.parametrize("kind", ["array", "text"])
def test_a_model_reads_the_files_that_it_was_trained_on(tmp_path, kind):
    suffix = {"array": "npy", "text": "txt"}[kind]
    (tmp_path / f"1.{suffix}").touch()
    (tmp_path / "2.ply").touch()
    columns = {"points": InputColumn(kind, "points")}
    assert names(tmp_path, columns) == [str(tmp_path / f"1.{suffix}"), str(tmp_path / "2.ply")]


def test_a_folder_with_a_table_is_read_by_a_model_of_several_columns(pictures):
    (pictures / "metadata.csv").write_text("file_name,age\ndark/0.png,4\nlight/0.png,5\n")
    columns = {
        "image": InputColumn("file_name", "image"),
        "table": InputColumn("age", "table", ("age",), ("number",)),
    }
    found = list(samples_of(pictures, columns))
    assert [sample.row["age"] for sample in found] == [4, 5]


@pytest.mark.parametrize("folder", ["a=b", "new [1]", "x, y", "left=z", "ü é"])
def test_paths_of_any_name(pictures, folder):
    place = (pictures / "dark").rename(pictures / folder)
    assert names(str(place / "0.png")) == [str(place / "0.png")]
    assert names(str(place / "*.png")) == [str(place / "0.png"), str(place / "1.png")]
    (sample,) = samples_of(f"left={place / '0.png'},right={place / '1.png'}", PAIR)
    assert [sample.row[name].path for name in PAIR] == [place / "0.png", place / "1.png"]


def test_a_pattern_may_match_folders(pictures):
    assert len(names(str(pictures / "*"))) == 4


def test_a_text_with_commas_beside_a_file():
    columns = {"image": InputColumn("image", "image"), "text": InputColumn("text", "text")}
    text = "Red, white, blue" * 30
    (sample,) = samples_of(f"text={text},image=a.png", columns)
    assert sample.row["text"].value == text
    assert str(sample.row["image"].path) == "a.png"
