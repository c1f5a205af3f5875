"""What a model was given of each modality, as a person would want to see it: normalization undone, axes in units."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


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


Letter = tuple[str, int, int]
"""What to write, and which elements it is made of: from, up to."""


def letters_of(passage: Passage) -> list[Letter]:
    """Return the letters of a text with the elements of each. Bytes that make no letter are written as hex."""
    letters: list[Letter] = []
    place, units = 0, passage.units
    while place < len(units):
        unit = int(units[place])
        if unit > 255:
            mark = unit - 256
            name = passage.marks[mark] if mark < len(passage.marks) else str(mark)
            letters.append((f"[{name}]", place, place + 1))
            place += 1
            continue
        length = 1 if unit < 0x80 else 2 if unit < 0xE0 else 3 if unit < 0xF0 else 4
        part = units[place : place + length]
        try:
            text = bytes(part.astype(np.uint8)).decode() if (part < 256).all() else None
        except UnicodeDecodeError:
            text = None
        if text is None:
            text, length = f"\\x{unit:02x}", 1
        letters.append((text, place, place + length))
        place += length
    return letters
