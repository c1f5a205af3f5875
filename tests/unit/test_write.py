import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perceivers.cli.main import main
from perceivers.data.base import DataConfig
from perceivers.data.modalities.image.decode import decode
from perceivers.data.sources import write_shards as write_module
from perceivers.data.sources.open import open_data
from perceivers.data.sources.write_shards import write_shards
from support.files import write_csv, write_jsonl, write_parquet, write_tar
from support.image_data import (
    CLASSES,
    FORMS,
    WITH_SPLIT_COLUMN,
    dataset_dict,
    members,
    name,
    pixels,
    png,
    write_png,
)

STREAMED = DataConfig(stream=True)


def picture(media):
    return np.asarray(decode(media, num_channels=3).image)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stream", [True, False])
def test_every_form_of_data_is_read_back_as_it_was(tmp_path, form, stream):
    data = FORMS[form](tmp_path / "data")
    config = DataConfig(split_column="split" if form in WITH_SPLIT_COLUMN else None)
    written = write_shards(data, tmp_path / "out", config=config, rows_per_shard=4)
    assert [(part.split, part.num_rows, len(part.paths)) for part in written] == [
        ("train", 9, 3),
        ("test", 3, 1),
    ]
    source = open_data(tmp_path / "out", DataConfig(stream=stream))
    assert (source.label_names, source.target, len(source.inputs)) == (CLASSES, "label", 1)
    (column,) = source.inputs.values()
    for split, numbers in (("train", range(9)), ("test", range(9, 12))):
        records = source.splits.get(split)
        rows = (
            list(source.streams[split]) if stream else [records.row(i) for i in range(len(numbers))]
        )
        found = {picture(row[column.column]).tobytes(): row["label"] for row in rows}
        assert found == {pixels(n).tobytes(): n % 3 for n in numbers}
    assert "key" in source.ignored


def test_names_of_shards_are_those_of_the_hub(tmp_path):
    write_shards(dataset_dict(), tmp_path, rows_per_shard=4)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "test-00000-of-00001.parquet",
        "train-00000-of-00003.parquet",
        "train-00001-of-00003.parquet",
        "train-00002-of-00003.parquet",
    ]


def test_datasets_reads_them_as_its_own(tmp_path):
    import datasets

    (part,) = write_shards(write_tar(tmp_path / "a.tar", members(range(6))), tmp_path / "out")
    found = datasets.Dataset.from_parquet(str(part.paths[0]), cache_dir=str(tmp_path / "cache"))
    assert found.features["image"] == datasets.Image()
    assert found.features["label"] == datasets.ClassLabel(names=list(CLASSES))
    assert found.features["key"] == datasets.Value("string")
    np.testing.assert_array_equal(np.asarray(found[4]["image"]), pixels(4))
    assert (found[4]["key"], found[4]["label"]) == ("a.tar:004", 1)


def rows_of(part):
    return [row for path in part.paths for row in pq.read_table(path).to_pylist()]


def test_all_columns_stay_and_rows_have_keys(tmp_path):
    for n in range(4):
        write_png(tmp_path / "img" / f"{n}.png", n)
    rows = [
        {"picture": f"img/{n}.png", "label": name(n), "fold": n, "who": f"w{n}", "empty": None}
        for n in range(4)
    ]
    (part,) = write_shards(write_jsonl(tmp_path / "a.jsonl", rows), tmp_path / "out")
    assert [row["key"] for row in rows_of(part)] == [f"img/{n}.png" for n in range(4)]
    assert rows_of(part)[2] == {
        "key": "img/2.png",
        "picture": {"bytes": png(2), "path": "img/2.png"},
        "label": 2,
        "fold": 2,
        "who": "w2",
        "empty": None,
    }
    rows = [{**row, "picture": "img/0.png"} for row in rows]
    (part,) = write_shards(write_csv(tmp_path / "b.csv", rows), tmp_path / "out2")
    assert [row["key"] for row in rows_of(part)] == [f"b.csv:{n + 2}" for n in range(4)]


def test_a_column_that_is_called_key_is_the_key(tmp_path):
    columns = {"key": [7, 8], "image": [png(1), png(2)], "label": ["a", "b"]}
    (part,) = write_shards(write_parquet(tmp_path / "a.parquet", columns), tmp_path / "out")
    assert [row["key"] for row in rows_of(part)] == ["7", "8"]


def test_every_kind_of_file_keeps_its_bytes_and_its_name(tmp_path):
    contents = {
        "wav": b"RIFF????WAVE",
        "mp4": b"????ftypisom",
        "off": b"OFF\n0 0 0",
        "npy": b"\x93NUMPY",
        "csv": b"a,b\n1,2",
    }
    found = {f"{n}.{s}": content for n in range(2) for s, content in contents.items()}
    found |= {f"{n}.cls": b"ab"[n : n + 1] for n in range(2)}
    (part,) = write_shards(write_tar(tmp_path / "a.tar", found), tmp_path / "out")
    kinds = {"wav": "audio", "mp4": "video", "off": "points", "npy": "array", "csv": "series"}
    assert rows_of(part)[1] == {
        "key": "a.tar:1",
        "label": 1,
        **{kinds[s]: {"bytes": content, "path": f"1.{s}"} for s, content in contents.items()},
    }
    for config in (DataConfig(), STREAMED):
        inputs = open_data(tmp_path / "out", config).inputs
        assert inputs == open_data(tmp_path / "a.tar", config).inputs
        assert len(inputs) > 3


def test_texts_lists_and_arrays_are_written_as_they_are(tmp_path):
    (tmp_path / "a").mkdir()
    np.savez(
        tmp_path / "a" / "train.npz",
        points=np.arange(24, dtype=np.float16).reshape(2, 4, 3),
        label=np.array([0, 1]),
        flat=np.ones((2, 5), dtype=np.int16),
        score=np.array([0.5, 0.25]),
    )
    (part,) = write_shards(tmp_path / "a", tmp_path / "out")
    schema = pq.read_schema(part.paths[0])
    assert schema.field("points").type == pa.list_(pa.list_(pa.float32()))
    assert schema.field("flat").type == pa.list_(pa.int16())
    assert rows_of(part)[1]["points"][0] == [12, 13, 14]
    assert (rows_of(part)[1]["score"], rows_of(part)[1]["key"]) == (0.25, "train.npz:1")
    assert open_data(tmp_path / "out", DataConfig()).inputs["points"].kind == "points"
    long = "word " * 50
    rows = [{"text": long + str(n), "label": "ab"[n], "said": [1, "x", {"y": n}]} for n in range(2)]
    (part,) = write_shards(write_jsonl(tmp_path / "b.jsonl", rows), tmp_path / "out2")
    assert rows_of(part)[0]["text"] == long + "0"
    assert json.loads(rows_of(part)[1]["said"]) == [1, "x", {"y": 1}]
    assert open_data(tmp_path / "out2", STREAMED).inputs["text"].kind == "text"


def test_types_of_parquet_columns_stay(tmp_path):
    table = pa.table(
        {
            "x": pa.array([[1, 2]] * 4, pa.list_(pa.int16(), 2)),
            "label": pa.array([0, 1, 0, 1], pa.int8()),
            "who": pa.array([1, 2, 3, 4], pa.int8()),
            "when": pa.array([1, 2, 3, 4], pa.timestamp("ms")),
        }
    )
    pq.write_table(table, tmp_path / "train-0.parquet")
    pq.write_table(table, tmp_path / "train-1.parquet")
    (part,) = write_shards(tmp_path, tmp_path / "out", rows_per_shard=8)
    schema = pq.read_schema(part.paths[0])
    assert [schema.field(c).type for c in ("x", "who", "when")] == [
        *(pa.list_(pa.int16(), 2), pa.int8(), pa.timestamp("ms"))
    ]
    assert part.num_rows == 8
    config = DataConfig(split_column="who", test="4")
    train, test = write_shards(tmp_path / "train-0.parquet", tmp_path / "o", config=config)
    assert (train.num_rows, test.num_rows) == (3, 1)


@pytest.mark.parametrize(
    ("labels", "kind", "target"),
    [
        ([0.5, 0.25, 0.125, 0.75, 0.1, 0.9], "number", "auto"),
        ([[0, 1], [1, 1], [1, 0], [0, 0], [1, 1], [0, 1]], "labels", "auto"),
        ([1, 2, 1, 2, 1, 2], "number", "number"),
    ],
)
def test_targets_that_are_no_classes_stay_as_they_are(tmp_path, labels, kind, target):
    columns = {"image": [png(n) for n in range(6)], "label": labels}
    path = write_parquet(tmp_path / "a.parquet", columns)
    config = DataConfig(target=target)
    (part,) = write_shards(path, tmp_path / "out", config=config)
    assert [row["label"] for row in rows_of(part)] == labels
    assert open_data(tmp_path / "out", config).target_kind == kind


def test_a_target_that_must_be_a_class_and_is_none_is_refused(tmp_path):
    columns = {"image": [png(n) for n in range(3)], "label": ["a"] * 3}
    path = write_parquet(tmp_path / "a.parquet", columns)
    with pytest.raises(ValueError, match="has one class only"):
        write_shards(path, tmp_path / "out", config=DataConfig(target="class"))


def test_labels_that_a_test_split_keeps_to_itself_stay_missing(tmp_path):
    columns = {"image": [png(n) for n in range(3)], "label": ["a", "b", "a"]}
    write_parquet(tmp_path / "d" / "train.parquet", columns)
    write_parquet(
        tmp_path / "d" / "test.parquet", {**columns, "label": pa.array([None] * 3, pa.string())}
    )
    _, test = write_shards(tmp_path / "d", tmp_path / "out")
    assert [row["label"] for row in rows_of(test)] == [-1, -1, -1]
    notes = open_data(tmp_path / "out", DataConfig()).notes
    assert any(note.startswith("Left out: test") for note in notes)


def test_finished_shards_are_not_written_again(tmp_path, monkeypatch):
    data = write_tar(tmp_path / "a.tar", members(range(9)))
    (part,) = write_shards(data, tmp_path / "out", rows_per_shard=3)
    times = [path.stat().st_mtime_ns for path in part.paths]
    part.paths[1].unlink()
    (again,) = write_shards(data, tmp_path / "out", rows_per_shard=3)
    assert (again.there, again.num_rows, again.paths) == (2, 9, part.paths)
    assert [path.stat().st_mtime_ns == t for path, t in zip(part.paths, times, strict=True)] == [
        *(True, False, True)
    ]


def test_shards_whose_files_changed_are_written_again(tmp_path):
    for n in range(9):
        write_png(tmp_path / "a" / "xy"[n % 2] / f"{n}.png", n)
    (first,) = write_shards(tmp_path / "a", tmp_path / "out", rows_per_shard=3)
    path = tmp_path / "a" / "y" / "5.png"
    about = path.stat()
    write_png(path, 77)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    (again,) = write_shards(tmp_path / "a", tmp_path / "out", rows_per_shard=3)
    assert (again.there, again.changed, again.num_rows) == (2, 1, 9)
    assert again.paths == first.paths
    written = {row["key"]: row["image"]["bytes"] for row in rows_of(again)}
    assert written["y/5.png"] == path.read_bytes()
    (last,) = write_shards(tmp_path / "a", tmp_path / "out", rows_per_shard=3)
    assert (last.there, last.changed) == (3, 0)


def test_rows_left_out_of_finished_shards_are_named_again(tmp_path):
    for n in range(10):
        write_png(tmp_path / "a" / "xy"[n % 2] / f"{n}.png", n)
    (tmp_path / "a" / "x" / "4.png").unlink()
    (tmp_path / "a" / "x" / "4.png").symlink_to(tmp_path / "gone.png")
    for there in (0, 1):
        (part,) = write_shards(tmp_path / "a", tmp_path / "out", config=DataConfig(max_bad=0.2))
        assert (part.there, [name for name, _ in part.bad]) == (there, ["x/4.png"])


def test_names_that_are_not_utf8_are_made_visible(tmp_path):
    for n in range(4):
        write_png(tmp_path / "a" / "xy"[n % 2] / os.fsdecode(b"caf\xe9-%d.png" % n), n)
    (part,) = write_shards(tmp_path / "a", tmp_path / "out")
    assert rows_of(part)[0]["key"] == r"x/caf\xe9-0.png"
    assert len(open_data(tmp_path / "out", DataConfig()).splits["train"]) == 4


def test_an_interruption_leaves_whole_shards_only(tmp_path, monkeypatch):
    data = write_tar(tmp_path / "a.tar", members(range(9)))
    group = write_module._row_group
    calls = []

    def interrupted(rows):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return group(rows)

    monkeypatch.setattr(write_module, "_row_group", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_shards(data, tmp_path / "out", rows_per_shard=3)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["train-00000-of-00003.parquet"]


def test_shards_of_other_data_are_not_touched(tmp_path):
    data = write_tar(tmp_path / "a.tar", members(range(6)))
    other = write_tar(tmp_path / "b.tar", members(range(6, 12)))
    write_shards(data, tmp_path / "out", rows_per_shard=3)
    with pytest.raises(ValueError, match=r"00000-of-00002\.parquet exists and holds other rows"):
        write_shards(other, tmp_path / "out", rows_per_shard=3)
    with pytest.raises(
        ValueError, match=r"holds other shards of train, such as train-00000-of-00002"
    ):
        write_shards(data, tmp_path / "out", rows_per_shard=2)
    (tmp_path / "out" / "train-00000-of-00002.parquet").write_bytes(b"?")
    with pytest.raises(ValueError, match="exists and holds"):
        write_shards(data, tmp_path / "out", rows_per_shard=3)


def test_rows_that_cannot_be_read_are_left_out_and_named(tmp_path):
    for n in range(10):
        write_png(tmp_path / "a" / "xy"[n % 2] / f"{n}.png", n)
    (tmp_path / "a" / "x" / "4.png").unlink()
    (tmp_path / "a" / "x" / "4.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(ValueError, match=r"1 of 10 rows of train cannot be read, .* x/4\.png: "):
        write_shards(tmp_path / "a", tmp_path / "out")
    (part,) = write_shards(tmp_path / "a", tmp_path / "out2", config=DataConfig(max_bad=0.2))
    assert part.num_rows == 9
    assert [name for name, _ in part.bad] == ["x/4.png"]
    assert "cannot be read: No such file" in part.bad[0][1]


def test_a_column_of_paths_that_lead_nowhere_says_where_rows_came_from(tmp_path):
    rows = {"image": [png(1), png(2)], "label": ["a", "b"], "from": ["x/1.off", "x/2.off"]}
    (part,) = write_shards(write_parquet(tmp_path / "a.parquet", rows), tmp_path / "out")
    assert [row["from"] for row in rows_of(part)] == ["x/1.off", "x/2.off"]
    assert list(open_data(tmp_path / "out", DataConfig()).inputs) == ["image"]


def test_names_of_other_classes_stay(tmp_path):
    features = {"kind": {"_type": "ClassLabel", "names": ["x", "y"]}}
    rows = {"image": [png(1), png(2)], "label": ["a", "b"], "kind": [0, 1]}
    path = write_parquet(tmp_path / "a.parquet", rows, features)
    write_shards(path, tmp_path / "out")
    assert open_data(tmp_path / "out", DataConfig(label="kind")).label_names == ("x", "y")


def test_a_missing_file_of_a_sample_stays_missing(tmp_path):
    found = {"1.jpg": png(1), "1.wav": b"RIFF", "1.cls": b"a", "2.jpg": png(2), "2.cls": b"b"}
    (part,) = write_shards(write_tar(tmp_path / "a.tar", found), tmp_path / "out")
    assert [row["audio"] is None for row in rows_of(part)] == [False, True]
    assert rows_of(part)[0]["image"]["path"] == "1.jpg"


def test_names_of_files_never_lead_out_of_a_folder(tmp_path):
    write_png(tmp_path / "outside.png", 1)
    write_png(tmp_path / "d" / "in.png", 2)
    rows = [
        {"image": "../outside.png", "label": "a"},
        {"image": str(tmp_path / "outside.png"), "label": "b"},
        {"image": "in.png", "label": "a"},
    ]
    (part,) = write_shards(write_csv(tmp_path / "d" / "a.csv", rows), tmp_path / "out")
    assert [row["image"]["path"] for row in rows_of(part)] == [
        *("outside.png", "outside.png", "in.png")
    ]
    found = {"../../x.png": png(1), "../../x.cls": b"a", "y.png": png(2), "y.cls": b"b"}
    (part,) = write_shards(write_tar(tmp_path / "t.tar", found), tmp_path / "out2")
    assert [row["image"]["path"] for row in rows_of(part)] == ["x.png", "y.png"]


def test_shards_are_as_long_as_their_bytes_allow(tmp_path, monkeypatch):
    data = write_tar(tmp_path / "a.tar", members(range(9)))
    monkeypatch.setattr(write_module, "SHARD_BYTES", 3 * len(png(1)))
    monkeypatch.setattr(write_module, "_GROUP_BYTES", 1)
    (part,) = write_shards(data, tmp_path / "out")
    assert len(part.paths) == 3
    assert pq.read_metadata(part.paths[0]).num_row_groups == 3


def test_what_cannot_be_asked_for_is_refused(tmp_path):
    data = write_tar(tmp_path / "a.tar", members(range(3)))
    with pytest.raises(ValueError, match="at least one row in a shard, got rows_per_shard=0"):
        write_shards(data, tmp_path / "out", rows_per_shard=0)
    with pytest.raises(ValueError, match=r"no split 'test' in .*; there is train"):
        write_shards(data, tmp_path / "out", splits=["test"])


def test_cells_of_several_types_in_a_column_are_named(tmp_path, monkeypatch):
    rows = [{"label": "ab"[n % 2], "x": [n] if n else ["a"], "text": "w " * 99} for n in range(400)]
    rows[1]["x"] = ["b"]
    for row in rows[:390]:
        row["x"] = ["c"]
    rows[395]["x"] = [["c"]]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    monkeypatch.setattr("perceivers.data.sources.write_shards._LOOKED_AT", 1)
    with pytest.raises(
        ValueError, match=r"The rows of .*a\.jsonl do not have one type in each col"
    ):
        write_shards(path, tmp_path / "out")


def test_the_command_writes_shards_that_fit_reads(tmp_path, capsys, monkeypatch):
    data = FORMS["folder of classes"](tmp_path / "data")
    out = tmp_path / "out"
    arguments = ["shard", str(data), "--out", str(out), "--rows-per-shard", "5"]
    assert main([*arguments, "--split", "train"]) == 0
    assert capsys.readouterr().out == (
        f"train: 9 rows in 2 shards\nNext: perceivers fit {out} --stream\n"
    )
    assert main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [
        "train: 9 rows in 2 shards, 2 of them there already",
        "test: 3 rows in 1 shard",
    ]
    assert open_data(out, STREAMED).label_names == CLASSES


def test_the_command_names_what_it_leaves_out(tmp_path, capsys):
    for n in range(20):
        write_png(tmp_path / "a" / "xy"[n % 2] / f"{n:02d}.png", n)
    for n in range(0, 12, 2):
        (tmp_path / "a" / "x" / f"{n:02d}.png").unlink()
        (tmp_path / "a" / "x" / f"{n:02d}.png").symlink_to(tmp_path / "gone")
    folder = Path(tmp_path / "out")
    assert main(["shard", str(tmp_path / "a"), "--out", str(folder), "--max-bad", "0.5"]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("train: 14 rows in 1 shard\n")
    assert "left out x/00.png: " in told.err
    assert "left out 1 more" in told.err
