"""A CPU on which bf16 is slower is noted, from a measured pass of the model."""

import itertools

import pytest
import torch

from perceivers.training.precision import warn_of_bf16
from support.models import untrained


def clock_of(bf16, float32):
    """Return a clock for three passes with bf16 and three without, of so many seconds each."""
    steps = [0.0, bf16] * 3 + [0.0, float32] * 3
    times = itertools.accumulate(steps)
    return lambda: next(times)


@pytest.mark.parametrize(
    ("precision", "accelerator", "bf16", "warns"),
    [
        ("bf16", "cpu", 1.5, True),
        ("bf16", "cpu", 0.8, False),
        ("bf16", "cuda", 1.5, False),
        ("float32", "cpu", 1.5, False),
    ],
)
def test_slow_bf16_gets_a_note(precision, accelerator, bf16, warns):
    model, _ = untrained("image", "text")
    found = warn_of_bf16(precision, accelerator, model.train(), clock=clock_of(bf16, 1.0))
    assert ("slower than float32 on this processor" in found) is warns
    assert ("took 1.5 times as long" in found) is warns


def test_the_measured_model_stays_as_it_is():
    model, _ = untrained("image", element_pools=("mean",))
    before = {name: tensor.clone() for name, tensor in model.train().state_dict().items()}
    warn_of_bf16("bf16", "cpu", model)
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
