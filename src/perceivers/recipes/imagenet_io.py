"""Perceiver IO on ImageNet: one read of the picture, and one output query that asks for its class.

Three ways to make elements: single pixels with Fourier features, single pixels with learned positions, or a
convolved stem. All with configuration A of the paper, which needs no other data than ImageNet.
"""

from dataclasses import replace

from perceivers.data.base import ImageAugmentConfig
from perceivers.inputs.image import ConvInputConfig, PixelInputConfig
from perceivers.inputs.positions import LearnedPositionsConfig
from perceivers.models.decoder import DecoderConfig
from perceivers.recipes.base import OptimConfig, Recipe, TrainingConfig, recipe
from perceivers.recipes.imagenet import imagenet
from perceivers.tasks.classification import ClassificationConfig

__all__ = ["imagenet_io", "imagenet_io_conv", "imagenet_io_learned"]


@recipe
def imagenet_io() -> Recipe:
    """Perceiver IO: 50,176 single pixels with Fourier features, read once.

    Run:      perceivers fit DATA --recipe imagenet_io
    Expected: 79.0 % top-1 as published (not reproduced here); 48,440,627 weights; 407 GFLOPs.
    Source:   Perceiver IO (arXiv:2107.14795), section 4.5, appendix A.1, table 7; training as in DeepMind's release.
    """
    base = imagenet()
    return replace(
        base,
        name="imagenet_io",
        encoder=replace(base.encoder, num_cross_attends=1),
        output=DecoderConfig.classifier(1000),
        task=ClassificationConfig(label_smoothing=0.1),
        augment={
            "image": ImageAugmentConfig(
                crop_scale=(0.08, 1.0), flip=True, randaugment=(4, 5), mixup=0.2, cutmix=True
            )
        },
        optim=OptimConfig(
            name="lamb",
            lr=2e-3,  # 5e-4 for 256 samples
            weight_decay=0.1,
            clip_norm=10.0,
            schedule="constant_cosine",
            constant_fraction=0.5,
        ),
        training=TrainingConfig(batch_size=1024, max_epochs=110),
    )


@recipe
def imagenet_io_learned() -> Recipe:
    """Perceiver IO that is told nothing of two dimensions: colors and learned positions of 256 channels each.

    Run:      perceivers fit DATA --recipe imagenet_io_learned
    Expected: 72.7 % top-1 as published (not reproduced here); 62,255,848 weights; 471 GFLOPs by the formulas (407 are
              printed, as for the other models, whose elements are half as wide).
    Source:   Perceiver IO (arXiv:2107.14795), section 4.5, appendix A.1, table 7. The query is not added to what it
              reads, as in DeepMind's release of this model.
    """
    positions = LearnedPositionsConfig(channels=256, init_scale=0.02, project_channels=256)
    pixels = PixelInputConfig(size=(224, 224), project_channels=256, positions=positions)
    return replace(
        imagenet_io(),
        name="imagenet_io_learned",
        inputs={"image": pixels},
        output=DecoderConfig.classifier(1000, use_query_residual=False),
    )


@recipe
def imagenet_io_conv() -> Recipe:
    """Perceiver IO behind a convolution and a pool: 3,136 elements of 64 channels with Fourier features.

    Run:      perceivers fit DATA --recipe imagenet_io_conv
    Expected: 82.1 % top-1 as published (not reproduced here); 48,646,522 weights; 369 GFLOPs.
    Source:   Perceiver IO (arXiv:2107.14795), section 4.5, appendix A.1, table 7.
    """
    return replace(
        imagenet_io(), name="imagenet_io_conv", inputs={"image": ConvInputConfig(size=(224, 224))}
    )
