"""The task of flow: what is asked, the losses, and the measures against numbers done by hand."""

from dataclasses import replace

import pytest
import torch

from perceivers.tasks.config import TargetInfo
from perceivers.tasks.flow import FlowConfig, FlowTask, flow_cells
from perceivers.tasks.registry import build_task, fit_to_target

CONFIG = FlowConfig(scale=20.0)


def posed(field, *, training=False, **config):
    task = FlowTask(replace(CONFIG, **config))
    inputs = {"frame_pair": torch.zeros(field.shape[0], 2, 3, *field.shape[2:]), "flow": field}
    return task, task.prepare_batch(inputs, {}, None, training=training)


def infer_field(rows, columns, batch=2):
    field = torch.randn(batch, 3, rows, columns)
    field[:, 2] = (field[:, 2] > -1).float()
    field[:, :2] *= field[:, 2:]
    return field


def test_the_flow_is_the_answer_and_no_input():
    field = infer_field(4, 6)
    task, asked = posed(field)
    assert list(asked.inputs) == ["frame_pair"]
    assert asked.index == {}
    torch.testing.assert_close(asked.targets[:, :, 0], field.flatten(2).transpose(1, 2))
    with pytest.raises(ValueError, match="need the target 'flow'"):
        task.prepare_batch(asked.inputs, {}, None, training=True)
    assert isinstance(build_task(CONFIG), FlowTask)
    assert CONFIG.target_modalities == ("flow",)
    assert CONFIG.output_names == task.names == ()
    assert fit_to_target(CONFIG, TargetInfo(kind="class", names=("a",))) == CONFIG
    assert task.num_outputs == 2


def test_some_pixels_are_asked_in_training_and_all_otherwise():
    field = infer_field(4, 6)
    _, asked = posed(field, training=True, num_train_queries=5)
    index = asked.index["flow"]
    assert index.unique().shape == (5,)
    torch.testing.assert_close(asked.targets[:, :, 0], field.flatten(2).transpose(1, 2)[:, index])
    assert posed(field, num_train_queries=5)[1].index == {}
    assert posed(field, training=True, num_train_queries=24)[1].index == {}


@pytest.mark.parametrize("extent", [(8, 12), (6, 9), (3, 3)])
def test_cells_and_back_is_the_same_field(extent):
    task = FlowTask(replace(CONFIG, cell=4))
    assert task.num_outputs == 32
    field = torch.randn(2, *extent, 2)
    torch.testing.assert_close(task.field(flow_cells(field / 20.0, 4).flatten(2), extent), field)
    cells = flow_cells(field, 4)
    assert cells.shape == (2, -(-extent[0] // 4) * -(-extent[1] // 4), 16, 2)
    torch.testing.assert_close(cells.sum(), field.sum())  # zeros lie beyond the border


def example():
    """Four pixels: right by 3 and told exactly, down by 4 and told as 0, far and 2 off, and one that is not known."""
    targets = torch.tensor([[[3.0, 0, 1]], [[0, 4, 1]], [[60, 0, 1]], [[0, 0, 0]]])[None]
    told = torch.tensor([[3.0, 0], [0, 0], [60, -2], [50, 50]])[None]
    return told / 20.0, targets


@pytest.mark.parametrize(
    ("loss", "each"),
    [
        ("epe", (0.001, 4.0, 2.0)),
        ("l1", (0.0, 4.0, 2.0)),
        ("robust", (0.01**0.4, 4.01**0.4, 2.01**0.4)),
    ],
)
def test_losses_are_means_over_known_pixels(loss, each):
    outputs, targets = example()
    found = FlowTask(replace(CONFIG, loss=loss)).loss(outputs, targets)
    assert found.item() == pytest.approx(sum(each) / 3, rel=1e-4)


def test_measures_are_means_over_known_pixels():
    outputs, targets = example()
    task = FlowTask(CONFIG)
    meter = task.meter()
    meter.update(outputs, targets)
    found = meter.compute()
    assert found["epe"] == pytest.approx(2.0)
    assert found["zero_epe"] == pytest.approx((3 + 4 + 60) / 3)
    assert found["within_1px"] == pytest.approx(1 / 3)
    assert found["within_3px"] == pytest.approx(2 / 3)
    assert found["within_5px"] == pytest.approx(1)
    assert found["fl"] == pytest.approx(
        1 / 3
    )  # 4 of 4 pixels off; 2 of 60 is neither far nor a large share
    assert found["samples"] == 1
    assert found["loss"] == pytest.approx(2.0, abs=1e-3)
    assert meter.details() == []
    assert task.training_score(outputs, targets).item() == pytest.approx(2.0)


def test_meters_are_put_together():
    outputs, targets = example()
    one, both = FlowTask(CONFIG).meter(), FlowTask(CONFIG).meter()
    one.update(outputs, targets)
    both.merge([one.state(), one.state()])
    assert both.compute() == {**one.compute(), "samples": 2.0}


def test_where_nothing_is_known_there_is_no_loss_and_a_gradient_of_zero():
    outputs = torch.randn(1, 4, 2, requires_grad=True)
    targets = torch.zeros(1, 4, 1, 3)
    loss = FlowTask(CONFIG).loss(outputs, targets)
    loss.backward()
    assert loss.item() == 0
    assert outputs.grad is not None
    assert not outputs.grad.any()


def test_a_vector_that_is_met_exactly_has_a_finite_gradient():
    outputs = torch.zeros(1, 4, 2, requires_grad=True)
    targets = torch.tensor([0.0, 0, 1]).expand(1, 4, 1, 3)
    FlowTask(CONFIG).loss(outputs, targets).backward()
    assert outputs.grad is not None
    assert outputs.grad.isfinite().all()


def test_clips_are_averaged():
    outputs = torch.randn(2, 3, 4, 2)
    torch.testing.assert_close(FlowTask(CONFIG).combine(outputs), outputs.mean(1))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scale": 0.0}, "scale, the factor from outputs to pixels, must be larger than 0, got 0"),
        ({"cell": 0}, "a cell of at least one pixel, got 0"),
        ({"num_train_queries": 0}, "num_train_queries of at least 1, or None for all, got 0"),
    ],
)
def test_what_has_no_meaning_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        FlowConfig(**wrong)
