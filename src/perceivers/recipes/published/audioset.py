"""The 2021 paper's AudioSet experiments: audio, video, and both.

Not stated in the paper, and chosen here: optimizer, learning rate and batch size, the settings of the mel spectrogram
(60 frames of 80 bands make its 4,800 values), 64 bands for audio positions, and N x D (those of its ImageNet model).
Videos have 16 bands: with them the width is the published 487 = 384 + 3 (2 * 16 + 1) + 4.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from perceivers.data.base import DataConfig
from perceivers.data.modalities.audio.modality import (
    AudioAugmentConfig,
    MelPreprocessConfig,
    WavePreprocessConfig,
)
from perceivers.data.modalities.video.modality import VideoAugmentConfig, VideoPreprocessConfig
from perceivers.inputs.audio import SpectrogramInputConfig, WaveInputConfig
from perceivers.inputs.fusion import FusionConfig
from perceivers.inputs.positions import FourierPositionsConfig
from perceivers.inputs.video import VideoInputConfig
from perceivers.models.decoder import DecoderConfig, OutputConfig
from perceivers.models.encoder import PerceiverEncoderConfig
from perceivers.outputs.heads import LinearHeadConfig, MeanPoolConfig
from perceivers.outputs.queries import LearnedQueriesConfig
from perceivers.recipes.registry import OptimConfig, Recipe, TrainingConfig, recipe
from perceivers.tasks.multilabel import MultiLabelConfig

_RATE, _SECONDS = 48_000, 1.28  # 32 frames at 25 a second; 61,440 samples
_NUM_FRAMES, _SIZE = 32, (224, 224)
_RAW, _MEL, _VIDEO = "raw", "mel", "video"


@recipe
def audioset_raw() -> Recipe:
    """Raw audio: 480 elements of 128 samples.

    Run:      perceivers fit DATA --recipe audioset_raw --label labels
    Expected: 38.3 mAP as published (not reproduced here).
    Reference: Perceiver (arXiv:2103.03206), section 4.2 and table 3.
    """
    return _audioset("audioset_raw", {"audio": _RAW})


@recipe
def audioset_mel() -> Recipe:
    """Audio as a mel spectrogram: 4,800 elements of one value.

    Run:      perceivers fit DATA --recipe audioset_mel --label labels
    Expected: 38.4 mAP as published (not reproduced here).
    Reference: Perceiver (arXiv:2103.03206), section 4.2 and table 3.
    """
    return _audioset("audioset_mel", {"audio": _MEL})


@recipe
def audioset_video() -> Recipe:
    """Video without audio: 12,544 patches of 2 x 8 x 8.

    Run:      perceivers fit DATA --recipe audioset_video --columns video:video --label labels
    Expected: 25.8 mAP as published (not reproduced here).
    Reference: Perceiver (arXiv:2103.03206), section 4.2 and table 3.
    """
    return _audioset("audioset_video", {"video": _VIDEO})


@recipe
def audioset_av_raw() -> Recipe:
    """Video with raw audio: 13,024 elements of 487 channels.

    Run:      perceivers fit DATA --recipe audioset_av_raw --columns video:film --label labels
    Expected: 43.5 mAP as published (not reproduced here).
    Reference: Perceiver (arXiv:2103.03206), section 4.2 and table 3; in 30 % of the samples the video is zeroed.
    """
    return _audioset("audioset_av_raw", {"audio": _RAW, "video": _VIDEO}, dropout={"video": 0.3})


@recipe
def audioset_av_mel() -> Recipe:
    """Video with a mel spectrogram of its audio: 17,344 elements of 487 channels.

    Run:      perceivers fit DATA --recipe audioset_av_mel --columns video:film --label labels
    Expected: 43.2 mAP as published (not reproduced here).
    Reference: Perceiver (arXiv:2103.03206), section 4.2 and table 3; in 30 % of the samples the video is zeroed.
    """
    return _audioset("audioset_av_mel", {"audio": _MEL, "video": _VIDEO}, dropout={"video": 0.3})


@recipe
def audioset_av_mel_tuned() -> Recipe:
    """As `audioset_av_mel`, without SpecAugment and with the spectrogram zeroed in 10 % of the samples.

    Run:      perceivers fit DATA --recipe audioset_av_mel_tuned --columns video:film --label labels
    Expected: 44.2 mAP as published (not reproduced here).
    Reference: Perceiver (arXiv:2103.03206), section 4.2 and table 3, the last row.
    """
    made = _audioset(
        "audioset_av_mel_tuned",
        {"audio": _MEL, "video": _VIDEO},
        dropout={"video": 0.3, "audio": 0.1},
    )
    plain = replace(_audio_augment(_MEL), time_masks=0, frequency_masks=0)
    return replace(made, augment={**made.augment, "audio": plain})


def _audio_augment(form: str) -> AudioAugmentConfig:
    """Return the augmentation of audio: random clips only, and SpecAugment for spectrograms."""
    masks = 2 if form == _MEL else 0
    return AudioAugmentConfig(time_masks=masks, frequency_masks=masks, gain=0.0, polarity=False)


def _parts(form: str) -> tuple[Any, Any, Any]:
    """Return adapter, preprocessing and augmentation of a modality."""
    audio_positions = FourierPositionsConfig(num_bands=64)
    if form == _RAW:
        return (
            WaveInputConfig(num_samples=61_440, patch=128, positions=audio_positions),
            WavePreprocessConfig(sample_rate=_RATE, seconds=_SECONDS, scale=1.0),
            _audio_augment(form),
        )
    if form == _MEL:
        return (
            SpectrogramInputConfig(size=(60, 80), positions=audio_positions),
            MelPreprocessConfig(
                sample_rate=_RATE,
                seconds=_SECONDS,
                num_mels=80,
                window=2048 / _RATE,
                hop=1024 / _RATE,
            ),
            _audio_augment(form),
        )
    return (
        VideoInputConfig(
            num_frames=_NUM_FRAMES,
            size=_SIZE,
            patch=(2, 8, 8),
            positions=FourierPositionsConfig(num_bands=16),
        ),
        VideoPreprocessConfig(num_frames=_NUM_FRAMES, frame_rate=25.0, size=_SIZE),
        VideoAugmentConfig(crop_scale=(0.08, 1.0)),
    )


def _audioset(
    name: str, forms: Mapping[str, str], *, dropout: Mapping[str, float] | None = None
) -> Recipe:
    parts = {modality: _parts(form) for modality, form in forms.items()}
    return Recipe(
        name=name,
        inputs={modality: part[0] for modality, part in parts.items()},
        # The ImageNet model with 2 cross-attends and 2 blocks of 8 layers, nothing shared.
        encoder=PerceiverEncoderConfig(
            num_latents=512,
            latent_channels=1024,
            num_cross_attends=2,
            num_blocks=2,
            num_self_attends_per_block=8,
            share_cross_attends="none",
            share_blocks=False,
        ),
        output=MeanPoolConfig(num_outputs=527),
        task=MultiLabelConfig(),
        preprocess={modality: part[1] for modality, part in parts.items()},
        fusion=FusionConfig(min_padding=4, modality_dropout=dict(dropout or {}), dropped="zeroed"),
        data=DataConfig(target="labels", clips=16),
        augment={modality: part[2] for modality, part in parts.items()},
        # The paper states 100 epochs only; the rest is that of Perceiver IO's ImageNet training.
        optim=OptimConfig(name="lamb", lr=2e-3, weight_decay=0.1, clip_norm=10.0),
        training=TrainingConfig(batch_size=1024, max_epochs=100),
    )


@recipe
def audioset_io_raw() -> Recipe:
    """Video with raw audio: 13,024 elements of 487 channels, 512 latents of 512.

    Run:      perceivers fit DATA --recipe audioset_io_raw --columns video:film --label labels
    Expected: 43.3 mAP as published (not reproduced here); 24,922,228 weights besides the modality
              embeddings; 52.7 GFLOPs (52.9 are published).
    Reference: Perceiver IO (arXiv:2107.14795), appendix C and table 6; in 30 % of the samples the video is zeroed, as
              in Perceiver (arXiv:2103.03206), section 4.2.
    """
    return _with_query(audioset_av_raw(), name="audioset_io_raw", latent_channels=512)


@recipe
def audioset_io_mel() -> Recipe:
    """Video with a mel spectrogram of its audio: 17,344 elements of 487 channels, 512 latents of 1,024.

    Run:      perceivers fit DATA --recipe audioset_io_mel --columns video:film --label labels
    Expected: 44.9 mAP as published (not reproduced here); 86,568,052 weights besides the modality
              embeddings (88.2 M are published); 129.3 GFLOPs (129.5 are published).
    Reference: Perceiver IO (arXiv:2107.14795), appendix C and table 6; in 30 % of the samples the video is zeroed, as
              in Perceiver (arXiv:2103.03206), section 4.2.
    """
    return _with_query(audioset_av_mel(), name="audioset_io_mel", latent_channels=1024)


def _with_query(base: Recipe, *, name: str, latent_channels: int) -> Recipe:
    """Return the experiment with one cross-attend, 12 layers and an output query of 1,024 channels."""
    label = OutputConfig(
        queries=LearnedQueriesConfig(num_queries=1, channels=1024),
        head=LinearHeadConfig(num_outputs=527),
    )
    return replace(
        base,
        name=name,
        encoder=PerceiverEncoderConfig(
            num_latents=512,
            latent_channels=latent_channels,
            num_cross_attends=1,
            num_blocks=1,
            num_self_attends_per_block=12,
        ),
        output=DecoderConfig(outputs={"label": label}, use_query_residual=True),
    )
