"""Features of images, video, audio and points: pooled values, gradients, histograms and statistics."""

from typing import Any

import numpy as np

from perceivers.baselines.views import (
    Array,
    Features,
    Values,
    pooled,
    present,
    register_features,
    sample_by_sample,
    summary_of,
)

_ANGLES = 9
_SEGMENTS = 8
_PAIRS = 4096  # of points whose distances are counted
_EXTENT = 1.0  # half of the side of the cube of normalized points


def grid_means(values: Values, cells: int) -> Values:
    """Return B x C x Y x X pooled to at most `cells` x `cells` means: B x C x y x x."""
    for axis in (2, 3):
        if values.shape[axis] > cells:
            moved = np.moveaxis(values, axis, 0)
            values = np.moveaxis(pooled(moved, cells), 0, axis)
    return values


def gradient_histograms(gray: Values, cells: int) -> Values:
    """Return histograms of the directions of the gradient in `cells` x `cells` cells, B x D, normalized by blocks.

    Reference: Dalal and Triggs (2005), "Histograms of oriented gradients for human detection".
    """
    y, x = np.gradient(gray, axis=(1, 2)) if min(gray.shape[1:]) > 1 else (gray * 0, gray * 0)
    size = np.hypot(y, x)
    angle = (np.arctan2(y, x) / np.pi % 1) * _ANGLES
    low = np.floor(angle).astype(int) % _ANGLES
    share = angle - np.floor(angle)
    maps = np.zeros((len(gray), _ANGLES, *gray.shape[1:]), np.float32)
    np.put_along_axis(maps, low[:, None], (size * (1 - share))[:, None], axis=1)
    second = np.zeros_like(maps)
    np.put_along_axis(second, ((low + 1) % _ANGLES)[:, None], (size * share)[:, None], axis=1)
    found = grid_means(maps + second, cells)
    if min(found.shape[2:]) > 1:  # blocks of 2 x 2 cells
        corners = [
            found[:, :, i : i - 1 or None, j : j - 1 or None] for i in (0, 1) for j in (0, 1)
        ]
        found = np.concatenate(corners, axis=1)
    norm = np.sqrt(np.square(found).sum(axis=1, keepdims=True)) + 1e-2
    return (found / norm).reshape(len(gray), -1)


def _image(values: Array, mask: Array | None, _: Any) -> list[Values | None]:
    """Return pooled pixels and histograms of gradients of each image, B x C x Y x X."""
    values = values.astype(np.float32)
    gray = values.mean(axis=1)
    sides = grid_means(gray[:, None], 32)[:, 0]
    pixels = grid_means(values, 8 if values.shape[1] > 1 else 16)
    parts = [pixels.reshape(len(values), -1), gradient_histograms(sides, 8)]
    parts += [values.mean(axis=(2, 3)), values.std(axis=(2, 3))]
    found = np.concatenate(parts, axis=1)
    there = present(values, mask)
    return [one if real else None for one, real in zip(found, there, strict=True)]


def _video(frames: Values) -> Values:
    """Return statistics over time of pooled pixels, gradients and differences of frames, T x C x Y x X."""
    gray = grid_means(frames.mean(axis=1, keepdims=True), 32)
    pixels = grid_means(frames, 6).reshape(len(frames), -1)
    shapes = gradient_histograms(gray[:, 0], 4)
    steps = np.abs(np.diff(grid_means(gray, 8), axis=0, prepend=grid_means(gray[:1], 8)))
    steps = steps.reshape(len(frames), -1)
    parts = [
        one for each in (pixels, shapes, steps) for one in (each.mean(axis=0), each.std(axis=0))
    ]
    return np.concatenate([*parts, steps.max(axis=0), np.log([len(frames)])]).astype(np.float32)


def _audio(values: Values) -> Values:
    """Return statistics over time of each band, of its changes, and the bands in parts of the time, L x F."""
    if values.shape[1] <= 2:  # samples of a waveform: their spectrum in short windows
        values = _spectrum(values.mean(axis=1))
    steps = np.diff(values, axis=0, prepend=values[:1])
    quantiles = np.quantile(values, [0.1, 0.5, 0.9], axis=0).ravel()
    parts = [values.mean(axis=0), values.std(axis=0), quantiles]
    parts += [np.abs(steps).mean(axis=0), steps.std(axis=0)]
    bands = pooled(values.T, min(32, values.shape[1])).T
    parts += [pooled(bands, _SEGMENTS).ravel(), pooled(np.abs(steps), _SEGMENTS).mean(axis=1)]
    return np.concatenate([*parts, np.log([len(values)])]).astype(np.float32)


def _spectrum(samples: Values) -> Values:
    """Return the logarithm of the spectrum of a waveform in 64 bands, at most 512 windows."""
    step = max(len(samples) // 512, 256)
    count = max(len(samples) // step, 1)
    windows = np.pad(samples, (0, max(count * step - len(samples), 0)))[: count * step]
    power = np.abs(np.fft.rfft(windows.reshape(count, step) * np.hanning(step), axis=1)) ** 2
    return np.log(pooled(power.T, 64).T + 1e-6)


def _points(points: Values) -> Values:
    """Return moments, histograms, distances of pairs and occupied cells of points, n x (3 + E)."""
    xyz = points[:, :3]
    radius = np.linalg.norm(xyz, axis=1)
    covariance = np.cov(xyz.T) if len(xyz) > 1 else np.zeros((3, 3))
    rng = np.random.default_rng(0)
    first, second = rng.integers(len(xyz), size=(2, _PAIRS))
    distances = np.linalg.norm(xyz[first] - xyz[second], axis=1)
    size = max(float(radius.max()), 1e-6)

    def histogram(values: Array, low: float, high: float, bins: int) -> Array:
        return np.histogram(values, bins, (low, high))[0] / len(values)

    cells = np.histogramdd(xyz / size, 8, [(-_EXTENT, _EXTENT)] * 3)[0].ravel() / len(xyz)
    parts = [summary_of(points), np.sqrt(np.linalg.eigvalsh(covariance).clip(0)), [size]]
    parts += [covariance[np.triu_indices(3)], histogram(radius, 0, size, 16)]
    parts += [histogram(distances, 0, 2 * size, 32), np.sqrt(cells)]
    parts += [histogram(xyz[:, axis], -size, size, 16) for axis in range(3)]
    parts += [histogram(np.abs(xyz[:, axis]), 0, size, 16) for axis in range(3)]
    return np.concatenate(parts).astype(np.float32)


register_features("image", Features(collect=_image, name="pixels and gradients"))
register_features("video", Features(collect=sample_by_sample(_video), name="statistics of frames"))
register_features(
    "audio", Features(collect=sample_by_sample(_audio), name="statistics of the spectrum")
)
register_features(
    "points", Features(collect=sample_by_sample(_points), name="histograms of points")
)
