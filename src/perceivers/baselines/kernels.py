"""Random convolution kernels of series: the share of the steps at which each convolution exceeds a bias.

Reference: MiniRocket (arXiv:2012.08791): kernels of 9 weights, -1 and three times 2, with biases from the data.
"""

import time
from itertools import combinations

import numpy as np
import torch

from perceivers.baselines.views import Values
from perceivers.typing import Float, Tensor

_TAPS = 9
_KERNELS = np.array([list(places) for places in combinations(range(_TAPS), 3)])
_DILATIONS = 12  # at most
_BIASES = 16  # of a kernel and a dilation, at most
# Of more series fewer features: ridge regression costs the cube of the smaller number.
_ROWS, _FEATURES = 2000, 1700
_COST = 1e9  # comparisons in a second
_CHUNK = 1 << 17  # numbers of a convolution at a time, which stay in the cache of a core


def kernel_features(
    train: Float[Tensor, "N C L"], test: Float[Tensor, "N2 C L"], *, seconds: float, seed: int = 0
) -> tuple[Values, Values]:
    """Return the features of two sets of series: shares of positive values, in [0, 1].

    Args:
        train: Series of one length, from which the biases are taken.
        test: Other series.
        seconds: Time in which they should be computed; it bounds the number of features.
        seed: Seed of channels and biases.
    """
    length = train.shape[-1]
    most = max((length - 1) // (_TAPS - 1), 1)
    steps = np.unique(np.logspace(0, np.log2(most), _DILATIONS, base=2).astype(int))
    each = (len(train) + len(test)) * length * len(_KERNELS) / _COST
    affordable = max(int(seconds / max(each, 1e-9)), 1)
    if len(train) > _ROWS:
        affordable = min(affordable, _FEATURES // len(_KERNELS))
    steps = steps[:: -(-len(steps) // affordable)]
    deadline = time.monotonic() + 2 * seconds
    biases = int(np.clip(affordable // len(steps), 1, _BIASES))
    rng = np.random.default_rng(seed)
    parts: list[tuple[Values, Values]] = []
    for dilation in steps:
        if parts and time.monotonic() > deadline:
            break
        weight = _weights(train.shape[1], rng)
        sample = train[torch.from_numpy(rng.permutation(len(train))[:64])]
        levels = _levels(_convolved(sample, weight, int(dilation)), biases, rng)
        parts.append(
            (
                _shares(train, weight, int(dilation), levels),
                _shares(test, weight, int(dilation), levels),
            )
        )
    first, second = zip(*parts, strict=True)
    return np.concatenate(first, axis=1), np.concatenate(second, axis=1)


def _weights(channels: int, rng: np.random.Generator) -> Float[Tensor, "84 C 9"]:
    """Return all kernels, each for a random subset of the channels, mostly of few."""
    base = np.full((len(_KERNELS), _TAPS), -1.0, np.float32)
    np.put_along_axis(base, _KERNELS, 2.0, axis=1)
    sizes = 2 ** rng.uniform(0, np.log2(min(channels, 9) + 1), len(_KERNELS))
    chosen = np.zeros((len(_KERNELS), channels), np.float32)
    for row, size in zip(chosen, sizes, strict=True):
        row[rng.choice(channels, min(int(size), channels), replace=False)] = 1.0
    return torch.from_numpy(chosen[:, :, None] * base[:, None, :])


def _convolved(
    series: Float[Tensor, "N C L"], weight: Float[Tensor, "84 C 9"], dilation: int
) -> Float[Tensor, "N 84 L"]:
    padding = dilation * (_TAPS // 2)
    return torch.nn.functional.conv1d(series, weight, dilation=dilation, padding=padding)


def _levels(
    convolved: Float[Tensor, "N 84 L"], biases: int, rng: np.random.Generator
) -> Float[Tensor, "84 Q"]:
    """Return quantiles of the convolutions, each of a random series."""
    golden = (np.arange(1, biases + 1) * (5**0.5 + 1) / 2) % 1  # evenly spread in any order
    values = convolved.numpy()
    found = np.empty((values.shape[1], biases), np.float32)
    for kernel in range(values.shape[1]):
        rows = rng.integers(len(values), size=biases)
        found[kernel] = [
            np.quantile(values[row, kernel], share) for row, share in zip(rows, golden, strict=True)
        ]
    return torch.from_numpy(found)


def _shares(
    series: Float[Tensor, "N C L"],
    weight: Float[Tensor, "84 C 9"],
    dilation: int,
    levels: Float[Tensor, "84 Q"],
) -> Values:
    """Return the share of the steps at which each convolution exceeds each of its levels: N x 84 Q."""
    length = series.shape[-1]
    rows = max(_CHUNK // (len(weight) * length), 1)
    found = np.empty((len(series), len(weight), levels.shape[1]), np.float32)
    for start in range(0, len(series), rows):
        convolved = _convolved(series[start : start + rows], weight, dilation)
        # Steps first: sums over the first axis are vectorized.
        steps = np.ascontiguousarray(convolved.permute(2, 0, 1).numpy())
        for level in range(levels.shape[1]):
            above = (steps > levels[:, level].numpy()).view(np.uint8)
            parts = [  # of at most 255 steps, which 8 bits can count
                np.add.reduce(above[first : first + 255], axis=0, dtype=np.uint8)
                for first in range(0, length, 255)
            ]
            found[start : start + rows, :, level] = np.sum(parts, axis=0, dtype=np.float32)
    return found.reshape(len(series), -1) / np.float32(length)
