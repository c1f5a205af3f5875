"""Perceiver IO on the bytes of texts: masked language modeling without tokenizer and labels."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from perceivers.data.base import DataConfig
from perceivers.data.modalities.text.modality import TextAugmentConfig, TextPreprocessConfig
from perceivers.inputs.text import TextInputConfig
from perceivers.models.decoder import DecoderConfig, OutputConfig
from perceivers.models.encoder import PerceiverEncoderConfig
from perceivers.outputs.heads import TiedHeadConfig
from perceivers.outputs.queries import LearnedQueriesConfig
from perceivers.recipes.common import own_optim
from perceivers.recipes.registry import OptimConfig, Recipe, TrainingConfig, recipe
from perceivers.tasks.masked import MaskedBytesConfig

TEXT_SIZES = ("paper", "tiny", "small")


@dataclass(frozen=True, kw_only=True)
class ByteModel:
    """Parts of a byte model that recipes which fine-tune one another have in common.

    Attributes:
        text: Input adapter. Its width is that of the queries, too.
        encoder: Encoder.
        num_heads: Heads of the decoder's cross-attention.
        qk_channels: Query and key channels of the decoder.
        batch_size: Samples of a step.
        lr: Peak learning rate.
        init: Weight initialization.
    """

    text: TextInputConfig
    encoder: PerceiverEncoderConfig
    num_heads: int
    qk_channels: int
    batch_size: int
    lr: float
    init: Literal["papers", "local_attention"] = "papers"

    @property
    def length(self) -> int:
        """Bytes of an input."""
        assert self.text.max_length is not None
        return self.text.max_length

    def decoder(self, outputs: Mapping[str, OutputConfig]) -> DecoderConfig:
        """Return a decoder whose weights have the same shapes for any outputs."""
        return DecoderConfig(
            outputs=dict(outputs),
            num_heads=self.num_heads,
            qk_channels=self.qk_channels,
            v_channels=self.text.channels,
        )

    def queries(self, count: int = 1, *, follows: str | None = None) -> LearnedQueriesConfig:
        """Return learned queries as wide as the byte embeddings."""
        return LearnedQueriesConfig(num_queries=count, channels=self.text.channels, follows=follows)


def byte_model(size: str) -> ByteModel:
    """Return the byte model of a size: the published one, `paper`, or `tiny` and `small` for a user's own texts."""
    if size != "paper":
        return _own(size)
    return ByteModel(
        text=TextInputConfig(max_length=2048, vocab_size=262, channels=768),
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
        num_heads=8,
        qk_channels=256,
        batch_size=2048,
        lr=1.25e-3,
    )


@recipe(sizes=TEXT_SIZES)
def mlm_bytes(size: str = "paper") -> Recipe:
    """Masked language modeling on 2,048 bytes with 256 latents and one output query per byte.

    `tiny` and `small` are ours, for your own texts on a small machine: 128 and 512 bytes, and attention that is
    initialized local (`init`).

    Run:      perceivers fit DATA --recipe mlm_bytes --size tiny
    Expected: 201,108,230 weights in `paper`; 81.0 on GLUE after fine-tuning as published (not reproduced here).
              `tiny`: 61.8 % of masked bytes of Shakespeare, 40 minutes on one core (docs/results/masked_bytes.md).
    Reference: Perceiver IO (arXiv:2107.14795), section 4.1, appendix F.2, tables 6 and 11; heads and widths of
              queries and keys as in DeepMind's release.
    """
    model = byte_model(size)
    queries = model.queries(model.length, follows="text")
    own = size != "paper"
    return Recipe(
        name="mlm_bytes",
        inputs={"text": model.text},
        encoder=model.encoder,
        output=model.decoder(
            {"text": OutputConfig(queries=queries, head=TiedHeadConfig(modality="text"))}
        ),
        # From a few books a small model learns spelling long before words.
        task=MaskedBytesConfig(share=0.15, unit="byte" if own else "word"),
        preprocess={"text": TextPreprocessConfig(max_length=model.length, marks=True)},
        augment={"text": TextAugmentConfig(crop=True)},
        init=model.init,
        data=DataConfig(target="nothing"),
        optim=own_optim(model.lr)
        if own
        else OptimConfig(
            lr=model.lr,
            weight_decay=0.01,
            clip_norm=None,
            schedule="warmup_cosine",
            warmup_steps=1000,
        ),
        training=TrainingConfig(batch_size=model.batch_size, max_steps=None if own else 500_000),
    )


@recipe
def mlm_bytes_plus() -> Recipe:
    """The larger of the two byte models: 40 layers of 1,536 channels.

    Run:      perceivers fit DATA --recipe mlm_bytes_plus
    Expected: 425,607,430 weights; 81.8 on GLUE after fine-tuning as published (not reproduced here).
    Reference: Perceiver IO (arXiv:2107.14795), section 4.1, appendix F.2, table 11.
    """
    base = mlm_bytes()
    encoder = replace(
        base.encoder,
        latent_channels=1536,
        num_self_attends_per_block=40,
        cross_attend_v_channels=1536,
        self_attend_v_channels=1536,
    )
    return replace(base, name="mlm_bytes_plus", encoder=encoder)


def _own(size: str) -> ByteModel:
    """Return our sizes. Embeddings are initialized small, as they are also the weights of the output layer.

    One latent for two bytes: with one for four, half as many bytes are predicted after the same time (docs/log.md).
    """
    length, channels, latents, width, layers, batch, lr = {
        "tiny": (128, 128, 64, 128, 4, 32, 3e-3),
        "small": (512, 256, 256, 512, 8, 64, 1e-3),
    }[size]
    return ByteModel(
        text=TextInputConfig(max_length=length, channels=channels, embedding_scale=0.1),
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
        num_heads=4,
        qk_channels=channels,
        batch_size=batch,
        lr=lr,
        init="local_attention",
    )
