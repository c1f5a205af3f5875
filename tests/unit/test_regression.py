import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from perceivers.tasks.regression import RegressionConfig, RegressionTask
from support.tolerance import assert_close


def task(names=("age", "height"), mean=(40.0, 1.7), std=(10.0, 0.1), **changes):
    return RegressionTask(RegressionConfig(target_names=names, mean=mean, std=std, **changes))


def test_the_model_predicts_deviations_from_the_mean():
    outputs = torch.tensor([[1.0, -2.0]])
    assert_close(task().probabilities(outputs), torch.tensor([[50.0, 1.5]]))
    assert task().loss(outputs, torch.tensor([[50.0, 1.5]])).item() == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize(
    ("loss", "expected"), [("mse", (4 + 0.25) / 2), ("l1", 2.5 / 2), ("huber", (1.5 + 0.125) / 2)]
)
def test_losses_by_hand(loss, expected):
    targets = torch.tensor([[60.0, 1.75]])  # 2 and 0.5 deviations above the mean
    found = task(loss=loss).loss(torch.zeros(1, 2), targets)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_numbers_far_from_zero_keep_their_digits():
    far = task(("year",), (1e6,), (1.0,))
    assert far.standardized(torch.tensor([[1_000_001.0]])).tolist() == [[1.0]]


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="Expected a mean for each of the 2 numbers, got 1"):
        task(mean=(1.0,))
    with pytest.raises(ValueError, match="Expected a std for each of the 2 numbers, got 3"):
        task(std=(1.0, 2.0, 3.0))
    with pytest.raises(ValueError, match=r"Each std must be larger than 0, got \(1.0, 0.0\)"):
        task(std=(1.0, 0.0))


def test_one_number_is_judged_in_its_units_and_several_by_the_share_explained():
    one = task(("age",), (), ())
    assert (one.main_metric, one.higher_is_better) == ("rmse", False)
    assert (task().main_metric, task().higher_is_better) == ("r2", True)
    assert (task().names, task().num_outputs) == (("age", "height"), 2)
    assert_close(one.probabilities(torch.tensor([[3.0]])), torch.tensor([[3.0]]))


def test_metrics_are_scikit_learns_in_the_numbers_units():
    outputs = torch.randn(20, 2)
    targets = torch.randn(20, 2) * torch.tensor([8.0, 0.2]) + torch.tensor([41.0, 1.6])
    ours = task()
    meter = ours.meter()
    meter.update(outputs[:7], targets[:7])
    meter.update(outputs[7:], targets[7:])
    found, predicted = meter.compute(), ours.probabilities(outputs)
    assert found["rmse"] == pytest.approx(root_mean_squared_error(targets, predicted), rel=1e-5)
    assert found["mae"] == pytest.approx(mean_absolute_error(targets, predicted), rel=1e-5)
    assert found["r2"] == pytest.approx(r2_score(targets, predicted), rel=1e-5)
    assert found["loss"] == pytest.approx(ours.loss(outputs, targets).item(), rel=1e-5)
    assert found["samples"] == 20
    second = meter.details()[1]
    assert second["r2"] == pytest.approx(r2_score(targets[:, 1], predicted[:, 1]), rel=1e-4)
    assert second["pearson"] == pytest.approx(
        np.corrcoef(targets[:, 1], predicted[:, 1])[0, 1], rel=1e-5
    )
    assert second["mae"] == pytest.approx((targets - predicted)[:, 1].abs().mean().item(), rel=1e-4)


def test_meters_of_several_devices_add_up():
    outputs, targets = torch.randn(10, 2), torch.randn(10, 2)
    whole, *parts = (task().meter() for _ in range(3))
    whole.update(outputs, targets)
    parts[0].update(outputs[:3], targets[:3])
    parts[1].update(outputs[3:], targets[3:])
    joint = task().meter()
    joint.merge([part.state() for part in parts])
    assert joint.compute() == pytest.approx(whole.compute(), rel=1e-5)


@pytest.mark.parametrize(("output", "r2"), [(0.0, 1.0), (0.5, 0.0)])
def test_equal_numbers_leave_nothing_to_explain(output, r2):
    meter = task(("age",), (), ()).meter()
    meter.update(torch.full((3, 1), output), torch.zeros(3, 1))
    assert meter.compute()["r2"] == r2
    assert meter.compute()["pearson"] == 0.0


def test_nothing_measured_is_no_crash():
    found = task().meter().compute()
    assert (found["rmse"], found["mae"], found["loss"], found["samples"]) == (0.0, 0.0, 0.0, 0.0)


def test_clips_are_averaged():
    outputs = torch.tensor([[[1.0, 0.0], [2.0, 4.0]]])
    assert_close(task().combine(outputs), torch.tensor([[1.5, 2.0]]))


def test_the_training_log_shows_the_absolute_error():
    outputs = torch.tensor([[0.0], [1.0]])
    one = task(("age",), (40.0,), (10.0,))
    assert one.score_name == "mae"
    assert one.training_score(outputs, torch.tensor([[43.0], [50.0]])).item() == pytest.approx(3.0)
