"""Perceiver IO as an autoencoder: several modalities reconstructed from one small latent array."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from perceivers.data.base import DataConfig
from perceivers.data.modalities.array.modality import ArrayAugmentConfig, ArrayPreprocessConfig
from perceivers.data.modalities.audio.modality import AudioAugmentConfig, WavePreprocessConfig
from perceivers.data.modalities.image.modality import ImageAugmentConfig, ImagePreprocessConfig
from perceivers.data.modalities.series.modality import SeriesAugmentConfig, SeriesPreprocessConfig
from perceivers.data.modalities.video.modality import VideoAugmentConfig, VideoPreprocessConfig
from perceivers.inputs.array import ArrayInputConfig
from perceivers.inputs.audio import WaveInputConfig
from perceivers.inputs.fusion import FusionConfig
from perceivers.inputs.image import PatchInputConfig
from perceivers.inputs.label import LabelInputConfig
from perceivers.inputs.positions import FourierPositionsConfig
from perceivers.inputs.series import SeriesInputConfig
from perceivers.inputs.video import VideoInputConfig
from perceivers.models.decoder import DecoderConfig, OutputConfig
from perceivers.models.encoder import PerceiverEncoderConfig
from perceivers.outputs.heads import LinearHeadConfig
from perceivers.outputs.queries import FourierQueriesConfig, LearnedQueriesConfig
from perceivers.recipes.common import SIZES, own_optim
from perceivers.recipes.registry import OptimConfig, Recipe, TrainingConfig, recipe
from perceivers.tasks.autoencode import AutoencodeConfig
from perceivers.tasks.reconstruction import ReconstructionConfig
from perceivers.tasks.reconstruction_task import LABEL

_AUTO = FourierPositionsConfig(num_bands=None)

# Why other modalities are not reconstructed.
_REFUSED = {
    "text": "masked language modeling is the task for text: --recipe mlm_bytes",
    "points": "their order means nothing, so no query can address one of them",
    "table": "numbers and categories have no common error",
}


class _Kind(NamedTuple):
    """Configuration of one modality: input, preprocessing, augmentation, reconstruction and output queries."""

    input: Any
    preprocess: Any
    augment: Any
    part: ReconstructionConfig
    queries: Any


_KINDS = {
    "image": _Kind(
        PatchInputConfig(size=None, patch=(4, 4), positions=_AUTO),
        ImagePreprocessConfig(),
        ImageAugmentConfig(crop_scale=None, flip=True),
        ReconstructionConfig(patch=(4, 4), num_train_queries=128),
        FourierQueriesConfig(size=None, num_bands=None),
    ),
    "audio": _Kind(
        WaveInputConfig(patch=64, positions=FourierPositionsConfig(num_bands=32)),
        WavePreprocessConfig(),
        AudioAugmentConfig(time_masks=0, frequency_masks=0),
        ReconstructionConfig(patch=(64,), num_train_queries=64),
        FourierQueriesConfig(size=None, num_bands=32),
    ),
    "video": _Kind(
        VideoInputConfig(num_frames=None, size=None, patch=(1, 4, 4), positions=_AUTO),
        VideoPreprocessConfig(),
        VideoAugmentConfig(
            crop_scale=None, flip=False, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0
        ),
        ReconstructionConfig(patch=(1, 4, 4), num_train_queries=192),
        FourierQueriesConfig(size=None, num_bands=None),
    ),
    "series": _Kind(
        SeriesInputConfig(length=None, num_channels=None, patch=4, positions=_AUTO),
        SeriesPreprocessConfig(),
        SeriesAugmentConfig(jitter=0.0),
        ReconstructionConfig(patch=(4,), num_train_queries=128),
        FourierQueriesConfig(size=None, num_bands=None),
    ),
    "array": _Kind(
        ArrayInputConfig(length=None, num_channels=None, num_coordinates=None),
        ArrayPreprocessConfig(),
        ArrayAugmentConfig(),
        ReconstructionConfig(patch=(1,), num_train_queries=256),
        LearnedQueriesConfig(num_queries=1, channels=64),
    ),
}


def _check_kinds(kinds: Mapping[str, str]) -> None:
    """Refuse modalities that cannot be reconstructed."""
    for name, kind in kinds.items():
        if kind not in _KINDS:
            why = _REFUSED.get(kind, "it has no output queries")
            raise ValueError(
                f"'{name}' ({kind}) cannot be reconstructed by an autoencoder: {why}. It reconstructs "
                f"{', '.join(_KINDS)}; leave '{name}' out with --columns."
            )


def autoencoder_for(
    kinds: Mapping[str, str], size: str = "tiny", *, has_label: bool = False
) -> Recipe:
    """Return a recipe that reconstructs these modalities together, with `has_label` also the class of a sample.

    Raises:
        ValueError: If one of them cannot be reconstructed, or there is none.
    """
    _check_kinds(kinds)
    parts = {name: _KINDS[kind] for name, kind in kinds.items()}
    dials = SIZES[size]
    inputs: dict[str, Any] = {name: part.input for name, part in parts.items()}
    outputs = {
        name: OutputConfig(queries=part.queries, head=LinearHeadConfig(num_outputs=None))
        for name, part in parts.items()
    }
    if has_label:
        inputs[LABEL] = LabelInputConfig(num_classes=None)
        queries = LearnedQueriesConfig(channels=32)
        outputs[LABEL] = OutputConfig(queries=queries, head=LinearHeadConfig(num_outputs=None))
    width = dials.latent_channels
    return Recipe(
        name="autoencode",
        inputs=inputs,
        encoder=PerceiverEncoderConfig(
            num_latents=dials.num_latents,
            latent_channels=width,
            num_cross_attends=1,
            num_blocks=1,
            num_self_attends_per_block=dials.num_self_attends_per_block,
            num_cross_attend_heads=4,
            num_self_attend_heads=width // 32,
            cross_attend_qk_channels=width // 2,
            cross_attend_v_channels=width,
        ),
        output=DecoderConfig(
            outputs=outputs,
            num_heads=16,
            qk_channels=width // 2,
            v_channels=width,
            min_padding=3 * width // 4,
        ),
        task=AutoencodeConfig(
            parts={name: part.part for name, part in parts.items()},
            label_weight=1e-4 if has_label else None,
        ),
        preprocess={
            name: replace(part.preprocess, max_side=dials.largest_image)
            if hasattr(part.preprocess, "max_side")
            else part.preprocess
            for name, part in parts.items()
        },
        fusion=FusionConfig(dropped="token", modality_dropout={LABEL: 0.5} if has_label else {}),
        data=DataConfig(target="auto" if has_label else "nothing"),
        augment={name: part.augment for name, part in parts.items()},
        optim=own_optim((4 if size == "tiny" else 2) * dials.lr),
        training=TrainingConfig(batch_size=dials.batch_size // 16),
    )


@recipe(sizes=SIZES)
def autoencode(size: str = "tiny") -> Recipe:
    """Your own images, videos, audio, series and arrays, reconstructed from a small latent array.

    Video, audio and a class are an example: `fit` replaces them by the modalities of the data. Classes are one more
    modality to reconstruct; --target nothing leaves them out.

    Run:      perceivers fit DATA --recipe autoencode
    Expected: docs/results/autoencoding.md has videos of a talker.
    Reference: Ours, of the parts of Perceiver IO (arXiv:2107.14795), section 4.3.
    """
    return autoencoder_for({"audio": "audio", "video": "video"}, size, has_label=True)


_KINETICS_ENCODER = PerceiverEncoderConfig(
    num_latents=784,
    latent_channels=512,
    num_cross_attends=1,
    num_blocks=1,
    num_self_attends_per_block=8,
    num_cross_attend_heads=1,
    num_self_attend_heads=8,
)


@recipe
def kinetics_autoencoder() -> Recipe:
    """Perceiver IO on 16 frames of 224 x 224 pixels, their audio and one of 700 classes, with 784 latents of 512.

    Bands, paddings and query positions are those of DeepMind's released weights. Optimizer, schedule and length of
    training are not stated in the paper; those here are ours.

    Run:      perceivers fit DATA --recipe kinetics_autoencoder
    Expected: 19,858,855 weights; video PSNR 24.37, audio PSNR 26.97, top-1 10.2 % as published (not reproduced here).
    Reference: Perceiver IO (arXiv:2107.14795), section 4.3, appendix I, table 3; widths as in DeepMind's release.
    """
    frames, side, samples, patch, classes = 16, 224, 16 * 1920, 16, 700
    finest = (frames, side // 4, side // 4)  # of patches, also for the queries of single pixels
    video = FourierPositionsConfig(num_bands=32, max_resolution=finest)
    audio = FourierPositionsConfig(num_bands=192, max_resolution=(samples,))
    return Recipe(
        name="kinetics_autoencoder",
        inputs={
            "audio": WaveInputConfig(num_samples=samples, patch=patch, positions=audio),
            LABEL: LabelInputConfig(num_classes=classes),
            "video": VideoInputConfig(
                num_frames=frames, size=(side, side), patch=(1, 4, 4), positions=video
            ),
        },
        encoder=_KINETICS_ENCODER,
        output=DecoderConfig(
            outputs={
                "audio": _grid_output((samples // patch,), 192, (samples,), patch),
                LABEL: OutputConfig(
                    queries=LearnedQueriesConfig(channels=1024),
                    head=LinearHeadConfig(num_outputs=classes),
                ),
                "video": _grid_output((frames, side, side), 32, finest, 3),
            },
            min_padding=2,
            project_channels=512,
        ),
        task=AutoencodeConfig(
            parts={
                "audio": ReconstructionConfig(weight=1.0, patch=(patch,), num_train_queries=512),
                "video": ReconstructionConfig(weight=0.03, patch=(1, 1, 1), num_train_queries=512),
            },
            label_weight=1e-4,
        ),
        # Pixels in [0, 1], samples in [-1, 1], 25 frames per second.
        preprocess={
            "audio": WavePreprocessConfig(sample_rate=48_000, seconds=frames / 25, scale=1.0),
            "video": VideoPreprocessConfig(
                num_frames=frames,
                frame_rate=25.0,
                size=(side, side),
                mean=(0.0, 0.0, 0.0),
                std=(1.0, 1.0, 1.0),
            ),
        },
        fusion=FusionConfig(dropped="token", modality_dropout={LABEL: 0.5}),
        optim=replace(OptimConfig(), name="lamb", lr=1e-3, schedule="cosine"),
        training=TrainingConfig(batch_size=1024, max_epochs=100),
    )


def _grid_output(
    size: tuple[int, ...], bands: int, finest: tuple[int, ...], values: int
) -> OutputConfig:
    """Return the queries of a grid, at the positions of DeepMind's release."""
    queries = FourierQueriesConfig(
        size=size, num_bands=bands, max_resolution=finest, last_included=False
    )
    return OutputConfig(queries=queries, head=LinearHeadConfig(num_outputs=values))
