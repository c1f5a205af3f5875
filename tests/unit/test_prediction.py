import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from perceivers.tasks.base import PredictionRequest, TaskBatch
from perceivers.tasks.classification import ClassificationConfig
from perceivers.tasks.multilabel import MultiLabelConfig
from perceivers.tasks.prediction import NonFiniteOutputError, Prediction, finite_rows
from perceivers.tasks.registry import build_task
from perceivers.tasks.regression import RegressionConfig

NAMES = ("ant", "bee", "cat")


def predicted(config, outputs, **options):
    names = [f"{number}.png" for number in range(outputs.shape[0])]
    batch = TaskBatch(inputs={}, masks={}, targets=None)
    request = PredictionRequest(names=names, batch=batch, **options)
    return list(build_task(config).predictions(outputs, request))


def test_one_class():
    outputs = torch.tensor([[0.0, math.log(2), 0.0]])
    (one,) = predicted(ClassificationConfig(label_names=NAMES), outputs, top=2)
    assert (one.name, one.label, one.labels, one.values) == ("0.png", "bee", None, {})
    assert one.probability == pytest.approx(0.5)
    assert [label for label, _ in one.top] == ["bee", "ant"]
    assert one.probabilities == pytest.approx({"ant": 0.25, "bee": 0.5, "cat": 0.25})


def test_at_least_the_best_label_is_listed():
    config = ClassificationConfig(label_names=NAMES)
    assert len(predicted(config, torch.zeros(1, 3), top=0)[0].top) == 1
    assert len(predicted(config, torch.zeros(1, 3), top=9)[0].top) == 3


def test_several_labels():
    config = MultiLabelConfig(label_names=NAMES, threshold=0.3)
    first, second = predicted(config, torch.tensor([[0.0, 2.0, -3.0], [-3.0, -2.0, -3.0]]))
    assert (first.label, first.labels) == ("bee", ("bee", "ant"))
    assert first.probabilities["ant"] == 0.5
    assert (second.label, second.labels) == ("bee", ())


def test_numbers():
    config = RegressionConfig(target_names=("age", "height"), mean=(40.0, 1.5), std=(10.0, 0.5))
    (one,) = predicted(config, torch.tensor([[1.0, -1.0]]))
    assert one == Prediction(name="0.png", values={"age": 50.0, "height": 1.0})
    assert (one.label, one.top, one.labels) == ("", (), None)


def test_rows_with_a_number_that_is_not_finite():
    outputs = {"a": torch.zeros(3, 2), "b": torch.zeros(3, 4, 5)}
    assert finite_rows(outputs, 3) == [True, True, True]
    outputs["a"][0, 1] = math.nan
    outputs["b"][2, 3, 4] = -math.inf
    assert finite_rows(outputs, 3) == [False, True, False]
    assert finite_rows(outputs["b"], 3) == [True, True, False]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_prediction_with_a_number_that_is_not_finite(value):
    fine = Prediction(name="a", label="x", probability=0.5, values={"image_psnr": math.inf})
    assert fine.is_finite
    bad = [
        replace(fine, probability=value),
        replace(fine, values={"age": value}),
        replace(fine, flow=np.full((1, 1, 2), value, np.float32)),
    ]
    bad += [replace(fine, tasks={"one": fine, "two": part}) for part in bad]
    assert not any(one.is_finite for one in bad)


def test_the_error_names_sample_and_cause():
    error = NonFiniteOutputError("far.npy")
    assert str(error).startswith("far.npy: the model has no finite output for this sample")
    assert "weights" in str(NonFiniteOutputError("far.npy", in_weights=True))
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
