import dataclasses
from typing import get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from perceivers.tasks.classification import ClassificationConfig, ClassificationTask
from perceivers.tasks.multilabel import MultiLabelConfig, MultiLabelTask
from perceivers.tasks.registry import TARGET_KINDS, TaskConfig, build_task, fit_task, names_of
from perceivers.tasks.regression import RegressionConfig, RegressionTask

MOMENTS = ((1.0, 2.0), (3.0, 4.0))


@pytest.mark.parametrize(
    ("config", "task"),
    [
        (ClassificationConfig(label_names=("a", "b")), ClassificationTask),
        (MultiLabelConfig(label_names=("a", "b")), MultiLabelTask),
        (RegressionConfig(target_names=("a", "b")), RegressionTask),
    ],
)
def test_each_configuration_has_its_task(config, task):
    built = build_task(config)
    assert type(built) is task
    assert built.names == names_of(config) == ("a", "b")
    assert built.num_outputs == 2
    assert config.kind in TARGET_KINDS
    adapter = TypeAdapter(TaskConfig)
    assert adapter.validate_python(dataclasses.asdict(config)) == config


def test_every_task_has_its_kind_of_target():
    kinds = {
        part.__dataclass_fields__["kind"].default for part in get_args(get_args(TaskConfig)[0])
    }
    assert set(TARGET_KINDS) == kinds


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValidationError, match="'classification', 'multilabel', 'regression'"):
        TypeAdapter(TaskConfig).validate_python({"kind": "ranking"})


def test_counts_of_classes_reach_the_weights():
    config = ClassificationConfig(label_names=("a", "b"), class_weights="balanced")
    task = build_task(config, [3, 1])
    assert isinstance(task, ClassificationTask)
    assert task.class_weights is not None
    assert task.class_weights.tolist() == pytest.approx([4 / 6, 2.0])


def test_the_task_follows_the_target():
    recipe = ClassificationConfig(label_smoothing=0.1, class_weights="balanced")
    assert fit_task(recipe, "class", ["a"]) == dataclasses.replace(recipe, label_names=("a",))
    several = MultiLabelConfig(label_names=("a",), label_smoothing=0.1)
    assert fit_task(recipe, "labels", ["a"]) == several
    numbers = RegressionConfig(target_names=("x", "y"), mean=MOMENTS[0], std=MOMENTS[1])
    assert fit_task(recipe, "number", ["x", "y"], MOMENTS) == numbers
    assert fit_task(numbers, "class", ["a"]) == ClassificationConfig(label_names=("a",))


def test_settings_of_a_task_that_fits_stay():
    several = MultiLabelConfig(threshold=0.3)
    assert fit_task(several, "labels", ["a"]) == MultiLabelConfig(label_names=("a",), threshold=0.3)
    huber = RegressionConfig(loss="huber")
    assert fit_task(huber, "number", ["x", "y"], MOMENTS).loss == "huber"
    known = RegressionConfig(target_names=("old",), mean=(1.0,), std=(2.0,))
    assert fit_task(known, "number", ["new"]) == dataclasses.replace(known, target_names=("new",))


def test_numbers_of_a_stream_need_their_moments():
    with pytest.raises(ValueError, match=r"mean and deviation .* not known before training"):
        fit_task(ClassificationConfig(), "number", ["x"])
