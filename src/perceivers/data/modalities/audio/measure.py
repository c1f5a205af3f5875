"""Measurements on audio of the training data: sample rate, length of a clip, mean and deviation of values."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.audio.decode import cut_audio, decode_audio, read_audio_header
from perceivers.data.modalities.base import read_cells

Values = npt.NDArray[np.float32]

# For a user's own data: speech and most audio of nature differ below 8 kHz.
HIGHEST_RATE = 16_000
LONGEST = 5.0  # seconds of a clip where its length is taken from the data
MOST_SECONDS = 1800.0  # decoded for statistics
LEAST_DEVIATION = 1e-5  # silent data have no deviation to divide by; a third of a step of 16 bit


def measure_clip(
    cells: Sequence[EncodedItem], sample_rate: int | None, seconds: float | None
) -> tuple[int, float]:
    """Return sample rate and seconds of a clip, from the headers of cells where one is open.

    The sample rate is the commonest one, but not above 16 kHz. The length is the 95th percentile in steps of 0.1 s, but
    not above 5 s.

    Raises:
        ValueError: If no cell can be read.
    """
    if sample_rate is not None and seconds is not None:
        return sample_rate, seconds
    common, length = usual_audio(cells)
    usual = LONGEST if length is None else length
    # Rounded first: 1.1 s of samples may be 1.1000000001.
    measured = max(0.1, math.ceil(round(min(LONGEST, usual) * 10, 3)) / 10)
    return sample_rate or min(common, HIGHEST_RATE), measured if seconds is None else seconds


def usual_audio(cells: Sequence[EncodedItem]) -> tuple[int, float | None]:
    """Return the most frequent sample rate, and the 95th percentile of the lengths in seconds, None if unknown.

    Raises:
        ValueError: If no cell can be read.
    """
    headers = list(read_cells(cells, read_audio_header, "audio"))
    common = Counter(header.sample_rate for header in headers).most_common(1)[0][0]
    lengths = [h.seconds for h in headers if h.seconds is not None]
    return common, float(np.quantile(lengths, 0.95)) if lengths else None


def measure_values(
    cells: Sequence[EncodedItem],
    config: Any,
    num_channels: int,
    transform: Callable[[Values], Values],
) -> tuple[float, float]:
    """Return mean and standard deviation, of four digits, of the values of clips from the middle of cells.

    Raises:
        ValueError: If no cell can be read.
    """

    def read(cell: EncodedItem) -> Values:
        audio = decode_audio(
            cell,
            sample_rate=config.sample_rate,
            num_channels=num_channels,
            seconds=config.seconds,
            clip_position=0.5,
        ).value
        return transform(cut_audio(audio, clip_position=0.5, seconds=config.seconds))

    count, total, squares, seconds = 0, 0.0, 0.0, 0.0
    for values in read_cells(cells, read, "audio"):
        count += values.size
        total += float(values.sum(dtype=np.float64))
        squares += float(np.square(values, dtype=np.float64).sum())
        seconds += config.seconds
        if seconds > MOST_SECONDS:
            break
    mean = total / count
    deviation = math.sqrt(max(squares / count - mean**2, 0.0))
    return _digits(mean), _digits(max(deviation, LEAST_DEVIATION))


def _digits(number: float) -> float:
    """Return a number of four digits, for a file that people read."""
    return float(f"{number:.4g}")
