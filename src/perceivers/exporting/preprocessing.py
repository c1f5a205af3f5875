"""In-graph preprocessing of exported models, by kind of preprocessing.

An exported graph takes arrays as other programs have them: pixels from 0 to 255, samples from -1 to 1. A
`GraphPreprocessor` turns those of one modality into the model's tensor, in operations that every runtime has.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import conv1d, pad

from perceivers.data.modalities.audio.mel import mel_matrices
from perceivers.exporting import script_media, script_values
from perceivers.exporting.script_template import ScriptTemplate
from perceivers.typing import Bool, Float, Tensor, UInt8

Arrays = dict[str, npt.NDArray[Any]]
_SMALLEST = 1e-30  # points of a smaller extent are not scaled, as in data/modalities/points


@dataclass(frozen=True, kw_only=True)
class ModelInput:
    """An input of the model that becomes one of the exported graph. `example` is its tensor, with a batch axis."""

    name: str
    preprocess: Any
    modality: Any
    example: Tensor
    is_optional: bool


@dataclass(frozen=True)
class Signature:
    """An input of an exported graph: shape without the batch axis, dtype, and description of the values.

    The first axis of a `free` input may have another length in every call.
    """

    shape: tuple[int, ...]
    dtype: str
    meaning: str
    free: bool = False


class GraphPreprocessor(nn.Module):
    """Preprocessing of one modality inside an exported graph.

    The base class does none: the graph takes the model's tensor, as `Modality.collate` returns it. Subclasses take
    arrays that are padded to a fixed length, with a mask.

    Args:
        source: The input of the model.
        shape: Shape of the array without the batch axis. By default that of the model's tensor.
        length: Length of the mask. By default the number of elements along the model's second axis, or 1 where the
            mask is that of whole samples. None: no mask.
        meaning: Description of the values.
    """

    dtype = "float32"
    free = False
    mask_meaning = (
        "True where it is real, False where it is padding; all False: the modality is missing"
    )

    def __init__(
        self,
        source: ModelInput,
        shape: tuple[int, ...] | None = None,
        length: int | None = None,
        meaning: str = "the model's own tensor, as perceivers prepares it from `preprocess` in config.json",
    ) -> None:
        super().__init__()
        self.name, self.modality, self.meaning = source.name, source.modality, meaning
        self.example = source.example if shape is None else None
        if shape is None:
            shape = tuple(source.example.shape[1:])
            self.dtype = str(source.example.dtype).removeprefix("torch.")
            _, mask = source.modality.collate([None])
            length = 1 if mask is None or mask.shape[1] == 1 else shape[0]
        self.shape, self.length = shape, length

    def forward(self, values: Any, mask: Any) -> Any:
        """Return the model's tensor and its mask, which may be None."""
        return values, mask

    def sample(self, value: Any) -> npt.NDArray[Any]:
        """Return the array of one decoded sample, not padded."""
        return self.modality.transform(value)

    def signatures(self) -> dict[str, Signature]:
        """Return the graph's inputs of this modality by name."""
        found = {self.name: Signature(self.shape, self.dtype, self.meaning, self.free)}
        if self.length is not None:
            mask = Signature((self.length,), "bool", self.mask_meaning, self.free)
            found[mask_name(self.name)] = mask
        return found

    def arrays(self, value: Any) -> Arrays:
        """Return the graph's inputs of one decoded sample, without a batch axis. None: the modality is missing."""
        array = np.zeros(self.shape, dtype=self.dtype)
        real = np.zeros(self.length or 0, dtype=bool)
        if value is not None and self.example is not None:
            tensor, mask = self.modality.collate([self.sample(value)])
            array[: tensor.shape[1]] = tensor[0].numpy()
            real[: tensor.shape[1]] = True
            if mask is not None and len(real) > 1:
                real[: mask.shape[1]] &= mask[0].numpy()
        elif value is not None:
            prepared = self.sample(value)
            array[: len(prepared)] = prepared
            real[: len(prepared)] = True
        return {self.name: array} | ({} if self.length is None else {mask_name(self.name): real})

    def made(self, count: int, rng: np.random.Generator) -> Arrays:
        """Return random inputs of some samples, the later ones shorter."""
        shape = (count, *self.shape)
        if self.example is not None and not self.example.is_floating_point():
            array: Any = np.repeat(self.example.numpy(), count, axis=0)
        elif self.dtype == "uint8":
            array = rng.integers(0, 256, shape, np.uint8)
        elif self.dtype == "int64":
            array = rng.integers(32 + 6, 127 + 6, shape, np.int64)  # ids of ASCII characters
        else:
            array = rng.uniform(-1, 1, shape).astype(self.dtype)
        if self.length is None:
            return {self.name: array}
        ends = np.maximum(1, self.length - np.arange(count) * (self.length // (count + 1)))
        return {self.name: array, mask_name(self.name): np.arange(self.length) < ends[:, None]}


_REGISTERED: dict[str, tuple[type[GraphPreprocessor], ScriptTemplate | None]] = {}


def register_preprocessing(
    kind: str, preprocessor: type[GraphPreprocessor], template: ScriptTemplate | None = None
) -> None:
    """Register the in-graph preprocessing of a kind, and the template that reads its files in predict.py.

    Without them, the exported graph takes the model's tensor, and no script is written.
    """
    _REGISTERED[kind] = (preprocessor, template)


def build_preprocessor(source: ModelInput) -> GraphPreprocessor:
    """Return the in-graph preprocessing of an input."""
    preprocessor, _ = _REGISTERED.get(source.preprocess.kind, (GraphPreprocessor, None))
    return preprocessor(source)


def script_template(kind: str) -> ScriptTemplate | None:
    """Return the template that reads files of a kind of preprocessing, or None."""
    return _REGISTERED.get(kind, (None, None))[1]


def mask_name(name: str) -> str:
    """Return the name of an input's mask in an exported graph."""
    return f"{name}_mask"


class _PixelPreprocessor(GraphPreprocessor):
    """Pixels from 0 to 255 of the model's size; scaling, mean and deviation are in the graph."""

    dtype = "uint8"
    low: Tensor
    scale: Tensor

    def keep_statistics(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Register mean and deviation of values from 0 to 255, with the rounding of `normalize_pixels`."""
        whole = np.float32(255)
        low = np.asarray(mean, dtype=np.float32).reshape(-1, 1, 1) * whole
        scale = 1 / (np.asarray(std, dtype=np.float32).reshape(-1, 1, 1) * whole)
        self.register_buffer("low", torch.from_numpy(low), persistent=False)
        self.register_buffer("scale", torch.from_numpy(scale), persistent=False)

    def made(self, count: int, rng: np.random.Generator) -> Arrays:
        """Return random pixels of some samples, from 0 to 255."""
        arrays = super().made(count, rng)
        if self.dtype == "float32":
            arrays[self.name] = (arrays[self.name] + 1) * np.float32(127.5)
        return arrays

    def forward(
        self,
        values: UInt8[Tensor, "B *T Y X Ci"] | Float[Tensor, "B *T Y X Ci"],
        mask: Bool[Tensor, "B L"] | None,
    ) -> tuple[Float[Tensor, "B *T Ci Y X"], Bool[Tensor, "B L"] | None]:
        """Return normalized pixels, zero where the mask is False."""
        found = (values.movedim(-1, -3).to(torch.float32) - self.low) * self.scale
        if mask is not None:
            found = found.masked_fill(~mask[(..., *[None] * (found.ndim - 2))], 0.0)
        return found, mask


class ImagePreprocessor(_PixelPreprocessor):
    """Pixels of an image."""

    mask_meaning = "True where there is an image"

    def __init__(self, source: ModelInput) -> None:
        config = source.preprocess
        meaning = (
            "pixels from 0 to 255, cropped and resized: height x width x channels (RGB, or gray)"
        )
        length = 1 if source.is_optional else None
        if config.resize == "tensorflow":  # not clamped
            self.dtype = "float32"
        super().__init__(source, (*config.size, config.num_channels), length, meaning)
        self.keep_statistics(config.mean, config.std)


class VideoPreprocessor(_PixelPreprocessor):
    """Frames of a video."""

    def __init__(self, source: ModelInput) -> None:
        video = source.modality
        meaning = "frames from 0 to 255, cropped and resized: frames x height x width x RGB"
        super().__init__(source, (video.num_frames, *video.size, 3), video.num_frames, meaning)
        self.keep_statistics(video.mean, video.std)


class PointsPreprocessor(GraphPreprocessor):
    """Any number of points; centering and scaling are in the graph."""

    free = True

    def __init__(self, source: ModelInput) -> None:
        config, points = source.preprocess, source.modality
        self.normalize, self.count = config.normalize, points.num_points
        extra = points.num_channels
        meaning = "x, y, z of each point, then further channels, in the file's own units: points x channels"
        super().__init__(source, (self.count, 3 + extra), self.count, meaning)
        self.register_buffer("mean", torch.tensor(config.mean or [0.0] * extra), persistent=False)
        self.register_buffer("std", torch.tensor(config.std or [1.0] * extra), persistent=False)

    def sample(self, value: Any) -> npt.NDArray[Any]:
        """Return the first points."""
        return value[: self.count]

    def forward(
        self, values: Float[Tensor, "B n C"], mask: Bool[Tensor, "B n"]
    ) -> tuple[Float[Tensor, "B n C"], Bool[Tensor, "B n"]]:
        """Return the points as the model reads them."""
        padding = ~mask[..., None]
        values = values.masked_fill(padding, 0.0)
        xyz, extra = values[..., :3], values[..., 3:]
        if self.normalize != "none":
            count = mask[..., None].sum(dim=1, keepdim=True).clamp(min=1)
            xyz = (xyz - xyz.sum(dim=1, keepdim=True) / count).masked_fill(padding, 0.0)
        if self.normalize in ("cube", "sphere"):
            is_cube = self.normalize == "cube"
            sizes = xyz.abs() if is_cube else xyz.square().sum(-1, keepdim=True).sqrt()
            size = sizes.amax(dim=(1, 2), keepdim=True)
            xyz = xyz / torch.where(size > _SMALLEST, size, torch.ones_like(size))
        if extra.shape[-1] == 0:
            return xyz, mask
        buffers: Any = self
        extra = ((extra - buffers.mean) / buffers.std).masked_fill(padding, 0.0)
        return torch.cat([xyz, extra], dim=-1), mask


class TextPreprocessor(GraphPreprocessor):
    """Ids of bytes, as the model reads them."""

    dtype = "int64"

    def __init__(self, source: ModelInput) -> None:
        length = source.modality.max_length
        meaning = (
            "the bytes of the text in UTF-8, each plus 6; 0 is padding, 3 the mark MASK of one hidden byte, 5 the "
            "mark SEP between two texts"
        )
        super().__init__(source, (length,), length, meaning)


class WaveformPreprocessor(GraphPreprocessor):
    """Samples from -1 to 1; the scale is in the graph."""

    def __init__(self, source: ModelInput) -> None:
        audio = source.modality
        meaning = f"samples from -1 to 1 at {audio.sample_rate} Hz: samples x channels"
        super().__init__(
            source, (audio.num_samples, audio.num_channels), audio.num_samples, meaning
        )
        self.factor = float(audio.factor)

    def sample(self, value: Any) -> npt.NDArray[Any]:
        """Return the clip in the middle."""
        return self.modality.clip(value, 0.5, None)

    def forward(
        self, values: Float[Tensor, "B L C"], mask: Bool[Tensor, "B L"]
    ) -> tuple[Float[Tensor, "B L C"], Bool[Tensor, "B L"]]:
        """Return the clip as the model reads it."""
        return values.masked_fill(~mask[..., None], 0.0) * self.factor, mask


class MelPreprocessor(GraphPreprocessor):
    """Samples from -1 to 1; the mel spectrogram and its statistics are in the graph.

    The Fourier transform is a convolution with sines and cosines, which every runtime has.
    """

    def __init__(self, source: ModelInput) -> None:
        config, audio = source.preprocess, source.modality
        rate, self.hop, self.window = config.steps
        length = max(1, round(audio.seconds * rate))
        meaning = f"samples from -1 to 1 of one channel at {audio.sample_rate} Hz"
        super().__init__(source, (length,), length, meaning)
        self.num_frames = audio.num_frames
        waves, bands = mel_matrices(config)
        # log(b + o) as log(b / o + 1) + log(o): exporters take 1e-8 for zero and drop the sum.
        bands = bands / np.float32(config.log_offset)
        self.shift = math.log(config.log_offset) - float(audio.mean)
        self.factor = float(audio.factor)
        self.register_buffer("waves", torch.from_numpy(waves)[:, None], persistent=False)
        self.register_buffer("bands", torch.from_numpy(bands), persistent=False)

    def sample(self, value: Any) -> npt.NDArray[Any]:
        """Return the clip in the middle, one channel."""
        return self.modality.clip(value, 0.5, None)[:, 0]

    def forward(
        self, values: Float[Tensor, "B S"], mask: Bool[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B L F"], Bool[Tensor, "B L"]]:
        """Return the spectrogram as the model reads it."""
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


class SeriesPreprocessor(GraphPreprocessor):
    """Values of each step in the sensors' own units, NaN if missing; statistics and flags are in the graph."""

    def __init__(self, source: ModelInput) -> None:
        config, series = source.preprocess, source.modality
        self.count = len(series.names)
        self.has_times, self.has_missing = bool(config.irregular), bool(config.has_missing)
        times = ", then its time from -1 (the window's begin) to 1" if self.has_times else ""
        meaning = f"the channels of each step, NaN where one is missing{times}: steps x channels"
        shape = (series.length, self.count + self.has_times)
        super().__init__(source, shape, series.length, meaning)
        mean = np.array(config.mean or [0.0] * self.count, dtype=np.float32)
        scale = (1 / np.array(config.std or [1.0] * self.count)).astype(np.float32)
        self.register_buffer("mean", torch.from_numpy(mean), persistent=False)
        self.register_buffer("scale", torch.from_numpy(scale), persistent=False)

    def sample(self, value: Any) -> npt.NDArray[Any]:
        """Return the window in the middle."""
        values, times = self.modality.window(value, 0.5)
        if times is None:
            return values
        return np.concatenate([values, times[:, None]], axis=1, dtype=np.float32)

    def forward(
        self, values: Float[Tensor, "B L V"], mask: Bool[Tensor, "B L"]
    ) -> tuple[Float[Tensor, "B L Vm"], Bool[Tensor, "B L"]]:
        """Return the window as the model reads it."""
        buffers: Any = self
        known = (values[..., : self.count] - buffers.mean) * buffers.scale
        missing = known.isnan()
        unknown = missing.all(dim=-1) if self.has_missing else missing.any(dim=-1)
        real = mask & ~unknown
        parts = [known.masked_fill(missing, 0.0)]
        if self.has_missing:
            parts.append((~missing).to(known.dtype))
        if self.has_times:
            parts.append(values[..., self.count :])
        return torch.cat(parts, dim=-1).masked_fill(~real[..., None], 0.0), real


register_preprocessing("image", ImagePreprocessor, script_media.READ_IMAGE)
register_preprocessing("video", VideoPreprocessor, script_media.READ_VIDEO)
register_preprocessing("points", PointsPreprocessor, script_values.READ_POINTS)
register_preprocessing("text", TextPreprocessor, script_values.READ_TEXT)
register_preprocessing("wave", WaveformPreprocessor, script_media.READ_AUDIO)
register_preprocessing("mel", MelPreprocessor, script_media.READ_AUDIO)
register_preprocessing("series", SeriesPreprocessor, script_values.READ_SERIES)
