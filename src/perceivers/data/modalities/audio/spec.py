"""Registration of audio: as a mel spectrogram, or as a waveform."""

from collections.abc import Iterator

from perceivers.data.encoded_item import EncodedItem
from perceivers.data.modalities.audio.augment import AudioAugmentConfig
from perceivers.data.modalities.audio.decode import read_audio_header
from perceivers.data.modalities.audio.mel import MelPreprocessConfig
from perceivers.data.modalities.audio.modality import (
    MelModality,
    WaveformModality,
    WavePreprocessConfig,
)
from perceivers.data.registry import (
    ColumnKind,
    ModalitySpec,
    OwnDataSize,
    Preprocessing,
    UploadSize,
    register_modality,
)


def _upload_sizes(media: EncodedItem) -> Iterator[UploadSize]:
    seconds = read_audio_header(media).seconds
    if (
        seconds is not None
    ):  # some streams do not state it; the memory of the process is bounded too
        yield UploadSize(seconds, "seconds of audio", "seconds")


def _is_audio(data: bytes) -> bool:
    is_wav = data[:4] == b"RIFF" and data[8:12] == b"WAVE"
    return is_wav or data.startswith((b"fLaC", b"OggS", b"ID3", b"\xff\xfb"))


def _default_mel(_: OwnDataSize) -> tuple[MelPreprocessConfig, AudioAugmentConfig]:
    return MelPreprocessConfig(), AudioAugmentConfig(speed=0.1)


def _default_wave(_: OwnDataSize) -> tuple[WavePreprocessConfig, AudioAugmentConfig]:
    return WavePreprocessConfig(), AudioAugmentConfig(speed=0.1, noise=0.05)


register_modality(
    ModalitySpec(
        name="audio",
        noun="audio",
        preprocessing=(
            Preprocessing(MelPreprocessConfig, MelModality, _default_mel),
            Preprocessing(WavePreprocessConfig, WaveformModality, _default_wave),
        ),
        augment=AudioAugmentConfig,
        suffixes=("wav", "flac", "ogg", "oga", "mp3", "opus", "aif", "aiff", "m4a", "aac"),
        magic=_is_audio,
        column_kinds={"audio": ColumnKind("audio", stored_as=("video", "array"))},
        recipe="audio",
        mixup="blend",
        accepts=("video",),
        upload_sizes=_upload_sizes,
    )
)
