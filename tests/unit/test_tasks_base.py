import pytest
import torch

from perceivers.tasks.averaging import combine_clips
from perceivers.tasks.base import Task, TaskBatch, forward_task
from perceivers.tasks.classification import ClassificationConfig, ClassificationTask
from perceivers.tasks.meters import Meter
from perceivers.tasks.metric_text import metric_text
from perceivers.tasks.multilabel import MultiLabelConfig
from perceivers.tasks.registry import build_task
from perceivers.tasks.regression import RegressionConfig

TASKS = [
    build_task(config)
    for config in (
        ClassificationConfig(label_names=("ant", "bee")),
        MultiLabelConfig(label_names=("ant", "bee")),
        RegressionConfig(target_names=("x", "y")),
    )
]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
def test_every_task_offers_what_a_task_promises(task):
    assert isinstance(task, Task)
    meter = task.meter()
    assert isinstance(meter, Meter)
    assert not isinstance(task, Meter)
    targets = torch.tensor([0, 1])
    if not isinstance(task, ClassificationTask):
        targets = torch.eye(2)
    outputs = torch.randn(2, 2)
    meter.update(outputs, targets)
    assert {task.main_metric, task.score_name, "loss", "samples"} <= meter.compute().keys()
    assert task.training_score(outputs, targets).shape == ()


@pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
def test_equal_clips_say_what_one_says(task):
    outputs = torch.randn(3, 2)
    combined = combine_clips(task, outputs.repeat_interleave(4, dim=0), 4)
    torch.testing.assert_close(task.probabilities(combined), task.probabilities(outputs))


def test_one_clip_is_left_as_it_is():
    outputs = torch.randn(3, 2)
    assert combine_clips(TASKS[0], outputs, 1) is outputs


def test_the_state_of_a_meter_can_be_sent():
    def leaves(state):
        return [
            leaf
            for value in state.values()
            for leaf in (leaves(value) if isinstance(value, dict) else [value])
        ]

    for task in TASKS:
        for value in leaves(task.meter().state()):
            assert isinstance(value, torch.Tensor | int | float)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("accuracy", 0.986, "98.6 %"),
        ("mAP", 0.4349, "43.5 %"),
        ("loss", 0.5, "0.5000"),
        ("samples", 1200.0, "1,200"),
        ("n", 3.0, "3"),
        ("rmse", 1.2345, "1.234"),
        ("rmse", 12345.6, "12,346"),
        ("auc", 0.97126, "0.9713"),
    ],
)
def test_measures_read_well(name, value, text):
    assert metric_text(name, value) == text


def test_a_model_is_asked_for_what_the_question_names():
    def model(*given):
        return given

    inputs = {"a": torch.zeros(1)}
    whole = TaskBatch(inputs=inputs, masks={}, targets=None)
    assert forward_task(model, whole) == (inputs, {})
    part = TaskBatch(inputs=inputs, masks={}, targets=None, index={"b": torch.arange(2)})
    assert forward_task(model, part)[2] is part.index
