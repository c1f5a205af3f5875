import math

import pytest
import torch

from perceivers.tasks.classification import ClassificationConfig
from perceivers.tasks.dense import (
    ImageToImageConfig,
    ImageToImageTask,
    SegmentationConfig,
    SegmentationTask,
)
from perceivers.tasks.flow import FlowConfig, FlowTask
from perceivers.tasks.intervals import (
    BootstrapSums,
    bootstrap_weights,
    is_clearly_larger,
    percentile_interval,
    wilson_interval,
)
from perceivers.tasks.masked import MaskedBytesConfig, MaskedBytesTask
from perceivers.tasks.metric_text import metric_text
from perceivers.tasks.multilabel import MultiLabelConfig, MultiLabelTask
from perceivers.tasks.multitask import MultiTaskConfig
from perceivers.tasks.registry import build_task
from perceivers.tasks.regression import RegressionConfig, RegressionTask
from perceivers.wording import counted


@pytest.mark.parametrize(("successes", "total"), [(986, 1000), (15, 30), (1, 7), (4, 4), (0, 10)])
def test_wilson_interval_solves_the_score_equation(successes, total):
    share = successes / total
    low, high = wilson_interval(successes, total)
    assert 0.0 <= low <= share <= high <= 1.0
    for end in (low, high):
        deviation = 1.959964 * math.sqrt(end * (1 - end) / total)
        is_bound = share in (0.0, 1.0) and end == share
        assert is_bound or abs(share - end) == pytest.approx(deviation, rel=1e-5)


def test_without_samples_a_proportion_may_be_anything():
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_the_bootstrap_interval_of_a_mean_is_that_of_its_standard_error():
    values = torch.randn(400, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sums = BootstrapSums(2)
    for batch in torch.cat([values, torch.ones_like(values)], dim=1).split(64):
        sums.add(batch)
    found = sums.intervals(lambda rows: {"mean": rows[:, 0] / rows[:, 1]})["mean"]
    error = values.std().item() / math.sqrt(400)
    mean = values.mean().item()
    assert found == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=0.2 * error)
    again = sums.intervals(lambda rows: {"mean": rows[:, 0] / rows[:, 1]})["mean"]
    assert again == found


def test_a_difference_is_significant_or_not():
    sure, unsure = (0.9, (0.88, 0.92)), (0.9, (0.8, 0.95))
    assert is_clearly_larger(*sure, 0.86, (0.84, 0.88))
    assert not is_clearly_larger(*unsure, 0.86, (0.84, 0.88))
    assert not is_clearly_larger(0.98, wilson_interval(49, 50), 0.96, wilson_interval(48, 50))
    assert is_clearly_larger(0.9, None, 0.86, (0.84, 0.88))
    assert not is_clearly_larger(0.9, None, 0.1, None)


def test_many_samples_are_resampled_in_groups_with_the_same_interval():
    values = torch.randn(9001, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    rows = torch.cat([values, torch.ones_like(values)], dim=1)
    whole, parts = BootstrapSums(2), [BootstrapSums(2) for _ in range(3)]
    whole.add(rows)
    for part, some in zip(parts, rows.chunk(3), strict=True):
        part.add(some)
    merged = BootstrapSums(2)
    merged.merge([part.state() for part in parts])
    error = values.std().item() / math.sqrt(9001)
    for one in (whole, merged):
        assert one.count == 9001
        assert len(one.rows) <= 2000
        torch.testing.assert_close(one.rows.sum(dim=0), rows.sum(dim=0))
        low, high = one.intervals(lambda r: {"mean": r[:, 0] / r[:, 1]})["mean"]
        assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15)


def regression():
    task = RegressionTask(
        RegressionConfig(target_names=("a", "b"), mean=(1.0, 2.0), std=(2.0, 3.0))
    )
    outputs = torch.randn(40, 2)
    targets = 2 * outputs + torch.randn(40, 2)
    return task, outputs, targets


def labels():
    task = MultiLabelTask(MultiLabelConfig(label_names=("a", "b", "c")))
    outputs = torch.randn(40, 3)
    return task, outputs, (torch.rand(40, 3) < outputs.sigmoid()).float()


def segmentation():
    task = SegmentationTask(SegmentationConfig(label_names=("a", "b", "c"), size=(4, 4)))
    outputs = torch.randn(40, 16, 3)
    targets = torch.where(torch.rand(40, 16) < 0.6, outputs.argmax(dim=2), 0)[..., None]
    return task, outputs, targets.masked_fill(torch.rand(40, 16, 1) < 0.1, 255)


def image_to_image():
    task = ImageToImageTask(ImageToImageConfig(size=(4, 4), num_channels=1))
    outputs = torch.rand(40, 16, 1)
    return task, outputs, (outputs + 0.1 * torch.rand(40, 1, 1)).clamp(0, 1)[:, :, None]


def masked():
    outputs = torch.randn(40, 8, 262)
    targets = torch.where(torch.rand(40, 8) < 0.5, outputs.argmax(dim=2), 7)
    return MaskedBytesTask(MaskedBytesConfig()), outputs, targets.masked_fill(targets % 3 == 0, -1)


def flow():
    outputs = torch.randn(40, 16, 2)
    motion = 20 * outputs + 3 * torch.randn(40, 16, 2)
    known = (torch.rand(40, 16, 1) < 0.9).float()
    return FlowTask(FlowConfig()), outputs, torch.cat([motion, known], dim=2)[:, :, None]


@pytest.mark.parametrize(
    "make",
    [regression, labels, segmentation, image_to_image, masked, flow],
    ids=lambda f: f.__name__,
)
def test_every_task_has_intervals_that_hold_its_metrics(make):
    task, outputs, targets = make()
    whole, *parts = (task.meter() for _ in range(3))
    whole.update(outputs, targets)
    parts[0].update(outputs[:11], targets[:11])
    parts[1].update(outputs[11:], targets[11:])
    joint = task.meter()
    joint.merge([part.state() for part in parts])
    metrics, intervals = whole.compute(), whole.intervals()
    assert task.main_metric in intervals
    for name, (low, high) in intervals.items():
        assert low <= metrics[name] <= high, name
        assert high > low, name
    joined = joint.intervals()
    for name, ends in intervals.items():
        assert joined[name] == pytest.approx(ends), name
    for found, ends in zip(whole.details(), whole.detail_intervals(), strict=False):
        assert all(low <= found[name] <= high for name, (low, high) in ends.items())


def test_the_score_of_several_tasks_has_the_mean_of_their_intervals():
    parts = {
        "kind": ClassificationConfig(label_names=("a", "b")),
        "size": RegressionConfig(target_names=("size",)),
    }
    task = build_task(MultiTaskConfig(parts=parts))
    numbers = torch.randn(50, 1)
    targets = {"kind": torch.arange(50) % 2, "size": numbers + 0.3 * torch.randn(50, 1)}
    meter = task.meter()
    meter.update({"kind": torch.randn(50, 2), "size": numbers}, targets)
    found = meter.intervals()
    ends = zip(found["kind/accuracy"], found["size/r2"], strict=True)
    assert found["score"] == pytest.approx([(a + b) / 2 for a, b in ends])
    assert found["score"][0] <= meter.compute()["score"] <= found["score"][1]


def test_too_few_samples_have_no_bootstrap_interval():
    sums = BootstrapSums(1)
    sums.add(torch.ones(9, 1))
    assert sums.intervals(lambda rows: {"sum": rows[:, 0]}) == {}
    sums.add(torch.tensor([[2.0]]))
    low, high = sums.intervals(lambda rows: {"sum": rows[:, 0]})["sum"]
    assert low < 11.0 < high


def test_resamples_that_do_not_differ_have_no_interval():
    sums = BootstrapSums(1)
    sums.add(torch.ones(20, 1))
    assert sums.intervals(lambda rows: {"sum": rows[:, 0]}) == {}


def test_each_resample_draws_as_many_samples():
    weights = bootstrap_weights(7, 50)
    assert weights.sum(dim=1).tolist() == [7.0] * 50
    assert weights.var() > 0


def test_an_undefined_metric_has_no_interval():
    assert percentile_interval(torch.full((10,), torch.nan)) is None


def test_metrics_are_printed_with_their_interval():
    assert metric_text("accuracy", 0.986, (0.9744, 0.9921)) == "98.6 % (97.4 to 99.2)"
    assert metric_text("video_psnr", 20.0, (19.0, 21.5)) == "20.00 dB (19.00 to 21.50)"
    assert metric_text("rmse", 12.345, (11.0, 14.0)) == "12.35 (11 to 14)"
    assert metric_text("accuracy", 0.986) == "98.6 %"


def test_counts_have_their_noun_in_the_right_number():
    assert counted(1, "file") == "1 file"
    assert counted(0, "file") == "0 files"
    assert counted(1234, "class", "classes") == "1,234 classes"
