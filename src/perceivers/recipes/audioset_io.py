"""Perceiver IO on AudioSet: films with their sound, read once, and one output query that asks for all labels.

Data, clips and augmentation are those of the 2021 paper's experiments, with the choices of ours that they name.
"""

from dataclasses import replace

from perceivers.models.decoder import AnswerConfig, DecoderConfig
from perceivers.models.encoder import PerceiverEncoderConfig
from perceivers.outputs.heads import LinearHeadConfig
from perceivers.outputs.queries import LearnedQueriesConfig
from perceivers.recipes.audioset import audioset_av_mel, audioset_av_raw
from perceivers.recipes.base import Recipe, recipe

__all__ = ["audioset_io_mel", "audioset_io_raw"]


@recipe
def audioset_io_raw() -> Recipe:
    """Films with their sound by its samples: 13,024 elements of 487 channels, 512 latents of 512.

    Run:      perceivers fit DATA --recipe audioset_io_raw --columns video:film --label labels
    Expected: 43.3 mAP as published (not reproduced here); 24,922,228 weights beside the vectors that tell the
              modalities apart; 52.7 GFLOPs (52.9 are printed).
    Source:   Perceiver IO (arXiv:2107.14795), appendix C and table 6; in 30 % of the samples the film is zeroed, as
              in Perceiver (arXiv:2103.03206), section 4.2.
    """
    return _with_query(audioset_av_raw(), name="audioset_io_raw", latent_channels=512)


@recipe
def audioset_io_mel() -> Recipe:
    """Films with their sound as a mel spectrogram: 17,344 elements of 487 channels, 512 latents of 1,024.

    Run:      perceivers fit DATA --recipe audioset_io_mel --columns video:film --label labels
    Expected: 44.9 mAP as published (not reproduced here); 86,568,052 weights beside the vectors that tell the
              modalities apart (88.2 M are printed); 129.3 GFLOPs (129.5 are printed).
    Source:   Perceiver IO (arXiv:2107.14795), appendix C and table 6; in 30 % of the samples the film is zeroed, as
              in Perceiver (arXiv:2103.03206), section 4.2.
    """
    return _with_query(audioset_av_mel(), name="audioset_io_mel", latent_channels=1024)


def _with_query(base: Recipe, *, name: str, latent_channels: int) -> Recipe:
    """Return the experiment with one read, 12 layers and a query of 1,024 channels, however wide the latents are."""
    asked = AnswerConfig(
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
        output=DecoderConfig(answers={"label": asked}, use_query_residual=True),
    )
