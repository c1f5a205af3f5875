"""The 2021 paper's ImageNet experiments.

Settings that the paper does not state are those of Perceiver IO's released training script: batch size 1024, weight
decay 0.1, gradient clipping at 10, no label smoothing, no warm-up.
"""

from dataclasses import replace

from perceivers.data.modalities.image.modality import ImageAugmentConfig, ImagePreprocessConfig
from perceivers.inputs.image import ConvInputConfig, PixelInputConfig
from perceivers.inputs.positions import FourierPositionsConfig, LearnedPositionsConfig
from perceivers.models.decoder import DecoderConfig
from perceivers.models.encoder import PerceiverEncoderConfig
from perceivers.models.transformer import TransformerEncoderConfig
from perceivers.outputs.heads import MeanPoolConfig
from perceivers.recipes.registry import OptimConfig, Recipe, TrainingConfig, recipe
from perceivers.tasks.classification import ClassificationConfig


@recipe
def imagenet() -> Recipe:
    """The 2021 Perceiver: 50,176 pixels, 8 cross-attends, weights shared over depth.

    Run:      perceivers fit DATA --recipe imagenet
    Expected: 78.0 % top-1 as published (not reproduced here); 44,912,254 weights; 707.2 GFLOPs.
    Reference: Perceiver (arXiv:2103.03206), section 4.1, tables 1, 6 and 7.
    """
    return Recipe(
        name="imagenet",
        # 3 colors + 2 raw coordinates + 2 axes * 64 bands * (sine, cosine) = 261 channels
        inputs={
            "image": PixelInputConfig(
                size=(224, 224), positions=FourierPositionsConfig(num_bands=64)
            )
        },
        encoder=PerceiverEncoderConfig(
            num_latents=512,
            latent_channels=1024,
            num_cross_attends=8,
            num_blocks=8,
            num_self_attends_per_block=6,
            num_cross_attend_heads=1,
            num_self_attend_heads=8,
        ),
        output=MeanPoolConfig(num_outputs=1000),
        task=ClassificationConfig(),
        preprocess={
            "image": ImagePreprocessConfig(
                normalization="imagenet", crop_fraction=224 / 256, resize="tensorflow"
            )
        },
        # RandAugment's setting is Perceiver IO's appendix A.1, which attributes it to this paper.
        augment={
            "image": ImageAugmentConfig(
                crop_scale=(0.08, 1.0), crop_sampler="tensorflow", flip=True, randaugment=(4, 5)
            )
        },
        optim=OptimConfig(
            name="lamb",
            lr=4e-3,
            weight_decay=0.1,  # ours
            clip_norm=10.0,  # ours
            schedule="steps",
            milestones=(84 / 120, 102 / 120, 114 / 120),
            decay=0.1,
        ),
        training=TrainingConfig(batch_size=1024, max_epochs=120),  # the batch is ours
    )


@recipe
def imagenet_learned() -> Recipe:
    """The 2021 Perceiver without knowledge of two dimensions: learned positions, one cross-attend.

    Run:      perceivers fit DATA --recipe imagenet_learned
    Expected: 70.9 % top-1 as published (not reproduced here); 48,189,577 weights.
    Reference: Perceiver (arXiv:2103.03206), section 4.1, table 2 and appendix B.
    """
    base = imagenet()
    return replace(
        base,
        name="imagenet_learned",
        # 3 colors + 128 learned = 131 channels; a scale of 1.0 worked best (appendix B)
        inputs={
            "image": PixelInputConfig(
                size=(224, 224), positions=LearnedPositionsConfig(channels=128, init_scale=1.0)
            )
        },
        # Eight cross-attends were unstable with learned positions.
        encoder=replace(base.encoder, num_cross_attends=1),
    )


@recipe
def imagenet_transformer() -> Recipe:
    """The paper's baseline: a Transformer over the 4,096 pixels of a 64 x 64 image, no latents.

    The paper does not state its sizes. Width 512 and 8 layers are ours: about the cost of the Perceiver with one
    cross-attend (380 against 404 GFLOPs).

    Run:      perceivers fit DATA --recipe imagenet_transformer
    Expected: 57.0 % top-1 as published, with sizes unknown (not reproduced here).
    Reference: Perceiver (arXiv:2103.03206), section 4.1, tables 1 and 2.
    """
    return replace(
        imagenet(),
        name="imagenet_transformer",
        inputs={
            "image": PixelInputConfig(size=(64, 64), positions=FourierPositionsConfig(num_bands=64))
        },
        encoder=TransformerEncoderConfig(channels=512, num_self_attends=8, num_self_attend_heads=8),
    )


@recipe
def imagenet_io() -> Recipe:
    """Perceiver IO: 50,176 pixels with Fourier features, one cross-attend.

    Run:      perceivers fit DATA --recipe imagenet_io
    Expected: 79.0 % top-1 as published (not reproduced here); 48,440,627 weights; 407 GFLOPs.
    Reference: Perceiver IO (arXiv:2107.14795), section 4.5, appendix A.1, table 7; training as in DeepMind's release.
    """
    base = imagenet()
    augment = base.augment["image"]
    assert isinstance(augment, ImageAugmentConfig)
    return replace(
        base,
        name="imagenet_io",
        encoder=replace(base.encoder, num_cross_attends=1),
        output=DecoderConfig.classifier(1000),
        task=ClassificationConfig(label_smoothing=0.1),
        augment={"image": replace(augment, mixup=0.2, cutmix=True)},
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
    """Perceiver IO without knowledge of two dimensions: colors and learned positions of 256 channels each.

    Run:      perceivers fit DATA --recipe imagenet_io_learned
    Expected: 72.7 % top-1 as published (not reproduced here); 62,255,848 weights; 471 GFLOPs by the formulas (407
              published, as for the other models, whose elements are half as wide).
    Reference: Perceiver IO (arXiv:2107.14795), section 4.5, appendix A.1, table 7. Without the residual of the
              output query, as in DeepMind's release of this model.
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
    """Perceiver IO with a stem of convolution and pooling: 3,136 elements of 64 channels with Fourier features.

    Run:      perceivers fit DATA --recipe imagenet_io_conv
    Expected: 82.1 % top-1 as published (not reproduced here); 48,646,522 weights; 369 GFLOPs.
    Reference: Perceiver IO (arXiv:2107.14795), section 4.5, appendix A.1, table 7.
    """
    return replace(
        imagenet_io(), name="imagenet_io_conv", inputs={"image": ConvInputConfig(size=(224, 224))}
    )
