"""Folds of cross-validation, and the splits of a run that has them."""

import shutil
from collections import Counter
from dataclasses import replace

import pytest

import perceivers as pv
from perceivers.checks.labels import count_classes
from perceivers.data.base import DataConfig
from perceivers.data.sources.folds import stratified_folds
from perceivers.data.sources.identity import SavedSplits
from perceivers.data.sources.open import open_data
from perceivers.data.sources.split import identify_rows, with_validation
from perceivers.recipes.resolve import resolve
from perceivers.recipes.rules import folds as rule
from perceivers.runs.metrics import mean_metrics
from perceivers.runs.splits import read_splits, write_splits
from support.files import write_csv
from support.runs import make_image_folder

CONFIG = DataConfig()


def test_every_row_is_in_one_fold_and_classes_are_even():
    labels = [0] * 23 + [1] * 11 + [2] * 4
    folds = stratified_folds(labels, None, 5, seed=3)
    assert sorted(row for fold in folds for row in fold) == list(range(len(labels)))
    assert {len(fold) for fold in folds} == {7, 8}
    for label, count in Counter(labels).items():
        shares = [sum(labels[row] == label for row in fold) for fold in folds]
        assert max(shares) - min(shares) <= 1
        assert sum(shares) == count
    assert folds == stratified_folds(labels, None, 5, seed=3)
    assert folds != stratified_folds(labels, None, 5, seed=4)


def test_groups_are_never_divided():
    groups = [f"subject {row // 3}" for row in range(60)]
    labels = [(row // 3) % 2 for row in range(60)]
    folds = stratified_folds(labels, groups, 4, seed=0)
    sides = [{groups[row] for row in fold} for fold in folds]
    assert sum(map(len, sides)) == 20 == len(set.union(*sides))
    assert [len(fold) for fold in folds] == [15] * 4
    shares = [sum(labels[row] for row in fold) for fold in folds]
    assert max(shares) - min(shares) <= 3


def test_what_only_one_row_or_group_shows_is_always_learned():
    folds = stratified_folds([0, 0, 0, 1, 1, 2], None, 5, seed=0)
    assert sorted(row for fold in folds for row in fold) == [0, 1, 2, 3, 4]
    assert all(folds)
    groups = ["a", "a", "b", "b", "c", "c"]
    folds = stratified_folds([0, 1, 0, 1, 2, 0], groups, 5, seed=0)
    assert sorted(folds) == [[0, 1], [2, 3]]  # c alone has class 2


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        ([0, 1, 2], None, "at least two rows whose classes other rows have, too, .* got 0 of 3"),
        ([0, 0], ["a", "a"], "got 0 of 1"),
        ([0, 0], ["a", None], "Row 1 has no group"),
    ],
)
def test_too_few_rows_are_refused(labels, groups, message):
    with pytest.raises(ValueError, match=message):
        stratified_folds(labels, groups, 5, seed=0)


def test_numbers_are_dealt_out():
    folds = stratified_folds([0] * 10, None, 3, seed=0)
    assert sorted(map(len, folds)) == [3, 3, 4]


@pytest.fixture
def birds(tmp_path):
    return make_image_folder(tmp_path / "birds", count=8, size=4)


def test_a_fold_holds_out_its_rows(birds):
    source = with_validation(open_data(birds, CONFIG), CONFIG, num_folds=4)
    assert len(source.folds) == 4
    assert "4 folds of the 16 rows of train, stratified by class" in source.notes[-1]
    held = []
    for index in range(4):
        one = source.fold(index)
        rows = {split: part.indices.tolist() for split, part in one.splits.items()}
        assert sorted(rows["train"] + rows["validation"]) == list(range(16))
        assert Counter(one.targets("validation")) == {0: 2, 1: 2}
        assert one.folds == ()
        held += rows["validation"]
    assert sorted(held) == list(range(16))
    assert source.splits["validation"].indices.tolist() == list(source.folds[0])


def test_the_folds_of_a_run_are_found_again(birds, tmp_path):
    source = with_validation(open_data(birds, CONFIG), CONFIG, num_folds=4)
    rows = identify_rows(source)
    assert Counter(row.split for row in rows) == {f"fold-{index}": 4 for index in range(4)}
    write_splits(tmp_path, rows, held_out=True, folds=4)
    saved = read_splits(tmp_path)
    assert saved == SavedSplits(rows=rows, held_out=True, folds=4)
    before = {row.key: row.split for row in rows}
    (birds / rows[0].key).unlink()
    shutil.copy(birds / "light/1.png", birds / "light/99.png")
    again = with_validation(open_data(birds, CONFIG), CONFIG, saved, num_folds=4)
    after = {row.key: row.split for row in identify_rows(again)}
    assert after.pop("light/99.png") == before["light/1.png"]  # a copy
    assert after == {key: split for key, split in before.items() if key != rows[0].key}
    known = with_validation(
        open_data(birds, CONFIG), CONFIG, replace(saved, takes_new=False), num_folds=4
    )
    assert known.new_rows == 1
    sizes = [len(known.fold(2).splits[split]) for split in ("train", "validation")]
    assert sum(sizes) == 15
    splits = {row.split for row in known.fold(2).identities}
    assert splits == {"train", "validation"}


def test_a_given_validation_split_is_left_alone(tmp_path):
    for split in ("train", "validation"):
        make_image_folder(tmp_path / "birds" / split, count=4, size=4)
    source = open_data(tmp_path / "birds", CONFIG)
    assert with_validation(source, CONFIG) is source
    found = with_validation(source, CONFIG, num_folds=2)
    assert [len(fold) for fold in found.folds] == [4, 4]
    assert "The given validation split is not used" in found.notes[-1]


TABLE = {"label": "label", "columns": {"a": "number"}}


def write_table(folder, rows=12):
    lines = [{"a": row, "label": "ab"[row % 2], "who": row // 2} for row in range(rows)]
    return write_csv(folder / "table.csv", lines)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"folds": 0}, "folds: Input should be greater than 0, got 0"),
        ({"folds": 3, "validation_fraction": 0.2}, "--validation-fraction 0.2 has no meaning"),
        ({"folds": 3, "devices": 2}, "expected --devices 1"),
        ({"folds": 3, "stream": True}, "Leave --folds 3 out, or --stream"),
    ],
)
def test_contradictions_are_refused(flags, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        resolve(str(write_table(tmp_path)), overrides={**TABLE, **flags})


def test_a_run_has_as_many_folds_as_there_are(tmp_path):
    table = str(write_table(tmp_path))
    run = resolve(table, overrides={**TABLE, "group": "who", "folds": 9})
    assert run.recipe.training.folds == len(run.data.folds) == 6
    assert "9 folds were requested, and there are not more groups." in run.data.notes[-1]
    assert resolve(table, overrides={**TABLE, "folds": 1}).data.folds == ()


def test_classes_are_counted_over_all_folds(tmp_path):
    run = resolve(str(write_table(tmp_path)), overrides={**TABLE, "folds": 6})
    assert count_classes(run.data) == {"train": {"a": 6, "b": 6}}


def test_rows_without_folds_are_refused_with_a_way_out(tmp_path):
    table = str(write_table(tmp_path, rows=2))
    with pytest.raises(ValueError, match="Give more data, or --folds 1 for a single model"):
        resolve(table, overrides={**TABLE, "folds": 2})


@pytest.mark.parametrize(
    ("flags", "folds"),
    [
        ({}, 5),
        ({"preset": "quick"}, None),
        ({"preset": "best"}, 5),
        ({"folds": 1}, 1),
        ({"folds": 2}, 2),
        ({"validation_fraction": 0.3}, None),
        ({"devices": 2}, None),
    ],
)
def test_few_rows_have_folds_by_rule(flags, folds, tmp_path, monkeypatch):
    monkeypatch.setattr(rule, "FEW_ROWS", 100)
    run = resolve(str(write_table(tmp_path)), overrides={**TABLE, **flags})
    assert run.recipe.training.folds == folds
    assert ("a validation split would have 1 row" in " ".join(run.data.notes)) == (folds == 5)


def test_many_rows_have_a_single_split(tmp_path, monkeypatch):
    monkeypatch.setattr(rule, "FEW_ROWS", 1)
    table = str(write_table(tmp_path))
    assert resolve(table, overrides=TABLE).recipe.training.folds is None
    best = resolve(table, overrides={**TABLE, "preset": "best"})
    assert best.recipe.training.folds == 5
    assert "as the preset best" in " ".join(best.data.notes)


def test_given_splits_and_complete_recipes_have_no_folds_by_rule(tmp_path, monkeypatch):
    monkeypatch.setattr(rule, "FEW_ROWS", 100)
    for split in ("train", "validation"):
        make_image_folder(tmp_path / "birds" / split, count=4, size=8)
    assert resolve(str(tmp_path / "birds")).recipe.training.folds is None
    table = str(write_table(tmp_path))
    chosen = resolve(table, overrides={**TABLE, "folds": 1}).recipe
    complete = replace(chosen, training=replace(chosen.training, folds=None))
    assert resolve(table, complete).recipe.training.folds is None


def test_members_are_trained_less_long_than_a_single_model(tmp_path):
    table = str(write_table(tmp_path))
    single = resolve(table, overrides={**TABLE, "folds": 1})
    several = resolve(table, overrides={**TABLE, "folds": 4})
    assert several.recipe.training.max_epochs == round(0.4 * single.recipe.training.max_epochs)
    assert any("epochs for each member" in one for one in several.choices)
    limited = resolve(table, overrides={**TABLE, "folds": 4, "max_time": "1m"})
    assert any("1m in all" in one for one in limited.choices)


def test_lines_of_the_log_are_averaged():
    first = [
        {"step": 5, "train/loss": 1.0},
        {"step": 7, "train/loss": 0.5, "validation/loss": 2.0, "waiting": 0.1},
        {"step": 14, "validation/loss": 1.0},
    ]
    second = [
        {"step": 8, "train/loss": 1.5, "validation/loss": 1.0},
        {"step": 16, "validation/loss": 3.0},
        {"step": 24, "validation/loss": 3.0},
    ]
    assert mean_metrics([first, second]) == [
        {"step": 8, "train/loss": 1.0, "validation/loss": 1.5},
        {"step": 15, "validation/loss": 2.0},
    ]


def test_folds_are_a_field_of_the_recipe():
    assert pv.get_recipe("images").training.folds is None


def test_some_hundred_rows_hold_out_a_hundred_instead_of_folds(tmp_path, monkeypatch):
    monkeypatch.setattr(rule, "FEW_ROWS", 4)
    monkeypatch.setattr(rule, "LARGEST_SHARE", 0.5)
    table = str(write_table(tmp_path))
    rows = len(open_data(table, CONFIG).splits["train"])
    run = resolve(table, overrides=TABLE)
    assert run.recipe.training.folds is None
    assert run.recipe.data.validation_fraction == 4 / rows
    assert "Validation: 4 rows instead of " in " ".join(run.data.notes)
