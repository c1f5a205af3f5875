"""What a model was given of each modality, as a person would want to see it: normalization undone, axes in units."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = [
    "Cloud",
    "Content",
    "Fields",
    "Film",
    "Passage",
    "Picture",
    "Recording",
    "Spectrogram",
    "Values",
    "Wave",
]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """The region of a picture that the model saw.

    Attributes:
        pixels: Rows x columns x 3, as finely as the file allows.
    """

    pixels: npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Wave:
    """Samples of a sound.

    Attributes:
        samples: L x channels, mostly in [-1, 1].
        rate: Samples for each second, in Hz.
        step: Samples that an element covers.
    """

    samples: npt.NDArray[np.float32]
    rate: float
    step: int = 1


@dataclass(frozen=True, kw_only=True)
class Spectrogram:
    """A sound by time and frequency.

    Attributes:
        values: Frames x mels, in any unit of loudness.
        seconds: Length of the whole clip.
        hertz: Center of each mel band, in Hz. Empty where it is not known.
        step: Frames and bands that an element covers.
    """

    values: npt.NDArray[np.float32]
    seconds: float
    hertz: npt.NDArray[np.float32]
    step: tuple[int, int] = (1, 1)


@dataclass(frozen=True, kw_only=True)
class Film:
    """The frames of a clip.

    Attributes:
        frames: Frames x rows x columns x 3.
        rate: Frames for each second.
        step: Frames, rows and columns that an element covers.
    """

    frames: npt.NDArray[np.uint8]
    rate: float
    step: tuple[int, int, int] = (1, 1, 1)


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Points in space. Each is an element.

    Attributes:
        points: M x 3.
    """

    points: npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A text as UTF-8.

    Attributes:
        units: 0 to 255 is a byte; 256 and more stands for mark 0 and more, which is no part of the text.
        marks: What to call the marks.
        step: Bytes that an element covers.
    """

    units: npt.NDArray[np.int64]
    marks: tuple[str, ...] = ()
    step: int = 1


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Channels over time.

    Attributes:
        values: L x channels. NaN where nothing was measured.
        times: Of each step, in seconds; or its number, where no rate is known.
        channels: Their names.
        unit: `s`, or `step` where no rate is known.
        step: Steps that an element covers.
    """

    values: npt.NDArray[np.float32]
    times: npt.NDArray[np.float64]
    channels: tuple[str, ...]
    unit: str = "s"
    step: int = 1


@dataclass(frozen=True, kw_only=True)
class Values:
    """An array whose meaning nobody has told.

    Attributes:
        values: M x channels. NaN where nothing was measured.
    """

    values: npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Fields:
    """The fields of a row of a table. Each is an element.

    Attributes:
        fields: Their names.
        texts: What stands in them. Empty where nothing does.
    """

    fields: tuple[str, ...]
    texts: tuple[str, ...]


Content = Picture | Wave | Spectrogram | Film | Cloud | Passage | Recording | Values | Fields
