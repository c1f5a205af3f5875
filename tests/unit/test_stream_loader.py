import itertools
from collections.abc import Mapping

import pytest
import torch

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.loading.loader import LoaderSettings
from perceivers.data.loading.stream_loader import make_stream_loader
from perceivers.data.streaming.stream import Stream
from perceivers.data.tables.table import Field
from support.loaders import AUGMENT, INPUTS, MIXING, PREPROCESS, png


class Numbers:
    """A shard whose rows are pictures of noise, numbered."""

    def __init__(self, number, count, *, damaged=(), raises=None, counted=True):
        self.name = f"shard {number}"
        self.fields: Mapping[str, Field] = {}
        self.first = 100 * number
        self.count = count
        self.num_rows = count if counted else None
        self.damaged = damaged
        self.raises = raises

    def rows(self, start):
        for row in range(start, self.count):
            if self.raises is not None and row == 1:
                raise self.raises
            value = self.first + row
            data = b"" if value in self.damaged else png(value % 256)
            yield {"picture": EncodedItem(f"p{value}", data=data), "label": value % 4}


def loader_of(*shards, augment=None, shuffle=0, **settings):
    stream = Stream(shards)
    if shuffle:
        stream = stream.shuffled(shuffle, seed=0)
    return make_stream_loader(
        stream,
        INPUTS,
        "label",
        preprocess=PREPROCESS,
        augment=augment,
        settings=LoaderSettings(**{"num_classes": 4, **settings}),
    )


def content(batches):
    return [(batch.inputs["image"], batch.targets, batch.names) for batch in batches]


def same(first, second):
    first, second = content(first), content(second)
    return [names for _, _, names in first] == [names for _, _, names in second] and all(
        torch.equal(x[0], y[0]) and torch.equal(x[1], y[1])
        for x, y in zip(first, second, strict=True)
    )


def names_of(batches):
    return [name for batch in batches for name in batch.names]


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_yields_every_row_once(workers):
    loader = loader_of(Numbers(0, 5), Numbers(1, 4), batch_size=2, num_workers=workers)
    expected = [*(f"p{n}" for n in range(5)), *(f"p{n}" for n in range(100, 104))]
    for _ in range(2):
        batches = list(loader)
        assert sorted(names_of(batches)) == sorted(expected)
        for batch in batches:
            assert batch.targets.tolist() == [int(name[1:]) % 4 for name in batch.names]
    loader.close()


def test_without_a_target_there_are_no_labels():
    loader = make_stream_loader(
        Stream([Numbers(0, 3)]),
        INPUTS,
        None,
        preprocess=PREPROCESS,
        augment=None,
        settings=LoaderSettings(),
    )
    (batch,) = loader
    assert batch.targets is None


def test_ranks_share_the_rows():
    parts = [
        loader_of(Numbers(0, 5), Numbers(1, 4), batch_size=2, world_size=2, rank=rank)
        for rank in range(2)
    ]
    names = [names_of(part) for part in parts]
    assert sorted(names[0] + names[1]) == sorted(
        [*(f"p{n}" for n in range(5)), *(f"p{n}" for n in range(100, 104))]
    )


def test_epochs_differ_in_training():
    loader = loader_of(
        Numbers(0, 8), Numbers(1, 8), augment=AUGMENT, shuffle=8, batch_size=4, training=True
    )
    first, second = list(loader), list(loader)
    assert names_of(first) != names_of(second)
    loader.set_epoch(0)
    assert same(list(loader), first)


def test_training_drops_the_remainder_unless_told_not_to():
    options = {"batch_size": 4, "training": True}
    assert [len(batch) for batch in loader_of(Numbers(0, 10), **options)] == [4, 4]
    loader = loader_of(Numbers(0, 10), drop_last=False, **options)
    assert [len(batch) for batch in loader] == [4, 4, 2]


@pytest.mark.parametrize(
    ("workers", "seen", "augment"),
    [
        *((workers, seen, MIXING) for workers in (0, 1, 2) for seen in (1, 3)),
        *((workers, 2, AUGMENT) for workers in (0, 2)),
    ],
    ids=lambda value: value if isinstance(value, int) else "",
)
def test_an_interrupted_epoch_goes_on_bit_for_bit(workers, seen, augment):
    def new():
        return loader_of(
            *(Numbers(number, 9) for number in range(3)),
            augment=augment,
            shuffle=6,
            batch_size=2,
            training=True,
            num_workers=workers,
        )

    uninterrupted, interrupted, resumed = new(), new(), new()
    expected = [*uninterrupted, *uninterrupted]
    before = list(itertools.islice(interrupted, seen))
    resumed.load_state_dict(interrupted.state_dict())
    assert same([*before, *resumed, *resumed], expected)
    for loader in (uninterrupted, interrupted, resumed):
        loader.close()


def test_the_end_of_an_epoch_is_the_beginning_of_the_next():
    loader, resumed = (loader_of(Numbers(0, 8), shuffle=4, batch_size=4) for _ in "ab")
    list(loader)
    resumed.load_state_dict(loader.state_dict())
    assert same(list(loader), list(resumed))


def test_another_epoch_forgets_the_place_in_the_old_one():
    loader, resumed = (loader_of(Numbers(0, 8), shuffle=4, batch_size=4) for _ in "ab")
    next(iter(loader))
    resumed.load_state_dict(loader.state_dict())
    resumed.set_epoch(1)
    assert len(list(resumed)) == 2


def test_another_number_of_workers_cannot_go_on():
    loader = loader_of(Numbers(0, 8))
    with pytest.raises(
        ValueError, match=r"read by 3 workers and cannot go on with 0: .*--workers 3"
    ):
        loader.load_state_dict({**loader.state_dict(), "num_workers": 3})


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_rows_are_skipped_and_counted(workers):
    shard = Numbers(0, 10, damaged=(3, 7))
    loader = loader_of(shard, batch_size=4, max_bad=0.2, num_workers=workers)
    for _ in range(2):
        assert [len(batch) for batch in loader] == [3, 3, 2]
    assert [name for name, _ in loader.bad] == ["p3", "p7"]
    assert loader.notes == {}
    loader.close()


def test_too_many_bad_rows_end_the_reading():
    shard = Numbers(0, 200, damaged=(1, 2, 3), counted=False)
    with pytest.raises(ValueError, match=r"3 of 16 rows \(18\.8%\) .*--max-bad 0\.2"):
        list(loader_of(shard, batch_size=16, max_bad=0.02))
    assert len(list(loader_of(shard, batch_size=16, max_bad=0.03))) == 13


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_the_stream_is_told_as_it_is(workers):
    shard = Numbers(0, 4, raises=OSError("shard 0 is on a disk that has gone."))
    loader = loader_of(shard, batch_size=2, num_workers=workers)
    with pytest.raises((ValueError, OSError), match=r"^shard 0 is on a disk that has gone\.$"):
        list(loader)
    loader.close()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_rest_of_a_damaged_shard_is_one_bad_row(workers):
    cut = Numbers(0, 4, raises=ValueError("shard 0 is cut off."))
    loader = loader_of(cut, Numbers(1, 5), batch_size=2, max_bad=0.2, num_workers=workers)
    for _ in range(2):
        assert sorted(names_of(loader)) == ["p0", *(f"p{n}" for n in range(100, 105))]
    assert loader.bad == [("shard 0", "shard 0 is cut off.")]
    loader.close()
    loader = loader_of(cut, Numbers(1, 5), batch_size=2, max_bad=0.1, num_workers=workers)
    with pytest.raises(ValueError, match=r"1 of 9 rows \(11\.1%\) .*: shard 0 is cut off\. Repair"):
        list(loader)
    loader.close()


def test_the_number_of_batches_is_guessed_where_the_rows_are_known():
    assert loader_of(Numbers(0, 20), batch_size=4).num_batches == 5
    assert loader_of(Numbers(0, 20), batch_size=4, world_size=2).num_batches == 2
    assert loader_of(Numbers(0, 20), batch_size=4, training=True, augment=MIXING).num_batches == 2
    assert loader_of(Numbers(0, 20, counted=False), batch_size=4).num_batches is None


def test_a_worker_whose_turn_was_before_the_interruption_says_so():
    loader = loader_of(Numbers(0, 4), batch_size=2)
    reader = loader._dataset
    reader.resume = {"next": 1, "workers": {}}
    first, *rest = reader
    assert (first.batch, first.num_rows) == (None, 0)
    assert [read.num_rows for read in rest] == [2, 2]
