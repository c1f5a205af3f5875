import math
from contextlib import nullcontext
from unittest.mock import create_autospec

import lightning.pytorch as lightning
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from perceivers.tasks.classification import ClassificationTask
from perceivers.training import batch_size_finder as batches
from perceivers.training.batch_size_finder import (
    BatchSizeFinder,
    MemoryProbe,
    largest_batch,
    warn_of_batch_norm,
)
from perceivers.training.dataloaders import ProcessInfo
from support.training import small_recipe


class Machine(MemoryProbe):
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


def test_a_process_takes_what_fits_in_the_fullest(monkeypatch):
    used = []
    others = iter(
        [torch.tensor([4.0]), torch.tensor([0.0])]
    )  # another accumulates 4; all found some
    monkeypatch.setattr(batches, "largest", lambda values, device: next(others))
    recipe = small_recipe()
    finder = BatchSizeFinder(
        recipe,
        ClassificationTask(recipe.task),
        size=16,
        process=ProcessInfo(),
        use=lambda batch, why: used.append((batch, why)),
    )
    finder.setup(_trainer(), lightning.LightningModule(), "fit")
    assert used == [(4, "as many as fit in every process")]


def test_a_process_whose_neighbor_has_no_room_stops_too(monkeypatch):
    others = iter([torch.tensor([1.0]), torch.tensor([1.0])])
    monkeypatch.setattr(batches, "largest", lambda values, device: next(others))
    recipe = small_recipe()
    task = ClassificationTask(recipe.task)
    finder = BatchSizeFinder(recipe, task, size=16, process=ProcessInfo(), use=math.pow)
    with pytest.raises(ValueError, match="Another process has too little memory"):
        finder.setup(_trainer(), lightning.LightningModule(), "fit")


def _trainer():
    trainer = create_autospec(lightning.Trainer, instance=True)
    trainer.strategy.root_device = torch.device("cpu")
    trainer.precision_plugin.forward_context = nullcontext
    return trainer
