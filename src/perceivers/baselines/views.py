"""Views of samples that simple baselines learn from, and the registry of features of each modality."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Values = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class View:
    """Features of the training and of the scored samples.

    Attributes:
        kind: `statistics`: a moderate number of unlike numbers, for linear models and trees. `kernels`: thousands of
            alike numbers, for ridge regression. `words`: sparse weights of tokens, for linear models.
        name: Name in sentences: `statistics of mel bands`.
        train: N x D; a SciPy matrix if `words`. A missing value is NaN.
        test: The same of the scored samples.
    """

    kind: Literal["statistics", "kernels", "words"]
    name: str
    train: Any
    test: Any


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of a modality, for `register_features`.

    Attributes:
        collect: Returns the kept value of each sample of a batch, an array of numbers or a text, from its values (B x
            ...), its mask (B x L, True if an element is real; None: all are) and the `PreprocessConfig`.
            `sample_by_sample` makes it of a function of one sample.
        name: Name of the numbers that `collect` returns, in sentences.
        views: Makes the features from the kept values of the training and of the scored samples, within some seconds.
            None: the kept values are numbers of one length.
    """

    collect: Callable[[Array, Array | None, Any], Sequence[Any]]
    name: str = "statistics"
    views: Callable[[list[Any], list[Any], float], list[View]] | None = None


_FEATURES: dict[str, Features] = {}


def register_features(modality: str, features: Features) -> None:
    """Register the features by which simple baselines describe a modality. Without, general statistics are used."""
    _FEATURES[modality] = features


def features_of(modality: str) -> Features:
    """Return the features of a modality."""
    return _FEATURES.get(modality, GENERAL)


def sample_by_sample(
    describe: Callable[[Values], Values],
) -> Callable[[Array, Array | None, Any], list[Values | None]]:
    """Return a function of a batch that describes the real elements of each sample; None if it has none."""

    def collect(values: Array, mask: Array | None, _: Any) -> list[Values | None]:
        if mask is None or mask.shape[1] != values.shape[1]:  # complete, or missing as a whole
            there = present(values, mask)
            pairs = zip(values, there, strict=True)
            return [describe(one) if real else None for one, real in pairs]
        return [
            describe(one[real]) if real.any() else None
            for one, real in zip(values, mask, strict=True)
        ]

    return collect


def present(values: Array, mask: Array | None) -> list[bool]:
    """Return for each sample of a batch whether any of its elements is real."""
    if mask is None:
        return [True] * len(values)
    return [bool(one.any()) for one in mask]


def statistics_view(features: Features, train: list[Any], test: list[Any]) -> list[View]:
    """Return kept numbers as a view; those of missing samples are NaN."""
    width = next((len(one) for one in train if one is not None), 0)
    if not width:
        return []

    def stacked(rows: list[Any]) -> Values:
        nothing = np.full(width, np.nan, np.float32)
        array = np.stack([nothing if one is None else one for one in rows]).astype(np.float32)
        array[~np.isfinite(array)] = np.nan
        return array

    return [View(kind="statistics", name=features.name, train=stacked(train), test=stacked(test))]


def summary_of(
    values: Values, quantiles: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95)
) -> Values:
    """Return mean, deviation, extremes and quantiles of each channel: L x C becomes one vector."""
    parts = [values.mean(axis=0), values.std(axis=0), values.min(axis=0), values.max(axis=0)]
    return np.concatenate([*parts, *np.quantile(values, quantiles, axis=0)]).astype(np.float32)


def pooled(values: Values, cells: int) -> Values:
    """Return the means of `cells` parts of the first axis, each of at least one element."""
    length = len(values)
    starts = np.linspace(0, length, cells, endpoint=False).astype(int)
    ends = np.maximum(np.linspace(0, length, cells + 1)[1:].astype(int), starts + 1)
    sums = np.concatenate(
        [np.zeros((1, *values.shape[1:])), values.cumsum(axis=0, dtype=np.float64)]
    )
    counts = (ends - starts).reshape(-1, *[1] * (values.ndim - 1))
    return ((sums[ends] - sums[starts]) / counts).astype(np.float32)


def _general(values: Values) -> Values:
    """Return statistics of any array, and its means over at most 32 parts and 32 channels."""
    flat = values.reshape(len(values), -1).astype(np.float32)
    if flat.shape[1] > 32:
        flat = pooled(flat.T, 32).T
    return np.concatenate([summary_of(flat), pooled(flat, min(32, 1024 // flat.shape[1])).ravel()])


GENERAL = Features(collect=sample_by_sample(_general), name="statistics of the arrays")
