"""A step is the same however its samples are divided over batches and processes, in float64 to 1e-12."""

import json

import pytest
import torch

from support.cli import torchrun
from support.docs import ROOT
from support.exact_steps import train

pytestmark = pytest.mark.quick

SCRIPT = ROOT / "tests" / "support" / "exact_steps.py"
EXACT = 1e-12
DIVIDED = [(name, parts) for name in ("adamw", "lamb") for parts in ([[6], [6]], [[3, 4], [4, 1]])]


def assert_same_weights(found, expected):
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert (found[name] - weight).abs().max() < EXACT, name


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The weights of one process that takes each step in one batch, by the optimizer."""
    folder = tmp_path_factory.mktemp("whole")
    return {optimizer: train(folder, optimizer, [[12]]) for optimizer in ("adamw", "lamb")}


@pytest.mark.parametrize("parts", [[4, 4, 4], [5, 5, 2], [1] * 12], ids=str)
@pytest.mark.parametrize("optimizer", ["adamw", "lamb"])
def test_batches_of_a_step_are_as_one(whole, optimizer, parts, tmp_path):
    assert_same_weights(train(tmp_path, optimizer, [parts]), whole[optimizer])


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory):
    """The weights that each of two processes ends with, by the optimizer and how samples were divided."""
    folder = tmp_path_factory.mktemp("two")
    torchrun(SCRIPT, folder, json.dumps(DIVIDED))
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("number", range(len(DIVIDED)), ids=lambda number: str(DIVIDED[number]))
def test_batches_of_two_processes_are_as_one(of_two_processes, whole, number):
    optimizer, _ = DIVIDED[number]
    for weights in of_two_processes:
        assert_same_weights(weights[number], whole[optimizer])


@pytest.mark.parametrize("optimizer", ["adamw", "lamb"])
def test_the_mean_of_means_would_be_seen(whole, optimizer, tmp_path, monkeypatch):
    from perceivers.training import batches as feed

    class Unweighted(feed.TrainBatch):
        def __init__(self, batch, **place):
            super().__init__(batch, **{**place, "weight": 1.0})

    monkeypatch.setattr(feed, "TrainBatch", Unweighted)
    expected = whole[optimizer]
    found = train(tmp_path, optimizer, [[5, 5, 2]])
    assert max((found[n] - w).abs().max() for n, w in expected.items()) > 1e-6
