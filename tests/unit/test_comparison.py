from dataclasses import replace

import pytest
from PIL import Image

from perceivers.runs.comparison import compare_runs, differences, draw_comparison
from perceivers.tasks.regression import RegressionConfig
from support.runs import make_finished_run, make_image_folder, make_recipe


def test_settings_that_differ_are_told_by_their_place():
    one = {"kind": "a", "lr": 1.0, "names": list("abcdefgh"), "part": {"kind": "x", "n": 1}}
    two = {"kind": "a", "lr": 2.0, "names": list("abcdefgi"), "part": {"kind": "y", "m": 1}}
    assert differences([one, one]) == {}
    assert differences([one, two]) == {
        "lr": [1.0, 2.0],
        "names": ["8 values", "8 values"],
        "part": ["x", "y"],
    }
    assert differences([{"a": {"b": {}}}, {"a": {}}]) == {"a.b": ["none", "-"]}
    assert differences([{"a": 1}, None]) == {"recipe": ["a", None]}


def test_runs_on_the_same_data_have_nothing_against_them(tmp_path):
    encoder = replace(make_recipe().encoder, num_latents=8)
    data = make_image_folder(tmp_path / "birds")
    folders = [
        make_finished_run(tmp_path / "a", data=data),
        make_finished_run(tmp_path / "b", data=data, encoder=encoder),
    ]
    found = compare_runs(folders)
    assert found.settings == {"encoder.num_latents": [4, 8]}
    assert (found.notes, found.left_out) == ([], [])
    assert found.measures == [
        ("validation", "accuracy"),
        ("validation", "loss"),
        ("validation", "samples"),
    ]


def test_broken_runs_are_told_and_the_others_kept(tmp_path):
    good = make_finished_run(tmp_path / "a")
    broken = make_finished_run(tmp_path / "b")
    (broken / "recipe.yaml").write_text("name: [")
    found = compare_runs([good, broken, tmp_path / "nowhere"])
    assert [run.name for run in found.runs] == ["a"]
    assert [name for name, _ in found.left_out] == [str(broken), str(tmp_path / "nowhere")]
    assert "is not YAML" in found.left_out[0][1]
    with pytest.raises(ValueError, match="None of these can be compared"):
        compare_runs([broken])


def test_what_may_not_be_compared_is_said(tmp_path):
    data, other = make_image_folder(tmp_path / "birds"), make_image_folder(tmp_path / "other")
    a = make_finished_run(tmp_path / "a", data=data)
    b = make_finished_run(tmp_path / "b", data=other)
    assert "different splits are not comparable" in compare_runs([a, b]).notes[0]
    going = make_finished_run(tmp_path / "going", ended=False)
    notes = compare_runs([a, going]).notes
    assert notes[0] == "going has not ended: unfinished, 20 steps done."
    assert "Which data going learned from is not known" in notes[1]


def test_other_tasks_and_other_ways_to_divide_are_said(tmp_path):
    data = make_image_folder(tmp_path / "birds")
    a = make_finished_run(tmp_path / "a", data=data)
    numbers = RegressionConfig(target_names=("age",), mean=(0.0,), std=(1.0,))
    going = make_finished_run(tmp_path / "going", ended=False, task=numbers)
    told = " ".join(compare_runs([a, going]).notes)
    assert "Other tasks (a classification, going regression)" in told
    split = make_finished_run(tmp_path / "split", data=data)
    text = (split / "recipe.yaml").read_text()
    (split / "recipe.yaml").write_text(text.replace("split_seed: 0", "split_seed: 1"))
    assert "divided or labeled in other ways (data.split_seed)" in compare_runs([a, split]).notes[0]


def test_other_numbers_of_samples_are_said(tmp_path):
    data = make_image_folder(tmp_path / "birds")
    a, b = (make_finished_run(tmp_path / name, data=data) for name in "ab")
    text = (b / "report.json").read_text()
    (b / "report.json").write_text(text.replace('"samples": 8.0', '"samples": 9.0'))
    assert compare_runs([a, b]).notes == [
        "validation was measured on different numbers of samples: a on 8, b on 9."
    ]


def test_the_picture_has_a_row_for_each_main_metric(tmp_path):
    a = make_finished_run(tmp_path / "a")
    numbers = RegressionConfig(target_names=("age",), mean=(0.0,), std=(1.0,))
    b = make_finished_run(tmp_path / "b", ended=False, task=numbers)
    draw_comparison(compare_runs([a, b]), tmp_path / "compare.png")
    with Image.open(tmp_path / "compare.png") as picture:
        assert picture.height > 700
