import pickle
from collections import Counter
from dataclasses import dataclass
from itertools import chain, islice

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


@dataclass
class Numbers:
    """A shard that counts what is read of it."""

    name: str
    numbers: range
    num_rows: int | None = None
    read: int = 0

    @property
    def fields(self):
        return {"n": Field("number")}

    def rows(self, start):
        for n in self.numbers[start:]:
            self.read += 1
            yield {"n": n, "group": n // 3}


def shards(*lengths, counted=True):
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    return [
        Numbers(f"s{i}", range(end - n, end), n if counted else None)
        for i, (n, end) in enumerate(zip(lengths, ends, strict=True))
    ]


def numbers(stream):
    return [row["n"] for row in stream]


def as_worker(monkeypatch, number, count):
    @dataclass
    class Info:
        id: int
        num_workers: int

    monkeypatch.setattr(stream_module, "get_worker_info", lambda: Info(number, count))


def parts(monkeypatch, stream, *, ranks=1, workers=1):
    """Return what each worker of each process reads."""
    found = []
    for rank in range(ranks):
        for worker in range(workers):
            as_worker(monkeypatch, worker, workers)
            found.append(numbers(stream.distributed(rank, ranks)))
    return found


def test_shards_are_read_in_order():
    assert isinstance(Numbers("s", range(3)), Shard)
    assert numbers(Stream(shards(3, 2))) == [0, 1, 2, 3, 4]


def test_shuffling_changes_with_the_epoch_only():
    stream = Stream(shards(*[5] * 10)).shuffled(16, seed=1)
    first = numbers(stream)
    assert sorted(first) == list(range(50))
    assert first != list(range(50))
    assert numbers(stream) == first
    stream.set_epoch(1)
    assert sorted(numbers(stream)) == list(range(50))
    assert numbers(stream) != first


def test_the_buffer_is_all_that_is_held():
    made = shards(1000)
    next(iter(Stream(made).shuffled(10, seed=0)))
    assert made[0].read == 11


@pytest.mark.parametrize("lengths", [(7, 7, 7, 7), (20,), (3, 30), (1, 1, 1, 50, 3)])
@pytest.mark.parametrize("counted", [True, False])
def test_evaluation_reads_each_row_once(monkeypatch, lengths, counted):
    stream = Stream(shards(*lengths, counted=counted))
    found = parts(monkeypatch, stream, ranks=2, workers=2)
    assert sorted(chain(*found)) == list(range(sum(lengths)))


@pytest.mark.parametrize("lengths", [(7, 7, 7, 7), (20,), (3, 30), (1, 1, 1, 50, 3), (5, 0, 9, 9)])
@pytest.mark.parametrize("counted", [True, False])
def test_training_gives_every_part_equally_many_rows(monkeypatch, lengths, counted):
    stream = Stream(shards(*lengths, counted=counted)).shuffled(4, seed=0)
    found = parts(monkeypatch, stream, ranks=2, workers=2)
    assert {len(part) for part in found} == {sum(lengths) // 4}
    assert set(chain(*found)) <= set(range(sum(lengths)))


def test_each_part_has_shards_of_its_own_where_there_are_enough(monkeypatch):
    made = shards(5, 5, 5, 5)
    found = parts(monkeypatch, Stream(made).shuffled(4, seed=0), ranks=2, workers=2)
    assert sorted(chain(*found)) == list(range(20))
    assert [shard.read for shard in made] == [5] * 4


def test_rows_that_are_held_out_are_the_others_and_always_the_same():
    stream = Stream(shards(*[100] * 5)).shuffled(8, seed=0)
    stay, held = stream.hold_out(0.2, seed=0, group=None)
    assert sorted(numbers(stay) + numbers(held)) == list(range(500))
    assert numbers(held) == sorted(numbers(held))
    assert len(numbers(held)) == pytest.approx(100, rel=0.3)
    assert (stay.num_rows, held.num_rows) == (400, 100)
    assert numbers(held) == numbers(stream.hold_out(0.2, seed=0, group=None)[1])
    assert numbers(held) != numbers(stream.hold_out(0.2, seed=1, group=None)[1])


def test_groups_are_held_out_whole():
    stay, held = Stream(shards(300)).hold_out(0.2, seed=0, group="group")
    groups = [{n // 3 for n in numbers(side)} for side in (stay, held)]
    assert groups[0].isdisjoint(groups[1])
    assert groups[0] | groups[1] == set(range(100))


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("stop", [0, 1, 7, 30, 60, 62])
@pytest.mark.parametrize(("worker", "workers"), [(0, 1), (1, 2), (2, 4)])
def test_a_resumed_pass_goes_on_exactly(monkeypatch, counted, stop, worker, workers):
    as_worker(monkeypatch, worker, workers)

    def made():
        stream = Stream(shards(20, 11, 13, 9, 10, counted=counted)).shuffled(8, seed=3)
        stream.set_epoch(2)
        return stream

    whole = numbers(made())
    stop = min(stop, len(whole) - 1)
    stream = made()
    rows = iter(stream)
    first = [row["n"] for row in islice(rows, stop)]
    state = pickle.loads(pickle.dumps(stream.state_dict()))
    resumed = made()
    resumed.set_epoch(0)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    if stop:
        assert first + numbers(resumed) == whole
    else:
        assert numbers(resumed) == whole


def test_a_pass_that_has_ended_is_followed_by_the_next():
    stream = Stream(shards(20)).shuffled(4, seed=0)
    stream.set_epoch(5)
    numbers(stream)
    state = stream.state_dict()
    assert state == {"epoch": 6}
    stream.load_state_dict(state)
    second = numbers(stream)
    stream.set_epoch(6)
    assert numbers(stream) == second


def test_resuming_does_not_read_from_the_beginning():
    made = shards(*[10] * 20)
    stream = Stream(made).shuffled(8, seed=3)
    list(islice(rows := iter(stream), 150))
    state = stream.state_dict()
    rows.close()
    again = shards(*[10] * 20)
    resumed = Stream(again).shuffled(8, seed=3)
    resumed.load_state_dict(state)
    numbers(resumed)
    assert sum(shard.read for shard in again) < 120


def test_a_pass_with_other_workers_cannot_go_on(monkeypatch):
    stream = Stream(shards(20)).shuffled(4, seed=0)
    next(iter(stream))
    state = stream.state_dict()
    as_worker(monkeypatch, 0, 2)
    stream.load_state_dict(state)
    with pytest.raises(
        ValueError, match=r"at part 0 of 1 and cannot go on as part 0 of 2\. Resume"
    ):
        next(iter(stream))


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
