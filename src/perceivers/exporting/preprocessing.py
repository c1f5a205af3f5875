"""What stands before the model in an exported graph: arrays as other programs have them become its inputs."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import conv1d, pad

from perceivers.data.modalities.audio.mel import mel_matrices
from perceivers.data.modalities.audio.modality import MelAudio, WaveAudio
from perceivers.data.modalities.base import Modality
from perceivers.data.modalities.image.modality import Pictures
from perceivers.data.modalities.points.modality import PointClouds
from perceivers.data.modalities.series.modality import SeriesWindows
from perceivers.data.modalities.text.modality import TextBytes
from perceivers.data.modalities.video.modality import VideoClips
from perceivers.typing import Bool, Float, Int, Tensor, UInt8

__all__ = [
    "FilmPort",
    "MelPort",
    "PicturePort",
    "PlainPort",
    "PointsPort",
    "Port",
    "SeriesPort",
    "Signature",
    "TextPort",
    "WavePort",
    "mask_name",
]

Arrays = dict[str, npt.NDArray[Any]]
_SMALLEST = 1e-30  # of a cloud that is scaled, as in perceivers.data.modalities.points.modality


def mask_name(name: str) -> str:
    """Return what the mask of an input is called in an exported graph."""
    return f"{name}_mask"


@dataclass(frozen=True, kw_only=True)
class Signature:
    """One input of an exported graph.

    Attributes:
        shape: Without the batch, which comes first.
        dtype: `uint8`, `float32`, `int64` or `bool`.
        meaning: What it holds, in words.
        free: Whether its first axis after the batch may have another length in every call.
    """

    shape: tuple[int, ...]
    dtype: str
    meaning: str
    free: bool = False


class Port(nn.Module, ABC):
    """How one modality enters an exported graph: padded to a fixed length, with a mask that says what is real.

    Args:
        name: Of the modality.
        shape: Of its array, without the batch.
        length: Of its mask. None: it has none.
    """

    kind = "plain"
    dtype = "float32"
    free = False
    mask_meaning = "True where it is real, False where it is padding; all False: there is nothing of this modality"

    def __init__(self, name: str, shape: tuple[int, ...], length: int | None) -> None:
        super().__init__()
        self.name, self.shape, self.length = name, shape, length

    @property
    @abstractmethod
    def meaning(self) -> str:
        """What the array holds, in words."""

    @abstractmethod
    def forward(self, values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the model's tensor and its mask."""

    @abstractmethod
    def sample(self, value: Any) -> npt.NDArray[Any]:
        """Return the array of what was decoded of one sample, as long as it is."""

    def signatures(self) -> dict[str, Signature]:
        """Return the inputs of the graph that are of this modality, by name."""
        found = {self.name: Signature(shape=self.shape, dtype=self.dtype, meaning=self.meaning)}
        if self.free:
            found[self.name] = Signature(
                shape=self.shape, dtype=self.dtype, meaning=self.meaning, free=True
            )
        if self.length is not None:
            found[mask_name(self.name)] = Signature(
                shape=(self.length,), dtype="bool", meaning=self.mask_meaning, free=self.free
            )
        return found

    def arrays(self, value: Any) -> Arrays:
        """Return the graph's inputs of one sample, without a batch axis. None: it is missing."""
        array = np.zeros(self.shape, dtype=self.dtype)
        count = 0
        if value is not None:
            there = self.sample(value)
            count = there.shape[0]
            array[:count] = there
        if self.length is None:
            return {self.name: array}
        whole = self.length == 1  # of the sample, not of its places
        mask = np.array([value is not None]) if whole else np.arange(self.length) < count
        return {self.name: array, mask_name(self.name): mask}

    def made(self, count: int, rng: np.random.Generator) -> Arrays:
        """Return made-up inputs of some samples, the later ones shorter."""
        array = rng.uniform(-1, 1, (count, *self.shape)).astype(self.dtype)
        if self.length is None:
            return {self.name: array}
        ends = np.maximum(1, self.length - np.arange(count) * (self.length // (count + 1)))
        return {
            self.name: array,
            mask_name(self.name): np.arange(self.length) < ends[:, None],
        }


class PicturePort(Port):
    """Pixels of the model's size; /255, mean and deviation are in the graph.

    Args:
        name: Of the modality.
        pictures: What reads it.
        may_lack: Whether a sample may be without it.
    """

    kind, dtype = "image", "uint8"
    mask_meaning = "True where there is a picture"

    def __init__(self, name: str, pictures: Pictures, *, may_lack: bool) -> None:
        config = pictures.preprocess
        super().__init__(name, (*config.size, config.num_channels), 1 if may_lack else None)
        self.pictures = pictures
        _keep_moments(self, config.mean, config.std)

    @property
    def meaning(self) -> str:
        """What the array holds, in words."""
        return "pixels from 0 to 255, cropped and resized: height x width x channels (RGB, or gray)"

    def sample(self, value: Any) -> npt.NDArray[Any]:
        """Return the pixels, Y x X x C."""
        return self.pictures.prepare(value)

    def forward(
        self, values: UInt8[Tensor, "B Y X Ci"], mask: Bool[Tensor, "B 1"] | None
    ) -> tuple[Float[Tensor, "B Ci Y X"], Bool[Tensor, "B 1"] | None]:
        """Return the picture as the model reads it."""
        found = _normalized(self, values.permute(0, 3, 1, 2))
        if mask is not None:
            found = found.masked_fill(~mask[:, :, None, None], 0.0)
        return found, mask

    def made(self, count: int, rng: np.random.Generator) -> Arrays:
        """Return made-up pictures."""
        found = super().made(count, rng)
        return found | {self.name: rng.integers(0, 256, (count, *self.shape), np.uint8)}


class FilmPort(Port):
    """Frames of the model's size and number; /255, mean and deviation are in the graph.

    Args:
        name: Of the modality.
        films: What reads it.
    """

    kind, dtype = "video", "uint8"

    def __init__(self, name: str, films: VideoClips) -> None:
        super().__init__(name, (films.num_frames, *films.size, 3), films.num_frames)
        self.films = films
        _keep_moments(self, films.mean, films.std)

    @property
    def meaning(self) -> str:
        """What the array holds, in words."""
        return "frames from 0 to 255, cropped and resized: frames x height x width x RGB"

    def sample(self, value: Any) -> npt.NDArray[Any]:
        """Return the frames of the clip in the middle."""
        return self.films.prepare(value)

    def forward(
        self, values: UInt8[Tensor, "B T Y X 3"], mask: Bool[Tensor, "B T"] | None
    ) -> tuple[Float[Tensor, "B T 3 Y X"], Bool[Tensor, "B T"] | None]:
        """Return the clip as the model reads it."""
        found = _normalized(self, values.permute(0, 1, 4, 2, 3))
        assert mask is not None
        return found.masked_fill(~mask[:, :, None, None, None], 0.0), mask

    def made(self, count: int, rng: np.random.Generator) -> Arrays:
        """Return made-up clips."""
        found = super().made(count, rng)
        return found | {self.name: rng.integers(0, 256, (count, *self.shape), np.uint8)}


class PointsPort(Port):
    """Any number of points; they are centered and scaled in the graph.

    Args:
        name: Of the modality.
        clouds: What reads it.
    """

    kind, free = "points", True

    def __init__(self, name: str, clouds: PointClouds) -> None:
        shape = (clouds.num_points, 3 + clouds.num_channels)
        super().__init__(name, shape, clouds.num_points)
        config = clouds.preprocess
        self.way, self.count = config.normalize, clouds.num_points
        extra = clouds.num_channels
        self.register_buffer("mean", torch.tensor(config.mean or [0.0] * extra), persistent=False)
        self.register_buffer("std", torch.tensor(config.std or [1.0] * extra), persistent=False)

    @property
    def meaning(self) -> str:
        """What the array holds, in words."""
        return "x, y, z of each point, then further channels, in the file's own units: points x channels"

    def sample(self, value: Any) -> npt.NDArray[Any]:
        """Return the first points of a cloud."""
        return value[: self.count]

    def forward(
        self, values: Float[Tensor, "B n C"], mask: Bool[Tensor, "B n"] | None
    ) -> tuple[Float[Tensor, "B n C"], Bool[Tensor, "B n"] | None]:
        """Return the cloud as the model reads it."""
        assert mask is not None
        there = mask[..., None]
        values = values.masked_fill(~there, 0.0)
        xyz, further = values[..., :3], values[..., 3:]
        if self.way != "none":
            count = there.sum(dim=1, keepdim=True).clamp(min=1)
            xyz = (xyz - xyz.sum(dim=1, keepdim=True) / count).masked_fill(~there, 0.0)
        if self.way in ("cube", "sphere"):
            sizes = xyz.abs() if self.way == "cube" else xyz.square().sum(-1, keepdim=True).sqrt()
            size = sizes.amax(dim=(1, 2), keepdim=True)
            xyz = xyz / torch.where(size > _SMALLEST, size, torch.ones_like(size))
        if further.shape[-1] == 0:
            return xyz, mask
        buffers: Any = self
        further = ((further - buffers.mean) / buffers.std).masked_fill(~there, 0.0)
        return torch.cat([xyz, further], dim=-1), mask


class TextPort(Port):
    """Numbers of bytes, as the model reads them.

    Args:
        name: Of the modality.
        texts: What reads it.
    """

    kind, dtype = "text", "int64"

    def __init__(self, name: str, texts: TextBytes) -> None:
        super().__init__(name, (texts.max_length,), texts.max_length)
        self.texts = texts

    @property
    def meaning(self) -> str:
        """What the array holds, in words."""
        return (
            "the bytes of the text in UTF-8, each plus 6; 0 is padding, 3 the mark MASK of one hidden byte, 5 the "
            "mark SEP between two texts"
        )

    def sample(self, value: Any) -> npt.NDArray[Any]:
        """Return the numbers of a text."""
        return self.texts.prepare(value)

    def forward(
        self, values: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"] | None
    ) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"] | None]:
        """Return both as they are."""
        return values, mask

    def made(self, count: int, rng: np.random.Generator) -> Arrays:
        """Return made-up texts."""
        letters = rng.integers(32 + 6, 127 + 6, (count, *self.shape), np.int64)
        return super().made(count, rng) | {self.name: letters}


class PlainPort(Port):
    """Whatever the model reads, prepared outside of the graph.

    Args:
        name: Of the modality.
        modality: What reads it.
        example: A tensor as the model reads it, with a batch axis.
        kind: Of its preprocessing.
    """

    def __init__(self, name: str, modality: Modality, example: Tensor, kind: str) -> None:
        is_row = kind in ("array", "table")
        super().__init__(name, tuple(example.shape[1:]), example.shape[1] if is_row else 1)
        self.modality, self.kind = modality, kind

    @property
    def meaning(self) -> str:
        """What the array holds, in words."""
        return "what the model itself reads: prepared by perceivers as `preprocess` of config.json says"

    def arrays(self, value: Any) -> Arrays:
        """Return the graph's inputs of one sample, as the modality's own batches hold it."""
        tensor, mask = self.modality.collate([None if value is None else self.sample(value)])
        array = np.zeros(self.shape, dtype=self.dtype)
        array[: tensor.shape[1]] = tensor[0].numpy()
        if self.length is None or self.length == 1:
            return {self.name: array, mask_name(self.name): np.array([value is not None])}
        real = np.arange(self.length) < (0 if value is None else tensor.shape[1])
        if mask is not None:
            real[: mask.shape[1]] &= mask[0].numpy()
        return {self.name: array, mask_name(self.name): real}

    def sample(self, value: Any) -> npt.NDArray[Any]:
        """Return what the modality prepares."""
        return self.modality.prepare(value)

    def forward(
        self, values: Tensor, mask: Bool[Tensor, "B L"] | None
    ) -> tuple[Tensor, Bool[Tensor, "B L"] | None]:
        """Return both as they are."""
        return values, mask


def _keep_moments(port: Port, mean: Sequence[float], std: Sequence[float]) -> None:
    """Keep mean and deviation as those of values from 0 to 255, in the digits of `normalize_pixels`."""
    whole = np.float32(255)
    low = np.asarray(mean, dtype=np.float32).reshape(-1, 1, 1) * whole
    scale = 1 / (np.asarray(std, dtype=np.float32).reshape(-1, 1, 1) * whole)
    port.register_buffer("low", torch.from_numpy(low), persistent=False)
    port.register_buffer("scale", torch.from_numpy(scale), persistent=False)


def _normalized(port: Port, pixels: Tensor) -> Tensor:
    tensors: Mapping[str, Any] = dict(port.named_buffers())
    return (pixels.to(torch.float32) - tensors["low"]) * tensors["scale"]


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
