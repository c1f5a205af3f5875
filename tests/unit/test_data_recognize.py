from pathlib import Path

import pytest

from perceivers.data.base import split_of
from perceivers.data.sources.folders import media_files
from perceivers.data.sources.layout import recognize
from support.files import write_csv
from support.image_data import write_png


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_names_of_splits():
    assert [split_of(n) for n in ("Train", "val", "dev", "TEST", "fold1")] == [
        "train",
        "validation",
        "validation",
        "test",
        None,
    ]


def test_a_data_file_is_a_table_of_train(tmp_path):
    touch(tmp_path / "birds.parquet")
    found = recognize(tmp_path / "birds.parquet")
    assert found.form == "a file of Parquet"
    assert found.splits["train"].paths == (tmp_path / "birds.parquet",)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.zip"])
def test_compressed_archives_are_refused(tmp_path, name):
    touch(tmp_path / name)
    with pytest.raises(ValueError, match="is compressed, so nothing in it can be read by index"):
        recognize(tmp_path / name)


def test_other_files_are_refused(tmp_path):
    touch(tmp_path / "a.xlsx")
    with pytest.raises(ValueError, match=r"is no data file: expected \.parquet, .* got '\.xlsx'"):
        recognize(tmp_path / "a.xlsx")


def test_patterns_of_shards(tmp_path, monkeypatch):
    touch(*(tmp_path / f"s-{i:03d}.tar" for i in range(4)))
    found = recognize(f"{tmp_path}/s-{{001..002}}.tar")
    assert [path.name for path in found.splits["train"].paths] == ["s-001.tar", "s-002.tar"]
    assert found.form == "2 files of WebDataset shards"
    monkeypatch.chdir(tmp_path)
    found = recognize("s-*.tar")
    assert [path.name for path in found.splits["train"].paths] == [f"s-00{i}.tar" for i in range(4)]
    found = recognize("{s,t}-00{3,0}.tar")
    assert [path.name for path in found.splits["train"].paths] == ["s-003.tar", "s-000.tar"]


def test_numbers_in_braces_are_padded_as_they_are_written(tmp_path):
    touch(*(tmp_path / f"s-{i}.tar" for i in range(8, 12)))
    found = recognize(f"{tmp_path}/s-{{8..11}}.tar")
    assert len(found.splits["train"].paths) == 4


def test_patterns_without_a_match_or_of_several_kinds_are_refused(tmp_path):
    touch(tmp_path / "a.tar", tmp_path / "b.csv")
    with pytest.raises(FileNotFoundError, match=r"No file matches '.*x-\*\.tar'"):
        recognize(f"{tmp_path}/x-*.tar")
    with pytest.raises(ValueError, match=r"matches files of \.csv, \.tar: expected one of"):
        recognize(f"{tmp_path}/*")


def test_a_path_that_exists_wins_over_a_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert recognize("owner/birds").hub == "owner/birds"
    write_png(Path("owner/birds/1.png"), 1)
    assert recognize("owner/birds").hub is None
    with pytest.raises(FileNotFoundError, match="does not exist here"):
        recognize("mnist")  # a folder that is missing; the data set is ylecun/mnist


@pytest.mark.parametrize("name", ["a/b/c", "../a", "/nowhere", "birds.csv", "~/nowhere"])
def test_a_path_that_does_not_exist_is_said(name):
    with pytest.raises(
        FileNotFoundError, match=r"does not exist here, and it cannot be the id of a data set"
    ):
        recognize(name)


def test_split_files_in_their_order_others_left_out(tmp_path):
    touch(
        tmp_path / "test.parquet",
        tmp_path / "train-00001-of-00002.parquet",
        tmp_path / "train-00000-of-00002.parquet",
        tmp_path / "dev.parquet",
        tmp_path / "training_notes.parquet",
        tmp_path / "README.md",
    )
    found = recognize(tmp_path)
    assert found.form == "Parquet, split into train, validation and test"
    assert list(found.splits) == ["train", "validation", "test"]
    assert [p.name[:11] for p in found.splits["train"].paths] == ["train-00000", "train-00001"]
    assert found.notes == ("Left out (no split files): training_notes.parquet.",)


def test_split_files_in_a_folder_called_data(tmp_path):
    touch(tmp_path / "data" / "train.tar", tmp_path / "README.md")
    found = recognize(tmp_path)
    assert found.splits["train"].paths == (tmp_path / "data" / "train.tar",)
    assert found.form == "WebDataset shards, train only"


def test_a_split_in_two_forms_is_refused(tmp_path):
    touch(tmp_path / "train.csv", tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=r"holds train in several forms: train\.csv, train\.parq"):
        recognize(tmp_path)


def test_a_folder_with_one_table_or_shards_of_it(tmp_path):
    touch(
        tmp_path / "one" / "birds.npz", tmp_path / "two" / "b-0.tar", tmp_path / "two" / "b-1.tar"
    )
    assert recognize(tmp_path / "one").form == "a folder with a file of NumPy arrays"
    assert len(recognize(tmp_path / "two").splits["train"].paths) == 2


def test_several_tables_are_refused(tmp_path):
    touch(tmp_path / "a.npz", tmp_path / "b.npz")
    with pytest.raises(ValueError, match=r"several tables, a\.npz, b\.npz, and none is called"):
        recognize(tmp_path)


def test_a_list_beside_folders_of_classes_is_no_table(tmp_path):
    write_png(tmp_path / "cat" / "1.png", 1)
    write_png(tmp_path / "dog" / "2.png", 2)
    write_csv(tmp_path / "classes.csv", [{"index": 0, "class": "cat"}])
    assert recognize(tmp_path).splits["train"].kind == "classes"
    write_csv(tmp_path / "classes.csv", [{"file": "cat/1.png", "class": "cat"}])
    assert recognize(tmp_path).splits["train"].kind == "files"


def test_folders_of_classes_with_splits(tmp_path):
    write_png(tmp_path / "train" / "cat" / "1.png", 1)
    write_png(tmp_path / "val" / "cat" / "1.png", 1)
    write_png(tmp_path / "test" / "1.png", 1)
    write_png(tmp_path / "old" / "1.png", 1)
    found = recognize(tmp_path)
    assert found.form == "a folder of classes, split into train, validation and test"
    assert {s: p.kind for s, p in found.splits.items()} == {
        "train": "classes",
        "validation": "classes",
        "test": "flat",
    }
    assert found.notes == ("Left out (not part of a split): old.",)


def test_split_folders_that_hold_tables(tmp_path):
    touch(tmp_path / "train" / "0000.parquet", tmp_path / "test" / "0000.parquet")
    assert recognize(tmp_path).splits["test"].kind == "files"


def test_two_folders_for_one_split_are_refused(tmp_path):
    write_png(tmp_path / "train" / "1.png", 1)
    write_png(tmp_path / "val" / "1.png", 1)
    write_png(tmp_path / "valid" / "1.png", 1)
    with pytest.raises(ValueError, match="two folders for validation: val and valid"):
        recognize(tmp_path)


def test_an_empty_split_is_refused(tmp_path):
    write_png(tmp_path / "train" / "cat" / "1.png", 1)
    (tmp_path / "test").mkdir()
    with pytest.raises(ValueError, match=r"The folder '.*test' is empty: expected the files of"):
        recognize(tmp_path)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"No data are recognized in the folder .*holds nothing"):
        recognize(tmp_path)
    touch(tmp_path / "notes.xlsx", tmp_path / ".hidden.png")
    with pytest.raises(ValueError, match=r"it holds notes\.xlsx\."):
        recognize(tmp_path)


def test_strays_beside_classes_are_left_out_and_said(tmp_path):
    for name in ("cat/1.png", "dog/2.png", "banner.png"):
        write_png(tmp_path / name, 1)
    (tmp_path / "eel").mkdir()
    assert recognize(tmp_path).notes == (
        "Left out (folders without files that can be read): eel.",
        "Left out (not in a folder of a class): banner.png.",
    )


def test_many_strays_are_counted(tmp_path):
    for name in ("cat/1.png", "dog/2.png", *(f"{i}.png" for i in range(9))):
        write_png(tmp_path / name, 1)
    assert recognize(tmp_path).notes[0].endswith("5.png and 3 more.")


def test_pictures_beside_one_folder_are_files_without_labels(tmp_path):
    write_png(tmp_path / "1.png", 1)
    write_png(tmp_path / "more" / "2.png", 1)
    assert recognize(tmp_path).form == "a folder of files without labels"


def test_metadata_comes_before_folders(tmp_path):
    write_png(tmp_path / "train" / "1.png", 1)
    write_csv(tmp_path / "metadata.csv", [{"file_name": "train/1.png"}])
    assert recognize(tmp_path).splits["train"].kind == "metadata"


def test_saved_data_sets_are_known_by_their_files(tmp_path):
    touch(tmp_path / "a" / "dataset_dict.json")
    touch(tmp_path / "b" / "dataset_info.json", tmp_path / "b" / "state.json")
    assert recognize(tmp_path / "a").splits["train"].kind == "saved"
    assert recognize(tmp_path / "b").splits["train"].kind == "saved"


def test_links_that_lead_back_up_end(tmp_path):
    write_png(tmp_path / "a" / "1.png", 1)
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert [path.name for path in media_files(tmp_path)] == ["1.png"]


def test_unreadable_folders_are_named(tmp_path, monkeypatch):
    def refuse(*args, **keywords):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    (tmp_path / "a").mkdir()
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(PermissionError, match=r"The folder '.*' cannot be read: Permission denied"):
        recognize(tmp_path)
    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(PermissionError, match=r"The folder '.*' cannot be read: Permission denied"):
        list(media_files(tmp_path))


@pytest.mark.parametrize("inner", ["", "cam1", "cam2"])
@pytest.mark.parametrize("name", ["train", "test", "val"])
def test_a_class_called_like_a_split_beside_other_classes_is_a_class(tmp_path, name, inner):
    touch(*(tmp_path / c / inner / f"{i}.png" for c in ("bus", "car", name) for i in range(2)))
    found = recognize(tmp_path)
    assert found.form == "a folder of classes"
    assert found.notes == (
        f"The folder '{name}' is read as a class, since it lies beside folders of other names.",
    )


def test_class_folders_in_a_split_beside_files_are_a_split(tmp_path):
    touch(tmp_path / "train" / "cat" / "1.png", tmp_path / "train" / "dog" / "1.png")
    touch(tmp_path / "samples" / "1.png")
    found = recognize(tmp_path)
    assert found.form == "a folder of classes, train only"
    assert found.notes == ("Left out (not part of a split): samples.",)


def test_a_folder_that_may_be_a_split_or_a_class_is_asked_about(tmp_path):
    touch(*(tmp_path / a / b / "1.png" for a in ("train", "more") for b in ("cat", "dog")))
    with pytest.raises(
        ValueError, match=r"'train', which may be the train split or a class beside 'more'.*rename"
    ):
        recognize(tmp_path)


@pytest.mark.parametrize("inner", ["birds", "train/train", "data"])
def test_one_folder_around_everything_is_opened_and_named(tmp_path, inner):
    touch(*(tmp_path / inner / c / "1.png" for c in ("robin", "wren")), tmp_path / "README.md")
    found = recognize(tmp_path)
    assert found.form.startswith("a folder of classes")
    assert found.splits["train"].paths == (tmp_path / inner,)
    if inner == "birds":
        assert found.notes == (
            f"Everything lies in the folder 'birds' of '{tmp_path}', which is read.",
        )


def test_a_single_class_folder_is_not_opened(tmp_path):
    touch(tmp_path / "robin" / "1.png", tmp_path / "robin" / "2.png")
    assert recognize(tmp_path).splits["train"].paths == (tmp_path,)
    (tmp_path / "robin" / "up").symlink_to(tmp_path)
    assert recognize(tmp_path).splits["train"].paths == (tmp_path,)


@pytest.mark.parametrize("folder", ["data [v1]", "a=b", "x.y", "ü é"])
def test_patterns_in_folders_of_any_name(tmp_path, folder):
    touch(*(tmp_path / folder / f"s-{i}.tar" for i in range(2)))
    found = recognize(f"{tmp_path}/{folder}/s-*.tar")
    assert [path.name for path in found.splits["train"].paths] == ["s-0.tar", "s-1.tar"]
    found = recognize(f"{tmp_path}/*/s-[01].tar")
    assert len(found.splits["train"].paths) == 2


def test_masks_beside_their_images_are_targets(tmp_path):
    touch(*(tmp_path / f"{i}{end}" for i in range(3) for end in (".jpg", "_mask.png")))
    assert recognize(tmp_path).splits["train"].kind == "targets"
    touch(tmp_path / "b" / "images" / "1.jpg", tmp_path / "b" / "masks" / "1_mask.gif")
    assert recognize(tmp_path / "b").splits["train"].kind == "targets"
