import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from perceivers.data.base import DataConfig
from perceivers.data.sources.open import open_data
from support.files import write_csv, write_jsonl, write_parquet, write_tar
from support.image_data import FEATURES, cells, dataset_dict, members, png, write_png

PLAIN = DataConfig()


def folder_of(tmp_path, *names):
    for number, name in enumerate(names):
        write_png(tmp_path / name, number)
    return tmp_path


def test_a_folder_of_classes(tmp_path):
    source = open_data(folder_of(tmp_path, "dog/1.png", "cat/2.png", "10/3.png", "9/4.png"), PLAIN)
    assert source.form == "a folder of classes"
    assert source.label_names == ("9", "10", "cat", "dog")
    assert source.targets("train") == [1, 0, 2, 3]


def test_files_without_labels(tmp_path):
    source = open_data(str(folder_of(tmp_path, "1.png", "2.png")), PLAIN)
    assert (source.target, source.label_names) == (None, ())
    assert "There are no labels." in source.notes
    with pytest.raises(ValueError, match="no labels in a folder of files without labels"):
        source.targets("train")


def test_one_class_only_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has one class only, 'cat', in all 2 rows"):
        open_data(folder_of(tmp_path, "cat/1.png", "cat/2.png"), PLAIN)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="No data are recognized in the folder"):
        open_data(tmp_path, PLAIN)


def test_a_split_that_is_not_there_is_named(tmp_path):
    source = open_data(folder_of(tmp_path, "cat/1.png", "dog/2.png"), PLAIN)
    with pytest.raises(ValueError, match="no split 'test' in a folder of classes; there is train"):
        source.targets("test")


def test_a_label_that_train_has_not_is_named(tmp_path):
    data = folder_of(tmp_path, "train/cat/1.png", "train/dog/2.png", "test/owl/3.png")
    with pytest.raises(
        ValueError,
        match=r"test, row 0 has the label 'owl', which was not seen in training.* cat, dog",
    ):
        open_data(data, PLAIN)


def test_rows_with_a_label_that_the_model_has_not_are_skipped_and_counted(tmp_path):
    data = folder_of(tmp_path, "cat/1.png", "dog/2.png")
    source = open_data(data, PLAIN, label_names=("cat", "owl"))
    assert source.targets("train") == [0]
    assert any("'dog' (1). Metrics do not count them." in note for note in source.notes)
    with pytest.raises(ValueError, match="has the label 'cat', which was not seen in training"):
        open_data(data, PLAIN, label_names=("ape", "owl"))


def test_one_class_is_enough_for_a_trained_model(tmp_path):
    source = open_data(folder_of(tmp_path, "cat/1.png"), PLAIN, label_names=("ant", "cat"))
    assert source.targets("train") == [1]


def test_rows_without_a_label_are_skipped_and_counted(tmp_path):
    folder_of(tmp_path, "1.png", "2.png")
    rows = [{"file": "1.png", "label": "a"}, {"file": "2.png", "label": ""}]
    rows.append({"file": "2.png", "label": "b"})
    source = open_data(write_csv(tmp_path / "a.csv", rows), PLAIN)
    assert source.targets("train") == [0, 1]
    (note,) = [note for note in source.notes if note.startswith("Skipped")]
    assert note.startswith("Skipped: 1 of 3 rows of train have no label in column 'label', such as")
    assert note.endswith("a.csv, line 3.")


def test_a_split_without_labels_is_left_out_and_said(tmp_path):
    data = folder_of(tmp_path, "train/cat/1.png", "train/dog/2.png", "test/1.png", "test/2.png")
    source = open_data(data, PLAIN)
    assert list(source.splits) == ["train"]
    assert "Left out: test, as none of its 2 rows has a label." in source.notes
    write_parquet(tmp_path / "train.parquet", cells(range(6)), FEATURES)
    hidden = {**cells(range(2)), "label": [-1, -1]}
    write_parquet(tmp_path / "test.parquet", hidden, FEATURES)
    assert list(open_data(tmp_path, PLAIN).splits) == ["train"]


def test_a_split_without_an_input_is_refused(tmp_path):
    write_parquet(tmp_path / "train.parquet", cells(range(6)), FEATURES)
    write_parquet(tmp_path / "test.parquet", {"label": [1, 2]})
    with pytest.raises(ValueError, match=r"The split test \(.*\) lacks the column 'image'"):
        open_data(tmp_path, PLAIN)


def test_splits_that_order_their_classes_differently_agree(tmp_path):
    write_parquet(tmp_path / "train.parquet", cells(range(6)), FEATURES)
    turned = {**FEATURES, "label": {"_type": "ClassLabel", "names": ["eel", "dog", "cat"]}}
    write_parquet(tmp_path / "test.parquet", cells(range(3)), turned)
    assert open_data(tmp_path, PLAIN).targets("test") == [2, 1, 0]


def test_numbers_without_names_are_named_by_themselves(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", cells(range(6)))
    source = open_data(path, PLAIN)
    assert source.label_names == ("0", "1", "2")
    assert open_data(path, PLAIN, label_names=("x", "y", "z")).targets("train")[:3] == [0, 1, 2]


def test_two_images_are_two_modalities(tmp_path):
    folder_of(tmp_path, "1.png", "2.png")
    rows = [{"left": "1.png", "right": "2.png", "label": label} for label in "ab"]
    source = open_data(write_jsonl(tmp_path / "a.jsonl", rows), PLAIN)
    assert {k: v.column for k, v in source.inputs.items()} == {"left": "left", "right": "right"}
    row = source.splits["train"].row(0)
    assert (row["left"].read(), row["right"].read()) == (png(0), png(1))


def test_named_columns_are_pictures_whatever_their_suffix(tmp_path):
    write_png(tmp_path / "one", 1)
    path = write_csv(tmp_path / "a.csv", [{"file": "one", "label": label} for label in "ab"])
    source = open_data(path, DataConfig(columns={"file": "image"}))
    assert source.splits["train"].row(0)["file"].read() == png(1)
    with pytest.raises(ValueError, match=r"'file' of .* holds short strings that name files"):
        open_data(path, PLAIN)


def test_paths_that_lead_nowhere_are_said(tmp_path):
    path = write_csv(tmp_path / "a.csv", [{"file": f"{n}.png", "label": n} for n in range(2)])
    with pytest.raises(
        FileNotFoundError, match=r"names files, but the first, '0\.png', is not there"
    ):
        open_data(path, PLAIN)


def test_files_of_a_pattern(tmp_path):
    write_tar(tmp_path / "s-000.tar", members(range(3)))
    write_tar(tmp_path / "s-001.tar", members(range(3, 6)))
    source = open_data(f"{tmp_path}/s-{{000..001}}.tar", PLAIN)
    assert len(source.splits["train"]) == 6
    assert source.splits["train"].row(5)["image"].read() == png(5)


def test_a_split_in_folders_of_tables(tmp_path):
    write_parquet(tmp_path / "train" / "0.parquet", cells(range(3)), FEATURES)
    write_parquet(tmp_path / "train" / "1.parquet", cells(range(3, 6)), FEATURES)
    write_parquet(tmp_path / "test" / "0.parquet", cells(range(3)), FEATURES)
    source = open_data(tmp_path, PLAIN)
    assert {k: len(v) for k, v in source.splits.items()} == {"train": 6, "test": 3}


def test_metadata_that_is_split_further_inside_a_split_is_one_table(tmp_path):
    for split in ("train", "test"):
        names = [write_png(tmp_path / split / sub / "1.png", 1).name for sub in ("train", "test")]
        rows = [
            {"file_name": f"{sub}/{name}", "label": sub}
            for sub, name in zip(("train", "test"), names, strict=True)
        ]
        write_csv(tmp_path / split / "metadata.csv", rows)
    assert {k: len(v) for k, v in open_data(tmp_path, PLAIN).splits.items()} == {
        "train": 2,
        "test": 2,
    }


def folds(tmp_path, column="fold", values=(1, 2, 3, 1, 2, 3)):
    rows = [
        {"image": f"{n}.png", "label": n % 2, column: value, "who": n % 3}
        for n, value in enumerate(values)
    ]
    folder_of(tmp_path, *(f"{n}.png" for n in range(len(values))))
    return write_csv(tmp_path / "a.csv", rows)


def test_a_fold_is_the_test_split(tmp_path):
    source = open_data(folds(tmp_path), DataConfig(split_column="fold", test="3"))
    assert {k: len(v) for k, v in source.splits.items()} == {"train": 4, "test": 2}
    assert source.splits["test"].column("fold") == [3, 3]
    assert "Rows are divided by column 'fold'." in source.notes
    assert source.ignored == ("who",)


def test_a_column_names_the_splits(tmp_path):
    path = folds(tmp_path, "part", ["train", "val", "train", "train", "test", "test"])
    source = open_data(path, DataConfig(split_column="part"))
    assert {k: len(v) for k, v in source.splits.items()} == {
        "train": 3,
        "validation": 1,
        "test": 2,
    }


def test_splits_that_are_given_are_divided_anew(tmp_path):
    for split in ("train", "test"):
        folds(tmp_path / split).rename(tmp_path / f"{split}.csv")
    for n in range(6):
        write_png(tmp_path / f"{n}.png", n)
    for split in ("train", "test"):
        for path in (tmp_path / split).iterdir():
            path.unlink()
        (tmp_path / split).rmdir()
    source = open_data(tmp_path, DataConfig(split_column="fold", test="1"))
    assert {k: len(v) for k, v in source.splits.items()} == {"train": 8, "test": 4}


def test_folds_that_do_not_exist_are_refused(tmp_path):
    path = folds(tmp_path)
    with pytest.raises(
        ValueError, match=r"No row of .* has '9' in column 'fold'; .* are 1, 2, 3\."
    ):
        open_data(path, DataConfig(split_column="fold", test="9"))
    with pytest.raises(
        ValueError, match=r"'fold' of .* must hold train, .* are 1, 2, 3\. Name the"
    ):
        open_data(path, DataConfig(split_column="fold"))
    with pytest.raises(ValueError, match=r"has no column 'flod'\. Did you mean 'fold'\?"):
        open_data(path, DataConfig(split_column="flod"))
    with pytest.raises(ValueError, match="test='1' names a value, but not its column"):
        open_data(path, DataConfig(test="1"))
    path = folds(tmp_path, "part", ["test"] * 4)
    with pytest.raises(ValueError, match=r"is in test by column 'part': nothing is left to train"):
        open_data(path, DataConfig(split_column="part"))


def test_groups_on_both_sides_of_given_splits_are_said(tmp_path):
    config = DataConfig(split_column="fold", test="3", group="who")
    source = open_data(folds(tmp_path, values=(1, 2, 3, 1, 3, 1)), config)
    assert source.notes[-1] == ("Warning: 2 values of 'who' occur in both train and test.")
    assert "Warning" not in open_data(folds(tmp_path), config).notes[-1]


def test_a_data_frame(tmp_path, monkeypatch):
    monkeypatch.chdir(folder_of(tmp_path, "1.png"))
    frame = pd.DataFrame(
        {
            "picture": ["1.png", "1.png"],
            "label": pd.Categorical(["a", "b"]),
            "age": [1.0, np.nan],
        }
    )
    source = open_data(frame, PLAIN)
    assert source.form == "a DataFrame"
    assert source.splits["train"].row(0)["picture"].read() == png(0)
    assert source.ignored == ("age",)
    with pytest.raises(ValueError, match="The DataFrame holds no rows"):
        open_data(frame[:0], PLAIN)


def test_empty_and_iterable_data_sets_are_refused():
    whole = dataset_dict()
    whole["test"] = whole["test"].select([])
    with pytest.raises(ValueError, match=r"The split test of the data set holds no rows"):
        open_data(whole, PLAIN)
    with pytest.raises(ValueError, match="An iterable data set is streamed: set stream=True"):
        open_data(whole["train"].to_iterable_dataset(), PLAIN)


def test_anything_else_is_refused():
    with pytest.raises(TypeError, match=r"Expected a path, a hub id, .* got int"):
        open_data(3, PLAIN)
    with pytest.raises(TypeError, match="got int"):
        open_data(3, DataConfig(stream=True))


def test_what_is_read_by_index_says_that_streaming_changes_nothing(tmp_path):
    folder = folder_of(tmp_path / "a", "cat/1.png", "dog/2.png")
    assert open_data(folder, DataConfig(stream=True)).notes[-1].startswith("These data are read by")
    np.savez(tmp_path / "b.npz", images=np.zeros((2, 3, 3)), label=np.array([0, 1]))
    assert open_data(tmp_path / "b.npz", DataConfig(stream=True)).streams == {}


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "a.parquet", cells(range(3)))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r'pyarrow is needed.*pip install "perceivers\[data\]"'):
        open_data(path, PLAIN)


def test_real_pictures(real_data):
    source = open_data(real_data("cifar10"), PLAIN)
    assert {k: len(v) for k, v in source.splits.items()} == {"train": 50_000, "test": 10_000}
    assert source.label_names[:2] == ("airplane", "automobile")
    assert np.bincount(source.targets("test")).tolist() == [1000] * 10
    assert source.splits["test"].row(0)["image"].read().startswith(b"\xff\xd8")


WATCH = tuple(f"{sensor}_{axis}" for sensor in ("accel", "gyro") for axis in "xyz")


@pytest.mark.parametrize(
    ("name", "kind", "columns", "classes"),
    [
        ("esc10", "audio", ("audio",), 10),
        ("fsdd", "audio", ("audio",), 10),
        ("ucf101_3class", "video", ("video",), 3),
        ("modelnet10", "points", ("points",), 10),
        ("modelnet10_off", "points", ("points",), 10),
        ("wisdm51_watch", "series", WATCH, 18),
        ("tinyshakespeare", "text", ("text",), 0),
    ],
)
def test_real_data_of_every_kind(real_data, name, kind, columns, classes):
    source = open_data(real_data(name), PLAIN)
    assert list(source.inputs) == [kind]
    assert source.inputs[kind].all_columns == columns
    assert len(source.label_names) == classes
    assert (source.target == "label") == bool(classes)


def test_reading_pictures_from_folders_needs_no_extra():
    code = (
        "import sys, perceivers.data.sources.open, perceivers.data.sources.split, perceivers.data.sources.builtin; "
        "print({'pyarrow', 'pandas', 'datasets', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
