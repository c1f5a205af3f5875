"""Two processes train the same model as one."""

import json
import sys

import pytest
import torch
import yaml

from support.cli import launch, torchrun
from support.docs import ROOT
from support.tolerance import GOLDEN, relative_error
from support.training import train

SCRIPT = ROOT / "tests" / "support" / "training.py"
RUN = {"max_epochs": 2, "augment": {}}  # no mixing: partners are chosen within a process


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        train(str(folder), **RUN, dump=True)
    return folder


def assert_trained_alike(run, alone):
    mine, other = (torch.load(run / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    expected = torch.load(alone / "rank0.pt", weights_only=True)
    assert mine.keys() == other.keys() == expected.keys()
    for name, weight in mine.items():
        assert torch.equal(weight, other[name]), name
    # Norm-wise: LAMB makes rounding noise as long as a gradient where the gradient is zero (keys' biases).
    found, wanted = (torch.cat([w.flatten() for w in s.values()]) for s in (mine, expected))
    assert relative_error(found, wanted) < GOLDEN
    best = [torch.load(f / "checkpoints/best.ckpt", weights_only=True) for f in (run, alone)]
    assert best[0]["metrics"]["samples"] == 40  # each once, on either of them
    assert best[0]["metrics"]["loss"] == pytest.approx(best[1]["metrics"]["loss"], rel=GOLDEN)
    assert (run / "model.safetensors").exists()


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Two runs of two processes of torchrun; one start for both, which takes longer than what they compute."""
    folder = tmp_path_factory.mktemp("together")
    options = ["max_epochs=2", "augment={}", "dump=True"]
    runs = [folder / "grid", *options, "attn_implementation=structured", "+"]
    runs += [folder / "auto", *options, "batch=auto", "room=4"]
    torchrun(SCRIPT, *runs)
    return folder


def test_two_processes_of_torchrun_train_as_one(alone, together):
    """They read as a grid, which leaves the keys' bias out, and still wait for no gradient."""
    assert_trained_alike(together / "grid", alone)


def test_two_processes_compute_what_fits_in_the_fuller(alone, together):
    """The first has room for 4 of its 8 samples, the second for all of them."""
    run = together / "auto"
    assert_trained_alike(run, alone)
    training = yaml.safe_load((run / "recipe.yaml").read_text())["training"]
    assert (training["batch_size"], training["batch"], training["accumulate"]) == (16, 4, 1)
    report = (run / "report.md").read_text()
    assert "16 samples: 2 batches of 4 on each of 2 devices" in report
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(0 <= row["waiting"] <= 1 for row in rows)
    assert "of the step time (the slowest of 2 processes) |" in report


def test_sharded_weights_train_as_whole_ones(alone, tmp_path):
    """Their processes are started by the run itself."""
    options = ["max_epochs=2", "augment={}", "dump=True", "attn_implementation=structured"]
    options += ["devices=2", "strategy=fsdp"]
    launch(sys.executable, SCRIPT, tmp_path / "run", *options)
    assert_trained_alike(tmp_path / "run", alone)


def test_sharded_weights_find_no_batch(tmp_path):
    with pytest.raises(ValueError, match="--batch auto measures an unsharded model on each device"):
        train(str(tmp_path / "run"), max_epochs=2, devices=2, strategy="fsdp", batch="auto")
