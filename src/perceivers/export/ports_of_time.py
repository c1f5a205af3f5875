"""Sounds and recordings before the model in an exported graph: spectrograms, statistics and what is missing."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import conv1d, pad

from perceivers.data.audio import MelAudio, WaveAudio
from perceivers.data.mel import mel_matrices
from perceivers.data.series import SeriesWindows
from perceivers.export.ports import Port
from perceivers.typing import Bool, Float, Tensor

__all__ = ["MelPort", "SeriesPort", "WavePort"]


class WavePort(Port):
    """Samples from -1 to 1; they are scaled in the graph.

    Args:
        name: Of the modality.
        sounds: What reads it.
    """

    kind = "wave"

    def __init__(self, name: str, sounds: WaveAudio) -> None:
        super().__init__(name, (sounds.num_samples, sounds.num_channels), sounds.num_samples)
        self.sounds, self.factor = sounds, float(sounds.factor)

    @property
    def meaning(self) -> str:
        """What the array holds, in words."""
        rate = self.sounds.sample_rate
        return f"samples from -1 to 1 at {rate} Hz: samples x channels"

    def sample(self, value: Any) -> npt.NDArray[Any]:
        """Return the clip in the middle."""
        return self.sounds.clip(value, 0.5, None)

    def forward(
        self, values: Float[Tensor, "B L C"], mask: Bool[Tensor, "B L"] | None
    ) -> tuple[Float[Tensor, "B L C"], Bool[Tensor, "B L"] | None]:
        """Return the clip as the model reads it."""
        assert mask is not None
        return values.masked_fill(~mask[..., None], 0.0) * self.factor, mask


class MelPort(Port):
    """Samples from -1 to 1; their mel spectrogram and its statistics are in the graph.

    A spectrum is a convolution whose kernels are waves, which every runtime has.

    Args:
        name: Of the modality.
        sounds: What reads it.
    """

    kind = "mel"

    def __init__(self, name: str, sounds: MelAudio) -> None:
        config = sounds.preprocess
        rate, self.hop, self.window = config.steps
        length = max(1, round(sounds.seconds * rate))
        super().__init__(name, (length,), length)
        self.sounds, self.num_frames = sounds, sounds.num_frames
        waves, bands = mel_matrices(config)
        # log(b + o) as log(b / o + 1) + log(o): exporters take 1e-8 for zero and drop the sum.
        bands = bands / np.float32(config.log_offset)
        self.shift = math.log(config.log_offset) - float(sounds.mean)
        self.factor = float(sounds.factor)
        self.register_buffer("waves", torch.from_numpy(waves)[:, None], persistent=False)
        self.register_buffer("bands", torch.from_numpy(bands), persistent=False)

    @property
    def meaning(self) -> str:
        """What the array holds, in words."""
        return f"samples from -1 to 1 of one channel at {self.sounds.sample_rate} Hz"

    def sample(self, value: Any) -> npt.NDArray[Any]:
        """Return the clip in the middle, one channel."""
        return self.sounds.clip(value, 0.5, None)[:, 0]

    def forward(
        self, values: Float[Tensor, "B S"], mask: Bool[Tensor, "B S"] | None
    ) -> tuple[Float[Tensor, "B L F"], Bool[Tensor, "B L"] | None]:
        """Return the spectrogram as the model reads it."""
        assert mask is not None
        before = (self.window - self.hop) // 2
        needed = (self.num_frames - 1) * self.hop + self.window
        samples = values.masked_fill(~mask, 0.0)[:, None]
        samples = pad(samples, (before, needed - before - samples.shape[2]))
        buffers: Any = self
        spectrum = conv1d(samples, buffers.waves, stride=self.hop)
        power = spectrum.square().unflatten(1, (2, -1)).sum(dim=1)
        bands = power.transpose(1, 2) @ buffers.bands
        found = ((bands + 1.0).log() + self.shift) * self.factor
        frames = mask[:, :: self.hop]
        return found.masked_fill(~frames[..., None], 0.0), frames


class SeriesPort(Port):
    """Values of each step in the sensors' own units, NaN where one is missing; statistics and flags are in the graph.

    Args:
        name: Of the modality.
        windows: What reads it.
    """

    kind = "series"

    def __init__(self, name: str, windows: SeriesWindows) -> None:
        config = windows.preprocess
        count = len(windows.names)
        self.has_times, self.has_missing = bool(config.irregular), bool(config.has_missing)
        super().__init__(name, (windows.length, count + self.has_times), windows.length)
        self.windows, self.count = windows, count
        mean = np.array(config.mean or [0.0] * count, dtype=np.float32)
        scale = (1 / np.array(config.std or [1.0] * count)).astype(np.float32)
        self.register_buffer("mean", torch.from_numpy(mean), persistent=False)
        self.register_buffer("scale", torch.from_numpy(scale), persistent=False)

    @property
    def meaning(self) -> str:
        """What the array holds, in words."""
        times = ", then its time from -1 (the window's begin) to 1" if self.has_times else ""
        return f"the channels of each step, NaN where one is missing{times}: steps x channels"

    def sample(self, value: Any) -> npt.NDArray[Any]:
        """Return the window in the middle."""
        values, times = self.windows.window(value, 0.5)
        if times is None:
            return values
        return np.concatenate([values, times[:, None]], axis=1, dtype=np.float32)

    def forward(
        self, values: Float[Tensor, "B L V"], mask: Bool[Tensor, "B L"] | None
    ) -> tuple[Float[Tensor, "B L Vm"], Bool[Tensor, "B L"] | None]:
        """Return the window as the model reads it."""
        assert mask is not None
        buffers: Any = self
        known = (values[..., : self.count] - buffers.mean) * buffers.scale
        missing = known.isnan()
        gone = missing.all(dim=-1) if self.has_missing else missing.any(dim=-1)
        real = mask & ~gone
        parts = [known.masked_fill(missing, 0.0)]
        if self.has_missing:
            parts.append((~missing).to(known.dtype))
        if self.has_times:
            parts.append(values[..., self.count :])
        return torch.cat(parts, dim=-1).masked_fill(~real[..., None], 0.0), real
