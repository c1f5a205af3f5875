"""Every modality by its saved configuration: the closed lists from which a file can pick."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from perceivers.data.base import ImageAugmentConfig, ImagePreprocessConfig
from perceivers.data.modalities.array.modality import (
    ArraysAugmentConfig,
    ArraysPreprocessConfig,
    ArrayValues,
)
from perceivers.data.modalities.audio.modality import (
    AudioAugmentConfig,
    MelAudio,
    MelPreprocessConfig,
    WaveAudio,
    WavePreprocessConfig,
)
from perceivers.data.modalities.base import Modality
from perceivers.data.modalities.flow.crop import PairAugmentConfig
from perceivers.data.modalities.flow.frame_pairs import FramePairPreprocessConfig, FramePairs
from perceivers.data.modalities.flow.modality import FlowFields, FlowPreprocessConfig
from perceivers.data.modalities.image.modality import Pictures
from perceivers.data.modalities.image.pixel_targets import (
    ClassMapPreprocessConfig,
    ClassMaps,
    PixelsPreprocessConfig,
    PixelValues,
)
from perceivers.data.modalities.points.modality import (
    PointClouds,
    PointsAugmentConfig,
    PointsPreprocessConfig,
)
from perceivers.data.modalities.series.modality import (
    SeriesAugmentConfig,
    SeriesPreprocessConfig,
    SeriesWindows,
)
from perceivers.data.modalities.table.modality import (
    TableAugmentConfig,
    TablePreprocessConfig,
    TableVectors,
)
from perceivers.data.modalities.text.modality import (
    TextAugmentConfig,
    TextBytes,
    TextPreprocessConfig,
)
from perceivers.data.modalities.video.modality import (
    VideoAugmentConfig,
    VideoClips,
    VideoPreprocessConfig,
)

PreprocessConfig = Annotated[
    ImagePreprocessConfig
    | WavePreprocessConfig
    | MelPreprocessConfig
    | VideoPreprocessConfig
    | PointsPreprocessConfig
    | TextPreprocessConfig
    | SeriesPreprocessConfig
    | ArraysPreprocessConfig
    | TablePreprocessConfig
    | FramePairPreprocessConfig
    | FlowPreprocessConfig
    | PixelsPreprocessConfig
    | ClassMapPreprocessConfig,
    Field(discriminator="kind"),
]
AugmentConfig = Annotated[
    ImageAugmentConfig
    | AudioAugmentConfig
    | VideoAugmentConfig
    | PointsAugmentConfig
    | TextAugmentConfig
    | SeriesAugmentConfig
    | ArraysAugmentConfig
    | TableAugmentConfig
    | PairAugmentConfig,
    Field(discriminator="kind"),
]

# What reads a configuration of some kind, and the kind of augmentation that fits it.
_READERS: dict[str, tuple[Any, str]] = {
    "image": (Pictures, "image"),
    "wave": (WaveAudio, "audio"),
    "mel": (MelAudio, "audio"),
    "video": (VideoClips, "video"),
    "points": (PointClouds, "points"),
    "text": (TextBytes, "text"),
    "series": (SeriesWindows, "series"),
    "array": (ArrayValues, "array"),
    "table": (TableVectors, "table"),
    "frame_pair": (FramePairs, "pair"),
    "flow": (FlowFields, "pair"),
    "pixels": (PixelValues, "image"),
    "class_map": (ClassMaps, "image"),
}

_CUT = ("frame_pair", "flow")  # what belongs together, pixel by pixel


def build_modality(preprocess: Any, augment: Any = None) -> Modality:
    """Return what reads the cells of one modality.

    Args:
        preprocess: Its `PreprocessConfig`.
        augment: Its `AugmentConfig`. None: nothing is random.

    Raises:
        ValueError: If the two are of different modalities.
    """
    reader, fitting = _READERS[preprocess.kind]
    if augment is not None and augment.kind != fitting:
        raise ValueError(
            f"Expected augmentation of kind '{fitting}' for '{preprocess.kind}', got '{augment.kind}'."
        )
    return reader(preprocess, augment)


def build_modalities(
    preprocess: Mapping[str, Any], augment: Mapping[str, Any] | None = None
) -> dict[str, Modality]:
    """Return what reads each modality, by its name.

    Raises:
        ValueError: If augmentation and modality do not fit each other, or frames and flow are not cut alike.
    """
    augment = augment or {}
    cut = {n: (part.size, augment.get(n)) for n, part in preprocess.items() if part.kind in _CUT}
    if len({repr(how) for how in cut.values()}) > 1:
        raise ValueError(
            f"{' and '.join(cut)} are cut to the same window, so they need one size and one augmentation; got "
            f"{' and '.join(f'{size} with {changes}' for size, changes in cut.values())}."
        )
    return {name: build_modality(part, augment.get(name)) for name, part in preprocess.items()}
