"""Resampling and augmentation of series: turning, warping, scaling and masking."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from perceivers.registry import configclass

MOST_STEPS = 20_000_000
"""Rows that a series may have at the model's rate: one wrong time stamp would otherwise fill the memory."""

KNOTS = 6  # places of a window at which time runs at a speed of its own

Values = npt.NDArray[np.float32]
Times = npt.NDArray[np.float64]


@configclass
class SeriesAugmentConfig:
    """Augmentation of a series in training. In units of a channel's deviation, after normalization.

    Attributes:
        scale: Standard deviation of a factor, drawn around 1 for each channel.
        jitter: Standard deviation of noise that is added to every value.
        shift: Draw where the window lies here. Off where windows of several modalities must be the same, whose
            moment is drawn for all of them.
        rotate: Turn each three channels that follow each other (x, y, z) in space, all by the same turn: the
            sensor may be worn in another way.
        rotate_degrees: Largest turn.
        drop_channels: Probability that a channel is hidden; one always stays.
        time_mask: Largest share of the window that is hidden in one piece.
        warp: Standard deviation of the speed (its logarithm) at which time runs, smoothly changing.
        mixup: Alpha of mixup's beta distribution. 0: off.

    Raises:
        ValueError: If a number is out of range.
    """

    kind: Literal["series"] = "series"
    scale: float = 0.1
    jitter: float = 0.05
    shift: bool = False
    rotate: bool = False
    rotate_degrees: float = 180.0
    drop_channels: float = 0.0
    time_mask: float = 0.0
    warp: float = 0.0
    mixup: float = 0.0

    def __post_init__(self) -> None:
        for name in ("scale", "jitter", "rotate_degrees", "warp", "mixup"):
            if getattr(self, name) < 0:
                raise ValueError(f"Expected {name} of zero or more, got {getattr(self, name)}.")
        for name in ("drop_channels", "time_mask"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"Expected {name} in [0, 1), got {getattr(self, name)}.")


def resampled(name: str, values: Values, times: Times, rate: float) -> Values:
    """Return values at even moments, from the first row on: L x C, NaN in gaps.

    Rows that come at twice the rate or faster are averaged over each step, so that nothing is aliased. Others are
    interpolated linearly between neighbors, but not over a gap of more than one and a half steps.

    Args:
        name: Name of the series, for messages.
        values: One row for each time, NaN where a value is missing.
        times: Seconds from zero on, rising.
        rate: Steps in a second.

    Raises:
        ValueError: If the result would have more than 20 million steps.
    """
    if times[-1] * rate >= MOST_STEPS:
        raise ValueError(
            f"'{name}' would have {times[-1] * rate:,.0f} steps at {rate:g} in a second; at most {MOST_STEPS:,} are "
            f"made. Its time stamps span {times[-1]:,.0f} seconds: look for a wrong one, or cut the series."
        )
    count = int(np.floor(times[-1] * rate + 1e-6)) + 1
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1 / rate
    sampled = np.full((count, values.shape[1]), np.nan, dtype=np.float32)
    moments = np.arange(count) / rate
    place = np.floor(times * rate + 1e-6).astype(np.intp)
    for channel in range(values.shape[1]):
        there = ~np.isnan(values[:, channel])
        if not there.any():
            continue
        known, at = values[there, channel].astype(np.float64), times[there]
        if step * rate <= 0.5:
            counts = np.bincount(place[there], minlength=count)
            sums = np.bincount(place[there], weights=known, minlength=count)
            np.divide(sums, counts, out=sampled[:, channel], where=counts > 0, casting="same_kind")
            continue
        tolerance = 1e-6 / rate  # a moment that is a time stamp but for rounding
        before = np.searchsorted(at, moments + tolerance, side="right") - 1
        after = np.searchsorted(at, moments - tolerance, side="left")
        inside = (before >= 0) & (after < len(at))
        gap = at[np.minimum(after, len(at) - 1)] - at[np.maximum(before, 0)]
        near = inside & (gap <= 1.5 * max(step, 1 / rate))
        sampled[near, channel] = np.interp(moments[near], at, known)
    return sampled


def turned(
    values: Values, times: Times | None, augment: SeriesAugmentConfig, rng: np.random.Generator
) -> tuple[Values, Times | None]:
    """Return a window turned in space and warped in time, in the sensors' own units.

    Args:
        values: L x C.
        times: Times of the rows, in [-1, 1]. They are warped in place of the rows.
        augment: Augmentation.
        rng: Random numbers.
    """
    if augment.rotate:
        turn = _rotation(augment.rotate_degrees, rng)
        values = (values.reshape(values.shape[0], -1, 3) @ turn).reshape(values.shape)
    if augment.warp and values.shape[0] > 1:
        if times is None:
            values = _interpolated(values, _warp(values.shape[0], augment.warp, rng))
        else:
            count = 64 * KNOTS
            warped = _warp(count, augment.warp, rng) * (2 / (count - 1)) - 1
            times = np.interp(times, np.linspace(-1, 1, count), warped)
    return values, times


def augmented(
    values: Values, augment: SeriesAugmentConfig, rng: np.random.Generator, *, flagged: bool
) -> Values:
    """Return a window scaled, with noise, and parts of it hidden.

    Args:
        values: L x C, normalized, NaN where a value is missing.
        augment: Augmentation.
        rng: Random numbers.
        flagged: Whether flags mark missing values. Otherwise a hidden channel is its mean, zero.
    """
    length, channels = values.shape
    if augment.scale:
        factors = 1 + augment.scale * rng.standard_normal(channels, dtype=np.float32)
        values = (values * factors).astype(np.float32)
    if augment.jitter:
        noise = augment.jitter * rng.standard_normal(values.shape, dtype=np.float32)
        values = (values + noise).astype(np.float32)
    values = values.copy()
    if augment.drop_channels:
        hidden = rng.random(channels) < augment.drop_channels
        if hidden.all():
            hidden[rng.integers(channels)] = False
        values[:, hidden] = np.nan if flagged else 0.0
    if augment.time_mask:
        width = int(rng.random() * augment.time_mask * length)
        first = int(rng.integers(length - width + 1))
        values[first : first + width] = np.nan
    return values


def _rotation(degrees: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return a turn around a random axis, 3 x 3 (Rodrigues' formula)."""
    axis = rng.standard_normal(3)
    x, y, z = axis / np.linalg.norm(axis)
    angle = np.deg2rad(degrees) * rng.uniform(-1, 1)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)
    return turn.astype(np.float32)


def _warp(count: int, deviation: float, rng: np.random.Generator) -> Times:
    """Return for each of `count` steps from where it is read: rising, from 0 to count - 1."""
    speeds = np.exp(deviation * rng.standard_normal(KNOTS))
    speed = np.interp(np.linspace(0, KNOTS - 1, count - 1), np.arange(KNOTS), speeds)
    place = np.concatenate([[0.0], np.cumsum(speed)])
    return place * ((count - 1) / place[-1])


def _interpolated(values: Values, places: Times) -> Values:
    """Return rows between rows; where a neighbor is missing, so is what lies beside it."""
    below = np.minimum(places.astype(np.intp), values.shape[0] - 2)
    share = (places - below).astype(np.float32)[:, None]
    return (values[below] * (1 - share) + values[below + 1] * share).astype(np.float32)
