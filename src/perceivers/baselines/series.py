"""Features of series: random convolution kernels, and statistics of each channel."""

import numpy as np
import torch

from perceivers.baselines.kernels import kernel_features
from perceivers.baselines.views import (
    Features,
    Values,
    View,
    register_features,
    sample_by_sample,
    statistics_view,
    summary_of,
)

_BANDS = 8
_MOST_PAIRS = 66  # of channels that are correlated: all of 12
_LONGEST = 4096  # steps of a resampled series


def series_views(
    train: list[Values | None], test: list[Values | None], seconds: float
) -> list[View]:
    """Return random convolution kernels of the series, brought to one length, and statistics of their channels."""
    lengths = [len(one) for one in train if one is not None]
    if not lengths:
        return []
    length = min(max(int(np.median(lengths)), 9), _LONGEST)
    width = next(one.shape[1] for one in train if one is not None)

    def resized(rows: list[Values | None]) -> torch.Tensor:
        places = np.linspace(0, 1, length)
        stacked = np.zeros((len(rows), width, length), np.float32)
        for target, one in zip(stacked, rows, strict=True):
            if one is not None and len(one) == length:
                target[:] = one.T
            elif one is not None:
                known = np.linspace(0, 1, len(one))
                target[:] = [np.interp(places, known, channel) for channel in one.T]
        return torch.from_numpy(stacked)

    shares = kernel_features(resized(train), resized(test), seconds=seconds)
    described = [
        [None if one is None else series_statistics(one) for one in rows] for rows in (train, test)
    ]
    statistics = Features(
        collect=sample_by_sample(series_statistics), name="statistics of channels"
    )
    return [
        View(kind="kernels", name="random convolution kernels", train=shares[0], test=shares[1]),
        *statistics_view(statistics, *described),
    ]


def series_statistics(values: Values) -> Values:
    """Return statistics of each channel, of its differences and its spectrum, and correlations of channels."""
    steps = np.diff(values, axis=0, prepend=values[:1])
    centered = values - values.mean(axis=0)
    crossings = (np.diff(np.signbit(centered), axis=0, prepend=False) != 0).mean(axis=0)
    power = np.abs(np.fft.rfft(centered, n=max(len(values), 2 * _BANDS + 2), axis=0)[1:]) ** 2
    edges = np.unique(np.geomspace(1, len(power), _BANDS + 1).astype(int)) - 1
    bands = np.log1p(np.add.reduceat(power, edges[:-1], axis=0))
    bands = np.concatenate([bands, np.zeros((_BANDS - len(bands), values.shape[1]))])
    peak = power.argmax(axis=0) / len(power)
    scale = centered / (centered.std(axis=0) + 1e-6)
    pairs = np.triu_indices(values.shape[1], 1)
    related = (scale.T @ scale / len(values))[pairs][:_MOST_PAIRS]
    parts = [summary_of(values), np.abs(steps).mean(axis=0), steps.std(axis=0)]
    parts += [crossings, bands.ravel(), peak, related, np.log([len(values)])]
    return np.concatenate(parts).astype(np.float32)


register_features("series", Features(collect=sample_by_sample(lambda one: one), views=series_views))
