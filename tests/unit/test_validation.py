import pytest
import torch
from torch import nn

from perceivers.data.base import Batch
from perceivers.recipes.registry import OptimConfig
from perceivers.tasks.classification import ClassificationConfig, ClassificationTask
from perceivers.training import callback as validation
from perceivers.training.callback import validate
from perceivers.training.module import PerceiverModule


class Precision:
    def val_step_context(self):
        return torch.no_grad()


class Model(nn.Module):
    """Predicts the class that the input is, and counts how often it was asked."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.asked = 0

    def forward(self, inputs, masks=None):
        assert not self.training
        self.asked += 1
        return nn.functional.one_hot(inputs["x"], 3).float() * self.scale


@pytest.fixture
def module():
    task = ClassificationTask(ClassificationConfig(label_names=("a", "b", "c")))
    ours = PerceiverModule(Model(), task, OptimConfig())
    ours._trainer = type("Trainer", (), {"precision_plugin": Precision()})()
    return ours


def batches(*sizes):
    return [
        Batch(
            inputs={"x": torch.ones(n, dtype=torch.long)}, targets=torch.ones(n, dtype=torch.long)
        )
        for n in sizes
    ]


def test_every_sample_counts_once(module):
    meter = validate(module, batches(2, 2, 1))
    assert meter.compute()["samples"] == 5
    assert meter.compute()["accuracy"] == 1.0
    assert module.model.asked == 3
    assert module.model.training


def test_it_is_given_up_when_asked(module):
    assert validate(module, batches(2, 2), should_stop=lambda: True) is None
    assert module.model.asked == 1
    assert module.model.training


def test_with_sharded_weights_a_process_goes_on_until_the_others_are_done(module, monkeypatch):
    answers = iter([False, False, False, True])  # the others have three batches
    monkeypatch.setattr(validation.distributed, "all_true", lambda mine, device: next(answers))
    meter = validate(module, batches(2, 1), is_sharded=True)
    assert module.model.asked == 3
    assert meter.compute()["samples"] == 3


def test_with_sharded_weights_each_process_needs_a_sample(module, monkeypatch):
    monkeypatch.setattr(validation.distributed, "all_true", lambda mine, device: False)
    with pytest.raises(ValueError, match="at least one sample of validation for each device"):
        validate(module, [], is_sharded=True)


def test_scores_of_the_clips_of_a_sample_are_averaged(module):
    clips = torch.tensor([0, 0, 1, 2, 2, 2])  # of two samples, three of each
    batch = Batch(inputs={"x": clips}, targets=torch.tensor([0, 2]), num_clips=3)
    meter = validate(module, [batch])
    assert meter.compute()["samples"] == 2
    assert meter.compute()["accuracy"] == 1.0


def test_what_all_processes_measured_is_put_together(module, monkeypatch):
    monkeypatch.setattr(validation.distributed, "gather_objects", lambda state: [state, state])
    assert validate(module, batches(2, 1)).compute()["samples"] == 6
