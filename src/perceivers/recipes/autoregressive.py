"""Recipes of autoregressive models of a user's own images and series."""

from perceivers.data.base import DataConfig
from perceivers.data.modalities.image.modality import ImageAugmentConfig, ImagePreprocessConfig
from perceivers.data.modalities.series.modality import SeriesAugmentConfig, SeriesPreprocessConfig
from perceivers.inputs.tokens import PixelTokenInputConfig, SeriesTokenInputConfig
from perceivers.models.autoregressive import NextTokenConfig
from perceivers.models.perceiver_ar_config import PerceiverARConfig
from perceivers.nn.rotary import RotaryConfig
from perceivers.recipes.common import own_optim
from perceivers.recipes.registry import Recipe, TrainingConfig, recipe
from perceivers.tasks.next_token import NextTokenTaskConfig
from perceivers.tasks.pixel_vocabulary import PixelVocabulary
from perceivers.tasks.series_vocabulary import SeriesVocabulary


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
    latents, channels, heads, layers, lr = {
        "tiny": (256, 64, 4, 4, 3e-3),
        "small": (1024, 384, 12, 8, 1e-3),
    }[size]
    return Recipe(
        name="image_ar",
        inputs={"image": PixelTokenInputConfig()},
        encoder=PerceiverARConfig(
            vocab_size=PixelVocabulary().size,
            max_length=latents + 1,  # until the size of the images is known
            num_latents=latents,
            channels=channels,
            num_heads=heads,
            num_layers=layers,
            positions="learned",
            rotary=None,
            residual_dropout=0.1,
        ),
        output=NextTokenConfig(),
        task=NextTokenTaskConfig(
            modality="image", vocabulary=PixelVocabulary(), shortest_crop=latents
        ),
        preprocess={"image": ImagePreprocessConfig(max_side=32)},
        augment={"image": ImageAugmentConfig(crop_scale=None, flip=False)},
        data=DataConfig(target="nothing"),
        optim=own_optim(lr),
        training=TrainingConfig(batch_size=32),
    )


@recipe(sizes=("tiny", "small"))
def series_ar(size: str = "tiny") -> Recipe:
    """Your own series: a model that forecasts their next values with `generate`, as quantiles of sampled paths.

    A CSV or Parquet file is one series whose rows are its time steps in their order; its windows have random places in
    training. The last quarter of a window (`--task.vocabulary.horizon`) is predicted, each value from all before it.

    Run:      perceivers fit sales.csv --recipe series_ar
              perceivers generate RUN --prompt sales.csv --length 24 --out forecast.png
    Expected: docs/results/perceiver_ar.md
    Reference: Ours: Perceiver AR (arXiv:2202.07765) on values that are scaled and quantized as in Chronos
              (arXiv:2403.07815).
    """
    length, channels, layers = {"tiny": (128, 64, 3), "small": (512, 256, 6)}[size]
    return Recipe(
        name="series_ar",
        inputs={"series": SeriesTokenInputConfig()},
        encoder=PerceiverARConfig(
            vocab_size=SeriesVocabulary().size,
            max_length=length + 1,  # until the channels are known
            num_latents=length // 4,
            channels=channels,
            num_heads=4,
            num_layers=layers,
            positions="learned",
            axes=(2,),
            rotary=RotaryConfig(includes_end=True, max_wavelength=float(length)),
            residual_dropout=0.1,
        ),
        output=NextTokenConfig(),
        task=NextTokenTaskConfig(modality="series", vocabulary=SeriesVocabulary()),
        preprocess={"series": SeriesPreprocessConfig(length=length, use_times=False)},
        augment={"series": SeriesAugmentConfig(scale=0.0, jitter=0.0, shift=True)},
        data=DataConfig(target="nothing", series_files=True),
        optim=own_optim(1e-3),
        training=TrainingConfig(batch_size=32),
    )
