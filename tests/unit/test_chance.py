import random

import numpy as np
import torch

from perceivers.training.checkpoint import read_payload, save_payload
from perceivers.training.seeding import get_rng_state, seed_everything, set_rng_state


def draws():
    return torch.rand(3).tolist(), random.random(), np.random.rand(3).tolist(), random.gauss(0, 1)  # noqa: NPY002


def test_the_same_seed_draws_the_same():
    seed_everything(7)
    first = draws()
    seed_everything(7)
    assert draws() == first
    seed_everything(8)
    assert draws() != first


def test_a_state_that_was_saved_draws_on(tmp_path):
    seed_everything(3)
    draws()
    save_payload(tmp_path / "state", get_rng_state())
    expected = draws()
    set_rng_state(read_payload(tmp_path / "state"))
    assert draws() == expected
