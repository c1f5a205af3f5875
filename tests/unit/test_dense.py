"""An answer for every pixel: classes and values, put under queries and back."""

import math

import pytest
import torch

from perceivers.tasks.base import forward_task
from perceivers.tasks.config import TargetInfo
from perceivers.tasks.dense import ImageToImageConfig, SegmentationConfig
from perceivers.tasks.registry import build_task, fit_to_target

NAMES = ("sky", "road", "car")


def segmentation(**how):
    return build_task(SegmentationConfig(label_names=NAMES, size=(4, 6), **how))


def to_image(**how):
    return build_task(ImageToImageConfig(num_channels=2, size=(4, 6), **how))


def logits_for(task, classes):
    """Return outputs that say these classes, for queries in reading order."""
    cells = task.cells(classes).clamp_max(len(NAMES) - 1)
    return (10.0 * torch.nn.functional.one_hot(cells, len(NAMES)).float()).flatten(2)


@pytest.mark.parametrize("patch", [(1, 1), (2, 3), (3, 4)])
def test_pixels_stand_under_the_query_of_their_patch(patch):
    classes = torch.randint(0, 3, (2, 4, 6))
    task = segmentation(patch=patch)
    rows, columns = -(-4 // patch[0]), -(-6 // patch[1])
    cells = task.cells(classes)
    assert cells.shape == (2, rows * columns, patch[0] * patch[1])
    assert cells[0, 0, 0] == classes[0, 0, 0]
    if columns > 1:
        assert cells[1, 1, 0] == classes[1, 0, patch[1]]
    said = task.image(task.probabilities(logits_for(task, classes)))
    assert said.shape == (2, 3, 4, 6)
    assert torch.equal(said.argmax(dim=1), classes)
    values = torch.rand(2, 2, 4, 6)
    other = to_image(patch=patch)
    assert torch.equal(other.image(other.cells(values)), values)


def test_the_model_is_shown_the_picture_and_not_the_answer():
    task = segmentation()
    image, mask = torch.rand(2, 3, 4, 6), torch.randint(0, 3, (2, 4, 6))
    asked = task.prepare_batch({"image": image, "target": mask}, {}, None, training=True)
    assert set(asked.inputs) == {"image"}
    assert not asked.index
    assert forward_task(lambda inputs, masks: len(inputs), asked) == 1
    with pytest.raises(ValueError, match="need the target 'target'"):
        task.prepare_batch({"image": image}, {}, None, training=False)


def test_some_queries_are_asked_in_training_and_all_of_them_otherwise():
    task = segmentation(num_train_queries=5)
    batch = {"image": torch.rand(2, 3, 4, 6), "target": torch.randint(0, 3, (2, 4, 6))}
    asked = task.prepare_batch(batch, {}, None, training=True)
    chosen = asked.index["pixels"]
    assert chosen.shape == (5,)
    assert torch.equal(asked.targets[:, :, 0], batch["target"].flatten(1)[:, chosen])
    assert not task.prepare_batch(batch, {}, None, training=False).index
    assert (
        not segmentation(num_train_queries=99).prepare_batch(batch, {}, None, training=True).index
    )


def test_pixels_of_no_class_teach_and_count_nothing():
    task = segmentation()
    classes = torch.tensor([[[0, 0, 1], [1, 2, 255]]])
    outputs = logits_for(task, torch.tensor([[[0, 0, 1], [0, 2, 2]]])).requires_grad_()
    targets = task.cells(classes)
    task.loss(outputs, targets).backward()
    assert not outputs.grad[0, 5].any()
    assert outputs.grad[0, 3].any()
    assert task.training_score(outputs, targets).item() == pytest.approx(4 / 5)
    meter = task.meter()
    meter.update(outputs.detach(), targets)
    found = meter.compute()
    assert found["accuracy"] == pytest.approx(4 / 5)
    assert found["mIoU"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert found["mean_recall"] == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert found["loss"] == pytest.approx(task.loss(outputs, targets).item(), rel=1e-5)
    assert found["samples"] == 1.0
    assert meter.details() == []
    empty = torch.full_like(targets, 255)
    assert task.loss(outputs, empty).item() == 0.0
    assert task.meter().compute()["mIoU"] == 0.0


def test_a_class_that_neither_truth_nor_answer_has_does_not_count():
    task = segmentation()
    classes = torch.tensor([[[0, 0], [1, 1]]])
    meter = task.meter()
    meter.update(logits_for(task, classes), task.cells(classes))
    assert meter.compute()["mIoU"] == 1.0


@pytest.mark.parametrize("loss", ["l1", "mse"])
def test_values_are_measured_in_decibels(loss):
    task = to_image(loss=loss, patch=(3, 4))
    values = torch.rand(2, 2, 4, 6).mul(0.8)
    targets = task.cells(values)
    assert targets.isnan().any()  # beyond the picture's edge
    outputs = (targets.nan_to_num() + 0.1).flatten(2)
    expected = 0.1 if loss == "l1" else 0.01
    assert task.loss(outputs, targets).item() == pytest.approx(expected, rel=1e-4)
    assert task.training_score(outputs, targets).item() == pytest.approx(0.2, rel=1e-4)
    meter = task.meter()
    meter.update(outputs, targets)
    found = meter.compute()
    assert found["psnr"] == pytest.approx(20.0, rel=1e-4)
    assert found["mae"] == pytest.approx(0.1, rel=1e-4)
    assert found["rmse"] == pytest.approx(0.1, rel=1e-4)
    assert found["samples"] == 2.0
    assert meter.details() == []
    exact = task.meter()
    exact.update(targets.nan_to_num().flatten(2), targets)
    assert exact.compute()["psnr"] == pytest.approx(100.0)
    assert task.probabilities(torch.full((1, 4, 24), 2.0)).max().item() == 1.0


@pytest.mark.parametrize("task", [segmentation(), to_image()])
def test_meters_of_two_processes_are_one(task):
    width = task.num_outputs
    is_map = width == 3
    answer = torch.randint(0, 3, (4, 4, 6)) if is_map else torch.rand(4, 2, 4, 6)
    outputs, targets = torch.randn(4, 24, width), task.cells(answer)
    parts, whole = [task.meter(), task.meter()], task.meter()
    for rows, meter in zip((slice(0, 1), slice(1, 4)), parts, strict=True):
        meter.update(outputs[rows], targets[rows])
    whole.update(outputs, targets)
    merged = task.meter()
    merged.merge([meter.state() for meter in parts])
    assert merged.compute() == pytest.approx(whole.compute())


def test_clips_are_averaged():
    outputs = torch.randn(2, 3, 24, 3)
    torch.testing.assert_close(segmentation().combine(outputs), outputs.mean(dim=1))


def test_what_a_dense_task_says_of_itself():
    config = SegmentationConfig(label_names=NAMES, target="mask", patch=(2, 2))
    assert build_task(config).num_outputs == 12
    assert build_task(config).names == config.output_names == NAMES
    values = ImageToImageConfig(target="depth")
    assert build_task(values).names == values.output_names == ()
    assert (config.target_modalities, values.target_modalities) == (("mask",), ("depth",))
    assert fit_to_target(config, TargetInfo(kind="class", names=())) is config
    assert config.target_kind == values.target_kind == "nothing"
    with pytest.raises(ValueError, match="num_train_queries of at least 1, or None for all, got 0"):
        SegmentationConfig(num_train_queries=0)
    assert math.isclose(build_task(values).meter().compute()["rmse"], 1.0)
