import pytest

from perceivers.data.sources.folders import (
    class_table,
    file_table,
    image_pair_table,
    metadata_splits,
    metadata_table,
)
from support.files import write_csv, write_jsonl
from support.image_data import write_png


def test_folders_are_classes_and_other_files_are_left_out(tmp_path):
    write_png(tmp_path / "dog" / "deep" / "2.png", 2)
    write_png(tmp_path / "cat" / "1.png", 1)
    (tmp_path / "cat" / "licence.txt").touch()
    (tmp_path / "cat" / "Thumbs.db").touch()
    table, notes = class_table(tmp_path)
    assert table.column("image") == ["cat/1.png", "dog/deep/2.png"]
    assert table.column("label") == ["cat", "dog"]
    assert table.row(1)["image"].path == tmp_path / "dog" / "deep" / "2.png"
    assert notes == [
        f"Left out of {tmp_path} (not images): 2 files, such as cat/Thumbs.db, cat/licence.txt."
    ]


def test_other_media_are_seen(tmp_path):
    for name in ("a/1.wav", "a/2.wav", "b/3.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list(class_table(tmp_path)[0].fields) == ["audio", "label"]


def test_files_without_labels(tmp_path):
    write_png(tmp_path / "more" / "2.png", 2)
    write_png(tmp_path / "1.png", 1)
    table, notes = file_table(tmp_path)
    assert table.column("image") == ["1.png", "more/2.png"]
    assert list(table.fields) == ["image"]
    assert notes == []


def test_metadata_names_files_and_the_rest_is_said(tmp_path):
    for n in range(3):
        write_png(tmp_path / f"{n}.png", n)
    write_csv(tmp_path / "metadata.csv", [{"file_name": f"{n}.png", "x": n} for n in range(2)])
    table, notes = metadata_table(tmp_path)
    assert len(table) == 2
    assert notes == ["Left out (not in metadata.csv): 1 file, such as 2.png."]
    assert list(metadata_splits(table)) == ["train"]


def test_metadata_whose_files_lie_in_folders_of_splits(tmp_path):
    names = ["test/1.png", "train/2.png", "train/3.png"]
    write_jsonl(tmp_path / "metadata.jsonl", [{"file_name": name} for name in names])
    splits = metadata_splits(metadata_table(tmp_path)[0])
    assert {s: t.column("file_name") for s, t in splits.items()} == {
        "train": ["train/2.png", "train/3.png"],
        "test": ["test/1.png"],
    }


def test_metadata_may_name_its_files_otherwise(tmp_path):
    write_csv(tmp_path / "metadata.csv", [{"picture": "1.png"}])
    table, _ = metadata_table(tmp_path)
    assert list(metadata_splits(table)) == ["train"]


def test_metadata_without_file_names_is_refused(tmp_path):
    write_csv(tmp_path / "metadata.csv", [{"filename": "1", "label": "cat"}])
    with pytest.raises(
        ValueError,
        match=r"no column 'file_name'\. Did you mean 'filename'\? Its columns are filename, label",
    ):
        metadata_table(tmp_path)


def test_two_metadata_tables_are_refused(tmp_path):
    write_csv(tmp_path / "metadata.csv", [{"file_name": "1.png"}])
    write_jsonl(tmp_path / "metadata.jsonl", [{"file_name": "1.png"}])
    with pytest.raises(ValueError, match=r"holds metadata\.csv and metadata\.jsonl\. Keep one"):
        metadata_table(tmp_path)


def test_blanks_around_class_names_are_dropped_and_named(tmp_path):
    write_png(tmp_path / "cat " / "1.png", 1)
    write_png(tmp_path / "dog" / "2.png", 2)
    table, notes = class_table(tmp_path)
    assert table.column("label") == ["cat", "dog"]
    assert notes == ["Blanks around names of classes are dropped: 'cat '."]


def test_masks_in_the_folder_of_their_images(tmp_path):
    for name in ("1", "1_mask", "2", "2-mask", "3"):
        write_png(tmp_path / f"{name}.png", 1)
    table, notes = image_pair_table(tmp_path)
    assert table.column("image") == ["1.png", "2.png", "3.png"]
    assert table.column("mask") == ["1_mask.png", "2-mask.png", None]
    assert notes == [f"1 of 3 images in {tmp_path} has no mask."]
