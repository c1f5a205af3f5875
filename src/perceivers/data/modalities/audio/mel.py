"""Mel spectrograms by numpy: one frame for every hop, triangular bands, logarithm of the power."""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from perceivers.data.modalities.audio.measure import measure_clip, measure_values
from perceivers.data.modalities.base import SAMPLED_CELLS, BasePreprocessConfig, CellSampler
from perceivers.registry import configclass

MelScale = Literal["htk", "slaney"]
Values = npt.NDArray[np.float32]

FRAMES_AT_ONCE = 256  # a few hundred kB each, so that what lies between stays in the cache
LARGEST_FFT = 1 << 16


@configclass
class MelPreprocessConfig(BasePreprocessConfig):
    """Preprocessing of audio into a mel spectrogram without randomness. Saved with the model.

    The papers state neither window nor hop nor bands, only that 1.28 s give 4,800 values. With 48 kHz, a hop of
    1,024 samples (1024 / 48000 s) and 80 bands it is 60 frames of 80 values: that choice is ours.

    Attributes:
        sample_rate: Samples a second. None: taken from the data before the model is built.
        seconds: Length of a clip. None: taken from the data.
        num_mels: Number of bands.
        window: Seconds of a frame, rounded to samples; Hann's window.
        hop: Seconds from frame to frame, rounded to samples. Not above `window`.
        lowest_hz: Where the lowest band begins.
        highest_hz: Where the highest band ends. None: half the sample rate.
        mel_scale: `slaney` (linear below 1 kHz) or `htk`.
        log_offset: Added to a band's power before the logarithm. A full-scale tone has about 1, so 1e-8 is -80 dB.
        mean: Subtracted from the logarithms. None: taken from the data.
        std: They are divided by it after that. None: taken from the data.

    Raises:
        ValueError: If a setting does not make sense.
    """

    kind: Literal["mel"] = "mel"
    sample_rate: int | None = None
    seconds: float | None = None
    num_mels: int = 64
    window: float = 0.025
    hop: float = 0.010
    lowest_hz: float = 20.0
    highest_hz: float | None = None
    mel_scale: MelScale = "slaney"
    log_offset: float = 1e-8
    mean: float | None = None
    std: float | None = None

    def __post_init__(self) -> None:
        positive = {"num_mels": self.num_mels, "hop": self.hop, "log_offset": self.log_offset}
        optional = {"sample_rate": self.sample_rate, "seconds": self.seconds, "std": self.std}
        positive |= {name: value for name, value in optional.items() if value is not None}
        for name, value in positive.items():
            if not value > 0:
                raise ValueError(f"Expected {name} above 0 of a mel spectrogram, got {value}.")
        if self.hop > self.window:
            raise ValueError(
                f"Expected a hop not longer than the window, or audio between the frames would be lost; got "
                f"hop={self.hop} s and window={self.window} s."
            )
        half = None if self.sample_rate is None else self.sample_rate / 2
        highest = half if self.highest_hz is None else self.highest_hz
        bad = highest is not None and not 0 <= self.lowest_hz < highest
        if bad or (highest is not None and half is not None and highest > half):
            raise ValueError(
                f"Expected bands between 0 and half the sample rate ({half} Hz), got lowest_hz={self.lowest_hz} "
                f"and highest_hz={self.highest_hz}."
            )

    @property
    def num_frames(self) -> int:
        """Frames of a clip: one for every hop, the last may be partly beyond the end.

        Raises:
            ValueError: If `sample_rate` or `seconds` is still unknown.
        """
        rate, hop, _ = self.steps
        if self.seconds is None:
            raise ValueError(
                "Expected seconds of a clip, got None: they are taken from the data first."
            )
        return mel_frames(max(1, round(self.seconds * rate)), hop)

    @property
    def steps(self) -> tuple[int, int, int]:
        """Samples of a second, of a hop and of a window.

        Raises:
            ValueError: If `sample_rate` is still unknown.
        """
        if self.sample_rate is None:
            raise ValueError(
                "Expected sample_rate in Hz, got None: it is taken from the data first."
            )
        rate = self.sample_rate
        return rate, max(1, round(self.hop * rate)), max(2, round(self.window * rate))

    def measure(self, cells: CellSampler) -> Self:
        """Return the configuration with sample rate, clip length, mean and deviation taken from the training data.

        Raises:
            ValueError: If no cell can be read.
        """
        sample = list(cells(SAMPLED_CELLS))
        rate, seconds = measure_clip(sample, self.sample_rate, self.seconds)
        config = replace(self, sample_rate=rate, seconds=seconds)
        if config.mean is not None and config.std is not None:
            return config
        mean, std = measure_values(sample, config, 1, lambda clip: log_mel(clip[:, 0], config))
        return replace(
            config,
            mean=mean if config.mean is None else config.mean,
            std=std if config.std is None else config.std,
        )

    def assumed(self) -> dict[str, Any]:
        """Return sizes that are assumed without data."""
        return {"sample_rate": 16_000, "seconds": 2.0}

    def input_fields(self) -> dict[str, Any]:
        """Return the size of the spectrogram."""
        return {"size": (self.num_frames, self.num_mels)}


def mel_frames(num_samples: int, hop: int) -> int:
    """Return the number of frames: one for every `hop` samples, also for the last ones if they are fewer."""
    return -(-num_samples // hop)


def mel_edges(num_mels: int, lowest_hz: float, highest_hz: float, scale: MelScale) -> Values:
    """Return the edges of bands in Hz: band m rises from edge m to m + 1 and falls to m + 2.

    They are evenly spaced in mel. HTK's mel is 2595 log10(1 + f / 700). Slaney's is f / (200 / 3) up to 1 kHz and
    from there 27 for every factor of 6.4.

    Args:
        num_mels: Number of bands.
        lowest_hz: Where the lowest begins.
        highest_hz: Where the highest ends.
        scale: `htk` or `slaney`.
    """
    low, high = _mel_of(lowest_hz, scale), _mel_of(highest_hz, scale)
    mels = np.linspace(low, high, num_mels + 2)
    if scale == "htk":
        edges = 700 * (10 ** (mels / 2595) - 1)
    else:
        edges = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    return edges.astype(np.float32)


def _mel_of(hertz: float, scale: MelScale) -> float:
    if scale == "htk":
        return 2595 * math.log10(1 + hertz / 700)
    if hertz < 1000:
        return hertz * 3 / 200
    return 15 + 27 * math.log(hertz / 1000, 6.4)


def fft_size(window: int, sample_rate: int, edges: Values) -> int:
    """Return the length of the Fourier transform: a power of two that holds the window and resolves every band.

    A frame is filled up with zeros to it. Frequencies are then not farther apart than the narrowest two edges, so
    that no band is empty.

    Args:
        window: Samples of a frame.
        sample_rate: Samples a second.
        edges: Of `mel_edges`, in Hz.

    Raises:
        ValueError: If there are so many bands that it would be longer than 65,536.
    """
    narrowest = float(np.diff(edges).min())
    needed = max(window, sample_rate / max(narrowest, 1e-6))
    size = 1 << int(np.ceil(np.log2(needed)))
    if size > LARGEST_FFT and size > 2 * window:
        raise ValueError(
            f"Expected distinguishable bands, got {len(edges) - 2} between {edges[0]:g} and {edges[-1]:g} Hz: "
            f"the narrowest are {narrowest:.2g} Hz apart. Use fewer bands, num_mels."
        )
    return size


def log_mel(samples: Values, config: MelPreprocessConfig) -> Values:
    """Return the logarithm of each band's power, not normalized: frames x bands.

    Frame t lies around the middle of the samples from t hop to (t + 1) hop; beyond the ends there is silence. A
    window's spectrum is divided by half the window's sum, so that a full-scale tone has power 1 at its frequency; a
    band is the sum of the powers at the frequencies inside, weighted by a triangle with a peak of 1.

    Args:
        samples: One channel, n.
        config: Rate, window, hop and bands.
    """
    _, hop, window = config.steps
    plan = _plan_of(config)
    frames = mel_frames(samples.shape[0], hop)
    before = (window - hop) // 2
    padded = np.zeros(max(0, (frames - 1) * hop + window), dtype=np.float32)
    padded[before : before + samples.shape[0]] = samples
    views = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop] if frames else None
    result = np.empty((frames, config.num_mels), dtype=np.float32)
    for begin in range(0, frames, FRAMES_AT_ONCE):
        assert views is not None
        result[begin : begin + FRAMES_AT_ONCE] = plan.powers(views[begin : begin + FRAMES_AT_ONCE])
    result += np.float32(config.log_offset)
    return np.log(result, out=result)


def mel_matrices(config: MelPreprocessConfig) -> tuple[Values, Values]:
    """Return `log_mel` as two matrix products, for graphs of other libraries: what makes a spectrum, and its bands.

    A frame (a window of samples) times the first (2 K x window) gives the real, then the imaginary parts at K
    frequencies; the sums of their squares times the second (K x bands) are the powers of the bands.

    Args:
        config: Rate, window and bands.
    """
    window = config.steps[2]
    plan = _plan_of(config)
    first, last = plan.bins
    turns = np.outer(np.arange(first, last), np.arange(window)) * (2 * math.pi / plan.size)
    waves = np.concatenate([np.cos(turns), -np.sin(turns)]) * plan.taper.astype(np.float64)
    return waves.astype(np.float32), plan.bands(np.eye(last - first, dtype=np.float32))


@dataclass(frozen=True)
class _Plan:
    """Constants of all frames.

    Attributes:
        taper: Hann's window divided by half its sum.
        size: Size of the Fourier transform.
        bins: The frequencies that lie in a band: first, and one after the last.
        rises: For each of them how far it lies between two edges, from 0 to 1.
        starts: The first frequency after each edge but the last, counted from the first bin.
    """

    taper: Values
    size: int
    bins: tuple[int, int]
    rises: Values
    starts: npt.NDArray[np.int64]

    def powers(self, frames: Values) -> Values:
        """Return each band's power, without a matrix product, whose threads would be in the way of the workers'."""
        spectrum = np.fft.rfft(frames * self.taper, self.size, axis=1)[:, slice(*self.bins)]
        return self.bands(np.square(spectrum.real) + np.square(spectrum.imag))

    def bands(self, power: Values) -> Values:
        """Return each band's power from that of the frequencies.

        Between two edges one band falls as the next one rises, so that two sums between edges make all bands.
        """
        rising = np.add.reduceat(power * self.rises, self.starts, axis=1)
        falling = np.add.reduceat(power, self.starts, axis=1) - rising
        return np.maximum(rising[:, :-1] + falling[:, 1:], 0.0)


def _plan_of(config: MelPreprocessConfig) -> _Plan:
    rate, _, window = config.steps
    highest = rate / 2 if config.highest_hz is None else config.highest_hz
    return _plan(rate, window, config.num_mels, config.lowest_hz, highest, config.mel_scale)


@lru_cache(maxsize=16)
def _plan(
    rate: int, window: int, num_mels: int, lowest: float, highest: float, scale: MelScale
) -> _Plan:
    edges = mel_edges(num_mels, lowest, highest, scale)
    size = fft_size(window, rate, edges)
    taper = np.hanning(window + 1)[:-1]  # periodic, as for spectra
    hertz = np.arange(size // 2 + 1) * (rate / size)
    first, last = (int(i) for i in np.searchsorted(hertz, [edges[0], edges[-1]]))
    inside = hertz[first:last]
    segment = np.clip(np.searchsorted(edges, inside, side="right") - 1, 0, num_mels)
    rises = (inside - edges[segment]) / (edges[segment + 1] - edges[segment])
    starts = np.searchsorted(inside, edges[:-1])
    return _Plan(
        taper=(taper / (taper.sum() / 2)).astype(np.float32),
        size=size,
        bins=(first, last),
        rises=rises.astype(np.float32),
        starts=np.minimum(starts, len(inside) - 1),
    )
