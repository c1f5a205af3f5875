import io
import json
import pickle
import tarfile

import pytest
from small_data import members, png, write_tar

from perceivers.data.archives import TarTable
from perceivers.data.tables import Field, Table


def test_members_of_one_key_are_a_row(tmp_path):
    table = TarTable(write_tar(tmp_path / "a.tar", members(range(4))))
    assert isinstance(table, Table)
    assert len(table) == 4
    assert table.fields == {"image": Field("image"), "label": Field("string")}
    row = table.row(3)
    assert (row["image"].read(), row["label"]) == (png(3), "cat")
    assert row["image"].name == f"{tmp_path / 'a.tar'}/003.png"
    assert table.where(3) == f"{tmp_path / 'a.tar'}, key '003'"
    assert table.column("image") == ["000.png", "001.png", "002.png", "003.png"]
    assert table.keep({"label": Field("string")}).row(1) == {"label": "dog"}


def test_media_stay_in_the_archive(tmp_path):
    table = TarTable(write_tar(tmp_path / "a.tar", members(range(4))))
    assert png(2) not in pickle.dumps(table)
    assert pickle.loads(pickle.dumps(table)).row(2)["image"].read() == png(2)


def test_suffixes_name_columns(tmp_path):
    path = write_tar(
        tmp_path / "a.tar",
        {
            "x/1.left.jpg": png(1),
            "x/1.right.png": png(2),
            "x/1.json": json.dumps({"label": 3, "who": "me", "box": [1, 2]}).encode(),
            "x/1.txt": b"a note",
            "x/1.mp4": b"video",
            "x/1.weird": b"?",
            "x/README": b"hello",
            "x/.hidden.png": b"",
        },
    )
    table = TarTable(path)
    assert table.fields == {
        "left": Field("image"),
        "right": Field("image"),
        "video": Field("video"),
        "weird": Field("other"),
        "file": Field("other"),
        "label": Field("number"),
        "who": Field("string"),
        "box": Field("array"),
        "txt": Field("string"),
    }
    assert table.row(0)["label"] == 3
    assert table.row(1)["label"] is None
    with pytest.raises(ValueError, match=r"key 'x/README' is empty: expected a file"):
        table.row(1)["left"].read()


@pytest.mark.parametrize(
    ("texts", "cells"),
    [
        ({"cls": b"3\n"}, {"label": 3}),
        ({"cls": b"-1"}, {"label": -1}),
        ({"cls": b"owl"}, {"label": "owl"}),
        ({"txt": b"owl"}, {"label": "owl"}),
        ({"txt": b"one\ntwo"}, {"txt": "one\ntwo"}),
        ({"txt": b"long " * 50}, {"txt": ("long " * 50).strip()}),
        ({"txt": b"a note", "cls": b"3"}, {"label": 3, "txt": "a note"}),
        ({"json": b"7"}, {"json": 7}),
    ],
)
def test_text_members(tmp_path, texts, cells):
    found = {"1.png": png(1), **{f"1.{suffix}": text for suffix, text in texts.items()}}
    row = TarTable(write_tar(tmp_path / "a.tar", found)).row(0)
    del row["image"]
    assert row == cells


def test_a_member_that_cannot_be_parsed_is_named(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"1.png": png(1), "1.json": b"{"})
    with pytest.raises(ValueError, match=r"a\.tar, key '1': the member \.json cannot be read"):
        TarTable(path)


def test_mixed_media_in_one_column_are_unknown(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"1.x.png": b"", "2.x.mp4": b""})
    assert TarTable(path).fields == {"x": Field("other")}


def test_what_is_no_tar_is_named(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"not a tar file " * 100)
    with pytest.raises(ValueError, match=r"a\.tar cannot be read as tar: .* complete and not comp"):
        TarTable(tmp_path / "a.tar")
    with pytest.raises(FileNotFoundError, match=r"b\.tar"):
        TarTable(tmp_path / "b.tar")


def test_an_archive_cut_off_is_named(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("1.png")
        info.size = 4000
        archive.addfile(info, io.BytesIO(bytes(4000)))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"a\.tar is cut off inside '1\.png'"):
        TarTable(path)
