import gzip
import shutil
from dataclasses import replace

import pytest

from perceivers.data.base import DataConfig
from perceivers.data.sources.identity import RowIdentity, SavedSplits
from perceivers.data.sources.open import open_data
from perceivers.data.sources.split import identify_rows, with_validation
from perceivers.runs.splits import (
    compare_rows,
    count_learned,
    differences,
    fingerprint_of,
    read_splits,
    with_removed,
    write_splits,
)
from support.files import write_csv
from support.runs import make_image_folder

CONFIG = DataConfig(validation_fraction=0.25)


def split_of_images(folder, saved=None):
    source = with_validation(open_data(folder, CONFIG), CONFIG, saved)
    return source, {row.key: row.split for row in identify_rows(source)}


@pytest.fixture
def birds(tmp_path):
    return make_image_folder(tmp_path / "birds", count=8, size=4)


def saved_splits(folder, *, takes_new=True):
    return SavedSplits(
        rows=identify_rows(split_of_images(folder)[0]), held_out=True, takes_new=takes_new
    )


def test_the_same_data_are_divided_as_before(birds):
    before, splits = split_of_images(birds)
    after, again = split_of_images(birds, saved_splits(birds))
    assert again == splits
    assert sorted(splits.values()) == ["train"] * 12 + ["validation"] * 4
    for name in ("train", "validation"):
        assert after.splits[name].indices.tolist() == before.splits[name].indices.tolist()
    assert fingerprint_of(identify_rows(after)) == fingerprint_of(identify_rows(before))


def rows_of(splits):
    return [RowIdentity(f"{n}.png", f"content {n}", "", split) for n, split in enumerate(splits)]


@pytest.mark.parametrize(
    ("source", "folds", "splits", "found"),
    [
        ("ttvv", 0, "ttvv", (0, 2)),
        ("ttvv", 0, "vvtt", (2, 2)),
        ("ttvv", 0, "tvvt", (1, 2)),
        ("ttvv", 2, "0011", (2, 4)),
        ("0011", 0, "vvvt", (1, 3)),
        ("0011", 2, "0011", (0, 4)),
        ("0011", 2, "1100", (4, 4)),
        ("0011", 4, "1203", (2, 4)),
    ],
)
def test_validation_rows_that_another_run_learned_are_counted(source, folds, splits, found):
    names = {"t": "train", "v": "validation"} | {str(n): f"fold-{n}" for n in range(4)}
    rows, others = (rows_of([names[one] for one in word]) for word in (splits, source))
    saved = SavedSplits(rows=others, held_out=True, folds=2 if "0" in source else 0)
    assert count_learned(saved, rows, folds=folds) == found
    renamed = [replace(row, key=f"other/{row.key}") for row in rows]
    assert count_learned(saved, renamed, folds=folds) == found


def test_many_files_are_compared_by_name_and_size(monkeypatch):
    monkeypatch.setattr("perceivers.runs.splits.WHOLE_FILES", 2)
    rows = [replace(row, content="100") for row in rows_of(["train", "validation", "train"])]
    saved = SavedSplits(rows=rows, held_out=True)
    assert count_learned(saved, rows) == (0, 1)
    assert count_learned(saved, [replace(row, split="validation") for row in rows]) == (2, 3)


def test_a_row_never_changes_sides(birds, tmp_path):
    saved, splits = saved_splits(birds), split_of_images(birds)[1]
    held = [key for key, split in splits.items() if split == "validation"]
    for index in range(8):  # rows that are new, with equal and with other contents
        shutil.copy(birds / "dark" / f"{index}.png", birds / "dark" / f"1{index}.png")
    make_image_folder(tmp_path / "more", count=30, size=5)
    for index in range(30):
        shutil.copy(tmp_path / "more/light" / f"{index}.png", birds / "light" / f"2{index}.png")
    (birds / held[0]).unlink()
    after = split_of_images(birds, saved)[1]
    assert {key: after[key] for key in splits if key in after} == {
        key: split for key, split in splits.items() if key != held[0]
    }
    new = [after[key] for key in after if key not in splits]
    assert {"train", "validation"} == set(new)
    moved = shutil.copytree(birds, tmp_path / "elsewhere")
    assert split_of_images(moved, saved)[1] == after


def test_new_rows_are_left_out_of_an_evaluation(birds):
    saved, splits = saved_splits(birds, takes_new=False), split_of_images(birds)[1]
    make_image_folder(birds, labels=("dark", "light"), count=9, size=5)
    for key in splits:  # copies are new, too
        shutil.copy(birds / key, birds / f"{key}.png")
    (birds / "light/3.png").unlink()
    (birds / "light/3.png.png").unlink()
    source, after = split_of_images(birds, saved)
    assert source.new_rows == 2 + 15
    assert after == {key: split for key, split in splits.items() if key != "light/3.png"}


def test_a_renamed_file_keeps_its_split(birds):
    saved, splits = saved_splits(birds), split_of_images(birds)[1]
    for key in splits:
        (birds / key).rename((birds / key).with_name(f"renamed-{key.rpartition('/')[2]}"))
    after = split_of_images(birds, saved)[1]
    assert {key.replace("renamed-", ""): split for key, split in after.items()} == splits


def test_rows_without_files_are_known_by_their_content(tmp_path):
    rows = [{"x": n % 6, "label": "ab"[n % 2]} for n in range(16)]
    config = DataConfig(columns={"x": "number"}, validation_fraction=0.25)

    def divided(rows, saved=None):
        table = write_csv(tmp_path / "table.csv", rows)
        return with_validation(open_data(table, config), config, saved)

    before = divided(rows)
    saved = SavedSplits(rows=identify_rows(before), held_out=True)
    assert len({row.key for row in saved.rows}) == 16  # equal rows are numbered
    after = divided([{"x": 77, "label": "a"}, *rows], saved)
    by_key = {row.key: row.split for row in saved.rows}
    assert all(by_key.get(row.key, row.split) == row.split for row in identify_rows(after))
    assert differences(saved.rows, identify_rows(after)) == ["1 row added (row 1)"]


def row(key, content="c", label="a", split="train"):
    return RowIdentity(key, f"{content}-{key.rpartition('/')[2]}", label, split)


OLD = [row(f"a/{n}.png") for n in range(6)]


@pytest.mark.parametrize(
    ("new", "found"),
    [
        (OLD, []),
        ([*OLD, row("a/9.png")], ["1 row added (a/9.png)"]),
        (OLD[2:], ["2 rows removed (a/0.png, a/1.png)"]),
        ([row("a/0.png", "d"), *OLD[1:]], ["1 row changed (a/0.png)"]),
        ([row("a/0.png", label="b"), *OLD[1:]], ["1 row relabelled (a/0.png)"]),
        ([row("b/0.png", label="b"), *OLD[1:]], ["1 row relabelled (b/0.png)"]),
        ([row("b/0.png"), *OLD[1:]], ["1 row renamed (b/0.png)"]),
        (
            [row(f"b/{n}.png", label="b") for n in range(6)],
            ["6 rows relabelled (b/0.png, b/1.png, b/2.png and 3 more)"],
        ),
        (OLD[::-1], ["the rows have another order"]),
        (
            [row("a/0.png", "d"), *OLD[2:], row("a/9.png")],
            ["1 row added (a/9.png)", "1 row removed (a/1.png)", "1 row changed (a/0.png)"],
        ),
    ],
)
def test_differences_are_counted_and_named(new, found):
    assert differences(OLD, new) == found


def test_other_data_are_refused_unless_allowed(tmp_path):
    old = SavedSplits(rows=OLD, held_out=True)
    assert compare_rows(old, OLD, tmp_path, other_data=False) == ""
    message = r"have changed since the run in .* began: 2 rows removed .*--resume-with-other-data"
    with pytest.raises(ValueError, match=message):
        compare_rows(old, OLD[2:], tmp_path, other_data=False)
    note = compare_rows(old, OLD[2:], tmp_path, other_data=True)
    assert note.startswith("Resuming with other data, from the next epoch: 2 rows removed")


def test_removed_rows_are_remembered(tmp_path):
    write_splits(tmp_path, OLD, held_out=True)
    old = read_splits(tmp_path)
    assert old == SavedSplits(rows=OLD, held_out=True)
    write_splits(tmp_path, with_removed(old, OLD[1:]), held_out=True)
    after = read_splits(tmp_path)
    assert after.rows == [*OLD[1:], replace(OLD[0], present=False)]
    assert after.divide([OLD[0]], 1.0, 0) == ["train"]
    assert differences([one for one in after.rows if one.present], OLD) == ["1 row added (a/0.png)"]


def test_names_of_any_bytes_are_kept_and_damage_is_named(tmp_path):
    rows = [row("caf\udce9.png"), row("line\nfeed.png")]
    write_splits(tmp_path, rows, held_out=False)
    assert read_splits(tmp_path).rows == rows
    path = tmp_path / "splits.jsonl.gz"
    content = path.read_bytes()
    for damaged in (content[:-9], b"text", gzip.compress(b"{}\n"), gzip.compress(b"[1")):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"splits.jsonl.gz is not what .* move the file away"):
            read_splits(tmp_path)
