import pytest
import torch
from torch import nn

from perceivers.data.base import Batch
from perceivers.recipes.registry import OptimConfig
from perceivers.tasks.classification import ClassificationConfig, ClassificationTask
from perceivers.tasks.regression import RegressionConfig, RegressionTask
from perceivers.training.batches import TrainBatch
from perceivers.training.module import PerceiverModule, TrainingSums


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 3)

    def forward(self, inputs, masks=None):
        return self.linear(inputs["x"])


def module(**options):
    task = ClassificationTask(ClassificationConfig(label_names=("a", "b", "c")))
    optim = OptimConfig(**{"name": "adamw", "lr": 0.1, "schedule": "cosine", **options})
    return PerceiverModule(Linear(), task, optim, ema=0.9)


def batch(targets):
    inputs = {"x": torch.ones(2, 2)}
    return TrainBatch(Batch(inputs=inputs, targets=targets), epoch=0, index=0)


def test_a_step_is_the_loss_of_the_task_and_is_counted():
    ours = module()
    targets = torch.tensor([0, 2])
    loss = ours.training_step(batch(targets))
    outputs = ours.model({"x": torch.ones(2, 2)})
    torch.testing.assert_close(loss, ours.task.loss(outputs, targets))
    means = ours.sums.means(ours.sums.values)
    assert means["loss"] == pytest.approx(loss.item())
    assert means["accuracy"] == (outputs.argmax(dim=-1) == targets).float().mean().item()


def test_a_batch_without_labels_is_refused():
    with pytest.raises(
        ValueError, match="Learning and measuring need labels, and this batch has none"
    ):
        module().training_step(batch(None))


def test_sums_are_means_over_samples_and_over_steps():
    sums = TrainingSums()
    sums.add_batch(torch.tensor(1.0), torch.tensor(2.0), 3)
    sums.add_batch(torch.tensor(4.0), torch.tensor(1.0), 1)
    sums.add_step(torch.tensor(2.0))
    sums.add_step(torch.tensor(4.0))
    sums.add_step(torch.tensor(float("inf")))
    assert sums.means(sums.values) == {
        "loss": (3 * 1.0 + 4.0) / 4,
        "accuracy": 3 / 4,
        "grad_norm": 3.0,
    }


def test_the_log_says_what_the_task_measures():
    task = RegressionTask(RegressionConfig(target_names=("a", "b", "c")))
    ours = PerceiverModule(Linear(), task, OptimConfig())
    ours.training_step(batch(torch.zeros(2, 3)))
    outputs = ours.model({"x": torch.ones(2, 2)})
    means = ours.sums.means(ours.sums.values)
    assert means["mae"] == pytest.approx(outputs.abs().mean().item())
    assert "accuracy" not in means


def test_no_batch_means_nothing():
    sums = TrainingSums()
    assert sums.means(sums.values) == {"loss": 0.0, "accuracy": 0.0, "grad_norm": 0.0}


def test_before_a_step_the_gradient_is_clipped_and_the_rate_set():
    ours = module(clip_norm=1.0)
    optimizer = ours.configure_optimizers()
    ours.training_step(batch(torch.tensor([0, 0]))).backward()
    for parameter in ours.parameters():
        parameter.grad.mul_(100)
    ours.progress = 0.5
    ours._trainer = type("Trainer", (), {"global_step": 3})()
    ours.on_before_optimizer_step(optimizer)
    norm = torch.cat([p.grad.flatten() for p in ours.parameters()]).norm()
    assert norm.item() == pytest.approx(1.0)
    assert ours.sums.means(ours.sums.values)["grad_norm"] > 1.0
    assert [group["lr"] for group in optimizer.param_groups] == [ours.lr] * 2
    assert ours.lr == pytest.approx(0.05)


def test_the_average_begins_when_it_is_asked_for_first():
    ours = module()
    nn.init.constant_(ours.model.linear.weight, 3.0)
    assert ours.average.averages["linear.weight"].unique().tolist() == [3.0]
    assert ours.average is ours.average


def test_weights_are_spread_only_if_asked_for():
    ours = module()
    ours.configure_model()
    assert all(type(p) is nn.Parameter for p in ours.parameters())
