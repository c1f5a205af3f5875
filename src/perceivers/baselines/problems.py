"""Kinds of targets that simple baselines learn: one class, several labels, numbers."""

import warnings
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch

from perceivers.baselines.views import Array
from perceivers.tasks.base import Task
from perceivers.typing import Tensor

_LEAST = 1e-7  # probability that stands for none
# Among these ridge regression chooses by leaving one row out.
_STRENGTHS = np.logspace(-3, 4, 8)


class Problem(ABC):
    """Targets of one task: the estimators that learn them, and their predictions as outputs of the task.

    Args:
        task: The task, whose metric is measured.
    """

    names: ClassVar[dict[str, str]] = {
        "linear": "logistic regression",
        "ridge": "ridge regression",
        "vectors": "support-vector machine",
        "boosting": "boosted trees",
        "trees": "random trees",
    }

    def __init__(self, task: Task) -> None:
        self.task = task
        self.num_outputs = task.num_outputs

    def describe(self, name: str) -> str:
        """Return the name of an estimator in sentences."""
        return self.names[name.partition(":")[0]]

    def targets(self, targets: Tensor) -> Array:
        """Return the targets as estimators learn them."""
        return targets.numpy()

    @abstractmethod
    def estimator(self, kind: str, strength: float) -> Any:
        """Return a new estimator of scikit-learn.

        Args:
            kind: `linear`, `ridge` (which chooses its strength), `vectors`, `boosting` or `trees`.
            strength: Inverse of the regularization of `linear`.
        """

    @abstractmethod
    def outputs(self, estimator: Any, features: Any) -> Array:
        """Return the predictions of a fitted estimator as outputs of the task, N x K."""

    def fit_predict(self, name: str, train: Any, targets: Array, test: Any) -> Array:
        """Return the outputs for `test` of an estimator (`linear:10`, `trees`) that is fitted to `train`."""
        kind, _, strength = name.partition(":")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on convergence, rare classes, constant features
            estimator = self.estimator(kind, float(strength or 1))
            return self.outputs(estimator.fit(train, targets), test)

    def linear(self, train: Any, targets: Array, strength: float) -> tuple[Array, Array]:
        """Return weights, D x K, and biases of a linear model that is fitted to `train`, a SciPy matrix of N x D."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on convergence
            estimator = self.estimator("linear", strength).fit(train, targets)
        return self.coefficients(estimator, train.shape[1])

    def coefficients(self, estimator: Any, width: int) -> tuple[Array, Array]:
        """Return weights, D x K, and biases of a fitted linear estimator of `width` features."""
        weights = np.reshape(estimator.coef_, (self.num_outputs, width)).T
        return weights, np.reshape(estimator.intercept_, self.num_outputs)

    def loss(self, outputs: Array, targets: Tensor) -> float:
        """Return the mean loss of the task."""
        return float(self.task.loss(torch.from_numpy(outputs.astype(np.float32)), targets))

    def score(self, outputs: Array, targets: Tensor) -> float:
        """Return the main metric of the task."""
        meter = self.task.meter()
        meter.update(torch.from_numpy(outputs.astype(np.float32)), targets)
        return meter.compute()[self.task.main_metric]


class ClassProblem(Problem):
    """One class of several."""

    def estimator(self, kind: str, strength: float) -> Any:
        """Return a classifier."""
        from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
        from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
        from sklearn.svm import SVC

        if kind == "linear":
            return LogisticRegression(C=strength, max_iter=200)
        if kind == "ridge":
            return RidgeClassifierCV(alphas=_STRENGTHS)
        if kind == "vectors":
            return SVC(C=10.0)
        if kind == "boosting":
            return HistGradientBoostingClassifier(random_state=0)
        return ExtraTreesClassifier(300, n_jobs=1, random_state=0)

    def outputs(self, estimator: Any, features: Any) -> Array:
        """Return logits; those of classes that train lacks are the lowest."""
        if hasattr(estimator, "predict_proba"):
            found = np.log(np.maximum(estimator.predict_proba(features), _LEAST))
        else:
            found = estimator.decision_function(features)
            if found.ndim == 1:
                found = np.stack([-found, found], axis=1) / 2
        outputs = np.full((len(found), self.num_outputs), found.min() - 1.0)
        outputs[:, estimator.classes_.astype(int)] = found
        return outputs

    def coefficients(self, estimator: Any, width: int) -> tuple[Array, Array]:
        """Return weights and biases of mean 0 over the classes; those of classes that train lacks are the lowest."""
        found, intercepts = estimator.coef_, estimator.intercept_
        if len(found) == 1:
            found = np.concatenate([-found, found]) / 2
            intercepts = np.concatenate([-intercepts, intercepts]) / 2
        known = estimator.classes_.astype(int)
        weights, biases = np.zeros((width, self.num_outputs)), np.zeros(self.num_outputs)
        weights[:, known] = (found - found.mean(axis=0)).T
        biases += intercepts.min() - 1.0
        biases[known] = intercepts
        return weights, biases - biases.mean()

    def fit_predict(self, name: str, train: Any, targets: Array, test: Any) -> Array:
        """Return the outputs; of train with a single class, this one."""
        known = np.unique(targets)
        if len(known) > 1:
            return super().fit_predict(name, train, targets, test)
        outputs = np.zeros((test.shape[0], self.num_outputs))
        outputs[:, known] = 1.0
        return outputs


class LabelsProblem(Problem):
    """Several labels of a sample."""

    def targets(self, targets: Tensor) -> Array:
        """Return 0 or 1 for each label."""
        return (targets.numpy() > 0.5).astype(int)

    def estimator(self, kind: str, strength: float) -> Any:
        """Return a classifier of each label."""
        from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
        from sklearn.linear_model import LogisticRegression, RidgeCV
        from sklearn.multiclass import OneVsRestClassifier

        if kind == "linear":
            return OneVsRestClassifier(LogisticRegression(C=strength, max_iter=200))
        if kind in {"ridge", "vectors"}:
            return RidgeCV(alphas=_STRENGTHS)
        if kind == "boosting":
            return OneVsRestClassifier(HistGradientBoostingClassifier(random_state=0))
        return ExtraTreesClassifier(300, n_jobs=1, random_state=0)

    def outputs(self, estimator: Any, features: Any) -> Array:
        """Return logits of the probabilities; of ridge regression, its distance from a half."""
        shape = features.shape[0], self.num_outputs
        if not hasattr(estimator, "predict_proba"):
            return estimator.predict(features).reshape(shape) - 0.5
        found = estimator.predict_proba(features)
        if isinstance(
            found, list
        ):  # of trees: the shares of what each label is in train, 0, 1 or both
            known = estimator.classes_
            pairs = zip(found, known, strict=True)
            found = [share @ np.asarray(values, float) for share, values in pairs]
            found = np.stack(found, axis=1)
        found = found[:, -1:] if self.num_outputs == 1 else found
        return np.log(np.maximum(found, _LEAST) / np.maximum(1 - found, _LEAST)).reshape(shape)

    def coefficients(self, estimator: Any, width: int) -> tuple[Array, Array]:
        """Return weights and biases; a label that all rows of train have, or none, has a bias alone."""
        weights, biases = np.zeros((width, self.num_outputs)), np.zeros(self.num_outputs)
        for place, one in enumerate(estimator.estimators_):
            if hasattr(one, "coef_"):
                weights[:, place], biases[place] = one.coef_[0], one.intercept_[0]
            else:
                biases[place] = 3.0 if one.predict(np.zeros((1, width)))[0] else -3.0
        return weights, biases


class NumberProblem(Problem):
    """One number or several, as distances from the mean of train in standard deviations."""

    names: ClassVar[dict[str, str]] = {**Problem.names, "linear": "ridge regression"}

    def targets(self, targets: Tensor) -> Array:
        """Return standardized numbers; a single one without an axis."""
        task: Any = self.task
        found = task.standardized(targets).numpy()
        return found[:, 0] if self.num_outputs == 1 else found

    def estimator(self, kind: str, strength: float) -> Any:
        """Return a regressor."""
        from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor
        from sklearn.linear_model import Ridge, RidgeCV
        from sklearn.multioutput import MultiOutputRegressor
        from sklearn.svm import SVR

        if kind == "linear":
            return Ridge(alpha=10.0 / strength)
        if kind == "ridge":
            return RidgeCV(alphas=_STRENGTHS)
        if kind == "trees":
            return ExtraTreesRegressor(300, min_samples_leaf=2, n_jobs=1, random_state=0)
        model = SVR(C=3.0) if kind == "vectors" else HistGradientBoostingRegressor(random_state=0)
        return model if self.num_outputs == 1 else MultiOutputRegressor(model)

    def outputs(self, estimator: Any, features: Any) -> Array:
        """Return standardized numbers."""
        return estimator.predict(features).reshape(features.shape[0], self.num_outputs)


PROBLEMS: dict[str | None, type[Problem]] = {
    "class": ClassProblem,
    "labels": LabelsProblem,
    "number": NumberProblem,
}
"""Problem by the kind of label column for which a task is the default one."""
