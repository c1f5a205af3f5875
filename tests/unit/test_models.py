import pytest

import perceivers as pv
from perceivers.recipes import get_recipe
from perceivers.recipes.files import write_recipe


def test_a_model_is_made_of_a_recipe_s_name_file_or_itself(tmp_path):
    write_recipe(get_recipe("digits"), tmp_path / "my.yaml")
    for recipe in ("digits", tmp_path / "my.yaml", get_recipe("digits")):
        assert pv.create_model(recipe).config == get_recipe("digits").model_config()


def test_an_unknown_recipe_suggests_the_nearest():
    with pytest.raises(KeyError, match="Did you mean 'digits'"):
        pv.create_model("digit")


def test_a_recipe_that_leaves_sizes_to_the_data_is_refused():
    with pytest.raises(ValueError, match=r"size|num_outputs"):
        pv.create_model("images", size="tiny")
