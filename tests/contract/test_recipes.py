"""What every recipe promises. A new recipe is tested by existing."""

import dataclasses

import pytest
import torch

from perceivers.data.modalities.registry import build_modalities
from perceivers.models.perceiver import build
from perceivers.recipes import registry as base
from perceivers.recipes.assume import assume
from perceivers.recipes.files import dump_recipe, parse_recipe
from perceivers.recipes.resolve import preprocess_for


def measured_enough(part):
    """Return preprocessing with statistics that the data would tell."""
    told = {"scale": 1.0, "mean": 0.0, "std": 1.0}
    if part.kind in {"image", "video"}:
        told |= {"mean": (0.5,) * 3, "std": (0.2,) * 3}
    if part.kind == "series":
        told |= {"mean": (0.0,) * len(part.channels), "std": (1.0,) * len(part.channels)}
    fields = {f.name for f in dataclasses.fields(part)}
    missing = {k: v for k, v in told.items() if k in fields and getattr(part, k) is None}
    return dataclasses.replace(part, **missing)


@pytest.mark.parametrize("name", base.list_recipes())
class TestEveryRecipe:
    def test_says_how_to_run_it_what_to_expect_and_where_it_is_from(self, name):
        doc = base.recipe_function(name).__doc__ or ""
        for word in ("Run:", "Expected:", "Reference:"):
            assert word in doc
        assert f"--recipe {name}" in doc

    def test_is_called_as_it_is_named(self, name):
        assert base.get_recipe(name).name == name

    def test_is_plain_data_in_every_size(self, name):
        for size in base.sizes_of(name):
            dataclasses.asdict(base.get_recipe(name, size=size))  # no modules, no tensors

    def test_builds_in_every_size_and_gives_every_weight_a_gradient(self, name):
        for size in base.sizes_of(name):
            recipe, _ = assume(base.get_recipe(name, size=size))
            with torch.device("meta"):
                model = build(recipe.model_config()).train()
                inputs = {key: adapter.example(2) for key, adapter in model.inputs.items()}
                outputs = model(inputs)
            if recipe.output.num_outputs is not None:
                assert (outputs.shape[0], outputs.shape[-1]) == (2, recipe.output.num_outputs)
            each = outputs.values() if isinstance(outputs, dict) else [outputs]
            sum(part.sum() for part in each).backward()
            assert all(p.grad is not None for p in model.parameters())

    def test_is_read_back_from_what_is_printed(self, name):
        for size in base.sizes_of(name):
            recipe = base.get_recipe(name, size=size)
            assert parse_recipe(dump_recipe(recipe)) == recipe

    def test_augments_and_prepares_only_what_it_reads(self, name):
        recipe = base.get_recipe(name)
        assert set(recipe.augment) <= {*recipe.inputs, *recipe.task.target_modalities}
        assert set(recipe.preprocess) <= {*recipe.inputs, *recipe.task.target_modalities}
        assert set(recipe.task.target_modalities).isdisjoint(recipe.inputs)
        assert set(recipe.fusion.modality_dropout) <= set(recipe.inputs)
        filled, _ = assume(recipe)
        build_modalities(
            {
                key: measured_enough(preprocess_for(filled, key) if key in filled.inputs else part)
                for key, part in filled.preprocess.items()
            },
            {key: part for key, part in filled.augment.items() if key in filled.preprocess},
        )


def test_unknown_name_gets_a_suggestion():
    with pytest.raises(KeyError, match=r"Did you mean 'imagenet'\?"):
        base.get_recipe("imagnet")
    with pytest.raises(
        KeyError, match=r"No recipe is called 'zzz'. There are: arrays, audio, audio_raw"
    ):
        base.get_recipe("zzz")


def test_unknown_size_lists_those_there_are():
    with pytest.raises(
        ValueError, match="'images' comes in the sizes tiny, small, base; got 'huge'"
    ):
        base.get_recipe("images", size="huge")
    with pytest.raises(ValueError, match="'imagenet' comes in the sizes paper; got 'tiny'"):
        base.get_recipe("imagenet", size="tiny")
    assert base.get_recipe("imagenet", size="paper") == base.get_recipe("imagenet")
