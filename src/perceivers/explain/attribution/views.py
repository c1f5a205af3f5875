"""What a model was given, turned back into what a person knows: pixels, seconds, letters, the units of a table."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from perceivers.data.modalities.audio.mel import mel_edges
from perceivers.data.modalities.audio.modality import MelPreprocessConfig, WavePreprocessConfig
from perceivers.data.modalities.image.modality import ImagePreprocessConfig
from perceivers.data.modalities.image.preprocess import preprocess_pixels
from perceivers.data.modalities.series.modality import SeriesPreprocessConfig
from perceivers.data.modalities.text.modality import BYTE_OFFSET
from perceivers.data.modalities.video.modality import VideoPreprocessConfig
from perceivers.explain.attribution.contents import (
    Cloud,
    Content,
    Fields,
    Film,
    Passage,
    Picture,
    Recording,
    Spectrogram,
    Values,
    Wave,
)

DRAWN = 512  # pixels of the longer side, for a picture that has them
MARKS = ("PAD", "BOS", "EOS", "MASK", "CLS", "SEP")

Array = npt.NDArray[Any]
Real = npt.NDArray[np.bool_]
Step = tuple[int, ...]


def content_of(config: Any, value: Any, x: Array, real: Real, step: Step) -> Content:
    """Return what a modality holds, for a person.

    Args:
        config: Its `PreprocessConfig`.
        value: What was decoded, before it was cut to size.
        x: The model's array, without the batch axis.
        real: Where the first axis of `x` is real.
        step: Of `step_of`.
    """
    return _BUILDERS[config.kind](config, value, x, real, step)


def step_of(adapter: Any) -> tuple[int, ...]:
    """Return how many places of the input an element covers along each axis.

    Of a row: samples, bytes or steps. Of a spectrogram: frames and bands; of a film: frames, rows and columns.
    """
    config = getattr(adapter, "config", None)
    patch, stride = getattr(config, "patch", None), getattr(config, "stride", None)
    if patch is not None:
        return (patch,) if isinstance(patch, int) else tuple(patch)
    if stride is None:
        return (1,)
    layers = len(getattr(config, "stem_channels", (1,)))
    pool = getattr(config, "pool", 1)  # of what a text's convolutions give
    step = tuple(pool * one**layers for one in ((stride,) if isinstance(stride, int) else stride))
    frames = getattr(adapter, "frame_step", None)
    return step if frames is None else (frames, *step, *step)


def show_pixels(image: Image.Image, config: ImagePreprocessConfig) -> npt.NDArray[np.uint8]:
    """Return the region that the model sees, for a person: rows x columns x 3, in more pixels if it has them."""
    height, width = config.known_size
    finer = min(image.height // height, image.width // width, math.ceil(DRAWN / max(height, width)))
    finer = max(finer, 1)
    shown = preprocess_pixels(image, replace(config, size=(height * finer, width * finer)))
    return np.repeat(shown, 3, axis=2) if shown.shape[2] == 1 else shown[..., :3]


def _picture(config: ImagePreprocessConfig, value: Any, _: Array, __: Real, ___: Step) -> Picture:
    return Picture(pixels=show_pixels(value, config))


def _first_frame(_: Any, __: Any, x: Array, ___: Real, ____: Step) -> Picture:
    """Return the first frame of a pair, in the window that the model saw."""
    pixels = np.rint(np.clip((x[0] + 1) / 2, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    return Picture(pixels=np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels)


def _wave(config: WavePreprocessConfig, _: Any, x: Array, real: Real, step: Step) -> Wave:
    samples = x[real] if real.any() else x
    return Wave(
        samples=(samples * (config.scale or 1.0)).astype(np.float32),
        rate=float(config.sample_rate or 1),
        step=step[0],
    )


def _mel(config: MelPreprocessConfig, _: Any, x: Array, real: Real, step: Step) -> Spectrogram:
    rate, hop, _window = config.steps
    highest = rate / 2 if config.highest_hz is None else config.highest_hz
    edges = mel_edges(config.num_mels, config.lowest_hz, highest, config.mel_scale)
    loud = x * (config.std or 1.0) + (config.mean or 0.0)
    return Spectrogram(
        values=np.where(real[:, None], loud, np.nan).astype(np.float32),
        seconds=len(x) * hop / rate,
        hertz=edges[1:-1].astype(np.float32),
        step=(step[0], step[-1]),
    )


def _film(config: VideoPreprocessConfig, _: Any, x: Array, real: Real, step: Step) -> Film:
    frames = np.moveaxis(x[real], 1, -1)
    frames = frames * np.array(config.std or (1.0,)) + np.array(config.mean or (0.0,))
    pixels = np.rint(np.clip(frames, 0, 1) * 255).astype(np.uint8)
    return Film(
        frames=pixels, rate=float(config.frame_rate or 1), step=(step[0], step[-2], step[-1])
    )


def _cloud(_: Any, __: Any, x: Array, ___: Real, ____: Step) -> Cloud:
    return Cloud(points=x[:, :3].astype(np.float32))


def _passage(_: Any, __: Any, x: Array, real: Real, step: Step) -> Passage:
    length = int(np.flatnonzero(real)[-1]) + 1 if real.any() else 0
    ids = x[:length].astype(np.int64)
    return Passage(
        units=np.where(ids >= BYTE_OFFSET, ids - BYTE_OFFSET, 256 + ids), marks=MARKS, step=step[0]
    )


def _recording(
    config: SeriesPreprocessConfig, value: Any, x: Array, real: Real, step: Step
) -> Recording:
    names = config.channels or ()
    count = len(names)
    values = x[:, :count] * np.array(config.std or [1.0]) + np.array(config.mean or [0.0])
    seen = np.broadcast_to(real[:, None], values.shape)
    if config.has_missing:
        seen = seen & (x[:, count : 2 * count] > 0.5)
    length = int(np.flatnonzero(real)[-1]) + 1 if real.any() else len(x)
    times, unit = np.arange(length, dtype=np.float64), "step"
    if config.irregular:  # the last channel, where [-1, 1] is the window
        span = config.duration or (float(value.times[-1]) if len(value.times) else 1.0) or 1.0
        places = np.flatnonzero(real)
        known = (x[places, -1].astype(np.float64) + 1) / 2 * span
        times, unit = np.interp(times, places, known), "s"  # between those that are missing
    elif config.rate is not None:
        times, unit = times / config.rate, "s"
    shown = np.where(seen, values, np.nan)[:length].astype(np.float32)
    return Recording(values=shown, times=times, channels=tuple(names), unit=unit, step=step[0])


def _values(config: Any, _: Any, x: Array, real: Real, __: Step) -> Values:
    values = x[:, : config.num_channels]
    values = values * np.array(config.std or [1.0]) + np.array(config.mean or [0.0])
    return Values(values=np.where(real[:, None], values, np.nan).astype(np.float32))


def _fields(config: Any, _: Any, x: Array, real: Real, __: Step) -> Fields:
    count = len(config.numbers)
    numbers = x[:count] * np.array(config.stds or [1.0]) + np.array(config.means or [0.0])
    texts = [f"{number:.6g}" for number in numbers]
    for names, index in zip(config.categories.values(), x[count:], strict=True):
        texts.append(names[round(float(index))])
    shown = tuple(text if there else "" for text, there in zip(texts, real, strict=True))
    return Fields(fields=(*config.numbers, *config.categories), texts=shown)


_BUILDERS: dict[str, Callable[[Any, Any, Array, Real, Step], Content]] = {
    "image": _picture,
    "wave": _wave,
    "mel": _mel,
    "video": _film,
    "points": _cloud,
    "text": _passage,
    "series": _recording,
    "array": _values,
    "table": _fields,
    "frame_pair": _first_frame,
}
