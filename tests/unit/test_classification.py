import math

import pytest
import torch
from sklearn.metrics import matthews_corrcoef

from perceivers.tasks.classification import ClassificationConfig, ClassificationTask
from support.tolerance import assert_close

NAMES = ("ant", "bee", "cat")


def task(**changes):
    counts = changes.pop("class_counts", None)
    return ClassificationTask(ClassificationConfig(label_names=NAMES, **changes), counts)


def test_loss_is_the_negative_log_probability():
    outputs = torch.tensor([[0.0, math.log(3), 0.0]])
    assert_close(task().loss(outputs, torch.tensor([1])), torch.tensor(-math.log(3 / 5)))


def test_shares_of_classes_weigh_their_losses():
    outputs = torch.randn(4, 3)
    a, b = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 1, 0, 2])
    eye = torch.eye(3)
    mixed = 0.3 * eye[a] + 0.7 * eye[b]
    expected = 0.3 * task().loss(outputs, a) + 0.7 * task().loss(outputs, b)
    assert_close(task().loss(outputs, mixed), expected)


def test_label_smoothing_is_pytorchs():
    outputs, targets = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    expected = torch.nn.functional.cross_entropy(outputs, targets, label_smoothing=0.1)
    assert_close(task(label_smoothing=0.1).loss(outputs, targets), expected)


def test_balanced_weights_make_every_class_count_the_same():
    balanced = task(class_weights="balanced", class_counts=[6, 3, 1])
    assert_close(balanced.class_weights * torch.tensor([6.0, 3.0, 1.0]), torch.full((3,), 10 / 3))
    outputs = torch.zeros(10, 3)
    targets = torch.tensor([0] * 6 + [1] * 3 + [2])
    assert_close(balanced.loss(outputs, targets), torch.tensor(math.log(3)))


def test_given_weights_are_used_as_they_are():
    outputs, targets = torch.randn(2, 3), torch.tensor([0, 2])
    each = [task().loss(outputs[i : i + 1], targets[i : i + 1]) for i in range(2)]
    weighted = task(class_weights=(1.0, 2.0, 5.0))
    assert_close(weighted.loss(outputs, targets), (each[0] + 5 * each[1]) / 2)


def test_wrong_settings_are_refused():
    with pytest.raises(
        ValueError, match=r"at least one training sample of each of the 3.*\[4, 0, 2\]"
    ):
        task(class_weights="balanced", class_counts=[4, 0, 2])
    with pytest.raises(ValueError, match=r"each of the 3 classes; got the counts \[1, 2\]"):
        task(class_weights="balanced", class_counts=[1, 2])
    with pytest.raises(ValueError, match="one of class_weights for each of the 3 classes, got 2"):
        task(class_weights=(1.0, 2.0))
    with pytest.raises(ValueError, match=r"label_smoothing must lie in \[0, 1\), got 1.0"):
        task(label_smoothing=1.0)


def test_metrics_by_hand():
    outputs = torch.tensor([[2.0, 1, 0], [0, 2, 1], [0, 2, 1], [1, 0, 2]])
    targets = torch.tensor([0, 1, 2, 2])
    meter = task().meter()
    meter.update(outputs[:1], targets[:1])
    meter.update(outputs[1:], targets[1:])
    found = meter.compute()
    assert found["accuracy"] == 0.75
    assert "top5" not in found  # of three classes it is 1 whatever is predicted
    assert found["mean_recall"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert found["loss"] == pytest.approx(
        torch.nn.functional.cross_entropy(outputs, targets).item(), rel=1e-6
    )
    assert found["matthews"] == pytest.approx(
        matthews_corrcoef(targets, outputs.argmax(dim=1)), rel=1e-6
    )
    assert found["samples"] == 4
    assert meter.confusion.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]


def test_always_the_same_answer_correlates_with_nothing():
    meter = task().meter()
    meter.update(torch.eye(3)[[1, 1, 1]], torch.tensor([0, 1, 2]))
    assert meter.compute()["matthews"] == 0.0


def test_meters_of_several_devices_add_up():
    outputs, targets = torch.randn(10, 3), torch.randint(3, (10,))
    whole, *parts = (task().meter() for _ in range(3))
    whole.update(outputs, targets)
    parts[0].update(outputs[:3], targets[:3])
    parts[1].update(outputs[3:], targets[3:])
    joint = task().meter()
    joint.merge([part.state() for part in parts])
    assert joint.compute() == pytest.approx(whole.compute())
    assert torch.equal(joint.confusion, whole.confusion)


def test_top5_looks_at_five():
    meter = ClassificationTask(ClassificationConfig(label_names=tuple("abcdefgh"))).meter()
    outputs = torch.arange(8.0).flip(0).expand(2, 8)
    meter.update(outputs, torch.tensor([4, 5]))
    assert meter.compute()["top5"] == 0.5


def test_nothing_measured_is_zero_and_not_a_crash():
    assert task().meter().compute()["samples"] == 0.0


def test_probabilities_sum_to_one():
    assert_close(task().probabilities(torch.randn(2, 3)).sum(-1), torch.ones(2))


def test_balanced_weights_without_counts_predict_but_do_not_learn():
    loaded = task(class_weights="balanced")
    outputs = torch.randn(2, 3)
    assert_close(loaded.probabilities(outputs), task().probabilities(outputs))
    with pytest.raises(ValueError, match="needs the number of training samples of each class"):
        loaded.loss(outputs, torch.tensor([0, 1]))


def test_clips_average_probabilities():
    outputs = torch.tensor([[[0.0, math.log(3), 0.0], [math.log(3), 0.0, 0.0]]])
    found = task().probabilities(task().combine(outputs))
    assert_close(found, torch.tensor([[0.4, 0.4, 0.2]]))


def test_the_training_log_counts_what_is_right():
    outputs = torch.eye(3)
    assert task().training_score(outputs, torch.tensor([0, 1, 0])).item() == 2
    mixed = torch.tensor([[0.6, 0.4, 0.0]])
    assert task().training_score(outputs[:1], mixed).item() == 1


def test_the_confusion_matrix_tells_all_about_each_class():
    assert task().meter().details() == []
