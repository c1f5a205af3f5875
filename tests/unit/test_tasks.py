import dataclasses

import pytest
from pydantic import TypeAdapter, ValidationError

from perceivers.tasks.classification import ClassificationConfig, ClassificationTask
from perceivers.tasks.config import TargetInfo
from perceivers.tasks.multilabel import MultiLabelConfig, MultiLabelTask
from perceivers.tasks.registry import TASKS, TaskConfig, build_task, fit_to_target
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
    assert built.names == config.output_names == ("a", "b")
    assert built.num_outputs == 2
    assert config.kind in TASKS
    adapter = TypeAdapter(TaskConfig)
    assert adapter.validate_python(dataclasses.asdict(config)) == config


def test_every_task_has_its_kind_of_target():
    kinds = {
        "classification": "class",
        "multilabel": "labels",
        "regression": "number",
        "masked_bytes": "nothing",
        "flow": "nothing",
        "multitask": "auto",
        "segmentation": "nothing",
        "image_to_image": "nothing",
    }
    for config_class in TASKS:
        if config_class.kind in kinds:
            assert config_class().target_kind == kinds[config_class.kind]
            assert config_class().requires_labels == (kinds[config_class.kind] != "nothing")
    assert {config_class.kind for config_class in TASKS} >= {*kinds, "autoencode"}


def test_an_unknown_kind_is_refused_with_the_registered_ones():
    with pytest.raises(ValidationError, match=r"'classification', .*'multilabel', .*'regression'"):
        TypeAdapter(TaskConfig).validate_python({"kind": "ranking"})


def test_counts_of_classes_reach_the_weights():
    config = ClassificationConfig(label_names=("a", "b"), class_weights="balanced")
    task = build_task(config, [3, 1])
    assert isinstance(task, ClassificationTask)
    assert task.class_weights is not None
    assert task.class_weights.tolist() == pytest.approx([4 / 6, 2.0])


def test_the_task_follows_the_target():
    recipe = ClassificationConfig(label_smoothing=0.1, class_weights="balanced")
    assert fit_to_target(recipe, TargetInfo(kind="class", names=("a",))) == dataclasses.replace(
        recipe, label_names=("a",)
    )
    several = MultiLabelConfig(label_names=("a",), label_smoothing=0.1)
    assert fit_to_target(recipe, TargetInfo(kind="labels", names=("a",))) == several
    numbers = RegressionConfig(target_names=("x", "y"), mean=MOMENTS[0], std=MOMENTS[1])
    assert (
        fit_to_target(
            recipe,
            TargetInfo(
                kind="number",
                names=(
                    "x",
                    "y",
                ),
                moments=MOMENTS,
            ),
        )
        == numbers
    )
    assert fit_to_target(numbers, TargetInfo(kind="class", names=("a",))) == ClassificationConfig(
        label_names=("a",)
    )


def test_settings_of_a_task_that_fits_stay():
    several = MultiLabelConfig(threshold=0.3)
    assert fit_to_target(several, TargetInfo(kind="labels", names=("a",))) == MultiLabelConfig(
        label_names=("a",), threshold=0.3
    )
    huber = RegressionConfig(loss="huber")
    assert (
        fit_to_target(
            huber,
            TargetInfo(
                kind="number",
                names=(
                    "x",
                    "y",
                ),
                moments=MOMENTS,
            ),
        ).loss
        == "huber"
    )
    known = RegressionConfig(target_names=("old",), mean=(1.0,), std=(2.0,))
    assert fit_to_target(known, TargetInfo(kind="number", names=("new",))) == dataclasses.replace(
        known, target_names=("new",)
    )


def test_numbers_of_a_stream_need_their_moments():
    with pytest.raises(ValueError, match=r"mean and deviation .* not known before training"):
        fit_to_target(ClassificationConfig(), TargetInfo(kind="number", names=("x",)))
