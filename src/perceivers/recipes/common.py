"""Common parts of the recipes for a user's own data: encoder in three sizes, optimizer, outputs."""

from collections.abc import Iterable
from dataclasses import dataclass

from perceivers.models.decoder import DecoderConfig, OutputConfig
from perceivers.models.encoder import PerceiverEncoderConfig
from perceivers.outputs.heads import LinearHeadConfig
from perceivers.outputs.queries import LearnedQueriesConfig
from perceivers.recipes.registry import OptimConfig


@dataclass(frozen=True)
class Size:
    """A size of the recipes for a user's own data.

    Attributes:
        num_latents: Number of latents, N.
        latent_channels: Width of the latents, D.
        num_cross_attends: Number of cross-attends, T.
        num_blocks: Number of blocks.
        num_self_attends_per_block: Self-attention layers in each block.
        batch_size: Samples of a step.
        lr: Peak learning rate.
        stem_channels: Output channels of the stems.
        largest_image: Longest side of images and videos in pixels.
    """

    num_latents: int
    latent_channels: int
    num_cross_attends: int
    num_blocks: int
    num_self_attends_per_block: int
    batch_size: int
    lr: float
    stem_channels: int
    largest_image: int


# `tiny` is meant for a CPU, `small` for any GPU, `base` for a large one and many samples.
SIZES = {
    "tiny": Size(32, 128, 2, 2, 2, 128, 1e-3, 64, 64),
    "small": Size(128, 256, 2, 2, 4, 256, 1e-3, 96, 128),
    "base": Size(256, 512, 2, 4, 4, 512, 5e-4, 128, 224),
}


def own_encoder(size: Size, *, fine: bool = False) -> PerceiverEncoderConfig:
    """Return the encoder of a size, without weight sharing, which small models do not need.

    `fine` ones have four narrow cross-attention heads and half as many latents. If a class depends on a few of many
    elements (a word in audio, a gesture in a series) this learns several times as fast as the papers' single head as
    wide as the input (docs/log.md).
    """
    narrow = size.latent_channels // 2
    return PerceiverEncoderConfig(
        num_latents=size.num_latents // 2 if fine else size.num_latents,
        num_cross_attend_heads=4 if fine else 1,
        cross_attend_qk_channels=narrow if fine else None,
        cross_attend_v_channels=narrow if fine else None,
        latent_channels=size.latent_channels,
        num_cross_attends=size.num_cross_attends,
        num_blocks=size.num_blocks,
        num_self_attends_per_block=size.num_self_attends_per_block,
        num_self_attend_heads=size.latent_channels // 32,
        share_cross_attends="none",
        share_blocks=False,
    )


def own_optim(lr: float, *, weight_decay: float = 0.05) -> OptimConfig:
    """Return AdamW with a short warm-up and a cosine schedule. `docs/log.md` compares it with LAMB for small models."""
    return OptimConfig(
        name="adamw",
        lr=lr,
        betas=(0.9, 0.99),
        eps=1e-8,
        weight_decay=weight_decay,
        clip_norm=1.0,
        schedule="cosine",
        warmup_fraction=0.05,
    )


def own_decoder(names: Iterable[str]) -> DecoderConfig:
    """Return Perceiver IO's decoder with one learned query for each of several tasks."""
    answer = OutputConfig(queries=LearnedQueriesConfig(), head=LinearHeadConfig(num_outputs=None))
    return DecoderConfig(outputs=dict.fromkeys(names, answer), num_heads=4, use_query_residual=True)
