import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceivers.data.loading.rng import _Seed, make_rng, make_rngs


def test_purposes_draw_different_numbers():
    drawn = [make_rng(purpose, 1, 2).random() for purpose in ("order", "augment", "mix")]
    assert len(set(drawn)) == 3
    assert make_rng("mix", 1, 2).random() == drawn[2]
    assert isinstance(make_rng("mix", 0), np.random.Generator)


@given(data=st.data())
def test_many_generators_are_those_that_numpy_seeds_one_by_one(data):
    length, count = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 4))
    words = st.lists(st.integers(0, 2**32 - 1), min_size=length, max_size=length)
    keys = data.draw(st.lists(words, min_size=count, max_size=count))
    together = make_rngs("augment", np.array(keys, dtype=np.int64))
    alone = [make_rng("augment", *key) for key in keys]
    for mine, theirs in zip(together, alone, strict=True):
        assert mine.bit_generator.state == theirs.bit_generator.state
        assert mine.random() == theirs.random()
        assert mine.integers(1000) == theirs.integers(1000)


@pytest.mark.parametrize("seed", [2**32, 2**62])
def test_keys_of_more_than_one_word_are_seeded_too(seed):
    (mine,) = make_rngs("order", np.array([[seed, 3]]))
    assert mine.random() == make_rng("order", seed, 3).random()


def test_no_keys_are_no_generators():
    assert make_rngs("mix", np.zeros((0, 3), dtype=np.int64)) == []


def test_a_known_state_is_given_only_as_it_was_computed():
    known = _Seed(np.zeros(4, dtype=np.uint64))
    assert known.generate_state(4, np.uint64).tolist() == [0, 0, 0, 0]
    with pytest.raises(AssertionError):
        known.generate_state(8)
