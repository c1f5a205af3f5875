"""Pictures of one's own, in three sizes."""

from perceivers.data.base import DataConfig, ImageAugmentConfig
from perceivers.inputs.image import ConvInputConfig
from perceivers.inputs.positions import FourierPositionsConfig
from perceivers.models.encoder import PerceiverEncoderConfig
from perceivers.outputs.heads import MeanPoolConfig
from perceivers.recipes.base import OptimConfig, Recipe, TrainingConfig, recipe
from perceivers.tasks.classification import ClassificationConfig

__all__ = ["images"]

# | size | latents | width | reads | blocks | layers in each | batch | lr | largest side |
_SIZES = {
    "tiny": (32, 128, 2, 2, 2, 128, 1e-3, 64),
    "small": (128, 256, 2, 2, 4, 256, 1e-3, 128),
    "base": (256, 512, 2, 4, 4, 512, 5e-4, 224),
}


@recipe
def images(size: str = "tiny") -> Recipe:
    """Your own pictures, read after a convolved stem; picture size, classes and epochs from the data.

    `tiny` is meant for a CPU, `small` for any GPU, `base` for a large one and many pictures.

    Run:      perceivers fit DATA --recipe images --size tiny
    Expected: CIFAR-10, tiny, 20 minutes on 2 CPU cores: 71.7 % (docs/results/cifar10.md).
    Source:   Ours, of the papers' parts: the stem is Perceiver IO's (arXiv:2107.14795, appendix A.1), the
              reads and the mean head are the 2021 paper's. AdamW and the sizes are ours.
    """
    latents, width, reads, blocks, layers, batch, lr, largest = _SIZES[size]
    return Recipe(
        name="images",
        inputs={
            "image": ConvInputConfig(
                size=None, stem_channels=64, positions=FourierPositionsConfig(num_bands=None)
            )
        },
        encoder=PerceiverEncoderConfig(
            num_latents=latents,
            latent_channels=width,
            num_cross_attends=reads,
            num_blocks=blocks,
            num_self_attends_per_block=layers,
            num_self_attend_heads=width // 32,
            share_cross_attends="none",
            share_blocks=False,
        ),
        output=MeanPoolConfig(num_outputs=None),
        task=ClassificationConfig(label_smoothing=0.05),
        data=DataConfig(largest_image=largest),
        augment={"image": ImageAugmentConfig(crop_scale=(0.4, 1.0), flip=True)},
        optim=OptimConfig(
            name="adamw",
            lr=lr,
            betas=(0.9, 0.99),
            eps=1e-8,
            weight_decay=0.05,
            clip_norm=1.0,
            schedule="cosine",
            warmup_fraction=0.05,
        ),
        training=TrainingConfig(batch_size=batch),
    )


images.sizes = tuple(_SIZES)  # type: ignore[attr-defined]
