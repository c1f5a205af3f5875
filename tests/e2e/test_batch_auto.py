"""Runs that find out how many samples of a step fit into memory."""

import pytest
import torch
import yaml

from perceivers.training import batch_size_finder as batches
from support.training import train

pytestmark = pytest.mark.usefixtures("undrawn_figures")


def weights_of(run):
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)


def training_of(run):
    return yaml.safe_load((run / "recipe.yaml").read_text())["training"]


def test_a_run_with_a_probe_has_the_bits_of_one_without(tmp_path):
    for name, options in (("plain", {}), ("auto", {"batch": "auto"})):
        train(str(tmp_path / name), max_epochs=1, **options)
    plain, auto = weights_of(tmp_path / "plain"), weights_of(tmp_path / "auto")
    for key, weight in plain["state_dict"].items():
        assert torch.equal(weight, auto["state_dict"][key]), key
    assert torch.equal(*(c["perceivers"]["rng"][0]["torch"] for c in (plain, auto)))
    assert (training_of(tmp_path / "auto")["batch"], training_of(tmp_path / "plain")["batch"]) == (
        16,
        None,
    )
    report = (tmp_path / "auto/report.md").read_text()
    assert "| step | 16 samples: one batch of 16 |" in report
    assert "--batch auto: a step of 16 samples: one batch of 16 (" in report


@pytest.mark.slow
def test_what_does_not_fit_is_accumulated_and_the_run_goes_on_so(tmp_path, monkeypatch):
    options = {"max_epochs": 2, "augment": {}}
    train(str(tmp_path / "asked"), accumulate=4, **options)
    with pytest.raises(SystemExit):
        train(str(tmp_path / "auto"), batch="auto", room=4, die="SIGTERM:7", **options)
    found = training_of(tmp_path / "auto")
    assert (found["batch_size"], found["batch"], found["accumulate"]) == (16, 4, 1)

    def again(*args, **kwargs):
        raise AssertionError("the run knows its batch")

    monkeypatch.setattr(batches, "largest_batch", again)
    train(str(tmp_path / "auto"), batch="auto", resume=True, **options)
    mine, theirs = weights_of(tmp_path / "auto"), weights_of(tmp_path / "asked")
    assert mine["global_step"] == theirs["global_step"] == 20
    for key, weight in theirs["state_dict"].items():
        assert torch.equal(weight, mine["state_dict"][key]), key
    report = (tmp_path / "auto/report.md").read_text()
    assert "| step | 16 samples: 4 batches of 4 |" in report


@pytest.mark.usefixtures("without_a_gpu")  # which is asked by trying
def test_a_run_in_which_nothing_fits_ends_with_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"Not even one sample fits.*Expected a smaller --size"):
        train(str(tmp_path / "run"), max_epochs=1, batch="auto", room=0)
