"""Perceiver AR on bytes of texts, and the copy task of its paper.

Sizes and numbers of weights are those of the sources. Texts are cut into pieces of the model's length; the sources draw
random windows instead.
"""

from perceivers.data.base import DataConfig
from perceivers.data.modalities.text.modality import TextAugmentConfig, TextPreprocessConfig
from perceivers.inputs.tokens import TokenInputConfig
from perceivers.models.autoregressive import NextTokenConfig
from perceivers.models.perceiver_ar_config import PerceiverARConfig, krasserm_perceiver_ar
from perceivers.nn.rotary import RotaryConfig
from perceivers.recipes.registry import OptimConfig, Recipe, TrainingConfig, recipe
from perceivers.tasks.next_token import NextTokenTaskConfig


def _of_bytes(
    name: str,
    encoder: PerceiverARConfig,
    optim: OptimConfig,
    training: TrainingConfig,
    *,
    length: int | None = None,
    shortest_crop: int | None = None,
    context: int = 0,
    z_loss: float = 0.0,
) -> Recipe:
    """Return the recipe of a model of bytes.

    Args:
        name: Name of the recipe.
        encoder: Architecture.
        optim: Optimizer.
        training: Length and batch size.
        length: Bytes of a text. None: as many as fit behind the start.
        shortest_crop: Fewest bytes of a training text. None: texts are whole.
        context: First bytes that are not predicted.
        z_loss: Weight of the z-loss.
    """
    length = encoder.max_length - 1 if length is None else length
    return Recipe(
        name=name,
        inputs={"text": TokenInputConfig(max_length=length, vocab_size=encoder.vocab_size)},
        encoder=encoder,
        output=NextTokenConfig(),
        task=NextTokenTaskConfig(
            shortest_crop=shortest_crop or length, context=context, z_loss=z_loss
        ),
        preprocess={"text": TextPreprocessConfig(max_length=length)},
        augment={"text": TextAugmentConfig(crop=True)},
        data=DataConfig(target="nothing"),
        optim=optim,
        training=training,
    )


def _adam(lr: float, warmup_steps: int, clip_norm: float, weight_decay: float = 0.0) -> OptimConfig:
    return OptimConfig(
        name="adamw",
        lr=lr,
        eps=1e-8,
        weight_decay=weight_decay,
        clip_norm=clip_norm,
        schedule="warmup_cosine",
        warmup_steps=warmup_steps,
    )


@recipe
def enwik8_ar() -> Recipe:
    """The first 100 million bytes of Wikipedia: contexts of 4,096 bytes, 512 latents, half of the prefix left out.

    The rotated channels of a head are neighbors instead of its halves, which is the same but for their order. The
    vocabulary has our six special tokens besides the 256 bytes. The source has no warm-up and a constant rate.

    Run:      perceivers fit enwik8.txt --recipe enwik8_ar
    Expected: 30,696,960 weights, 6,144 of them of the special tokens; no result is published.
    Reference: Perceiver AR (arXiv:2202.07765) in the form of lucidrains' perceiver-ar-pytorch, its script for enwik8.
    """
    encoder = PerceiverARConfig(
        vocab_size=262,
        max_length=4096,
        num_latents=512,
        channels=512,
        num_heads=8,
        num_layers=8,
        positions="learned",
        first_position=0,
        rotary=RotaryConfig(),
        latent_projection=False,
        latent_norm_for_keys=True,
        bias=False,
        activation="gelu",
        output_norm=False,
        output_bias=False,
        prefix_dropout=0.5,
        init="normal",
    )
    optim = OptimConfig(
        name="adamw", lr=2e-4, eps=1e-8, weight_decay=0.0, clip_norm=0.5, schedule="constant"
    )
    training = TrainingConfig(batch_size=16, accumulate=4, max_steps=100_000)
    return _of_bytes("enwik8_ar", encoder, optim, training)


@recipe
def wikitext_ar() -> Recipe:
    """WikiText-103 as bytes: contexts of 4,096 bytes, 512 latents, half of the prefix left out.

    Run:      perceivers fit wikitext/ --recipe wikitext_ar
    Expected: 30,563,078 weights; no result is published for bytes.
    Reference: Perceiver AR (arXiv:2202.07765) in the form of krasserm's perceiver-io, its training example on
              WikiText-103. The paper's model of words has another size, which is not published.
    """
    encoder = krasserm_perceiver_ar(
        absolute=True,
        vocab_size=262,
        max_length=4096,
        num_latents=512,
        channels=512,
        num_heads=8,
        num_layers=8,
        prefix_dropout=0.5,
    )
    training = TrainingConfig(batch_size=96, max_steps=20_000)
    return _of_bytes("wikitext_ar", encoder, _adam(2e-4, 200, 0.5), training)


@recipe
def c4_ar() -> Recipe:
    """The model of krasserm's `perceiver-ar-clm-base` on bytes: contexts of 1,024, 512 latents, 20 layers.

    The published model reads 32,000 subwords (SentencePiece), and is a run after `perceivers convert`: on bytes, 262 of
    its tokens are used. The published schedule ends at a tenth of the peak rate, and lengths are drawn from 512 up.

    Run:      perceivers fit c4/ --recipe c4_ar
    Expected: 453,950,720 weights; 2.820 nats for each subword of C4 as published (not reproduced here).
    Reference: Perceiver AR (arXiv:2202.07765) in the form of krasserm's perceiver-io, its training example on C4.
    """
    encoder = krasserm_perceiver_ar(
        absolute=False,
        vocab_size=32_000,
        max_length=1024,
        num_latents=512,
        channels=1280,
        num_heads=10,
        num_layers=20,
        output_norm=True,
        output_bias=False,
    )
    optim = _adam(3e-4, 1000, 1.0, weight_decay=0.01)  # the weight decay is ours
    training = TrainingConfig(batch_size=2048, max_steps=50_000, precision="bf16")
    return _of_bytes("c4_ar", encoder, optim, training, shortest_crop=512)


@recipe(sizes=("paper", "tiny"))
def copy_131072(size: str = "paper") -> Recipe:
    """The copy task: random characters, then the same in reverse order; only the second half is learned and measured.

    `tiny` is ours: sequences of 1,024 tokens, one cross-attention with one head and no self-attention, for a CPU.
    Data: `perceivers make-copy-data`. Its characters are printable, where the paper has random bytes.

    Run:      perceivers make-copy-data --out copy --length 1024 --count 10000
              perceivers fit copy --recipe copy_131072 --size tiny
    Expected: 89,757,955 weights in `paper`, and solved as published (not reproduced here). `tiny`: 99.9 % of the
              copied characters, in 10 minutes on one core (docs/results/perceiver_ar.md).
    Reference: Perceiver AR (arXiv:2202.07765), section 5.1; sizes and schedule as in DeepMind's release, whose clipping
              is of the sum over all tokens, ours of the mean. The number of steps is ours.
    """
    tokens, latents, channels, heads, layers = {
        "paper": (131_072, 1024, 1024, 16, 6),
        "tiny": (1024, 511, 64, 1, 0),
    }[size]
    encoder = PerceiverARConfig(
        vocab_size=259,
        max_length=tokens,
        num_latents=latents,
        channels=channels,
        num_heads=heads,
        num_layers=layers,
        positions="sinusoidal",
        rotary=None,
    )
    length = tokens - 2  # between the start and, in the release, an end
    if size == "tiny":
        optim, training = _adam(3e-3, 100, 1.0), TrainingConfig(batch_size=8, max_steps=1500)
    else:
        optim, training = _adam(3e-4, 1000, 1.0), TrainingConfig(batch_size=4096, max_steps=25_000)
    return _of_bytes(
        "copy_131072",
        encoder,
        optim,
        training,
        length=length,
        shortest_crop=length if size == "tiny" else tokens // 2,
        context=length // 2,
        z_loss=1e-4,
    )
