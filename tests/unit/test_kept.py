import dataclasses
import errno
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from perceivers.data.loading import sample_cache as kept
from perceivers.data.loading.sample_cache import SampleCache, open_cache
from perceivers.data.loading.sampler import BatchPlan
from perceivers.data.tables.table import Field

ARRAYS = [
    np.arange(6, dtype=np.int16).reshape(2, 3),
    np.asfortranarray(np.random.default_rng(0).normal(size=(3, 4))),
    np.zeros((0, 3), dtype=np.float32),
    np.array(2.5),
    np.array(["a", "bc"]),
]


def caches(tmp_path):
    return [open_cache(None, "f", 2**20), open_cache(tmp_path, "f", 0)]


@pytest.mark.parametrize("where", [0, 1])
@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: str(a.dtype))
def test_arrays_come_back_as_they_were(tmp_path, where, array):
    cache = caches(tmp_path)[where]
    assert cache.get("row 1") is None
    cache.put("row 1", array)
    found = cache.get("row 1")
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    assert cache.get("row 2") is None


@pytest.mark.parametrize("where", [0, 1])
def test_what_is_returned_may_be_changed(tmp_path, where):
    cache = caches(tmp_path)[where]
    cache.put("a", np.zeros(3))
    cache.get("a")[:] = 1
    assert cache.get("a").tolist() == [0, 0, 0]


@pytest.mark.parametrize("where", [0, 1])
def test_dataclasses_of_arrays_numbers_and_texts_come_back(tmp_path, where):
    cache = caches(tmp_path)[where]
    plan = BatchPlan(3, 7, np.array([5, 6]))
    cache.put("plan", plan)
    found = cache.get("plan")
    assert type(found) is BatchPlan
    assert (found.epoch, found.number, found.rows.tolist()) == (3, 7, [5, 6])
    for value in (Field("image", names=("a", "b"), by_path=True), 2.5, "text", True, np.int8(3)):
        cache.put(f"{value}", value)
        assert cache.get(f"{value}") == value


def test_other_things_are_not_kept():
    cache = open_cache(None, "f", 2**20)
    with pytest.raises(TypeError, match=r"Expected an array, or a frozen dataclass .*, got dict"):
        cache.put("a", {"x": 1})
    with pytest.raises(TypeError, match="array of numbers to keep, got one of object"):
        cache.put("a", np.array([None]))


def test_memory_keeps_the_first_that_fit():
    cache = open_cache(None, "f", 3000)
    for number in range(5):
        cache.put(f"{number}", np.full(125, number, dtype=np.float64))
    assert [cache.get(f"{n}") is not None for n in range(5)] == [True, True, False, False, False]
    assert cache.is_full
    assert 2000 < cache.num_bytes <= 3000


def test_the_same_key_counts_once():
    cache = open_cache(None, "f", 3000)
    cache.put("a", np.zeros(10))
    held = cache.num_bytes
    cache.put("a", np.zeros(10))
    assert cache.num_bytes == held


def test_a_folder_is_shared_by_later_runs_of_the_same_data_and_settings(tmp_path):
    open_cache(tmp_path, "data and settings", 0).put("a", np.ones(2))
    again = pickle.loads(pickle.dumps(open_cache(tmp_path, "data and settings", 0)))
    assert again.get("a").tolist() == [1, 1]
    assert open_cache(tmp_path, "other settings", 0).get("a") is None


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("damage", ["short", "flipped", "empty", "other", "key", "class", "open"])
def test_a_damaged_file_counts_as_missing(tmp_path, monkeypatch, damage):
    cache = open_cache(tmp_path, "f", 0)
    cache.put("a", BatchPlan(1, 2, np.arange(100)))
    (path,) = files(tmp_path)
    raw = path.read_bytes()
    if damage == "key":
        cache.put("b", np.zeros(1))
        shutil.copy(next(p for p in files(tmp_path) if p != path), path)
    elif damage == "class":
        monkeypatch.setattr(kept, "PREPROCESS", ())
    elif damage == "open":
        monkeypatch.setattr(kept, "is_dataclass", lambda kind: False)
    else:
        changed = {"short": raw[:-1], "flipped": raw[:-1] + bytes([raw[-1] ^ 1]), "empty": b""}
        path.write_bytes(changed.get(damage, b"x" * 100))
    assert cache.get("a") is None
    monkeypatch.undo()
    cache.put("a", np.ones(1))
    assert cache.get("a").tolist() == [1]


def test_a_full_disk_is_survived(tmp_path, monkeypatch):
    cache = open_cache(tmp_path, "f", 0)
    cache.put("a", np.ones(1))

    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    cache.put("b", np.ones(1))
    assert cache.is_full
    monkeypatch.undo()
    cache.put("c", np.ones(1))
    assert [cache.get(key) is not None for key in "abc"] == [True, False, False]
    assert len(files(tmp_path)) == 1


def test_room_is_left_on_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(kept.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**29))
    cache = open_cache(tmp_path, "f", 0)
    cache.put("a", np.ones(1))
    assert cache.is_full
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        OSError, match=r"file' for decoded samples cannot be made: .* another --cache"
    ):
        open_cache(tmp_path / "file", "f", 0)


def test_values_of_decoding_are_told_by_their_class():
    assert dataclasses.is_dataclass(BatchPlan)
    assert isinstance(open_cache(None, "f", 0), SampleCache)
