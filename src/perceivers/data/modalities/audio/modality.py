"""Audio as a modality: decoded, cut to clips and augmented; as a waveform or a mel spectrogram."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.audio.augment import AudioAugmentConfig, augment_samples, mask_axis
from perceivers.data.modalities.audio.decode import (
    Audio,
    cut_audio,
    decode_audio,
    read_audio_header,
    resample,
)
from perceivers.data.modalities.audio.measure import measure_clip, measure_values
from perceivers.data.modalities.audio.mel import MelPreprocessConfig, log_mel
from perceivers.data.modalities.base import (
    SAMPLED_CELLS,
    BasePreprocessConfig,
    CellSampler,
    DecodedValue,
    stack_padded,
)
from perceivers.data.modalities.video.decode import tracks
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

Values = npt.NDArray[np.float32]


@configclass
class WavePreprocessConfig(BasePreprocessConfig):
    """Preprocessing of audio into samples without randomness. Saved with the model.

    Attributes:
        sample_rate: Samples a second. None: taken from the data before the model is built.
        seconds: Length of a clip. None: taken from the data.
        num_channels: 1: the mean of all channels.
        scale: Samples, from -1 to 1, are divided by it. None: their deviation in the training data.

    Raises:
        ValueError: If a setting does not make sense.
    """

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

    def measure(self, cells: CellSampler) -> Self:
        """Return the configuration with sample rate, clip length and scale taken from the training data.

        Raises:
            ValueError: If no cell can be read.
        """
        sample = list(cells(SAMPLED_CELLS))
        rate, seconds = measure_clip(sample, self.sample_rate, self.seconds)
        config = replace(self, sample_rate=rate, seconds=seconds)
        if config.scale is not None:
            return config
        _, scale = measure_values(sample, config, config.num_channels, lambda clip: clip)
        return replace(config, scale=scale)

    def assumed(self) -> dict[str, Any]:
        """Return sizes that are assumed without data."""
        return {"sample_rate": 16_000, "seconds": 2.0}

    def input_fields(self) -> dict[str, Any]:
        """Return samples and channels of a clip."""
        return {"num_samples": self.num_samples, "num_channels": self.num_channels}

    def value_units(self) -> dict[str, Any]:
        """Return the units of samples in [-1, 1]."""
        std = () if self.scale is None else (self.scale,)
        return {"std": std, "low": -1.0, "high": 1.0}


class _Audio:
    """Base of both audio modalities: decoding and cutting of clips."""

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
        """Return an `Audio` of the configured rate and channels."""
        spare = 0.0 if self.augment is None else self.augment.speed  # a faster clip needs more
        return decode_audio(
            media,
            sample_rate=self.sample_rate,
            num_channels=self.num_channels,
            seconds=self.seconds * (1 + spare),
            clip_position=clip_position,
        )

    def clip(self, audio: Audio, clip_position: float, rng: np.random.Generator | None) -> Values:
        """Return the clip at a moment, n x channels, with augmentation if random numbers are given."""
        if self.augment is None or rng is None:
            return cut_audio(audio, clip_position=clip_position, seconds=self.seconds)
        share = self.augment.speed
        speed = rng.uniform(1 - share, 1 + share)
        clip = cut_audio(audio, clip_position=clip_position, seconds=self.seconds * speed)
        if share:
            clip = resample(clip, self.sample_rate * speed, self.sample_rate, "MQ")
            clip = clip[: max(1, round(self.seconds * self.sample_rate))]
        if self.augment.roll and audio.duration <= self.seconds and rng.random() < 0.5:
            clip = np.roll(clip, rng.integers(clip.shape[0]), axis=0)
        return augment_samples(clip, self.augment, rng)


class WaveformModality(_Audio):
    """Modality of samples of audio. See `perceivers.data.modalities.base.Modality`.

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

    def transform(
        self, value: Audio, *, clip_position: float = 0.5, rng: np.random.Generator | None = None
    ) -> Values:
        """Return a clip's samples divided by `scale`: L x channels. Shorter audio is returned as a whole."""
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


class MelModality(_Audio):
    """Modality of mel spectrograms. See `perceivers.data.modalities.base.Modality`.

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

    def transform(
        self, value: Audio, *, clip_position: float = 0.5, rng: np.random.Generator | None = None
    ) -> Values:
        """Return a clip's normalized spectrogram: frames x bands. Shorter audio has fewer frames."""
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


def _upload_sizes(media: EncodedItem) -> Iterator[UploadSize]:
    seconds = read_audio_header(media).seconds
    if (
        seconds is not None
    ):  # some streams do not state it; the memory of the process is bounded too
        yield UploadSize(seconds, "seconds of audio", "seconds")


_MAGIC = (
    *(
        b"fLaC",
        b"ID3",
        b".snd",
        b"caff",
        b"#!AMR",
        b"MAC ",
        b"TTA1",
        b"wvpk",
        b"MPCK",
        b"MP+",
        b"DSD ",
    ),
    *(b"Creative Voice File", b"\x0bw", b"\x7f\xfe\x80\x01", b"riff\x2e\x91\xcf\x11"),
)


def _is_audio(data: bytes) -> bool:
    form = data[8:12]
    is_wav = data[:4] in {b"RIFF", b"RF64"} and form == b"WAVE"
    is_aiff = data[:4] == b"FORM" and form in {b"AIFF", b"AIFC"}
    return is_wav or is_aiff or data.startswith(_MAGIC) or _is_mpeg(data) or tracks(data) == "audio"


def _is_mpeg(data: bytes) -> bool:
    """Return whether data begin with a frame of MP2, MP3 or AAC: 11 set bits, then valid fields."""
    if len(data) < 4 or data[0] != 0xFF or data[1] < 0xE0:
        return False
    version, layer, bitrate, rate = (
        data[1] >> 3 & 3,
        data[1] >> 1 & 3,
        data[2] >> 4,
        data[2] >> 2 & 3,
    )
    if layer == 0:  # AAC
        return data[1] >= 0xF0 and data[2] >> 2 & 15 < 13
    return layer < 3 and version != 1 and bitrate != 15 and rate != 3


def _default_mel(_: OwnDataSize) -> tuple[MelPreprocessConfig, AudioAugmentConfig]:
    return MelPreprocessConfig(), AudioAugmentConfig(speed=0.1)


def _default_wave(_: OwnDataSize) -> tuple[WavePreprocessConfig, AudioAugmentConfig]:
    return WavePreprocessConfig(), AudioAugmentConfig(speed=0.1, noise=0.05)


# 0.05 seconds of silence: 400 samples of one byte, 8000 in a second
_SILENT_WAV = (
    bytes.fromhex(
        "52494646b401000057415645666d74201000000001000100401f0000401f00000100080064617461"
    )
    + (400).to_bytes(4, "little")
    + b"\x80" * 400
)

register_modality(
    ModalitySpec(
        name="audio",
        noun="audio",
        example_file=_SILENT_WAV,
        preprocessing=(
            Preprocessing(MelPreprocessConfig, MelModality, _default_mel),
            Preprocessing(WavePreprocessConfig, WaveformModality, _default_wave),
        ),
        augment=AudioAugmentConfig,
        suffixes=(
            *(
                "wav",
                "wave",
                "flac",
                "ogg",
                "oga",
                "opus",
                "mp3",
                "mp2",
                "m4a",
                "m4b",
                "aac",
                "aif",
                "aiff",
                "aifc",
            ),
            *(
                "caf",
                "au",
                "snd",
                "w64",
                "rf64",
                "mka",
                "weba",
                "wma",
                "ac3",
                "eac3",
                "dts",
                "amr",
                "ape",
            ),
            *("tta", "wv", "mpc", "dsf", "voc", "ra"),
        ),
        magic=_is_audio,
        column_kinds={"audio": ColumnKind("audio", stored_as=("video", "array"))},
        recipe="audio",
        mixup="blend",
        accepts=("video",),
        upload_sizes=_upload_sizes,
    )
)
