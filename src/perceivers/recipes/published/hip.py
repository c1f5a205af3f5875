"""The Hierarchical Perceiver on ImageNet."""

from dataclasses import replace

from perceivers.inputs.image import PixelInputConfig
from perceivers.models.decoder import DecoderConfig, OutputConfig
from perceivers.models.hip_config import hip_config
from perceivers.outputs.heads import LinearHeadConfig
from perceivers.outputs.queries import LearnedQueriesConfig
from perceivers.recipes.published.imagenet import imagenet_io
from perceivers.recipes.registry import Recipe, recipe


@recipe
def hip_16() -> Recipe:
    """HiP-16: 50,176 raw pixels with learned positions in 16 groups, decoded to a class from the bottleneck.

    Blocks, positions and head are those of DeepMind's release up to the middle block. The query that stands for an
    unknown label, augmentation and optimizer are ours: the release has no training, so they are those of
    `imagenet_io`. The paper pretrains positions by masked autoencoding; without it 70.1 % are published.

    Run:      perceivers fit DATA --recipe hip_16
    Expected: 81.0 % top-1 as published, after masked autoencoding (not reproduced here); 95,308,296 weights, where
              97.9 million are printed; 44.2 GFLOPs.
    Reference: Hierarchical Perceiver (arXiv:2202.10890), tables of architectures and of ImageNet.
    """
    return _classifier("hip_16")


@recipe
def hip_256() -> Recipe:
    """HiP-256: 50,176 raw pixels with learned positions in 256 groups, decoded to a class from the bottleneck.

    As `hip_16`. The learned positions have half as many channels, and each group is 196 pixels.

    Run:      perceivers fit DATA --recipe hip_256
    Expected: 79.9 % top-1 as published, after masked autoencoding (not reproduced here), 68.1 % without; 95,669,016
              weights, where 102.3 million are printed; 46.3 GFLOPs.
    Reference: Hierarchical Perceiver (arXiv:2202.10890), tables of architectures and of ImageNet.
    """
    return _classifier("hip_256")


def _classifier(name: str) -> Recipe:
    """Return the recipe of a published architecture as a classifier of ImageNet."""
    encoder = hip_config(name)
    width = encoder.blocks[encoder.middle - 1].channels  # of the release's label tokens
    label = OutputConfig(
        queries=LearnedQueriesConfig(channels=width, init_scale=1.0),
        head=LinearHeadConfig(num_outputs=1000),
    )
    return replace(
        imagenet_io(),
        name=name,
        inputs={"image": PixelInputConfig(size=(224, 224), positions=None)},
        encoder=encoder,
        output=DecoderConfig(outputs={"label": label}, gelu="squared_relu"),
    )
