"""Every input adapter by its configuration: the closed list from which a file can pick."""

from typing import Annotated, Any

from pydantic import Field

from perceivers.inputs.array import ArraysInputConfig, build_arrays_input
from perceivers.inputs.audio import (
    ConvSpectrogramInputConfig,
    ConvWaveInputConfig,
    SpectrogramInputConfig,
    WaveInputConfig,
    build_audio_input,
)
from perceivers.inputs.elements import InputAdapter
from perceivers.inputs.frame_pair import (
    ConvFramePairInput,
    ConvFramePairInputConfig,
    FramePairInput,
    FramePairInputConfig,
)
from perceivers.inputs.image import (
    ConvInputConfig,
    PatchInputConfig,
    PixelInputConfig,
    build_image_input,
)
from perceivers.inputs.label import LabelInput, LabelInputConfig
from perceivers.inputs.points import PointsInputConfig, build_points_input
from perceivers.inputs.series import (
    ConvSeriesInputConfig,
    SeriesInputConfig,
    build_series_input,
)
from perceivers.inputs.table import TableInputConfig, build_table_input
from perceivers.inputs.text import ConvTextInputConfig, TextInputConfig, build_text_input
from perceivers.inputs.video import ConvVideoInputConfig, VideoInputConfig, build_video_input

InputConfig = Annotated[
    PixelInputConfig
    | PatchInputConfig
    | ConvInputConfig
    | WaveInputConfig
    | ConvWaveInputConfig
    | SpectrogramInputConfig
    | ConvSpectrogramInputConfig
    | VideoInputConfig
    | ConvVideoInputConfig
    | PointsInputConfig
    | TextInputConfig
    | ConvTextInputConfig
    | SeriesInputConfig
    | ConvSeriesInputConfig
    | ArraysInputConfig
    | TableInputConfig
    | LabelInputConfig
    | FramePairInputConfig
    | ConvFramePairInputConfig,
    Field(discriminator="kind"),
]

_BUILDERS: dict[str, Any] = {
    **dict.fromkeys(("pixels", "patches", "convolved"), build_image_input),
    **dict.fromkeys(
        ("wave", "wave_convolved", "spectrogram", "spectrogram_convolved"), build_audio_input
    ),
    **dict.fromkeys(("video", "video_convolved"), build_video_input),
    "points": build_points_input,
    **dict.fromkeys(("bytes", "bytes_convolved"), build_text_input),
    **dict.fromkeys(("series", "series_convolved"), build_series_input),
    "array": build_arrays_input,
    "table": build_table_input,
    "label": LabelInput,
    "frame_pair": FramePairInput,
    "frame_pair_convolved": ConvFramePairInput,
}


def build_input(config: Any) -> InputAdapter:
    """Return the adapter for an `InputConfig`: a module, with parameters or without.

    Raises:
        ValueError: If sizes are not known yet.
    """
    return _BUILDERS[config.kind](config)
