from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perceivers.data.base import DataConfig
from perceivers.data.sources.bundle import DatasetBundle
from perceivers.data.sources.split import hold_out, with_validation
from perceivers.data.tables.columns import InputColumn
from perceivers.data.tables.table import ColumnTable


def source(splits=("train", "test"), target="label", **columns):
    columns = columns or {"label": [0, 1] * 20}
    table = ColumnTable(name="t", columns=columns)
    return DatasetBundle(
        form="a table",
        splits=dict.fromkeys(splits, table),
        inputs={"image": InputColumn("image", "image")},
        target=target,
        label_names=("a", "b"),
    )


def test_every_class_gives_its_share():
    labels = [0] * 100 + [1] * 50 + [2] * 10
    stay, held = hold_out(labels, None, 0.1, seed=0)
    assert Counter(labels[i] for i in held) == {0: 10, 1: 5, 2: 1}
    assert stay == sorted(set(range(160)) - set(held))


def test_the_seed_decides():
    labels = [0, 1] * 50
    assert hold_out(labels, None, 0.2, seed=1) == hold_out(labels, None, 0.2, seed=1)
    assert hold_out(labels, None, 0.2, seed=1) != hold_out(labels, None, 0.2, seed=2)


@settings(max_examples=60)
@given(
    labels=st.lists(st.integers(0, 6), min_size=2, max_size=80),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 9),
)
def test_no_class_disappears_from_train(labels, fraction, seed):
    stay, held = hold_out(labels, None, fraction, seed)
    assert sorted(stay + held) == list(range(len(labels)))
    assert stay
    assert held
    repeated = {label for label, n in Counter(labels).items() if n > 1}
    assert repeated <= {labels[i] for i in stay}


@settings(max_examples=60)
@given(data=st.data(), seed=st.integers(0, 9))
def test_no_group_is_on_both_sides(data, seed):
    groups = data.draw(st.lists(st.integers(0, 9), min_size=2, max_size=80))
    if len(set(groups)) < 2:
        return
    labels = [group % 2 for group in groups]
    stay, held = hold_out(labels, groups, 0.3, seed)
    assert sorted(stay + held) == list(range(len(groups)))
    assert stay
    assert held
    assert {groups[i] for i in stay}.isdisjoint(groups[i] for i in held)


def test_groups_keep_the_classes_in_proportion():
    generator = np.random.default_rng(0)
    groups = generator.integers(0, 60, 3000).tolist()
    labels = [(group % 3 + int(generator.integers(0, 2))) % 3 for group in groups]
    _, held = hold_out(labels, groups, 0.2, seed=0)
    assert len(held) == pytest.approx(600, rel=0.05)
    for label, count in Counter(labels[i] for i in held).items():
        assert count == pytest.approx(labels.count(label) * 0.2, rel=0.15)


def test_the_only_group_of_a_class_stays_if_it_can():
    labels = [0] * 10 + [1] * 10 + [0, 1] * 10
    groups = ["x"] * 10 + ["y"] * 10 + ["u", "v"] * 10
    labels[:10] = [2] * 10
    for seed in range(5):
        stay, _ = hold_out(labels, groups, 0.3, seed)
        assert 2 in {labels[i] for i in stay}


def test_large_groups_are_held_out_where_there_are_no_others():
    stay, held = hold_out([0, 1] * 4, [0] * 4 + [1] * 4, 0.1, seed=0)
    assert len(stay) == len(held) == 4


def test_groups_without_labels():
    stay, held = hold_out(None, ["a", "b", "a", "c"] * 5, 0.25, seed=0)
    assert len(held) == 5
    assert len(stay) == 15


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_a_share_is_between_none_and_all(fraction):
    with pytest.raises(ValueError, match=f"a fraction between 0 and 1 to hold out, got {fraction}"):
        hold_out([0, 1], None, fraction, seed=0)


def test_too_little_to_hold_out_is_refused():
    with pytest.raises(ValueError, match="at least two rows to hold some out, got 1"):
        hold_out([0], None, 0.5, seed=0)
    with pytest.raises(ValueError, match="at least two groups to hold one out, got only 'a'"):
        hold_out([0, 1], ["a", "a"], 0.5, seed=0)
    with pytest.raises(ValueError, match="Row 1 has no group"):
        hold_out([0, 1], ["a", None], 0.5, seed=0)


def test_validation_comes_out_of_train_never_of_test():
    before = source()
    after = with_validation(before, DataConfig(validation_fraction=0.2))
    assert {split: len(records) for split, records in after.splits.items()} == {
        "train": 32,
        "test": 40,
        "validation": 8,
    }
    assert after.splits["test"] is before.splits["test"]
    assert Counter(after.targets("validation")) == {0: 4, 1: 4}
    assert after.notes[-1] == (
        "No validation split is given: 8 of the 40 rows of train are held out for it, stratified by "
        "class (seed 0)."
    )


def test_validation_by_group():
    made = source(label=[0, 1] * 20, who=[i // 4 for i in range(40)])
    after = with_validation(made, DataConfig(group="who"))
    held, stay = (set(after.splits[s].column("who")) for s in ("validation", "train"))
    assert held.isdisjoint(stay)
    assert "by 'who'" in after.notes[-1]


def test_validation_without_labels():
    after = with_validation(source(target=None, x=list(range(20))), DataConfig())
    assert len(after.splits["validation"]) == 2
    assert "at random" in after.notes[-1]


def test_a_given_validation_split_stays():
    given_ = source(splits=("train", "validation"))
    assert with_validation(given_, DataConfig()) is given_
    none = source()
    assert with_validation(none, DataConfig(validation_fraction=0.0)) is none


def test_without_train_there_is_no_validation():
    with pytest.raises(ValueError, match="no train split to hold validation out of; there is test"):
        with_validation(source(splits=("test",)), DataConfig())


@pytest.mark.parametrize("kind", ["labels", "number"])
def test_labels_and_numbers_are_held_out_at_random(kind):
    vectors = list(np.arange(40, dtype=np.float32).reshape(20, 2))
    made = replace(source(splits=("train",), label=vectors), target_kind=kind)
    after = with_validation(made, DataConfig())
    assert len(after.splits["validation"]) == 2
    assert "at random" in after.notes[-1]
