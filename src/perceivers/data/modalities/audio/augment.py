"""Augmentation of audio: loudness, noise, speed, and masks over time and frequency (SpecAugment)."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from perceivers.registry import configclass

Values = npt.NDArray[np.float32]


@configclass
class AudioAugmentConfig:
    """Augmentation of audio in training, besides where the clip lies.

    Masks put the mean, zero after normalization, over a stretch of time or of bands. How wide each is, and where it
    lies, is drawn evenly.

    Attributes:
        time_masks: Masks over time, of a spectrogram or a waveform.
        time_share: Widest mask as a share of the clip.
        frequency_masks: Masks over bands. A waveform has none.
        frequency_share: Widest mask as a share of the bands.
        gain: Decibels by which a clip becomes louder or quieter at most.
        noise: Largest deviation of white noise that is added, as a share of the clip's own.
        polarity: Whether half of the clips are turned upside down, which nobody hears. A spectrogram does not change.
        roll: Whether half of the clips that hold a whole file are rotated in time, the end before the beginning. Files
            that are longer than a clip are cut at random instead.
        speed: Share by which a clip becomes faster or slower at most, and its pitch higher or lower with it.
        mixup: Alpha of mixup's beta distribution. 0: off.

    Raises:
        ValueError: If a setting is out of range.

    Reference: SpecAugment (arXiv:1904.08779), without its time warping.
    """

    kind: Literal["audio"] = "audio"
    time_masks: int = 2
    time_share: float = 0.2
    frequency_masks: int = 2
    frequency_share: float = 0.2
    gain: float = 6.0
    noise: float = 0.0
    polarity: bool = True
    roll: bool = False
    speed: float = 0.0
    mixup: float = 0.0

    def __post_init__(self) -> None:
        for name in ("time_masks", "frequency_masks", "gain", "noise", "mixup"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"Expected {name} of 0 or more, got {getattr(self, name)}.")
        for name in ("time_share", "frequency_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"Expected {name} between 0 and 1, got {getattr(self, name)}.")
        if not 0 <= self.speed < 1:
            raise ValueError(
                f"Expected speed to be a share of at least 0 and below 1, got {self.speed}."
            )


def augment_samples(
    samples: Values, augment: AudioAugmentConfig, rng: np.random.Generator
) -> Values:
    """Return a clip, n x channels, with another loudness, polarity and some noise.

    Args:
        samples: n x channels. Not changed.
        augment: Augmentation.
        rng: Where it is drawn from.
    """
    factor = 10 ** (rng.uniform(-augment.gain, augment.gain) / 20)
    if augment.polarity and rng.random() < 0.5:
        factor = -factor
    changed = samples * np.float32(factor)
    if augment.noise:
        deviation = rng.uniform(0, augment.noise) * float(changed.std())
        changed += rng.standard_normal(changed.shape, dtype=np.float32) * np.float32(deviation)
    return changed


def mask_axis(
    values: npt.NDArray[Any], axis: int, *, masks: int, share: float, rng: np.random.Generator
) -> None:
    """Set stretches of one axis of an array to zero, in place.

    Args:
        values: Normalized, so that zero is the mean.
        axis: Along which.
        masks: Number of masks; they may overlap.
        share: Longest stretch as a share of the axis.
        rng: Where lengths and places are drawn from.
    """
    size = values.shape[axis]
    along = np.moveaxis(values, axis, 0)  # a view
    for _ in range(masks):
        width = int(rng.integers(0, int(size * share) + 1))
        begin = int(rng.integers(0, size - width + 1))
        along[begin : begin + width] = 0
