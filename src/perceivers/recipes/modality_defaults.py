"""How each modality of one's own data is read, by its kind: adapter, preprocessing and augmentation in three sizes.

The adapters begin with a small convolved stem where neighbors mean something (pixels, samples, bytes, steps): on
small data it is worth tens of percent against single values (docs/log.md). `arrays` and `points`, of which nothing
is known or whose order means nothing, have none.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from perceivers.data.base import ImageAugmentConfig
from perceivers.data.modalities.array.modality import ArraysAugmentConfig, ArraysPreprocessConfig
from perceivers.data.modalities.audio.modality import (
    AudioAugmentConfig,
    MelPreprocessConfig,
    WavePreprocessConfig,
)
from perceivers.data.modalities.points.modality import PointsAugmentConfig, PointsPreprocessConfig
from perceivers.data.modalities.series.modality import SeriesAugmentConfig, SeriesPreprocessConfig
from perceivers.data.modalities.table.modality import TableAugmentConfig, TablePreprocessConfig
from perceivers.data.modalities.text.modality import TextAugmentConfig, TextPreprocessConfig
from perceivers.data.modalities.video.modality import VideoAugmentConfig, VideoPreprocessConfig
from perceivers.inputs.array import ArraysInputConfig
from perceivers.inputs.audio import ConvSpectrogramInputConfig, ConvWaveInputConfig
from perceivers.inputs.image import ConvInputConfig
from perceivers.inputs.points import PointsInputConfig
from perceivers.inputs.positions import FourierPositionsConfig
from perceivers.inputs.series import ConvSeriesInputConfig
from perceivers.inputs.table import TableInputConfig
from perceivers.inputs.text import ConvTextInputConfig
from perceivers.inputs.video import ConvVideoInputConfig
from perceivers.recipes.common import Size

_AUTO = FourierPositionsConfig(num_bands=None)  # as many bands as the grid has use for


@dataclass(frozen=True)
class Part:
    """How one modality is read.

    Attributes:
        input: The adapter.
        preprocess: What turns a file into the model's array. None for pictures.
        augment: What is random in training.
    """

    input: Any
    preprocess: Any
    augment: Any


def part_of(kind: str, size: Size) -> Part:
    """Return how a modality is read.

    Args:
        kind: Of a column: `image`, `audio`, `video`, `points`, `text`, `series`, `array` or `table`; `wave` for sound
            by its samples.
        size: Decides over the width of stems.
    """
    return _PARTS[kind](size)


def _image(_size: Size) -> Part:
    return Part(
        ConvInputConfig(size=None, stem_channels=64, positions=_AUTO),
        None,
        ImageAugmentConfig(crop_scale=(0.4, 1.0), flip=True),
    )


def _audio(size: Size) -> Part:
    width = size.stem_channels
    return Part(
        ConvSpectrogramInputConfig(
            stem_channels=(width // 2, width, width), kernel=(3, 3), positions=_AUTO
        ),
        MelPreprocessConfig(),
        AudioAugmentConfig(speed=0.1),
    )


def _wave(size: Size) -> Part:
    width = size.stem_channels
    return Part(
        ConvWaveInputConfig(stem_channels=(width // 2, width, 2 * width), positions=_AUTO),
        WavePreprocessConfig(),
        AudioAugmentConfig(speed=0.1, noise=0.05),
    )


def _video(size: Size) -> Part:
    width = size.stem_channels
    return Part(
        ConvVideoInputConfig(
            num_frames=None,
            size=None,
            stem_channels=(width // 2, width),
            kernel=5,
            stride=3,
            positions=_AUTO,
        ),
        VideoPreprocessConfig(num_frames=None, frame_rate=None, size=None),
        VideoAugmentConfig(),
    )


def _points(size: Size) -> Part:
    width = size.stem_channels
    return Part(
        # The paper's highest frequency is for 2,000 points of 40 classes; a few bands suit small data.
        PointsInputConfig(
            num_points=None, num_bands=8, max_resolution=32.0, mlp_channels=(width, 2 * width)
        ),
        PointsPreprocessConfig(num_points=8 * size.stem_channels),  # 512 in `tiny`
        PointsAugmentConfig(cloud_scale=(0.8, 1.25), jitter=(0.01, 0.03), drop=0.3),
    )


def _text(size: Size) -> Part:
    width = size.stem_channels
    return Part(
        ConvTextInputConfig(
            max_length=None,
            embedding_channels=width,
            stem_channels=(2 * width,),
            stride=1,
            pool=8,
            positions="learned",
        ),
        TextPreprocessConfig(keep="random"),
        TextAugmentConfig(),
    )


def _series(size: Size) -> Part:
    width = size.stem_channels
    return Part(
        ConvSeriesInputConfig(
            length=None, num_channels=None, stem_channels=(width, 2 * width), positions=_AUTO
        ),
        SeriesPreprocessConfig(),
        SeriesAugmentConfig(),
    )


def _array(size: Size) -> Part:
    return Part(
        ArraysInputConfig(
            length=None,
            num_channels=None,
            num_coordinates=None,
            project_channels=size.stem_channels,
        ),
        ArraysPreprocessConfig(),
        ArraysAugmentConfig(noise=0.05),
    )


def _table(size: Size) -> Part:
    return Part(
        TableInputConfig(num_numbers=None, category_sizes=None, channels=size.stem_channels),
        TablePreprocessConfig(),
        TableAugmentConfig(noise=0.05, drop=0.1),
    )


_PARTS: dict[str, Callable[[Size], Part]] = {
    "image": _image,
    "audio": _audio,
    "wave": _wave,
    "video": _video,
    "points": _points,
    "text": _text,
    "series": _series,
    "array": _array,
    "table": _table,
}
