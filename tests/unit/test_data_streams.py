from collections import Counter
from dataclasses import dataclass
from itertools import chain

import datasets
import pytest
from small_data import (
    CLASSES,
    FEATURES,
    cells,
    dataset_dict,
    label,
    members,
    name,
    png,
    write_csv,
    write_jsonl,
    write_parquet,
    write_png,
    write_tar,
)

from perceivers.data import stream as stream_module
from perceivers.data.base import DataConfig
from perceivers.data.labels import ClassIndex
from perceivers.data.shards import FileShard, Shard, file_shards, sample_fields
from perceivers.data.sources import open_data
from perceivers.data.split import with_validation
from perceivers.data.stream import Stream
from perceivers.data.tables import Field

STREAMED = DataConfig(stream=True, shuffle_buffer=4)


def as_worker(monkeypatch, number, count):
    @dataclass
    class Info:
        id: int
        num_workers: int

    monkeypatch.setattr(stream_module, "get_worker_info", lambda: Info(number, count))


def test_workers_divide_the_rows_of_files(tmp_path, monkeypatch):
    for i in range(2):
        write_tar(tmp_path / f"train-{i}.tar", members(range(6 * i, 6 * i + 6)))
    stream = open_data(tmp_path, STREAMED).streams["train"]
    found = []
    for worker in range(3):
        as_worker(monkeypatch, worker, 3)
        found.append([row["image"].read() for row in stream])
    assert [len(part) for part in found] == [4, 4, 4]
    assert sorted(chain(*found)) == sorted(png(n) for n in range(12))


def test_a_row_far_inside_a_row_group_is_found(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", {"x": list(range(200))}, row_group_size=150)
    (shard,) = file_shards([path], sample_fields(path))
    assert [row["x"] for row in shard.rows(140)] == list(range(140, 200))
    assert [row["x"] for row in shard.rows(170)] == list(range(170, 200))


def test_damage_inside_a_shard_is_named(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", {"image": [png(i) for i in range(6)]})
    (shard,) = file_shards([path], sample_fields(path))
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"a\.parquet cannot be read as Parquet"):
        list(shard.rows(0))


def test_labels_become_indices_and_errors_name_the_row(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"label": "cat"}, {"label": "owl"}])
    made = FileShard(path, {"label": Field("string")})
    labels = ClassIndex(("ant", "cat"), "label", Field("string"))
    rows = iter(Stream([made], labels=labels))
    assert next(rows) == {"label": 1}
    with pytest.raises(
        ValueError, match=r"a\.jsonl, row 1 has the label 'owl', which was not seen"
    ):
        next(rows)


def write_all(folder):
    """Write the same six rows as a shard of each kind."""
    for n in range(6):
        write_png(folder / f"{n}.png", n)
    rows = [{"image": f"{n}.png", "label": name(n)} for n in range(6)]
    columns = {"image": [png(n) for n in range(6)], "label": [name(n) for n in range(6)]}
    return [
        write_csv(folder / "a.csv", rows),
        write_jsonl(folder / "a.jsonl", rows),
        write_tar(folder / "a.tar", members(range(6))),
        write_parquet(folder / "a.parquet", columns, row_group_size=2),
    ]


@pytest.mark.parametrize("kind", range(4))
def test_shards_are_read_from_any_row_on(tmp_path, kind):
    path = write_all(tmp_path)[kind]
    (shard,) = file_shards([path], sample_fields(path))
    assert isinstance(shard, Shard)
    assert shard.name == str(path)
    assert shard.values("label") == [name(n) for n in range(6)]
    for start in range(8):
        rows = list(shard.rows(start))
        assert [row["image"].read() for row in rows] == [png(n) for n in range(start, 6)]
        assert [row["label"] for row in rows] == [name(n) for n in range(start, 6)]


@pytest.mark.parametrize("kind", range(4))
def test_a_shard_tells_its_columns_by_its_first_rows(tmp_path, kind):
    fields = sample_fields(write_all(tmp_path)[kind])
    assert {column: field.kind for column, field in fields.items()} == {
        "image": "image",
        "label": "string",
    }


def test_columns_of_tar_members(tmp_path):
    path = write_tar(
        tmp_path / "a.tar", {"1.jpg": b"", "1.bin": b"", "2.x.jpg": b"", "3.x.mp4": b""}
    )
    assert sample_fields(path) == {
        "image": Field("image"),
        "bin": Field("other"),
        "x": Field("other"),
    }


def test_an_empty_shard_is_named(tmp_path):
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(ValueError, match=r"a\.jsonl holds no rows"):
        sample_fields(tmp_path / "a.jsonl")


def test_a_missing_label_in_csv_is_named(tmp_path):
    write_png(tmp_path / "1.png", 1)
    rows = [{"image": "1.png", "label": x} for x in ("a", "b", "")]
    source = open_data(write_csv(tmp_path / "a.csv", rows), DataConfig(stream=True))
    with pytest.raises(ValueError, match=r"a\.csv, row 2 has no label"):
        list(source.streams["train"])


def test_local_files_are_streamed(tmp_path):
    for i in range(3):
        write_parquet(tmp_path / f"train-{i}.parquet", cells(range(4 * i, 4 * i + 4)), FEATURES)
    write_parquet(tmp_path / "test.parquet", cells(range(20, 24)), FEATURES)
    source = open_data(tmp_path, STREAMED)
    assert source.form == "Parquet, split into train and test"
    assert source.notes[0] == f"Recognized {source.form}, streamed: train, test."
    assert source.label_names == CLASSES
    assert source.streams["train"].num_rows == 12
    assert Counter(r["label"] for r in source.streams["train"]) == {0: 4, 1: 4, 2: 4}
    assert [r["image"].read() for r in source.streams["test"]] == [png(n) for n in range(20, 24)]
    with pytest.raises(
        ValueError, match=r"no split 'train' .* there is none that is read by index"
    ):
        source.targets("train")


def test_classes_are_found_by_reading_labels_only(tmp_path):
    path = write_tar(tmp_path / "a.tar", members(range(6)))
    source = open_data(path, STREAMED)
    assert source.label_names == CLASSES
    assert source.streams["train"].num_rows == 6
    names = ("dog", "cat", "eel")
    assert open_data(path, STREAMED, label_names=names).label_names == names
    assert open_data(path, STREAMED, label_names=names).streams["train"].num_rows is None


def test_a_class_only_or_a_missing_column_is_refused_before_the_first_row(tmp_path):
    path = write_tar(tmp_path / "a.tar", members(range(0, 6, 3)))
    with pytest.raises(ValueError, match="has one class only, 'cat'"):
        open_data(path, STREAMED)
    with pytest.raises(ValueError, match=r"has no column 'lable'\. Did you mean 'label'"):
        open_data(path, DataConfig(stream=True, label="lable"))
    with pytest.raises(
        ValueError, match=r"'fold' only when they are read by index\. Leave --stream"
    ):
        open_data(path, DataConfig(stream=True, split_column="fold"))
    write_parquet(tmp_path / "b" / "train.parquet", cells(range(6)), FEATURES)
    write_parquet(tmp_path / "b" / "test.parquet", {"image": [png(1)]})
    with pytest.raises(ValueError, match=r"test\.parquet lacks the column 'label' that the other"):
        open_data(tmp_path / "b", STREAMED)


def test_streams_without_labels(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", {"image": [png(1), png(2)]})
    source = open_data(path, STREAMED)
    assert (source.target, source.label_names) == (None, ())
    assert sorted(row["image"].read() for row in source.streams["train"]) == sorted(
        (png(1), png(2))
    )


def test_data_sets_are_streamed():
    whole = dataset_dict()
    source = open_data(whole["train"].to_iterable_dataset(num_shards=3), STREAMED)
    stream = source.streams["train"]
    assert len(stream.shards) == 3
    assert stream.num_rows is None
    rows = list(stream)
    assert sorted(row["image"].read() for row in rows) == sorted(png(n) for n in range(9))
    assert next(iter(stream.shards[0].rows(1)))["image"].read() == png(1)
    assert open_data(whole, STREAMED).label_names == CLASSES


def test_iterable_data_sets_without_features():
    def rows():
        for n in range(4):
            yield {"image": {"bytes": png(n), "path": None}, "label": label(n)}

    stream = datasets.IterableDataset.from_generator(rows)
    with pytest.raises(
        ValueError, match="'label' of a Hugging Face data set does not name its clas"
    ):
        open_data(stream, STREAMED)
    source = open_data(stream, STREAMED, label_names=CLASSES)
    assert sorted(row["label"] for row in source.streams["train"]) == [0, 0, 1, 2]


def test_validation_is_held_out_of_a_stream(tmp_path):
    path = write_tar(tmp_path / "a.tar", members(range(60)))
    source = open_data(path, STREAMED)
    after = with_validation(source, DataConfig(validation_fraction=0.2))
    train, held = ({r["image"].name for r in after.streams[s]} for s in ("train", "validation"))
    assert train.isdisjoint(held)
    assert len(train | held) == 60
    assert after.notes[-1].startswith(
        "No validation split is given: about 20% of the streamed rows of train are held out for it, "
        "at random"
    )
    assert with_validation(after, DataConfig()) is after
    assert with_validation(source, DataConfig(validation_fraction=0.0)) is source


def test_validation_of_a_stream_needs_train(tmp_path):
    write_parquet(tmp_path / "test.parquet", cells(range(6)), FEATURES)
    source = open_data(tmp_path, STREAMED)
    with pytest.raises(ValueError, match="no train split to hold validation out of; there is test"):
        with_validation(source, DataConfig())
