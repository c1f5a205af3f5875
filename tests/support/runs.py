"""Small data and small runs that tests share."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from perceivers.data.base import DataConfig
from perceivers.data.modalities.image.modality import ImagePreprocessConfig
from perceivers.hub import quantize
from perceivers.hub.checkpoint import save
from perceivers.inputs.image import PixelInputConfig
from perceivers.inputs.positions import FourierPositionsConfig
from perceivers.models.encoder import PerceiverEncoderConfig
from perceivers.models.perceiver import Perceiver, PerceiverConfig, build
from perceivers.outputs.heads import MeanPoolConfig
from perceivers.tasks.classification import ClassificationConfig

__all__ = ["TINY", "make_image_folder", "needs_int8", "save_run", "tiny_model"]

LABELS = ("dark", "light")

needs_int8 = pytest.mark.skipif(
    not quantize._has_kernels(), reason="no exact int8 kernels on this processor"
)

# Flags that make a run as small as it can be.
TINY = [
    *("--inputs.image.size", "8", "8"),
    *("--encoder.num-latents", "4", "--encoder.latent-channels", "16"),
    *("--encoder.num-blocks", "1", "--encoder.num-cross-attentions", "1"),
    *("--encoder.num-self-attends-per-block", "1", "--encoder.num-self-attend-heads", "2"),
    *("--max-epochs", "1", "--workers", "0", "--no-progress"),
]


def make_image_folder(
    folder: Path, *, labels: Sequence[str] = LABELS, count: int = 10, size: int = 10
) -> Path:
    """Write a folder of classes with `count` pictures each; later classes are lighter."""
    numbers = np.random.default_rng(0)
    for place, label in enumerate(labels):
        (folder / label).mkdir(parents=True, exist_ok=True)
        low = 200 * place // max(len(labels) - 1, 1)
        for index in range(count):
            pixels = numbers.integers(low, low + 50, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{index}.png")
    return folder


def tiny_model(num_outputs: int = 2) -> Perceiver:
    """Return a small model of pictures of 8 x 8 pixels whose head is not zero."""
    encoder = PerceiverEncoderConfig(
        num_latents=4,
        latent_channels=16,
        num_cross_attends=1,
        num_blocks=1,
        num_self_attends_per_block=1,
        num_self_attend_heads=2,
    )
    inputs = {"image": PixelInputConfig(size=(8, 8), positions=FourierPositionsConfig(num_bands=2))}
    output = MeanPoolConfig(num_outputs=num_outputs)
    model = build(PerceiverConfig(inputs=inputs, encoder=encoder, output=output))
    with torch.no_grad():
        model.output.to_logits.weight.normal_()
    return model


def save_run(
    folder: Path,
    *,
    data: Path | str | None = None,
    labels: Sequence[str] = LABELS,
    task: Mapping[str, object] | None = None,
    config: DataConfig | None = None,
) -> Path:
    """Write the folder of a run that learned nothing, as training leaves it."""
    save(
        folder,
        tiny_model(len(labels)),
        preprocess={"image": ImagePreprocessConfig.imagenet(size=(8, 8))},
        task=ClassificationConfig(label_names=tuple(labels), **(task or {})),
        columns={
            "data": None if data is None else str(data),
            "form": "a folder of classes",
            "inputs": {"image": "image"},
            "target": "label",
            "config": asdict(config or DataConfig()),
        },
    )
    return folder
