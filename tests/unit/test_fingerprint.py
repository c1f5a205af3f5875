import os

import numpy as np
import torch

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.fingerprint import (
    bytes_fingerprint,
    rows_fingerprint,
    value_fingerprint,
    weights_fingerprint,
)


def file_print(path, **options):
    return value_fingerprint(EncodedItem("a", path=path), **options)


def test_a_file_is_its_content(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"one")
    second.write_bytes(b"one")
    os.utime(second, (1, 1))
    assert file_print(first) == file_print(second)
    about = first.stat()
    first.write_bytes(b"two")
    os.utime(first, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert file_print(first) != file_print(second)


def test_a_file_by_size_and_time(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    before = file_print(path, by="stat")
    assert file_print(path, by="stat") == before
    os.utime(path, (1, 1))
    assert file_print(path, by="stat") != before


def test_a_file_in_a_table_is_the_file_on_the_disk(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    on_disk, inside = EncodedItem("a", path=path), EncodedItem("row 3", data=b"one")
    assert value_fingerprint(on_disk) == value_fingerprint(inside)
    missing = EncodedItem("c", path=tmp_path / "c")
    assert value_fingerprint(missing) != value_fingerprint(EncodedItem("empty"))


def test_rows_differ_in_any_cell_and_in_their_order():
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": 2}]
    known = rows_fingerprint(rows)
    assert rows_fingerprint([{"label": 1, "text": "a"}, rows[1]]) == known
    changed = [
        rows[::-1],
        rows[:1],
        [{"text": "a", "label": "1"}, rows[1]],
        [{"text": "a", "label": 1.0}, rows[1]],
        [{"text": "ab", "label": 1}, {"text": "", "label": 2}],
    ]
    prints = {rows_fingerprint(each) for each in changed}
    assert len(prints) == len(changed)
    assert known not in prints


def test_arrays_differ_in_values_types_and_shapes():
    arrays = [np.zeros(4), np.zeros((2, 2)), np.zeros(4, np.float32), np.array([0.0, 0, 0, 1])]
    assert len({value_fingerprint(array) for array in arrays}) == len(arrays)
    wide = np.arange(8).reshape(2, 4)
    assert value_fingerprint(wide[:, ::2]) == value_fingerprint(wide[:, ::2].copy())
    value_fingerprint(np.array(["a", None], dtype=object))


def test_parts_of_bytes_are_kept_apart():
    assert bytes_fingerprint(b"ab", b"c") != bytes_fingerprint(b"a", b"bc")


def test_weights_differ_in_one_bit():
    weights = {"a": torch.zeros(3, dtype=torch.bfloat16), "b": torch.ones(()), "c": torch.ones(0)}
    known = weights_fingerprint(weights)
    assert weights_fingerprint(dict(reversed(weights.items()))) == known
    weights["a"] = torch.tensor([0.0, -0.0, 0.0], dtype=torch.bfloat16)
    assert weights_fingerprint(weights) != known
