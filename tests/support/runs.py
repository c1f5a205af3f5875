"""Run folders, written without training."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from perceivers.data.base import DataConfig
from perceivers.data.modalities.image.modality import ImagePreprocessConfig
from perceivers.hub import quantize
from perceivers.hub.checkpoint import save
from perceivers.recipes.files import write_recipe
from perceivers.recipes.registry import Recipe, TrainingConfig
from perceivers.runs.summary import RunSummary, write_summary
from perceivers.tasks.classification import ClassificationConfig
from support.models import tiny_model

__all__ = [
    "LABELS",
    "make_finished_run",
    "make_image_folder",
    "make_recipe",
    "needs_int8",
    "save_run",
]

LABELS = ("dark", "light")

needs_int8 = pytest.mark.skipif(
    not quantize._has_kernels(), reason="no exact int8 kernels on this processor"
)


def make_image_folder(
    folder: Path, *, labels: Sequence[str] = LABELS, count: int = 10, size: int = 10
) -> Path:
    """Write a folder of classes with `count` images each; later classes are lighter."""
    numbers = np.random.default_rng(0)
    for place, label in enumerate(labels):
        (folder / label).mkdir(parents=True, exist_ok=True)
        low = 200 * place // max(len(labels) - 1, 1)
        for index in range(count):
            pixels = numbers.integers(low, low + 50, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{index}.png")
    return folder


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


def make_recipe(**changes: Any) -> Recipe:
    model = tiny_model().config
    recipe = Recipe(
        name="images",
        inputs=dict(model.inputs),
        encoder=model.encoder,
        output=model.output,
        task=ClassificationConfig(label_names=LABELS),
        training=TrainingConfig(batch_size=16, max_epochs=2),
    )
    return replace(recipe, **changes)


def make_finished_run(
    folder: Path,
    *,
    data: Path | None = None,
    ended: bool = True,
    facts: bool = True,
    **changes: Any,
) -> Path:
    """Write a run of 20 steps on dark and light images, with an accuracy of 75 % on 8 of them."""
    recipe = make_recipe(**changes)
    data = data or make_image_folder(folder.parent / "birds")
    folder.mkdir(parents=True, exist_ok=True)
    write_recipe(recipe, folder / "recipe.yaml")
    rows: list[dict[str, float]] = []
    for step in (10, 20):
        rows.append({"step": step, "epoch": step / 10, "elapsed": step / 5, "lr": 0.1 / step})
        rows[-1] |= {"train/loss": 1 / step, "validation/loss": 2 / step}
        rows[-1] |= {"validation/accuracy": 0.5 + step / 80, "validation/samples": 8.0}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if not ended:
        return folder
    save_run(folder, data=data, config=recipe.data or DataConfig())
    if facts:
        write_summary(
            folder,
            RunSummary(
                name=recipe.name,
                command=f"perceivers fit {data} --out {folder}",
                metrics={"accuracy": 0.75, "loss": 0.1, "samples": 8.0},
                main_metric="accuracy",
                num_parameters=1234,
                steps=20,
                best_step=20,
                epochs=2.0,
                seconds=4.0,
                device="1 x cpu, float32",
                notes=["Recognized a folder of classes.", f"Read from {data}."],
                bad=[(f"{data}/dark/9.png", "it is truncated")],
                label_names=LABELS,
                confusion=torch.tensor([[4, 0], [2, 2]]),
                versions={"torch": "2.11"},
            ),
        )
    return folder
