"""An answer for every pixel of one's own pictures: a second picture, or a map of classes. In three sizes."""

from typing import Any

from perceivers.data.base import DataConfig, ImageAugmentConfig
from perceivers.data.modalities.image.pixel_targets import (
    ClassMapPreprocessConfig,
    PixelsPreprocessConfig,
)
from perceivers.inputs.image import PatchInputConfig
from perceivers.inputs.positions import FourierPositionsConfig
from perceivers.models.decoder import DecoderConfig, OutputConfig
from perceivers.models.encoder import PerceiverEncoderConfig
from perceivers.outputs.heads import LinearHeadConfig
from perceivers.outputs.queries import InputQueriesConfig
from perceivers.recipes.common import SIZES, own_optim
from perceivers.recipes.registry import Recipe, TrainingConfig, recipe
from perceivers.tasks.dense import PIXELS, ImageToImageConfig, SegmentationConfig

__all__ = ["dense", "segmentation"]


@recipe
def segmentation(size: str = "tiny") -> Recipe:
    """The class of every pixel: pictures beside maps of class indices (PNG, gray or with a palette).

    Patches of 4 x 4 pixels are read, and each of them with its position is the query that answers for its pixels.

    Run:      perceivers fit DATA --recipe segmentation
    Expected: docs/results/dense.md has made-up shapes.
    Source:   Ours, of the paper's parts: queries that are elements of the input as in optical flow, Perceiver IO
              (arXiv:2107.14795), section 4.2.
    """
    return _dense("segmentation", SegmentationConfig(), ClassMapPreprocessConfig(), size)


@recipe
def dense(size: str = "tiny") -> Recipe:
    """A second picture of the same scene: colors from gray, less noise, depth.

    Run:      perceivers fit DATA --recipe dense
    Expected: Not measured yet; docs/results/dense.md has `segmentation`.
    Source:   Ours, of the paper's parts, as `segmentation`.
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
            # Every place of the picture is to be remembered: more latents than a class needs.
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
        # The query is added to what it reads: what a pixel is like says much of what becomes of it.
        output=DecoderConfig(
            answers={PIXELS: answer},
            num_heads=4,
            qk_channels=width,
            v_channels=width,
            widening_factor=2,
            use_query_residual=True,
        ),
        task=task,
        preprocess={"target": target},
        data=DataConfig(target="nothing", largest_image=dials.largest_image),
        augment={"image": ImageAugmentConfig(crop_scale=(0.6, 1.0), flip=True)},
        optim=own_optim(dials.lr),
        training=TrainingConfig(batch_size=dials.batch_size // 4),
    )


for _one in (dense, segmentation):
    _one.sizes = tuple(SIZES)  # type: ignore[attr-defined]
