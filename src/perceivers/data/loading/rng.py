"""Random numbers that follow from a key alone, for one key or for a whole batch of keys at once."""

from typing import cast

import numpy as np
import numpy.typing as npt
from numpy.random.bit_generator import ISeedSequence

__all__ = ["random_numbers", "random_numbers_of_each"]

_PURPOSES = ("order", "augment", "mix")

# The constants of numpy's SeedSequence, which its documentation promises to keep.
_POOL, _STATE = 4, 8  # words of 32 bit
_INIT_A, _MULT_A = 0x43B0D7E5, 0x931E8875
_INIT_B, _MULT_B = 0x8B51F9DD, 0x58F38DED
_MIX_LEFT, _MIX_RIGHT = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)
_SHIFT = np.uint32(16)

_Words = npt.NDArray[np.uint32]


def random_numbers(purpose: str, *key: int) -> np.random.Generator:
    """Return a generator that depends on the purpose and the key alone, in whatever process.

    Args:
        purpose: `order`, `augment` or `mix`: what is drawn for one never repeats what is drawn for another.
        key: Seed, epoch, and what tells this draw from others. Not negative.
    """
    return np.random.default_rng((_PURPOSES.index(purpose), *key))


def random_numbers_of_each(purpose: str, keys: npt.NDArray[np.int64]) -> list[np.random.Generator]:
    """Return the generators that `random_numbers` returns for each row of `keys`, 20 times faster.

    Most of the time in which a small picture is augmented would go into seeding its generator. Here all of a
    batch are seeded by the same arithmetic on vectors.

    Args:
        purpose: As for `random_numbers`.
        keys: One key in each row. Not negative.
    """
    if not keys.size or keys.max() >= 2**32:  # larger numbers are more than one word
        return [random_numbers(purpose, *map(int, key)) for key in keys]
    words = np.empty((keys.shape[1] + 1, len(keys)), dtype=np.uint32)
    words[0], words[1:] = _PURPOSES.index(purpose), keys.T
    states = _states(words)
    # numpy takes any ISeedSequence; its type stubs know SeedSequence only.
    known = [cast("np.random.SeedSequence", _Known(state)) for state in states]
    return [np.random.Generator(np.random.PCG64(seed)) for seed in known]


class _Known(ISeedSequence):
    """A seed sequence whose state was computed before.

    Args:
        state: What a bit generator asks for: 4 numbers of 64 bit.
    """

    def __init__(self, state: npt.NDArray[np.uint64]) -> None:
        self._state = state

    def generate_state(
        self, n_words: int, dtype: npt.DTypeLike = np.uint32
    ) -> npt.NDArray[np.uint64]:
        """Return the state."""
        assert (n_words, np.dtype(dtype)) == (self._state.size, self._state.dtype)
        return self._state


def _states(words: _Words) -> npt.NDArray[np.uint64]:
    """Return the state of each column of entropy words, as `SeedSequence.generate_state(4, uint64)` does."""
    hashed = _Hash(_INIT_A, _MULT_A)
    padded = [*words[:_POOL], *(np.zeros_like(words[0]) for _ in range(_POOL - len(words)))]
    pool = [hashed(word) for word in padded]
    for source in range(_POOL):
        for place in range(_POOL):
            if place != source:
                pool[place] = _mixed(pool[place], hashed(pool[source]))
    for word in words[_POOL:]:
        for place in range(_POOL):
            pool[place] = _mixed(pool[place], hashed(word))
    hashed = _Hash(_INIT_B, _MULT_B)
    state = np.stack([hashed(pool[place % _POOL]) for place in range(_STATE)], axis=1)
    return np.ascontiguousarray(state).astype("<u4").view("<u8").astype(np.uint64)


class _Hash:
    """Hashes one word after the other, each by another constant."""

    def __init__(self, start: int, factor: int) -> None:
        self._constant, self._factor = start, factor

    def __call__(self, word: _Words) -> _Words:
        mixed = word ^ np.uint32(self._constant)
        self._constant = self._constant * self._factor % 2**32
        mixed *= np.uint32(self._constant)
        mixed ^= mixed >> _SHIFT
        return mixed


def _mixed(first: _Words, second: _Words) -> _Words:
    mixed = _MIX_LEFT * first - _MIX_RIGHT * second
    mixed ^= mixed >> _SHIFT
    return mixed
