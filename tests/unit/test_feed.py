import itertools
import time

import pytest
import torch

from perceivers.data.base import Batch
from perceivers.training.batches import ResumableBatches, TrainBatch


class Rows:
    """A loader whose batches are numbers: 10 * epoch + index."""

    def __init__(self, length, *, lost=0):
        self.length, self.lost, self.epoch, self.next = length, lost, 0, 0

    def __len__(self):
        return self.length

    def set_epoch(self, epoch):
        if epoch != self.epoch:
            self.epoch, self.next = epoch, 0

    def __iter__(self):
        for index in range(self.next, self.length - self.lost):
            self.next = index + 1
            yield Batch(inputs={"x": torch.tensor([10 * self.epoch + index])})
        self.epoch, self.next = self.epoch + 1, 0

    def state_dict(self):
        return {"epoch": self.epoch, "next": self.next}

    def load_state_dict(self, state):
        self.epoch, self.next = state["epoch"], state["next"]


class Stateless:
    """The same without a state, and without a length."""

    def __init__(self, length):
        self.rows = Rows(length)

    def set_epoch(self, epoch):
        self.rows.set_epoch(epoch)

    def __iter__(self):
        self.rows.next = 0
        return iter(self.rows)


def values(feed, count):
    return [b.batch.inputs["x"].item() for b in itertools.islice(feed, count)]


def test_epochs_follow_each_other_without_end():
    feed = ResumableBatches(Rows(3))
    assert values(feed, 7) == [0, 1, 2, 10, 11, 12, 20]
    assert len(feed) > 10**9


def test_what_fills_no_step_is_left_out():
    assert values(ResumableBatches(Rows(5), accumulate=2), 6) == [0, 1, 2, 3, 10, 11]


def test_each_batch_knows_its_place():
    places = [(b.epoch, b.index) for b in itertools.islice(ResumableBatches(Rows(2)), 4)]
    assert places == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_the_end_of_an_epoch_is_known_at_its_last_batch():
    feed = ResumableBatches(Rows(4), accumulate=2)
    ends = [feed.at_epoch_end for _ in itertools.islice(feed, 8)]
    assert ends == [False, False, False, True] * 2


def test_epochs_are_counted_in_parts():
    feed = ResumableBatches(Rows(4))
    assert [feed.epochs_done for _ in itertools.islice(feed, 5)] == [0.25, 0.5, 0.75, 1.0, 1.25]


def test_the_length_of_a_stream_is_learned_in_its_first_epoch():
    feed = ResumableBatches(Stateless(4))
    assert [feed.epochs_done for _ in itertools.islice(feed, 5)] == [0.0, 0.0, 0.0, 1.0, 1.25]


def test_an_epoch_that_loses_a_batch_still_ends():
    feed = ResumableBatches(Rows(4, lost=1))
    ends = [feed.at_epoch_end for _ in itertools.islice(feed, 4)]
    assert ends == [False, False, True, False]


@pytest.mark.parametrize("kind", [Rows, Stateless])
@pytest.mark.parametrize("steps", range(1, 8))
def test_it_goes_on_anywhere(kind, steps):
    whole = values(ResumableBatches(kind(6), accumulate=2), 20)
    first = ResumableBatches(kind(6), accumulate=2)
    iterator = iter(first)
    head = [next(iterator).batch.inputs["x"].item() for _ in range(2 * steps)]
    state = first.state_dict()
    second = ResumableBatches(kind(6), accumulate=2)
    second.load_state_dict(state)
    assert second.state_dict() == state
    assert head + values(second, 20 - 2 * steps) == whole


def test_a_process_whose_rows_end_early_ends_the_epoch_for_all():
    answers = iter([True, False])  # the other process has one step only
    feed = ResumableBatches(
        Rows(3), agree=lambda mine, samples: (mine and next(answers, True), samples)
    )
    ends = [feed.at_epoch_end for _ in itertools.islice(feed, 1)]
    assert ends == [True]


def test_nothing_to_read_is_an_error():
    with pytest.raises(ValueError, match="Expected at least one complete batch in train"):
        values(ResumableBatches(Rows(1), accumulate=2), 1)


def test_a_batch_moves_with_its_place():
    batch = TrainBatch(Batch(inputs={"x": torch.ones(1)}), epoch=2, index=3)
    moved = batch.to(torch.device("cpu"), non_blocking=True)
    assert (moved.epoch, moved.index) == (2, 3)


def test_a_stream_guesses_its_length_until_it_knows_and_keeps_what_it_found():
    loader = Stateless(3)
    loader.num_batches = 4
    feed = ResumableBatches(loader)
    assert feed.steps_per_epoch == 4
    done = [feed.epochs_done for _ in itertools.islice(feed, 4)]
    assert done == [0.25, 0.5, 1.0, pytest.approx(4 / 3)]  # the third was the last of its pass
    again = ResumableBatches(Stateless(3))
    again.load_state_dict(feed.state_dict())
    assert again.steps_per_epoch == 3


def test_a_guess_that_was_too_low_ends_no_pass_early():
    loader = Stateless(4)
    loader.num_batches = 2
    feed = ResumableBatches(loader)
    assert [feed.epochs_done for _ in itertools.islice(feed, 4)] == [0.5, 0.5, 0.5, 1.0]


class Sizes:
    """A loader of batches of given sizes."""

    def __init__(self, *sizes):
        self.sizes = sizes

    def __iter__(self):
        return (Batch(inputs={"x": torch.zeros(size)}) for size in self.sizes)


def weights(feed, count):
    return [b.weight for b in itertools.islice(feed, count)]


def test_a_batch_weighs_what_its_samples_are_of_its_step():
    assert weights(ResumableBatches(Sizes(4, 4, 4, 4), accumulate=2), 4) == [1.0] * 4  # exactly
    assert weights(ResumableBatches(Sizes(4, 2, 3, 3), accumulate=2), 4) == [4 / 3, 2 / 3, 1.0, 1.0]


def test_a_batch_weighs_what_its_samples_are_of_those_of_all_processes():
    feed = ResumableBatches(
        Sizes(4, 2), accumulate=2, agree=lambda whole, mine: (whole, (mine + 8) / 2)
    )
    assert weights(feed, 2) == [8 / 7, 4 / 7]  # the other process has 8


def test_the_batches_can_be_made_smaller_before_the_first():
    feed = ResumableBatches(Rows(3))
    feed.use(Rows(12), accumulate=4)
    assert (feed.accumulate, feed.steps_per_epoch) == (4, 3)
    assert values(feed, 5) == [0, 1, 2, 3, 4]


def test_waiting_ends_where_the_batch_is_there():
    class Slow(Rows):
        def __iter__(self):
            for batch in super().__iter__():
                time.sleep(0.02)
                yield batch

    feed = ResumableBatches(Slow(20))
    for _ in itertools.islice(feed, 10):
        feed.timer.receive()
        feed.timer.begin()
        time.sleep(0.02)
        feed.timer.end(pauses=False)
    waited = feed.timer.take()
    assert waited.waiting > 0.02 * 6  # of ten steps, the first three do not count
    assert waited.seconds > 0.02 * 6
