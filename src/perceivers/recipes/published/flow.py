"""Perceiver IO for optical flow: the output query of each pixel is its input element of the first frame."""

from dataclasses import replace
from typing import Any

from perceivers.data.base import DataConfig
from perceivers.data.modalities.flow.modality import (
    FlowPreprocessConfig,
    FramePairPreprocessConfig,
    PairAugmentConfig,
)
from perceivers.inputs.frame_pair import ConvFramePairInputConfig, FramePairInputConfig
from perceivers.inputs.positions import FourierPositionsConfig
from perceivers.models.decoder import DecoderConfig, OutputConfig
from perceivers.models.encoder import PerceiverEncoderConfig
from perceivers.outputs.heads import LinearHeadConfig
from perceivers.outputs.queries import InputQueriesConfig
from perceivers.recipes.common import own_optim
from perceivers.recipes.registry import OptimConfig, Recipe, TrainingConfig, recipe
from perceivers.tasks.flow import FlowConfig

_SIZES = ("paper", "tiny", "small", "base")
_SIZE = (368, 496)
_CELL = 4  # side of the cell of a stem element in pixels
# Side of a crop of a user's own data in pixels.
_WINDOWS = {"tiny": 32, "small": 64, "base": 128}


@recipe(sizes=_SIZES)
def flow(size: str = "paper") -> Recipe:
    """Optical flow at full resolution: 2,048 latents, and an output query for each of 182,528 pixels of two frames.

    `tiny`, `small` and `base` are ours, for your own frame pairs on a small machine: crops of 32, 64 and 128 pixels, a
    convolutional stem with elements of 4 x 4 pixels.

    Run:      perceivers fit DATA --recipe flow
    Expected: 41,057,134 weights in `paper`; `tiny` 0.15 pixels after 30 minutes on one core, on synthetic pairs, where
              predicting zero is off by 1.12 (docs/results/flow.md). Published: end-point errors of 1.81 on Sintel
              (clean) and 2.42 (final) after 480 epochs of AutoFlow, which is not reproduced here.
    Reference: Perceiver IO (arXiv:2107.14795), section 4.2 and appendix H; scales from DeepMind's release. The loss is
              not stated; the end-point error is ours.
    """
    return _paper("flow", num_latents=2048, num_layers=24) if size == "paper" else _own(size)


@recipe
def flow_small() -> Recipe:
    """Optical flow with 16 layers and 1,024 latents, whose parameters and operations the paper states.

    Run:      perceivers fit DATA --recipe flow_small
    Expected: 27,908,974 weights (published: 27.9 M).
    Reference: Perceiver IO (arXiv:2107.14795), section 4.2 and appendix H.
    """
    return _paper("flow_small", num_latents=1024, num_layers=16)


def _paper(name: str, *, num_latents: int, num_layers: int) -> Recipe:
    return Recipe(
        name=name,
        inputs={
            "frame_pair": FramePairInputConfig(
                size=_SIZE,
                patch=3,
                project_channels=64,
                positions=FourierPositionsConfig(num_bands=64, max_resolution=_SIZE),
            )
        },
        encoder=PerceiverEncoderConfig(
            num_latents=num_latents,
            latent_channels=512,
            num_cross_attends=1,
            num_blocks=1,
            num_self_attends_per_block=num_layers,
            num_cross_attend_heads=1,
            num_self_attend_heads=16,
        ),
        output=_decoder(num_outputs=2),
        task=FlowConfig(loss="epe", scale=20.0, tiles="fixed"),
        preprocess={
            "frame_pair": FramePairPreprocessConfig(size=_SIZE),
            "flow": FlowPreprocessConfig(size=_SIZE),
        },
        augment={"frame_pair": PairAugmentConfig(), "flow": PairAugmentConfig()},
        data=DataConfig(target="nothing"),
        optim=OptimConfig(name="lamb", lr=4e-4, schedule="cosine"),
        training=TrainingConfig(batch_size=512, max_epochs=480),
    )


def _own(size: str) -> Recipe:
    """Return a recipe with a stem over both frames: a small model learns slowly from pixels (docs/log.md)."""
    num_latents, width, num_layers, batch, lr = {
        "tiny": (32, 128, 2, 64, 2e-3),
        "small": (128, 256, 6, 128, 1e-3),
        "base": (512, 512, 12, 256, 5e-4),
    }[size]
    window = (_WINDOWS[size], _WINDOWS[size])
    return Recipe(
        name="flow",
        inputs={
            "frame_pair": ConvFramePairInputConfig(
                size=window,
                stem_channels=(3 * width // 8, 3 * width // 4),
                positions=FourierPositionsConfig(num_bands=4),
            )
        },
        encoder=PerceiverEncoderConfig(
            num_latents=num_latents,
            latent_channels=width,
            num_cross_attends=1,
            num_blocks=1,
            num_self_attends_per_block=num_layers,
            num_cross_attend_heads=4,
            num_self_attend_heads=width // 32,
            cross_attend_qk_channels=width,
        ),
        output=_decoder(
            num_outputs=2 * _CELL**2,
            num_heads=4,
            qk_channels=width,
            widening_factor=2,
            use_query_residual=True,
        ),
        task=FlowConfig(loss="epe", scale=20.0, cell=_CELL),
        preprocess={
            "frame_pair": FramePairPreprocessConfig(size=window),
            "flow": FlowPreprocessConfig(size=window),
        },
        augment={"frame_pair": PairAugmentConfig(), "flow": PairAugmentConfig()},
        data=DataConfig(target="nothing"),
        optim=replace(own_optim(lr, weight_decay=0.01), clip_norm=10.0),
        training=TrainingConfig(batch_size=batch),
    )


def _decoder(num_outputs: int, **shape: Any) -> DecoderConfig:
    head = LinearHeadConfig(num_outputs=num_outputs, init="zeros", scale=0.01)
    answer = OutputConfig(queries=InputQueriesConfig(modality="frame_pair"), head=head)
    return DecoderConfig(outputs={"flow": answer}, **shape)
