import pytest

from perceivers.data.loading.sampler import BatchSampler, LoaderSettings


def rows(order, epoch=0, start=0):
    return [plan.rows.tolist() for plan in order.plans(epoch, start)]


def training(num_rows, in_pairs=False, **settings):
    return BatchSampler(num_rows, LoaderSettings(training=True, **settings), in_pairs=in_pairs)


def test_evaluation_reads_every_row_once_in_order():
    order = BatchSampler(7, LoaderSettings(batch_size=3))
    assert rows(order) == [[0, 1, 2], [3, 4, 5], [6]]
    assert len(order) == 3


def test_evaluation_is_divided_without_repeats():
    parts = [
        BatchSampler(7, LoaderSettings(batch_size=2, world_size=3, rank=rank)) for rank in range(3)
    ]
    assert [rows(part) for part in parts] == [[[0, 3], [6]], [[1, 4]], [[2, 5]]]
    assert [len(part) for part in parts] == [2, 1, 1]


def test_training_order_follows_from_seed_and_epoch():
    order = training(20, batch_size=5)
    assert rows(order, epoch=0) == rows(order, epoch=0)
    assert rows(order, epoch=0) != rows(order, epoch=1)
    assert rows(order, epoch=0) != rows(training(20, batch_size=5, seed=1), epoch=0)


def test_training_drops_the_remainder_unless_told_not_to():
    assert [len(batch) for batch in rows(training(11, batch_size=4))] == [4, 4]
    assert [len(batch) for batch in rows(training(11, batch_size=4, drop_last=False))] == [4, 4, 3]


def test_fewer_rows_than_a_batch_make_one_smaller_batch():
    assert [len(batch) for batch in rows(training(3, batch_size=128))] == [3]
    assert [len(batch) for batch in rows(training(3, batch_size=128, world_size=2))] == [1]


def test_ranks_divide_each_global_batch():
    whole = rows(training(23, batch_size=4))
    parts = [rows(training(23, batch_size=2, world_size=2, rank=rank)) for rank in range(2)]
    assert [first + second for first, second in zip(*parts, strict=True)] == whole


def test_the_remainder_is_dropped_evenly_over_ranks():
    options = {"batch_size": 2, "world_size": 2, "drop_last": False}
    parts = [rows(training(7, rank=rank, **options)) for rank in range(2)]
    assert [[len(batch) for batch in part] for part in parts] == [[2, 1], [2, 1]]


def test_an_epoch_can_be_taken_up_anywhere():
    order = training(20, batch_size=3, in_pairs=True)
    assert rows(order, epoch=2, start=4) == rows(order, epoch=2)[4:]
    assert [plan.number for plan in order.plans(2, 4)] == [4, 5]


def test_pairs_come_from_two_permutations():
    order = training(6, batch_size=3, in_pairs=True)
    batches = rows(order)
    assert [len(batch) for batch in batches] == [6, 6]
    assert sorted(batches[0][:3] + batches[1][:3]) == list(range(6))
    assert sorted(batches[0][3:] + batches[1][3:]) == list(range(6))
    assert batches[0][:3] != batches[0][3:]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "batch_size of at least 1, got 0"),
        ({"rank": 2, "world_size": 2}, "rank from 0 to world_size - 1 = 1, got 2"),
        ({"seed": -1}, "seed=-1, num_workers=0 and prefetch_batches=2 not to be negative"),
        ({"num_workers": -1}, "num_workers=-1 and prefetch_batches=2 not to be negative"),
        ({"max_bad": 1.5}, "max_bad, a share of the rows, from 0 to 1, got 1.5"),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        LoaderSettings(**wrong)
