import tarfile
from collections import Counter
from dataclasses import dataclass
from itertools import chain

import datasets
import numpy as np
import pytest

from perceivers.data.base import DataConfig
from perceivers.data.sources.open import open_data
from perceivers.data.sources.split import with_validation
from perceivers.data.streaming import stream as stream_module
from perceivers.data.streaming.shards import (
    FileShard,
    Shard,
    infer_fields,
    scan_file,
)
from perceivers.data.streaming.stream import Stream
from perceivers.data.tables.table import Field
from perceivers.data.targets.infer import TargetEncoder
from support.files import write_csv, write_jsonl, write_parquet, write_tar
from support.image_data import (
    CLASSES,
    FEATURES,
    cells,
    dataset_dict,
    label,
    members,
    name,
    png,
    write_png,
)
from support.loaders import file_shard

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
    shard = file_shard(path, infer_fields(path))
    assert [row["x"] for row in shard.rows(140)] == list(range(140, 200))
    assert [row["x"] for row in shard.rows(170)] == list(range(170, 200))


def test_damage_inside_a_shard_is_named(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", {"image": [png(i) for i in range(6)]})
    shard = file_shard(path, infer_fields(path))
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"a\.parquet cannot be read as Parquet"):
        list(shard.rows(0))


def test_labels_become_indices_and_rows_with_an_unknown_one_are_bad(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"label": "cat"}, {"label": "owl"}])
    made = FileShard(path, {"label": Field("string")})
    labels = TargetEncoder("class", ("ant", "cat"), "label", Field("string"))
    stream = Stream([made], labels=labels)
    assert list(stream) == [{"label": 1}]
    ((where, reason),) = stream.take_damage()
    assert where == f"{path}, line 2"
    assert "a.jsonl, line 2 has the label 'owl', which was not seen" in reason


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
    shard = file_shard(path, infer_fields(path))
    assert isinstance(shard, Shard)
    assert shard.name == str(path)
    assert shard.num_rows == 6
    scan = scan_file(path, ["label", "other"])
    assert (scan.num_rows, scan.damage) == (6, None)
    assert scan.values["label"] == [name(n) for n in range(6)]
    for start in range(8):
        rows = list(shard.rows(start))
        assert [row["image"].read() for row in rows] == [png(n) for n in range(start, 6)]
        assert [row["label"] for row in rows] == [name(n) for n in range(start, 6)]


@pytest.mark.parametrize("kind", range(4))
def test_a_shard_gives_its_columns_by_its_rows(tmp_path, kind):
    fields = infer_fields(write_all(tmp_path)[kind])
    assert {column: field.kind for column, field in fields.items()} == {
        "image": "image",
        "label": "string",
    }


def test_columns_of_tar_members(tmp_path):
    path = write_tar(
        tmp_path / "a.tar", {"1.jpg": b"", "1.bin": b"", "2.x.jpg": b"", "3.x.mp4": b""}
    )
    assert infer_fields(path) == {
        "image": Field("image"),
        "bin": Field("other"),
        "x": Field("other"),
    }


def test_an_empty_shard_is_named(tmp_path):
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(ValueError, match=r"a\.jsonl holds no rows"):
        infer_fields(tmp_path / "a.jsonl")


def test_rows_without_a_label_are_skipped_and_counted(tmp_path):
    write_png(tmp_path / "1.png", 1)
    rows = [{"image": "1.png", "label": x} for x in ("a", "b", "")]
    source = open_data(write_csv(tmp_path / "a.csv", rows), DataConfig(stream=True))
    assert "Skipped: 1 of 3 rows of train have no label." in source.notes
    assert sorted(row["label"] for row in source.streams["train"]) == [0, 1]


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
    assert open_data(path, STREAMED, label_names=names).streams["train"].num_rows == 6


def test_a_class_only_or_a_missing_column_is_refused_before_the_first_row(tmp_path):
    path = write_tar(tmp_path / "a.tar", members(range(0, 6, 3)))
    with pytest.raises(ValueError, match="has one class only, 'cat'"):
        open_data(path, STREAMED)
    with pytest.raises(ValueError, match=r"has no column 'lable'\. Did you mean 'label'"):
        open_data(path, DataConfig(stream=True, label="lable"))
    with pytest.raises(ValueError, match=r"'fold' only if they are read by index\. Leave --stream"):
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


def damaged(folder):
    """Write four shards, of which the first is no Parquet file and the third is damaged inside."""
    for i in range(4):
        write_parquet(folder / f"train-{i}.parquet", cells(range(8 * i, 8 * i + 8)), FEATURES)
    (folder / "train-0.parquet").write_bytes(b"PAR1")
    content = bytearray((folder / "train-2.parquet").read_bytes())
    content[4:300] = bytes(296)
    (folder / "train-2.parquet").write_bytes(bytes(content))
    return folder


def test_damaged_shards_are_counted_and_the_others_read(tmp_path):
    stream = open_data(damaged(tmp_path), STREAMED).streams["train"]
    assert stream.num_rows == 25  # the first counts as one row
    found = {row["image"].read() for row in stream}
    expected = [*range(8, 16), *range(24, 32)]
    assert found >= {png(n) for n in expected}
    reasons = dict(stream.take_damage())
    assert sorted(reasons) == [str(tmp_path / f"train-{i}.parquet") for i in (0, 2)]
    assert all("cannot be read as Parquet" in reason for reason in reasons.values())


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tar"])
def test_text_shards_cut_short_are_used_as_far_as_they_go(tmp_path, suffix):
    for n in range(6):
        write_png(tmp_path / f"{n}.png", n)
    rows = [{"image": f"{n}.png", "label": name(n)} for n in range(6)]
    if suffix == ".tar":
        path = write_tar(tmp_path / "a.tar", members(range(6)))
        with tarfile.open(path) as archive:
            end = archive.getmembers()[-2].offset_data + 10
        path.write_bytes(path.read_bytes()[:end])
    else:
        path = (write_csv if suffix == ".csv" else write_jsonl)(tmp_path / f"a{suffix}", rows)
        cut = 4 if suffix == ".csv" else 8
        path.write_bytes(path.read_bytes().rstrip()[:-cut])
    for names in (None, CLASSES):
        stream = open_data(path, STREAMED, label_names=names).streams["train"]
        whole = 4 if suffix == ".tar" else 5  # members of the row before may be lost too
        assert stream.num_rows == whole + 1
        assert len(list(stream)) == whole
        ((where, reason),) = stream.take_damage()
        assert where in {str(path), f"{path}, line {7 if suffix == '.csv' else 6}"}
        assert path.name in reason


def test_nothing_that_can_be_read_is_refused(tmp_path):
    (tmp_path / "train-0.parquet").write_bytes(b"PAR1")
    (tmp_path / "train-1.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"train-0\.parquet cannot be read as Parquet"):
        open_data(tmp_path, STREAMED)


def test_streams_of_numbers_know_their_mean(tmp_path):
    path = write_parquet(
        tmp_path / "a.parquet",
        {"image": [png(n) for n in range(4)], "label": [0.5, 1.5, None, 2.5]},
    )
    source = open_data(path, STREAMED)
    assert source.target_kind == "number"
    assert source.target_moments()[0] == (1.5,)
    again = open_data(path, STREAMED, label_names=("label",))
    assert again.target_moments() is None


def test_streams_of_several_labels(tmp_path):
    rows = [{"text": "word " * 40, "label": x} for x in (["a"], ["a", "b"], [], ["b"])]
    source = open_data(write_jsonl(tmp_path / "a.jsonl", rows), STREAMED)
    assert (source.target_kind, source.label_names) == ("labels", ("a", "b"))
    found = sorted(tuple(row["label"].tolist()) for row in source.streams["train"])
    assert found == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_data_that_are_only_read_by_index_are_no_streams(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 3, 3), np.uint8), label=np.array([0, 1, 0, 1]))
    source = open_data(tmp_path / "a.npz", STREAMED)
    assert not source.streams
    assert "so streaming changes nothing" in source.notes[-1]


def test_data_sets_without_labels_and_with_sounds_are_streamed():
    cells = {"sound": [{"bytes": b"RIFF0000WAVE", "path": "a.wav"}] * 3}
    features = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    whole = datasets.Dataset.from_dict(cells, datasets.Features({"sound": features}))
    whole = whole.cast_column("sound", datasets.Audio())
    for config in (STREAMED, DataConfig()):
        source = open_data(whole, config)
        assert (source.target, source.inputs["audio"].kind) == (None, "audio")
    rows = list(open_data(whole, STREAMED).streams["train"])
    assert [row["sound"].read() for row in rows] == [b"RIFF0000WAVE"] * 3
