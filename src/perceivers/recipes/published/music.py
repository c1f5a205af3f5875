"""Recipes of autoregressive models of music, in the sizes of published weights."""

from perceivers.data.base import DataConfig
from perceivers.data.modalities.music.modality import MusicAugmentConfig, MusicPreprocessConfig
from perceivers.inputs.music import MusicTokenInputConfig
from perceivers.models.autoregressive import NextTokenConfig
from perceivers.models.perceiver_ar_config import krasserm_perceiver_ar
from perceivers.recipes.registry import OptimConfig, Recipe, TrainingConfig, recipe
from perceivers.tasks.midi_tokens import MidiVocabulary
from perceivers.tasks.next_token import NextTokenTaskConfig


@recipe
def maestro_ar() -> Recipe:
    """Piano performances of MAESTRO as MIDI events: contexts of 2,048 events, 1,024 latents.

    Run:      perceivers fit maestro/ --recipe maestro_ar, with the folders train, validation and test of the data set
    Expected: 28,531,712 weights; no result is published.
    Reference: krasserm's `perceiver-io` 0.11, after Perceiver AR (arXiv:2202.07765). Dropout of attention weights (0.1)
              is left out.
    """
    return _published("maestro_ar", length=2048, latents=1024, channels=512, layers=8)


@recipe
def giantmidi_ar() -> Recipe:
    """Piano transcriptions of GiantMIDI as MIDI events: contexts of 6,144 events, 2,048 latents.

    Run:      perceivers fit giantmidi/ --recipe giantmidi_ar
    Expected: 134,840,832 weights; 1.944 nats an event on validation data as published (not reproduced here).
    Reference: krasserm's `perceiver-ar-sam-giant-midi`, after Perceiver AR (arXiv:2202.07765). Dropout of attention
              weights (0.1) is left out.
    """
    return _published("giantmidi_ar", length=6144, latents=2048, channels=768, layers=18)


def _published(name: str, *, length: int, latents: int, channels: int, layers: int) -> Recipe:
    """Return a recipe with an architecture of krasserm's library.

    Args:
        name: Name of the recipe.
        length: Events of a context.
        latents: Latents.
        channels: Width.
        layers: Self-attention layers.
    """
    events = length - 1  # and the start of a piece
    return Recipe(
        name=name,
        inputs={"music": MusicTokenInputConfig(max_length=events)},
        encoder=krasserm_perceiver_ar(
            absolute=False,
            vocab_size=MidiVocabulary().size,
            max_length=length,
            num_latents=latents,
            channels=channels,
            num_heads=8,
            num_layers=layers,
            output_norm=True,
            output_bias=False,
            residual_dropout=0.1,
            prefix_dropout=0.1,
        ),
        output=NextTokenConfig(),
        task=NextTokenTaskConfig(
            modality="music", vocabulary=MidiVocabulary(), shortest_crop=latents, z_loss=0.0
        ),
        preprocess={"music": MusicPreprocessConfig(max_length=events, repeat_velocity=True)},
        augment={"music": MusicAugmentConfig()},
        data=DataConfig(target="nothing"),
        optim=OptimConfig(
            name="adamw",
            lr=2e-4,
            weight_decay=0.01,
            eps=1e-8,
            clip_norm=0.5,
            schedule="warmup_cosine",
            warmup_steps=200,
        ),
        training=TrainingConfig(batch_size=96, max_steps=20_000),
    )
