import json
import pickle
from dataclasses import dataclass
from itertools import chain, islice, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.streaming import stream as stream_module
from perceivers.data.streaming.shards import Shard
from perceivers.data.streaming.stream import Stream
from perceivers.data.tables.table import Field


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
def test_training_reads_each_row_once_in_parts_that_differ_by_one_row(
    monkeypatch, lengths, counted
):
    stream = Stream(shards(*lengths, counted=counted)).shuffled(4, seed=0)
    found = parts(monkeypatch, stream, ranks=2, workers=2)
    assert sorted(chain(*found)) == list(range(sum(lengths)))
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_no_part_reads_rows_of_another_where_rows_are_counted(monkeypatch):
    made = shards(5, 5, 5, 5)
    found = parts(monkeypatch, Stream(made).shuffled(4, seed=0), ranks=2, workers=2)
    assert sorted(chain(*found)) == list(range(20))
    assert [shard.read for shard in made] == [5] * 4


def test_whole_shards_are_shared_where_rows_are_not_counted_and_parts_may_differ(monkeypatch):
    made = shards(5, 1, 9, 2, counted=False)
    found = parts(monkeypatch, Stream(made), ranks=2, workers=1)
    assert found == [[0, 1, 2, 3, 4, *range(6, 15)], [5, 15, 16]]
    assert [shard.read for shard in made] == [5, 1, 9, 2]


def test_held_out_rows_come_once_over_all_parts(monkeypatch):
    stay, held = Stream(shards(40, 3, 25)).shuffled(8, seed=0).hold_out(0.2, seed=0, group=None)
    expected = numbers(held)
    sides = [list(chain(*parts(monkeypatch, side, ranks=2, workers=3))) for side in (stay, held)]
    assert sorted(chain(*sides)) == list(range(68))
    assert sorted(sides[1]) == expected


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=6),
    counted=st.booleans(),
    even=st.booleans(),
    ranks=st.integers(1, 3),
    workers=st.integers(1, 3),
    buffer=st.integers(0, 9),
    epoch=st.integers(0, 2),
    held=st.sampled_from([None, "row", "group"]),
    stop=st.integers(0, 30),
)
def test_any_pass_reads_each_row_once_and_resumes_exactly(  # noqa: PLR0917  (all are drawn)
    lengths, counted, even, ranks, workers, buffer, epoch, held, stop
):
    def made():
        stream = Stream(shards(*lengths, counted=counted))
        stream = stream.shuffled(buffer, seed=7) if even else stream
        sides = (stream,)
        if held:
            sides = stream.hold_out(0.3, seed=1, group="group" if held == "group" else None)
        for side in sides:
            side.set_epoch(epoch)
        return sides

    seen = []
    for number in range(len(made())):
        sizes = []
        for rank, worker in product(range(ranks), range(workers)):
            with pytest.MonkeyPatch.context() as patch:
                as_worker(patch, worker, workers)
                whole = numbers(made()[number].distributed(rank, ranks))
                stream = made()[number].distributed(rank, ranks)
                rows = iter(stream)
                first = [row["n"] for row in islice(rows, stop)]
                state = json.loads(json.dumps(stream.state_dict()))
                resumed = made()[number].distributed(rank, ranks)
                resumed.load_state_dict(state)
                if stop <= len(whole):
                    assert first + numbers(resumed) == whole
                seen += whole
                sizes.append(len(whole))
        if held is None and (counted or even):
            assert max(sizes) - min(sizes) <= 1
    assert sorted(seen) == list(range(sum(lengths)))


@dataclass
class Cut(Numbers):
    """A shard that cannot be read from some row on."""

    whole: int = 0

    def rows(self, start):
        for row in super().rows(start):
            if row["n"] - self.numbers.start >= self.whole:
                msg = f"{self.name} is cut off."
                raise ValueError(msg)
            yield row


@pytest.mark.parametrize("counted", [True, False])
def test_rows_before_the_damage_are_used_and_the_rest_is_noted(counted):
    cut = Cut("b", range(5, 10), 5 if counted else None, whole=2)
    stream = Stream([shards(5, counted=counted)[0], cut, *shards(0, 10, counted=counted)[1:]])
    assert numbers(stream) == [0, 1, 2, 3, 4, 5, 6, *range(10)]
    assert stream.take_damage() == [("b", "b is cut off.")]
    assert stream.take_damage() == []
    numbers(stream)
    assert stream.distributed(0, 1).take_damage() == []


def test_a_target_that_stands_as_media_is_read_as_its_value():
    class Told(Numbers):
        def rows(self, start):
            for row in super().rows(start):
                yield {
                    "n": EncodedItem("row", value=[row["n"]]),
                    "group": EncodedItem("row", value=row["n"]),
                }

    class Labels:
        column = "n"

        def is_missing(self, value):
            return value is None

        def __call__(self, value, where):
            return value[0]

    stream = Stream([Told("s", range(50), 50)], labels=Labels())
    assert numbers(stream) == list(range(50))
    stay, held = stream.hold_out(0.5, seed=0, group="group")
    plain = Stream(shards(50)).hold_out(0.5, seed=0, group="n")
    assert (numbers(stay), numbers(held)) == (numbers(plain[0]), numbers(plain[1]))


def test_other_shards_cannot_go_on():
    stream = Stream(shards(20)).shuffled(4, seed=0)
    next(iter(stream))
    state = stream.state_dict()
    other = Stream(shards(21)).shuffled(4, seed=0)
    other.load_state_dict(state)
    with pytest.raises(ValueError, match=r"had 20 rows, divided by ranges, and now has 21"):
        next(iter(other))


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
