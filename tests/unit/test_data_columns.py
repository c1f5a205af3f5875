import re

import pytest

from perceivers.data.base import DataConfig
from perceivers.data.tables.columns import InputColumn, check_paths, choose, known_column
from perceivers.data.tables.table import ColumnTable, Field

IMAGE = Field("image")
PATH = Field("image", by_path=True)
NUMBER = Field("number")
STRING = Field("string")


def test_media_are_inputs_and_the_rest_is_ignored():
    fields = {"image": IMAGE, "path": PATH, "label": NUMBER, "rating": NUMBER}
    choice = choose(fields, DataConfig(), "t")
    assert choice.inputs == {"image": InputColumn("image", "image")}
    assert choice.target == "label"
    assert choice.ignored == ("path", "rating")
    assert choice.notes == (
        "Inputs: image (images).",
        "Target: label.",
        "Not read: path (images).",
        "Ignored, as they describe rows and may give the answer away: rating (--columns '*' reads them too).",
    )


def test_many_columns_are_counted():
    fields = {f"x{n}": NUMBER for n in range(30)} | {"label": NUMBER}
    choice = choose(fields, DataConfig(columns=dict.fromkeys(list(fields)[:30], "number")), "t")
    assert re.fullmatch(r"Inputs: x0, x1, .*, x11 and 18 more \(.*\)\.", choice.notes[0])


def test_columns_of_several_kinds_are_read_together():
    lists = Field("array", shape=(200,))
    fields = {
        "photo": PATH,
        "text": Field("text"),
        "source": Field("text", by_path=True),
        "ax": lists,
        "ay": lists,
        "cloud": Field("array", shape=(1024, 3)),
        "grid": Field("array", shape=(5, 7)),
        "odd": Field("array"),
        "label": NUMBER,
    }
    choice = choose(fields, DataConfig(), "t")
    assert choice.inputs == {
        "image": InputColumn("photo", "image"),
        "text": InputColumn("text", "text"),
        "points": InputColumn("cloud", "points"),
        "array": InputColumn("grid", "array"),
        "series": InputColumn("ax", "series", ("ax", "ay"), ("array", "array")),
    }
    assert choice.notes[0] == (
        "Inputs: photo (images, named image), text, cloud (points), grid (arrays, named array), "
        "ax, ay (series, 2 channels)."
    )
    assert choice.columns == ["photo", "text", "cloud", "grid", "ax", "ay", "label"]
    kept = choice.kept(fields, "t")
    assert kept["cloud"].kind == "points"
    assert kept["ax"] == lists
    with pytest.raises(ValueError, match="u lacks the column 'photo' that the others have"):
        choice.kept({}, "u")
    fields.pop("label")
    assert "label" not in choice.kept(fields, "t", without_target=True)


def test_a_film_gives_pictures_and_sound():
    film = {"clip": Field("video"), "label": NUMBER}
    choice = choose(film, DataConfig(columns={"clip": "film"}), "t")
    assert choice.inputs == {
        "video": InputColumn("clip", "video"),
        "audio": InputColumn("clip", "audio"),
    }
    assert choice.kept(film, "t")["clip"].kind == "video"
    alone = choose(film, DataConfig(columns={"clip": "audio"}), "t")
    assert alone.inputs == {"audio": InputColumn("clip", "audio")}


def test_named_numbers_and_categories_are_one_table():
    fields = {"age": NUMBER, "sex": STRING, "image": IMAGE, "x": Field("array", shape=(3,))}
    columns = {"age": "number", "sex": "category", "image": "image", "x": "series"}
    choice = choose(fields, DataConfig(columns=columns), "t")
    assert choice.inputs == {
        "image": InputColumn("image", "image"),
        "series": InputColumn("x", "series", ("x",), ("array",)),
        "table": InputColumn("age", "table", ("age", "sex"), ("number", "category")),
    }
    assert choice.kept(fields, "t")["sex"].kind == "category"


def test_what_is_only_handed_on_stays_plain():
    fields = {"image": IMAGE, "label": Field("text"), "who": Field("text", by_path=True)}
    kept = choose(fields, DataConfig(group="who"), "t").kept(fields, "t")
    assert kept["label"].kind == kept["who"].kind == "other"
    assert not kept["who"].by_path


def test_a_trained_model_reads_its_columns_or_else_its_kinds():
    model = {"image": InputColumn("photo", "image"), "audio": InputColumn("clip", "audio")}
    fields = {"photo": IMAGE, "clip": Field("video"), "label": NUMBER}
    assert choose(fields, DataConfig(), "t", inputs=model).inputs == model
    other = {"picture": IMAGE, "film": Field("video"), "label": NUMBER}
    assert choose(other, DataConfig(), "t", inputs=model).inputs == {
        "image": InputColumn("picture", "image"),
        "audio": InputColumn("film", "audio"),
    }
    with pytest.raises(
        ValueError, match=r"reads image \(images\), audio \(audio\), and t holds s \(text"
    ):
        choose({"s": Field("text")}, DataConfig(), "t", inputs=model)


def test_one_input_is_called_image_and_several_by_their_columns():
    assert list(choose({"photo": PATH, "label": NUMBER}, DataConfig(), "t").inputs) == ["image"]
    two = choose({"left": IMAGE, "right": IMAGE, "label": NUMBER}, DataConfig(), "t")
    assert two.inputs == {
        "left": InputColumn("left", "image"),
        "right": InputColumn("right", "image"),
    }


def test_the_user_names_columns():
    fields = {"a": IMAGE, "b": IMAGE, "species": STRING, "who": NUMBER, "fold": NUMBER}
    config = DataConfig(columns={"b": "image"}, label="species", group="who", split_column="fold")
    choice = choose(fields, config, "t")
    assert choice.inputs == {"image": InputColumn("b", "image")}
    assert choice.columns == ["b", "species", "who", "fold"]
    assert choice.ignored == ("a",)


@pytest.mark.parametrize(
    "config",
    [
        DataConfig(label="lable"),
        DataConfig(group="lable"),
        DataConfig(split_column="lable"),
        DataConfig(columns={"lable": "image"}),
    ],
)
def test_a_missing_column_suggests_the_nearest(config):
    with pytest.raises(
        ValueError,
        match=r"t has no column 'lable'\. Did you mean 'label'\? Its columns are image, label\.",
    ):
        choose({"image": IMAGE, "label": NUMBER}, config, "t")


def test_nothing_is_suggested_where_nothing_is_near():
    with pytest.raises(ValueError, match=r"t has no column 'zzz'\. Its columns are image\."):
        known_column("zzz", {"image": IMAGE}, "t")


def test_unknown_kinds_of_inputs_are_refused():
    with pytest.raises(
        ValueError, match="'x' has the unknown kind 'imgae': expected one of image, audio, video"
    ):
        choose({"x": Field("audio"), "label": NUMBER}, DataConfig(columns={"x": "imgae"}), "t")


@pytest.mark.parametrize("kind", ["number", "text", "audio"])
def test_columns_that_hold_something_else_are_refused(kind):
    with pytest.raises(ValueError, match="'x' of t cannot be read as images: it holds"):
        choose({"x": Field(kind), "label": NUMBER}, DataConfig(columns={"x": "image"}), "t")
    with pytest.raises(ValueError, match="cannot be read as categories: it holds images"):
        choose({"x": IMAGE}, DataConfig(columns={"x": "category"}), "t")


def test_data_without_anything_to_read_say_what_was_seen_and_how_to_name_it():
    fields = {"when": Field("other"), "label": NUMBER}
    with pytest.raises(
        ValueError,
        match=r"t has no column of images, .*: 'when' holds something unknown; 'label' holds "
        r"numbers\. Expected .* --columns COLUMN:KIND",
    ):
        choose(fields, DataConfig(), "t")
    with pytest.raises(ValueError, match=r"there is no column at all.*--columns COLUMN:KIND"):
        choose({}, DataConfig(), "t")


def test_a_target_that_cannot_be_told_is_asked_for():
    fields = {"image": IMAGE, "species": STRING, "age": NUMBER, "box": Field("array")}
    with pytest.raises(ValueError, match=r"cannot be inferred\. .* with --label: species, age\."):
        choose(fields, DataConfig(), "t")
    with pytest.raises(ValueError, match="--label: age"):
        choose(fields, DataConfig(group="species"), "t")


def test_pictures_alone_have_no_target():
    choice = choose({"image": IMAGE}, DataConfig(), "t")
    assert choice.target is None
    assert "There are no labels." in choice.notes


def test_a_target_must_be_something_to_learn():
    with pytest.raises(ValueError, match="'b' of t holds images, not classes: expected names"):
        choose({"image": IMAGE, "b": IMAGE}, DataConfig(label="b"), "t")
    with pytest.raises(ValueError, match="'a' of t cannot be both the label and an input"):
        choose({"a": IMAGE}, DataConfig(label="a", columns={"a": "image"}), "t")
    lists = {"image": IMAGE, "tags": Field("array")}
    assert choose(lists, DataConfig(label="tags"), "t").target == "tags"


def test_paths_that_lead_nowhere_are_said(tmp_path):
    table = ColumnTable(name="t", columns={"file": [None, "a.png"]}, folder=tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"Column 'file' of t names files, but the first, 'a\.png', is not"
    ):
        check_paths(table, ["file"])
    (tmp_path / "a.png").touch()
    check_paths(table, ["file"])
    check_paths(ColumnTable(name="t", columns={"file": [None]}), ["file"])
