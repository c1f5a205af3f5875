"""Perceiver IO on the bytes of texts: hide words, tell what they were. No tokenizer, no labels."""

from dataclasses import replace

from perceivers.data.base import DataConfig
from perceivers.data.text import TextAugmentConfig, TextPreprocessConfig
from perceivers.inputs.text import TextInputConfig
from perceivers.models.decoder import AnswerConfig, DecoderConfig
from perceivers.models.encoder import PerceiverEncoderConfig
from perceivers.outputs.heads import TiedHeadConfig
from perceivers.outputs.queries import LearnedQueriesConfig
from perceivers.recipes.base import OptimConfig, Recipe, TrainingConfig, recipe
from perceivers.recipes.common import own_optim
from perceivers.tasks.masked import MaskedBytesConfig

__all__ = ["mlm_bytes", "mlm_bytes_plus"]

_SIZES = ("paper", "tiny", "small")


@recipe
def mlm_bytes(size: str = "paper") -> Recipe:
    """Masked bytes: 2,048 of them read by 256 latents, and as many queries that tell what was hidden.

    `tiny` and `small` are ours, for one's own texts on a small machine: 128 and 512 bytes at once, and attention that
    begins local (`init`).

    Run:      perceivers fit DATA --recipe mlm_bytes --size tiny
    Expected: 201,108,230 weights in `paper`; 81.0 on GLUE after fine-tuning as published (not reproduced here).
    Source:   Perceiver IO (arXiv:2107.14795), section 4.1, appendix F.2, tables 6 and 11; heads and widths of the
              comparison as in DeepMind's release.
    """
    if size != "paper":
        return _own(size)
    return Recipe(
        name="mlm_bytes",
        inputs={"text": TextInputConfig(max_length=2048, vocab_size=262, channels=768)},
        encoder=PerceiverEncoderConfig(
            num_latents=256,
            latent_channels=1280,
            num_cross_attends=1,
            num_blocks=1,
            num_self_attends_per_block=26,
            num_cross_attend_heads=8,
            num_self_attend_heads=8,
            cross_attend_qk_channels=256,
            cross_attend_v_channels=1280,
            self_attend_qk_channels=256,
            self_attend_v_channels=1280,
        ),
        output=_decoder(2048, 768, qk_channels=256, num_heads=8),
        task=MaskedBytesConfig(share=0.15, unit="word"),
        preprocess={"text": TextPreprocessConfig(max_length=2048, marks=True)},
        augment={"text": TextAugmentConfig(crop=True)},
        data=DataConfig(target="nothing"),
        optim=OptimConfig(
            name="lamb",
            lr=1.25e-3,
            weight_decay=0.01,
            clip_norm=None,
            schedule="cosine",
            warmup_steps=1000,
        ),
        training=TrainingConfig(batch_size=2048, max_steps=500_000),
    )


@recipe
def mlm_bytes_plus() -> Recipe:
    """The larger of the two byte models: 40 layers of 1,536 channels.

    Run:      perceivers fit DATA --recipe mlm_bytes_plus
    Expected: 425,607,430 weights; 81.8 on GLUE after fine-tuning as published (not reproduced here).
    Source:   Perceiver IO (arXiv:2107.14795), section 4.1, appendix F.2, table 11.
    """
    base = mlm_bytes()
    encoder = PerceiverEncoderConfig(
        num_latents=256,
        latent_channels=1536,
        num_cross_attends=1,
        num_blocks=1,
        num_self_attends_per_block=40,
        num_cross_attend_heads=8,
        num_self_attend_heads=8,
        cross_attend_qk_channels=256,
        cross_attend_v_channels=1536,
        self_attend_qk_channels=256,
        self_attend_v_channels=1536,
    )
    return replace(base, name="mlm_bytes_plus", encoder=encoder)


def _own(size: str) -> Recipe:
    """Return the recipe for one's own texts. Sizes are ours; embeddings begin small, as logits are made of them.

    A latent for every two bytes: with one for four, the same time of training told half as many bytes (docs/log.md).
    Single bytes are hidden: from a few books a small model learns spelling long before it guesses whole words.
    """
    length, channels, latents, width, layers, batch, lr = {
        "tiny": (128, 128, 64, 128, 4, 32, 3e-3),
        "small": (512, 256, 256, 512, 8, 64, 1e-3),
    }[size]
    return Recipe(
        name="mlm_bytes",
        inputs={"text": TextInputConfig(max_length=length, channels=channels, embedding_scale=0.1)},
        encoder=PerceiverEncoderConfig(
            num_latents=latents,
            latent_channels=width,
            num_cross_attends=1,
            num_blocks=1,
            num_self_attends_per_block=layers,
            num_cross_attend_heads=4,
            num_self_attend_heads=width // 32,
            cross_attend_qk_channels=channels,
            cross_attend_v_channels=width,
        ),
        output=_decoder(length, channels, qk_channels=channels, num_heads=4),
        task=MaskedBytesConfig(share=0.15, unit="byte"),
        preprocess={"text": TextPreprocessConfig(max_length=length, marks=True)},
        augment={"text": TextAugmentConfig(crop=True)},
        init="local",
        data=DataConfig(target="nothing"),
        optim=own_optim(lr),
        training=TrainingConfig(batch_size=batch),
    )


def _decoder(length: int, channels: int, *, qk_channels: int, num_heads: int) -> DecoderConfig:
    """Return a decoder with a learned query for each place of a text, and logits tied to the bytes' vectors."""
    queries = LearnedQueriesConfig(num_queries=length, channels=channels, follows="text")
    return DecoderConfig(
        answers={"text": AnswerConfig(queries=queries, head=TiedHeadConfig(modality="text"))},
        num_heads=num_heads,
        qk_channels=qk_channels,
        v_channels=channels,
    )


mlm_bytes.sizes = _SIZES  # type: ignore[attr-defined]
