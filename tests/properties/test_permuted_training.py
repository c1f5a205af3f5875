"""Training does not know the order of the elements: the papers' permuted ImageNet, in exact arithmetic."""

from dataclasses import replace

import pytest
import torch

from perceivers.inputs.image import ConvInputConfig
from perceivers.inputs.positions import FourierPositionsConfig, LearnedPositionsConfig
from perceivers.models.perceiver import build
from perceivers.recipes import get_recipe
from perceivers.tasks.classification import ClassificationConfig, ClassificationTask
from perceivers.training.optim import build_optimizer
from support.tolerance import assert_close

DIGITS = get_recipe("digits")
LEARNED = replace(DIGITS.inputs["image"], positions=LearnedPositionsConfig(channels=6))
CONVOLVED = ConvInputConfig(
    size=(8, 8),
    num_channels=1,
    stem_channels=8,
    kernel=3,
    positions=FourierPositionsConfig(num_bands=2),
)


def losses(recipe, permute):
    """Return the losses of a few steps in float64, where rounding cannot hide a difference."""
    torch.manual_seed(0)
    model = build(replace(recipe.model_config(), permute=permute)).double()
    optimizer = build_optimizer(model, recipe.optim)
    names = tuple("0123456789")
    task = ClassificationTask(ClassificationConfig(label_names=names))
    images = torch.randn(16, 1, 8, 8, dtype=torch.float64)
    targets = torch.randint(10, (16,))
    seen = []
    for _ in range(8):
        optimizer.zero_grad()
        # the task's loss is float32 on purpose; the comparison is of the outputs
        outputs = model({"image": images})
        torch.nn.functional.cross_entropy(outputs, targets).backward()
        optimizer.step()
        seen.append(task.loss(outputs, targets).double().detach())
        seen.append(outputs.detach().norm())
    return torch.stack(seen)


@pytest.mark.parametrize(
    "part", [DIGITS.inputs["image"], LEARNED, CONVOLVED], ids=["fourier", "learned", "convolved"]
)
def test_permuted_training_is_unpermuted_training(part):
    recipe = replace(DIGITS, inputs={"image": part})
    plain, permuted = losses(recipe, None), losses(recipe, 7)
    assert plain[-2] < plain[0]  # it does learn
    assert_close(permuted, plain)


@pytest.mark.parametrize("path", ["structured", "absorbed"])
@pytest.mark.parametrize(
    "part", [DIGITS.inputs["image"], LEARNED, CONVOLVED], ids=["fourier", "learned", "convolved"]
)
def test_training_does_not_know_how_it_reads(part, path):
    recipe = replace(DIGITS, inputs={"image": part})
    ways = [replace(recipe.encoder, attn_implementation=way) for way in ("projected", path)]
    plain, other = (losses(replace(recipe, encoder=way), None) for way in ways)
    assert_close(other, plain)
