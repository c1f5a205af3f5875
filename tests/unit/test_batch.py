import math
from contextlib import nullcontext
from unittest.mock import create_autospec

import lightning.pytorch as lightning
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from train_digits import small_recipe, train

from perceivers.tasks.classification import ClassificationTask
from perceivers.training import batch as batches
from perceivers.training import probe as probes
from perceivers.training.batch import BatchFinder, largest_batch, warn_of_batch_norm
from perceivers.training.prepare import Place
from perceivers.training.probe import StepProbe


class Machine(StepProbe):
    """A probe of a machine whose steps need `base + each * samples` bytes."""

    is_cuda = False

    def __init__(self, budget, *, base=100, each=10, is_cuda=False):
        self.budget, self.base, self.each, self.is_cuda = budget, base, each, is_cuda
        self.tried = []

    def peak(self, size, precision):
        self.tried.append(size)
        needed = self.base + self.each * size
        return None if self.is_cuda and needed > self.budget * 1.1 else needed


@pytest.mark.parametrize("is_cuda", [False, True])
@given(size=st.integers(1, 600), room=st.integers(1, 700), each=st.integers(1, 50))
def test_the_largest_divisor_that_fits_is_found(is_cuda, size, room, each):
    machine = Machine(100 + each * room, each=each, is_cuda=is_cuda)
    found, why = largest_batch(size, machine, nullcontext)
    assert found == max(n for n in range(1, size + 1) if size % n == 0 and n <= room)
    assert "that may be used" in why


def test_a_cpu_is_never_asked_for_more_than_it_has():
    machine = Machine(100 + 10 * 40)
    assert largest_batch(512, machine, nullcontext)[0] == 32
    assert max(machine.tried) <= 40


def test_a_gpu_whose_memory_holds_the_step_is_asked_once():
    machine = Machine(10**6, is_cuda=True)
    assert largest_batch(128, machine, nullcontext)[0] == 128
    assert machine.tried == [128]


@pytest.mark.parametrize("is_cuda", [False, True])
def test_where_nothing_fits_it_says_so(is_cuda):
    found, why = largest_batch(8, Machine(50, is_cuda=is_cuda), nullcontext)
    assert found == 0
    assert "Not even one sample fits" in why
    assert "--grad-checkpointing" in why


def test_where_nothing_can_be_measured_the_step_stays_whole():
    found, why = largest_batch(96, Machine(None), nullcontext)
    assert found == 96
    assert "cannot be measured here" in why


def test_a_batch_norm_that_sees_a_part_of_the_step_is_named():
    normed = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    assert warn_of_batch_norm(normed, batch=32, parts=1) == ""
    assert warn_of_batch_norm(nn.Linear(2, 2), batch=32, parts=4) == ""
    text = warn_of_batch_norm(normed, batch=32, parts=4)
    assert "each batch of 32 samples, not from the whole step of 128" in text


# -- whole runs --------------------------------------------------------------------------------------------


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
    assert torch.equal(*(c["perceivers"]["random"][0]["torch"] for c in (plain, auto)))
    assert (training_of(tmp_path / "auto")["batch"], training_of(tmp_path / "plain")["batch"]) == (
        16,
        None,
    )
    report = (tmp_path / "auto/report.md").read_text()
    assert "| step | 16 samples: one batch of 16 |" in report
    assert "--batch auto: a step of 16 samples: one batch of 16 (" in report


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


def test_a_run_in_which_nothing_fits_ends_with_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(probes, "available_memory", lambda: 10)
    with pytest.raises(ValueError, match=r"Not even one sample fits.*Expected a smaller --size"):
        train(str(tmp_path / "run"), max_epochs=1, batch="auto")


def test_a_process_takes_what_fits_in_the_fullest(monkeypatch):
    used = []
    others = iter(
        [torch.tensor([4.0]), torch.tensor([0.0])]
    )  # another accumulates 4; all found some
    monkeypatch.setattr(batches, "largest", lambda values, device: next(others))
    recipe = small_recipe()
    finder = BatchFinder(
        recipe,
        ClassificationTask(recipe.task),
        size=16,
        place=Place(),
        use=lambda batch, why: used.append((batch, why)),
    )
    finder.setup(_trainer(), lightning.LightningModule(), "fit")
    assert used == [(4, "as many as fit in every process")]


def test_a_process_whose_neighbor_has_no_room_stops_too(monkeypatch):
    others = iter([torch.tensor([1.0]), torch.tensor([1.0])])
    monkeypatch.setattr(batches, "largest", lambda values, device: next(others))
    recipe = small_recipe()
    task = ClassificationTask(recipe.task)
    finder = BatchFinder(recipe, task, size=16, place=Place(), use=math.pow)
    with pytest.raises(ValueError, match="Another process has too little memory"):
        finder.setup(_trainer(), lightning.LightningModule(), "fit")


def _trainer():
    trainer = create_autospec(lightning.Trainer, instance=True)
    trainer.strategy.root_device = torch.device("cpu")
    trainer.precision_plugin.forward_context = nullcontext
    return trainer
