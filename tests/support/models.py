"""Tiny untrained models of every modality, and the preprocessing of their inputs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from perceivers.data.modalities.array.modality import ArrayPreprocessConfig
from perceivers.data.modalities.audio.modality import MelPreprocessConfig, WavePreprocessConfig
from perceivers.data.modalities.image.modality import ImagePreprocessConfig
from perceivers.data.modalities.points.modality import PointsPreprocessConfig
from perceivers.data.modalities.series.modality import SeriesPreprocessConfig
from perceivers.data.modalities.table.modality import TablePreprocessConfig
from perceivers.data.modalities.text.modality import TextPreprocessConfig
from perceivers.data.modalities.video.modality import VideoPreprocessConfig
from perceivers.hub.checkpoint import save
from perceivers.inputs.image import PixelInputConfig
from perceivers.inputs.positions import FourierPositionsConfig
from perceivers.models.encoder import PerceiverEncoderConfig
from perceivers.models.perceiver import Perceiver, PerceiverConfig, build
from perceivers.outputs.heads import MeanPoolConfig
from perceivers.recipes.common import Size
from perceivers.recipes.own_data import part_of
from perceivers.recipes.registry import get_recipe
from perceivers.recipes.resolve import fill_input
from perceivers.tasks.classification import ClassificationConfig
from support.files import RATE
from support.modality_data import LABELS

__all__ = [
    "preprocess_of",
    "save_generating",
    "save_untrained",
    "tiny_encoder",
    "tiny_model",
    "untrained",
]


def tiny_encoder(**changes: Any) -> PerceiverEncoderConfig:
    """Return an encoder of one cross-attention and one self-attention layer."""
    tiny: dict[str, Any] = {
        "num_latents": 4,
        "latent_channels": 16,
        "num_cross_attends": 1,
        "num_blocks": 1,
        "num_self_attends_per_block": 1,
        "num_self_attend_heads": 2,
    }
    return PerceiverEncoderConfig(**tiny | changes)


def tiny_model(num_outputs: int = 2) -> Perceiver:
    """Return a small model of images of 8 x 8 pixels whose head is not zero."""
    inputs = {"image": PixelInputConfig(size=(8, 8), positions=FourierPositionsConfig(num_bands=2))}
    output = MeanPoolConfig(num_outputs=num_outputs)
    model = build(PerceiverConfig(inputs=inputs, encoder=tiny_encoder(), output=output))
    with torch.no_grad():
        model.output.to_logits.weight.normal_()
    return model


def save_generating(folder: Path, recipe_name: str = "text_ar", **changes: Any) -> Path:
    """Write an untrained run of the next token with 16 latents and contexts of 64 bytes or events."""
    recipe = get_recipe(recipe_name)
    (modality,) = recipe.inputs
    small: dict[str, Any] = {"max_length": 65, "num_latents": 16, "channels": 16, "num_layers": 1}
    torch.manual_seed(0)
    model = build(
        replace(
            recipe.model_config(),
            inputs={modality: replace(recipe.inputs[modality], max_length=64)},
            encoder=replace(recipe.encoder, **small | changes),
        )
    )
    with torch.no_grad():
        model.encoder.model.to_logits.weight.normal_(std=0.5)
    save(
        folder,
        model,
        preprocess={modality: replace(recipe.preprocess[modality], max_length=64)},
        task=recipe.task,
    )
    return folder


def preprocess_of(kind: str) -> Any:
    """Return the complete preprocessing of one kind of input of a tiny model."""

    half = (0.5, 0.5, 0.5)
    audio: dict[str, Any] = {"sample_rate": RATE, "seconds": 0.4}
    steps: dict[str, Any] = {"length": 32, "channels": ("x", "y")}
    whole: dict[str, Any] = {"length": 24, "num_channels": 3}
    known: dict[str, Any] = {
        "image": ImagePreprocessConfig.imagenet(size=(8, 8)),
        "audio": MelPreprocessConfig(**audio, num_mels=16, mean=-8.0, std=4.0),
        "wave": WavePreprocessConfig(**audio, scale=0.3),
        "video": VideoPreprocessConfig(
            num_frames=8, frame_rate=10.0, size=(16, 16), mean=half, std=half
        ),
        "points": PointsPreprocessConfig(num_points=32, num_channels=0),
        "text": TextPreprocessConfig(max_length=256, keep="random"),
        "series": SeriesPreprocessConfig(**steps, rate=20.0, irregular=False, has_missing=True),
        "irregular": SeriesPreprocessConfig(**steps, irregular=True, has_missing=False),
        "array": ArrayPreprocessConfig(**whole, num_coordinates=0),
        "places": ArrayPreprocessConfig(**whole, num_coordinates=2),
        "table": TablePreprocessConfig(numbers=("age",), categories={"color": ("red", "blue")}),
    }
    return known[kind]


# Kinds of above that are another way to read one of the modalities.
SAME = {"irregular": "series", "places": "array"}


def untrained(*kinds: str, element_pools: tuple[Any, ...] = ()) -> tuple[Perceiver, dict[str, Any]]:
    """Return a tiny model that learned nothing, whose head is not zero, and what prepares samples for it."""

    size = Size(4, 16, 2, 1, 1, 4, 1e-3, 8, 16)
    preprocess = {kind: preprocess_of(kind) for kind in kinds}
    inputs: dict[str, Any] = {}
    for kind, known in preprocess.items():
        part = part_of(SAME.get(kind, kind), size).input
        if kind == "image":
            inputs[kind] = replace(part, size=known.size)
        else:
            inputs[kind] = fill_input(part, known)
    encoder = tiny_encoder(num_cross_attends=2, num_blocks=2)
    output = MeanPoolConfig(num_outputs=2, element_pools=element_pools)
    model = build(PerceiverConfig(inputs=inputs, encoder=encoder, output=output))
    with torch.no_grad():
        model.output.to_logits.weight.normal_()
        for pool in model.output.element_pools.values():
            pool.to_logits.weight.normal_()
    return model.eval(), preprocess


def save_untrained(folder: Path, *kinds: str, element_pools: tuple[Any, ...] = ()) -> Path:
    """Write the folder of a run that learned nothing, as training leaves it."""

    model, preprocess = untrained(*kinds, element_pools=element_pools)
    column = {"video": "film"} if "video" in kinds else {}
    inputs = {
        kind: {
            "column": column.get("video", kind),
            "kind": {"wave": "audio", **SAME}.get(kind, kind),
            "columns": (),
            "kinds": (),
        }
        for kind in kinds
    }
    save(
        folder,
        model,
        preprocess=preprocess,
        task=ClassificationConfig(label_names=LABELS),
        columns={"data": None, "form": "files", "inputs": inputs, "target": "label", "config": {}},
    )
    return folder
