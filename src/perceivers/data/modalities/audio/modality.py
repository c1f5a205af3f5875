"""Sounds as a modality: decoded, cut to clips, augmented in training; as a waveform or a mel spectrogram."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.audio.augment import AudioAugmentConfig, augment_samples, mask_axis
from perceivers.data.modalities.audio.decode import (
    Sound,
    cut_sound,
    decode_sound,
    resample,
    sound_header,
)
from perceivers.data.modalities.audio.mel import MelPreprocessConfig, log_mel
from perceivers.data.modalities.base import DecodedValue, stack_padded
from perceivers.typing import Bool, Float, Tensor

Values = npt.NDArray[np.float32]

# For own data: speech and most sounds of nature are told by what lies below 8 kHz.
HIGHEST_RATE = 16_000
LONGEST = 5.0  # seconds of a clip where its length is taken from the data
MOST_SECONDS = 1800.0  # decoded for statistics
LEAST_DEVIATION = 1e-5  # silent data have no deviation to divide by; a third of a step of 16 bit


@dataclass(frozen=True, kw_only=True)
class WavePreprocessConfig:
    """What turns a sound into samples when nothing is random. Saved with the model.

    Attributes:
        sample_rate: Samples a second. None: taken from the data before the model is built.
        seconds: Length of a clip. None: taken from the data.
        num_channels: 1: the mean of all channels.
        scale: Samples, from -1 to 1, are divided by it. None: their deviation in the training data.

    Raises:
        ValueError: If a setting does not make sense.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Literal["wave"] = "wave"
    sample_rate: int | None = None
    seconds: float | None = None
    num_channels: int = 1
    scale: float | None = None

    def __post_init__(self) -> None:
        for name in ("sample_rate", "seconds", "num_channels", "scale"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"Expected {name} above 0 of a waveform, got {value}.")

    @property
    def num_samples(self) -> int:
        """Samples of a clip.

        Raises:
            ValueError: If `sample_rate` or `seconds` is still unknown.
        """
        if self.sample_rate is None or self.seconds is None:
            raise ValueError(
                "Expected sample_rate in Hz and seconds, the length of a clip; got sample_rate="
                f"{self.sample_rate} and seconds={self.seconds}: they are taken from the data first."
            )
        return max(1, round(self.sample_rate * self.seconds))


_Config = TypeVar("_Config", WavePreprocessConfig, MelPreprocessConfig)


class _Audio:
    """What both have in common: decoding and cutting clips. See `perceivers.data.modalities.base.Modality`."""

    has_clips = True

    def __init__(
        self,
        sample_rate: int,
        seconds: float,
        num_channels: int,
        augment: AudioAugmentConfig | None,
    ) -> None:
        self.sample_rate = sample_rate
        self.seconds = seconds
        self.num_channels = num_channels
        self.augment = augment

    def decode(self, media: EncodedItem, *, clip_position: float | None = None) -> DecodedValue:
        """Return a `Sound` of the configured rate and channels.

        Args:
            media: A file, its bytes or decoded samples with their rate.
            clip_position: Decode only the clip there, where that is cheaper. None: everything.

        Raises:
            MissingValueError: If the cell is empty, or a film without a sound track.
            ValueError: If it cannot be decoded. The message names the file and the reason.
        """
        spare = 0.0 if self.augment is None else self.augment.speed  # a faster clip needs more
        return decode_sound(
            media,
            sample_rate=self.sample_rate,
            num_channels=self.num_channels,
            seconds=self.seconds * (1 + spare),
            clip_position=clip_position,
        )

    def clip(self, sound: Sound, clip_position: float, rng: np.random.Generator | None) -> Values:
        """Return the clip at a moment, n x channels, with augmentation if there is chance."""
        if self.augment is None or rng is None:
            return cut_sound(sound, clip_position=clip_position, seconds=self.seconds)
        share = self.augment.speed
        speed = rng.uniform(1 - share, 1 + share)
        clip = cut_sound(sound, clip_position=clip_position, seconds=self.seconds * speed)
        if share:
            clip = resample(clip, self.sample_rate * speed, self.sample_rate, "MQ")
            clip = clip[: max(1, round(self.seconds * self.sample_rate))]
        return augment_samples(clip, self.augment, rng)


class WaveAudio(_Audio):
    """How cells become samples of sound. See `perceivers.data.modalities.base.Modality`.

    Args:
        preprocess: Rate, length and scale.
        augment: What is random. None: nothing.

    Raises:
        ValueError: If the configuration is not complete.
    """

    def __init__(
        self, preprocess: WavePreprocessConfig, augment: AudioAugmentConfig | None = None
    ) -> None:
        self.num_samples = preprocess.num_samples
        if preprocess.sample_rate is None or preprocess.seconds is None or preprocess.scale is None:
            raise ValueError(
                "Expected the scale of the samples, got scale=None: it is taken from the data first."
            )
        super().__init__(
            preprocess.sample_rate, preprocess.seconds, preprocess.num_channels, augment
        )
        self.preprocess = preprocess
        self.factor = np.float32(1 / preprocess.scale)

    def prepare(
        self, value: Sound, *, clip_position: float = 0.5, rng: np.random.Generator | None = None
    ) -> Values:
        """Return a clip's samples divided by `scale`: L x channels. A shorter recording is there as a whole.

        Args:
            value: Of `decode`.
            clip_position: Where the clip lies: 0 the first possible, 1 the last.
            rng: Where augmentation takes its chance from. None: nothing is random.
        """
        values = self.clip(value, clip_position, rng) * self.factor
        if self.augment is not None and rng is not None:
            masks, share = self.augment.time_masks, self.augment.time_share
            mask_axis(values, 0, masks=masks, share=share, rng=rng)
        return values

    def collate(
        self, samples: Sequence[Values | None]
    ) -> tuple[Float[Tensor, "B L Ci"], Bool[Tensor, "B L"] | None]:
        """Return clips as B x L x channels, as long as the longest, and which samples are real."""
        like = (self.num_samples, self.num_channels)
        return stack_padded(samples, like=like, dtype=np.float32)


class MelAudio(_Audio):
    """How cells become mel spectrograms. See `perceivers.data.modalities.base.Modality`.

    Args:
        preprocess: Rate, length, frames, bands and statistics.
        augment: What is random. None: nothing.

    Raises:
        ValueError: If the configuration is not complete.
    """

    def __init__(
        self, preprocess: MelPreprocessConfig, augment: AudioAugmentConfig | None = None
    ) -> None:
        self.num_frames = preprocess.num_frames
        rate, seconds = preprocess.sample_rate, preprocess.seconds
        mean, std = preprocess.mean, preprocess.std
        if rate is None or seconds is None or mean is None or std is None:
            raise ValueError(
                "Expected mean and std of the mel spectrograms, got "
                f"mean={mean} and std={std}: they are taken from the data first."
            )
        super().__init__(rate, seconds, 1, augment)
        self.preprocess = preprocess
        self.mean, self.factor = np.float32(mean), np.float32(1 / std)

    def prepare(
        self, value: Sound, *, clip_position: float = 0.5, rng: np.random.Generator | None = None
    ) -> Values:
        """Return a clip's normalized spectrogram: frames x bands. A shorter recording has fewer frames.

        Args:
            value: Of `decode`.
            clip_position: Where the clip lies: 0 the first possible, 1 the last.
            rng: Where augmentation takes its chance from. None: nothing is random.
        """
        clip = self.clip(value, clip_position, rng)
        values = log_mel(clip[:, 0], self.preprocess)
        values -= self.mean
        values *= self.factor
        augment = self.augment
        if augment is not None and rng is not None:
            masks, share = augment.time_masks, augment.time_share
            mask_axis(values, 0, masks=masks, share=share, rng=rng)
            masks, share = augment.frequency_masks, augment.frequency_share
            mask_axis(values, 1, masks=masks, share=share, rng=rng)
        return values

    def collate(
        self, samples: Sequence[Values | None]
    ) -> tuple[Float[Tensor, "B L F"], Bool[Tensor, "B L"] | None]:
        """Return spectrograms as B x L x bands, as long as the longest, and which frames are real."""
        like = (self.num_frames, self.preprocess.num_mels)
        return stack_padded(samples, like=like, dtype=np.float32)


def measure_audio(
    cells: Iterable[EncodedItem],
    config: _Config,
    *,
    highest_rate: int = HIGHEST_RATE,
    longest: float = LONGEST,
) -> _Config:
    """Return a configuration in which what was None is taken from a sample of the training data.

    Args:
        cells: Some cells, in an order that does not go through the classes. All headers are read; of the sounds as
            many as half an hour holds.
        config: What is stated stays as it is.
        highest_rate: The sample rate is the commonest of the data, but not above this.
        longest: The clip's length is that which 95 % of the recordings do not exceed, in steps of 0.1 s, but not
            above these seconds.

    Raises:
        ValueError: If none of the sounds can be read.
    """
    cells = list(cells)
    if config.sample_rate is None or config.seconds is None:
        rate, seconds = config.sample_rate, config.seconds
        headers = list(_read(cells, sound_header))
        common = Counter(header.sample_rate for header in headers).most_common(1)[0][0]
        lengths = [h.seconds for h in headers if h.seconds is not None]
        usual = float(np.quantile(lengths, 0.95)) if lengths else longest
        config = replace(
            config,
            sample_rate=min(common, highest_rate) if rate is None else rate,
            # Rounded first: 1.1 s of samples may be 1.1000000001.
            seconds=max(0.1, math.ceil(round(min(longest, usual) * 10, 3)) / 10)
            if seconds is None
            else seconds,
        )
    if isinstance(config, WavePreprocessConfig):
        return config if config.scale is not None else _with_scale(cells, config)
    return config if None not in (config.mean, config.std) else _with_statistics(cells, config)


def _with_scale(cells: list[EncodedItem], config: WavePreprocessConfig) -> WavePreprocessConfig:
    _, deviation = _moments(cells, WaveAudio(replace(config, scale=1.0)))
    return replace(config, scale=_digits(max(deviation, LEAST_DEVIATION)))


def _with_statistics(cells: list[EncodedItem], config: MelPreprocessConfig) -> MelPreprocessConfig:
    mean, deviation = _moments(cells, MelAudio(replace(config, mean=0.0, std=1.0)))
    return replace(
        config,
        mean=_digits(mean) if config.mean is None else config.mean,
        std=_digits(max(deviation, LEAST_DEVIATION)) if config.std is None else config.std,
    )


def _moments(cells: list[EncodedItem], audio: WaveAudio | MelAudio) -> tuple[float, float]:
    """Return mean and standard deviation of the values of clips from the middle of some recordings."""
    count, total, squares, seconds = 0, 0.0, 0.0, 0.0

    def prepared(media: EncodedItem) -> Values:
        return audio.prepare(audio.decode(media, clip_position=0.5).value)

    for values in _read(cells, prepared):
        count += values.size
        total += float(values.sum(dtype=np.float64))
        squares += float(np.square(values, dtype=np.float64).sum())
        seconds += audio.seconds
        if seconds > MOST_SECONDS:
            break
    mean = total / count
    return mean, math.sqrt(max(squares / count - mean**2, 0.0))


def _digits(number: float) -> float:
    """Return a number of four digits, for a file that people read."""
    return float(f"{number:.4g}")


def _read(cells: list[EncodedItem], read: Any) -> Iterator[Any]:
    """Yield what is read of those cells that can be read.

    Raises:
        ValueError: If none can.
    """
    first: Exception | None = None
    readable = False
    for media in cells:
        try:
            value = read(media)
        except (ValueError, OSError) as error:
            first = first or error
            continue
        readable = True
        yield value
    if not readable:
        msg = f"No sound of a sample of {len(cells)} can be read. "
        raise ValueError(msg + str(first or "It holds no rows."))
