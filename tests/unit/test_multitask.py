"""Several tasks on the same outputs of a model, some of whose targets are not known."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from perceivers.tasks.averaging import combine_clips
from perceivers.tasks.classification import ClassificationConfig
from perceivers.tasks.config import TargetInfo
from perceivers.tasks.metric_text import is_share, metric_text
from perceivers.tasks.multilabel import MultiLabelConfig
from perceivers.tasks.multitask import MultiTask, MultiTaskConfig, is_known
from perceivers.tasks.registry import build_task, config_for_target, fit_to_target
from perceivers.tasks.regression import RegressionConfig

DIGIT = ClassificationConfig(label_names=("zero", "one", "two"))
TAGS = MultiLabelConfig(label_names=("a", "b"))
AGE = RegressionConfig(target_names=("age",), mean=(10.0,), std=(2.0,))
NAN = torch.nan


def task_of(weights=None, **parts):
    parts = parts or {"digit": DIGIT, "tags": TAGS, "age": AGE}
    return build_task(MultiTaskConfig(parts=parts, weights=weights or {}))


def made():
    """Return outputs of four samples for each task, and their targets."""
    torch.manual_seed(0)
    outputs = {"digit": torch.randn(4, 3), "tags": torch.randn(4, 2), "age": torch.randn(4, 1)}
    targets = {
        "digit": torch.tensor([0, 1, 2, 0]),
        "tags": torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [0.0, 1.0]]),
        "age": torch.tensor([[8.0], [10.0], [12.0], [14.0]]),
    }
    return outputs, targets


def test_the_loss_is_the_weighted_sum_of_the_tasks():
    outputs, targets = made()
    task = task_of({"age": 0.5, "tags": 0.0})
    parts = {name: part.loss(outputs[name], targets[name]) for name, part in task.parts.items()}
    torch.testing.assert_close(task.loss(outputs, targets), parts["digit"] + 0.5 * parts["age"])
    assert task.names == ("digit", "tags", "age")
    assert task.num_outputs == 6
    asked = task.prepare_batch({"x": torch.zeros(4, 1)}, {}, targets, training=True)
    assert asked.targets is targets


def test_a_sample_without_a_target_is_left_out_of_that_task_alone():
    outputs, targets = made()
    targets["digit"][1] = -1
    targets["age"][2] = NAN
    task = task_of(digit=DIGIT, age=AGE)
    with_grad = {name: part.clone().requires_grad_() for name, part in outputs.items()}
    loss = task.loss(with_grad, {name: targets[name] for name in ("digit", "age")})
    rows = [0, 2, 3]
    expected = cross_entropy(outputs["digit"][rows], targets["digit"][rows])
    expected = expected + task.parts["age"].loss(
        outputs["age"][[0, 1, 3]], targets["age"][[0, 1, 3]]
    )
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert not with_grad["digit"].grad[1].any()
    assert not with_grad["age"].grad[2].any()
    assert with_grad["age"].grad[1].any()


def test_a_task_without_any_target_adds_nothing_but_keeps_its_weights_in_the_step():
    outputs, targets = made()
    targets["digit"][:] = -1
    task = task_of(digit=DIGIT)
    head = outputs["digit"].requires_grad_()
    loss = task.loss({"digit": head}, {"digit": targets["digit"]})
    loss.backward()
    assert loss.item() == 0.0
    assert head.grad is not None
    assert not head.grad.any()
    assert task.training_score({"digit": head}, {"digit": targets["digit"]}).item() == 0.0


def test_shares_of_mixed_classes_are_targets():
    shares = torch.tensor([[0.5, 0.5, 0.0], [NAN, NAN, NAN]])
    assert is_known(shares).tolist() == [True, False]
    loss = task_of(digit=DIGIT).loss({"digit": torch.zeros(2, 3)}, {"digit": shares})
    assert loss.item() == pytest.approx(torch.tensor(3.0).log().item())


def test_metrics_of_each_task_and_the_mean_of_what_they_are_judged_by():
    outputs, targets = made()
    targets["digit"][3] = -1
    task = task_of({"age": 2.0})
    meter = task.meter()
    meter.update(outputs, targets)
    found = meter.compute()
    alone = task.parts["digit"].meter()
    alone.update(outputs["digit"][:3], targets["digit"][:3])
    assert found["digit/accuracy"] == alone.compute()["accuracy"]
    assert (found["digit/samples"], found["samples"]) == (3.0, 4.0)
    judged = [found["digit/accuracy"], found["tags/mAP"], max(found["age/r2"], 0.0)]
    assert found["score"] == pytest.approx(sum(judged) / 3)
    losses = found["digit/loss"] + found["tags/loss"] + 2 * found["age/loss"]
    assert found["loss"] == pytest.approx(losses)
    assert meter.details() == []
    assert (task.main_metric, task.higher_is_better, task.score_name) == ("score", True, "score")


def test_meters_of_two_processes_are_one():
    outputs, targets = made()
    task = task_of()
    both, whole = [task.meter(), task.meter()], task.meter()
    for rows, meter in zip((slice(0, 1), slice(1, 4)), both, strict=True):
        meter.update(
            {name: part[rows] for name, part in outputs.items()},
            {name: part[rows] for name, part in targets.items()},
        )
    whole.update(outputs, targets)
    merged = task.meter()
    merged.merge([meter.state() for meter in both])
    assert merged.compute() == pytest.approx(whole.compute())


def test_a_task_that_no_sample_has_is_not_measured():
    outputs, targets = made()
    targets["digit"][:] = -1
    meter = task_of(digit=DIGIT, age=AGE).meter()
    meter.update(outputs, {name: targets[name] for name in ("digit", "age")})
    found = meter.compute()
    assert not [name for name in found if name.startswith("digit")]
    assert found["score"] == max(found["age/r2"], 0.0)
    assert task_of(digit=DIGIT).meter().compute() == {"score": 0.0, "loss": 0.0, "samples": 0.0}


def test_the_training_log_shows_the_mean_share_of_right_answers():
    outputs, targets = made()
    task = task_of()
    right = (outputs["digit"].argmax(1) == targets["digit"]).sum()
    hit = task.parts["tags"].training_score(outputs["tags"], targets["tags"])
    torch.testing.assert_close(task.training_score(outputs, targets), (right + hit) / 2)
    numbers = task_of(age=AGE)
    assert numbers.score_name == "loss"
    own = {"age": outputs["age"]}, {"age": targets["age"]}
    torch.testing.assert_close(numbers.training_score(*own), numbers.loss(*own) * 4)


def test_readable_and_combined_by_task():
    outputs, _ = made()
    task = task_of()
    told = task.probabilities(outputs)
    torch.testing.assert_close(told["digit"], outputs["digit"].softmax(-1))
    torch.testing.assert_close(told["age"], outputs["age"] * 2 + 10)
    combined = combine_clips(task, outputs, 2)
    expected = task.parts["age"].combine(outputs["age"].unflatten(0, (2, 2)))
    torch.testing.assert_close(combined["age"], expected)
    assert combined["digit"].shape == (2, 3)
    assert combine_clips(task, outputs, 1) is outputs


def test_weights_that_have_no_meaning_are_refused():
    with pytest.raises(ValueError, match=r"weights names 'agee', which is none of the tasks age\."):
        MultiTaskConfig(parts={"age": AGE}, weights={"agee": 1.0})
    with pytest.raises(ValueError, match=r"must be at least 0, got -1.0 for 'age'"):
        MultiTaskConfig(weights={"age": -1.0})


def test_balanced_weights_are_those_of_the_task():
    config = MultiTaskConfig(
        parts={
            "digit": ClassificationConfig(label_names=("a", "b"), class_weights="balanced"),
            "age": AGE,
        }
    )
    task = build_task(config, {"digit": [1, 3]})
    assert isinstance(task, MultiTask)
    assert task.parts["digit"].class_weights.tolist() == pytest.approx([2.0, 2 / 3])


def test_what_a_recipe_says_of_a_task_stays_where_it_fits():
    smooth = ClassificationConfig(label_smoothing=0.1)
    assert config_for_target(smooth, "class") is smooth
    assert config_for_target(smooth, "labels") == MultiLabelConfig(label_smoothing=0.1)
    assert config_for_target(TAGS, "labels") is TAGS
    assert config_for_target(smooth, "number") == RegressionConfig()
    assert config_for_target(AGE, "number") is AGE
    assert config_for_target(AGE, "class") == ClassificationConfig()
    config = MultiTaskConfig(parts={"digit": DIGIT, "age": AGE})
    assert (
        fit_to_target(
            config,
            TargetInfo(
                kind="several",
                names=(
                    "digit",
                    "age",
                ),
            ),
        )
        is config
    )
    assert config.output_names == ("digit", "age")
    assert config.known_names == {"digit": ("zero", "one", "two"), "age": ("age",)}
    assert DIGIT.known_names == ("zero", "one", "two")


def test_measures_behind_the_name_of_a_task_read_as_they_do_alone():
    assert is_share("digit/accuracy")
    assert not is_share("age/rmse")
    assert metric_text("digit/accuracy", 0.5) == "50.0 %"
    assert metric_text("digit/samples", 3.0) == "3"
    assert metric_text("digit/loss", 0.25) == "0.2500"
