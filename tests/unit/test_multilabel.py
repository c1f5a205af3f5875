import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from perceivers.tasks.averaging import combine_clips
from perceivers.tasks.multilabel import MultiLabelConfig, MultiLabelTask, average_precision
from support.tolerance import assert_close

NAMES = ("dog", "rain", "wind")


def task(names=NAMES, **changes):
    return MultiLabelTask(MultiLabelConfig(label_names=names, **changes))


def measured(outputs, targets, **changes):
    names = tuple(str(label) for label in range(outputs.shape[1]))
    meter = task(names, **changes).meter()
    meter.update(outputs, targets)
    return meter


def test_loss_is_the_mean_over_samples_and_labels():
    outputs = torch.tensor([[math.log(3), 0.0, 0.0], [0.0, 0.0, 0.0]])
    targets = torch.tensor([[1.0, 0, 1], [0, 0, 0]])
    expected = (-math.log(0.75) + 5 * math.log(2)) / 6
    assert_close(task().loss(outputs, targets), torch.tensor(expected))
    assert task().loss(outputs.double(), targets).dtype == torch.float64


def test_smoothing_spreads_over_yes_and_no():
    outputs = torch.tensor([[2.0, -1.0, 0.5]])
    smoothed = task(label_smoothing=0.2).loss(outputs, torch.tensor([[1.0, 0, 0]]))
    assert_close(smoothed, task().loss(outputs, torch.tensor([[0.9, 0.1, 0.1]])))


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match=r"label_smoothing must lie in \[0, 1\), got 1.0"):
        task(label_smoothing=1.0)
    with pytest.raises(ValueError, match=r"threshold must lie between 0 and 1, got 1\.0"):
        task(threshold=1.0)


def test_names_and_probabilities():
    assert (task().names, task().num_outputs) == (NAMES, 3)
    found = task().probabilities(torch.tensor([[0.0, math.log(3), -math.log(3)]]))
    assert_close(found, torch.tensor([[0.5, 0.75, 0.25]]))


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_scikit_learns_with_and_without_ties(seed):
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, 2, 60).astype(bool)
    for scores in (generator.normal(size=60), generator.integers(0, 4, 60) / 4.0):
        found, area = average_precision(
            torch.tensor(scores, dtype=torch.float32), torch.tensor(targets)
        )
        assert found == pytest.approx(average_precision_score(targets, scores), abs=1e-12)
        assert area == pytest.approx(roc_auc_score(targets, scores), abs=1e-12)


def test_a_label_that_no_sample_or_every_sample_has():
    scores = torch.tensor([0.1, 0.2])
    assert average_precision(scores, torch.tensor([False, False])) == (None, None)
    assert average_precision(scores, torch.tensor([True, True])) == (1.0, None)


def test_metrics_by_hand():
    # By score, label 0 orders the samples 1, 0, 2: its positives 0 and 2 come second and third.
    outputs = torch.tensor([[1.0, 2.0], [2.0, -1.0], [0.5, -2.0], [-3.0, -3.0]])
    targets = torch.tensor([[1.0, 1], [0, 0], [1, 0], [0, 0]])
    meter = measured(outputs, targets)
    found = meter.compute()
    assert meter.details()[0]["AP"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert meter.details()[1] == {"AP": 1.0, "auc": 1.0, "n": 1.0}
    assert found["mAP"] == pytest.approx(((1 / 2 + 2 / 3) / 2 + 1) / 2)
    assert found["auc"] == pytest.approx((2 / 4 + 1) / 2)
    assert found["hit1"] == 2 / 4  # sample 3 has no label to hit
    assert found["exact"] == 3 / 4
    loss = torch.nn.functional.binary_cross_entropy_with_logits(outputs, targets)
    assert found["loss"] == pytest.approx(loss.item())
    assert found["samples"] == 4
    micro = average_precision_score(targets.flatten(), outputs.flatten())
    assert found["micro_mAP"] == pytest.approx(micro)


def test_the_mean_is_over_labels_and_not_over_samples():
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(6, 6, generator=generator)
    targets = (torch.rand(6, 6, generator=generator) < 0.4).float()
    targets[0, 0], targets[:, 5] = 1.0, 0.0
    present = targets.any(dim=0).numpy()
    expected = average_precision_score(targets[:, present], outputs[:, present], average="macro")
    assert measured(outputs, targets).compute()["mAP"] == pytest.approx(expected)
    turned = measured(outputs.T.contiguous(), targets.T.contiguous()).compute()["mAP"]
    assert abs(turned - expected) > 0.05


def test_the_threshold_is_a_probability():
    outputs = torch.tensor([[math.log(0.3 / 0.7) + 1e-4, -9.0]])
    targets = torch.tensor([[1.0, 0.0]])
    assert measured(outputs, targets, threshold=0.3).compute()["exact"] == 1.0
    assert measured(outputs, targets).compute()["exact"] == 0.0


def test_meters_of_several_devices_are_put_together():
    outputs, targets = torch.randn(10, 3), (torch.rand(10, 3) < 0.5).float()
    whole, *parts = (task().meter() for _ in range(3))
    whole.update(outputs, targets)
    parts[0].update(outputs[:3], targets[:3])
    parts[1].update(outputs[3:], targets[3:])
    joint = task().meter()
    joint.merge([part.state() for part in parts])
    assert joint.compute() == pytest.approx(whole.compute())


def test_nothing_measured_is_zero_and_not_a_crash():
    assert set(task().meter().compute().values()) == {0.0}


def test_clips_average_probabilities():
    outputs = torch.tensor([[[0.0, 5.0], [math.log(3), 5.0]]])
    found = task().probabilities(task().combine(outputs))
    assert_close(found[0, 0], torch.tensor((0.5 + 0.75) / 2))
    assert_close(task().combine(outputs)[0, 1], torch.tensor(5.0))
    assert combine_clips(task(), outputs.flatten(0, 1), 2).shape == (1, 2)
    assert combine_clips(task(), outputs[0], 1) is not None


def test_clips_that_are_all_sure_keep_their_order():
    outputs = torch.tensor([[[30.0], [30.0]], [[31.0], [31.0]], [[-95.0], [-95.0]]])
    assert_close(task(("a",)).combine(outputs), outputs[:, 0])


def test_the_training_log_counts_best_labels_that_are_right():
    outputs = torch.tensor([[3.0, 0, 0], [0, 3.0, 0], [0, 0, 3.0]])
    targets = torch.tensor([[1.0, 1, 0], [0, 0, 0], [0, 0.4, 0.6]])
    assert task().training_score(outputs, targets).item() == 2
