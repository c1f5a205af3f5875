import random

import numpy as np
import torch

from perceivers.training.checkpoint import read_payload, save_payload
from perceivers.training.seeding import random_state, seed, set_random_state


def draws():
    return torch.rand(3).tolist(), random.random(), np.random.rand(3).tolist(), random.gauss(0, 1)  # noqa: NPY002


def test_the_same_seed_draws_the_same():
    seed(7)
    first = draws()
    seed(7)
    assert draws() == first
    seed(8)
    assert draws() != first


def test_a_state_that_was_saved_draws_on(tmp_path):
    seed(3)
    draws()
    save_payload(tmp_path / "state", random_state())
    expected = draws()
    set_random_state(read_payload(tmp_path / "state"))
    assert draws() == expected
