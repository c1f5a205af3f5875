"""Video as a modality: clips at a steady rate, cropped alike in all frames, augmented and normalized."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.base import (
    SAMPLED_CELLS,
    BasePreprocessConfig,
    CellSampler,
    DecodedValue,
    read_cells,
)
from perceivers.data.modalities.image.augment import ImageAugmentConfig, inception_box
from perceivers.data.modalities.image.preprocess import (
    Box,
    ImagePreprocessConfig,
    evaluation_box,
    resize_pixels,
    typical_size,
)
from perceivers.data.modalities.video.decode import (
    Video,
    VideoHeader,
    decode_video,
    open_video,
    read_video_header,
    tracks,
    video_seconds,
    window_of,
)
from perceivers.data.registry import (
    ColumnKind,
    ModalitySpec,
    OwnDataSize,
    Preprocessing,
    UploadSize,
    register_modality,
)
from perceivers.registry import configclass
from perceivers.typing import Bool, Float, Tensor

Clip = npt.NDArray[np.uint8]

# Frames are kept a little larger than the model's, so that smaller crops do not lose what was there.
KEPT_OVERSAMPLING = 1.25

# Where they are taken from the data: few frames that cover most of a video learn more in the same time than many that
# cover a part (docs/defaults.md).
MOST_FRAMES_A_SECOND, FEWEST_FRAMES_A_SECOND = 12.5, 2.5
MOST_FRAMES = 20
FRAME_STEP, SIZE_STEP = 4, 8  # patches of 2 or 4 frames and of 4 or 8 pixels fit
SAMPLED_VIDEOS = 24  # decoded for mean and deviation
MIN_STD = 1 / 255

_LUMA = np.array([0.299, 0.587, 0.114])
_TO_YIQ = np.array([_LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


@configclass
class VideoPreprocessConfig(BasePreprocessConfig):
    """Preprocessing of a video without randomness. Saved with the model.

    Attributes:
        num_frames: Frames of a clip; 32 in the paper. None: taken from the data before the model is built.
        frame_rate: At which they are taken, in frames per second; 25 in the paper. None: taken from the data.
        size: Height and width in pixels; 224 x 224 in the paper. None: taken from the data.
        mean: Subtracted from each channel, of pixels in [0, 1]. None: taken from the data.
        std: Each channel is divided by it after that. None: taken from the data.
        max_side: Longest side in pixels where `size` is taken from the data.
        crop_fraction: Side of the central crop as a share of the shorter side.
        keep_aspect: Crop to the aspect of `size` first. Otherwise the whole image is stretched.

    Raises:
        ValueError: If a setting does not make sense.
    """

    kind: Literal["video"] = "video"
    num_frames: int | None = None
    frame_rate: float | None = None
    size: tuple[int, int] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    max_side: int = 224
    crop_fraction: float = 1.0
    keep_aspect: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be prepared."""
        if self.num_frames is not None and self.num_frames < 1:
            raise ValueError(f"A clip needs num_frames of at least 1, got {self.num_frames}.")
        if self.frame_rate is not None and not (
            math.isfinite(self.frame_rate) and self.frame_rate > 0
        ):
            raise ValueError(
                f"Expected a frame_rate above 0 frames per second, got {self.frame_rate}."
            )
        if self.size is not None and min(self.size) < 1:
            raise ValueError(
                f"Expected size=(height, width) of at least 1 pixel each, got {self.size}."
            )
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"Expected a std above 0 for each channel, got {self.std}.")
        if not 0 < self.crop_fraction <= 1:
            raise ValueError(
                f"crop_fraction must lie above 0 and not above 1, got {self.crop_fraction}."
            )

    def measure(self, cells: CellSampler) -> "VideoPreprocessConfig":
        """Return the configuration with open fields taken from the training data, see `measure_video`."""
        return measure_video(cells(SAMPLED_CELLS), self)

    def assumed(self) -> dict[str, Any]:
        """Return sizes that are assumed without data."""
        return {"num_frames": 16, "frame_rate": 8.0, "size": (64, 64)}

    def input_fields(self) -> dict[str, Any]:
        """Return the sizes that the input adapter takes over."""
        return {"num_frames": self.num_frames, "size": self.size}

    def value_units(self) -> dict[str, Any]:
        """Return the units of pixels in [0, 1]."""
        return {"mean": self.mean or (), "std": self.std or (), "low": 0.0, "high": 1.0}

    def restore(self, values: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Return pixels in [0, 1] as bytes."""
        return np.round(values * 255).astype(np.uint8)


@configclass
class VideoAugmentConfig:
    """Augmentation of a clip in training, the same for all its frames. The paper states no strengths.

    Attributes:
        crop_scale: Smallest and largest area of the Inception crop, as a share of the image. None: no crop.
        crop_ratio: Narrowest and widest aspect (width / height) of the crop, relative to the aspect shown.
        flip: Mirror half of the clips left to right.
        brightness: All values are multiplied by a number between 1 - this and 1 + this.
        contrast: Differences to the clip's mean gray are, likewise.
        saturation: Differences to each pixel's own gray are, likewise.
        hue: Colors are turned by up to this share of the color circle, either way.
        mixup: Alpha of mixup's beta distribution. 0: off.

    Raises:
        ValueError: If a setting does not make sense.
    """

    kind: Literal["video"] = "video"
    crop_scale: tuple[float, float] | None = (0.4, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.05
    mixup: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}.")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue must lie between 0 and 0.5 (half a turn), got {self.hue}.")
        if self.mixup < 0:
            raise ValueError(f"mixup must not be negative, got {self.mixup}.")


class VideoModality:
    """Modality of clips. See `perceivers.data.modalities.base.Modality`.

    Frames are decoded at the size at which evaluation shows them, and a quarter larger where crops are random:
    decoded videos take little room, and a random crop that is smaller than that is enlarged.

    Raises:
        ValueError: If something of `preprocess` is still open.
    """

    has_clips = True

    def __init__(
        self, preprocess: VideoPreprocessConfig, augment: VideoAugmentConfig | None = None
    ) -> None:
        known = (preprocess.num_frames, preprocess.frame_rate, preprocess.size)
        if None in known or preprocess.mean is None or preprocess.std is None:
            raise ValueError(
                "Expected num_frames, frame_rate, size, mean and std of clips to be known before videos are read, got "
                f"{preprocess}. measure_video() takes them from the training data."
            )
        assert preprocess.num_frames is not None
        assert preprocess.frame_rate is not None
        assert preprocess.size is not None
        self.preprocess, self.augment = preprocess, augment
        self.num_frames, self.frame_rate = preprocess.num_frames, preprocess.frame_rate
        self.size, self.mean, self.std = preprocess.size, preprocess.mean, preprocess.std
        self._image = ImagePreprocessConfig(
            size=self.size,
            crop_fraction=preprocess.crop_fraction,
            keep_aspect=preprocess.keep_aspect,
        )

    def decode(self, media: EncodedItem, *, clip_position: float | None = None) -> DecodedValue:
        """Return a `Video` at the clip's rate, a little larger than the clip."""
        clip = None if clip_position is None else (self.num_frames, clip_position)
        video, notes = decode_video(
            media, frame_rate=self.frame_rate, fit=self.kept_size, clip=clip
        )
        return DecodedValue(video, notes)

    def kept_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width at which frames of this size are decoded. Never more than they have."""
        left, top, right, bottom = evaluation_box(width, height, self._image)
        crops = self.augment is not None and self.augment.crop_scale is not None
        margin = KEPT_OVERSAMPLING if crops else 1.0
        tall = min(1.0, margin * self.size[0] / (bottom - top))
        wide = min(1.0, margin * self.size[1] / (right - left))
        if self.preprocess.keep_aspect:
            tall = wide = max(tall, wide)
        return max(1, round(height * tall)), max(1, round(width * wide))

    def transform(
        self, value: Video, *, clip_position: float = 0.5, rng: np.random.Generator | None = None
    ) -> Clip:
        """Return the frames that the model sees, T x Y x X x 3 of uint8; fewer than a clip of a shorter video."""
        first, count = window_of(
            value.duration, frame_rate=self.frame_rate, clip=(self.num_frames, clip_position)
        )
        first -= round(value.start * self.frame_rate)
        frames = value.frames[max(0, first) : first + count]
        if first < 0 or len(frames) < count:
            raise ValueError(
                f"Expected a video decoded as a whole or at the position {clip_position:g}, got "
                f"{len(value.frames)} frames from {value.start:.2f} s on."
            )
        box, flip, color = self._chosen(frames, rng)
        clip = np.empty((count, *self.size, 3), np.uint8)
        for place, frame in enumerate(frames):
            clip[place] = self._shown(frame, box, color)
        return clip[:, :, ::-1] if flip else clip

    def collate(
        self, samples: Sequence[Any]
    ) -> tuple[Float[Tensor, "B T C Y X"], Bool[Tensor, "B T"] | None]:
        """Return clips as B x T x 3 x Y x X, normalized, and which frames are real if not all are.

        T is always that of a whole clip, so that batches have one shape and reads of a part of the time read the
        same frames of every sample. Behind a shorter video, and in place of a missing one, are zeros.
        """
        mean = np.array(self.mean, np.float32)[:, None, None] * np.float32(255)
        scale = 1 / (np.array(self.std, np.float32)[:, None, None] * np.float32(255))
        values = np.zeros((len(samples), self.num_frames, 3, *self.size), np.float32)
        lengths = [0 if sample is None else len(sample) for sample in samples]
        for place, sample in enumerate(samples):
            if sample is not None:
                real = values[place, : len(sample)]
                np.subtract(np.moveaxis(sample, -1, 1), mean, out=real)
                real *= scale
        if min(lengths) == self.num_frames:
            return torch.from_numpy(values), None
        mask = torch.arange(self.num_frames) < torch.tensor(lengths)[:, None]
        return torch.from_numpy(values), mask

    def _chosen(
        self, frames: Clip, rng: np.random.Generator | None
    ) -> tuple[Box, bool, tuple[float, ...] | None]:
        """Return crop, flip and color matrix of a clip."""
        height, width = frames.shape[1:3]
        augment = self.augment
        if augment is None or rng is None:
            return evaluation_box(width, height, self._image), False, None
        if augment.crop_scale is None:
            box = evaluation_box(width, height, self._image)
        else:
            crop = ImageAugmentConfig(crop_scale=augment.crop_scale, crop_ratio=augment.crop_ratio)
            box = inception_box(width, height, crop, self._image, rng)
        flip = augment.flip and rng.random() < 0.5
        return box, flip, _color_matrix(frames, augment, rng)

    def _shown(self, frame: Clip, box: Box, color: tuple[float, ...] | None) -> Clip:
        if (
            color is None
            and box == (0, 0, self.size[1], self.size[0])
            and frame.shape[:2] == self.size
        ):
            return frame
        pixels = resize_pixels(Image.fromarray(frame), box, self.size)
        return (
            pixels if color is None else np.asarray(Image.fromarray(pixels).convert("RGB", color))
        )


def _color_matrix(
    frames: Clip, augment: VideoAugmentConfig, rng: np.random.Generator
) -> tuple[float, ...] | None:
    """Return brightness, contrast, saturation and hue as one matrix of 3 x 4, row by row; None if all are off.

    Each is linear, so that together they cost one multiplication, and values are only cut to 0..255 at the end.
    """
    strengths = (augment.brightness, augment.contrast, augment.saturation)
    if not any((*strengths, augment.hue)):
        return None
    bright, contrast, saturation = (rng.uniform(1 - s, 1 + s) for s in strengths)
    angle = 2 * math.pi * rng.uniform(-augment.hue, augment.hue)
    turn = np.array(
        [[1, 0, 0], [0, math.cos(angle), -math.sin(angle)], [0, math.sin(angle), math.cos(angle)]]
    )
    hue = np.linalg.inv(_TO_YIQ) @ turn @ _TO_YIQ
    gray = np.tile(_LUMA, (3, 1))
    linear = hue @ (saturation * np.eye(3) + (1 - saturation) * gray) * contrast * bright
    mean = float(frames[:, ::4].mean(axis=(0, 1, 2)) @ _LUMA)
    offset = np.full((3, 1), bright * (1 - contrast) * mean)
    return tuple(np.hstack([linear, offset]).ravel().tolist())


def measure_video(
    cells: Iterable[EncodedItem], config: VideoPreprocessConfig
) -> VideoPreprocessConfig:
    """Return a configuration in which what was None is taken from a sample of the training data.

    The rate is the commonest of the videos, divided by a whole number, so that every frame shown is one that was
    filmed: the smallest that brings it to 12.5 frames per second or less and lets 20 frames cover three quarters of the
    videos as a whole, but not below 2.5 frames per second. A clip has so many frames, in steps of 4. The size is the
    median of the videos', the longer side not above `max_side`, in steps of 8 pixels; a square where less than three
    quarters have like aspects. These limits are chosen for training on a few cores.

    Raises:
        ValueError: If no cell can be read. The message states the reason of the first.
    """
    cells = list(cells)
    headers = list(read_cells(cells, read_video_header, "video"))
    seconds = float(np.percentile([header.seconds for header in headers], 75))
    rate = config.frame_rate or _suggested_rate(headers, seconds)
    frames = min(MOST_FRAMES, -(-math.ceil(seconds * rate - 0.01) // FRAME_STEP) * FRAME_STEP)
    sizes = np.array([(header.height, header.width) for header in headers], dtype=np.float64)
    filled = replace(
        config,
        frame_rate=rate,
        num_frames=config.num_frames or max(frames, 1),
        size=config.size or typical_size(sizes, largest=config.max_side, step=SIZE_STEP),
    )
    if filled.mean is not None and filled.std is not None:
        return filled
    mean, std = _mean_std(cells[:SAMPLED_VIDEOS], filled)
    return replace(filled, mean=config.mean or mean, std=config.std or std)


def _suggested_rate(headers: Sequence[VideoHeader], seconds: float) -> float:
    rates = Counter(round(header.frame_rate, 2) for header in headers)
    rate = rates.most_common(1)[0][0]
    fewest = math.ceil(rate / MOST_FRAMES_A_SECOND)
    most = math.floor(rate / FEWEST_FRAMES_A_SECOND)
    covering = math.ceil(seconds * rate / MOST_FRAMES - 0.01)
    return round(rate / max(1, fewest, min(covering, most)), 2)


def _mean_std(
    cells: Sequence[EncodedItem], config: VideoPreprocessConfig
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return mean and deviation of each channel of the clip in the middle of some videos."""
    clips = VideoModality(replace(config, mean=(0.0,) * 3, std=(1.0,) * 3))
    sums, count = np.zeros((2, 3)), 0
    decode = partial(clips.decode, clip_position=0.5)
    for decoded in read_cells(cells, decode, "video"):
        values = clips.transform(decoded.value)[::4].reshape(-1, 3) / 255.0
        sums += values.sum(axis=0), np.square(values).sum(axis=0)
        count += len(values)
    mean = sums[0] / count
    std = np.sqrt(np.maximum(sums[1] / count - np.square(mean), MIN_STD**2))
    red, green, blue = (round(float(m), 4) for m in mean)
    r, g, b = (round(float(s), 4) for s in std)
    return (red, green, blue), (r, g, b)


def _upload_sizes(media: EncodedItem) -> Iterator[UploadSize]:
    with open_video(media) as (_, stream):
        codec = stream.codec_context
        yield UploadSize(codec.width * codec.height, "pixels in a frame", "pixels")
        yield UploadSize(video_seconds(media, stream), "seconds of video", "seconds")


def _is_video(data: bytes) -> bool:
    return tracks(data) == "video"


def _default(size: OwnDataSize) -> tuple[VideoPreprocessConfig, VideoAugmentConfig]:
    return VideoPreprocessConfig(max_side=size.largest_image), VideoAugmentConfig()


register_modality(
    ModalitySpec(
        name="video",
        noun="video",
        preprocessing=(Preprocessing(VideoPreprocessConfig, VideoModality, _default),),
        augment=VideoAugmentConfig,
        suffixes=(
            *(
                "mp4",
                "m4v",
                "mov",
                "qt",
                "3gp",
                "3g2",
                "mkv",
                "webm",
                "avi",
                "divx",
                "wmv",
                "asf",
                "flv",
                "f4v",
            ),
            *(
                "mpg",
                "mpeg",
                "mpe",
                "m2v",
                "vob",
                "ts",
                "mts",
                "m2ts",
                "ogv",
                "mxf",
                "nut",
                "rm",
                "rmvb",
                "dv",
            ),
        ),
        magic=_is_video,
        column_kinds={
            "video": ColumnKind("video", stored_as=("audio", "array")),
            "film": ColumnKind("video with audio", stored_as=("video", "audio")),
        },
        recipe="video",
        mixup="blend",
        upload_sizes=_upload_sizes,
    )
)
