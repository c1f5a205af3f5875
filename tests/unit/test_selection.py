import math

import pytest
import torch

from perceivers.tasks.classification import ClassificationConfig, ClassificationTask
from perceivers.tasks.reconstruction_task import ReconstructionTargets
from perceivers.training.selection import BestResult, is_clearly_worse, losses_of_parts

TASK = ClassificationTask(ClassificationConfig(label_names=("ant", "bee")))
EVEN = [1.0, 1.2, 0.8, 1.1, 0.9, 1.0, 1.3, 0.7]


def shifted(by, noise=0.0):
    return [loss + by + (noise if i % 2 else -noise) for i, loss in enumerate(EVEN)]


def validated(*rows, end=True):
    """Return what is kept after validations of (accuracy, loss, losses of the parts), 10 steps each."""
    best = BestResult()
    for number, (accuracy, loss, losses) in enumerate(rows, start=1):
        metrics = {"accuracy": accuracy, "loss": loss}
        is_end = end and number == len(rows)
        best.update(metrics, losses, step=10 * number, task=TASK, is_end=is_end)
    return best


def test_an_end_that_differs_by_noise_is_kept():
    lucky = (0.675, 0.95, shifted(-0.05, 0.2))
    best = validated(lucky, (0.6, 1.0, EVEN), (0.642, 1.0, EVEN))
    assert best.step == 30
    assert best.reason == (
        "the end of the run; the loss of 0.95 at step 10 was not clearly better than its 1"
    )


def test_an_end_that_is_clearly_worse_is_not_kept():
    best = validated((0.7, 1.0, EVEN), (0.7, 1.0, EVEN), (0.6, 1.9, shifted(0.9, 0.2)))
    assert (best.step, best.metrics["accuracy"], best.since) == (10, 0.7, 2)
    assert "at the end of the run, 1.9 at step 30, was clearly worse than 1" in best.reason


def test_an_end_with_a_better_main_metric_is_kept_although_its_loss_is_larger():
    best = validated((0.7, 1.0, EVEN), (0.8, 1.9, shifted(0.9)))
    assert best.step == 20


def test_the_end_is_kept_where_the_split_is_too_small_to_judge():
    best = validated((0.75, 0.5, [0.5] * 4), (0.5, 0.9, [0.9] * 4))
    assert best.step == 20


def test_a_run_that_lasts_has_the_lowest_smoothed_loss():
    rows = [(0.5, loss, EVEN) for loss in (1.0, 0.9, 0.5, 1.2, 0.8, 0.8)]
    assert validated(*rows, end=False).step == 30
    rows = [(0.5, loss, EVEN) for loss in (1.0, 0.9, 0.8, 0.2, 1.4, 0.3)]
    assert validated(*rows[:4], end=False).step == 40
    assert validated(*rows, end=False).since == 2
    assert validated(*rows, end=False).reason == ""


@pytest.mark.parametrize(
    ("losses", "others", "worse"),
    [
        (shifted(0.1), EVEN, True),
        (shifted(0.1, 0.2), EVEN, False),
        (shifted(0.3, 0.2), EVEN, True),
        (EVEN, shifted(0.3), False),
        (EVEN, EVEN, False),
        (shifted(0.1)[:7], EVEN[:7], False),
        (shifted(0.1), EVEN[:7], False),
        ([math.nan, *shifted(0.1)], [1.0, *EVEN], True),
    ],
)
def test_losses_are_compared_in_pairs(losses, others, worse):
    assert is_clearly_worse(losses, others) is worse


def test_losses_of_parts_average_to_that_of_the_batch():
    outputs, targets = torch.randn(16, 2), torch.randint(2, (16,))
    parts = losses_of_parts(TASK, outputs, targets)
    assert len(parts) == 8
    assert sum(parts) / 8 == pytest.approx(TASK.loss(outputs, targets).item())
    assert len(losses_of_parts(TASK, outputs[:3], targets[:3])) == 3


def test_outputs_that_cannot_be_divided_have_one_loss():
    class Whole(ClassificationTask):
        def loss(self, outputs, targets):
            return torch.tensor(2.0)

    targets = ReconstructionTargets.__new__(ReconstructionTargets)
    assert losses_of_parts(Whole(TASK.config), torch.zeros(4, 2), targets) == [2.0]


def test_epochs_are_validated_as_often_as_three_percent_of_the_time_allows():
    best, validated = BestResult(rows=20), []
    for epoch in range(1, 101):
        step = 4 * epoch  # of 16 samples
        if best.needs_validation(step=step, batch_size=16):
            best.update({"loss": 1.0}, EVEN, step=step, task=TASK, is_end=False)
            validated.append(epoch)
    assert validated[:8] == [1, 2, 3, 4, 5, 9, 13, 17]  # 220 samples, but at least 16 steps
    assert validated[-2:] == [92, 97]  # a twentieth of all steps
    rows = BestResult(rows=160, count=5, measured_step=20)
    due = [step for step in range(20, 300) if rows.needs_validation(step=step, batch_size=16)]
    assert due[0] == 20 + 110
