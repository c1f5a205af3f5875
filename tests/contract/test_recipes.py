"""What every recipe promises. A new recipe is tested by existing."""

import dataclasses

import pytest
import torch

from perceivers.models.perceiver import build
from perceivers.recipes import base


@pytest.mark.parametrize("name", base.list_recipes())
class TestEveryRecipe:
    def test_says_how_to_run_it_what_to_expect_and_where_it_is_from(self, name):
        doc = base._RECIPES[name].__doc__ or ""
        for word in ("Run:", "Expected:", "Source:"):
            assert word in doc
        assert f"--recipe {name}" in doc

    def test_is_called_as_it_is_named(self, name):
        assert base.get_recipe(name).name == name

    def test_is_plain_data_in_every_size(self, name):
        for size in base.sizes_of(name):
            dataclasses.asdict(base.get_recipe(name, size=size))  # no modules, no tensors

    def test_builds_in_every_size_and_gives_every_weight_a_gradient(self, name):
        for size in base.sizes_of(name):
            config = base.get_recipe(name, size=size).model_config()
            part = config.inputs["image"]
            part = dataclasses.replace(part, size=part.size or (32, 32))
            output = dataclasses.replace(config.output, num_outputs=config.output.num_outputs or 10)
            with torch.device("meta"):
                model = build(dataclasses.replace(config, inputs={"image": part}, output=output))
                image = torch.zeros(2, part.num_channels, *part.size)
                logits = model({"image": image})
            assert logits.shape == (2, output.num_outputs)
            logits.sum().backward()
            assert all(p.grad is not None for p in model.parameters())


def test_unknown_name_gets_a_suggestion():
    with pytest.raises(KeyError, match=r"Did you mean 'imagenet'\?"):
        base.get_recipe("imagnet")
    with pytest.raises(KeyError, match=r"No recipe is called 'zzz'. There are: digits, imagenet"):
        base.get_recipe("zzz")


def test_unknown_size_lists_those_there_are():
    with pytest.raises(
        ValueError, match="'images' comes in the sizes tiny, small, base; got 'huge'"
    ):
        base.get_recipe("images", size="huge")
    with pytest.raises(ValueError, match="'imagenet' comes in the sizes paper; got 'tiny'"):
        base.get_recipe("imagenet", size="tiny")
    assert base.get_recipe("imagenet", size="paper") == base.get_recipe("imagenet")
