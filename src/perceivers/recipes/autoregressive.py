"""Recipes of autoregressive models of a user's own images and series."""

from perceivers.data.base import DataConfig
from perceivers.data.modalities.image.modality import ImageAugmentConfig, ImagePreprocessConfig
from perceivers.inputs.tokens import PixelTokenInputConfig
from perceivers.models.autoregressive import NextTokenConfig
from perceivers.models.perceiver_ar_config import PerceiverARConfig
from perceivers.recipes.common import own_optim
from perceivers.recipes.registry import Recipe, TrainingConfig, recipe
from perceivers.tasks.next_token import NextTokenTaskConfig
from perceivers.tasks.pixel_vocabulary import PixelVocabulary


@recipe(sizes=("tiny", "small"))
def image_ar(size: str = "tiny") -> Recipe:
    """Your own small images, pixel by pixel: a model that draws images and completes their first rows with `generate`.

    Images are resized to at most 32 x 32 pixels, unless `--inputs.image.size` is given; every color of a pixel is a
    token.

    Run:      perceivers fit DATA --recipe image_ar
              perceivers generate RUN --count 16 --out samples.png
    Expected: docs/results/perceiver_ar.md
    Reference: Perceiver AR (arXiv:2202.07765), section 5.2, with learned positions of rows, columns and channels as
              in DeepMind's release.
    """
    latents, channels, layers = {"tiny": (256, 128, 4), "small": (1024, 384, 8)}[size]
    return Recipe(
        name="image_ar",
        inputs={"image": PixelTokenInputConfig()},
        encoder=PerceiverARConfig(
            vocab_size=PixelVocabulary().size,
            max_length=latents + 1,  # until the size of the images is known
            num_latents=latents,
            channels=channels,
            num_heads=channels // 32,
            num_layers=layers,
            positions="learned",
            rotary=None,
        ),
        output=NextTokenConfig(),
        task=NextTokenTaskConfig(
            modality="image", vocabulary=PixelVocabulary(), shortest_crop=latents
        ),
        preprocess={"image": ImagePreprocessConfig(max_side=32)},
        augment={"image": ImageAugmentConfig(crop_scale=None, flip=False)},
        data=DataConfig(target="nothing"),
        optim=own_optim(1e-3),
        training=TrainingConfig(batch_size=32),
    )
