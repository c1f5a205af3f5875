"""Small Perceivers of Hugging Face with random weights, and data of other sizes and classes for them."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from support.files import write_video
from support.flow_data import make_chairs

__all__ = ["PUBLISHED", "make_data", "make_images", "make_videos", "save_published"]

_SMALL = {
    "num_latents": 6,
    "d_latents": 32,
    "num_blocks": 1,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 4,
    "num_cross_attention_heads": 1,
}
_TEXT = {
    "d_model": 48,
    "max_position_embeddings": 64,
    "num_cross_attention_heads": 8,
    "qk_channels": 32,
    "v_channels": 32,
}
_MULTIMODAL = {
    "d_model": 393,
    "num_frames": 2,
    "image_size": 4,
    "output_shape": [1, 2, 16, 16],
    "audio_samples_per_frame": 32,
    "samples_per_patch": 8,
    "num_labels": 5,
}

PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "fourier": ("PerceiverForImageClassificationFourier", {"d_model": 261}),
    "learned": ("PerceiverForImageClassificationLearned", {"d_model": 512, "image_size": 16}),
    "conv": ("PerceiverForImageClassificationConvProcessing", {"d_model": 322}),
    "language": ("PerceiverForMaskedLM", _TEXT),
    "flow": ("PerceiverForOpticalFlow", {"d_model": 322, "train_size": [32, 40]}),
    "multimodal": ("PerceiverForMultimodalAutoencoding", _MULTIMODAL),
}
"""Name of the model at Hugging Face and its settings, of the six that have DeepMind's weights."""


def save_published(name: str, folder: Path) -> Path:
    """Write a model with random weights as `save_pretrained` does, and return its folder."""
    transformers = pytest.importorskip("transformers")
    architecture, changes = PUBLISHED[name]
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = transformers.PerceiverConfig(**_SMALL | {"num_labels": 10} | changes)
        model = getattr(transformers, architecture)(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(0.1 * torch.randn_like(parameter) + (parameter == 1))
        model.save_pretrained(folder)
    return folder


def make_images(folder: Path, *, labels: str = "abc", count: int = 24) -> Path:
    """Write a folder of classes with images of several odd sizes, some of them gray."""
    numbers = np.random.default_rng(0)
    for number in range(count):
        path = folder / labels[number % len(labels)] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (15 + number % 5, 21 + number % 4) + ((3,) if number % 3 else ())
        Image.fromarray(numbers.integers(0, 256, size, dtype=np.uint8)).save(path)
    return folder


def make_texts(folder: Path) -> Path:
    """Write a table of short and long texts of two classes."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        f"a text {n} {'of words ' * (n % 12)},{'good' if n % 2 else 'bad'}\n" for n in range(40)
    ]
    (folder / "texts.csv").write_text("text,label\n" + "".join(rows))
    return folder / "texts.csv"


def make_videos(folder: Path) -> Path:
    """Write a folder of classes with videos of an odd size that have an audio track."""
    numbers = np.random.default_rng(0)
    for label in ("clap", "wave"):
        for number in range(4):
            path = folder / label / f"{number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            frames = numbers.integers(0, 255, (8, 30, 46, 3), dtype=np.uint8)
            tone = np.sin(np.arange(0.8 * 16_000) * (number + 1) / 20)
            with path.open("wb") as file:
                write_video(file, frames, rate=10, audio=tone, audio_rate=16_000)
    return folder


def make_pairs(folder: Path) -> Path:
    """Write pairs of frames with their flow, lower and wider than the model's input."""
    return make_chairs(folder, count=6, size=(21, 61))


_DATA: dict[str, Callable[[Path], Path]] = {
    "language": make_texts,
    "flow": make_pairs,
    "multimodal": make_videos,
}


def make_data(name: str, folder: Path) -> Path:
    """Write data that a published model is fine-tuned on, and return their path."""
    return _DATA.get(name, make_images)(folder)
