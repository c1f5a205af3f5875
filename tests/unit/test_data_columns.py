import pytest

from perceivers.data.base import DataConfig
from perceivers.data.columns import InputColumn, check_paths, choose, known_column
from perceivers.data.tables import ColumnTable, Field

IMAGE = Field("image")
PATH = Field("image", by_path=True)
NUMBER = Field("number")
STRING = Field("string")


def test_media_are_inputs_and_the_rest_is_ignored():
    fields = {
        "image": IMAGE,
        "path": PATH,
        "label": NUMBER,
        "rating": NUMBER,
        "sound": Field("audio"),
    }
    choice = choose(fields, DataConfig(), "t")
    assert choice.inputs == {"image": InputColumn("image", "image")}
    assert choice.target == "label"
    assert choice.ignored == ("path", "rating", "sound")
    assert choice.notes == (
        "Inputs: image (pictures).",
        "Target: label.",
        "Not read: path (pictures), sound (sound).",
        "Ignored, as they describe rows and may give the answer away: rating.",
    )


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


@pytest.mark.parametrize("kind", ["audio", "imgae"])
def test_other_kinds_of_inputs_are_refused(kind):
    with pytest.raises(ValueError, match=f"'x' is said to hold '{kind}': this release reads image"):
        choose({"x": Field("audio"), "label": NUMBER}, DataConfig(columns={"x": kind}), "t")


@pytest.mark.parametrize("kind", ["number", "text", "array", "audio"])
def test_columns_that_hold_something_else_are_refused(kind):
    with pytest.raises(ValueError, match="'x' of t is said to hold pictures, but it holds"):
        choose({"x": Field(kind), "label": NUMBER}, DataConfig(columns={"x": "image"}), "t")


def test_data_without_pictures_say_what_was_seen():
    fields = {"audio": Field("audio"), "text": Field("text"), "label": NUMBER}
    with pytest.raises(
        ValueError,
        match=r"t has no column of pictures: 'audio' holds sound; 'text' holds text; 'label' holds "
        r"numbers\. This release reads pictures",
    ):
        choose(fields, DataConfig(), "t")
    with pytest.raises(ValueError, match="there is no column at all"):
        choose({}, DataConfig(), "t")


def test_a_target_that_cannot_be_told_is_asked_for():
    fields = {"image": IMAGE, "species": STRING, "age": NUMBER, "box": Field("array")}
    with pytest.raises(ValueError, match=r"cannot be told\. .* with --label: species, age\."):
        choose(fields, DataConfig(), "t")
    with pytest.raises(ValueError, match="--label: age"):
        choose(fields, DataConfig(group="species"), "t")


def test_pictures_alone_have_no_target():
    choice = choose({"image": IMAGE}, DataConfig(), "t")
    assert choice.target is None
    assert "There are no labels." in choice.notes


def test_a_target_must_be_classes():
    with pytest.raises(ValueError, match="'box' of t holds lists of numbers, not classes"):
        choose({"image": IMAGE, "box": Field("array")}, DataConfig(label="box"), "t")
    with pytest.raises(ValueError, match="'a' of t cannot be both the label and an input"):
        choose({"a": IMAGE}, DataConfig(label="a", columns={"a": "image"}), "t")


def test_paths_that_lead_nowhere_are_said(tmp_path):
    table = ColumnTable(name="t", columns={"file": [None, "a.png"]}, folder=tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"Column 'file' of t names files, but the first, 'a\.png', is not"
    ):
        check_paths(table, ["file"])
    (tmp_path / "a.png").touch()
    check_paths(table, ["file"])
    check_paths(ColumnTable(name="t", columns={"file": [None]}), ["file"])
