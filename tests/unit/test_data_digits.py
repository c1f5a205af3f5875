import sys

import numpy as np
import pytest

from perceivers.data.base import DataConfig
from perceivers.data.sources.builtin import digits
from perceivers.data.sources.open import open_data


def test_a_stratified_fifth_is_test_and_always_the_same():
    source = digits()
    assert {split: len(records) for split, records in source.splits.items()} == {
        "train": 1438,
        "test": 359,
    }
    counts = np.bincount(source.targets("test"))
    assert counts.min() >= 34
    assert counts.max() <= 37
    again = digits()
    for split in source.splits:
        assert source.targets(split) == again.targets(split)


def test_pixels_are_bytes_of_the_whole_scale():
    train = digits().splits["train"]
    pictures = [train.row(i)["image"].array for i in range(20)]
    assert {(p.shape, p.dtype) for p in pictures} == {((8, 8), np.dtype(np.uint8))}
    assert np.min(pictures) == 0
    assert np.max(pictures) == 255


def test_no_digit_is_in_both_splits():
    source = digits()
    train, test = source.splits["train"], source.splits["test"]
    assert set(train.indices.tolist()).isdisjoint(test.indices.tolist())


def test_missing_scikit_learn_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r'pip install "perceivers\[quickstart\]"'):
        digits()


def test_a_run_that_learned_no_labels_opens_them():
    found = open_data("builtin:digits", DataConfig(target="nothing"), label_names=())
    assert len(found.splits["test"]) == 359
