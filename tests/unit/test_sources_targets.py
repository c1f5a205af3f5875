"""Targets of opened data: classes, several labels, numbers."""

import numpy as np
import pytest

from perceivers.data.base import DataConfig
from perceivers.data.sources.open import open_data
from support.files import write_csv, write_jsonl
from support.image_data import write_png

PLAIN = DataConfig()


def folder_of(tmp_path, *names):
    for number, name in enumerate(names):
        write_png(tmp_path / name, number)
    return tmp_path


def test_several_labels_in_a_list(tmp_path):
    folder_of(tmp_path, "1.png", "2.png", "3.png")
    rows = [
        {"file": f"{n}.png", "label": labels}
        for n, labels in enumerate((["rain", "dog"], [], ["dog"]), start=1)
    ]
    source = open_data(write_jsonl(tmp_path / "a.jsonl", rows), PLAIN)
    assert (source.target_kind, source.label_names) == ("labels", ("dog", "rain"))
    assert np.asarray(source.targets("train")).tolist() == [[1, 1], [0, 0], [1, 0]]
    assert source.splits["train"].row(0)["label"].tolist() == [1, 1]
    assert source.class_counts("train") == [2, 1]
    assert source.target_moments() is None
    assert "2 labels, several in a row: dog, rain." in source.notes


def test_several_labels_in_a_text(tmp_path):
    folder_of(tmp_path, "train/1.png", "train/2.png", "test/1.png")
    rows = [{"file": f"{n}.png", "tags": tags} for n, tags in ((1, "dog;rain"), (2, "rain"))]
    write_csv(tmp_path / "train" / "a.csv", rows)
    write_csv(tmp_path / "test" / "a.csv", [{"file": "1.png", "tags": "dog"}])
    source = open_data(tmp_path, DataConfig(label="tags", target="labels"))
    assert np.asarray(source.targets("test")).tolist() == [[1, 0]]


def test_a_number_to_predict(tmp_path):
    folder_of(tmp_path, *(f"{n}.png" for n in range(30)))
    rows = [{"file": f"{n}.png", "age": n + 0.5} for n in range(30)]
    path = write_csv(tmp_path / "a.csv", rows)
    source = open_data(path, DataConfig(label="age"))
    assert (source.target_kind, source.label_names) == ("number", ("age",))
    assert np.asarray(source.targets("train")).shape == (30, 1)
    mean, std = source.target_moments()
    assert (mean[0], std[0]) == (15.0, pytest.approx(8.6554, rel=1e-4))
    assert any("holds a number to learn: age (0.5 to 29.5)." in note for note in source.notes)
    with pytest.raises(ValueError, match="The target 'age' is a number, so there are no classes"):
        source.class_counts("train")
    known = open_data(path, DataConfig(label="age", target="number"), label_names=("years",))
    assert known.label_names == ("years",)


def test_rows_without_a_number_are_skipped_and_counted(tmp_path):
    folder_of(tmp_path, "1.png", "2.png", "3.png")
    for missing in ("", "NA"):
        rows = [{"file": f"{n}.png", "age": age} for n, age in ((1, 1.5), (2, missing), (3, 2.5))]
        path = write_csv(tmp_path / "a.csv", rows)
        source = open_data(path, DataConfig(label="age", target="number"))
        assert np.asarray(source.targets("train")).tolist() == [[1.5], [2.5]]
        assert any(note.endswith("a.csv, line 3.") for note in source.notes)


def test_minus_one_is_a_number(tmp_path):
    folder_of(tmp_path, "train/1.png", "train/2.png", "test/1.png")
    rows = [{"file": f"{n}.png", "label": n} for n in (1, 2)]
    write_csv(tmp_path / "train" / "a.csv", rows)
    write_csv(tmp_path / "test" / "a.csv", [{"file": "1.png", "label": -1}])
    source = open_data(tmp_path, DataConfig(target="number"))
    assert np.asarray(source.targets("test")).tolist() == [[-1.0]]


def test_classes_are_counted(tmp_path):
    source = open_data(folder_of(tmp_path, "a/1.png", "a/2.png", "b/3.png"), PLAIN)
    assert source.class_counts("train") == [2, 1]


def test_a_test_split_alone_without_labels_leaves_nothing(tmp_path):
    folder_of(tmp_path, "1.png")
    write_csv(tmp_path / "test.csv", [{"file": "1.png", "label": ""}])
    source = open_data(tmp_path, PLAIN, label_names=("ant", "bee"))
    assert (dict(source.splits), source.label_names) == ({}, ("ant", "bee"))
    assert "Left out: test, as none of its 1 rows has a label." in source.notes
