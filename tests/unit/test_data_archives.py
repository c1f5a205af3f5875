import io
import json
import pickle
import tarfile

import pytest

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.formats.webdataset import (
    TarTable,
    media_column,
    printable_name,
    tar_members,
    tar_rows,
)
from perceivers.data.streaming.shards import FileShard, infer_fields
from perceivers.data.tables.table import Field, Table
from support.files import write_tar
from support.image_data import members, png
from support.loaders import file_shard


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
        "box": Field("array", shape=(2,)),
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
    assert {c: v.value if isinstance(v, EncodedItem) else v for c, v in row.items()} == cells


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


@pytest.mark.parametrize("lost", [1, 1024, 1500, 5000, 9000])
def test_an_archive_that_ends_anywhere_too_early_is_named(tmp_path, lost):
    path = write_tar(tmp_path / "a.tar", {f"{n}.png": bytes(2000) for n in range(4)})
    with tarfile.open(path) as archive:
        end = archive.getmembers()[-1].offset_data + 2048
    path.write_bytes(path.read_bytes()[: end + 512 - lost])
    with pytest.raises(ValueError, match=r"a\.tar (is cut off|cannot be read as tar)"):
        TarTable(path)


def test_a_header_that_is_damaged_is_no_end(tmp_path):
    path = write_tar(tmp_path / "a.tar", {f"{n}.png": png(n) for n in range(4)})
    with tarfile.open(path) as archive:
        at = archive.getmembers()[2].offset
    content = bytearray(path.read_bytes())
    content[at : at + 200] = b"x" * 200
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=rf"a\.tar is cut off or damaged at byte {at:,}"):
        TarTable(path)


def test_negative_sizes_are_refused(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"1.png": png(1)})
    with tarfile.open(path) as archive:
        (member,) = archive.getmembers()
    member.size = -512
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(ValueError, match=r"a\.tar (is cut off inside '1\.png'|cannot be read)"):
        list(tar_members(path))


def hostile(path, secret):
    """Write an archive that names what lies outside of it, in every way that there is."""
    with tarfile.open(path, "w") as archive:
        for name in ("../../etc/passwd.png", f"{secret}", "a/../../b.png", "c\x1b[2J\n.png"):
            info = tarfile.TarInfo(name)
            info.size = len(png(1))
            archive.addfile(info, io.BytesIO(png(1)))
        for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE)):
            info = tarfile.TarInfo(f"link{number}.png")
            info.type, info.linkname = kind, str(secret)
            archive.addfile(info)
        told = json.dumps(
            {"other": str(secret), "more": {"path": str(secret)}, "label": 1}
        ).encode()
        info = tarfile.TarInfo("d.json")
        info.size = len(told)
        archive.addfile(info, io.BytesIO(told))
    return path


@pytest.mark.parametrize("streamed", [True, False])
def test_an_archive_never_says_what_is_read_or_written_on_this_disk(
    tmp_path, monkeypatch, streamed
):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(7))
    (tmp_path / "inside").mkdir()
    path = hostile(tmp_path / "inside" / "a.tar", secret)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    opened = []
    whole = type(path).open
    monkeypatch.setattr(
        type(path), "open", lambda self, *a, **k: (opened.append(self), whole(self, *a, **k))[1]
    )
    fields = {**infer_fields(path), "other": Field("image"), "more": Field("image")}
    if streamed:
        rows = list(FileShard(path, fields).rows(0))
    else:
        table = TarTable(path).keep(fields)
        rows = [table.row(index) for index in range(len(table))]
    pictures = [row["image"] for row in rows if not row["image"].is_missing]
    assert [picture.read() for picture in pictures] == [png(1)] * 4
    assert pictures[-1].name == f"{path}/c?[2J?.png"
    assert all(row["image"].path is None and row["other"].path is None for row in rows)
    assert [row["more"].value for row in rows][-1] == {"path": str(secret)}
    assert set(opened) == {path}
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_what_texts_in_an_archive_hold_is_never_a_file(tmp_path):
    cells = {"a": "x/y.png", "b": {"path": "z.wav"}, "c": [1.0, 2.0], "d": "word " * 40, "e": 3}
    path = write_tar(tmp_path / "a.tar", {"1.json": json.dumps(cells).encode()})
    for fields in (TarTable(path).fields, infer_fields(path)):
        assert {c: field.kind for c, field in fields.items()} == {
            "a": "string",
            "b": "other",
            "c": "array",
            "d": "text",
            "e": "number",
        }
        (row,) = FileShard(path, fields).rows(0)
        assert (row["a"], row["b"], row["e"]) == ("x/y.png", {"path": "z.wav"}, 3)
        assert (row["c"].value, row["d"].value) == ([1.0, 2.0], "word " * 40)


def test_sparse_members_are_passed_over(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "a.tar", {"1.png": png(1), "2.png": png(2)})
    monkeypatch.setattr(tarfile.TarInfo, "issparse", lambda self: self.name == "1.png")
    assert [member.name for _, member in tar_members(path)] == ["2.png"]


@pytest.mark.parametrize(
    ("suffix", "column"),
    [
        ("jpg", "image"),
        ("flac", "audio"),
        ("mp4", "video"),
        ("off", "points"),
        ("npy", "array"),
        ("csv", "series"),
        ("left.npy", "left"),
        ("txt", None),
        ("weird", None),
    ],
)
def test_every_kind_of_member_is_a_column(suffix, column):
    assert media_column(suffix) == column


def test_a_shard_cut_short_gives_the_rows_before(tmp_path):
    path = write_tar(tmp_path / "a.tar", {f"{n}.png": png(n) for n in range(6)})
    with tarfile.open(path) as archive:
        end = archive.getmembers()[3].offset_data + 10
    path.write_bytes(path.read_bytes()[:end])
    shard = file_shard(path, infer_fields(path))
    assert shard.num_rows == 3  # what cannot be read counts as one
    rows = shard.rows(0)  # of the third, members may be lost
    assert [next(rows)["image"].read() for _ in range(2)] == [png(n) for n in range(2)]
    with pytest.raises(ValueError, match=r"a\.tar is cut off inside '3\.png'"):
        next(rows)


def test_names_are_shown_without_characters_that_steer():
    assert printable_name("../a\x1b\n\u202eb é") == "../a???b é"


@pytest.mark.parametrize(
    ("texts", "columns"),
    [
        ({"target.cls": b"3"}, {"label": 3}),
        ({"label.cls": b"3", "coarse.cls": b"1"}, {"label": 3, "coarse": 1}),
        ({"target.cls": b"3", "coarse.cls": b"1"}, {"target": 3, "coarse": 1}),
        ({"label.txt": b"cat\n", "txt": b"a cat on a mat"}, {"label": "cat", "txt": "a cat on a mat"}),
        ({"caption.txt": b"a cat", "cls": b"2"}, {"caption": "a cat", "label": 2}),
        ({"image.txt": b"a cat", "cls": b"2"}, {"image.txt": "a cat", "label": 2}),
        ({"meta.json": b'{"label": 1}'}, {"label": 1}),
        ({"scores.json": b"[1, 2]", "cls": b"0"}, {"scores": [1, 2], "label": 0}),
    ],
)  # fmt: skip
def test_named_text_members_are_columns(tmp_path, texts, columns):
    files = {f"v1.0/b.c/{n}.{s}": t for n in range(2) for s, t in {"jpg": png(n), **texts}.items()}
    path = write_tar(tmp_path / "a.tar", files)
    table = TarTable(path)
    assert table.keys == ["v1.0/b.c/0", "v1.0/b.c/1"]
    for row in (table.row(0), next(tar_rows(path, columns=("image",)))):
        image = row.pop("image")
        assert image.read() == png(0)
        assert {k: getattr(v, "value", v) for k, v in row.items()} == columns


def test_hidden_members_are_skipped(tmp_path):
    files = {"a/1.jpg": png(1), "__MACOSX/a/._1.jpg": b"", ".cache/2.jpg": b"", "./b/3.jpg": png(3)}
    assert TarTable(write_tar(tmp_path / "a.tar", files)).keys == ["a/1", "./b/3"]
