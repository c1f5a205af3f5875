import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from perceivers.data.formats.delimited import json_rows
from perceivers.data.formats.files import read_files
from perceivers.data.tables.table import Field
from support.files import write_csv, write_jsonl
from support.image_data import pixels


def test_text_of_numbers_is_numbers(tmp_path):
    rows = [
        {"int": 1, "code": "007", "float": 1.5, "name": "a", "none": "", "mix": "1"},
        {"int": -20, "code": "010", "float": "", "name": "", "none": "", "mix": "x"},
    ]
    table = read_files([write_csv(tmp_path / "a.csv", rows)])
    assert [table.column(c) for c in table.fields] == [
        [1, -20],
        ["007", "010"],
        [1.5, None],
        ["a", None],
        [None, None],
        ["1", "x"],
    ]
    assert table.where(0) == f"{tmp_path / 'a.csv'}, line 2"


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_separators_and_byte_order_mark(tmp_path, mark):
    (tmp_path / "a.csv").write_text(f"\ufeffx{mark}y\n1{mark}2\n\n", encoding="utf-8")
    table = read_files([tmp_path / "a.csv"])
    assert {name: table.column(name) for name in table.fields} == {"x": [1], "y": [2]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no CSV file with a header"),
        (b"x,x\n1,2\n", "expected different names in its first line, got"),
        (b"x,y\n3\n", r"a\.csv, line 2: expected 2 cells \(x, y\), got 1"),
        (b'x,y\n"1,2\n', r"a\.csv, line 2: a double quote is not closed"),
        (b"\x00\x01\x02,y\n", r"a\.csv is no text"),
        (b"x,y\n", r"a\.csv holds no rows"),
    ],
)
def test_what_is_no_csv_is_said(tmp_path, content, message):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_files([tmp_path / "a.csv"])


def test_json_lines(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"x": 1}, {"x": 2, "y": "b"}])
    path.write_text(path.read_text() + "\n")
    table = read_files([path])
    assert (table.column("x"), table.column("y")) == ([1, 2], [None, "b"])
    assert table.where(1).endswith("line 2")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"x": 1}\n{"x":', r"a\.jsonl, line 2 is not JSON"),
        ("[1, 2]\n", r"line 1: expected an object like .* got \[1, 2\]"),
    ],
)
def test_what_is_no_json_is_said(tmp_path, content, message):
    (tmp_path / "a.jsonl").write_text(content)
    errors = [row.error for row in json_rows(tmp_path / "a.jsonl") if row.cells is None]
    assert re.search(message, errors[0])


def test_shards_without_rows_are_passed_over(tmp_path):
    (tmp_path / "a.jsonl").touch()
    write_jsonl(tmp_path / "b.jsonl", [{"x": 1}])
    assert len(read_files([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])) == 1


def test_arrays(tmp_path):
    np.savez(
        tmp_path / "a.npz",
        image=np.stack([pixels(1), pixels(2)]),
        label=np.array([1, 0]),
        label_names=np.array([b"a", b"b"]),
        who=np.array(["x", "y"]),
        scores=np.zeros((2, 7)),
        version=np.array(3),
    )
    table = read_files([tmp_path / "a.npz"])
    assert table.fields == {
        "image": Field("image"),
        "label": Field("number", names=("a", "b")),
        "who": Field("string"),
        "scores": Field("array", shape=(7,)),
    }
    assert (table.row(1)["image"].array == pixels(2)).all()


def test_arrays_of_channels_first_are_turned(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.moveaxis(np.ones((2, 5, 6, 3), np.uint8), -1, 1))
    assert read_files([tmp_path / "a.npz"]).row(0)["images"].array.shape == (5, 6, 3)


def test_arrays_that_do_not_fit_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"array 'images': expected .* got the shape \(2, 3\)"):
        read_files([tmp_path / "a.npz"])
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 3, 3)), label=np.zeros(3))
    with pytest.raises(ValueError, match="expected as many labels as samples, 2, got 3"):
        read_files([tmp_path / "a.npz"])
    np.savez(tmp_path / "a.npz", images=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"cannot be read as \.npz: .*pickles\) are refused"):
        read_files([tmp_path / "a.npz"])
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ValueError, match=r"a\.npz cannot be read as \.npz"):
        read_files([tmp_path / "a.npz"])


def test_hdf5_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.h5").touch()
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(
        ImportError,
        match=r"h5py is needed for this\. Install it: pip install .perceivers\[points\]",
    ):
        read_files([tmp_path / "a.h5"])


def test_hdf5_is_read_like_arrays(tmp_path, monkeypatch):
    class File(dict):
        def __init__(self, path, mode):
            if path.stat().st_size == 0:
                raise OSError("file signature not found")
            super().__init__(image=pixels(1)[None], label=np.array([1]), group={})

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    monkeypatch.setitem(sys.modules, "h5py", types.SimpleNamespace(File=File))
    (tmp_path / "a.h5").write_bytes(b"x")
    assert read_files([tmp_path / "a.h5"]).column("label") == [1]
    (tmp_path / "b.h5").touch()
    with pytest.raises(OSError, match=r"b\.h5 cannot be read as HDF5: file signature not found"):
        read_files([tmp_path / "b.h5"])


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "tar", "npz", "parquet"])
def test_a_file_that_must_not_be_read_is_named(tmp_path, monkeypatch, suffix):
    def refuse(path, *args, **keywords):
        raise PermissionError(13, "Permission denied", str(path))

    path = tmp_path / f"a.{suffix}"
    path.touch()
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(
        PermissionError, match=rf"'.*a\.{suffix}' cannot be read: Permission denied"
    ):
        read_files([path])
