"""Losses of 20 training steps, kept as text. A refactor leaves them as they are.

`make golden` rewrites the files; the diff is reviewed. A change of numbers shows its learning curve.
"""

import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from perceivers.inputs.image import PatchInputConfig, PixelInputConfig
from perceivers.models.perceiver import PerceiverConfig, build
from perceivers.outputs.heads import MeanPoolConfig
from perceivers.recipes import OptimConfig, Recipe, get_recipe
from perceivers.tasks.classification import ClassificationTask
from perceivers.training.optim import build_optimizer, learning_rate
from support.tolerance import GOLDEN

STEPS = 20
LABELS = tuple("abcde")


def tiny(recipe: Recipe, *, size: tuple[int, int]) -> Recipe:
    """The recipe for small pictures of five classes, otherwise as it is."""
    return replace(
        recipe,
        inputs={"image": replace(recipe.inputs["image"], size=size)},
        output=MeanPoolConfig(num_outputs=len(LABELS)),
        task=replace(recipe.task, label_names=LABELS),
    )


def recipes() -> dict[str, Recipe]:
    """What is trained: each tiny recipe, and what they leave out (LAMB, patches, other sharing)."""
    digits = get_recipe("digits")
    lamb = OptimConfig(lr=1e-2, weight_decay=0.01, schedule="cosine", warmup_fraction=0.05)
    pixels = replace(digits.inputs["image"], num_channels=3)
    patches = PatchInputConfig(patch=(2, 2), positions=pixels.positions)
    return {
        "digits": tiny(digits, size=(8, 8)),
        "images_tiny": tiny(get_recipe("images", size="tiny"), size=(16, 16)),
        "pixels_unshared": tiny(
            replace(
                digits,
                inputs={"image": PixelInputConfig(positions=pixels.positions)},
                optim=lamb,
                encoder=replace(digits.encoder, share_cross_attends="none", share_blocks=False),
            ),
            size=(6, 10),
        ),
        "patches_at_start": tiny(
            replace(
                digits,
                inputs={"image": patches},
                optim=lamb,
                encoder=replace(
                    digits.encoder, cross_attends_at="start", share_cross_attends="all"
                ),
            ),
            size=(8, 8),
        ),
    }


def losses(recipe: Recipe) -> list[float]:
    """Train for a few steps on one fixed batch of noise, without a trainer."""
    torch.manual_seed(0)
    model = build(
        PerceiverConfig(inputs=recipe.inputs, encoder=recipe.encoder, output=recipe.output)
    )
    task = ClassificationTask(recipe.task)
    optimizer = build_optimizer(model, recipe.optim)
    adapter = recipe.inputs["image"]
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(10, adapter.num_channels, *adapter.size, generator=generator)
    targets = torch.arange(10) % len(LABELS)
    found: list[float] = []
    for step in range(STEPS):
        # Half a run's progress per test: the schedule is in it, and has not ended.
        rate = learning_rate(recipe.optim, progress=(step + 1) / (2 * STEPS), step=step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = task.loss(model({"image": images}), targets)
        optimizer.zero_grad()
        loss.backward()
        if recipe.optim.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.optim.clip_norm)
        optimizer.step()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("name", list(recipes()))
def test_losses_are_those_on_file(name):
    found = losses(recipes()[name])
    path = Path(__file__).parent / f"{name}.txt"
    if os.environ.get("GOLDEN") == "rewrite":
        path.write_text("".join(f"{step} {loss:.7g}\n" for step, loss in enumerate(found)))
    expected = [float(line.split()[1]) for line in path.read_text().splitlines()]
    assert found == pytest.approx(expected, rel=GOLDEN, abs=1e-5)


@pytest.mark.parametrize("name", list(recipes()))
def test_losses_on_file_are_those_of_a_model_that_learns(name):
    path = Path(__file__).parent / f"{name}.txt"
    kept = [float(line.split()[1]) for line in path.read_text().splitlines()]
    assert len(kept) == STEPS
    assert kept[0] == pytest.approx(math.log(len(LABELS)), abs=0.8)
    assert kept[-1] < kept[0]


@pytest.mark.parametrize("path", ["structured", "absorbed", "projected"])
@pytest.mark.parametrize("name", list(recipes()))
def test_losses_on_file_are_those_of_every_way_to_read(name, path):
    recipe = recipes()[name]
    found = losses(replace(recipe, encoder=replace(recipe.encoder, attn_implementation=path)))
    kept = Path(__file__).parent / f"{name}.txt"
    expected = [float(line.split()[1]) for line in kept.read_text().splitlines()]
    assert found == pytest.approx(expected, rel=GOLDEN, abs=1e-5)
