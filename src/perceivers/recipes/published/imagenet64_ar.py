"""The Perceiver AR paper's ImageNet experiment, in the configuration of DeepMind's release."""

from perceivers.data.base import DataConfig
from perceivers.data.modalities.image.modality import ImagePreprocessConfig
from perceivers.inputs.tokens import PixelTokenInputConfig
from perceivers.models.autoregressive import NextTokenConfig
from perceivers.models.perceiver_ar_config import PerceiverARConfig
from perceivers.recipes.registry import OptimConfig, Recipe, TrainingConfig, recipe
from perceivers.tasks.next_token import NextTokenTaskConfig
from perceivers.tasks.pixel_vocabulary import PixelVocabulary

_SIDE, _CHANNELS, _LATENTS, _STEPS = 64, 3, 1024, 750_000


@recipe
def imagenet64_ar() -> Recipe:
    """Perceiver AR on images of 64 x 64 pixels: 12,288 bytes, 1,024 latents, 60 layers.

    The loss is the mean over bytes, that of DeepMind's release their sum, on which its clipping of gradients acts.

    Run:      perceivers fit DATA --recipe imagenet64_ar
    Expected: 3.40 bits per dimension as published (not reproduced here); 770,094,339 weights.
    Reference: Perceiver AR (arXiv:2202.07765), section 5.2; sizes, positions and training as in DeepMind's release.
    """
    return Recipe(
        name="imagenet64_ar",
        inputs={"image": PixelTokenInputConfig(size=(_SIDE, _SIDE), num_channels=_CHANNELS)},
        encoder=PerceiverARConfig(
            vocab_size=PixelVocabulary().size,
            max_length=_SIDE * _SIDE * _CHANNELS + 1,  # an image and its start
            num_latents=_LATENTS,
            channels=1024,
            num_heads=16,
            num_layers=60,
            positions="learned",
            axes=(_SIDE + 2, _SIDE + 2, _CHANNELS + 2),
            rotary=None,
            residual_dropout=0.1,
        ),
        output=NextTokenConfig(),
        task=NextTokenTaskConfig(
            modality="image", vocabulary=PixelVocabulary(), shortest_crop=_LATENTS
        ),
        preprocess={"image": ImagePreprocessConfig(resize="tensorflow")},
        data=DataConfig(target="nothing"),
        optim=OptimConfig(
            name="adamw",
            lr=3e-4,
            eps=1e-8,
            weight_decay=0.0,
            clip_norm=1.0,
            schedule="constant_cosine",
            constant_fraction=700 / 750,
            warmup_steps=10_000,
        ),
        training=TrainingConfig(batch_size=2048, max_steps=_STEPS),
    )
