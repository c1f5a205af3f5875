"""Recipes for a user's own data: one per modality, several modalities, dense outputs, in sizes; and the digits."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from perceivers.data.base import DataConfig
from perceivers.data.modalities.image.modality import (
    ClassMapPreprocessConfig,
    ImageAugmentConfig,
    ImagePreprocessConfig,
    PixelsPreprocessConfig,
)
from perceivers.data.modalities.music.modality import MusicAugmentConfig, MusicPreprocessConfig
from perceivers.data.modalities.text.modality import TextAugmentConfig, TextPreprocessConfig
from perceivers.data.registry import find_defaults, find_modality, list_modalities
from perceivers.inputs.image import PatchInputConfig, PixelInputConfig
from perceivers.inputs.music import MusicTokenInputConfig
from perceivers.inputs.positions import FourierPositionsConfig
from perceivers.inputs.registry import default_input
from perceivers.inputs.tokens import TokenInputConfig
from perceivers.models.autoregressive import NextTokenConfig
from perceivers.models.decoder import DecoderConfig, OutputConfig
from perceivers.models.encoder import PerceiverEncoderConfig
from perceivers.models.perceiver_ar_config import PerceiverARConfig
from perceivers.nn.rotary import RotaryConfig
from perceivers.outputs.heads import LinearHeadConfig, MeanPoolConfig
from perceivers.outputs.queries import InputQueriesConfig
from perceivers.recipes.common import SIZES, Size, own_encoder, own_optim
from perceivers.recipes.published.language import byte_model
from perceivers.recipes.registry import Recipe, TrainingConfig, get_recipe, recipe
from perceivers.tasks.classification import ClassificationConfig
from perceivers.tasks.dense import PIXELS, ImageToImageConfig, SegmentationConfig
from perceivers.tasks.midi_tokens import MidiVocabulary
from perceivers.tasks.next_token import NextTokenTaskConfig
from perceivers.tasks.vocabulary import BaseVocabulary, ByteVocabulary


class Part(NamedTuple):
    """Input adapter, preprocessing and augmentation of one modality."""

    input: Any
    preprocess: Any
    augment: Any


def part_of(kind: str, size: Size) -> Part:
    """Return the defaults of a modality.

    Raises:
        ValueError: If the modality has no defaults.
    """
    preprocess, augment = find_defaults(kind)(size)
    return Part(default_input(preprocess.kind, size.stem_channels), preprocess, augment)


def recipe_for(kinds: Mapping[str, str], size: str = "tiny", *, name: str = "multimodal") -> Recipe:
    """Return a recipe for these modalities together; `kinds` are by name, see `part_of`."""
    dials = SIZES[size]
    parts = {modality: part_of(kind, dials) for modality, kind in kinds.items()}
    fine = any(find_modality(part.preprocess).fine_encoder for part in parts.values())
    return Recipe(
        name=name,
        inputs={modality: part.input for modality, part in parts.items()},
        encoder=own_encoder(dials, fine=fine),
        output=MeanPoolConfig(num_outputs=None),
        task=ClassificationConfig(label_smoothing=0.05),
        preprocess={modality: part.preprocess for modality, part in parts.items()},
        augment={modality: part.augment for modality, part in parts.items()},
        optim=own_optim(dials.lr * (2 if fine else 1)),
        training=TrainingConfig(batch_size=dials.batch_size),
        preset="default",
    )


def default_recipe(kinds: Mapping[str, str], size: str) -> Recipe:
    """Return the recipe that `fit` chooses for these modalities; `kinds` are by name, see `part_of`."""
    known = {spec.name: spec.recipe for spec in list_modalities()}
    name = known.get(next(iter(kinds.values())), "multimodal") if len(kinds) == 1 else "multimodal"
    made = recipe_for(kinds, size) if name == "multimodal" else get_recipe(name, size=size)
    return made if set(made.inputs) == set(kinds) else recipe_for(kinds, size)


def _behind_stem(made: Recipe, size: Size, *, lr: float, fewer: int) -> Recipe:
    """Return a recipe with a small encoder: behind a residual stem, few latents and layers learn as much.

    Args:
        made: Recipe of images or videos.
        size: Size of the recipe.
        lr: Factor of the learning rate.
        fewer: Divisor of the batch size.
    """
    encoder = own_encoder(size, fine=True)
    layers = size.num_self_attends_per_block // 2
    return replace(
        made,
        encoder=replace(
            encoder, num_latents=size.num_latents // 4, num_self_attends_per_block=layers
        ),
        task=ClassificationConfig(label_smoothing=0.1),
        optim=own_optim(lr * size.lr),
        training=replace(made.training, batch_size=size.batch_size // fewer),
    )


@recipe(sizes=SIZES)
def images(size: str = "tiny") -> Recipe:
    """Your own images, with a residual stem; image size, classes and epochs from the data.

    `tiny` is meant for a CPU, `small` for any GPU, `base` for a large one and many images.

    Run:      perceivers fit DATA --recipe images --size tiny
    Expected: CIFAR-10, tiny, 20 minutes on 2 CPU cores: 71.7 % (docs/results/cifar10.md).
    Reference: Ours, of the papers' parts: a stem before the cross-attends as in Perceiver IO (arXiv:2107.14795,
              appendix A.1), with levels and residual blocks (arXiv:1512.03385); the mean head is the 2021 paper's.
    """
    made = recipe_for({"image": "image"}, size, name="images")
    return _behind_stem(made, SIZES[size], lr=3, fewer=1)


@recipe(sizes=SIZES)
def audio(size: str = "tiny") -> Recipe:
    """Your own audio, as mel spectrograms with a residual stem.

    Sample rate, clip length and statistics come from the data; longer audio is cropped at random in training.

    Run:      perceivers fit DATA --recipe audio
    Expected: docs/results/audio.md has spoken digits and environmental audio.
    Reference: Ours, of the papers' parts; SpecAugment (arXiv:1904.08779).
    """
    return recipe_for({"audio": "audio"}, size, name="audio")


@recipe(sizes=SIZES)
def audio_raw(size: str = "tiny") -> Recipe:
    """Your own audio as raw samples: no spectrogram, a stem of three strided convolutions.

    Run:      perceivers fit DATA --recipe audio_raw
    Expected: docs/results/audio.md has spoken digits.
    Reference: Ours, of the papers' parts; raw audio as in Perceiver (arXiv:2103.03206), section 4.2.
    """
    return recipe_for({"audio": "wave"}, size, name="audio_raw")


@recipe(sizes=SIZES)
def video(size: str = "tiny") -> Recipe:
    """Your own videos without their audio: every frame through a residual stem, 3-D positions.

    Run:      perceivers fit DATA --recipe video
    Expected: docs/results/video.md has three classes of actions.
    Reference: Ours, of the papers' parts; Perceiver (arXiv:2103.03206), section 4.2.
    """
    made = recipe_for({"video": "video"}, size, name="video")
    return _behind_stem(made, SIZES[size], lr=2, fewer=4)


@recipe(sizes=SIZES)
def audio_video(size: str = "tiny") -> Recipe:
    """Your own videos with their audio: the same clip of both, fused at the input.

    In training the video is dropped from some samples (--modality-dropout): otherwise the model learns from video first
    and hardly from audio, as the paper reports.

    Run:      perceivers fit DATA --recipe audio_video
    Expected: docs/results/audio_video.md has spoken digits, seen, heard and both.
    Reference: Ours, of the papers' parts; fusion and dropout as in Perceiver (arXiv:2103.03206), section 4.2.
    """
    made = recipe_for({"audio": "audio", "video": "video"}, size, name="audio_video")
    return replace(made, fusion=replace(made.fusion, modality_dropout={"video": 0.5}))


@recipe(sizes=SIZES)
def points(size: str = "tiny") -> Recipe:
    """Your own point clouds, or meshes from whose surface points are sampled.

    Run:      perceivers fit DATA --recipe points
    Expected: docs/results/points.md has ModelNet10.
    Reference: Ours; centering, scaling of single points and unit cube as in Perceiver (arXiv:2103.03206), section 4.3.
    """
    return recipe_for({"points": "points"}, size, name="points")


@recipe(sizes=SIZES)
def text(size: str = "tiny") -> Recipe:
    """Your own texts, byte by byte: no tokenizer, any language.

    Run:      perceivers fit DATA --recipe text
    Expected: docs/results/text.md has movie reviews.
    Reference: Ours; bytes as in Perceiver IO (arXiv:2107.14795), section 4.1.
    """
    return recipe_for({"text": "text"}, size, name="text")


@recipe(sizes=SIZES)
def series(size: str = "tiny") -> Recipe:
    """Your own time series: channels over time, with missing values and irregular time stamps.

    Run:      perceivers fit DATA --recipe series
    Expected: docs/results/series.md has activities by a smartwatch.
    Reference: Ours. The papers name wearables as future work.
    """
    return recipe_for({"series": "series"}, size, name="series")


@recipe(sizes=SIZES)
def arrays(size: str = "tiny") -> Recipe:
    """Any arrays of M x C, with or without coordinates: a modality that has no recipe yet.

    Without coordinates every element gets a learned position, since nothing is known of their structure.

    Run:      perceivers fit DATA --recipe arrays
    Expected: docs/results/arrays.md has synthetic haptic series.
    Reference: Ours. A general position encoding is future work in the paper; learned ones are its nearest.
    """
    return recipe_for({"array": "array"}, size, name="arrays")


@recipe(sizes=SIZES)
def multimodal(size: str = "tiny") -> Recipe:
    """Any set of modalities in one model: one adapter for each, and a learned modality embedding.

    Image, audio and series are an example: `fit` replaces them by the modalities of the data. A sample may lack any of
    them, in training and in prediction; --modality-dropout video:0.3 drops one at random in training.

    Run:      perceivers fit DATA --recipe multimodal
    Expected: docs/results/multimodal.md has a run on a table of images, audio and series.
    Reference: Ours, of the papers' parts: Perceiver (arXiv:2103.03206), section 4.2, for the fusion.
    """
    return recipe_for({"image": "image", "audio": "audio", "series": "series"}, size)


@recipe(sizes=("tiny", "small"))
def text_io(size: str = "tiny") -> Recipe:
    """Your own texts, every byte an element, and one learned output query for the class, labels or numbers.

    Input and encoder are those of `mlm_bytes` in the same size, so that it can be fine-tuned from such a run, which
    needs no labels.

    Run:      perceivers fit DATA --recipe mlm_bytes --size tiny --out runs/words, then
              perceivers fit DATA --recipe text_io --size tiny --init-from runs/words
    Expected: 60.8 % of IMDB's test reviews after 20 + 20 minutes of one core; from scratch 50.0 % after 40.
    Reference: Ours, of the papers' parts: Perceiver IO (arXiv:2107.14795), section 4.1, fine-tunes so, with a query in
              place of BERT's token [CLS].
    """
    model = byte_model(size)
    label = OutputConfig(queries=model.queries(), head=LinearHeadConfig(num_outputs=None))
    return Recipe(
        name="text_io",
        inputs={"text": model.text},
        encoder=model.encoder,
        output=model.decoder({"label": label}),
        task=ClassificationConfig(label_smoothing=0.05),
        preprocess={"text": TextPreprocessConfig(max_length=model.length, keep="random")},
        augment={"text": TextAugmentConfig()},
        init=model.init,
        data=DataConfig(clips=8),  # clips of a long text in evaluation
        optim=own_optim(model.lr / 2),
        training=TrainingConfig(batch_size=model.batch_size),
    )


@recipe(sizes=("tiny", "small"))
def text_ar(size: str = "tiny") -> Recipe:
    """Your own texts, byte by byte: a model that predicts the next byte, to continue texts with `generate`.

    The latents are the last bytes of a context, which attend to all bytes before them.

    Run:      perceivers fit DATA --recipe text_ar
              perceivers generate RUN --prompt "Once upon a time"
    Expected: docs/results/perceiver_ar.md
    Reference: Perceiver AR (arXiv:2202.07765), with rotary positions as in DeepMind's release.
    """
    length = _AR_SIZES[size][0]
    part = Part(
        TokenInputConfig(max_length=length),
        TextPreprocessConfig(max_length=length),
        TextAugmentConfig(crop=True),
    )
    return _autoregressive("text_ar", "text", part, ByteVocabulary(), size)


@recipe(sizes=("tiny", "small"))
def music(size: str = "tiny") -> Recipe:
    """Your own MIDI files: a model that predicts the next event, to continue pieces or invent some with `generate`.

    The latents are the last events of a context, which attend to all events before them.

    Run:      perceivers fit DATA --recipe music
              perceivers generate RUN --prompt start.mid --out song.mid
    Expected: docs/results/perceiver_ar.md
    Reference: Perceiver AR (arXiv:2202.07765), with rotary positions as in DeepMind's release; events of krasserm's
              `perceiver-io`, without their faults.
    """
    length = _AR_SIZES[size][0]
    part = Part(
        MusicTokenInputConfig(max_length=length),
        MusicPreprocessConfig(max_length=length),
        MusicAugmentConfig(transpose=3),
    )
    return _autoregressive("music", "music", part, MidiVocabulary(), size)


# Tokens of a context, latents, width, heads and layers.
_AR_SIZES = {"tiny": (1024, 256, 128, 4, 4), "small": (4096, 512, 384, 6, 8)}


def _autoregressive(
    name: str, modality: str, part: Part, vocabulary: BaseVocabulary, size: str
) -> Recipe:
    """Return a recipe of the next token.

    Args:
        name: Name of the recipe.
        modality: Name of the input.
        part: Adapter, preprocessing and augmentation of sequences.
        vocabulary: Tokens of the sequences.
        size: A key of `_AR_SIZES`.
    """
    length, latents, channels, heads, layers = _AR_SIZES[size]
    return Recipe(
        name=name,
        inputs={modality: part.input},
        encoder=PerceiverARConfig(
            vocab_size=vocabulary.size,
            max_length=length + 1,  # a sequence and its start
            num_latents=latents,
            channels=channels,
            num_heads=heads,
            num_layers=layers,
            rotary=RotaryConfig(includes_end=True, max_wavelength=float(length)),
        ),
        output=NextTokenConfig(),
        task=NextTokenTaskConfig(modality=modality, vocabulary=vocabulary, shortest_crop=latents),
        preprocess={modality: part.preprocess},
        augment={modality: part.augment},
        data=DataConfig(target="nothing"),
        optim=own_optim(1e-3),
        training=TrainingConfig(batch_size=8),
    )


@recipe(sizes=SIZES)
def segmentation(size: str = "tiny") -> Recipe:
    """The class of every pixel: images with maps of class indices (PNG, gray or with a palette).

    Inputs are patches of 4 x 4 pixels; each of them with its position is the output query of its pixels.

    Run:      perceivers fit DATA --recipe segmentation
    Expected: docs/results/dense.md has synthetic shapes.
    Reference: Ours, of the paper's parts: queries that are elements of the input as in optical flow, Perceiver IO
              (arXiv:2107.14795), section 4.2.
    """
    return _dense("segmentation", SegmentationConfig(), ClassMapPreprocessConfig(), size)


@recipe(sizes=SIZES)
def dense(size: str = "tiny") -> Recipe:
    """A second image of the same scene: colorization, denoising, depth.

    Run:      perceivers fit DATA --recipe dense
    Expected: Not measured yet; docs/results/dense.md has `segmentation`.
    Reference: Ours, of the paper's parts, as `segmentation`.
    """
    return _dense("dense", ImageToImageConfig(), PixelsPreprocessConfig(), size)


def _dense(name: str, task: Any, target: Any, size: str) -> Recipe:
    dials = SIZES[size]
    width = dials.latent_channels
    answer = OutputConfig(
        queries=InputQueriesConfig(modality="image"), head=LinearHeadConfig(num_outputs=None)
    )
    return Recipe(
        name=name,
        inputs={
            "image": PatchInputConfig(
                size=None,
                patch=(4, 4),
                positions=FourierPositionsConfig(num_bands=None),
                project_channels=dials.stem_channels,
            )
        },
        encoder=PerceiverEncoderConfig(
            # The latents represent every region of the image: more of them than a class needs.
            num_latents=2 * dials.num_latents,
            latent_channels=width,
            num_cross_attends=1,
            num_blocks=1,
            num_self_attends_per_block=2 * dials.num_self_attends_per_block,
            num_cross_attend_heads=4,
            num_self_attend_heads=width // 32,
            cross_attend_qk_channels=width,
            cross_attend_v_channels=width,
        ),
        # With a residual of the query: a pixel is a good predictor of its target.
        output=DecoderConfig(
            outputs={PIXELS: answer},
            num_heads=4,
            qk_channels=width,
            v_channels=width,
            widening_factor=2,
            use_query_residual=True,
        ),
        task=task,
        preprocess={"image": ImagePreprocessConfig(max_side=dials.largest_image), "target": target},
        data=DataConfig(target="nothing"),
        augment={"image": ImageAugmentConfig(crop_scale=(0.6, 1.0), flip=True)},
        optim=own_optim(dials.lr),
        training=TrainingConfig(batch_size=dials.batch_size // 4),
    )


@recipe
def digits() -> Recipe:
    """Scikit-learn's 1,797 handwritten digits, every pixel an element.

    Run:      perceivers quickstart (or, on your own images: perceivers fit DATA --recipe digits)
    Expected: at least 97 % accuracy on a held-out fifth, in about a minute on two cores.
    Reference: Ours. The data are the UCI "Optical Recognition of Handwritten Digits" test set.
    """
    return Recipe(
        name="digits",
        # 1 gray + 2 raw coordinates + 2 axes * 4 bands * 2 = 19 channels
        inputs={
            "image": PixelInputConfig(
                size=(8, 8), num_channels=1, positions=FourierPositionsConfig(num_bands=4)
            )
        },
        encoder=PerceiverEncoderConfig(
            num_latents=16,
            latent_channels=64,
            num_cross_attends=3,
            num_blocks=3,
            num_self_attends_per_block=2,
            num_cross_attend_heads=4,
            num_self_attend_heads=4,
            # The papers' width, that of the input, would be 19: too narrow to learn quickly.
            cross_attend_qk_channels=64,
            cross_attend_v_channels=64,
            share_blocks=True,
        ),
        output=MeanPoolConfig(num_outputs=10),
        task=ClassificationConfig(),
        preprocess={"image": ImagePreprocessConfig()},
        # A crop of less than a pixel: a digit of 8 x 8 is one stroke wide. No flip: a mirrored 2 is no digit.
        augment={"image": ImageAugmentConfig(crop_scale=(0.85, 1.0), flip=False, mixup=0.4)},
        optim=own_optim(2e-3),
        training=TrainingConfig(batch_size=32, max_epochs=40, ema=0.99),
    )
