import math

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from perceivers.tasks.calibration import (
    ScoreSample,
    class_calibration,
    fit_temperature,
    reliability,
)
from perceivers.tasks.classification import ClassificationConfig, ClassificationTask
from perceivers.tasks.curves import curves_of, weighted_average_precision
from perceivers.tasks.intervals import bootstrap_weights
from perceivers.tasks.multilabel import MultiLabelConfig, MultiLabelTask
from perceivers.tasks.multitask import MultiTaskConfig
from perceivers.tasks.registry import TaskConfig, build_task


def samples(count=2000, classes=4, scale=3.0, seed=0):
    """Logits whose softmax at temperature `scale` is the distribution of the labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, classes, generator=generator)
    targets = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
    return scale * logits, targets


def test_the_temperature_of_overconfident_logits_is_found():
    logits, targets = samples(scale=3.0)
    found = class_calibration(logits, targets)
    assert found.temperature == pytest.approx(3.0, rel=0.06)
    assert found.ece < 0.05
    assert found.ece_before > 0.15
    assert found.samples == 2000
    losses = [
        torch.nn.functional.cross_entropy(logits / (found.temperature * factor), targets)
        for factor in (0.97, 1.0, 1.03)
    ]
    assert losses[1] < min(losses[0], losses[2])


def test_too_few_rows_are_left_at_temperature_one():
    logits, targets = samples(99)
    found = class_calibration(logits, targets)
    assert found.temperature == 1.0
    assert found.ece == found.ece_before
    assert class_calibration(*samples(100)).temperature > 1.5


def test_samples_that_are_all_right_do_not_make_every_probability_one():
    logits = 5.0 * torch.eye(4).repeat(50, 1)
    found = class_calibration(logits, logits.argmax(dim=1))
    assert 0.3 < found.temperature < 1.0
    assert fit_temperature(lambda temperature: 0.0) == pytest.approx(1.0, abs=1e-3)


def test_calibration_error_by_hand():
    confidence = torch.tensor([0.95, 0.97, 0.99, 0.4])
    error, bins = reliability(confidence, torch.tensor([True, True, False, False]))
    assert error == pytest.approx((abs(0.95 + 0.97 + 0.99 - 2) + 0.4) / 4)
    assert [one.n for one in bins] == [1, 3]
    assert bins[1].accuracy == pytest.approx(2 / 3)
    assert reliability(torch.zeros(0), torch.zeros(0, dtype=torch.bool)) == (0.0, ())


def test_temperature_changes_probabilities_and_no_label():
    logits, _ = samples(50)
    plain = ClassificationTask(ClassificationConfig(label_names=tuple("abcd")))
    scaled = ClassificationTask(plain.config.with_temperature(2.5))
    torch.testing.assert_close(scaled.probabilities(logits), (logits / 2.5).softmax(dim=1))
    assert torch.equal(
        scaled.probabilities(logits).argmax(1), plain.probabilities(logits).argmax(1)
    )
    clips = logits.view(10, 5, 4)
    assert torch.equal(scaled.combine(clips), plain.combine(clips))
    with pytest.raises(ValueError, match="temperature must be a number larger than 0, got 0"):
        ClassificationConfig(temperature=0.0)


def test_the_threshold_of_labels_moves_with_the_temperature():
    config = MultiLabelConfig(label_names=("a", "b"), threshold=0.3)
    scaled = config.with_temperature(3.0)
    outputs = torch.linspace(-4, 4, 200).view(100, 2)
    before = MultiLabelTask(config).probabilities(outputs) >= config.threshold
    after = MultiLabelTask(scaled).probabilities(outputs) >= scaled.threshold
    assert torch.equal(before, after)
    assert scaled.with_temperature(1.0).threshold == pytest.approx(0.3)
    targets = (outputs > 0).float()
    meters = [MultiLabelTask(one).meter() for one in (config, scaled)]
    for meter in meters:
        meter.update(outputs, targets)
    assert meters[0].compute() == meters[1].compute()


def test_one_temperature_for_several_labels():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(3000, 2, generator=generator)
    targets = (torch.rand(3000, 2, generator=generator) < logits.sigmoid()).float()
    meter = MultiLabelTask(MultiLabelConfig(label_names=("a", "b"))).meter()
    meter.update(logits * 4, targets)
    found = meter.calibration()
    assert found is not None
    assert found.temperature == pytest.approx(4.0, rel=0.08)
    assert found.ece < 0.04
    assert found.ece_before > 0.1
    assert [one.auc for one in meter.curves()] == [one["auc"] for one in meter.details()]


def test_each_of_several_tasks_gets_its_temperature():
    parts = {
        "kind": ClassificationConfig(label_names=tuple("abcd")),
        "tags": MultiLabelConfig(label_names=("x", "y")),
    }
    task = build_task(MultiTaskConfig(parts=parts))
    logits, targets = samples(400)
    labels = torch.full((400, 2), torch.nan)  # no sample has tags
    meter = task.meter()
    meter.update({"kind": logits, "tags": logits[:, :2]}, {"kind": targets, "tags": labels})
    found = {name: one.calibration() for name, one in meter.parts.items()}
    assert found["tags"] is None
    config = task.calibrated_config({name: one for name, one in found.items() if one})
    assert config.parts["kind"].temperature == pytest.approx(3.0, rel=0.15)
    assert config.parts["tags"].temperature == 1.0


def test_scores_of_many_samples_are_thinned_evenly_over_processes():
    whole, parts = ScoreSample(2, limit=80), [ScoreSample(2, limit=80) for _ in range(2)]
    outputs = torch.arange(1000.0).view(500, 2)
    for batch in outputs.split(7):
        whole.add(batch, batch[:, 0].long())
    assert whole.targets.tolist() == list(range(0, 1000, 32))
    assert torch.equal(whole.outputs[:, 0].long(), whole.targets)
    parts[0].add(outputs[:480], outputs[:480, 0].long())
    parts[1].add(outputs[480:], outputs[480:, 0].long())
    joint = ScoreSample(2, limit=80)
    joint.merge([part.state() for part in parts])
    assert joint.targets.tolist() == [*range(0, 960, 32), 960, 992]


def test_curves_are_those_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(60, 1, generator=generator).mul(4).round() / 4
    targets = torch.rand(60, 1, generator=generator) < scores.sigmoid()
    (found,) = curves_of(("yes",), scores, targets)
    assert found.auc == pytest.approx(roc_auc_score(targets, scores))
    assert found.average_precision == pytest.approx(average_precision_score(targets, scores))
    expected = np.stack(roc_curve(targets[:, 0], scores[:, 0], drop_intermediate=False)[:2], axis=1)
    np.testing.assert_allclose(np.array(found.roc), expected, atol=1e-5)
    precision, recall, _ = precision_recall_curve(targets[:, 0], scores[:, 0])
    points = np.stack([recall, precision], axis=1)[::-1][1:]
    np.testing.assert_allclose(np.array(found.precision_recall), points, atol=1e-5)


def test_curves_of_two_and_of_many_classes():
    logits, targets = samples(200, classes=2, scale=1.0)
    two = ClassificationTask(ClassificationConfig(label_names=("no", "yes"))).meter()
    two.update(logits, targets)
    assert [one.name for one in two.curves()] == ["yes"]
    assert two.curves()[0].auc == pytest.approx(roc_auc_score(targets, logits[:, 1] - logits[:, 0]))
    many = ClassificationTask(ClassificationConfig(label_names=tuple("abcdefghijk"))).meter()
    many.update(torch.randn(20, 11), torch.arange(20) % 11)
    assert many.curves() == ()


def test_resampled_average_precision_is_that_of_the_drawn_samples():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(30, generator=generator).mul(2).round()
    targets = torch.rand(30, generator=generator) < 0.4
    weights = bootstrap_weights(30, 5)
    precision, area = weighted_average_precision(scores, targets, weights)
    for row, weight in enumerate(weights):
        drawn = torch.arange(30).repeat_interleave(weight.long())
        truth, values = targets[drawn], scores[drawn]
        assert precision[row].item() == pytest.approx(average_precision_score(truth, values))
        assert area[row].item() == pytest.approx(roc_auc_score(truth, values))
    assert weighted_average_precision(scores, targets & False, weights)[0].isnan().all()


def test_intervals_of_classification_hold_their_metric():
    logits, targets = samples(300, classes=6, scale=1.0)
    meter = ClassificationTask(ClassificationConfig(label_names=tuple("abcdef"))).meter()
    meter.update(logits, targets)
    metrics, intervals = meter.compute(), meter.intervals()
    assert set(intervals) == {"accuracy", "top5", "mean_recall", "matthews"}
    for name, (low, high) in intervals.items():
        assert low <= metrics[name] <= high
    error = math.sqrt(metrics["accuracy"] * (1 - metrics["accuracy"]) / 300)
    low, high = intervals["accuracy"]
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.02)


def test_samples_without_finite_logits_are_no_part_of_calibration():
    logits, targets = samples(300)
    meter = ClassificationTask(ClassificationConfig(label_names=tuple("abcd"))).meter()
    meter.update(logits, targets)
    known = meter.calibration()
    broken = torch.full((2, 4), torch.nan)
    meter.update(broken, torch.tensor([0, 1]))
    assert meter.calibration() == known
    labels = MultiLabelTask(MultiLabelConfig(label_names=tuple("abcd"))).meter()
    labels.update(torch.cat([logits, broken]), torch.eye(4)[torch.cat([targets, targets[:2]])])
    found = labels.calibration()
    assert found is not None
    assert found.samples == 300
    assert math.isfinite(found.ece)


def test_a_configuration_without_a_temperature_has_temperature_one():
    plain = {"kind": "classification", "label_names": ["a", "b"]}
    config = TypeAdapter(TaskConfig).validate_python(plain)
    task = build_task(config)
    outputs = torch.randn(3, 2)
    assert task.scaled(outputs) is outputs  # no operation, also in exported graphs
    assert torch.equal(task.probabilities(outputs), outputs.softmax(dim=1))
